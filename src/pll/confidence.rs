//! The confidence store: one soft label row per training sample, on the device.

use anyhow::Result;

use super::recorder::StepRows;
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};

/// The confidence rows before the first update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// c = s / sum s (docs/spec.md, section 3).
    Uniform,
    /// The same inside the candidate set, and (1 - s) / sum (1 - s) outside: LW weighs the other classes too.
    UniformInsideAndOutside,
}

impl Start {
    /// Whether a row also weighs the classes outside its candidate set.
    pub fn weighs_others(self) -> bool {
        self == Start::UniformInsideAndOutside
    }

    /// The rows `[N,K]` for candidate sets `[N,K]`.
    pub fn rows(self, classes: usize, candidates: &[u8]) -> Vec<f32> {
        let share = |size: usize| if size == 0 { 0.0 } else { 1.0 / size as f32 };
        let row = |set: &[u8]| {
            let size = set.iter().filter(|&&s| s != 0).count();
            let outside = match self {
                Start::Uniform => 0.0,
                Start::UniformInsideAndOutside => share(classes - size),
            };
            set.iter().map(|&s| if s != 0 { share(size) } else { outside }).collect::<Vec<f32>>()
        };
        candidates.chunks_exact(classes).flat_map(row).collect()
    }
}

/// Candidate sets and confidence rows of N samples over K classes, with the true labels if they are known
/// (for metrics only).
pub struct ConfidenceStore {
    /// Samples N.
    pub samples: usize,
    /// Classes K.
    pub classes: usize,
    /// u8 `[N,K]`, 1 where a class is a candidate.
    pub candidates: Buffer,
    /// f32 `[N,K]`.
    pub confidence: Buffer,
    /// i32 `[N]`, -1 where unknown.
    pub labels: Buffer,
    /// The initial rows, f32 `[N,K]`.
    first: Vec<f32>,
}

impl ConfidenceStore {
    /// Uploads `candidates` `[N,K]` and `labels` `[N]`; `start` gives the initial rows.
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

    /// Resets all confidence rows to their initial values.
    ///
    /// # Errors
    /// If the device fails.
    pub fn restart(&self, device: &mut dyn Device) -> Result<()> {
        device.write_f32(self.confidence, &self.first)
    }

    /// Its tensors on a tape, with the samples `index` of the step and its control block.
    pub fn rows(&self, tape: &mut Tape, index: Tensor, control: Buffer) -> StepRows {
        StepRows {
            classes: self.classes,
            confidence: tape.persistent(self.confidence),
            candidates: tape.persistent(self.candidates),
            index,
            control: tape.persistent(control),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Start;

    #[test]
    fn rows_start_uniform() {
        let sets = [1, 0, 1, 0, 1, 0, 1, 1, 1];
        assert_eq!(
            Start::Uniform.rows(3, &sets),
            [0.5, 0.0, 0.5, 0.0, 1.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]
        );
        let both = Start::UniformInsideAndOutside.rows(3, &sets);
        assert_eq!(both, [0.5, 1.0, 0.5, 0.5, 1.0, 0.5, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
    }
}
