//! A method of one's own, outside the crate: it learns the mean of its candidates' labels and never
//! disambiguates. Beside that it counts what its network predicts, as an estimate of the class prior.
//!
//! `cargo run --release --example own_method` trains it for two epochs on made-up images.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use records::data::recipe::prepare;
use records::device::cpu::CpuDevice;
use records::device::{Buffer, Device, Element};
use records::nn::StateDict;
use records::ops::loss::{CrossEntropy, Loss, Term};
use records::ops::statistics::counter;
use records::pll::method::{OWN_SCALARS, Room, StageEpoch, StateTensor};
use records::pll::recorder::Rows;
use records::pll::solar::operations::CountLargest;
use records::pll::{Learner, Method, RecordedStep, StepRecorder};
use records::settings::{Debias, Settings, presets};
use records::train::run::recipe;
use records::train::training::Training;

/// The method; it has no settings.
pub struct Averaging;

impl Method for Averaging {
    fn on_device(&self, room: &Room, device: &mut dyn Device) -> Result<Box<dyn Learner>> {
        let counts = device.allocate(Element::F32, room.classes, "the predictions by class")?;
        Ok(Box::new(AveragingLearner { counts }))
    }
}

/// The method in training.
struct AveragingLearner {
    /// Predictions of the epoch by class, f32 `[K]`.
    counts: Buffer,
}

impl Learner for AveragingLearner {
    /// One weak view, whose loss is the cross-entropy with the confidence row: uniform over the candidates,
    /// as it began.
    fn record(&self, step: &mut StepRecorder<'_>) -> Result<RecordedStep> {
        let images = step.view(0)?;
        let logits = step.forward(images)?.logits;
        let Rows { classes, confidence, candidates, index, .. } = step.rows;
        let batch = step.batch;
        let tape = &mut *step.tape;
        let d_logits = tape.temporary(Element::F32, batch * classes);
        let loss_rows = tape.temporary(Element::F32, batch);
        tape.push(Loss {
            row_loss: Arc::new(CrossEntropy),
            term: Term::Plain,
            joint: None,
            batch,
            classes,
            views: 1,
            first: 0,
            logits,
            target: confidence,
            candidates,
            index: Some(index),
            d_logits,
            loss_rows,
        });
        let counts = tape.persistent(self.counts);
        tape.push(CountLargest { rows: batch, classes, x: logits, counts });
        Ok(RecordedStep {
            logits: vec![(logits, d_logits)],
            seeds: Vec::new(),
            loss_rows,
            names: vec!["logits.weak"],
            exposed: Vec::new(),
        })
    }

    fn begin_epoch(&self, _: StageEpoch, device: &mut dyn Device) -> Result<[f64; OWN_SCALARS]> {
        device.write_f32(self.counts, &vec![0.0; self.counts.len])?;
        Ok([0.0; OWN_SCALARS])
    }

    fn class_prior(&self, device: &mut dyn Device) -> Result<Option<Vec<f64>>> {
        let counts = device.read_f32(self.counts)?;
        let total: f32 = counts.iter().sum();
        Ok(Some(counts.iter().map(|count| f64::from(count / total)).collect()))
    }

    fn state(&self) -> Vec<StateTensor> {
        vec![StateTensor { name: "predictions", shape: vec![self.counts.len], shares: false }]
    }

    fn export(&self, device: &mut dyn Device) -> Result<Vec<Vec<f32>>> {
        Ok(vec![device.read_f32(self.counts)?])
    }

    fn import(&self, state: &StateDict, _: Option<usize>, device: &mut dyn Device) -> Result<()> {
        state.get("predictions").map_or(Ok(()), |(_, counts)| device.write_f32(self.counts, counts))
    }
}

/// What it is trained on: a few made-up images.
pub fn settings() -> Result<Settings> {
    let tiny = presets::find("tiny").ok_or_else(|| anyhow!("no such preset"))?;
    Ok(Settings { debias: Debias::None, ..tiny.settings() })
}

/// Trains a method for the settings' epochs; returns the mean loss of each, and what training leaves.
pub fn train(
    settings: &Settings,
    method: &dyn Method,
    device: &mut dyn Device,
) -> Result<(Vec<f64>, Training)> {
    let data = prepare(&recipe(settings)?)?;
    let mut training = Training::with_method(settings, method, &data, device)?;
    let mut losses = Vec::new();
    for epoch in 0..settings.epochs {
        training.begin_epoch(epoch, device)?;
        let counters = training.run_epoch(device, || ())?;
        training.end_epoch(epoch, device)?;
        losses.push(f64::from(counters[counter::LOSS]) / training.steps as f64);
    }
    Ok((losses, training))
}

fn main() -> Result<()> {
    let mut device = CpuDevice::new(0)?;
    let (losses, training) = train(&settings()?, &Averaging, &mut device)?;
    println!("mean loss of each epoch: {losses:.4?}");
    if let Some(prior) = training.class_prior_estimate(None, &mut device)? {
        println!("class prior of the predictions: {prior:.3?}");
    }
    Ok(())
}
