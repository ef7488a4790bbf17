//! Whole training steps on the device under test against the CPU, and the driver calls of an epoch.
//!
//! RECORDS_TEST_DEVICE names the device, `sim` (default) or `cuda`.

use std::collections::BTreeMap;

use records::autograd::Tape;
use records::device::cpu::{CpuDevice, RoundedCpu};
use records::device::gpu::driver::Activity;
use records::device::gpu::launch::Launch;
use records::device::gpu::sim::SimDriver;
use records::device::gpu::{GpuDevice, Precision};
use records::device::{Device, Element};
use records::nn::resnet::BlockKind;
use records::nn::{self, Mode, Network, Parameters, ResNet, StateDict, WideResNet};
use records::ops::control;
use records::optim::{self, Hyperparameters};
use records::pll;
use records::random::philox::{Purpose, Stream};
use records::settings::{Debias, Settings};
use records::train::model::Model;
use records::train::replay::replay;
use records::train::run::recipe;
use records::train::tensor_file::{TensorFile, Values};
use records::train::training::Training;

fn kernels(precision: Precision) -> GpuDevice {
    let name = std::env::var("RECORDS_TEST_DEVICE").unwrap_or_else(|_| "sim".into());
    name.parse()
        .and_then(|kind| records::device::gpu::open(kind, precision))
        .unwrap_or_else(|error| panic!("RECORDS_TEST_DEVICE={name}: {error:#}"))
}

/// A replay case of `steps` steps of `batch` samples of size x size on a network of width 8, all values
/// random.
fn case(arch: &str, steps: usize, [batch, size]: [usize; 2], classes: usize, debias: &str) -> TensorFile {
    let mut stream = Stream::new(41, Purpose::Initialisation, 0, 0, 0);
    let mut file = TensorFile::default();
    let samples = 2 * batch + 3;
    let shape = vec![steps, batch, 3, size, size];
    let len = shape.iter().product();
    for name in ["batch.weak", "batch.strong"] {
        let values = (0..len).map(|_| stream.normal() as f32).collect();
        file.tensors.insert(name.into(), (shape.clone(), Values::F32(values)));
    }
    let index: Vec<i64> =
        (0..steps).flat_map(|_| stream.permutation(samples)[..batch].to_vec()).map(|i| i as i64).collect();
    file.tensors.insert("batch.index".into(), (vec![steps, batch], Values::I64(index)));
    let mut candidates: Vec<u8> = (0..samples * classes).map(|_| u8::from(stream.unit() < 0.4)).collect();
    for row in candidates.chunks_exact_mut(classes) {
        row[stream.below(classes as u32) as usize] = 1;
    }
    file.tensors.insert("candidates".into(), (vec![samples, classes], Values::U8(candidates)));
    for (key, value) in [
        ("arch", arch),
        ("width", "8"),
        ("method", "corr"),
        ("debias", debias),
        ("update", "true"),
        ("lr", "0.05"),
        ("weight_decay", "1e-3"),
    ] {
        file.metadata.insert(key.into(), value.into());
    }
    let mut device = CpuDevice::new(1).unwrap();
    let network = nn::registry::find(arch).unwrap()(8, classes);
    let parameters = Parameters::new(&*network, 5, &mut device).unwrap();
    file.extend(parameters.export(parameters.values, &mut device).unwrap());
    file
}

