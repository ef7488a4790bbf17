//! The confidence store: one soft label row a training sample, on the device.

use anyhow::Result;

use crate::device::{Buffer, Device, Element};

/// Candidate sets and confidences of N samples over K classes, with the true labels where they are known (for metrics only).
pub struct ConfidenceStore {
    pub samples: usize,
    pub classes: usize,
    /// u8 `[N,K]`, 1 where a class is a candidate.
    pub candidates: Buffer,
    /// f32 `[N,K]`.
    pub confidence: Buffer,
    /// i32 `[N]`.
    pub labels: Buffer,
}

impl ConfidenceStore {
    /// Uploads `candidates` `[N,K]` and `labels` `[N]`; confidences start uniform over each candidate set (SPEC 3).
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(classes: usize, candidates: &[u8], labels: &[i32], device: &mut dyn Device) -> Result<Self> {
        let samples = labels.len();
        let store = Self {
            samples,
            classes,
            candidates: device.allocate(Element::U8, samples * classes, "the candidate sets")?,
            confidence: device.allocate(Element::F32, samples * classes, "the confidences")?,
            labels: device.allocate(Element::I32, samples, "the labels")?,
        };
        device.write_u8(store.candidates, candidates)?;
        device.write_i32(store.labels, labels)?;
        device.write_f32(store.confidence, &uniform(classes, candidates))?;
        Ok(store)
    }
}

/// c = s / sum(s) for each row.
pub fn uniform(classes: usize, candidates: &[u8]) -> Vec<f32> {
    let row = |set: &[u8]| {
        let size = set.iter().filter(|&&s| s != 0).count() as f32;
        set.iter().map(|&s| if s != 0 { 1.0 / size } else { 0.0 }).collect::<Vec<f32>>()
    };
    candidates.chunks_exact(classes).flat_map(row).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn confidences_start_uniform_over_the_candidates() {
        assert_eq!(super::uniform(3, &[1, 0, 1, 0, 1, 0]), [0.5, 0.0, 0.5, 0.0, 1.0, 0.0]);
    }
}
