//! The interface of a method: a value made of its settings ([`Method`]), and the same on a device with hooks
//! into training ([`Learner`]).
//!
//! The engine needs nothing else: how many forward passes a step makes and which views they read follows from
//! what [`Learner::record`] records, so nothing is declared twice.

use anyhow::Result;

use super::confidence::Start;
use super::mixup::MixupBuffers;
use super::recorder::{RecordedStep, StepRecorder};
use crate::device::{Buffer, Device};
use crate::nn::{Network, Parameters, StateDict};
use crate::ops::control;

/// The most stages of a run.
pub const MOST_STAGES: usize = 2;

/// How many scalars of its own a method has in the control block ([`control::OWN`] and the positions behind
/// it).
pub const OWN_SCALARS: usize = control::LEN - control::OWN;

/// A stage of a run. Network, confidence rows and learning rate start anew in each; what the method has
/// learnt stays, except what [`Learner::begin_stage`] resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name in the log, if a run has several stages.
    pub name: Option<&'static str>,
    /// Its epochs; a stage of 0 epochs is skipped.
    pub epochs: usize,
}

/// The position of an epoch in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageEpoch {
    /// Stage, counted from 0.
    pub stage: usize,
    /// Epoch of the stage, counted from 0.
    pub epoch: usize,
    /// Epochs of the stage.
    pub epochs: usize,
}

impl StageEpoch {
    /// The position of epoch `epoch` (from 0) in a run of `stages`; epochs behind the last stage count as its
    /// own.
    pub fn of(stages: &[Stage], mut epoch: usize) -> Self {
        let last = stages.len().saturating_sub(1);
        for (stage, of_stage) in stages.iter().enumerate() {
            if epoch < of_stage.epochs || stage == last {
                return Self { stage, epoch, epochs: of_stage.epochs };
            }
            epoch -= of_stage.epochs;
        }
        Self { stage: last, epoch, epochs: 0 }
    }
}

/// The values that change between epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpochControl {
    /// Learning rate of every step of the epoch.
    pub learning_rate: f64,
    /// Whether confidence rows are updated.
    pub update: bool,
    /// Weight of the mixed views' loss in epochs that update confidence rows.
    pub alpha: f64,
    /// The method's own scalars, in the order of [`super::registry::MethodEntry::scalars`].
    pub own: [f64; OWN_SCALARS],
}

/// The extents and buffers with which a method allocates its state.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// Samples B of a step.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// The step of the epoch, i32 `[1]`.
    pub step: Buffer,
    /// Whether training uses mixed views as well.
    pub mixup: bool,
    /// The network's parameters, once it lies on the device.
    pub parameters: Option<&'a Parameters>,
}

impl Room<'_> {
    /// Allocates mixup weights and permutations for every step of an epoch.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn mixup(&self, device: &mut dyn Device) -> Result<MixupBuffers> {
        MixupBuffers::new(self.steps, self.batch, self.step, device)
    }
}

/// A method with its settings, before it lies on a device.
pub trait Method: Send + Sync {
    /// The stages of a run of `epochs` epochs, at most [`MOST_STAGES`].
    fn stages(&self, epochs: usize) -> Vec<Stage> {
        vec![Stage { name: None, epochs }]
    }

    /// The initial confidence rows.
    fn start(&self) -> Start {
        Start::Uniform
    }

    /// Whether every step updates the confidence rows, whatever the epoch.
    fn always_disambiguates(&self) -> bool {
        false
    }

    /// Its settings with unusually large values, as flags: a run that diverged may have done so because of
    /// them.
    fn large_settings(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// The network that it trains: `network`, possibly with layers of the method's own beside the classifier.
    fn network(&self, network: Box<dyn Network>) -> Box<dyn Network> {
        network
    }

    /// The method in training, with its state.
    ///
    /// # Errors
    /// When the device has not enough memory.
    fn on_device(&self, room: &Room, device: &mut dyn Device) -> Result<Box<dyn Learner>>;
}

/// A tensor of a method's state as checkpoints and replays hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateTensor {
    /// Its name in files.
    pub name: &'static str,
    /// Its shape in files; all values are f32.
    pub shape: Vec<usize>,
    /// Whether all values must lie in 0..=1; checked when a case is read.
    pub shares: bool,
}

