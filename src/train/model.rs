//! The network with everything that training changes beside the confidences: parameters, momentum, batchnorm statistics, and
//! the state of the class-prior estimate.

use anyhow::Result;

use crate::device::Device;
use crate::nn::{Architecture, Parameters, StateDict};
use crate::pll::Debias;
use crate::usage;

/// Name of the moving mean feature in files.
pub const MEAN_FEATURE: &str = "feat_mean";
/// Prefix of SGD's momentum in files.
pub const MOMENTUM_PREFIX: &str = "momentum.";

/// A network in training, on a device.
pub struct Model {
    pub architecture: Architecture,
    pub parameters: Parameters,
    /// What disambiguation and test subtract from the logits.
    pub debias: Debias,
}

impl Model {
    /// A freshly initialised network.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(
        architecture: Architecture,
        seed: u64,
        debias: Debias,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let (width, multiple) = (architecture.width, device.channel_multiple());
        if !width.is_multiple_of(multiple) {
            return Err(usage!(
                "--width {width}: {} with these activations needs a multiple of {multiple}; or take --device cpu",
                device.name()
            ));
        }
        let parameters = Parameters::new(&architecture, seed, device)?;
        Ok(Self { architecture, parameters, debias })
    }

    /// All state under its names in files: parameters, running statistics, `momentum.*`, `feat_mean`.
    pub fn export(&self, device: &mut dyn Device) -> Result<StateDict> {
        let mut dict = self.parameters.export(self.parameters.values, device)?;
        dict.extend(self.parameters.export_running(device)?);
        let velocity = self.parameters.export(self.parameters.velocity, device)?;
        dict.extend(velocity.into_iter().map(|(name, tensor)| (format!("{MOMENTUM_PREFIX}{name}"), tensor)));
        if let Some(prior) = self.debias.estimate() {
            let mean = device.read_f32(prior.mean_feature)?;
            dict.insert(MEAN_FEATURE.into(), (vec![mean.len()], mean));
        }
        Ok(dict)
    }

    /// Takes over what `dict` has of this state; returns how many parameters and running statistics it had.
    ///
    /// # Errors
    /// A usage error for a wrong shape.
    pub fn import(&self, dict: &StateDict, device: &mut dyn Device) -> Result<usize> {
        let p = &self.parameters;
        let found = p.import(p.values, "", dict, device)? + p.import_running(dict, device)?;
        p.import(p.velocity, MOMENTUM_PREFIX, dict, device)?;
        if let (Some(prior), Some((shape, mean))) = (self.debias.estimate(), dict.get(MEAN_FEATURE)) {
            if mean.len() != prior.mean_feature.len {
                let features = prior.mean_feature.len;
                return Err(usage!(
                    "{MEAN_FEATURE}: shape {shape:?}, but the network has {features} features"
                ));
            }
            device.write_f32(prior.mean_feature, mean)?;
        }
        Ok(found)
    }

    /// The gradients of the last step under the parameters' names.
    pub fn gradients(&self, device: &mut dyn Device) -> Result<StateDict> {
        self.parameters.export(self.parameters.gradients, device)
    }
}
