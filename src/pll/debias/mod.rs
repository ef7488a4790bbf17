//! Debias: the log of a class prior is subtracted from the logits that disambiguation and test read.
//!
//! RECORDS (Hong et al., ICLR 2023) estimates the prior that the model has learnt so far: the softmax of its
//! classifier applied to the moving mean feature. Oracle-LA, the published baseline, uses the true class
//! frequencies throughout.

mod operations;

use anyhow::Result;

pub use self::operations::{EstimateClassPrior, MoveMeanFeature};

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::nn::Outputs;
use crate::ops::rows::EPSILON;

/// The source of the class prior, if there is one.
pub enum ClassPriorSource {
    /// No debias.
    None,
    /// A constant prior.
    Oracle(Oracle),
    /// The estimate of RECORDS.
    Records(ClassPrior),
}

/// A constant class prior.
pub struct Oracle {
    /// ln(pi + eps), f32 `[classes]`.
    pub log_prior: Buffer,
    /// Whether disambiguation is debiased as well, or only the test.
    pub in_training: bool,
}

impl Oracle {
    /// The prior is the class frequencies `prior`.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(prior: &[f32], in_training: bool, device: &mut dyn Device) -> Result<Self> {
        let log_prior = device.allocate(Element::F32, prior.len(), "the class prior")?;
        let logs: Vec<f32> = prior.iter().map(|share| (share + EPSILON).ln()).collect();
        device.write_f32(log_prior, &logs)?;
        Ok(Self { log_prior, in_training })
    }
}

impl ClassPriorSource {
    /// Records the training step's part on the first `rows` rows of the features; returns the log-prior that
    /// disambiguation reads.
    pub fn record_training(&self, tape: &mut Tape, rows: usize, outputs: &Outputs) -> Option<Tensor> {
        match self {
            ClassPriorSource::None => None,
            ClassPriorSource::Oracle(oracle) => oracle.in_training.then(|| tape.persistent(oracle.log_prior)),
            ClassPriorSource::Records(prior) => Some(prior.record(tape, rows, outputs)),
        }
    }

    /// Records the evaluation's part; returns the buffer of the log-prior.
    pub fn record_test(&self, tape: &mut Tape, classifier: Tensor) -> Option<Buffer> {
        match self {
            ClassPriorSource::None => None,
            ClassPriorSource::Oracle(oracle) => Some(oracle.log_prior),
            ClassPriorSource::Records(prior) => {
                let mean = tape.persistent(prior.mean_feature);
                prior.record_estimate(tape, mean, classifier);
                Some(prior.log_prior)
            }
        }
    }

    /// The class prior that RECORDS estimated, if it is in use, from the log-prior that evaluation
    /// subtracted.
    pub fn estimated_prior(&self, log_prior: Option<&[f32]>) -> Option<Vec<f64>> {
        self.estimate()?;
        Some(log_prior?.iter().map(|&log| f64::from(log).exp()).collect())
    }

    /// The estimate of RECORDS, if it is in use.
    pub fn estimate(&self) -> Option<&ClassPrior> {
        match self {
            ClassPriorSource::Records(prior) => Some(prior),
            _ => None,
        }
    }
}

/// The moving mean feature F and the logarithm of the class prior estimated from it, on the device.
pub struct ClassPrior {
    /// F, f32 `[features]`; zero before the first step.
    pub mean_feature: Buffer,
    /// ln(pi + eps), f32 `[classes]`.
    pub log_prior: Buffer,
    /// m of docs/spec.md, section 6: the weight of the old mean.
    pub momentum: f32,
}

impl ClassPrior {
    /// Allocates the state for a network of `features` features and `classes` classes.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(features: usize, classes: usize, momentum: f32, device: &mut dyn Device) -> Result<Self> {
        Ok(Self {
            mean_feature: device.allocate(Element::F32, features, "the mean feature")?,
            log_prior: device.allocate(Element::F32, classes, "the class prior")?,
            momentum,
        })
    }

    /// Records F <- m F + (1-m) mean of the first `rows` rows of the features, then the estimate; returns the
    /// log-prior.
    pub fn record(&self, tape: &mut Tape, rows: usize, outputs: &Outputs) -> Tensor {
        let mean = tape.persistent(self.mean_feature);
        let inputs = self.mean_feature.len;
        let features = outputs.features;
        tape.push(MoveMeanFeature { rows, inputs, momentum: self.momentum, features, mean });
        self.record_estimate(tape, mean, outputs.classifier)
    }

    /// Records ln(softmax(W F + b) + eps) alone.
    fn record_estimate(&self, tape: &mut Tape, mean: Tensor, classifier: Tensor) -> Tensor {
        let log_prior = tape.persistent(self.log_prior);
        let (inputs, classes) = (self.mean_feature.len, self.log_prior.len);
        tape.push(EstimateClassPrior { inputs, classes, mean, parameters: classifier, log_prior });
        log_prior
    }
}
