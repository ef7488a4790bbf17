//! Given steps on given tensors, to check against other engines. docs/replay.md describes the format.

mod batches;
mod case;

use std::path::Path;

use anyhow::Result;

use self::batches::{Batches, CandidateRows, GivenInputs, expect_shape, expect_shares};
use self::case::Case;
pub use self::case::keys;
use super::choice;
use super::engine::{self, Engine, EngineParts};
use super::model::Model;
use super::step::StepSettings;
use super::tensor_file::{TensorFile, Values};
use crate::device::{Device, Element};
use crate::nn::{Network, StateDict};
use crate::ops::statistics::counter;
use crate::pll::ClassPriorSource;
use crate::pll::debias::Oracle;
use crate::pll::method::{EpochControl, Room};
use crate::pll::mixup::MixupBuffers;
use crate::settings::{self, Settings};
use crate::usage;

/// Runs the case in `input` on `device` and returns the tensors that docs/replay.md lists.
///
/// # Errors
/// A usage error that names the tensor or metadata string at fault.
pub fn replay(input: &TensorFile, device: &mut dyn Device) -> Result<TensorFile> {
    let case = Case { file: input };
    let candidates = CandidateRows::of(input)?;
    let batches = Batches::of(input, candidates.samples)?;
    let settings = case.settings(batches.batch)?;
    let controls = case.controls(&settings, batches.steps)?;
    let model = model(&case, &settings, candidates.classes, device)?;
    let mut inputs = batches.on_device(device)?;
    let mut engine = assemble(&settings, model, &candidates, &batches, &mut inputs, device)?;
    import_state(input, &engine, device)?;
    if let Some(mixup) = engine.learner.mixup() {
        import_mixup(input, mixup, batches.steps, settings.mixup, device)?;
    }
    let losses = run(&mut engine, &inputs, &controls, device)?;
    output(&engine, losses, device)
}

/// The model with the parameters of the case.
fn model(case: &Case<'_>, settings: &Settings, classes: usize, device: &mut dyn Device) -> Result<Model> {
    let seed = case.number("seed", 0)?;
    let network = engine::network(settings, &*choice::method(settings), classes)?;
    let debias = debias(case.file, settings, &*network, device)?;
    let mut model = Model::new(network, engine::optimiser(settings)?, seed, debias, device)?;
    model.import(&case.file.state_dict(), device)?;
    model.parameters.batches_tracked = case.file.batch_counter(&model.parameters)?.unwrap_or(0);
    Ok(model)
}

/// The engine for the steps of the case.
fn assemble(
    settings: &Settings,
    model: Model,
    candidates: &CandidateRows<'_>,
    batches: &Batches<'_>,
    inputs: &mut GivenInputs<'_>,
    device: &mut dyn Device,
) -> Result<Engine> {
    let &Batches { batch, steps, size, .. } = batches;
    let &CandidateRows { samples, classes, rows } = candidates;
    let step = device.allocate(Element::I32, 1, "the step counter")?;
    let parts = EngineParts {
        method: &*choice::method(settings),
        model,
        room: Room { batch, classes, steps, step, mixup: settings.mixup, parameters: None },
        candidates: rows,
        labels: &vec![0; samples],
        settings: StepSettings { batch, size },
        keeps_step: true,
    };
    Engine::assemble(parts, inputs, device)
}

/// Runs the steps; returns their losses.
fn run(
    engine: &mut Engine,
    inputs: &GivenInputs<'_>,
    controls: &[EpochControl],
    device: &mut dyn Device,
) -> Result<Vec<f32>> {
    let mut losses = Vec::with_capacity(controls.len());
    for (step, &control) in controls.iter().enumerate() {
        inputs.upload(step, device)?;
        engine.set(control, device)?;
        engine.run_step(device)?;
        losses.push(engine.counters(device)?[counter::LAST_LOSS]);
    }
    Ok(losses)
}

