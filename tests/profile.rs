use records::device::gpu::driver::Gpu;
use records::profile::{data::Given, plan::Plan};
use records::settings::presets;

#[test]
fn dump() {
    for (arch, sms) in [(86, 82), (90, 132)] {
        let gpu = Gpu { name: "g".into(), architecture: arch, multiprocessors: sms, shared_bytes: 99 << 10 };
        for preset in presets::PRESETS {
        let t = std::time::Instant::now();
        let plan = Plan::new(&preset.settings(), Given::default(), gpu.clone()).unwrap_or_else(|e| panic!("{}: {e:#}", preset.name));
        println!("{} {arch}: step {} begin {} end {} eval {} steps {} samples {} {:?}", preset.name, plan.step.len(), plan.begin_epoch.len(), plan.end_epoch.len(), plan.evaluation.len(), plan.steps, plan.samples, t.elapsed());
        if arch == 86 && preset.name == "records-cifar10" {
        for p in &plan.step {
            let w = p.launch.work.as_ref();
            println!("{:30} {:28} {:40} {:?} {:?} {} {:?}", p.layer, p.launch.operation, p.launch.kernel.name, p.launch.grid, p.launch.block, p.launch.shared_bytes, w.map(|w| (w.flops, w.read_bytes(), w.written_bytes(), w.tensor_flops())));
        }}
        }
    }
}
