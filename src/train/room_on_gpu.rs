//! A run that does not fit into a GPU's memory: what all of it takes, and which batch would fit.
//!
//! The engine is assembled again on a driver that takes no memory, so the figures are those of the run itself.

use anyhow::{Result, anyhow};

use super::evaluate::Evaluation;
use super::training::Training;
use crate::data::recipe::TrainingData;
use crate::device::Element;
use crate::device::gpu::driver::{Gpu, NotEnoughMemory};
use crate::device::gpu::plan_driver::PlanDriver;
use crate::device::gpu::{GpuDevice, Precision};
use crate::settings::Settings;

/// What the driver takes besides for each run: its modules and graphs.
const OVERHEAD: u64 = 64 << 20;

/// Batches that are tried between one that fits and one that does not.
const MOST_TRIES: usize = 6;

/// The error where a run has not found memory, with what it needs and what would fit; other errors as they are.
pub fn explain(
    error: anyhow::Error,
    settings: &Settings,
    data: &TrainingData,
    activations: Element,
) -> anyhow::Error {
    let Some(missing) = error.downcast_ref::<NotEnoughMemory>() else { return error };
    let precision = match activations {
        Element::Bf16 => Precision::Bf16,
        Element::F16 => Precision::F16,
        _ => Precision::F32,
    };
    let needed = |batch: usize| needed(settings, data, batch, missing.gpu.clone(), precision);
    let Ok(whole) = needed(settings.batch_size) else { return error };
    let available = missing.free + missing.own;
    let fitting = largest_fitting(settings.batch_size, &|batch| {
        needed(batch).is_ok_and(|bytes| bytes + OVERHEAD <= available)
    });
    let remedy = match fitting {
        Some(batch) if batch == settings.batch_size => "free some, or try a smaller --batch-size".into(),
        Some(batch) => format!("--batch-size {batch} fits"),
        None => "no --batch-size fits; try a smaller --width".into(),
    };
    anyhow!(
        "{}; the run takes {} MiB in all with --batch-size {}, and has {} MiB: {remedy}",
        missing.in_words(),
        whole >> 20,
        settings.batch_size,
        available >> 20
    )
}

/// The largest batch up to `wanted` that was found to fit, by halving and then narrowing down.
fn largest_fitting(wanted: usize, fits: &dyn Fn(usize) -> bool) -> Option<usize> {
    let mut halves = std::iter::successors(Some(wanted), |&batch| (batch >= 4).then_some(batch / 2));
    let mut least = halves.find(|&batch| fits(batch))?;
    let mut most = (2 * least + 1).min(wanted);
    for _ in 0..MOST_TRIES {
        let middle = least.midpoint(most);
        if middle <= least {
            break;
        }
        if fits(middle) { least = middle } else { most = middle }
    }
    Some(least)
}

/// Bytes that a run with this batch takes on a GPU.
fn needed(
    settings: &Settings,
    data: &TrainingData,
    batch: usize,
    gpu: Gpu,
    precision: Precision,
) -> Result<u64> {
    let settings = Settings { batch_size: batch, ..settings.clone() };
    let driver = PlanDriver::new(gpu);
    let taken = driver.taken();
    let mut device = GpuDevice::new(Box::new(driver), precision);
    let training = Training::new(&settings, data, &mut device)?;
    if let Some(test) = &data.test {
        Evaluation::of_set(&training.engine.model, test, data.test_normalisation, &mut device)?;
    }
    Ok(taken.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_batch_is_found() {
        assert_eq!(largest_fitting(256, &|batch| batch <= 100), Some(100));
        assert_eq!(largest_fitting(256, &|batch| batch <= 300), Some(256));
        assert_eq!(largest_fitting(250, &|batch| batch <= 3), Some(3));
        assert_eq!(largest_fitting(256, &|_| false), None);
    }
}
