//! What a GPU that is there takes for a step, to stand beside what was predicted.

use std::collections::BTreeMap;

use anyhow::Result;

use super::data::{Given, Shape};
use super::parts;
use super::plan::EPOCH;
use crate::data::recipe::TrainingData;
use crate::device::{Device, KernelTime};
use crate::random::philox::{Purpose, Stream};
use crate::settings::Settings;
use crate::train::run::recipe;
use crate::train::training::Training;

/// Steps that follow each other without a pause, so that a GPU's clocks settle.
const STEPS_IN_A_ROW: usize = 48;
/// Rounds of them; the median counts.
const ROUNDS: usize = 3;

/// Random images in the place of a run's data.
///
/// # Errors
/// As [`super::Profile::new`].
pub(super) fn noise(settings: &Settings, given: Given) -> Result<TrainingData> {
    let mut data = Shape::of(&recipe(settings)?, given)?.blank(settings.image_size)?;
    // Of a GPU whose tensor cores see only zeros the clock is higher than in training.
    let mut noise = Stream::new(0, Purpose::Initialisation, 0, 0, 0);
    data.train.images.fill_with(|| noise.below(256) as u8);
    Ok(data)
}

/// A step on a GPU, timed by its own clock.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The GPU.
    pub gpu: String,
    /// Seconds of a step that is replayed as a whole.
    pub step: f64,
    /// Every launch of a step in its order, timed one after the other with an event behind each, which adds
    /// about a microsecond.
    pub launches: Vec<KernelTime>,
}

impl Measured {
    /// Times a step of the run that `settings` describe, with random images in the place of its data.
    ///
    /// # Errors
    /// As [`super::Profile::new`]; those of the device.
    pub fn of(settings: &Settings, given: Given, device: &mut dyn Device) -> Result<Self> {
        let data = noise(settings, given)?;
        let mut training = Training::new(settings, &data, device)?;
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            training.begin_epoch(EPOCH, device)?;
            device.replay(&training.engine.plan)?;
            rounds.push(device.replay_seconds(&training.engine.plan, STEPS_IN_A_ROW.min(training.steps))?);
        }
        rounds.sort_by(f64::total_cmp);
        training.begin_epoch(EPOCH, device)?;
        let launches = device.kernel_times(&training.engine.plan)?;
        Ok(Self { gpu: device.describe(), step: rounds[ROUNDS / 2], launches })
    }

    /// Seconds of all launches, one after the other.
    pub fn in_turn(&self) -> f64 {
        self.launches.iter().map(|time| time.seconds).sum()
    }

    /// Seconds of each part of the step.
    pub fn parts(&self) -> BTreeMap<&'static str, f64> {
        let mut parts = BTreeMap::new();
        for KernelTime { file, kernel, seconds, .. } in &self.launches {
            *parts.entry(parts::of(file, kernel)).or_default() += seconds;
        }
        parts
    }

    /// Seconds of each of a profile's launches; `None` if this GPU is launched differently, as another one than
    /// the profile's may be.
    pub fn beside<'a>(&self, kernels: impl ExactSizeIterator<Item = &'a str>) -> Option<Vec<f64>> {
        let is_same = kernels.len() == self.launches.len()
            && kernels.zip(&self.launches).all(|(kernel, time)| kernel == time.kernel);
        is_same.then(|| self.launches.iter().map(|time| time.seconds).collect())
    }
}
