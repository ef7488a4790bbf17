//! Divergence: values that are no longer finite, have exploded or have collapsed end a run, or make it go back,
//! before anything of that epoch is written.
//!
//! The device notes the first step of an epoch whose logits, losses or running statistics are not finite (see
//! [`counter::WATCHED`]); what a step leaves in weights, momentum, confidences and prior is counted there after
//! each epoch ([`StateWatch`]). Large finite values are no divergence, since batchnorm takes their scale out
//! again, up to [`EXPLODED`].

use std::path::Path;

use anyhow::Result;

use super::choice;
use super::engine::Engine;
use super::metrics::EpochMetrics;
use super::model::Model;
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Plan};
use crate::nn::StateDict;
use crate::ops::statistics::{CountNotFinite, counter};
use crate::settings::{OnDivergence, Settings};
use crate::text::printable;

/// Losses and weights beyond this have exploded: numbers of this size are 64 apart in f32, more than any softmax
/// tells apart. Running variances have beyond its square, and so have the logits of an evaluation: while running
/// statistics lag behind in the first epochs, each layer multiplies what they are wrong by.
pub const EXPLODED: f32 = 1e9;

/// A class prior has collapsed where all classes but one have less than this together: debiasing by it decides
/// every prediction.
const COLLAPSED_PRIOR: f64 = 1e-6;

/// The error of a run that has diverged.
#[derive(Debug)]
pub struct Diverged {
    /// In which epoch, and how that showed.
    pub sign: String,
    /// What is left, and what to do.
    remedy: String,
}

impl std::fmt::Display for Diverged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.sign, self.remedy)
    }
}

impl std::error::Error for Diverged {}

/// Whether the loss of the last step has exploded, in words.
pub fn exploded_loss(counters: &[f32]) -> Option<String> {
    let loss = counters[counter::LAST_LOSS];
    (loss > EXPLODED).then(|| format!("the loss has exploded to {loss:.1e}"))
}

/// The first of `tensors` whose values have exploded, in words; of variances, see [`EXPLODED`].
pub fn first_exploded<'a>(tensors: impl IntoIterator<Item = (&'a String, &'a [f32])>) -> Option<String> {
    tensors.into_iter().find_map(|(name, values)| {
        let limit = if name.ends_with("running_var") { EXPLODED * EXPLODED } else { EXPLODED };
        let value = values.iter().find(|value| value.abs() > limit)?;
        Some(format!("tensor '{}' has exploded: it holds {value:.1e}", printable(name)))
    })
}

/// Samples that are named at most.
const MOST_SAMPLES: usize = 8;

