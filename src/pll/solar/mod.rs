//! SoLar (Wang et al., "SoLar: Sinkhorn label refinery for imbalanced partial-label learning", NeurIPS 2022;
//! docs/spec.md, section 7).
//!
//! In a step, Sinkhorn computes pseudo-labels Q from the predictions M = p^w s of the weak views and a queue
//! of earlier predictions, with the class prior r as marginal. Of each class, the samples with the least loss
//! against Q are chosen, a share that rises over the warm-up, and every sample that agrees with its Q. The
//! chosen samples learn Q from the weak, the strong and a mixed view, the others their confidence row, which
//! is then updated to M / sum M. Weak, strong and mixed views have separate forward passes, so each is a
//! batch of its own for batchnorm, the mixed one of the chosen samples only. After each epoch r moves towards
//! the counts of predictions.
//!
//! | file | what |
//! |---|---|
//! | here | the method's hooks, and the order of a step |
//! | [`refinery`] | pseudo-labels: Sinkhorn, the queue and the class prior |
//! | [`choice`] | the chosen samples and their mixed views |
//! | [`operations`] | the arithmetic of all these, on the CPU and in kernels |

pub mod choice;
pub mod operations;
pub mod refinery;
pub mod settings;

use std::sync::Arc;

use anyhow::Result;

use self::choice::Choice;
use self::operations::{CountArgmax, MixedLoss, SolarLoss, outcome};
use self::refinery::Refinery;
use super::cc::CandidateSoftmax;
use super::method::{EpochControl, Learner, Method, OWN_SCALARS, Room, Stage, StageEpoch, StateTensor};
use super::mixup::MixupBuffers;
use super::recorder::{Exposed, RecordedStep, StepRecorder, StepRows};
use super::registry::{MethodEntry, Scalar};
use crate::device::{Buffer, Device, Element, Tensor};
use crate::nn::StateDict;
use crate::ops::confidence::Disambiguate;
use crate::pll::solar::settings::{PriorFrom, SolarSettings};

/// SoLar for the registry.
pub static ENTRY: MethodEntry = MethodEntry {
    mixes: true,
    no_debias: Some(
        "Sinkhorn's result is the same when predictions are rescaled class by class, so a debias would not \
         change its pseudo-labels",
    ),
    // See [`ramps`]; with eta = 0 nothing is chosen.
    scalars: &[Scalar { name: "eta", default: 0.0 }, Scalar { name: "rho", default: 0.2 }],
    step_settings: &["queue-length", "lamd", "tau"],
    ..MethodEntry::with_settings::<SolarSettings>("solar", "SoLar", "Sinkhorn label refinery")
};

/// Names of the state in files.
const CLASS_PRIOR: &str = "class_prior";
const QUEUE: &str = "queue";

/// A power of the predictions above this is unusual.
const LARGE_POWER: f64 = 100.0;

impl Method for SolarSettings {
    /// The first stage estimates the class prior with which the second begins.
    fn stages(&self, epochs: usize) -> Vec<Stage> {
        vec![
            Stage { name: Some("estimating the class prior"), epochs: self.estimation_epochs },
            Stage { name: Some("training"), epochs },
        ]
    }

    fn always_disambiguates(&self) -> bool {
        true
    }

    fn large_settings(&self) -> Vec<(&'static str, f64)> {
        if self.lambda > LARGE_POWER { vec![("--lamd", self.lambda)] } else { Vec::new() }
    }

    fn on_device(&self, room: &Room, device: &mut dyn Device) -> Result<Box<dyn Learner>> {
        Ok(Box::new(Solar::new(self, room, device)?))
    }
}

/// SoLar in training.
pub struct Solar {
    settings: SolarSettings,
    /// Pseudo-labels, their queue and the class prior.
    pub refinery: Refinery,
    /// Predictions counted by class over the steps of an epoch, f32 `[K]`; `None` if steps do not count them.
    pub counts: Option<Buffer>,
    /// Samples chosen in the steps of an epoch, i32 `[1]`.
    pub chosen: Buffer,
    /// Its permutations order the chosen samples, so it exists without mixed views as well.
    mixup: MixupBuffers,
    /// Whether the chosen samples are mixed and forwarded a third time.
    mixes: bool,
}

