//! Given steps on given tensors, for checking against other engines. The format is documented in docs/replay.md.

use std::path::Path;

use anyhow::Result;

use super::model::Model;
use super::step::{self, StepInputs, StepSettings, StepState};
use super::tensor_file::{TensorFile, Values};
use crate::autograd::Tape;
use crate::device::primitive::counter;
use crate::device::{Device, Element};
use crate::nn::Architecture;
use crate::pll::ConfidenceStore;
use crate::usage;

/// The metadata strings of a case.
struct Case<'a> {
    file: &'a TensorFile,
}

impl Case<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.file.metadata.get(key).map(String::as_str)
    }

    /// A number; `default` where the key is absent.
    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> Result<T> {
        let Some(text) = self.text(key) else { return Ok(default) };
        text.trim().parse().map_err(|_| usage!("metadata '{key}': '{text}' is not a number of its kind"))
    }

    fn float(&self, key: &str, default: f64) -> Result<f64> {
        let value = self.number(key, default)?;
        if value.is_finite() { Ok(value) } else { Err(usage!("metadata '{key}': {value} is not finite")) }
    }

    /// One of `allowed`, the first where the key is absent.
    fn choice(&self, key: &str, allowed: &[&'static str]) -> Result<&'static str> {
        let text = self.text(key).unwrap_or(allowed[0]);
        let found = allowed.iter().find(|name| **name == text);
        found.copied().ok_or_else(|| usage!("metadata '{key}': '{text}'; must be {}", allowed.join(" or ")))
    }

    /// `true` or `false` a step; all false where the key is absent; one value stands for all.
    fn updates(&self, steps: usize) -> Result<Vec<bool>> {
        let text = self.text("update").unwrap_or("false");
        let parse = |word: &str| match word.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(usage!(
                "metadata 'update': '{other}'; must be true or false for each step, comma-separated"
            )),
        };
        let list: Vec<bool> = text.split(',').map(parse).collect::<Result<_>>()?;
        match list.len() {
            1 => Ok(vec![list[0]; steps]),
            n if n == steps => Ok(list),
            n => Err(usage!("metadata 'update': {n} values for {steps} steps")),
        }
    }
}

/// Checks a tensor's shape; `None` takes any length.
fn expect_shape(name: &str, shape: &[usize], wanted: &[Option<usize>]) -> Result<()> {
    let fits = shape.len() == wanted.len()
        && shape.iter().zip(wanted).all(|(have, want)| want.is_none_or(|w| w == *have));
    let describe =
        || wanted.iter().map(|w| w.map_or("any".into(), |w| w.to_string())).collect::<Vec<_>>().join(", ");
    if fits { Ok(()) } else { Err(usage!("tensor '{name}': shape {shape:?}; must be [{}]", describe())) }
}

/// `[B,3,H,W]` to `[B,H,W,3]`, appended to `out`.
fn append_channels_last(images: &[f32], pixels: usize, out: &mut Vec<f32>) {
    for image in images.chunks_exact(3 * pixels) {
        out.extend((0..pixels).flat_map(|p| [image[p], image[pixels + p], image[2 * pixels + p]]));
    }
}

