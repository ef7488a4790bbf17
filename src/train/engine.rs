//! The engine: network, method, confidences and the recorded step, assembled in one place for training,
//! replays and benchmarks.

use anyhow::Result;

use super::choice;
use super::model::Model;
use super::step::{self, Step, StepInputs, StepSettings, StepState, Trained};
use super::tensor_file::{TensorFile, Values};
use crate::autograd::Tape;
use crate::device::{Device, Plan};
use crate::nn::{Network, registry};
use crate::ops::input::AdvanceStep;
use crate::ops::statistics::counter;
use crate::optim::{self, Hyperparameters};
use crate::pll::method::{EpochControl, Room};
use crate::pll::{ConfidenceStore, Learner, Method};
use crate::settings::Settings;
use crate::usage;

/// What an engine is made of.
pub struct Parts<'a> {
    pub method: &'a dyn Method,
    pub model: Model,
    pub room: Room<'a>,
    /// Candidate sets u8 `[N,K]` and labels `[N]`.
    pub candidates: &'a [u8],
    pub labels: &'a [i32],
    pub settings: StepSettings,
    /// Whether what the last step computed can be read afterwards.
    pub keeps_step: bool,
}

/// What training keeps on the device, with the recorded step.
pub struct Engine {
    pub model: Model,
    pub store: ConfidenceStore,
    pub learner: Box<dyn Learner>,
    /// One training step.
    pub plan: Plan,
    /// What it recorded.
    pub step: Step,
    state: StepState,
    /// As last set.
    control: EpochControl,
}

impl Engine {
    /// Puts the parts on the device and records the step on `inputs`.
    ///
    /// # Errors
    /// When the device has not enough memory, and where inputs are missing.
    pub fn assemble(parts: Parts<'_>, inputs: &mut dyn StepInputs, device: &mut dyn Device) -> Result<Self> {
        let Parts { method, mut model, room, candidates, labels, settings, keeps_step } = parts;
        let store = ConfidenceStore::new(room.classes, candidates, labels, method.start(), device)?;
        let state = StepState::new(device)?;
        let learner = method.on_device(&Room { parameters: Some(&model.parameters), ..room }, device)?;
        let mut tape = Tape::new(device.activations());
        let trained = Trained { model: &mut model, learner: &*learner, store: &store, state: &state };
        let step = step::record(&mut tape, &settings, trained, inputs, device)?;
        if keeps_step {
            step.recorded.logits.iter().for_each(|&(logits, _)| tape.keep(logits));
            step.recorded.exposed.iter().for_each(|exposed| tape.keep(exposed.tensor));
        }
        let number = tape.persistent(room.step);
        tape.push(AdvanceStep { step: number, modulus: None });
        let plan = tape.finish(device)?;
        Ok(Self { model, store, learner, plan, step, state, control: EpochControl::default() })
    }

    /// Sets what changes from epoch to epoch.
    pub fn set(&mut self, control: EpochControl, device: &mut dyn Device) -> Result<()> {
        self.control = control;
        self.state.set(device, control)
    }

    /// Runs a step.
    pub fn run_step(&mut self, device: &mut dyn Device) -> Result<()> {
        device.replay(&self.plan)?;
        let forwards = self.learner.forwards_with_images(self.step.forwards, &self.control);
        self.model.parameters.batches_tracked += forwards as i64;
        Ok(())
    }

    /// Sets the counters to 0.
    pub fn clear_counters(&self, device: &mut dyn Device) -> Result<()> {
        device.write_f32(self.state.counters, &[0.0; counter::LEN])
    }

    /// What the steps have counted, see [`counter`].
    pub fn counters(&self, device: &mut dyn Device) -> Result<Vec<f32>> {
        device.read_f32(self.state.counters)
    }

    /// Begins again with stage `stage` of a run: fresh weights and confidences.
    pub fn restart(&mut self, seed: u64, stage: usize, device: &mut dyn Device) -> Result<()> {
        self.model.initialise(seed, stage as u32, device)?;
        self.model.parameters.batches_tracked = 0;
        self.store.restart(device)?;
        self.learner.begin_stage(device)
    }

    /// Adds everything that a run goes on from: the network's state, confidences and what the method keeps.
    pub fn export(&self, file: &mut TensorFile, device: &mut dyn Device) -> Result<()> {
        file.extend(self.model.export(device)?);
        file.add_batch_counters(&self.model.parameters);
        let ConfidenceStore { samples, classes, confidence, .. } = self.store;
        let confidence = Values::F32(device.read_f32(confidence)?);
        file.tensors.insert("confidence".into(), (vec![samples, classes], confidence));
        for (tensor, values) in self.learner.state().into_iter().zip(self.learner.export(device)?) {
            file.tensors.insert(tensor.name.into(), (tensor.shape, Values::F32(values)));
        }
        Ok(())
    }
}

/// The network that settings name, over `classes` classes, with what `method` adds to it.
///
/// # Errors
/// A usage error for an unknown name.
pub fn network(settings: &Settings, method: &dyn Method, classes: usize) -> Result<Box<dyn Network>> {
    let constructor = registry::find(&settings.arch)
        .ok_or_else(|| usage!("--arch {}: must be one of {}", settings.arch, registry::NAMES.join(", ")))?;
    Ok(method.network(constructor(settings.width, classes)))
}

/// The optimiser of a run and its constants.
///
/// # Errors
/// A usage error for an unknown name.
pub fn optimiser(settings: &Settings) -> Result<(optim::registry::Constructor, Hyperparameters)> {
    let Settings { momentum, beta2, weight_decay, .. } = *settings;
    let constants =
        Hyperparameters { momentum: momentum as f32, beta2: beta2 as f32, weight_decay: weight_decay as f32 };
    let name = &settings.optimizer;
    let constructor = optim::registry::find(name).ok_or_else(|| {
        usage!("--optimizer {name}: must be one of {}", optim::registry::names().join(", "))
    })?;
    Ok((constructor, constants))
}

/// The network of a run of `method` over `classes` classes, whose training samples are `counts` where they are known.
///
/// # Errors
/// A usage error for an unknown architecture; when the device has not enough memory.
pub fn model(
    settings: &Settings,
    method: &dyn Method,
    classes: usize,
    counts: Option<&[usize]>,
    device: &mut dyn Device,
) -> Result<Model> {
    let network = network(settings, method, classes)?;
    let debias = choice::debias(settings, counts, [network.features(), classes], device)?;
    Model::new(network, optimiser(settings)?, settings.seed, debias, device)
}