impl Solar {
    /// The initial state: an empty queue and a uniform class prior.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(settings: &SolarSettings, room: &Room, device: &mut dyn Device) -> Result<Self> {
        let counts = match settings.prior_from {
            PriorFrom::Steps => {
                Some(device.allocate(Element::F32, room.classes, "the predictions by class")?)
            }
            PriorFrom::Pass => None,
        };
        Ok(Self {
            settings: settings.clone(),
            refinery: Refinery::new(settings, [room.batch, room.classes], device)?,
            counts,
            chosen: device.allocate(Element::I32, 1, "the number of chosen samples")?,
            mixup: room.mixup(device)?,
            mixes: room.mixup,
        })
    }

    /// Moves r towards the counts of predictions by class.
    fn move_class_prior(&self, at: StageEpoch, counted: &[f64], device: &mut dyn Device) -> Result<()> {
        let [estimating, training] = self.settings.gamma;
        let gamma = if at.stage == 0 { estimating } else { training };
        self.refinery.update_prior(counted, gamma, device)
    }

    /// Records the losses of a step and the disambiguation of the rows; returns the gradients of the logits
    /// and the losses.
    fn record_losses(
        &self,
        step: &mut StepRecorder<'_>,
        parts: LossInputs,
    ) -> (Vec<(Tensor, Tensor)>, Tensor) {
        let LossInputs { weak, strong, refined, choice, mixed } = parts;
        let StepRows { classes, confidence, candidates, index, control } = step.rows;
        let (batch, len) = (step.batch, step.batch * classes);
        let tape = &mut *step.tape;
        let [d_weak, d_strong] = [(); 2].map(|()| tape.temporary(Element::F32, len));
        let loss_rows = tape.temporary(Element::F32, batch);
        tape.push(SolarLoss {
            batch,
            classes,
            weak,
            strong,
            pseudo_labels: refined,
            mixed,
            confidence,
            index,
            chosen: choice.chosen,
            count: choice.count,
            control,
            d_weak,
            d_strong,
            loss_rows,
        });
        // The reference updates the rows after SGD, from these same logits; the loss above has read the old
        // rows.
        tape.push(Disambiguate {
            disambiguation: Arc::new(CandidateSoftmax),
            joint: None,
            batch,
            classes,
            logits: weak,
            log_prior: None,
            candidates,
            index,
            control,
            confidence,
        });
        let mut logits = vec![(weak, d_weak), (strong, d_strong)];
        logits.extend(mixed.map(|mixed| (mixed.logits, mixed.d_logits)));
        (logits, loss_rows)
    }
}

/// The inputs of a step's losses.
struct LossInputs {
    weak: Tensor,
    strong: Tensor,
    refined: Tensor,
    choice: Choice,
    mixed: Option<MixedLoss>,
}

impl Learner for Solar {
    fn record(&self, step: &mut StepRecorder<'_>) -> Result<RecordedStep> {
        let [weak_images, strong_images] = [step.view(0)?, step.views_to_forward(1..2)?];
        let weak = step.forward(weak_images)?.logits;
        let strong = step.forward(strong_images)?.logits;
        let (batch, classes) = (step.batch, step.rows.classes);

        let predictions = refinery::record_predictions(step, weak);
        let refined = self.refinery.record(step.tape, predictions);
        if let Some(counts) = self.counts {
            let counts = step.tape.persistent(counts);
            step.tape.push(CountArgmax { rows: batch, classes, x: predictions, counts });
        }
        let choice = Choice::record(step, self, weak, refined.labels);
        let mixed = match self.mixes {
            true => Some(choice.record_mixed(step, &self.mixup, weak_images, refined.labels)?),
            false => None,
        };
        let parts = LossInputs { weak, strong, refined: refined.labels, choice, mixed };
        let chosen = parts.choice.chosen;
        let (logits, loss_rows) = self.record_losses(step, parts);
        let names = ["logits.weak", "logits.strong", "logits.weak_mixed"];
        Ok(RecordedStep {
            names: names[..logits.len()].to_vec(),
            logits,
            seeds: Vec::new(),
            loss_rows,
            exposed: vec![
                Exposed { name: "refined", tensor: refined.labels, shape: vec![batch, classes] },
                Exposed { name: "chosen", tensor: chosen, shape: vec![batch] },
                Exposed { name: "sinkhorn", tensor: refined.outcome, shape: vec![outcome::LEN] },
            ],
        })
    }

    fn mixup(&self) -> Option<&MixupBuffers> {
        Some(&self.mixup)
    }

    /// With eta = 0 nothing is chosen and so nothing mixed; otherwise every batch has chosen samples.
    fn forwards_with_images(&self, forwards: usize, control: &EpochControl) -> usize {
        let [eta, _] = control.own;
        if eta == 0.0 { forwards.min(2) } else { forwards }
    }

    fn begin_stage(&self, device: &mut dyn Device) -> Result<()> {
        self.refinery.empty_queue(device)
    }

    fn begin_epoch(&self, at: StageEpoch, device: &mut dyn Device) -> Result<[f64; OWN_SCALARS]> {
        if let Some(counts) = self.counts {
            device.write_f32(counts, &vec![0.0; counts.len])?;
        }
        device.write_i32(self.chosen, &[0])?;
        Ok(ramps(&self.settings, at.epoch))
    }

    fn sums_of_epoch(&self) -> Vec<(&'static str, Buffer)> {
        let counts = self.counts.map(|counts| ("predictions_by_class", counts));
        [("chosen", self.chosen)].into_iter().chain(counts).collect()
    }