/// The largest relative distance (2-norm of the difference over the 2-norm) of the tensors whose names begin
/// with `prefix`.
fn worst(prefix: &str, ours: &StateDict, theirs: &StateDict) -> (f64, String) {
    let mut worst = (0.0, String::new());
    for (name, (_, a)) in ours.iter().filter(|(name, _)| name.starts_with(prefix)) {
        let b = &theirs[name].1;
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let difference = square(&mut a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
        let norm = square(&mut b.iter().map(|&b| f64::from(b)));
        let distance = if difference == 0.0 { 0.0 } else { difference / norm };
        if distance > worst.0 || distance.is_nan() {
            worst = (distance, name.clone());
        }
    }
    worst
}

/// One step with the kernels and on the CPU that rounds where they do, for ResNet-18 on images of 16 x 16.
fn compare(precision: Precision, debias: &str, batch: usize, classes: usize, limits: &[(&str, f64)]) {
    compare_step(precision, &case("resnet18", 1, [batch, 16], classes, debias), limits);
}

fn compare_step(precision: Precision, case: &TensorFile, limits: &[(&str, f64)]) {
    let what = format!("{precision:?} {} {}", case.metadata["arch"], case.metadata["debias"]);
    let cpu = CpuDevice::new(0).unwrap();
    let cpu = match precision {
        Precision::F32 => replay(case, &mut { cpu }),
        Precision::Bf16 => replay(case, &mut RoundedCpu::new(cpu, Element::Bf16)),
        Precision::F16 => replay(case, &mut RoundedCpu::new(cpu, Element::F16)),
    };
    let kernels = replay(case, &mut kernels(precision)).unwrap_or_else(|error| panic!("{error:#}"));
    let (cpu, kernels) = (cpu.unwrap().state_dict(), kernels.state_dict());
    assert_eq!(cpu.keys().collect::<Vec<_>>(), kernels.keys().collect::<Vec<_>>());
    let found: BTreeMap<&str, (f64, String)> =
        limits.iter().map(|&(prefix, _)| (prefix, worst(prefix, &kernels, &cpu))).collect();
    println!("{what}: {found:#?}");
    for (prefix, limit) in limits {
        let (distance, name) = &found[prefix];
        assert!(distance <= limit, "{what} {name}: distance {distance:.2e} above {limit:.2e}");
    }
}

/// f32 against f32: sums in another order, 1e-6 per layer, over some forty layers forward and backward; a
/// ReLU within rounding of 0 would show as much more.
const F32_LIMITS: [(&str, f64); 7] = [
    ("loss", 1e-5),
    ("logits", 1e-4),
    ("confidence", 1e-4),
    ("encoder", 1e-4),
    ("feat_mean", 1e-4),
    ("grad", 1e-3),
    ("fc", 1e-4),
];

#[test]
fn a_step_of_corr_in_f32_is_the_cpu_s() {
    compare(
        Precision::F32,
        "none",
        5,
        10,
        &F32_LIMITS.map(|(p, l)| if p == "feat_mean" { ("fc", l) } else { (p, l) }),
    );
}

#[test]
fn a_step_of_records_in_f32_is_the_cpu_s() {
    compare(Precision::F32, "records", 6, 10, &F32_LIMITS);
    compare(Precision::F32, "records", 3, 100, &F32_LIMITS);
}

/// The other methods, and CORR with mixup.
const METHODS: &[&[(&str, &str)]] = &[
    &[("method", "corr"), ("debias", "records"), ("mixup", "true")],
    &[("method", "corr"), ("debias", "oracle")],
    &[("method", "proden"), ("debias", "records")],
    &[("method", "proden"), ("mixup", "true")],
    &[("method", "lw"), ("debias", "records")],
    &[("method", "lw"), ("lw_loss", "cross-entropy"), ("lw_beta", "2")],
    &[("method", "cavl"), ("debias", "records"), ("mixup", "true")],
    &[("method", "cc"), ("debias", "records")],
    &[("method", "mse"), ("debias", "records")],
    &[("method", "exp"), ("debias", "records")],
    &[("method", "pico"), ("moco_queue", "14"), ("low_dim", "32"), ("debias", "records")],
    &[("method", "pico"), ("moco_queue", "7"), ("low_dim", "20"), ("update", "false")],
    // First part of the batch is chosen and mixed; then none.
    &[("method", "solar"), ("queue_length", "2"), ("eta", "0.3"), ("rho", "0.2"), ("tau", "0.9")],
    &[("method", "solar"), ("queue_length", "2"), ("eta", "0"), ("rho", "0.2")],
];

#[test]
fn a_step_of_every_method_in_f32_is_the_cpu_s() {
    for method in METHODS {
        let (batch, classes) = (7, 4);
        let mut case = case("resnet18", 1, [batch, 12], classes, "none");
        case.metadata.extend(method.iter().map(|&(key, value)| (key.to_string(), value.to_string())));
        let permutation = (0..batch as i64).map(|b| (b * 3 + 2) % batch as i64).collect();
        case.tensors.insert("mixup.permutation".into(), (vec![1, batch], Values::I64(permutation)));
        case.tensors.insert("mixup.weight".into(), (vec![1], Values::F32(vec![0.7])));
        case.tensors.insert("prior".into(), (vec![classes], Values::F32(vec![0.4, 0.3, 0.2, 0.1])));
        let cpu = replay(&case, &mut CpuDevice::new(0).unwrap()).unwrap();
        let kernels = replay(&case, &mut kernels(Precision::F32))
            .unwrap_or_else(|error| panic!("{method:?}: {error:#}"));
        if method[0].1 == "solar" {
            let chosen = &cpu.tensors["chosen"];
            assert_eq!(chosen, &kernels.tensors["chosen"], "{method:?}");
            assert_eq!(cpu.tensors["sinkhorn"], kernels.tensors["sinkhorn"], "{method:?}");
            let Values::I32(chosen) = &chosen.1 else { panic!("{chosen:?}") };
            let count = chosen.iter().sum::<i32>() as usize;
            assert!(if method.contains(&("eta", "0")) { count == 0 } else { (1..batch).contains(&count) });
        }
        let (cpu, kernels) = (cpu.state_dict(), kernels.state_dict());
        assert_eq!(cpu.keys().collect::<Vec<_>>(), kernels.keys().collect::<Vec<_>>());
        // Finally all of them, whatever else a method has.
        for prefix in ["loss", "logits", "confidence", "encoder", "grad", "fc", ""] {
            let (distance, name) = worst(prefix, &kernels, &cpu);
            let limit = F32_LIMITS.iter().find(|(of, _)| *of == prefix).map_or(1e-3, |(_, limit)| *limit);
            assert!(distance <= limit, "{method:?}: {name}: distance {distance:.2e} above {limit:.2e}");
        }
    }
}

/// bf16 against the CPU that rounds where the kernels do. What remains is the order of sums, which now and
/// then moves a value to the neighbouring bf16, by 2^-8 of it. In the forward pass few values move; a
/// gradient passes forty layers, in each of which a move spreads over the whole output, and batchnorm
/// subtracts nearly equal sums. After the step a bias, which was 0, is its gradient.
const BF16_LIMITS: [(&str, f64); 7] = [
    ("loss", 1e-3),
    ("logits", 2e-3),
    ("confidence", 2e-3),
    ("encoder", 5e-2),
    ("feat_mean", 1e-3),
    ("grad", 5e-2),
    ("fc", 1e-3),
];

#[test]
fn a_step_of_records_in_bf16_is_the_rounded_cpu_s() {
    compare(Precision::Bf16, "records", 6, 10, &BF16_LIMITS);
}

/// Sums of products of f16 values, unlike those of bf16, do not fit f32 exactly: their order moves many values to
/// the neighbouring f16, which spreads from layer to layer until both devices round independently of each other.
/// Their distance is then at most sqrt(2) times the effect of rounding, the distance of either from the CPU that
/// does not round. In a step with its loss scale, no gradient overflows.
#[test]
fn steps_in_f16_are_the_rounded_cpu_s() {
    let methods: [&[(&str, &str)]; 2] = [&[], &[("method", "pico"), ("moco_queue", "16"), ("low_dim", "32")]];
    for method in methods {
        let mut case = case("resnet18", 1, [16, 16], 10, "records");
        case.metadata.extend(method.iter().map(|&(key, value)| (key.to_string(), value.to_string())));
        let exact = replay(&case, &mut CpuDevice::new(0).unwrap()).unwrap().state_dict();
        let mut rounded = RoundedCpu::new(CpuDevice::new(0).unwrap(), Element::F16);
        let cpu = replay(&case, &mut rounded).unwrap().state_dict();
        let kernels = replay(&case, &mut kernels(Precision::F16)).unwrap().state_dict();
        for prefix in ["logits", "grad", "encoder", "fc"] {
            let (distance, name) = worst(prefix, &kernels, &cpu);
            let (rounding, _) = worst(prefix, &exact, &cpu);
            println!("{method:?} {name} {distance:.2e}, rounding {rounding:.2e}");
            assert!(rounding < 0.5, "{prefix}: rounding moves it by {rounding:.2e}, which hides all");
            assert!(
                distance <= 1.42 * rounding,
                "{method:?} {name}: {distance:.2e}, rounding {rounding:.2e}"
            );
        }
    }
}

/// As on GeForce chips: products are summed in f16 over 32 of them, with two roundings, which adds the variance of
/// two roundings to that of the stored result. Two devices that round independently, one of variance 1, one of
/// 3, are twice the effect of rounding apart.
#[test]
fn a_step_in_f16_with_sums_in_f16_is_near_the_rounded_cpu_s() {
    let case = case("resnet18", 1, [16, 16], 10, "records");
    let exact = replay(&case, &mut CpuDevice::new(0).unwrap()).unwrap().state_dict();
    let mut rounded = RoundedCpu::new(CpuDevice::new(0).unwrap(), Element::F16);
    let cpu = replay(&case, &mut rounded).unwrap().state_dict();
    let mut driver = SimDriver::open(0).unwrap().with_architecture(86);
    let log = driver.log();
    let mut device = GpuDevice::new(Box::new(driver), Precision::F16);
    let kernels = replay(&case, &mut device).unwrap().state_dict();
    let short = log.take().iter().filter(|(launch, _)| launch.kernel.name.ends_with("_f16_short")).count();
    assert!(short > 50, "{short} launches sum in f16");
    for prefix in ["logits", "grad", "encoder", "fc"] {
        let (distance, name) = worst(prefix, &kernels, &cpu);
        let (rounding, _) = worst(prefix, &exact, &cpu);
        println!("{name} {distance:.2e}, rounding {rounding:.2e}");
        assert!(distance <= 2.1 * rounding, "{name}: {distance:.2e}, rounding {rounding:.2e}");
    }
}

/// Here the momentum encoder's copy is bf16 as well. The temperature amplifies the effect of rounding on a
/// gradient, so the distance is compared with the effect of rounding itself, as for the bottlenecks below: it is
/// less than half of what two devices would have that round independently, sqrt(2) times that effect. How much
/// depends on the order of sums: of keys 0.41 times with tiles of 64 rows, 0.51 with any of 128.
#[test]
fn a_step_of_pico_in_bf16_is_the_rounded_cpu_s() {
    let mut case = case("resnet18", 1, [16, 16], 10, "records");
    for (key, value) in [("method", "pico"), ("moco_queue", "16"), ("low_dim", "32")] {
        case.metadata.insert(key.into(), value.into());
    }
    let exact = replay(&case, &mut CpuDevice::new(0).unwrap()).unwrap().state_dict();
    let cpu =
        replay(&case, &mut RoundedCpu::new(CpuDevice::new(0).unwrap(), Element::Bf16)).unwrap().state_dict();
    let kernels = replay(&case, &mut kernels(Precision::Bf16)).unwrap().state_dict();
    for name in ["pseudo_labels", "key_queue_labels", "key_queue_position"] {
        assert_eq!(kernels[name], cpu[name], "{name}");
    }
    let (distance, _) = worst("loss", &kernels, &cpu);
    assert!(distance <= 1e-3, "loss: {distance:.2e}");
    for prefix in ["logits", "embeddings", "keys", "grad", "encoder", "projection", "prototypes"] {
        let (distance, name) = worst(prefix, &kernels, &cpu);
        let (rounding, _) = worst(prefix, &exact, &cpu);
        println!("{name} {distance:.2e}, rounding {rounding:.2e}");
        assert!(rounding < 1.0, "{prefix}: rounding moves it by {rounding:.2e}, which hides all");
        assert!(distance <= 0.71 * rounding, "{name}: {distance:.2e}, rounding {rounding:.2e}");
    }
}

/// A step in which convolutions do the last passes of batchnorms has the bits of one in which kernels of their own do:
/// with one pass through the network, with a second one without gradients, whose memory is given to others at once,
/// and with several of which not all images count.
#[test]
fn a_step_has_its_bits_wherever_batchnorm_ends() {
    // The same tiles, and the same shares of the first layer's weight gradient.
    const APART: &[&str] = &["halo_128x64", "128x64", "gradient"];
    const TOGETHER: &[&str] = &["of_batchnorm_128x64", "halo_128x64", "128x64", "of_batchnorm", "gradient"];
    let pico: &[(&str, &str)] = &[("method", "pico"), ("moco_queue", "16"), ("low_dim", "32")];
    let solar: &[(&str, &str)] =
        &[("method", "solar"), ("queue_length", "2"), ("eta", "0.3"), ("rho", "0.2"), ("tau", "0.9")];
    let methods = [(&[][..], Precision::Bf16), (pico, Precision::F16), (solar, Precision::Bf16)];
    for (method, precision) in methods {
        let mut case = case("resnet18", 1, [8, 16], 10, "none");
        case.metadata.extend(method.iter().map(|&(key, value)| (key.to_string(), value.to_string())));
        let permutation = (0..8).map(|b| (b * 3 + 2) % 8).collect();
        case.tensors.insert("mixup.permutation".into(), (vec![1, 8], Values::I64(permutation)));
        case.tensors.insert("mixup.weight".into(), (vec![1], Values::F32(vec![0.7])));
        let [apart, together] = [APART, TOGETHER].map(|tiles| {
            let mut driver = SimDriver::open(0).unwrap().with_tiles(tiles);
            let log = driver.log();
            let left = replay(&case, &mut GpuDevice::new(Box::new(driver), precision)).unwrap().state_dict();
            let is_together = |(launch, _): &&(Launch, _)| launch.kernel.name.contains("_of_batchnorm");
            (left, log.take().iter().filter(is_together).count())
        });
        assert!(apart.1 == 0 && together.1 > 20, "{method:?} {precision:?}: {} {}", apart.1, together.1);
        for (name, (_, values)) in &apart.0 {
            let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            assert!(bits(values) == bits(&together.0[name].1), "{method:?} {precision:?} {name}");
        }
    }
}

/// Over fifty layers f32 has an error of 1e-5, and one of a hundred thousand ReLUs may then lie on the other
/// side of 0: a single gradient moves by a few hundredths, the forward pass does not. The gradients are
/// compared more closely below.
#[test]
fn a_step_of_resnet50_in_f32_is_the_cpu_s() {
    let limits = F32_LIMITS.map(|(p, l)| if ["grad", "encoder"].contains(&p) { (p, 0.1) } else { (p, l) });
    compare_step(Precision::F32, &case("resnet50", 1, [4, 12], 10, "records"), &limits);
}

/// Forward pass, backward pass and SGD of a network on random images: logits, gradients, and the parameters
/// after the step.
fn pass(network: Box<dyn Network>, [images, size]: [usize; 2], device: &mut dyn Device) -> StateDict {
    let classes = network.classes();
    let mut stream = Stream::new(43, Purpose::Initialisation, 0, 0, 0);
    let mut random = |len: usize| (0..len).map(|_| stream.normal() as f32).collect::<Vec<f32>>();
    let activations = device.activations();
    let mut filled = |element: Element, len: usize| {
        let buffer = device.allocate(element, len, "an operand").unwrap();
        device.write_f32(buffer, &random(len)).unwrap();
        buffer
    };
    let x = filled(activations, images * size * size * 3);
    let d_logits = filled(Element::F32, images * classes);
    let control_buffer = device.allocate(Element::F32, control::LEN, "the control block").unwrap();
    let mut block = [0.0; control::LEN];
    block[control::LEARNING_RATE] = 0.05;
    device.write_f32(control_buffer, &block).unwrap();
    let sgd = optim::registry::find("sgd").unwrap();
    let constants = Hyperparameters { momentum: 0.9, beta2: 0.999, weight_decay: 1e-3 };
    let model = Model::new(network, (sgd, constants), 5, pll::ClassPriorSource::None, device).unwrap();
    let mut tape = Tape::new(activations);
    let [x, d_logits, control] = [x, d_logits, control_buffer].map(|buffer| tape.persistent(buffer));
    let mode = Mode::Training(Default::default());
    let outputs = model.network.record(&mut tape, &model.parameters, mode, [images, size], x);
    tape.keep(outputs.logits);
    tape.backward(&[(outputs.logits, d_logits)]);
    model.record_update(&mut tape, control);
    let plan = tape.finish(device).unwrap();
    device.replay(&plan).unwrap();
    let mut values = model.parameters.export(model.parameters.values, device).unwrap();
    values.extend(
        model
            .gradients(device)
            .unwrap()
            .into_iter()
            .map(|(name, gradient)| (format!("grad.{name}"), gradient)),
    );
    let logits = device.read_f32(plan.buffer(outputs.logits)).unwrap();
    values.insert("logits".into(), (vec![images, classes], logits));
    values
}

/// One bottleneck per stage.
fn bottlenecks() -> Box<dyn Network> {
    Box::new(ResNet::new("bottlenecks", BlockKind::Bottleneck, [1; 4], 8, 10))
}

/// A wide block with a projection and one without in each group.
fn wide() -> Box<dyn Network> {
    Box::new(WideResNet::new("wide", 2, 8, 10))
}

/// Sums in another order: 1e-6 over a dozen layers forward and backward.
#[test]
fn networks_in_f32_are_the_cpu_s() {
    for (network, shape) in [(bottlenecks as fn() -> _, [6, 20]), (bottlenecks, [3, 36]), (wide, [4, 12])] {
        let cpu = pass(network(), shape, &mut CpuDevice::new(0).unwrap());
        let kernels = pass(network(), shape, &mut kernels(Precision::F32));
        let (distance, name) = worst("", &kernels, &cpu);
        println!("{shape:?}: {name} {distance:.2e}");
        assert!(distance <= 2e-5, "{shape:?} {name}: distance {distance:.2e}");
    }
}

/// How far the order of sums moves a result depends on how many values it moves to the neighbouring bf16.
/// Here that is between a sixth and a twentieth of the effect of rounding to bf16 itself: the distance
/// between the CPU that rounds and the CPU that does not, up to 0.6 in a gradient. A mistake moves it by more
/// than that. (Over the fifty layers of a ResNet-50 with so few values, rounding leaves nothing of a
/// gradient.)
#[test]
fn networks_in_bf16_are_the_rounded_cpu_s() {
    for (network, shape, body) in [
        (bottlenecks as fn() -> _, [8, 20], "encoder"),
        (bottlenecks, [3, 36], "encoder"),
        (wide, [8, 12], "block"),
    ] {
        let exact = pass(network(), shape, &mut CpuDevice::new(0).unwrap());
        let cpu = pass(network(), shape, &mut RoundedCpu::new(CpuDevice::new(0).unwrap(), Element::Bf16));
        let kernels = pass(network(), shape, &mut kernels(Precision::Bf16));
        for prefix in ["logits", "grad", body, "fc"] {
            let (distance, name) = worst(prefix, &kernels, &cpu);
            let (rounding, _) = worst(prefix, &exact, &cpu);
            println!("{shape:?}: {name} {distance:.2e}, rounding {rounding:.2e}");
            assert!(
                rounding < 1.0,
                "{shape:?} {prefix}: rounding moves it by {rounding:.2e}, which hides all"
            );
            assert!(distance <= 0.5 * rounding, "{shape:?} {name}: {distance:.2e}, rounding {rounding:.2e}");
        }
    }
}

/// The driver calls of an epoch: recorded steps, what the next epoch needs beside them, and one read-back, nothing
/// else.
#[test]
fn an_epoch_copies_nothing_and_allocates_nothing() {
    let settings = Settings {
        dataset: "synthetic".into(),
        synthetic_train_per_class: 4,
        synthetic_test_per_class: 1,
        imb_factor: 0.5,
        partial_rate: 0.3,
        debias: Debias::Records,
        upd_start: 0,
        batch_size: 8,
        width: 8,
        ..Settings::default()
    };
    let mut device = kernels(Precision::Bf16);
    let data = records::data::recipe::prepare(&recipe(&settings).unwrap()).unwrap();
    let mut training = Training::new(&settings, &data, &mut device).unwrap();
    for epoch in 0..2 {
        let start = device.activity();
        training.begin_epoch(epoch, &mut device).unwrap();
        let begun = device.activity();
        assert_eq!(begun.allocations, start.allocations, "uploading an epoch allocates nothing");
        // Order, step, counters, learning rate and flag; the augmentation parameters, unless they are there.
        let to_device = [5, 4][epoch];
        assert_eq!(begun.copies_to_device - start.copies_to_device, to_device);
        assert_eq!(begun.copies_within - start.copies_within, epoch as u64);
        assert_eq!(begun.copies_from_device, start.copies_from_device);
        let counters = training.run_epoch(&mut device, || Ok(())).unwrap_or_else(|error| panic!("{error:#}"));
        let end = device.activity();
        let expected = Activity {
            copies_aside: begun.copies_aside + 1,
            copies_from_device: begun.copies_from_device + 1,
            synchronisations: begun.synchronisations + 1,
            sequence_launches: begun.sequence_launches + training.steps as u64,
            ..begun
        };
        assert_eq!(end, expected, "inside an epoch: one read-back at its end");
        assert!(counters.iter().all(|counter| counter.is_finite()), "{counters:?}");
    }
}

/// The same seed gives the same bits, even with the interpreter's warps in another order, and with weight gradients
/// in their turn instead of beside the rest.
#[test]
fn the_same_step_has_the_same_bits() {
    let case = case("resnet18", 2, [4, 16], 10, "records");
    let first = replay(&case, &mut kernels(Precision::Bf16)).unwrap().state_dict();
    let second = replay(&case, &mut kernels(Precision::Bf16)).unwrap().state_dict();
    assert_eq!(first, second);
    let mut in_turn = kernels(Precision::Bf16).with_branches(false);
    assert_eq!(first, replay(&case, &mut in_turn).unwrap().state_dict());
}
