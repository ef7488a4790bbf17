//! Divergence: values that are no longer finite end a run before anything of that epoch is written.
//!
//! The device notes the first step of an epoch whose logits, losses or running statistics are not finite (see
//! [`counter::WATCHED`]); what a step leaves in weights, momentum, confidences and prior is counted there after
//! each epoch ([`StateWatch`]). Large finite values are no divergence: batchnorm takes their scale out again.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::choice;
use super::engine::Engine;
use super::metrics::EpochMetrics;
use super::model::Model;
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Plan};
use crate::nn::StateDict;
use crate::ops::statistics::{CountNotFinite, counter};
use crate::settings::Settings;
use crate::text::printable;

/// The first step (from 1) of an epoch in which a watched value was not finite, and which values these were;
/// `None` where all steps were finite.
pub fn first_step(counters: &[f32]) -> Option<(usize, String)> {
    let slots = &counters[counter::WATCHED..];
    let first = slots.iter().filter(|&&slot| slot < 0.0).map(|slot| -slot as usize).min()?;
    let mut what: Vec<&str> = Vec::new();
    for (slot, name) in slots.iter().zip(counter::WATCHED_NAMES) {
        if *slot == -(first as f32) && !what.contains(&name) {
            what.push(name);
        }
    }
    let last = what.pop().unwrap_or_default();
    let all = if what.is_empty() { last.into() } else { format!("{} and {last}", what.join(", ")) };
    Some((first, all))
}

/// The first of `tensors` that holds a value that is not finite, in words: its name, the value and its
/// position.
pub fn first_tensor<'a>(tensors: impl IntoIterator<Item = (&'a String, &'a [f32])>) -> Option<String> {
    let mut tensors = tensors.into_iter();
    tensors.find_map(|(name, values)| {
        let at = values.iter().position(|value| !value.is_finite())?;
        Some(format!("tensor '{}' holds {} at position {at}", printable(name), values[at]))
    })
}

/// The same for a state dict, whose tensors are in order of name.
pub fn first_of_dict(dict: &StateDict) -> Option<String> {
    first_tensor(dict.iter().map(|(name, (_, values))| (name, &values[..])))
}

/// Counts on the device what of the state after an epoch is not finite: weights, the optimiser's state,
/// running statistics, the mean feature, what the method keeps, and the confidence rows. Only a few counts are
/// read back, and the state itself where one of them is not 0.
pub struct StateWatch {
    plan: Plan,
    /// i32: values that are not finite, of each buffer.
    counts: Buffer,
    /// What the buffers are, where their values have no names of their own.
    names: Vec<Option<&'static str>>,
}

impl StateWatch {
    /// Records it for an engine.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(engine: &Engine, device: &mut dyn Device) -> Result<Self> {
        let Engine { model, store, learner, .. } = engine;
        let parameters = &model.parameters;
        let optimiser = model.optimiser.state().into_iter().map(|state| state.buffer());
        let arenas = [parameters.values, parameters.running].into_iter().chain(optimiser);
        let mean = model.debias.estimate().map(|prior| ("the mean feature", prior.mean_feature));
        let others =
            mean.into_iter().chain(learner.watched()).chain([("the confidence rows", store.confidence)]);
        let watched: Vec<(Option<&'static str>, Buffer)> = arenas
            .map(|buffer| (None, buffer))
            .chain(others.map(|(name, buffer)| (Some(name), buffer)))
            .filter(|(_, buffer)| buffer.len > 0)
            .collect();
        let counts =
            device.allocate(Element::I32, watched.len(), "the counts of values that are not finite")?;
        let mut tape = Tape::new(device.activations());
        let out = tape.persistent(counts);
        for (slot, &(_, buffer)) in watched.iter().enumerate() {
            let values = tape.persistent(buffer);
            tape.push(CountNotFinite { len: buffer.len, slot, values, counts: out });
        }
        let names = watched.into_iter().map(|(name, _)| name).collect();
        Ok(Self { plan: tape.finish(device)?, counts, names })
    }

    /// What of the state is not finite, if anything is; the first in the order above.
    ///
    /// # Errors
    /// When the device fails.
    pub fn first(&self, engine: &Engine, device: &mut dyn Device) -> Result<Option<String>> {
        device.write_i32(self.counts, &vec![0; self.names.len()])?;
        device.replay(&self.plan)?;
        let counts = device.read_i32(self.counts)?;
        let found = self.names.iter().zip(counts).find(|(_, count)| *count > 0);
        Ok(match found {
            None => None,
            Some((Some(name), _)) => Some(format!("values of {name} are not finite")),
            Some((None, _)) => first_of_dict(&engine.model.export(device)?),
        })
    }
}

