//! Mixup (Zhang et al., "mixup: beyond empirical risk minimization", ICLR 2018) as RECORDS and SoLar use it:
//! for each step one weight lambda = max(l, 1 - l), l ~ Beta(4,4), and one permutation of the batch.

use anyhow::Result;

use super::recorder::StepRows;
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::ops::mixup::{self, AppendMixup, Draws};
use crate::random::philox::{Purpose, Stream};

/// Weights and permutations of the steps of an epoch, on the device.
#[derive(Clone, Copy, Debug)]
pub struct MixupBuffers {
    /// f32 `[steps]`.
    pub weights: Buffer,
    /// i32 `[steps, B]`.
    pub permutations: Buffer,
    /// The step of the epoch, i32 `[1]`.
    pub step: Buffer,
}

impl MixupBuffers {
    /// Allocates memory for `steps` steps of `batch` samples; `step` is the step counter.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(steps: usize, batch: usize, step: Buffer, device: &mut dyn Device) -> Result<Self> {
        Ok(Self {
            weights: device.allocate(Element::F32, steps, "the mixup weights")?,
            permutations: device.allocate(Element::I32, steps * batch, "the mixup permutations")?,
            step,
        })
    }

    /// Samples per step.
    pub fn batch(&self) -> usize {
        self.permutations.len / self.weights.len
    }

    /// Draws and uploads the weights and permutations of an epoch.
    ///
    /// # Errors
    /// If the device fails.
    pub fn draw(&self, seed: u64, epoch: u32, device: &mut dyn Device) -> Result<()> {
        let steps = self.weights.len;
        let batch = self.batch();
        let (mut weights, mut permutations) = (Vec::with_capacity(steps), Vec::new());
        for step in 0..steps as u32 {
            let mut stream = Stream::new(seed, Purpose::Mixup, epoch, step, 0);
            weights.push(weight(&mut stream));
            permutations.extend(stream.permutation(batch).into_iter().map(|i| i as i32));
        }
        device.write_f32(self.weights, &weights)?;
        device.write_i32(self.permutations, &permutations)
    }

    /// Records the mixing of views: the first `rows` images of `len` values are mixed into the rows behind
    /// them.
    pub fn record_views(&self, tape: &mut Tape, [rows, len]: [usize; 2], views: Tensor) {
        let draws = self.tensors(tape);
        tape.push(AppendMixup { batch: self.batch(), rows, len, draws, x: views });
    }

    /// Records the mixed confidence rows `[B,K]`, from the rows before disambiguation updates them.
    pub fn record_rows(&self, tape: &mut Tape, rows: StepRows) -> Tensor {
        let batch = self.batch();
        let out = tape.temporary(Element::F32, batch * rows.classes);
        let draws = self.tensors(tape);
        let (len, index) = (rows.classes, Some(rows.index));
        tape.push(mixup::Mixup { batch, rows: batch, len, draws, index, x: rows.confidence, out });
        out
    }

    /// Its tensors.
    pub fn tensors(&self, tape: &mut Tape) -> Draws {
        Draws {
            weights: tape.persistent(self.weights),
            permutations: tape.persistent(self.permutations),
            step: tape.persistent(self.step),
        }
    }
}

/// max(l, 1 - l) for l ~ Beta(4,4), which is the median of seven uniform numbers.
fn weight(stream: &mut Stream) -> f32 {
    let mut uniform: [f64; 7] = std::array::from_fn(|_| stream.unit());
    uniform.sort_by(f64::total_cmp);
    uniform[3].max(1.0 - uniform[3]) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beta(4,4) has mean 1/2 and variance 1/36. Over 20,000 draws, the mean square deviation of max(l, 1-l)
    /// from 1/2 lies within 3 % of it (five standard errors), and no weight is below 1/2.
    #[test]
    fn weights_are_those_of_beta_4_4() {
        let mut stream = Stream::new(1, Purpose::Mixup, 0, 0, 0);
        let draws: Vec<f64> = (0..20_000).map(|_| f64::from(weight(&mut stream))).collect();
        assert!(draws.iter().all(|w| (0.5..=1.0).contains(w)));
        let variance = draws.iter().map(|w| (w - 0.5).powi(2)).sum::<f64>() / draws.len() as f64;
        assert!((variance * 36.0 - 1.0).abs() < 0.03, "{variance}");
    }
}
