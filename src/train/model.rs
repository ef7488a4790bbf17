//! The network with all state that training changes, apart from the confidence rows: parameters, the
//! optimiser's state, batchnorm statistics, and the mean feature of the class-prior estimate.

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::nn::{Network, Parameters, StateDict};
use crate::ops::division;
use crate::optim::{self, Arenas, Hyperparameters, LossScale, Optimiser, OptimiserState, loss_scale};
use crate::pll::ClassPriorSource;
use crate::usage;

/// Name of the mean feature in files.
pub const MEAN_FEATURE: &str = "feat_mean";

/// A network in training, on a device.
pub struct Model {
    /// The network's definition.
    pub network: Box<dyn Network>,
    /// Its parameters, their gradients and batchnorm's running statistics.
    pub parameters: Parameters,
    /// The optimiser and its state.
    pub optimiser: Box<dyn Optimiser>,
    /// What the gradients are multiplied by, if the device stores activations as f16.
    pub loss_scale: Option<LossScale>,
    /// What disambiguation and evaluation subtract from the logits.
    pub debias: ClassPriorSource,
}

impl Model {
    /// A freshly initialised network, and an optimiser before its first step.
    ///
    /// # Errors
    /// If the device has not enough memory; a usage error if its kernels do not take the network's number of
    /// channels.
    pub fn new(
        network: Box<dyn Network>,
        (optimiser, constants): (optim::registry::Constructor, Hyperparameters),
        seed: u64,
        debias: ClassPriorSource,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let (width, multiple) = (network.channel_multiple(), device.channel_multiple());
        if !width.is_multiple_of(multiple) {
            return Err(usage!(
                "--width {width}: {} with these activations needs a multiple of {multiple}; or take --device cpu",
                device.name()
            ));
        }
        let parameters = Parameters::new(&*network, seed, device)?;
        let optimiser = optimiser(constants, parameters.len(), device)?;
        let scaled = device.activations() == Element::F16;
        let loss_scale = scaled.then(|| LossScale::new(device)).transpose()?;
        Ok(Self { network, parameters, optimiser, loss_scale, debias })
    }

    /// Draws fresh parameters and running statistics from (`seed`, `stage`), and resets the optimiser.
    pub fn initialise(&self, seed: u64, stage: u32, device: &mut dyn Device) -> Result<()> {
        self.parameters.initialise(seed, stage, device)?;
        self.loss_scale.map_or(Ok(()), |scale| scale.reset(device))?;
        self.optimiser.reset(device)
    }

    /// Records the optimiser's step from the summed gradients of all forward passes; the learning rate lies
    /// in `control`.
    pub fn record_update(&self, tape: &mut Tape, control: Tensor) {
        let Parameters { values, gradients, copy, .. } = self.parameters;
        if tape.share().is_divided() {
            division::sum_gradients(tape, gradients, &self.parameters.further_gradients);
        } else {
            self.parameters.record_sum_of_gradients(tape);
        }
        let scale = self.loss_scale;
        if let Some(scale) = scale {
            scale.record_count(tape, gradients);
        }
        self.optimiser.record(tape, &Arenas { values, gradients, copy, scale }, control);
        if let Some(scale) = scale {
            scale.record_move(tape);
        }
    }

    /// The optimiser's state and the loss scale.
    fn state(&self) -> impl Iterator<Item = OptimiserState> {
        let whole = |scale: LossScale| OptimiserState::Whole { name: loss_scale::NAME, values: scale.state };
        let scale = self.loss_scale.map(whole);
        self.optimiser.state().into_iter().chain(scale)
    }

    /// Where all of this state lies.
    pub fn exported(&self) -> Vec<Buffer> {
        let own = [self.parameters.values, self.parameters.running];
        let mean = self.debias.estimate().map(|prior| prior.mean_feature);
        own.into_iter().chain(self.state().map(|state| state.buffer())).chain(mean).collect()
    }

    /// All state under its names in files: parameters, running statistics, the optimiser's state,
    /// the loss scale, `feat_mean`.
    pub fn export(&self, device: &mut dyn Device) -> Result<StateDict> {
        let mut dict = self.parameters.export(self.parameters.values, device)?;
        dict.extend(self.parameters.export_running(device)?);
        for state in self.state() {
            match state {
                OptimiserState::PerParameter { prefix, arena } => {
                    let named = self.parameters.export(arena, device)?;
                    dict.extend(named.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)));
                }
                OptimiserState::Whole { name, values } => {
                    dict.insert(name.into(), (vec![values.len], device.read_f32(values)?));
                }
            }
        }
        if let Some(prior) = self.debias.estimate() {
            let mean = device.read_f32(prior.mean_feature)?;
            dict.insert(MEAN_FEATURE.into(), (vec![mean.len()], mean));
        }
        Ok(dict)
    }

    /// Takes over the state that `dict` holds; returns how many parameters and running statistics it held.
    ///
    /// # Errors
    /// A usage error for a wrong shape.
    pub fn import(&self, dict: &StateDict, device: &mut dyn Device) -> Result<usize> {
        let p = &self.parameters;
        let found = p.import(p.values, "", dict, device)? + p.import_running(dict, device)?;
        for state in self.state() {
            match state {
                OptimiserState::PerParameter { prefix, arena } => {
                    p.import(arena, prefix, dict, device)?;
                }
                OptimiserState::Whole { name, values } => {
                    let Some((shape, given)) = dict.get(name) else { continue };
                    if given.len() != values.len {
                        let len = values.len;
                        return Err(usage!("{name}: shape {shape:?}, but the optimiser keeps [{len}]"));
                    }
                    device.write_f32(values, given)?;
                }
            }
        }
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

    /// The gradients of the last step under the parameters' names, without the loss scale (halved meanwhile, if
    /// they are not finite).
    pub fn gradients(&self, device: &mut dyn Device) -> Result<StateDict> {
        let mut dict = self.parameters.export(self.parameters.gradients, device)?;
        if let Some(scale) = self.loss_scale {
            let scale = device.read_f32(scale.state)?[loss_scale::LOSS_SCALE];
            dict.values_mut().flat_map(|(_, values)| values).for_each(|value| *value /= scale);
        }
        Ok(dict)
    }
}
