//! The label refinery: Sinkhorn computes pseudo-labels from this step's predictions and a queue of earlier
//! ones, balanced to the class prior.

use anyhow::Result;

use super::operations::{MaskedSoftmax, Sinkhorn, SinkhornSettings, outcome};
use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::ops::input::{AdvanceStep, StoreRows};
use crate::pll::recorder::StepRecorder;
use crate::pll::solar::settings::SolarSettings;

/// The refinery's state, on the device, and its constants.
pub struct Refinery {
    batch: usize,
    classes: usize,
    lambda: f32,
    /// Earlier predictions, f32 `[L B, K]`, a ring of L blocks; `None` without a queue.
    pub queue: Option<Buffer>,
    /// The oldest block, which is overwritten next, i32 `[1]`.
    position: Buffer,
    /// r, f32 `[K]`.
    pub class_prior: Buffer,
    /// See [`Sinkhorn::barrier`].
    barrier: Buffer,
}

/// Pseudo-labels of a step.
#[derive(Clone, Copy)]
pub struct Refined {
    /// Q, f32 `[B,K]`.
    pub labels: Tensor,
    /// Figures of Sinkhorn, see [`outcome`].
    pub outcome: Tensor,
}

/// Records the predictions M = p s, f32 `[B,K]`, of logits `[B,K]`.
pub fn record_predictions(step: &mut StepRecorder<'_>, logits: Tensor) -> Tensor {
    let (batch, classes) = (step.batch, step.rows.classes);
    let out = step.tape.temporary(Element::F32, batch * classes);
    let (candidates, index) = (step.rows.candidates, step.rows.index);
    step.tape.push(MaskedSoftmax { batch, classes, logits, candidates, index, out });
    out
}