/// Runs the case in `input` on `device` and returns what docs/replay.md lists.
///
/// # Errors
/// A usage error naming the tensor or metadata string at fault.
pub fn replay(input: &TensorFile, device: &mut dyn Device) -> Result<TensorFile> {
    let case = Case { file: input };
    case.choice("method", &["corr"])?;
    let debias = case.choice("debias", &["none", "records"])? == "records";

    let (candidate_shape, candidates) = input.u8("candidates")?;
    expect_shape("candidates", candidate_shape, &[None, None])?;
    let [samples, classes] = [candidate_shape[0], candidate_shape[1]];
    if samples == 0 || classes == 0 {
        return Err(usage!("tensor 'candidates': shape {candidate_shape:?}; must not be empty"));
    }
    let (weak_shape, weak) = input.f32("batch.weak")?;
    expect_shape("batch.weak", weak_shape, &[None, None, Some(3), None, None])?;
    let [steps, batch, _, height, width] = weak_shape[..] else {
        unreachable!("five dimensions were checked")
    };
    if height != width || steps == 0 || batch == 0 || height == 0 {
        return Err(usage!(
            "tensor 'batch.weak': shape {weak_shape:?}; must be [steps, batch, 3, size, size], none 0"
        ));
    }
    let (strong_shape, strong) = input.f32("batch.strong")?;
    expect_shape("batch.strong", strong_shape, &weak_shape.iter().map(|&n| Some(n)).collect::<Vec<_>>())?;
    let (index_shape, index) = input.i64("batch.index")?;
    expect_shape("batch.index", index_shape, &[Some(steps), Some(batch)])?;
    if let Some(bad) = index.iter().find(|&&i| i < 0 || i as usize >= samples) {
        return Err(usage!("tensor 'batch.index': {bad} is no row of 'candidates' (0 to {})", samples - 1));
    }
    for row in index.chunks_exact(batch) {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        if let Some(two) = sorted.windows(2).find(|two| two[0] == two[1]) {
            return Err(usage!("tensor 'batch.index': {} occurs twice in one step", two[0]));
        }
    }
    let updates = case.updates(steps)?;
    let rate = case.float("lr", 0.01)?;
    let settings = StepSettings {
        batch,
        size: height,
        momentum: case.float("momentum", 0.9)? as f32,
        weight_decay: case.float("weight_decay", 0.0)? as f32,
    };

    let arch = case.text("arch").unwrap_or("resnet18");
    let width = case.number("width", 64usize)?;
    if !(1..=4096).contains(&width) {
        return Err(usage!("metadata 'width': {width}; must be 1 to 4096"));
    }
    let architecture = Architecture::by_name(arch, width, classes).ok_or_else(|| {
        usage!("metadata 'arch': '{arch}'; must be one of {}", Architecture::names().join(", "))
    })?;
    let prior_momentum = case.float("m", 0.9)? as f32;
    let mut model =
        Model::new(architecture, case.number("seed", 0)?, debias.then_some(prior_momentum), device)?;
    model.import(&input.state_dict(), device)?;
    model.parameters.batches_tracked = input.batch_counter(&model.parameters)?.unwrap_or(0);

    let store = ConfidenceStore::new(classes, candidates, &vec![0; samples], device)?;
    if input.tensors.contains_key("confidence") {
        let (shape, confidence) = input.f32("confidence")?;
        expect_shape("confidence", shape, &[Some(samples), Some(classes)])?;
        device.write_f32(store.confidence, confidence)?;
    }
    let state = StepState::new(device)?;

    let pixels = height * height;
    let views = device.allocate(device.activations(), 2 * batch * pixels * 3, "the views")?;
    let index_buffer = device.allocate(Element::I32, batch, "the index")?;
    let mut tape = Tape::new(device.activations());
    let inputs = StepInputs { views: tape.persistent(views), index: tape.persistent(index_buffer) };
    let logits = step::record(&mut tape, &settings, &model, &store, &state, inputs);
    tape.keep(logits);
    let plan = tape.finish(device)?;

    let mut losses = Vec::with_capacity(steps);
    let view_len = batch * 3 * pixels;
    for (number, &update) in updates.iter().enumerate() {
        let mut both = Vec::with_capacity(2 * view_len);
        append_channels_last(&weak[number * view_len..][..view_len], pixels, &mut both);
        append_channels_last(&strong[number * view_len..][..view_len], pixels, &mut both);
        device.write_f32(views, &both)?;
        let rows: Vec<i32> = index[number * batch..][..batch].iter().map(|&i| i as i32).collect();
        device.write_i32(index_buffer, &rows)?;
        state.set(device, rate, update)?;
        device.replay(&plan)?;
        model.parameters.batches_tracked += 1;
        losses.push(device.read_f32(state.counters)?[counter::LAST_LOSS]);
    }

    let mut output = TensorFile::default();
    let mut put = |name: &str, shape: Vec<usize>, values: Vec<f32>| {
        output.tensors.insert(name.into(), (shape, Values::F32(values)));
    };
    put("loss", vec![steps], losses);
    let logits = device.read_f32(plan.buffer(logits))?;
    put("logits.weak", vec![batch, classes], logits[..batch * classes].to_vec());
    put("logits.strong", vec![batch, classes], logits[batch * classes..].to_vec());
    put("confidence", vec![samples, classes], device.read_f32(store.confidence)?);
    output.extend(model.export(device)?);
    output.add_batch_counters(&model.parameters);
    let gradients = model.gradients(device)?;
    output.extend(gradients.into_iter().map(|(name, tensor)| (format!("grad.{name}"), tensor)).collect());
    output.metadata.insert("device".into(), device.name().into());
    Ok(output)
}

/// [`replay`] from file to file; the output is written whole or not at all.
///
/// # Errors
/// A usage error naming the file and the tensor or metadata string at fault.
pub fn replay_file(input: &Path, output: &Path, device: &mut dyn Device) -> Result<()> {
    let case = TensorFile::read(input)?;
    let result = replay(&case, device).map_err(|error| usage!("{}: {error}", input.display()))?;
    result.write(output)
}
