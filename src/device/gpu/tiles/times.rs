//! Measured times, and the text that they are kept as.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::device::gpu::cache::KernelCache;
use crate::device::gpu::gpu_code;
use crate::device::gpu::probe::FoundGpu;
use crate::files::read_whole;
use crate::text::{hex, printable};
use crate::usage;

/// Marks our files and their version.
const FORMAT: &str = "records tiles 1";
/// The largest file that is read. A network leaves some hundred times of 200 bytes.
pub(super) const MOST_BYTES: u64 = 64 << 20;
/// No launch takes as long, in seconds.
const LONGEST: f64 = 3600.0;

/// What times were measured on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MeasuredOn {
    /// The GPU's name.
    pub gpu: String,
    /// Compute capability times ten.
    pub architecture: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// What the kernels were: another number for other sources, another compiler or other options.
    pub kernels: String,
}

impl MeasuredOn {
    /// What times of this GPU are kept by, with kernels of that cache.
    ///
    /// # Errors
    /// A usage error where no code can be compiled for it.
    pub fn of(gpu: &FoundGpu, cache: &KernelCache) -> Result<Self> {
        let architecture = gpu.architecture();
        Ok(Self {
            gpu: gpu.name.clone(),
            architecture,
            multiprocessors: gpu.multiprocessors as usize,
            kernels: cache.content(gpu_code::target(architecture, cache.compiler())?),
        })
    }

    /// Whether the GPU is of the same model, whatever the kernels.
    pub fn is_on_same_gpu(&self, other: &Self) -> bool {
        *self == Self { kernels: self.kernels.clone(), ..other.clone() }
    }
}

/// Seconds that launches were measured to take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    format: String,
    /// What they were measured on.
    pub on: MeasuredOn,
    /// By the keys of launches.
    seconds: BTreeMap<String, f64>,
}

impl Times {
    /// None yet.
    pub fn none(on: MeasuredOn) -> Self {
        Self { format: FORMAT.into(), on, seconds: BTreeMap::new() }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.seconds.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.seconds.is_empty()
    }

    /// Seconds of the launches of that key.
    pub fn get(&self, key: &str) -> Option<f64> {
        self.seconds.get(key).copied()
    }

    /// Adds or replaces a time.
    pub fn insert(&mut self, key: String, seconds: f64) {
        self.seconds.insert(key, seconds);
    }

    /// The text that they are kept as; of equal times the same.
    pub fn to_text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// The times in such a text.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn of_text(text: &[u8]) -> std::result::Result<Self, String> {
        let times: Self = serde_json::from_slice(text).map_err(|error| printable(&error.to_string()))?;
        if times.format != FORMAT {
            return Err(format!("its format is not '{FORMAT}'"));
        }
        // NaN is in no range either.
        let odd = times.seconds.iter().find(|(_, seconds)| !(0.0..=LONGEST).contains(*seconds));
        match odd {
            None => Ok(times),
            Some((key, seconds)) => Err(format!("{seconds} seconds for {}", printable(key))),
        }
    }

    /// The times in a file that somebody names.
    ///
    /// # Errors
    /// A usage error naming the file and what is wrong with it.
    pub fn read(path: &Path) -> Result<Self> {
        let shown = printable(&path.display().to_string());
        Self::of_text(&read_whole(path, MOST_BYTES)?).map_err(|problem| {
            usage!("{shown}: no measured times of `records tune` ({problem}); name another file")
        })
    }

    /// A number that is the same for the same times.
    pub fn digest(&self) -> String {
        // In words that cannot fail: the numbers' bits instead of their decimals.
        let mut sum = Sha256::new();
        for (key, seconds) in &self.seconds {
            sum.update(key);
            sum.update([0]);
            sum.update(seconds.to_bits().to_le_bytes());
        }
        hex(&sum.finalize()[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_to_the_bit_and_damage_is_seen() {
        let on = MeasuredOn { gpu: "A \"GPU\"".into(), architecture: 86, ..MeasuredOn::default() };
        let mut times = Times::none(on.clone());
        times.insert("a 1x1x1".into(), 1.0 / 3.0 * 1e-5);
        times.insert("b".into(), 2e-6);
        let text = times.to_text().unwrap();
        let back = Times::of_text(text.as_bytes()).unwrap();
        assert_eq!((&back, back.digest()), (&times, times.digest()));
        times.insert("b".into(), 3e-6);
        assert_ne!(back.digest(), times.digest());

        let cut = &text.as_bytes()[..text.len() / 2];
        assert!(Times::of_text(cut).unwrap_err().contains("line"));
        for (was, is) in [("2e-6", "-2e-6"), ("2e-6", "1e9"), ("tiles 1", "tiles 2"), ("\"on\"", "\"of\"")] {
            assert!(text.contains(was));
            assert!(Times::of_text(text.replace(was, is).as_bytes()).is_err(), "{was} as {is}");
        }
    }

    #[test]
    fn a_gpu_of_the_same_model_is_the_same_with_other_kernels() {
        let on = MeasuredOn { gpu: "A".into(), architecture: 86, multiprocessors: 82, kernels: "1".into() };
        assert!(on.is_on_same_gpu(&MeasuredOn { kernels: "2".into(), ..on.clone() }));
        assert!(!on.is_on_same_gpu(&MeasuredOn { multiprocessors: 84, ..on.clone() }));
        assert!(!on.is_on_same_gpu(&MeasuredOn { gpu: "B".into(), ..on.clone() }));
    }
}
