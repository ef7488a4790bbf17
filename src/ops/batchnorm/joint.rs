//! Batchnorm whose statistics are those of the rows of all processes: the same training as of one process
//! with the whole batch.
//!
//! Forward, the sums of x and x² of every channel are added over the processes; backward, those of dy and
//! dy (x - mean). In f64 and in the order of the ranks, so running statistics have the same bits
//! everywhere. The gradient of the parameters is that of the own rows: it is summed with all other
//! gradients.

use anyhow::Result;

use super::{BatchNorm, BatchNormGradient, MASK_FROM_BITS, StatisticsOf, cpu, gpu, valid_rows};
use crate::autograd::{Differentiable, Gradients};
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation};
use crate::ops::rows::all_zero;

/// [`BatchNorm`] with the statistics of all processes.
#[derive(Clone, Debug, PartialEq)]
pub struct JointBatchNorm(pub BatchNorm);

/// Gradient of [`JointBatchNorm`]; `d_affine` is the part of the own rows.
#[derive(Clone, Debug, PartialEq)]
pub struct JointBatchNormGradient(pub BatchNormGradient);

/// Adds up `sums` and further `counts` over the processes; the counts come out as sums, too.
fn over_all<const N: usize>(
    cpu: &Call<'_>,
    mut sums: Vec<f64>,
    counts: [usize; N],
) -> Result<(Vec<f64>, [usize; N])> {
    sums.extend(counts.map(|count| count as f64));
    cpu.world().collective().sum_f64(&mut sums)?;
    let counts = std::array::from_fn(|i| sums[sums.len() - N + i] as usize);
    sums.truncate(sums.len() - N);
    Ok((sums, counts))
}

impl Operation for JointBatchNorm {
    fn name(&self) -> &'static str {
        "joint batchnorm"
    }

    fn operands(&self) -> Vec<Operand> {
        self.0.operands()
    }

    fn flops(&self) -> f64 {
        self.0.flops()
    }

    fn is_exchange(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let BatchNorm { channels, relu, .. } = self.0;
        let own = valid_rows(cpu, self.0.rows, self.0.valid)?;
        let (x, (mut y, rounding)) = (cpu.f32(self.0.x)?, cpu.rounded_mut(self.0.y)?);
        let mut statistics = cpu.f32_mut(self.0.batch)?;
        y[own * channels..].fill(0.0);
        let mut positive = self.0.positive.map(|bits| cpu.u8_mut(bits)).transpose()?;
        if let Some(bits) = &mut positive {
            bits.fill(0);
        }
        let (x, y) = (&x[..own * channels], &mut y[..own * channels]);
        let sums = cpu::sums(channels, x, cpu.scratch());
        let (sums, [rows]) = over_all(cpu, sums, [own])?;
        if rows == 0 {
            statistics.fill(0.0);
            return Ok(());
        }
        cpu::statistics_of([rows, channels], &sums, &mut cpu.f32_mut(self.0.running)?, &mut statistics);
        let (affine, residual) = (cpu.f32(self.0.affine)?, cpu.optional(self.0.residual)?);
        let residual = residual.as_deref().map(|residual| &residual[..own * channels]);
        cpu::apply(channels, x, [&affine, &statistics], residual, relu, (y, rounding));
        if let Some(bits) = &mut positive {
            cpu::positive_bits(16 / cpu.element(self.0.y).bytes(), y, bits);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::forward(gpu, &self.0, None, StatisticsOf::Joint)
    }

    fn overlaps(&self, next: &dyn Operation) -> bool {
        self.0.overlaps(next)
    }
}

impl Differentiable for JointBatchNorm {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        self.0.record_gradient(gradients, |gradients, gradient| {
            gradients.push(JointBatchNormGradient(gradient))
        });
    }

    fn follows_at_once(&self) -> bool {
        self.0.follows_at_once()
    }
}

impl Operation for JointBatchNormGradient {
    fn name(&self) -> &'static str {
        "joint batchnorm gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        self.0.operands()
    }

    fn flops(&self) -> f64 {
        self.0.flops()
    }

    fn is_exchange(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let channels = self.0.channels;
        let own = valid_rows(cpu, self.0.rows, self.0.valid)?;
        let (x, batch) = (cpu.f32(self.0.x)?, cpu.f32(self.0.batch)?);
        let (mut d_affine, (mut dx, rounding)) = (cpu.f32_mut(self.0.d_affine)?, cpu.rounded_mut(self.0.dx)?);
        dx[own * channels..].fill(0.0);
        let valid = ..own * channels;
        let (x, affine) = (&x[valid], cpu.f32(self.0.affine)?);
        let given = [&affine[..], &batch];
        let y = if self.0.mask() == MASK_FROM_BITS { Some(cpu.f32(self.0.y)?) } else { None };
        let mask = match (self.0.relu, &y) {
            (false, _) => cpu::Mask::None,
            (true, None) => cpu::Mask::FromX,
            (true, Some(y)) => cpu::Mask::FromY(&y[valid]),
        };
        // What the mask leaves of dy needs no rounding.
        let (mut dy, _) = cpu.rounded_mut(self.0.dy)?;
        let dy = &mut dy[valid];
        let depends = !all_zero(dy);
        let sums = match depends {
            true => cpu::gradient_sums(channels, x, given, &mask, dy, cpu.scratch()),
            false => vec![0.0; 2 * channels],
        };
        cpu::write_gradient_sums(channels, &sums, &batch, &mut d_affine);
        let (sums, [rows, depending]) = over_all(cpu, sums, [own, usize::from(depends)])?;
        if depending == 0 {
            // Nothing depends on this pass anywhere.
            dx.fill(0.0);
            return Ok(());
        }
        let mut of_all = vec![0.0; 2 * channels];
        cpu::write_gradient_sums(channels, &sums, &batch, &mut of_all);
        let dx = (&mut dx[valid], rounding);
        cpu::input_gradient([rows, channels], x, given, &mask, dy, &of_all, dx);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::gradient(gpu, &self.0, None, StatisticsOf::Joint)
    }
}
