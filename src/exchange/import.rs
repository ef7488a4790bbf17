//! Weights of a file as a checkpoint, from which `eval`, `predict`, `export` and a run go on.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use super::torch;
use crate::autograd::Tape;
use crate::data::fingerprint::Fingerprint;
use crate::data::recipe::TrainingData;
use crate::device::{Device, Element};
use crate::files::read_whole;
use crate::nn::{Mode, StateDict};
use crate::ops::input::{AdvanceStep, NormaliseImages, StoreRows};
use crate::settings::{self, Settings};
use crate::text::excerpt;
use crate::train::checkpoint::{Checkpoint, Progress};
use crate::train::evaluate::{ResidentImages, evaluation_batch};
use crate::train::model::{MEAN_FEATURE, Model};
use crate::train::tensor_file::TensorFile;
use crate::train::training::Training;
use crate::usage;

/// The most bytes of a file of weights.
const MOST_BYTES: u64 = 4 << 30;

/// A checkpoint made of weights, and what a user should know about it, one line each.
pub struct Imported {
    /// After 0 epochs: a run that goes on from it trains all of its epochs.
    pub checkpoint: Checkpoint,
    /// Remarks.
    pub notes: Vec<String>,
}

/// The tensors in a file: of `torch.save`, or safetensors; its first bytes say which.
///
/// # Errors
/// A usage error that names the file and what is wrong with it.
pub fn read(path: &Path) -> Result<StateDict> {
    let bytes = read_whole(path, MOST_BYTES)?;
    let is_torch = bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80\x02");
    let dict = if is_torch {
        torch::state_dict(&bytes)
    } else {
        TensorFile::from_bytes(&bytes)
            .map(|file| without_prefix(file.state_dict()))
            .map_err(|problem| format!("neither a file of torch.save nor safetensors: {problem}"))
    };
    dict.map_err(|problem| usage!("{}: {problem}", path.display()))
}

/// Without the prefix that data-parallel training adds.
fn without_prefix(dict: StateDict) -> StateDict {
    let own = |name: String| name.strip_prefix("module.").map(String::from).unwrap_or(name);
    dict.into_iter().map(|(name, tensor)| (own(name), tensor)).collect()
}

/// A checkpoint of a run with these settings and data, with the weights in `dict` (of the file `path`).
///
/// # Errors
/// A usage error for weights that are missing, not finite or of another shape.
pub fn import(
    dict: &StateDict,
    path: &Path,
    settings: &Settings,
    data: &TrainingData,
    device: &mut dyn Device,
) -> Result<Imported> {
    let shown = path.display();
    let training = Training::new(settings, data, device)?;
    let model = &training.engine.model;
    let names: BTreeSet<&str> =
        model.parameters.ranges().into_iter().flatten().map(|(name, _)| name).collect();
    let missing: Vec<&str> = names.iter().copied().filter(|name| !dict.contains_key(*name)).collect();
    if let Some(first) = missing.first() {
        return Err(usage!(
            "{shown}: lacks {} of the {} tensors of {} of width {}, the first {first}; give --arch, --width and the data set \
             that it was trained with",
            missing.len(),
            names.len(),
            settings.arch,
            settings.width
        ));
    }
    if let Some(name) = names.iter().find(|name| !dict[**name].1.iter().all(|value| value.is_finite())) {
        return Err(usage!("{shown}: '{name}' has a value that is not finite; take an earlier file"));
    }
    model.import(dict, device).map_err(|error| usage!("{shown}: {error}"))?;
    let mut notes = unused(dict, &names);
    if model.debias.estimate().is_some() && !dict.contains_key(MEAN_FEATURE) {
        set_mean_feature(model, data, device)?;
        notes.push(
            "the file has no mean feature, from which the class prior is estimated: taken over the training images".into(),
        );
    }
    let progress = Progress {
        steps_done: 0,
        rollbacks: 0,
        seconds: 0.0,
        further_processes: 0,
        tiles: String::new(),
        epochs_done: 0,
        best_top1: -1.0,
        best_epoch: 0,
        classes: data.classes.clone(),
        train_counts: data.counts(),
    };
    let config = settings::config_toml(settings)?;
    let checkpoint =
        Checkpoint::collect(&training.engine, progress, &config, &Fingerprint::of(data), device)?;
    Ok(Imported { checkpoint, notes })
}

/// The remark about tensors that the network does not have.
fn unused(dict: &StateDict, names: &BTreeSet<&str>) -> Vec<String> {
    let is_known =
        |name: &str| names.contains(name) || name == MEAN_FEATURE || name.ends_with(".num_batches_tracked");
    let unused: Vec<String> = dict.keys().filter(|name| !is_known(name)).map(|name| excerpt(name)).collect();
    let Some(first) = unused.first() else { return Vec::new() };
    vec![format!("{} tensors that the network does not have are left out, the first {first}", unused.len())]
}

/// Sets the mean feature to the mean over the training images without augmentation.
fn set_mean_feature(model: &Model, data: &TrainingData, device: &mut dyn Device) -> Result<()> {
    let Some(prior) = model.debias.estimate() else { return Ok(()) };
    let (size, features) = (data.train.height, prior.mean_feature.len);
    let set = crate::data::ImageSet {
        images: data.train.images.clone(),
        labels: vec![0; data.train.len()],
        height: size,
        width: size,
    };
    let resident = ResidentImages::new(&set, data.test_normalisation, device)?;
    let most = evaluation_batch(device);
    let batch = (most * 32 * 32 / (size * size)).clamp(1, most).min(resident.count);
    let batches = resident.count.div_ceil(batch);
    let step = device.allocate(Element::I32, 1, "the batch counter")?;
    let store = device.allocate(Element::F32, batches * batch * features, "the features")?;
    let mut tape = Tape::new(device.activations());
    let buffers = [resident.images, resident.normalisation, step, store];
    let [images, normalisation, step_tensor, store_tensor] = buffers.map(|buffer| tape.persistent(buffer));
    let x = tape.temporary(tape.activations(), batch * size * size * 3);
    tape.push(NormaliseImages { batch, pixels: size * size, images, step: step_tensor, normalisation, x });
    let outputs = model.network.record(&mut tape, &model.parameters, Mode::Evaluation, [batch, size], x);
    let rows = outputs.features;
    tape.push(StoreRows { batch, columns: features, rows, step: step_tensor, store: store_tensor });
    tape.push(AdvanceStep { step: step_tensor, modulus: None });
    let plan = tape.finish(device)?;
    device.write_i32(step, &[0])?;
    (0..batches).try_for_each(|_| device.replay(&plan))?;
    let values = device.read_f32(store)?;
    let mut sums = vec![0.0f64; features];
    for row in values.chunks_exact(features).take(resident.count) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let mean: Vec<f32> = sums.iter().map(|sum| (sum / resident.count as f64) as f32).collect();
    device.write_f32(prior.mean_feature, &mean)
}
