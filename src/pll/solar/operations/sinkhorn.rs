//! Sinkhorn's iteration: pseudo-labels whose class frequencies follow the estimated class prior.

use anyhow::{Result, ensure};
use rayon::prelude::*;

use crate::device::cpu::Call;
use crate::device::gpu::kernels::sinkhorn::{self as kernels, FIRST_ERROR, THREADS};
use crate::device::gpu::launch::Launch;
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::Work;
use crate::device::{Operand, Operation, Tensor};

/// The label refinery of SoLar (docs/spec.md, section 7): pseudo-labels `[B,K]` from `predictions` M `[B,K]`,
/// such that the class frequencies over P = [`queue` `[L,K]`; M] follow `class_prior` r `[K]`. The queue
/// takes part once it is full, that is when its last row is not all zero. This is tested on the device, so
/// that shapes and launch stay the same throughout a run.
///
/// For n rows with A = P^power: b = 1/n, then rounds of a = r / (A^T b), b = (1/n) / (A a); the result is n
/// a_k A_jk b_j. After every `check_every`-th round the error is sum a + sum b (initially 1e6); rounds stop
/// once it is below `tolerance`. A NaN error, or a result that is not finite, triggers a single relaxed
/// attempt: zeros of P become `relaxation`, and the result is 0 there. Vectors are f32 on purpose: their
/// overflow reveals an infeasible problem.
#[derive(Clone, Debug, PartialEq)]
pub struct Sinkhorn {
    /// Samples B.
    pub batch: usize,
    /// L.
    pub queue_rows: usize,
    /// Classes K.
    pub classes: usize,
    /// Power, number of rounds and tolerance.
    pub settings: SinkhornSettings,
    /// M, f32 `[B,K]`.
    pub predictions: Tensor,
    /// Earlier predictions, f32 `[L,K]`; `None` without a queue.
    pub queue: Option<Tensor>,
    /// r, f32 `[K]`.
    pub class_prior: Tensor,
    /// i32 `[2]`, used by devices that synchronise blocks within the operation: zero before the first run,
    /// never touched by others.
    pub barrier: Tensor,
    /// The result, f32 `[B,K]`.
    pub pseudo_labels: Tensor,
    /// f32, see [`outcome`].
    pub outcome: Tensor,
}

/// Constants of [`Sinkhorn`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SinkhornSettings {
    /// lambda: predictions are raised to this power.
    pub power: f32,
    /// Most rounds of one attempt.
    pub rounds: usize,
    /// The error is checked after every this many rounds.
    pub check_every: usize,
    /// Rounds stop once the error is below this.
    pub tolerance: f32,
    /// The value that replaces predictions of 0 in the relaxed attempt.
    pub relaxation: f32,
}

impl Default for SinkhornSettings {
    /// The constants of SoLar.
    fn default() -> Self {
        Self { power: 3.0, rounds: 50, check_every: 10, tolerance: 0.1, relaxation: 1e-5 }
    }
}

/// Positions in the figures that [`Sinkhorn`] reports, f32.
pub mod outcome {
    pub use crate::device::gpu::kernels::sinkhorn::{
        OUTCOME_LEN as LEN, OUTCOME_RELAXED as RELAXED, OUTCOME_ROUNDS as ROUNDS,
    };
}

/// Fewer rows than this do not justify another block at the barrier.
const LEAST_ROWS: usize = 64;

impl Operation for Sinkhorn {
    fn name(&self) -> &'static str {
        "sinkhorn"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut operands = vec![Operand::read(self.predictions)];
        operands.extend(self.queue.map(Operand::read));
        operands.extend([
            Operand::read(self.class_prior),
            Operand::update(self.barrier),
            Operand::write(self.pseudo_labels),
            Operand::write(self.outcome),
        ]);
        operands
    }

    fn flops(&self) -> f64 {
        let rows = self.batch + self.queue_rows;
        (rows * self.classes) as f64 * (4.0 * self.settings.rounds as f64 + 5.0)
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let queue = cpu.optional(self.queue)?;
        let figures = refine(
            self.classes,
            &self.settings,
            &cpu.f32(self.predictions)?,
            queue.as_deref().unwrap_or(&[]),
            &cpu.f32(self.class_prior)?,
            &mut cpu.f32_mut(self.pseudo_labels)?,
        );
        cpu.f32_mut(self.outcome)?.copy_from_slice(&figures);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { batch, queue_rows, classes, settings, .. } = *self;
        let SinkhornSettings { power, rounds, check_every, tolerance, relaxation } = settings;
        ensure!(rounds > 0 && check_every > 0, "sinkhorn: no rounds, or the error is never checked");
        let rows = batch + queue_rows;
        let blocks = rows.div_ceil(LEAST_ROWS).min(gpu.gpu().multiprocessors);
        let slice_rows = rows.div_ceil(blocks);

        let limit = gpu.gpu().shared_bytes;
        let vectors = size_of::<f32>() * (2 * classes + 1 + THREADS + slice_rows);
        ensure!(
            vectors <= limit,
            "sinkhorn: {classes} classes and {rows} rows do not fit {limit} bytes of shared memory"
        );
        let with_slice = vectors + size_of::<f32>() * slice_rows * (classes + 1);
        let (kernel, shared_bytes) = if with_slice <= limit {
            (kernels::SINKHORN_RESIDENT, with_slice)
        } else {
            (kernels::SINKHORN_STREAMING, vectors)
        };

        let partials = gpu.workspace(2 * blocks * (classes + 1) * size_of::<f32>());
        let parameters = kernels::Sinkhorn {
            batch,
            queue_rows,
            classes,
            rounds,
            check_every,
            slice_rows,
            power,
            tolerance,
            relaxation,
            predictions: gpu.address(self.predictions),
            queue: gpu.optional(self.queue),
            class_prior: gpu.address(self.class_prior),
            barrier: gpu.address(self.barrier),
            partials,
            pseudo_labels: gpu.address(self.pseudo_labels),
            outcome: gpu.address(self.outcome),
        };
        let work = Work { grid_barriers: rounds, ..gpu.work_of(&[self]) };
        let launch = kernel.linear(blocks, THREADS, parameters).doing(work);
        gpu.launch(Launch { shared_bytes: shared_bytes as u32, cooperative: true, ..launch });
        Ok(())
    }
}

