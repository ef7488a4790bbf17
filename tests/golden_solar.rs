//! Steps of SoLar against the reference: losses, weights, confidence rows, the queue and the chosen samples,
//! on a linear network.

#[path = "support/solar_steps.rs"]
mod solar_steps;
mod support;

use records::device::Device;
use records::device::cpu::CpuDevice;
use records::ops::statistics::counter;
use records::pll::Learner;
use records::pll::method::EpochControl;
use records::pll::solar::ramps;
use records::pll::solar::settings::SolarSettings;
use records::settings::Settings;
use records::train::tensor_file::TensorFile;
use solar_steps::SolarSteps;
use support::{assert_close, golden};

/// f32 against PyTorch's f32, through up to twelve steps of SGD and fifty rounds of Sinkhorn in each.
const TOLERANCE: f64 = 1e-4;

fn number(file: &TensorFile, key: &str) -> f64 {
    file.metadata[key].parse().unwrap_or_else(|_| panic!("{key}: {}", file.metadata[key]))
}

fn solar_settings(file: &TensorFile) -> SolarSettings {
    let rho: Vec<f64> = file.metadata["rho"].split(',').map(|word| word.parse().unwrap()).collect();
    SolarSettings {
        queue_length: number(file, "queue_batches") as usize,
        lambda: number(file, "lamd"),
        eta: number(file, "eta"),
        tau: number(file, "tau"),
        rho: [rho[0], rho[1]],
        warmup_epochs: number(file, "warmup") as usize,
        ..Settings::default().of_method()
    }
}

#[test]
fn steps_match_the_reference() {
    for (path, file) in golden("solar_") {
        let mut device = CpuDevice::new(2).unwrap();
        let (shape, candidates) = file.u8("candidates").unwrap();
        let classes = shape[1];
        let (shape, _) = file.f32("step00.weak").unwrap();
        let (batch, len) = (shape[0], shape[1..].iter().product::<usize>());
        let settings = solar_settings(&file);
        let optimiser = ["momentum", "weight_decay"].map(|key| number(&file, key) as f32);
        let on = SolarSteps::new(&settings, [batch, len, classes, 1], candidates, optimiser, &mut device);
        let (refinery, mixup) = (&on.solar.refinery, on.solar.mixup().unwrap());
        device.write_f32(refinery.class_prior, file.f32("class_prior").unwrap().1).unwrap();
        device.write_f32(on.store.confidence, file.f32("confidence").unwrap().1).unwrap();
        let initial = [file.f32("weight").unwrap().1, file.f32("bias").unwrap().1].concat();
        device.write_f32(on.values, &initial).unwrap();

        let steps = (0..).take_while(|n| file.tensors.contains_key(&format!("step{n:02}.weak"))).count();
        assert!(steps >= 12, "{path}: {steps} steps");
        for n in 0..steps {
            let tensor = |name: &str| file.f32(&format!("step{n:02}.{name}")).unwrap().1;
            let integers = |name: &str| -> Vec<i32> {
                let values = file.i64(&format!("step{n:02}.{name}")).unwrap().1;
                values.iter().map(|&i| i as i32).collect()
            };
            device.write_f32(on.views[0], tensor("weak")).unwrap();
            device.write_f32(on.views[1], tensor("strong")).unwrap();
            device.write_i32(on.index, &integers("index")).unwrap();
            let epoch = number(&file, &format!("step{n:02}.epoch")) as usize;
            let own = ramps(&settings, epoch);
            let learning_rate = number(&file, "lr");
            let control = EpochControl { learning_rate, update: true, alpha: 0.0, own };
            on.state.set(&mut device, control).unwrap();
            // The file holds l as drawn.
            let drawn = tensor("lambda")[0];
            device.write_f32(mixup.weights, &[drawn.max(1.0 - drawn)]).unwrap();
            let mut permutation = match epoch {
                0 => Vec::new(),
                _ => integers("perm_of_chosen"),
            };
            let wanted = permutation.len();
            permutation.extend(wanted as i32..batch as i32);
            device.write_i32(mixup.permutations, &permutation).unwrap();
            device.replay(&on.plan).unwrap();

            let what = |name: &str| format!("{path}: step {n}, {name}");
            let chosen = device.read_i32(on.exposed("chosen")).unwrap();
            assert_eq!(chosen.iter().sum::<i32>() as usize, wanted, "{}", what("chosen samples"));
            let loss = device.read_f32(on.state.counters).unwrap()[counter::LAST_LOSS];
            assert_close(&what("loss"), &[loss], tensor("loss"), TOLERANCE);
            let weight = &device.read_f32(on.values).unwrap()[..classes * len];
            assert_close(&what("weight"), weight, tensor("out.weight"), TOLERANCE);
            let confidence = device.read_f32(on.store.confidence).unwrap();
            assert_close(&what("confidence"), &confidence, tensor("out.confidence"), TOLERANCE);
            let queue = refinery.export_queue(&mut device).unwrap();
            let head = &queue[..batch * classes];
            assert_close(&what("head of the queue"), head, tensor("out.queue_head"), TOLERANCE);
        }
    }
}