/// Numbers of samples in words, the first few of them.
pub fn samples_in_words(samples: &[u32]) -> String {
    let shown: Vec<String> = samples.iter().take(MOST_SAMPLES).map(u32::to_string).collect();
    let more = match samples.len().saturating_sub(MOST_SAMPLES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", shown.join(", "))
}

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

/// The warning about confidence rows `[N,K]` that are 0 in every class, if there are such: no factor makes
/// them sum to 1, and their samples have no part in the loss. No method makes any from finite logits.
pub fn empty_rows(rows: &[f32], classes: usize) -> Option<String> {
    let is_empty = |row: &[f32]| row.iter().all(|&confidence| confidence <= 0.0);
    let empty: Vec<u32> = (0..)
        .zip(rows.chunks_exact(classes))
        .filter(|(_, row)| is_empty(row))
        .map(|(sample, _)| sample)
        .collect();
    let count = empty.len();
    (count > 0).then(|| {
        format!(
            "the confidence of {count} of {} training samples is 0 in every class, so that nothing is learnt of them: {}",
            rows.len() / classes,
            samples_in_words(&empty)
        )
    })
}

/// Which of the logits `[N,K]` of images (`what`: training or test) are not finite, if any.
pub fn in_logits(logits: &[f32], classes: usize, what: &str) -> Option<String> {
    let Some(at) = logits.iter().position(|z| !z.is_finite()) else {
        let at = logits.iter().position(|z| z.abs() > EXPLODED * EXPLODED)?;
        let (image, value) = (at / classes, logits[at]);
        return Some(format!("the logits of {what} images have exploded: {value:.1e} of image {image}"));
    };
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

/// Which of an epoch's figures is not finite, or says that confidence rows or class prior have collapsed.
pub fn in_figures(metrics: &EpochMetrics, classes: usize) -> Option<String> {
    not_finite_figure(metrics).or_else(|| collapsed(metrics, classes))
}

/// A row that sums to 1 has a largest confidence of at least 1 / K.
fn collapsed(metrics: &EpochMetrics, classes: usize) -> Option<String> {
    // Exactly 0 says that nothing was computed, as by a driver that skips kernels.
    let mean = metrics.mean_max_confidence;
    if mean > 0.0 && mean < 0.5 / classes as f64 {
        let mean = metrics.mean_max_confidence;
        return Some(format!(
            "the confidence rows have collapsed: their largest values have mean {mean:.1e}"
        ));
    }
    let prior = metrics.class_prior.as_ref()?;
    let (class, most) = prior.iter().copied().enumerate().max_by(|a, b| a.1.total_cmp(&b.1))?;
    let others: f64 = prior.iter().enumerate().filter(|(k, _)| *k != class).map(|(_, share)| share).sum();
    (prior.len() > 1 && others < COLLAPSED_PRIOR)
        .then(|| format!("the estimated class prior has collapsed: {most:.7} is class {class}"))
}

fn not_finite_figure(metrics: &EpochMetrics) -> Option<String> {
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
    let back = match (epoch, settings.on_divergence) {
        (1.., OnDivergence::Stop) => ", or resume with --on-divergence rollback",
        _ => "",
    };
    let sign = format!("training has diverged in epoch {epoch}: {sign}");
    let lower = remedy(settings);
    let remedy = format!("nothing of this epoch was written{kept}; start a new run with {lower}{back}");
    Diverged { sign, remedy }.into()
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
    fn explosions_and_collapses_are_named() {
        let mut counters = [0.0; counter::LEN];
        assert_eq!(exploded_loss(&counters), None);
        counters[counter::LAST_LOSS] = 2e9;
        assert_eq!(exploded_loss(&counters).unwrap(), "the loss has exploded to 2.0e9");
        assert_eq!(in_logits(&[1.0, -9e17], 2, "test"), None);
        assert!(in_logits(&[0.0, 1.0, 0.0, -2e18], 2, "test").unwrap().contains("-2.0e18 of image 1"));
        let (weight, variance) = ("fc.weight".to_string(), "bn.running_var".to_string());
        let large = [3e9];
        assert!(first_exploded([(&weight, &large[..])]).unwrap().contains("'fc.weight' has exploded"));
        assert_eq!(first_exploded([(&variance, &large[..])]), None);

        let figures = |confidence: f64, prior: Option<Vec<f64>>| EpochMetrics {
            epoch: 0,
            learning_rate: 0.1,
            loss: 1.0,
            chosen: None,
            steps_left_out: None,
            train_accuracy: None,
            mean_max_confidence: confidence,
            label_accuracy: None,
            prior_distance: None,
            class_prior: prior,
            test: None,
        };
        assert_eq!(in_figures(&figures(0.1, Some(vec![0.99999, 1e-5])), 10), None);
        assert!(in_figures(&figures(0.01, None), 10).unwrap().contains("rows have collapsed"));
        let prior = in_figures(&figures(0.5, Some(vec![1e-8, 1.0, 1e-8])), 3).unwrap();
        assert!(prior.contains("prior has collapsed: 1.0000000 is class 1"), "{prior}");
        assert!(in_figures(&figures(f64::NAN, None), 3).unwrap().contains("is NaN"));
    }

    /// A row is empty if no class has any confidence, whatever it sums to otherwise.
    #[test]
    fn rows_without_confidence_are_counted() {
        assert_eq!(empty_rows(&[0.0, 1e-30, 3.0, 3.0], 2), None);
        let said = empty_rows(&[0.0, 0.0, 1.0, 0.0, -0.0, 0.0], 2).unwrap();
        assert!(said.contains("2 of 3 training samples") && said.ends_with(": 0, 2"), "{said}");
        let said = empty_rows(&[0.0; 40], 2).unwrap();
        assert!(said.contains("20 of 20") && said.ends_with("6, 7 and 12 more"), "{said}");
    }

    #[test]
    fn few_samples_are_shown() {
        assert_eq!(samples_in_words(&[3, 1]), "3, 1");
        assert_eq!(samples_in_words(&[7; 10]), "7, 7, 7, 7, 7, 7, 7, 7 and 2 more");
    }

    #[test]
    fn the_remedy_names_what_is_far_off() {
        let settings = Settings { lr: 0.5, weight_decay: 3.0, ..Settings::default() };
        let text = remedy(&settings);
        assert!(text.contains("--lr (now 0.5)") && text.contains("--weight-decay (now 3)"), "{text}");
        assert!(!remedy(&Settings::default()).contains("weight-decay"));
    }
}