/// Rows per partial column sum. The cut is fixed, so that the bits do not depend on threads.
const BLOCK: usize = 256;

/// Fills `pseudo_labels` and returns the figures of [`outcome`]; see [`Sinkhorn`]. An empty `queue` means
/// none.
fn refine(
    classes: usize,
    settings: &SinkhornSettings,
    predictions: &[f32],
    queue: &[f32],
    class_prior: &[f32],
    pseudo_labels: &mut [f32],
) -> [f32; outcome::LEN] {
    let full = queue.chunks_exact(classes).next_back().is_some_and(|last| last.iter().any(|&v| v != 0.0));
    let queue = if full { queue } else { &[] };
    let rows: Vec<f32> = queue.iter().chain(predictions).copied().collect();

    let scaling = |relaxed: bool| {
        let lifted = |&value: &f32| if relaxed && value == 0.0 { settings.relaxation } else { value };
        let powers = rows.iter().map(|value| power(lifted(value), settings.power)).collect();
        Scaling::solve(classes, settings, powers, class_prior)
    };
    let mut solved = scaling(false);
    let mut rounds = solved.rounds;
    let relaxed = solved.failed || !solved.result(0).all(f32::is_finite);
    if relaxed {
        solved = scaling(true);
        rounds += solved.rounds;
    }
    let result = solved.result(queue.len() / classes);
    for ((label, &prediction), result) in pseudo_labels.iter_mut().zip(predictions).zip(result) {
        // A product instead of a branch, so that a NaN stays visible even where the prediction is 0.
        let mask = if relaxed && prediction == 0.0 { 0.0 } else { 1.0 };
        *label = result * mask;
    }
    let mut figures = [0.0; outcome::LEN];
    figures[outcome::ROUNDS] = rounds as f32;
    figures[outcome::RELAXED] = f32::from(u8::from(relaxed));
    figures
}

/// x^lambda; SoLar's cube is two products, as PyTorch computes it.
fn power(value: f32, lambda: f32) -> f32 {
    if lambda == 3.0 { value * value * value } else { value.powf(lambda) }
}

/// One attempt: A `[n,K]` and the vectors that scale its columns and rows.
struct Scaling {
    powers: Vec<f32>,
    columns: Vec<f32>,
    rows: Vec<f32>,
    rounds: usize,
    /// Whether the error was NaN when it was checked.
    failed: bool,
}

impl Scaling {
    fn solve(classes: usize, settings: &SinkhornSettings, powers: Vec<f32>, class_prior: &[f32]) -> Self {
        let count = powers.len() / classes;
        let share = 1.0 / count as f32;
        let mut scaling =
            Self { powers, columns: vec![1.0; classes], rows: vec![share; count], rounds: 0, failed: false };
        let mut error = FIRST_ERROR;
        while scaling.rounds < settings.rounds && !scaling.failed && error >= settings.tolerance {
            scaling.round(class_prior, share);
            if scaling.rounds.is_multiple_of(settings.check_every) {
                let sum = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>() as f32;
                error = sum(&scaling.rows) + sum(&scaling.columns);
                scaling.failed = error.is_nan();
            }
        }
        scaling
    }

    /// a = r / (A^T b), b = (1/n) / (A a). The sums are in f64 and then rounded: only their results can
    /// overflow, whatever the order of additions.
    fn round(&mut self, class_prior: &[f32], share: f32) {
        let classes = class_prior.len();
        let blocks: Vec<Vec<f64>> = self
            .powers
            .par_chunks(BLOCK * classes)
            .zip(self.rows.par_chunks(BLOCK))
            .map(|(powers, rows)| {
                let mut sums = vec![0.0; classes];
                for (powers, &row) in powers.chunks_exact(classes).zip(rows) {
                    let products = powers.iter().map(|&a| f64::from(a) * f64::from(row));
                    sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
                }
                sums
            })
            .collect();
        for (k, (column, &prior)) in self.columns.iter_mut().zip(class_prior).enumerate() {
            *column = prior / blocks.iter().map(|sums| sums[k]).sum::<f64>() as f32;
        }
        let columns = &self.columns;
        self.powers.par_chunks_exact(classes).zip(&mut self.rows).with_min_len(BLOCK).for_each(
            |(powers, row)| {
                let products =
                    powers.iter().zip(columns).map(|(&a, &column)| f64::from(a) * f64::from(column));
                *row = share / products.sum::<f64>() as f32;
            },
        );
        self.rounds += 1;
    }

    /// n a_k A_jk b_j, row by row from row `first`.
    fn result(&self, first: usize) -> impl Iterator<Item = f32> {
        let count = self.rows.len() as f32;
        let classes = self.columns.len();
        self.powers.chunks_exact(classes).zip(&self.rows).skip(first).flat_map(move |(powers, row)| {
            powers.iter().zip(&self.columns).map(move |(a, column)| a * row * column * count)
        })
    }
}
