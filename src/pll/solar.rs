//! SoLar (Wang et al., "SoLar: Sinkhorn label refinery for imbalanced partial-label learning", NeurIPS 2022; SPEC 7).
//!
//! A step: predictions M = p^w s of the weak views; pseudo-labels Q from Sinkhorn over M and a queue of earlier predictions, with the
//! class prior r as marginal; of each class the samples of least loss against Q are chosen, their share rising over the warm-up,
//! and every sample that agrees with its Q; the chosen ones learn Q from the weak, the strong and a mixed view, the others their
//! confidence row, which is then renewed to M / sum M. Weak, strong and mixed views are forwarded separately, so each pass has a
//! batchnorm batch of its own, the mixed one of the chosen samples only. After each epoch r moves towards counted predictions.
//!
//! How many samples are chosen is decided on the device: their rows are moved to the front of a batch of fixed size, and the count
//! goes along to every primitive that must not see the rest.

use anyhow::Result;

use super::method::Rows;
use super::mixup::Mixup;
use crate::autograd::Tape;
use crate::device::primitive::{ConfidenceRule, MixedLoss, SinkhornSettings};
use crate::device::{Buffer, Device, Element, Primitive, Tensor};
use crate::ops::input::{AdvanceStep, StoreRows};
use crate::ops::mixup::MixupChosen;
use crate::settings::SolarSettings;

/// State of a stage, on the device, and the constants of its steps.
pub struct Solar {
    batch: usize,
    classes: usize,
    lambda: f32,
    tau: f32,
    /// Whether the chosen samples are mixed and forwarded a third time.
    mixes: bool,
    /// Earlier predictions, f32 `[L B, K]`, a ring of L blocks; `None` without a queue.
    pub queue: Option<Buffer>,
    /// i32 `[1]`: the block that is written next, the oldest.
    position: Buffer,
    /// r, f32 `[K]`.
    pub class_prior: Buffer,
    /// Predictions counted by class over the steps of an epoch, f32 `[K]`; `None` where they are not counted.
    pub counts: Option<Buffer>,
    /// See [`Primitive::Sinkhorn`].
    barrier: Buffer,
}

/// One of the forwards of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Weak,
    Strong,
    /// The mixed rows; how many there are, i32 `[1]`, the device decides.
    Mixed {
        count: Tensor,
    },
}

/// What a step reads.
#[derive(Clone, Copy)]
pub struct Inputs {
    /// Images of the views, `[B, len]` each.
    pub weak: Tensor,
    pub strong: Tensor,
    /// Values of an image.
    pub len: usize,
    pub rows: Rows,
}

/// What a step recorded.
pub struct Recorded {
    /// Logits with their gradients, `[B,K]`: weak, strong, and mixed where there are.
    pub logits: Vec<(Tensor, Tensor)>,
    /// f32 `[B]`; their mean is the loss.
    pub loss_rows: Tensor,
    /// Pseudo-labels Q, f32 `[B,K]`.
    pub refined: Tensor,
    /// Figures of Sinkhorn, see [`crate::device::primitive::outcome`].
    pub outcome: Tensor,
    /// i32 `[B]`: 1 for a chosen sample.
    pub chosen: Tensor,
}

