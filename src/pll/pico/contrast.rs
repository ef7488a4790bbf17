//! The contrastive loss of embeddings, with its gradient.

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::projection::MOST_COLUMNS;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::pico::{self as kernels, ANCHORS, FIGURES, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};
use crate::device::{Operand, Operation, Tensor};
use crate::ops::control;
use crate::ops::linear::dot;

/// # Errors
/// For embeddings longer than the kernels take.
pub(super) fn check_columns(columns: usize) -> Result<()> {
    ensure!(columns <= MOST_COLUMNS, "embeddings of {columns} values, more than {MOST_COLUMNS}");
    Ok(())
}

/// The loss of each embedding q_i over the rows z = `[q; keys; queue]`, with s_ij = q_i z_j / T: L_i = ln sum
/// over A(i) of exp s_ij - mean over P(i) of s_ij.
///
/// If control`[UPDATE]` is not 0, A(i) is all rows but i itself, and P(i) is its own key and those rows of
/// A(i) with the label of i. Otherwise A(i) is its own key and the queue, and P(i) its own key: MoCo's loss.
///
/// `loss_rows` `[B]` += `weight` L_i. `gradient` `[B,D]` is that of `weight` times the mean of L_i with
/// respect to q, including the terms where q_i is another embedding's z_j; keys and queue are constant.
#[derive(Clone, Debug, PartialEq)]
pub struct Contrast {
    /// Samples B.
    pub batch: usize,
    /// D.
    pub columns: usize,
    /// Keys Q in the queue.
    pub queue_rows: usize,
    /// T.
    pub temperature: f32,
    /// Weight of this loss in the step's.
    pub weight: f32,
    /// q, f32 `[B,D]`.
    pub embeddings: Tensor,
    /// Keys of the same samples, f32 `[B,D]`.
    pub keys: Tensor,
    /// Labels of embeddings and keys, f32 `[B]`: whole numbers, -1 for none.
    pub labels: Tensor,
    /// Keys of earlier batches, f32 `[Q,D]`.
    pub queue: Tensor,
    /// Their labels, f32 `[Q]`.
    pub queue_labels: Tensor,
    /// The step's control block, f32 ([`control`]).
    pub control: Tensor,
    /// Gradient of the embeddings, f32 `[B,D]`.
    pub gradient: Tensor,
    /// Loss of each sample, f32 `[B]`, added to.
    pub loss_rows: Tensor,
}

impl Contrast {
    fn rows(&self) -> usize {
        2 * self.batch + self.queue_rows
    }
}

impl Operation for Contrast {
    fn name(&self) -> &'static str {
        "contrast"
    }

    fn operands(&self) -> Vec<Operand> {
        let read = [self.embeddings, self.keys, self.labels, self.queue, self.queue_labels, self.control];
        let mut operands = read.map(Operand::read).to_vec();
        operands.extend([Operand::write(self.gradient), Operand::update(self.loss_rows)]);
        operands
    }

    /// The products are computed twice, their weighted sum once.
    fn flops(&self) -> f64 {
        6.0 * (self.batch * self.rows() * self.columns) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let contrasted = Contrasted {
            of: self,
            labelled: cpu.f32(self.control)?[control::UPDATE] != 0.0,
            embeddings: &cpu.f32(self.embeddings)?,
            keys: &cpu.f32(self.keys)?,
            labels: &cpu.f32(self.labels)?,
            queue: &cpu.f32(self.queue)?,
            queue_labels: &cpu.f32(self.queue_labels)?,
        };
        let figures: Vec<Figures> = (0..self.batch).into_par_iter().map(|i| contrasted.figures(i)).collect();
        let (mut gradient, mut loss_rows) = (cpu.f32_mut(self.gradient)?, cpu.f32_mut(self.loss_rows)?);
        for (loss, figures) in loss_rows.iter_mut().zip(&figures) {
            *loss += self.weight * figures.loss;
        }
        let rows = gradient.par_chunks_exact_mut(self.columns).enumerate();
        rows.for_each(|(i, gradient)| contrasted.gradient(i, &figures, gradient));
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        check_columns(self.columns)?;
        let contrasted = kernels::Contrasted {
            batch: self.batch,
            columns: self.columns,
            queue_rows: self.queue_rows,
            temperature: self.temperature,
            embeddings: gpu.address(self.embeddings),
            keys: gpu.address(self.keys),
            labels: gpu.address(self.labels),
            queue: gpu.address(self.queue),
            queue_labels: gpu.address(self.queue_labels),
            control: gpu.address(self.control),
        };
        let (weight, blocks) = (self.weight, self.batch.div_ceil(ANCHORS));
        let figures = gpu.workspace(self.batch * FIGURES * size_of::<f32>());
        let between = Span::new(figures, self.batch * FIGURES * size_of::<f32>());
        let read = [self.embeddings, self.keys, self.labels, self.queue, self.queue_labels, self.control];
        let work = |products: f64| {
            let read = read.map(|tensor| gpu.span(tensor));
            Work::of(products * 2.0 * (self.batch * self.rows() * self.columns) as f64).reading(read)
        };
        let losses = gpu.span(self.loss_rows);
        let works = [
            work(1.0).reading([losses]).writing([losses, between]),
            work(2.0).reading([between]).writing([gpu.span(self.gradient)]),
        ];
        let loss_rows = gpu.address(self.loss_rows);
        let parameters = kernels::ContrastFigures { c: contrasted, weight, figures, loss_rows };
        let [of_figures, of_gradient] = works;
        gpu.launch(kernels::CONTRAST_FIGURES.linear(blocks, THREADS, parameters).doing(of_figures));
        let gradient = gpu.address(self.gradient);
        let parameters = kernels::ContrastGradient { c: contrasted, weight, figures, gradient };
        gpu.launch(kernels::CONTRAST_GRADIENT.linear(blocks, THREADS, parameters).doing(of_gradient));
        Ok(())
    }
}

