//! Statistics of a step, and of the confidence rows after an epoch.

mod cpu;
mod gpu;
mod not_finite;

use anyhow::Result;

use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
pub use not_finite::CountNotFinite;

/// Positions in the counters, f32, that a training plan sums over an epoch.
pub mod counter {
    pub use crate::device::gpu::kernels::counter::{CORRECT, LAST_LOSS, LOSS, WATCHED};

    /// Counts of steps with finite logits, one for each forward pass; there are up to three.
    pub const LOGITS: [usize; 3] = [3, 4, 5];
    /// Count of steps whose losses are finite.
    pub const LOSS_ROWS: usize = 6;
    /// Count of steps after which the batchnorms' running statistics are finite.
    pub const RUNNING: usize = 7;
    /// The names of the watched values, from counter [`WATCHED`] on.
    pub const WATCHED_NAMES: [&str; 5] = ["logits", "logits", "logits", "losses", "running statistics"];
    /// Number of counters.
    pub const LEN: usize = 8;
}

/// Adds the step's mean loss and its correct weak-view predictions to the counters; the weak views are the
/// first rows of `logits` `[R,K]`. See [`counter`].
#[derive(Clone, Debug, PartialEq)]
pub struct StepStatistics {
    /// Samples B.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// f32 `[R,K]`; the weak views are its first B rows.
    pub logits: Tensor,
    /// i32 `[N]`.
    pub labels: Tensor,
    /// i32 `[B]`: the samples of the step.
    pub index: Tensor,
    /// Loss of each sample, f32 `[B]`.
    pub loss_rows: Tensor,
    /// The epoch's counters, f32 `[LEN]` of [`counter`].
    pub counters: Tensor,
}

/// Tests whether the first `len` of `values` f32 are all finite: counters`[slot]` = n >= 0 becomes n + 1 if
/// they are, -(n + 1) if not; a negative one stays.
#[derive(Clone, Debug, PartialEq)]
pub struct CountFiniteSteps {
    /// How many values are tested.
    pub len: usize,
    /// Which counter is advanced.
    pub slot: usize,
    /// The values, f32, at least `len` of them.
    pub values: Tensor,
    /// The epoch's counters, f32 `[LEN]` of [`counter`].
    pub counters: Tensor,
}

/// out `[2]` = [mean of the rows' maxima of confidence `[N,K]`; fraction of rows whose argmax is the true
/// class]. With candidates u8 `[N,K]` only these classes take part, and a NaN never counts as the largest.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfidenceStatistics {
    /// Samples N.
    pub rows: usize,
    /// Classes K.
    pub classes: usize,
    /// f32 `[N,K]`.
    pub confidence: Tensor,
    /// u8 `[N,K]`; `None` if every class takes part.
    pub candidates: Option<Tensor>,
    /// True labels, i32 `[N]`, -1 where unknown.
    pub labels: Tensor,
    /// The result, f32 `[2]`.
    pub out: Tensor,
}

impl Operation for StepStatistics {
    fn name(&self) -> &'static str {
        "step statistics"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::read(self.logits).touching(self.batch * self.classes),
            Operand::read(self.labels).touching(self.batch),
            Operand::read(self.index),
            Operand::read(self.loss_rows),
            Operand::update(self.counters).touching(counter::WATCHED),
        ]
    }

    fn flops(&self) -> f64 {
        (self.batch * self.classes) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu::count_step(
            [self.batch, self.classes],
            &cpu.f32(self.logits)?,
            &cpu.i32(self.labels)?,
            &cpu.i32(self.index)?,
            &cpu.f32(self.loss_rows)?,
            &mut cpu.f32_mut(self.counters)?,
        );
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower_step(self, gpu);
        Ok(())
    }
}

impl Operation for CountFiniteSteps {
    fn name(&self) -> &'static str {
        "finite steps"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.values).touching(self.len), Operand::update(self.counters).touching(1)]
    }

    fn flops(&self) -> f64 {
        self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let finite = cpu.f32(self.values)?[..self.len].iter().all(|value| value.is_finite());
        cpu::count_finite_step(finite, &mut cpu.f32_mut(self.counters)?[self.slot]);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower_finite_steps(self, gpu);
        Ok(())
    }
}

impl Operation for ConfidenceStatistics {
    fn name(&self) -> &'static str {
        "confidence statistics"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut operands = vec![Operand::read(self.confidence)];
        operands.extend(self.candidates.map(Operand::read));
        operands.extend([Operand::read(self.labels), Operand::write(self.out)]);
        operands
    }

    fn flops(&self) -> f64 {
        (self.rows * self.classes) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (confidence, labels) = (cpu.f32(self.confidence)?, cpu.i32(self.labels)?);
        let candidates = self.candidates.map(|candidates| cpu.u8(candidates)).transpose()?;
        let shape = [self.rows, self.classes];
        let figures = cpu::confidence(shape, &confidence, candidates.as_deref(), &labels);
        cpu.f32_mut(self.out)?.copy_from_slice(&figures);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower_confidence(self, gpu);
        Ok(())
    }
}