impl Solar {
    /// State of a stage: an empty queue and a uniform class prior.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(
        settings: &SolarSettings,
        batch: usize,
        classes: usize,
        mixes: bool,
        counts_steps: bool,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let rows = settings.queue_length * batch;
        let mut allocate = |element, len, label| device.allocate(element, len, label);
        let solar = Self {
            batch,
            classes,
            lambda: settings.lambda as f32,
            tau: settings.tau as f32,
            mixes,
            queue: if rows > 0 {
                Some(allocate(Element::F32, rows * classes, "SoLar's queue")?)
            } else {
                None
            },
            position: allocate(Element::I32, 1, "the queue's position")?,
            class_prior: allocate(Element::F32, classes, "SoLar's class prior")?,
            counts: if counts_steps {
                Some(allocate(Element::F32, classes, "the predictions by class")?)
            } else {
                None
            },
            barrier: allocate(Element::I32, 2, "Sinkhorn's barrier")?,
        };
        device.write_f32(solar.class_prior, &vec![1.0 / classes as f32; classes])?;
        Ok(solar)
    }

    /// Forwards of a step.
    pub fn passes(&self) -> usize {
        if self.mixes { 3 } else { 2 }
    }

    /// Blocks of the queue.
    fn blocks(&self) -> usize {
        self.queue.map_or(0, |queue| queue.len / (self.batch * self.classes))
    }

    /// Empties the queue: a new stage.
    pub fn restart(&self, device: &mut dyn Device) -> Result<()> {
        if let Some(queue) = self.queue {
            device.write_f32(queue, &vec![0.0; queue.len])?;
        }
        device.write_i32(self.position, &[0])
    }

    /// The queue after `steps` steps of the stage, newest block first as in the reference, zeros where there is none yet.
    pub fn export_queue(&self, steps: usize, device: &mut dyn Device) -> Result<Vec<f32>> {
        let Some(queue) = self.queue else { return Ok(Vec::new()) };
        let ring = device.read_f32(queue)?;
        let (blocks, len) = (self.blocks(), self.batch * self.classes);
        let block = |age: usize| (steps + 2 * blocks - 1 - age) % blocks;
        Ok((0..blocks).flat_map(|age| &ring[block(age % blocks) * len..][..len]).copied().collect())
    }

    /// Takes over a queue, newest block first, as it was after `steps` steps.
    pub fn import_queue(&self, newest_first: &[f32], steps: usize, device: &mut dyn Device) -> Result<()> {
        let Some(queue) = self.queue else { return Ok(()) };
        let (blocks, len) = (self.blocks(), self.batch * self.classes);
        let mut ring = vec![0.0; queue.len];
        for (age, block) in newest_first.chunks_exact(len).enumerate() {
            ring[(steps + 2 * blocks - 1 - age) % blocks * len..][..len].copy_from_slice(block);
        }
        device.write_f32(queue, &ring)?;
        device.write_i32(self.position, &[(steps % blocks) as i32])
    }

    /// r <- gamma counted + (1 - gamma) r.
    pub fn update_prior(&self, counted: &[f64], gamma: f64, device: &mut dyn Device) -> Result<()> {
        let total: f64 = counted.iter().sum();
        let old = device.read_f32(self.class_prior)?;
        let blend = |(&count, &old): (&f64, &f32)| {
            (gamma as f32) * (count / total) as f32 + (1.0 - gamma) as f32 * old
        };
        let new: Vec<f32> = counted.iter().zip(&old).map(blend).collect();
        device.write_f32(self.class_prior, &new)
    }

    /// Records a step up to the gradients of the logits; `forward` records the network on images `[B, len]` and returns the logits
    /// `[B,K]`. `mixup` has a permutation of the whole batch a step, which orders the chosen ones.
    pub fn record(
        &self,
        tape: &mut Tape,
        inputs: Inputs,
        mixup: &Mixup,
        forward: &mut dyn FnMut(&mut Tape, Tensor, Pass) -> Tensor,
    ) -> Recorded {
        let Self { batch, classes, .. } = *self;
        let Inputs { weak: weak_images, strong: strong_images, len, rows } = inputs;
        let Rows { confidence, candidates, index, control, .. } = rows;
        let logits_len = batch * classes;
        let weak = forward(tape, weak_images, Pass::Weak);
        let strong = forward(tape, strong_images, Pass::Strong);

        let predictions = tape.temporary(Element::F32, logits_len);
        tape.push(Primitive::MaskedSoftmax {
            batch,
            classes,
            logits: weak,
            candidates,
            index,
            out: predictions,
        });
        let class_prior = tape.persistent(self.class_prior);
        let queue = self.queue.map(|queue| tape.persistent(queue));
        let (refined, outcome) = self.record_sinkhorn(tape, predictions, queue, class_prior);
        if let Some(store) = queue {
            let step = tape.persistent(self.position);
            tape.push(StoreRows { batch, columns: classes, rows: predictions, step, store });
            tape.push(AdvanceStep { step, modulus: Some(self.blocks()) });
        }
        if let Some(counts) = self.counts {
            let counts = tape.persistent(counts);
            tape.push(Primitive::CountLargest { rows: batch, classes, x: predictions, counts });
        }

        let mixup = mixup.tensors(tape);
        let [chosen, chosen_rows, partners] = [(); 3].map(|()| tape.temporary(Element::I32, batch));
        let count = tape.temporary(Element::I32, 1);
        tape.push(Primitive::ChooseSamples {
            batch,
            classes,
            threshold: self.tau,
            logits: weak,
            refined,
            class_prior,
            control,
            permutations: mixup.permutations,
            step: mixup.step,
            chosen,
            rows: chosen_rows,
            partners,
            count,
        });
        let mixed = self.mixes.then(|| {
            let mix = |tape: &mut Tape, x, len, element| {
                let out = tape.temporary(element, batch * len);
                let (weights, step) = (mixup.weights, mixup.step);
                let rows = chosen_rows;
                tape.push(MixupChosen { batch, len, weights, step, rows, partners, count, x, out });
                out
            };
            let activations = tape.activations();
            let images = mix(tape, weak_images, len, activations);
            let target = mix(tape, refined, classes, Element::F32);
            let logits = forward(tape, images, Pass::Mixed { count });
            MixedLoss { logits, target, d_logits: tape.temporary(Element::F32, logits_len) }
        });

        let [d_weak, d_strong] = [(); 2].map(|()| tape.temporary(Element::F32, logits_len));
        let loss_rows = tape.temporary(Element::F32, batch);
        tape.push(Primitive::SolarLoss {
            batch,
            classes,
            weak,
            strong,
            refined,
            mixed,
            confidence,
            index,
            chosen,
            count,
            control,
            d_weak,
            d_strong,
            loss_rows,
        });
        // The reference renews after SGD, from these same logits; the loss above has read the old rows.
        tape.push(Primitive::UpdateConfidence {
            rule: ConfidenceRule::Candidates,
            batch,
            classes,
            logits: weak,
            log_prior: None,
            candidates,
            index,
            control,
            confidence,
        });
        let mut logits = vec![(weak, d_weak), (strong, d_strong)];
        logits.extend(mixed.map(|mixed| (mixed.logits, mixed.d_logits)));
        Recorded { logits, loss_rows, refined, outcome, chosen }
    }

    /// Records the label refinery; returns pseudo-labels and figures.
    fn record_sinkhorn(
        &self,
        tape: &mut Tape,
        predictions: Tensor,
        queue: Option<Tensor>,
        class_prior: Tensor,
    ) -> (Tensor, Tensor) {
        let Self { batch, classes, .. } = *self;
        let refined = tape.temporary(Element::F32, batch * classes);
        let outcome = tape.temporary(Element::F32, crate::device::primitive::outcome::LEN);
        let barrier = tape.persistent(self.barrier);
        tape.push(Primitive::Sinkhorn {
            batch,
            queue_rows: self.blocks() * batch,
            classes,
            settings: SinkhornSettings { power: self.lambda, ..SinkhornSettings::default() },
            predictions,
            queue,
            class_prior,
            barrier,
            refined,
            outcome,
        });
        (refined, outcome)
    }
}