/// The output: losses, all state after the steps, and the tensors and gradients of the last step.
fn output(engine: &Engine, losses: Vec<f32>, device: &mut dyn Device) -> Result<TensorFile> {
    let mut output = TensorFile::default();
    let mut put = |name: &str, shape: Vec<usize>, values: Values| {
        output.tensors.insert(name.into(), (shape, values));
    };
    put("loss", vec![losses.len()], Values::F32(losses));
    let recorded = &engine.step.recorded;
    let mut logits = Vec::new();
    for &(tensor, _) in &recorded.logits {
        logits.extend(device.read_f32(engine.plan.buffer(tensor))?);
    }
    let classes = engine.store.classes;
    let len = logits.len() / recorded.names.len().max(1);
    for (name, rows) in recorded.names.iter().zip(logits.chunks_exact(len)) {
        put(name, vec![len / classes, classes], Values::F32(rows.to_vec()));
    }
    for exposed in &recorded.exposed {
        let buffer = engine.plan.buffer(exposed.tensor);
        let values = match buffer.element {
            Element::I32 => Values::I32(device.read_i32(buffer)?),
            _ => Values::F32(device.read_f32(buffer)?),
        };
        put(exposed.name, exposed.shape.clone(), values);
    }
    engine.export(&mut output, device)?;
    let gradients = engine.model.gradients(device)?;
    output.extend(gradients.into_iter().map(|(name, tensor)| (format!("grad.{name}"), tensor)).collect());
    output.metadata.insert("device".into(), device.name().into());
    Ok(output)
}

/// The debias of the case; the oracle's class prior is the tensor `prior`.
fn debias(
    input: &TensorFile,
    settings: &Settings,
    network: &dyn Network,
    device: &mut dyn Device,
) -> Result<ClassPriorSource> {
    let classes = network.classes();
    let dimensions = [network.features(), classes];
    if settings.debias != settings::Debias::Oracle {
        return choice::debias(settings, Some(&vec![1; classes]), dimensions, device);
    }
    let (shape, prior) = input.f32("prior")?;
    expect_shape("prior", shape, &[Some(classes)])?;
    expect_shares("prior", prior)?;
    Ok(ClassPriorSource::Oracle(Oracle::new(prior, true, device)?))
}

/// Imports the confidence rows and the method's state where the case has them.
fn import_state(input: &TensorFile, engine: &Engine, device: &mut dyn Device) -> Result<()> {
    if input.tensors.contains_key("confidence") {
        let (shape, confidence) = input.f32("confidence")?;
        let store = &engine.store;
        expect_shape("confidence", shape, &[Some(store.samples), Some(store.classes)])?;
        device.write_f32(store.confidence, confidence)?;
    }
    let mut state = StateDict::new();
    let given = engine.learner.state().into_iter().filter(|tensor| input.tensors.contains_key(tensor.name));
    for tensor in given {
        let (shape, values) = input.f32(tensor.name)?;
        expect_shape(tensor.name, shape, &tensor.shape.iter().map(|&n| Some(n)).collect::<Vec<_>>())?;
        if tensor.shares {
            expect_shares(tensor.name, values)?;
        }
        state.insert(tensor.name.into(), (tensor.shape, values.to_vec()));
    }
    engine.learner.import(&state, None, device)
}

/// Imports the mixup weights and permutations of the steps; with mixup, the case must have both.
fn import_mixup(
    input: &TensorFile,
    mixup: &MixupBuffers,
    steps: usize,
    mixes: bool,
    device: &mut dyn Device,
) -> Result<()> {
    let batch = mixup.batch();
    if !mixes {
        let identity: Vec<i32> = (0..steps).flat_map(|_| 0..batch as i32).collect();
        return device.write_i32(mixup.permutations, &identity);
    }
    let (shape, weights) = input.f32("mixup.weight")?;
    expect_shape("mixup.weight", shape, &[Some(steps)])?;
    expect_shares("mixup.weight", weights)?;
    let (shape, permutations) = input.i64("mixup.permutation")?;
    expect_shape("mixup.permutation", shape, &[Some(steps), Some(batch)])?;
    for (step, row) in permutations.chunks_exact(batch).enumerate() {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        if sorted.iter().enumerate().any(|(i, &number)| number != i as i64) {
            return Err(usage!(
                "tensor 'mixup.permutation': step {step} is not a permutation of 0 to {}",
                batch - 1
            ));
        }
    }
    device.write_f32(mixup.weights, weights)?;
    device.write_i32(mixup.permutations, &permutations.iter().map(|&i| i as i32).collect::<Vec<_>>())
}

/// [`replay`] from file to file; the output is written whole or not at all. Returns the metadata keys that a
/// replay does not read.
///
/// # Errors
/// A usage error that names the file and the tensor or metadata string at fault.
pub fn replay_file(input: &Path, output: &Path, device: &mut dyn Device) -> Result<Vec<String>> {
    let case = TensorFile::read(input)?;
    let in_file = |error| usage!("{}: {error:#}", input.display());
    let unread = Case { file: &case }.unread_keys().map_err(in_file)?;
    let result = replay(&case, device).map_err(in_file)?;
    result.write(output)?;
    Ok(unread)
}
