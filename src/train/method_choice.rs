//! From the settings' words to a method and a debias.

use anyhow::Result;

use super::step::Method;
use crate::device::primitive::LossKind;
use crate::device::{Buffer, Device};
use crate::pll::debias::Oracle;
use crate::pll::mixup::Mixup;
use crate::pll::{ClassPrior, Debias, LabelMethod, Solar, cavl, cc, corr, lw, proden};
use crate::settings::{self, LwLoss, LwSettings, PriorFrom, Settings};
use crate::usage;

/// The method that settings name, but for SoLar, which is of another kind.
pub fn label_method(settings: &Settings) -> Option<LabelMethod> {
    match settings.method {
        settings::Method::Corr => Some(corr::METHOD),
        settings::Method::Proden => Some(proden::METHOD),
        settings::Method::Cavl => Some(cavl::METHOD),
        settings::Method::Cc => Some(cc::METHOD),
        settings::Method::Lw => {
            let LwSettings { loss, beta } = settings.of_method();
            let beta = beta as f32;
            Some(lw::method(match loss {
                LwLoss::Sigmoid => LossKind::LeveragedSigmoid { beta },
                LwLoss::CrossEntropy => LossKind::LeveragedCrossEntropy { beta },
            }))
        }
        settings::Method::Solar => None,
    }
}

/// The method with its state for epochs of `steps` steps that are counted in `step`.
///
/// # Errors
/// When the device has not enough memory.
pub fn method(
    settings: &Settings,
    classes: usize,
    steps: usize,
    step: Buffer,
    device: &mut dyn Device,
) -> Result<Method> {
    let batch = settings.batch_size;
    let mut mixup = || Mixup::new(steps, batch, step, device);
    Ok(match label_method(settings) {
        Some(method) => Method::Joint(method, if settings.mixup { Some(mixup()?) } else { None }),
        None => {
            let mixup = mixup()?;
            let constants = settings.solar();
            let count_steps = constants.prior_from == PriorFrom::Steps;
            let solar = Solar::new(&constants, batch, classes, settings.mixup, count_steps, device)?;
            Method::Solar(Box::new(solar), mixup)
        }
    })
}

/// What is subtracted from logits of a network of `features` features over `classes` classes; `counts` are the training samples of
/// each class where they are known.
///
/// # Errors
/// A usage error for an oracle without counts; when the device has not enough memory.
pub fn debias(
    settings: &Settings,
    counts: Option<&[usize]>,
    [features, classes]: [usize; 2],
    device: &mut dyn Device,
) -> Result<Debias> {
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
        Ok(Debias::Oracle(Oracle::new(&frequencies, in_training, device)?))
    };
    match word {
        settings::Debias::None => Ok(Debias::None),
        settings::Debias::Oracle => oracle(true),
        settings::Debias::OraclePost => oracle(false),
        settings::Debias::Records => {
            Ok(Debias::Records(ClassPrior::new(features, classes, settings.m as f32, device)?))
        }
    }
}
