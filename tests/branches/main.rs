//! Weight gradients beside the rest of the backward pass: what may run beside what, the memory that it takes,
//! and that the interpreter finds a race where an order is missing.

mod driver;

use std::collections::BTreeMap;

use driver::{Changed, Paper, Recorded};
use records::device::gpu::branches::{Place, Stretch, predecessors, stretches};
use records::device::gpu::driver::{Driver, Memory};
use records::device::gpu::launch::Launch;
use records::device::gpu::lower::Lowering;
use records::device::gpu::sim::SimDriver;
use records::device::gpu::{GpuDevice, Precision};
use records::device::{Buffer, Device, Element, Operation, Plan, Program, Tensor};
use records::operations;
use records::ops::convolution::{ConvolutionShape, ConvolutionWeightGradient};
use records::ops::elementwise::Convert;
use records::settings::{Debias, Settings};
use records::train::run::recipe;
use records::train::training::Training;

fn settings(batch_size: usize, width: usize) -> Settings {
    Settings {
        dataset: "synthetic".into(),
        synthetic_train_per_class: batch_size.div_ceil(2),
        synthetic_test_per_class: 1,
        imb_factor: 0.5,
        partial_rate: 0.3,
        debias: Debias::Records,
        upd_start: 0,
        batch_size,
        width,
        ..Settings::default()
    }
}

fn training(settings: &Settings, device: &mut GpuDevice) -> Training {
    let data = records::data::recipe::prepare(&recipe(settings).unwrap()).unwrap();
    Training::new(settings, &data, device).unwrap()
}

/// The launches of a step and their places, and the bytes of its temporaries, for a GPU without memory.
fn on_paper(settings: &Settings, branches: bool) -> (Vec<Launch>, Vec<Place>, usize) {
    let recorded = Recorded::default();
    let driver = Paper::new(recorded.clone());
    let mut device = GpuDevice::new(Box::new(driver), Precision::Bf16).with_branches(branches);
    let bytes = training(settings, &mut device).engine.plan.temporaries().bytes;
    let mut recorded = recorded.take();
    recorded.sort_by_key(|(launches, _)| launches.len());
    let (launches, places) = recorded.pop().expect("a step");
    (launches, places, bytes)
}

/// How often each kernel is launched.
fn kernels(launches: &[Launch]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    launches.iter().for_each(|launch| *counts.entry(launch.kernel.name).or_default() += 1);
    counts
}

/// Data gradients that may run beside each launch aside.
fn beside(launches: &[Launch], places: &[Place]) -> Vec<usize> {
    let is_data = |number: usize| launches[number].kernel.name.contains("data_gradient");
    let mut counts = vec![0; places.len()];
    for stretch in stretches(places) {
        let Stretch::Unordered(stretch) = stretch else { continue };
        let mut before: Vec<Vec<bool>> = Vec::new();
        for direct in predecessors(places, stretch.clone()) {
            let mut all = vec![false; stretch.len()];
            for other in direct {
                all[other] = true;
                (0..all.len()).for_each(|at| all[at] |= before[other][at]);
            }
            before.push(all);
        }
        for (later, all) in before.iter().enumerate() {
            for (earlier, _) in all[..later].iter().enumerate().filter(|(_, is_before)| !**is_before) {
                let [earlier, later] = [earlier, later].map(|at| stretch.start + at);
                let [main, aside] = if places[earlier].aside { [later, earlier] } else { [earlier, later] };
                counts[aside] += usize::from(is_data(main));
            }
        }
    }
    counts
}

