//! The confidence store: one soft label row a training sample, on the device.

use anyhow::Result;

use super::method::{Rows, Start};
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};

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
    /// What the rows hold at first, f32 `[N,K]`.
    first: Vec<f32>,
}

impl ConfidenceStore {
    /// Uploads `candidates` `[N,K]` and `labels` `[N]`; confidences start as `start` says.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(
        classes: usize,
        candidates: &[u8],
        labels: &[i32],
        start: Start,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let samples = labels.len();
        let store = Self {
            samples,
            classes,
            candidates: device.allocate(Element::U8, samples * classes, "the candidate sets")?,
            confidence: device.allocate(Element::F32, samples * classes, "the confidences")?,
            labels: device.allocate(Element::I32, samples, "the labels")?,
            first: start.rows(classes, candidates),
        };
        device.write_u8(store.candidates, candidates)?;
        device.write_i32(store.labels, labels)?;
        store.restart(device)?;
        Ok(store)
    }

    /// Sets all confidences back to what they were at first.
    pub fn restart(&self, device: &mut dyn Device) -> Result<()> {
        device.write_f32(self.confidence, &self.first)
    }

    /// Its tensors on a tape, for the samples `index`, with the step's control block.
    pub fn rows(&self, tape: &mut Tape, index: Tensor, control: Buffer) -> Rows {
        Rows {
            classes: self.classes,
            confidence: tape.persistent(self.confidence),
            candidates: tape.persistent(self.candidates),
            index,
            control: tape.persistent(control),
        }
    }
}