impl Refinery {
    /// An empty queue and a uniform class prior.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(
        settings: &SolarSettings,
        [batch, classes]: [usize; 2],
        device: &mut dyn Device,
    ) -> Result<Self> {
        let rows = settings.queue_length * batch;
        let mut allocate = |element, len, label| device.allocate(element, len, label);
        let queue =
            if rows > 0 { Some(allocate(Element::F32, rows * classes, "SoLar's queue")?) } else { None };
        let refinery = Self {
            batch,
            classes,
            lambda: settings.lambda as f32,
            queue,
            position: allocate(Element::I32, 1, "the queue's position")?,
            class_prior: allocate(Element::F32, classes, "SoLar's class prior")?,
            barrier: allocate(Element::I32, 2, "Sinkhorn's barrier")?,
        };
        device.write_f32(refinery.class_prior, &vec![1.0 / classes as f32; classes])?;
        Ok(refinery)
    }

    /// Values per block of the queue.
    fn block_len(&self) -> usize {
        self.batch * self.classes
    }

    /// Blocks of the queue.
    fn blocks(&self) -> usize {
        self.queue.map_or(0, |queue| queue.len / self.block_len())
    }

    /// Empties the queue, for a new stage.
    ///
    /// # Errors
    /// If the device fails.
    pub fn empty_queue(&self, device: &mut dyn Device) -> Result<()> {
        if let Some(queue) = self.queue {
            device.write_f32(queue, &vec![0.0; queue.len])?;
        }
        device.write_i32(self.position, &[0])
    }

    /// The queue, newest block first as in the reference; blocks not yet filled are zeros.
    ///
    /// # Errors
    /// If the device fails.
    pub fn export_queue(&self, device: &mut dyn Device) -> Result<Vec<f32>> {
        let Some(queue) = self.queue else { return Ok(Vec::new()) };
        let ring = device.read_f32(queue)?;
        let next = device.read_i32(self.position)?[0] as usize;
        let (blocks, len) = (self.blocks(), self.block_len());
        let block = |age: usize| (next + blocks - 1 - age) % blocks;
        Ok((0..blocks).flat_map(|age| &ring[block(age) * len..][..len]).copied().collect())
    }

    /// Where class prior and queue lie, with the queue's position.
    pub fn exported(&self) -> Vec<Buffer> {
        [self.class_prior, self.position].into_iter().chain(self.queue).collect()
    }

    /// Restores a queue, newest block first, as it was after `steps` steps: the bits of Sinkhorn's sums
    /// depend on the position of each block in the ring.
    ///
    /// # Errors
    /// If the device fails.
    pub fn import_queue(&self, newest_first: &[f32], steps: usize, device: &mut dyn Device) -> Result<()> {
        let Some(queue) = self.queue else { return Ok(()) };
        let (blocks, len) = (self.blocks(), self.block_len());
        let next = steps % blocks;
        let mut ring = vec![0.0; queue.len];
        for (age, block) in newest_first.chunks_exact(len).enumerate() {
            ring[(next + blocks - 1 - age) % blocks * len..][..len].copy_from_slice(block);
        }
        device.write_f32(queue, &ring)?;
        device.write_i32(self.position, &[next as i32])
    }

    /// The number of filled blocks of a queue, newest first; a queue that is not full ends in zeros.
    pub fn filled_blocks(&self, newest_first: &[f32]) -> usize {
        let blocks = newest_first.chunks_exact(self.block_len());
        blocks.take_while(|block| block.iter().any(|&value| value != 0.0)).count()
    }

    /// r <- gamma counted + (1 - gamma) r.
    ///
    /// # Errors
    /// If the device fails.
    pub fn update_prior(&self, counted: &[f64], gamma: f64, device: &mut dyn Device) -> Result<()> {
        let total: f64 = counted.iter().sum();
        let old = device.read_f32(self.class_prior)?;
        let blend = |(&count, &old): (&f64, &f32)| {
            (gamma as f32) * (count / total) as f32 + (1.0 - gamma) as f32 * old
        };
        let new: Vec<f32> = counted.iter().zip(&old).map(blend).collect();
        device.write_f32(self.class_prior, &new)
    }

    /// Records the pseudo-labels of predictions M `[B,K]`, and then overwrites the oldest block of the queue
    /// with M.
    pub fn record(&self, tape: &mut Tape, predictions: Tensor) -> Refined {
        let Self { batch, classes, .. } = *self;
        let class_prior = tape.persistent(self.class_prior);
        let queue = self.queue.map(|queue| tape.persistent(queue));
        let labels = tape.temporary(Element::F32, batch * classes);
        let outcome = tape.temporary(Element::F32, outcome::LEN);
        let barrier = tape.persistent(self.barrier);
        tape.push(Sinkhorn {
            batch,
            queue_rows: self.blocks() * batch,
            classes,
            settings: SinkhornSettings { power: self.lambda, ..SinkhornSettings::default() },
            predictions,
            queue,
            class_prior,
            barrier,
            pseudo_labels: labels,
            outcome,
        });
        if let Some(store) = queue {
            let step = tape.persistent(self.position);
            tape.push(StoreRows { batch, columns: classes, rows: predictions, step, store });
            tape.push(AdvanceStep { step, modulus: Some(self.blocks()) });
        }
        Refined { labels, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::settings::Settings;

    #[test]
    fn a_queue_comes_back_in_its_place() {
        let mut device = CpuDevice::new(1).unwrap();
        let settings = SolarSettings { queue_length: 3, ..Settings::default().of_method() };
        let refinery = Refinery::new(&settings, [1, 2], &mut device).unwrap();
        let ring = [4.0, 4.5, 2.0, 2.5, 3.0, 3.5];
        device.write_f32(refinery.queue.unwrap(), &ring).unwrap();
        // Blocks 1 2 3 filled the ring, 4 overwrote 1.
        device.write_i32(refinery.position, &[1]).unwrap();
        let newest_first = refinery.export_queue(&mut device).unwrap();
        assert_eq!(newest_first, [4.0, 4.5, 3.0, 3.5, 2.0, 2.5]);
        refinery.empty_queue(&mut device).unwrap();
        refinery.import_queue(&newest_first, 4, &mut device).unwrap();
        assert_eq!(device.read_f32(refinery.queue.unwrap()).unwrap(), ring);
        assert_eq!(device.read_i32(refinery.position).unwrap(), [1]);
        assert_eq!(refinery.filled_blocks(&newest_first), 3);
        assert_eq!(refinery.filled_blocks(&[4.0, 4.5, 0.0, 0.0, 0.0, 0.0]), 1);
    }
}