/// A step of full width: the same kernels, every weight gradient of a layer beside the data gradient of the one
/// below, but for the last two, for 5 % more temporary memory at most.
#[test]
fn weight_gradients_run_beside_data_gradients_for_little_memory() {
    let settings = settings(256, 64);
    let (serial, in_order, less) = on_paper(&settings, false);
    let (launches, places, more) = on_paper(&settings, true);
    println!("{less} bytes of temporaries without branches, {more} with");
    assert!(in_order.iter().all(|place| *place == Place::default()));
    assert_eq!(kernels(&serial), kernels(&launches));
    assert!(more <= less + less / 20, "{more} bytes, {less} without branches");
    let beside = beside(&launches, &places);
    let (mut weights, mut alone) = (0, Vec::new());
    for ((launch, place), beside) in launches.iter().zip(&places).zip(beside) {
        let name = launch.kernel.name;
        let is_weight = name.contains("weight_gradient");
        assert_eq!(place.aside, is_weight || name == "convolution_sum_partials", "{name}");
        if is_weight {
            weights += 1;
            alone.extend((beside == 0).then_some(weights));
        }
    }
    // Below the first block there is no data gradient, and the first layer's has the optimiser after it.
    assert_eq!(alone, [weights - 1, weights], "of {weights}");
    assert!(weights >= 20, "{weights}");
}

fn sim(seed: u64) -> Box<dyn Driver> {
    Box::new(SimDriver::open(seed).unwrap())
}

/// Parameters after two steps.
fn two_steps(device: &mut GpuDevice) -> anyhow::Result<Vec<f32>> {
    let mut training = training(&settings(4, 8), device);
    training.begin_epoch(1, device)?;
    let engine = &training.engine;
    (0..2).try_for_each(|_| device.replay(&engine.plan))?;
    device.read_f32(engine.model.parameters.values)
}

/// Whatever order the seed gives launches that nothing orders.
#[test]
fn branches_change_no_bit() {
    let serial = two_steps(&mut GpuDevice::new(sim(0), Precision::Bf16).with_branches(false)).unwrap();
    for seed in [0, 7] {
        let branches = two_steps(&mut GpuDevice::new(sim(seed), Precision::Bf16));
        let branches = branches.unwrap_or_else(|error| panic!("{error:#}"));
        assert!(serial.iter().zip(&branches).all(|(a, b)| a.to_bits() == b.to_bits()), "seed {seed}");
    }
}

/// The error of a step whose places were changed.
fn broken(seed: u64, change: impl Fn(&mut [Place]) + 'static) -> String {
    let mut device = GpuDevice::new(Box::new(Changed(sim(seed), change)), Precision::Bf16);
    format!("{:#}", two_steps(&mut device).unwrap_err())
}

/// In the order of the list or in another.
#[test]
fn a_join_left_out_is_a_race() {
    for seed in [0, 7] {
        let error = broken(seed, |places| {
            places.iter_mut().filter(|place| !place.aside).for_each(|place| place.after = None);
        });
        assert!(error.contains("race"), "{seed}: {error}");
    }
}

#[test]
fn a_fork_left_out_is_a_race() {
    let error = broken(0, |places| {
        places.iter_mut().filter(|place| place.aside).for_each(|place| place.after = None);
    });
    assert!(error.contains("race"), "{error}");
}

const SHAPE: ConvolutionShape = ConvolutionShape {
    batch: 4,
    height: 16,
    width: 16,
    in_channels: 8,
    out_channels: 8,
    kernel: 3,
    stride: 1,
};

/// x, dy and dw of a weight gradient, and two more tensors as long as dy; all but dw are filled.
fn buffers(device: &mut dyn Device) -> Vec<Buffer> {
    let (x, y, w) = (SHAPE.input_len(), SHAPE.output_len(), SHAPE.weight_len());
    let of =
        [(Element::Bf16, x), (Element::Bf16, y), (Element::F32, w), (Element::Bf16, y), (Element::F32, y)];
    let mut one = |(element, len): (Element, usize)| {
        let buffer = device.allocate(element, len, "an operand").unwrap();
        device.write_f32(buffer, &(0..len).map(|i| (i % 7) as f32).collect::<Vec<_>>()).unwrap();
        buffer
    };
    of.map(&mut one).to_vec()
}

const WEIGHT: ConvolutionWeightGradient =
    ConvolutionWeightGradient { shape: SHAPE, x: Tensor(0), dy: Tensor(1), dw: Tensor(2) };