/// A method in training: its hooks, and its state on a device.
pub trait Learner {
    /// Records a step up to the gradients of the logits.
    ///
    /// # Errors
    /// If the device has not enough memory, or the views that it needs do not exist.
    fn record(&self, step: &mut StepRecorder<'_>) -> Result<RecordedStep>;

    /// The weights and permutations of mixed views, which are drawn anew for every epoch.
    fn mixup(&self) -> Option<&MixupBuffers> {
        None
    }

    /// How many of the step's `forwards` passes have images in an epoch with these scalars. Each one advances
    /// batchnorm's `num_batches_tracked`.
    fn forwards_with_images(&self, forwards: usize, _control: &EpochControl) -> usize {
        forwards
    }

    /// Called when a further stage begins.
    ///
    /// # Errors
    /// If the device fails.
    fn begin_stage(&self, _device: &mut dyn Device) -> Result<()> {
        Ok(())
    }

    /// Called when an epoch begins; returns the method's own scalars.
    ///
    /// # Errors
    /// If the device fails.
    fn begin_epoch(&self, _at: StageEpoch, _device: &mut dyn Device) -> Result<[f64; OWN_SCALARS]> {
        Ok([0.0; OWN_SCALARS])
    }

    /// What the method adds up over the steps of an epoch, f32 or i32, with its name in files:
    /// [`Learner::begin_epoch`] clears it, and a checkpoint inside an epoch holds it.
    fn sums_of_epoch(&self) -> Vec<(&'static str, Buffer)> {
        Vec::new()
    }

    /// Called after an epoch whose state is finite.
    ///
    /// # Errors
    /// If the device fails.
    fn end_epoch(&self, _at: StageEpoch, _device: &mut dyn Device) -> Result<()> {
        Ok(())
    }

    /// Whether the engine should call [`Learner::take_training_logits`] after every epoch, which costs a pass
    /// over the training images.
    fn reads_training_logits(&self) -> bool {
        false
    }

    /// Takes the logits `[N,K]` of all training images in evaluation mode after an epoch, and the candidate
    /// sets `[N,K]`.
    ///
    /// # Errors
    /// If the device fails.
    fn take_training_logits(
        &self,
        _at: StageEpoch,
        _logits: &[f32],
        _candidates: &[u8],
        _device: &mut dyn Device,
    ) -> Result<()> {
        Ok(())
    }

    /// How many samples the method chose in the steps of an epoch, if it chooses among those of a step.
    ///
    /// # Errors
    /// If the device fails.
    fn chosen(&self, _device: &mut dyn Device) -> Result<Option<usize>> {
        Ok(None)
    }

    /// The class prior `[K]`, if the method estimates one.
    ///
    /// # Errors
    /// If the device fails.
    fn class_prior(&self, _device: &mut dyn Device) -> Result<Option<Vec<f64>>> {
        Ok(None)
    }

    /// State that must be finite after an epoch, f32, with its name in messages.
    fn watched(&self) -> Vec<(&'static str, Buffer)> {
        Vec::new()
    }

    /// The tensors that [`Learner::export`] and [`Learner::import`] exchange.
    fn state(&self) -> Vec<StateTensor> {
        Vec::new()
    }

    /// The values of [`Learner::state`], in its order.
    ///
    /// # Errors
    /// If the device fails.
    fn export(&self, _device: &mut dyn Device) -> Result<Vec<Vec<f32>>> {
        Ok(Vec::new())
    }

    /// The buffers that [`Learner::export`] reads, so that a copy of them can be exported later; `None` if there is
    /// more to it than these.
    fn exported(&self) -> Option<Vec<Buffer>> {
        self.state().is_empty().then(Vec::new)
    }

    /// Restores those tensors of [`Learner::state`] that `state` holds, as they were after `steps` steps of
    /// the stage (`None` if unknown). Their shapes have been checked.
    ///
    /// # Errors
    /// If the device fails.
    fn import(&self, _state: &StateDict, _steps: Option<usize>, _device: &mut dyn Device) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_fall_into_stages() {
        let stages = |epochs: &[usize]| -> Vec<Stage> {
            epochs.iter().map(|&epochs| Stage { name: None, epochs }).collect()
        };
        let at = |stages: &[Stage], epoch| {
            let StageEpoch { stage, epoch, .. } = StageEpoch::of(stages, epoch);
            (stage, epoch)
        };
        let two = stages(&[2, 3]);
        assert_eq!([0, 1, 2, 4, 5].map(|epoch| at(&two, epoch)), [(0, 0), (0, 1), (1, 0), (1, 2), (1, 3)]);
        assert_eq!(at(&stages(&[0, 3]), 0), (1, 0));
        assert_eq!(at(&stages(&[3]), 3), (0, 3));
    }
}