/// Which of the logits `[N,K]` of images (`what`: training or test) are not finite, if any.
pub fn in_logits(logits: &[f32], classes: usize, what: &str) -> Option<String> {
    let at = logits.iter().position(|z| !z.is_finite())?;
    let rows = logits.chunks_exact(classes).filter(|row| !all_finite(row)).count();
    Some(format!(
        "the logits of {rows} of {} {what} images are not finite, first those of image {}",
        logits.len() / classes,
        at / classes
    ))
}

/// The warning where all images get the same logits.
pub const SAME_LOGITS: &str = "all test images get the same logits: the network no longer tells images apart, and its \
                               accuracy says nothing";

/// Which of an epoch's figures is not finite, if any.
pub fn in_figures(metrics: &EpochMetrics) -> Option<String> {
    let prior = metrics.class_prior.iter().flatten().copied();
    let figures = [("the mean loss", metrics.loss), ("the mean confidence", metrics.mean_max_confidence)];
    let figures = figures.into_iter().chain(prior.map(|share| ("the estimated class prior", share)));
    figures
        .into_iter()
        .find(|(_, value)| !value.is_finite())
        .map(|(name, value)| format!("{name} is {value}"))
}

/// Whether no value is infinite or NaN.
pub fn all_finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// Running variances of healthy runs lie between 1e-4 and 1e3; above this they are worth a warning. They do
/// not end a run, since batchnorm removes the scale.
const LARGE_VARIANCE: f32 = 1e6;

/// The warning about running variances that have grown out of proportion, if any has.
///
/// # Errors
/// If the device fails.
pub fn growth(model: &Model, device: &mut dyn Device) -> Result<Option<String>> {
    let running = model.parameters.export_running(device)?;
    let largest = running
        .iter()
        .filter(|(name, _)| name.ends_with("running_var"))
        .filter_map(|(name, (_, values))| Some((name, values.iter().copied().reduce(f32::max)?)))
        .max_by(|(_, a), (_, b)| a.total_cmp(b));
    let large = largest.filter(|(_, value)| *value > LARGE_VARIANCE);
    Ok(large.map(|(name, value)| {
        format!("the network's values have grown out of proportion ({name} is {value:.1e})")
    }))
}

/// The error of a run that diverged in `epoch`: the first `sign` of it, and what to change.
pub fn failure(settings: &Settings, epoch: usize, sign: &str, folder: &Path) -> anyhow::Error {
    let kept = match epoch {
        0 => String::new(),
        _ => format!(" and the checkpoints of earlier epochs are kept in {}", folder.display()),
    };
    anyhow!(
        "training has diverged in epoch {epoch}: {sign}; nothing of this epoch was written{kept}; start a new run with \
         {}",
        remedy(settings)
    )
}

/// The settings to lower: the learning rate, and others that are far above their usual values.
fn remedy(settings: &Settings) -> String {
    let mut remedies = vec![format!("a lower --lr (now {})", short(settings.lr))];
    let Settings { weight_decay, lr, momentum, alpha, .. } = *settings;
    // With momentum m, weight decay alone changes a weight by the share decay * lr / (1 - m) of itself in the
    // long run; far above 1 the weights oscillate.
    if weight_decay > 0.1 && weight_decay * lr / (1.0 - momentum) > 0.1 {
        remedies.push(format!("a lower --weight-decay (now {})", short(weight_decay)));
    }
    if settings.mixup && alpha > 10.0 {
        remedies.push(format!("a lower --alpha (now {})", short(alpha)));
    }
    for (flag, value) in choice::method(settings).large_settings() {
        remedies.push(format!("a lower {flag} (now {})", short(value)));
    }
    remedies.join(" or ")
}

/// A number, in scientific notation where it would have many zeros.
fn short(value: f64) -> String {
    if value == 0.0 || (1e-4..1e6).contains(&value.abs()) { value.to_string() } else { format!("{value:e}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_step_counts() {
        let mut counters = [8.0; counter::LEN];
        assert_eq!(first_step(&counters), None);
        counters[counter::WATCHED + 1] = -5.0;
        counters[counter::RUNNING] = -3.0;
        counters[counter::LOSS_ROWS] = -3.0;
        let (step, what) = first_step(&counters).unwrap();
        assert_eq!((step, what.as_str()), (3, "losses and running statistics"));
    }

    #[test]
    fn the_remedy_names_what_is_far_off() {
        let settings = Settings { lr: 0.5, weight_decay: 3.0, ..Settings::default() };
        let text = remedy(&settings);
        assert!(text.contains("--lr (now 0.5)") && text.contains("--weight-decay (now 3)"), "{text}");
        assert!(!remedy(&Settings::default()).contains("weight-decay"));
    }
}