    fn end_epoch(&self, at: StageEpoch, device: &mut dyn Device) -> Result<()> {
        let Some(counts) = self.counts else { return Ok(()) };
        let counted: Vec<f64> = device.read_f32(counts)?.into_iter().map(f64::from).collect();
        self.move_class_prior(at, &counted, device)
    }

    fn reads_training_logits(&self) -> bool {
        self.counts.is_none()
    }

    fn take_training_logits(
        &self,
        at: StageEpoch,
        logits: &[f32],
        candidates: &[u8],
        device: &mut dyn Device,
    ) -> Result<()> {
        let counted = count_predictions(logits, candidates, self.refinery.class_prior.len);
        self.move_class_prior(at, &counted, device)
    }

    fn chosen(&self, device: &mut dyn Device) -> Result<Option<usize>> {
        Ok(Some(device.read_i32(self.chosen)?[0] as usize))
    }

    fn class_prior(&self, device: &mut dyn Device) -> Result<Option<Vec<f64>>> {
        let prior = device.read_f32(self.refinery.class_prior)?;
        Ok(Some(prior.into_iter().map(f64::from).collect()))
    }

    fn watched(&self) -> Vec<(&'static str, Buffer)> {
        let mut watched = vec![("SoLar's class prior", self.refinery.class_prior)];
        watched.extend(self.refinery.queue.map(|queue| ("SoLar's queue", queue)));
        watched
    }

    fn state(&self) -> Vec<StateTensor> {
        let classes = self.refinery.class_prior.len;
        let rows = self.refinery.queue.map_or(0, |queue| queue.len / classes);
        vec![
            StateTensor { name: CLASS_PRIOR, shape: vec![classes], shares: true },
            StateTensor { name: QUEUE, shape: vec![rows, classes], shares: false },
        ]
    }

    fn export(&self, device: &mut dyn Device) -> Result<Vec<Vec<f32>>> {
        Ok(vec![device.read_f32(self.refinery.class_prior)?, self.refinery.export_queue(device)?])
    }

    fn exported(&self) -> Option<Vec<Buffer>> {
        Some(self.refinery.exported())
    }

    fn import(&self, state: &StateDict, steps: Option<usize>, device: &mut dyn Device) -> Result<()> {
        if let Some((_, prior)) = state.get(CLASS_PRIOR) {
            device.write_f32(self.refinery.class_prior, prior)?;
        }
        let Some((_, queue)) = state.get(QUEUE) else { return Ok(()) };
        let steps = steps.unwrap_or_else(|| self.refinery.filled_blocks(queue));
        self.refinery.import_queue(queue, steps, device)
    }
}

/// Counts predictions by class: the argmax of p s over the logits `[N,K]` of all training samples. The
/// softmax is not needed, because it preserves the order of the logits.
pub fn count_predictions(logits: &[f32], candidates: &[u8], classes: usize) -> Vec<f64> {
    let mut counts = vec![0.0; classes];
    for (row, set) in logits.chunks_exact(classes).zip(candidates.chunks_exact(classes)) {
        let inside = (0..classes).filter(|&k| set[k] != 0);
        let best = inside.reduce(|best, k| if row[k] > row[best] { k } else { best });
        counts[best.unwrap_or(0)] += 1.0;
    }
    counts
}

/// eta and rho of an epoch of a stage (docs/spec.md, section 7): over the warm-up eta rises from 0, and rho
/// from its first value to its second. Epoch 0 chooses nothing, which eta = 0 expresses.
pub fn ramps(settings: &SolarSettings, epoch: usize) -> [f64; 2] {
    let ramp = match settings.warmup_epochs {
        0 => 1.0,
        warmup => (epoch as f64 / warmup as f64).min(1.0),
    };
    let [from, to] = settings.rho;
    let eta = if epoch == 0 { 0.0 } else { settings.eta * ramp };
    [eta, from + (to - from) * ramp]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;

    #[test]
    fn ramps_start_at_epoch_1_and_end_with_the_warm_up() {
        let settings = Settings::default().of_method::<SolarSettings>();
        assert_eq!(ramps(&settings, 0), [0.0, 0.2]);
        assert!((ramps(&settings, 25)[0] - 0.45).abs() < 1e-12);
        assert!((ramps(&settings, 25)[1] - 0.4).abs() < 1e-12);
        for epoch in [50, 300] {
            assert!((ramps(&settings, epoch)[0] - 0.9).abs() < 1e-12);
            assert!((ramps(&settings, epoch)[1] - 0.6).abs() < 1e-12);
        }
        let none = SolarSettings { warmup_epochs: 0, ..settings };
        assert_eq!(ramps(&none, 0)[0], 0.0);
        assert!((ramps(&none, 1)[0] - 0.9).abs() < 1e-12);
    }

    #[test]
    fn predictions_outside_the_candidates_do_not_count() {
        let counts = count_predictions(&[5.0, 1.0, 2.0, 0.0, 0.0, 0.0], &[0, 1, 1, 1, 1, 0], 3);
        assert_eq!(counts, [1.0, 0.0, 1.0]);
    }
}
