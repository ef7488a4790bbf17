//! Making the method and the debias that the settings name.

use anyhow::Result;

use crate::device::Device;
use crate::pll::debias::Oracle;
use crate::pll::method::Stage;
use crate::pll::registry::OwnGiven;
use crate::pll::{ClassPrior, ClassPriorSource, Method};
use crate::settings::{self, Settings};
use crate::usage;

/// The method that the settings name, with its own settings.
pub fn method(settings: &Settings) -> Box<dyn Method> {
    (settings.method.0.make)(&OwnGiven { values: &settings.own, dataset: &settings.dataset })
}

/// The stages of a run.
pub fn stages(settings: &Settings) -> Vec<Stage> {
    method(settings).stages(settings.epochs)
}

/// Epochs of all stages of a run.
pub fn epochs(settings: &Settings) -> usize {
    stages(settings).iter().map(|stage| stage.epochs).sum()
}

/// The debias of a network of `features` features over `classes` classes. `counts` are the training samples
/// of each class, where all true labels are known.
///
/// # Errors
/// A usage error for an oracle without `counts`; if the device has not enough memory.
pub fn debias(
    settings: &Settings,
    counts: Option<&[usize]>,
    [features, classes]: [usize; 2],
    device: &mut dyn Device,
) -> Result<ClassPriorSource> {
    let word = settings.debias;
    let mut oracle = |in_training| {
        let counts = counts.ok_or_else(|| {
            usage!(
                "--debias {word}: needs the true class frequencies, and the true labels of the training set are not known; \
                 must be none or records"
            )
        })?;
        let total: usize = counts.iter().sum();
        let frequencies: Vec<f32> = counts.iter().map(|&count| count as f32 / total as f32).collect();
        Ok(ClassPriorSource::Oracle(Oracle::new(&frequencies, in_training, device)?))
    };
    match word {
        settings::Debias::None => Ok(ClassPriorSource::None),
        settings::Debias::Oracle => oracle(true),
        settings::Debias::OraclePost => oracle(false),
        settings::Debias::Records => {
            Ok(ClassPriorSource::Records(ClassPrior::new(features, classes, settings.m as f32, device)?))
        }
    }
}