/// The weight gradient, and then something that overwrites tensor 3; with `shared`, that has dy's memory.
fn then_overwritten(shared: bool, device: &mut dyn Device) -> Plan {
    let mut buffers = buffers(device);
    if shared {
        buffers[3] = buffers[1];
    }
    let convert = Convert { len: SHAPE.output_len(), from: Tensor(4), to: Tensor(3) };
    Plan::record(Program::new(operations![WEIGHT, convert], buffers), device).unwrap()
}

/// A planner that gives memory to another tensor before the operation aside has ended: the device waits, so it is
/// no mistake. Where the device only looked at tensors and not at their memory, it would be a race.
#[test]
fn a_temporary_freed_too_early_is_waited_for_or_a_race() {
    let values = |shared| {
        let mut device = GpuDevice::new(sim(0), Precision::Bf16);
        let plan = then_overwritten(shared, &mut device);
        device.replay(&plan).unwrap();
        device.read_f32(plan.buffer(Tensor(2))).unwrap()
    };
    assert_eq!(values(true), values(false));
    let recorded = Recorded::default();
    then_overwritten(false, &mut GpuDevice::new(Box::new(Paper::new(recorded.clone())), Precision::Bf16));
    let by_tensors = recorded.take().pop().unwrap().1;
    let changed = Changed(sim(0), move |places: &mut [Place]| places.copy_from_slice(&by_tensors));
    let mut device = GpuDevice::new(Box::new(changed), Precision::Bf16);
    let plan = then_overwritten(true, &mut device);
    let error = format!("{:#}", device.replay(&plan).unwrap_err());
    assert!(error.contains("race"), "{error}");
}

/// Two weight gradients on two branches with partial sums in the workspace.
fn two_in_a_workspace(shared: bool) -> anyhow::Result<()> {
    let mut driver = sim(0);
    let gpu = driver.gpu().clone();
    let bytes = [2 * SHAPE.input_len(), 2 * SHAPE.output_len(), 4 * SHAPE.weight_len()];
    let memory: Vec<Memory> = driver.allocate(&[bytes[0], bytes[1], bytes[2], bytes[2]], "operands")?;
    memory[..2].iter().try_for_each(|&memory| driver.clear(memory))?;
    let buffer = |(element, len)| Buffer { allocation: 0, offset: 0, len, element };
    let kinds = [
        (Element::Bf16, SHAPE.input_len()),
        (Element::Bf16, SHAPE.output_len()),
        (Element::F32, SHAPE.weight_len()),
        (Element::F32, SHAPE.weight_len()),
    ];
    let addresses: Vec<u64> = memory.iter().map(|memory| memory.address).collect();
    let (mut launches, mut places, mut workspace) = (Vec::new(), Vec::new(), None);
    for (aside, dw) in [(true, Tensor(2)), (false, Tensor(3))] {
        let buffers = kinds.map(buffer);
        let mut lowering = Lowering::new(&gpu, &buffers, &addresses);
        lowering.lower(&[&ConvolutionWeightGradient { dw, ..WEIGHT } as &dyn Operation])?;
        let (mut these, bytes) = lowering.finish();
        assert!(bytes > 0 && these.len() == 2, "partial sums");
        if workspace.is_none() || !shared {
            workspace = Some(driver.allocate(&[bytes], "workspace")?[0].address);
        }
        these.iter_mut().for_each(|launch| launch.place_workspace(workspace.expect("just set")));
        places.extend(these.iter().map(|_| Place { aside, after: None }));
        launches.extend(these);
    }
    let sequence = driver.record(&launches, &places)?;
    driver.replay(sequence)
}

#[test]
fn a_workspace_shared_by_branches_is_a_race() {
    two_in_a_workspace(false).unwrap();
    let error = format!("{:#}", two_in_a_workspace(true).unwrap_err());
    assert!(error.contains("race"), "{error}");
}
