//! The engine: network, method, confidence rows and the recorded step, assembled in one place for training,
//! replays and benchmarks.

use anyhow::Result;

use super::choice;
use super::model::Model;
use super::step::{self, StepInputs, StepSettings, StepState, Trained, TrainingStep};
use super::tensor_file::{TensorFile, Values};
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Plan};
use crate::nn::{Network, registry};
use crate::ops::input::AdvanceStep;
use crate::ops::statistics::counter;
use crate::optim::{self, Hyperparameters};
use crate::pll::method::{EpochControl, Room};
use crate::pll::{ConfidenceStore, Learner, Method};
use crate::settings::Settings;
use crate::usage;

/// The parts of an engine.
pub struct EngineParts<'a> {
    /// The method.
    pub method: &'a dyn Method,
    /// Network, optimiser and debias.
    pub model: Model,
    /// The sizes that the method's state depends on.
    pub room: Room<'a>,
    /// Candidate sets, u8 `[N,K]`: 1 for a candidate.
    pub candidates: &'a [u8],
    /// True class of each sample, `[N]`; -1 where it is not known.
    pub labels: &'a [i32],
    /// The constants of a step.
    pub settings: StepSettings,
    /// Whether the results of the last step can be read afterwards.
    pub keeps_step: bool,
}

/// The state after an epoch, of which the device keeps a copy while it goes on.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    batches_tracked: i64,
}

/// All state of training on the device, with the recorded step.
pub struct Engine {
    /// Network, optimiser and debias.
    pub model: Model,
    /// Confidence rows, candidate sets and labels.
    pub store: ConfidenceStore,
    /// The method's state on the device.
    pub learner: Box<dyn Learner>,
    /// One training step.
    pub plan: Plan,
    /// The tensors that the step recorded.
    pub step: TrainingStep,
    state: StepState,
    /// The scalars of the current epoch.
    control: EpochControl,
}

impl Engine {
    /// Puts the parts on the device and records the step on `inputs`.
    ///
    /// # Errors
    /// If the device has not enough memory, or an input is missing.
    pub fn assemble(
        parts: EngineParts<'_>,
        inputs: &mut dyn StepInputs,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let EngineParts { method, mut model, room, candidates, labels, settings, keeps_step } = parts;
        let store = ConfidenceStore::new(room.classes, candidates, labels, method.start(), device)?;
        let state = StepState::new(device)?;
        let learner = method.on_device(&Room { parameters: Some(&model.parameters), ..room }, device)?;
        let mut tape = Tape::new(device.activations());
        tape.divide(device.world().share());
        tape.for_kernels(!device.in_main_memory());
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

    /// Sets the scalars of an epoch: learning rate, update flag, weights.
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

    /// Zeroes the counters.
    pub fn clear_counters(&self, device: &mut dyn Device) -> Result<()> {
        device.write_f32(self.state.counters, &[0.0; counter::LEN])
    }

    /// The counters since they were last cleared, see [`counter`].
    pub fn counters(&self, device: &mut dyn Device) -> Result<Vec<f32>> {
        device.read_f32(self.state.counters)
    }

    /// Where the counters lie.
    pub fn counters_buffer(&self) -> Buffer {
        self.state.counters
    }

    /// Starts over for stage `stage` of a run, with fresh weights and confidence rows.
    pub fn restart(&mut self, seed: u64, stage: usize, device: &mut dyn Device) -> Result<()> {
        self.model.initialise(seed, stage as u32, device)?;
        self.model.parameters.batches_tracked = 0;
        self.store.restart(device)?;
        self.learner.begin_stage(device)
    }

    /// Has the device keep a copy of all state from which a run continues; `None` where that is of no use, or
    /// the method does not say what its state is.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn take_snapshot(&self, device: &mut dyn Device) -> Result<Option<Snapshot>> {
        let Some(of_method) = self.learner.exported() else { return Ok(None) };
        let buffers = [self.model.exported(), vec![self.store.confidence], of_method].concat();
        let batches_tracked = self.model.parameters.batches_tracked;
        Ok(device.take_snapshot(&buffers)?.then_some(Snapshot { batches_tracked }))
    }

    /// As [`Engine::export`], of the state as it was when the snapshot was taken.
    ///
    /// # Errors
    /// If the device fails.
    pub fn export_snapshot(
        &self,
        snapshot: Snapshot,
        file: &mut TensorFile,
        device: &mut dyn Device,
    ) -> Result<()> {
        device.show_snapshot(true);
        let exported = self.export_after(snapshot.batches_tracked, file, device);
        device.show_snapshot(false);
        exported
    }

    /// Adds to `file` all state from which a run continues: the model's, the confidence rows and the
    /// method's.
    ///
    /// # Errors
    /// If the device fails.
    pub fn export(&self, file: &mut TensorFile, device: &mut dyn Device) -> Result<()> {
        self.export_after(self.model.parameters.batches_tracked, file, device)
    }

    fn export_after(&self, batches: i64, file: &mut TensorFile, device: &mut dyn Device) -> Result<()> {
        file.extend(self.model.export(device)?);
        file.add_batch_counters(&self.model.parameters, batches);
        let ConfidenceStore { samples, classes, confidence, .. } = self.store;
        let confidence = Values::F32(device.read_f32(confidence)?);
        file.tensors.insert("confidence".into(), (vec![samples, classes], confidence));
        for (tensor, values) in self.learner.state().into_iter().zip(self.learner.export(device)?) {
            file.tensors.insert(tensor.name.into(), (tensor.shape, Values::F32(values)));
        }
        Ok(())
    }
}

/// The network that the settings name, over `classes` classes, with what `method` adds to it.
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

/// The model of a run of `method` over `classes` classes. `counts` are the training samples of each class,
/// where all true labels are known.
///
/// # Errors
/// A usage error for an unknown network or optimiser, or an oracle without `counts`; if the device has not
/// enough memory.
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