/// The inputs of the loss on the CPU.
struct Contrasted<'a> {
    of: &'a Contrast,
    labelled: bool,
    embeddings: &'a [f32],
    keys: &'a [f32],
    labels: &'a [f32],
    queue: &'a [f32],
    queue_labels: &'a [f32],
}

/// The sums of an anchor.
struct Figures {
    /// ln of the sum of exponentials.
    log_sum: f32,
    /// Number of its positives, at least 1.
    count: f32,
    loss: f32,
}

impl Contrasted<'_> {
    /// Row j and its label.
    fn row(&self, j: usize) -> (&[f32], f32) {
        let &Contrast { batch, columns, .. } = self.of;
        let (rows, labels, at) = match j {
            _ if j < batch => (self.embeddings, self.labels, j),
            _ if j < 2 * batch => (self.keys, self.labels, j - batch),
            _ => (self.queue, self.queue_labels, j - 2 * batch),
        };
        (&rows[at * columns..][..columns], labels[at])
    }

    /// Each row of A(i): its number, its values, s and whether it is a positive.
    fn held_against(&self, i: usize) -> impl Iterator<Item = (usize, &[f32], f32, bool)> {
        let &Contrast { batch, temperature, .. } = self.of;
        let (q, own) = self.row(i);
        let among = move |j: &usize| match self.labelled {
            true => *j != i,
            false => *j == batch + i || *j >= 2 * batch,
        };
        (0..self.of.rows()).filter(among).map(move |j| {
            let (z, label) = self.row(j);
            let positive = j == batch + i || (self.labelled && own >= 0.0 && own == label);
            (j, z, dot(q, z) / temperature, positive)
        })
    }

    fn figures(&self, i: usize) -> Figures {
        let scores: Vec<(f32, bool)> =
            self.held_against(i).map(|(_, _, s, positive)| (s, positive)).collect();
        let most = scores.iter().fold(f32::NEG_INFINITY, |most, (s, _)| most.max(*s));
        let sum: f64 = scores.iter().map(|(s, _)| f64::from((s - most).exp())).sum();
        let positives = || scores.iter().filter(|(_, positive)| *positive);
        let (total, count) = (positives().map(|(s, _)| f64::from(*s)).sum::<f64>(), positives().count());
        let log_sum = f64::from(most) + sum.ln();
        Figures {
            log_sum: log_sum as f32,
            count: count as f32,
            loss: (log_sum - total / count as f64) as f32,
        }
    }

    /// Writes the gradient of q_i: of its own loss, and of the losses in which it is one of the z_j.
    fn gradient(&self, i: usize, figures: &[Figures], gradient: &mut [f32]) {
        let &Contrast { batch, temperature, weight, .. } = self.of;
        gradient.fill(0.0);
        for (j, z, s, positive) in self.held_against(i) {
            let of = |anchor: &Figures| {
                (s - anchor.log_sum).exp() - if positive { 1.0 / anchor.count } else { 0.0 }
            };
            let factor = of(&figures[i]) + if j < batch { of(&figures[j]) } else { 0.0 };
            gradient.iter_mut().zip(z).for_each(|(d, z)| *d += factor * z);
        }
        let scale = weight / (batch as f32 * temperature);
        gradient.iter_mut().for_each(|d| *d *= scale);
    }
}
