//! What a method is: a value made of its settings ([`Method`]), and the same on a device with hooks into
//! training ([`Learner`]).
//!
//! The engine asks for nothing else: how many forwards a step makes and which views they read is seen from
//! what [`Learner::record`] records, so that nothing has to be declared twice.

use anyhow::Result;

use super::confidence::Start;
use super::mixup::MixupBuffers;
use super::recorder::{RecordedStep, StepRecorder};
use crate::device::{Buffer, Device};
use crate::nn::{Network, Parameters, StateDict};
use crate::ops::control;

/// Stages that a run has at most.
pub const MOST_STAGES: usize = 2;

/// Scalars of a method's own in the control block of a step ([`control::OWN`] and those behind it).
pub const OWN_SCALARS: usize = control::LEN - control::OWN;

/// A stage of a run. The network, its confidence rows and the learning rate begin each one anew; what the
/// method has learnt stays, but for what [`Learner::begin_stage`] forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// What is said when it begins, if there is more than one.
    pub name: Option<&'static str>,
    /// Its epochs; a stage of none is left out.
    pub epochs: usize,
}

/// Where an epoch of a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageEpoch {
    /// From 0.
    pub stage: usize,
    /// Epoch of the stage, from 0.
    pub epoch: usize,
    /// Epochs of the stage.
    pub epochs: usize,
}

impl StageEpoch {
    /// Of epoch `epoch` (from 0) of a run of `stages`; what lies behind the last stage is counted with it.
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

/// What changes from epoch to epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EpochControl {
    pub learning_rate: f64,
    /// Whether confidences are renewed.
    pub update: bool,
    /// Weight of the mixed views' loss, once confidences are renewed.
    pub alpha: f64,
    /// The method's own, in the order of [`super::registry::MethodEntry::scalars`].
    pub own: [f64; OWN_SCALARS],
}

/// What a method is given room for.
#[derive(Clone, Copy)]
pub struct Room<'a> {
    /// Samples B of a step.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// Steps of an epoch.
    pub steps: usize,
    /// i32 `[1]`, the step of the epoch.
    pub step: Buffer,
    /// Whether mixed views are trained on as well.
    pub mixup: bool,
    /// Those of the network, once it lies on the device.
    pub parameters: Option<&'a Parameters>,
}

impl Room<'_> {
    /// Weights and permutations for every step of an epoch.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn mixup(&self, device: &mut dyn Device) -> Result<MixupBuffers> {
        MixupBuffers::new(self.steps, self.batch, self.step, device)
    }
}

/// A method with its settings, before anything of it lies on a device.
pub trait Method: Send + Sync {
    /// The stages of a run of `epochs` epochs, [`MOST_STAGES`] at most.
    fn stages(&self, epochs: usize) -> Vec<Stage> {
        vec![Stage { name: None, epochs }]
    }

    /// What the confidence rows hold at first.
    fn start(&self) -> Start {
        Start::Uniform
    }

    /// Whether confidences are renewed in every step, whatever the epoch.
    fn always_disambiguates(&self) -> bool {
        false
    }

    /// Those of its settings that are far above what is usual, as flags, with their values: a run that
    /// diverged may have done so because of them.
    fn large_settings(&self) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// The network that it trains: `network`, or one with layers of its own beside the classifier.
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
    pub shape: Vec<usize>,
    /// Whether all values are 0 to 1; those of a given case are checked.
    pub shares: bool,
}

/// A method in training: its hooks, and its state on a device.
pub trait Learner {
    /// Records a step up to the gradients of the logits.
    ///
    /// # Errors
    /// When the device has not enough memory, and where the views that it asks for are not there.
    fn record(&self, step: &mut StepRecorder<'_>) -> Result<RecordedStep>;

    /// Weights and permutations of mixed views, which are drawn anew for every epoch.
    fn mixup(&self) -> Option<&MixupBuffers> {
        None
    }

    /// How many of the step's `forwards` have images in an epoch with these scalars: each is a batch for
    /// batchnorm's counter.
    fn forwards_with_images(&self, forwards: usize, _control: &EpochControl) -> usize {
        forwards
    }

    /// A further stage begins.
    fn begin_stage(&self, _device: &mut dyn Device) -> Result<()> {
        Ok(())
    }

    /// An epoch begins; returns its scalars of the method's own.
    fn begin_epoch(&self, _at: StageEpoch, _device: &mut dyn Device) -> Result<[f64; OWN_SCALARS]> {
        Ok([0.0; OWN_SCALARS])
    }

    /// An epoch has ended with finite state.
    fn end_epoch(&self, _at: StageEpoch, _device: &mut dyn Device) -> Result<()> {
        Ok(())
    }

    /// Whether [`Learner::take_training_logits`] is to be called after every epoch, which costs a pass over
    /// the training images.
    fn reads_training_logits(&self) -> bool {
        false
    }

    /// The logits `[N,K]` of all training images in evaluation mode after an epoch, and the candidate sets
    /// `[N,K]`.
    fn take_training_logits(
        &self,
        _at: StageEpoch,
        _logits: &[f32],
        _candidates: &[u8],
        _device: &mut dyn Device,
    ) -> Result<()> {
        Ok(())
    }

    /// The class prior `[K]` that the method estimates, if it does.
    fn class_prior(&self, _device: &mut dyn Device) -> Result<Option<Vec<f64>>> {
        Ok(None)
    }

    /// State that must be finite after an epoch, f32, each with what a message calls it.
    fn watched(&self) -> Vec<(&'static str, Buffer)> {
        Vec::new()
    }

    /// The tensors that [`Learner::export`] and [`Learner::import`] speak of.
    fn state(&self) -> Vec<StateTensor> {
        Vec::new()
    }

    /// The values of [`Learner::state`], in its order.
    fn export(&self, _device: &mut dyn Device) -> Result<Vec<Vec<f32>>> {
        Ok(Vec::new())
    }

    /// Takes over what is there of [`Learner::state`], of the right shapes, as it was after `steps` steps of
    /// the stage; `None` where that is not known.
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