/// Predictions by class: argmax of p s over the logits `[N,K]` of all training samples, whose softmax has the order of the
/// logits themselves.
pub fn count_predictions(logits: &[f32], candidates: &[u8], classes: usize) -> Vec<f64> {
    let mut counts = vec![0.0; classes];
    for (row, set) in logits.chunks_exact(classes).zip(candidates.chunks_exact(classes)) {
        let inside = (0..classes).filter(|&k| set[k] != 0);
        let best = inside.reduce(|best, k| if row[k] > row[best] { k } else { best });
        counts[best.unwrap_or(0)] += 1.0;
    }
    counts
}

/// eta and rho of an epoch of a stage (SPEC 7): eta rises from 0, rho from its first value to its second, over the warm-up. In
/// epoch 0 nothing is chosen, which eta = 0 says.
pub fn ramps(settings: &SolarSettings, epoch: usize) -> [f64; 2] {
    let ramp = match settings.warmup_epochs {
        0 => 1.0,
        warmup => (epoch as f64 / warmup as f64).min(1.0),
    };
    let [from, to] = settings.rho;
    let eta = if epoch == 0 { 0.0 } else { settings.eta * ramp };
    [eta, from + (to - from) * ramp]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::settings::Settings;

    #[test]
    fn a_queue_comes_back_in_its_place() {
        let mut device = CpuDevice::new(1).unwrap();
        let settings = SolarSettings { queue_length: 3, ..Settings::default().solar() };
        let solar = Solar::new(&settings, 1, 2, true, false, &mut device).unwrap();
        let ring = [4.0, 4.5, 2.0, 2.5, 3.0, 3.5];
        device.write_f32(solar.queue.unwrap(), &ring).unwrap();
        // Blocks 1 2 3 filled the ring, 4 overwrote 1.
        let newest_first = solar.export_queue(4, &mut device).unwrap();
        assert_eq!(newest_first, [4.0, 4.5, 3.0, 3.5, 2.0, 2.5]);
        solar.restart(&mut device).unwrap();
        solar.import_queue(&newest_first, 4, &mut device).unwrap();
        assert_eq!(device.read_f32(solar.queue.unwrap()).unwrap(), ring);
    }

    #[test]
    fn ramps_start_at_epoch_1_and_end_with_the_warm_up() {
        let settings = Settings::default().solar();
        assert_eq!(ramps(&settings, 0), [0.0, 0.2]);
        assert!((ramps(&settings, 25)[0] - 0.45).abs() < 1e-12);
        assert!((ramps(&settings, 25)[1] - 0.4).abs() < 1e-12);
        for epoch in [50, 300] {
            assert!((ramps(&settings, epoch)[0] - 0.9).abs() < 1e-12);
            assert!((ramps(&settings, epoch)[1] - 0.6).abs() < 1e-12);
        }
        let none = SolarSettings { warmup_epochs: 0, ..settings };
        assert_eq!(ramps(&none, 0)[0], 0.0);
        assert!((ramps(&none, 1)[0] - 0.9).abs() < 1e-12);
    }

    #[test]
    fn predictions_outside_the_candidates_do_not_count() {
        let counts = count_predictions(&[5.0, 1.0, 2.0, 0.0, 0.0, 0.0], &[0, 1, 1, 1, 1, 0], 3);
        assert_eq!(counts, [1.0, 0.0, 1.0]);
    }
}
