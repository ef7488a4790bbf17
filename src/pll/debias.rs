//! RECORDS (Hong et al., ICLR 2023): the class prior that the model has learnt so far is the softmax of its classifier on the
//! moving mean feature; disambiguation and test subtract its logarithm from the logits.

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Primitive, Tensor};
use crate::nn::resnet::Outputs;

/// The moving mean feature F and the logarithm of the class prior estimated from it, on the device.
pub struct ClassPrior {
    /// F, f32 `[features]`; zero before the first step.
    pub mean_feature: Buffer,
    /// ln(pi + eps), f32 `[classes]`.
    pub log_prior: Buffer,
    /// m of SPEC 6: the weight of the old mean.
    pub momentum: f32,
}

impl ClassPrior {
    /// State for a network of `features` features and `classes` classes.
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

    /// Records F <- m F + (1-m) mean of `features` `[rows, D]`, then the estimate from it. Returns the log-prior.
    pub fn record(&self, tape: &mut Tape, rows: usize, outputs: &Outputs) -> Tensor {
        let mean = tape.persistent(self.mean_feature);
        let inputs = self.mean_feature.len;
        let features = outputs.features;
        tape.push(Primitive::MeanFeature { rows, inputs, momentum: self.momentum, features, mean });
        self.record_estimate(tape, mean, outputs.classifier)
    }

    /// Records ln(softmax(W F + b) + eps) alone, as evaluation needs it.
    pub fn record_estimate(&self, tape: &mut Tape, mean: Tensor, classifier: Tensor) -> Tensor {
        let log_prior = tape.persistent(self.log_prior);
        let (inputs, classes) = (self.mean_feature.len, self.log_prior.len);
        tape.push(Primitive::ClassPrior { inputs, classes, mean, parameters: classifier, log_prior });
        log_prior
    }
}
