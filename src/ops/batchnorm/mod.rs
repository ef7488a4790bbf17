//! Batchnorm over rows of channels, with the residual and the ReLU that a network puts behind it.

mod cpu;
mod gpu;

use anyhow::Result;

use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::Call;
use crate::device::gpu::launch::Address;
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Operand, Operation, Tensor};

/// The valid rows of a batch where the device decides how many there are: the rows of the first `count[0]`
/// images, `rows_each` of each. What lies behind is padding: zero in activations and gradients, and stays
/// zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidRows {
    /// i32 `[1]`.
    pub count: Tensor,
    pub rows_each: usize,
}

/// Training batchnorm over `rows` of `channels`: y = g (x - mean) / sqrt(var + eps) + b (+ residual), then
/// ReLU if asked.
///
/// `affine` = `[g; b]`, `running` = `[mean; var]` updated with momentum 0.1 and the unbiased variance, `batch` =
/// `[mean; 1/sqrt(var + eps)]` kept for the gradient. With `valid`, statistics are those of the valid rows, y is 0 behind them,
/// and without any row nothing is learnt: `running` stays, `batch` is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    pub rows: usize,
    pub channels: usize,
    pub x: Tensor,
    pub affine: Tensor,
    pub running: Tensor,
    pub batch: Tensor,
    pub residual: Option<Tensor>,
    pub relu: bool,
    pub valid: Option<ValidRows>,
    pub y: Tensor,
}

/// Batchnorm with the running statistics; has no gradient.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormInference {
    pub rows: usize,
    pub channels: usize,
    pub x: Tensor,
    pub affine: Tensor,
    pub running: Tensor,
    pub residual: Option<Tensor>,
    pub relu: bool,
    pub y: Tensor,
}

/// Gradient of [`BatchNorm`]: dx from dy masked where the ReLU gave 0, and d_affine =
/// `[sum dy xhat; sum dy]`.
///
/// With a `residual`, dy is masked *in place*, which makes it the residual's gradient as well; without one,
/// what dy holds afterwards is not defined. With `valid`, dy is 0 behind the valid rows, and so is dx.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormGradient {
    pub rows: usize,
    pub channels: usize,
    pub x: Tensor,
    pub y: Tensor,
    pub relu: bool,
    pub residual: bool,
    pub valid: Option<ValidRows>,
    pub affine: Tensor,
    pub batch: Tensor,
    pub dy: Tensor,
    pub d_affine: Tensor,
    pub dx: Tensor,
}

/// Partial statistics of x `[rows, channels]` that another kernel left in the workspace: f32
/// `[tiles, 2, channels]`, of every tile of rows and every channel the sum, and the sum of the squared
/// deviations from the tile's own mean.
pub struct PartialStatistics {
    pub address: Address,
    pub tiles: usize,
    /// Rows (pixels) of a tile; the last one has the rest.
    pub rows_per_tile: usize,
}

/// What follows a batchnorm, done in the same pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epilogue {
    /// Added to what is normalised.
    pub residual: Option<Tensor>,
    /// ReLU, after the residual.
    pub relu: bool,
}

/// Records training batchnorm over `rows` x `channels`, of the `valid` rows where the device decides how many
/// there are; `affine` is a parameter.
pub fn batchnorm(
    tape: &mut Tape,
    [rows, channels]: [usize; 2],
    x: Tensor,
    [affine, running]: [Tensor; 2],
    Epilogue { residual, relu }: Epilogue,
    valid: Option<ValidRows>,
) -> Tensor {
    let batch = tape.temporary(Element::F32, 2 * channels);
    let y = tape.result(tape.activations(), rows * channels);
    tape.record(BatchNorm { rows, channels, x, affine, running, batch, residual, relu, valid, y });
    y
}

/// Records batchnorm with running statistics; it has no gradient.
pub fn batchnorm_inference(
    tape: &mut Tape,
    [rows, channels]: [usize; 2],
    x: Tensor,
    [affine, running]: [Tensor; 2],
    Epilogue { residual, relu }: Epilogue,
) -> Tensor {
    let y = tape.temporary(tape.activations(), rows * channels);
    tape.push(BatchNormInference { rows, channels, x, affine, running, residual, relu, y });
    y
}

/// How many of `rows` are valid.
fn valid_rows(cpu: &Call<'_>, rows: usize, valid: Option<ValidRows>) -> Result<usize> {
    let Some(ValidRows { count, rows_each }) = valid else { return Ok(rows) };
    Ok((cpu.i32(count)?[0] as usize * rows_each).min(rows))
}

/// Arithmetic of a pass: `each` for every value, and one for a residual and a ReLU.
fn flops(each: usize, [rows, channels]: [usize; 2], residual: Option<Tensor>, relu: bool) -> f64 {
    (rows * channels * (each + usize::from(residual.is_some()) + usize::from(relu))) as f64
}

impl BatchNorm {
    /// Lowers it where another operation has summed the statistics; makes them itself if there are none.
    pub(super) fn lower_with_statistics(
        &self,
        gpu: &mut Lowering<'_>,
        statistics: Option<PartialStatistics>,
    ) -> Result<()> {
        gpu::forward(gpu, self, statistics)
    }
}

impl Operation for BatchNorm {
    fn name(&self) -> &'static str {
        "batchnorm"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list: Vec<_> = self.valid.map(|valid| Operand::read(valid.count)).into_iter().collect();
        list.extend([Operand::read(self.x), Operand::read(self.affine)]);
        list.extend([Operand::update(self.running), Operand::write(self.batch)]);
        list.extend(self.residual.map(Operand::read));
        list.push(Operand::write(self.y));
        list
    }

    fn flops(&self) -> f64 {
        flops(5, [self.rows, self.channels], self.residual, self.relu)
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { channels, relu, .. } = *self;
        let rows = valid_rows(cpu, self.rows, self.valid)?;
        let (x, mut y) = (cpu.f32(self.x)?, cpu.f32_mut(self.y)?);
        let mut statistics = cpu.f32_mut(self.batch)?;
        y[rows * channels..].fill(0.0);
        if rows == 0 {
            statistics.fill(0.0);
            return Ok(());
        }
        let (x, y) = (&x[..rows * channels], &mut y[..rows * channels]);
        let mut running = cpu.f32_mut(self.running)?;
        cpu::statistics([rows, channels], x, &mut running, &mut statistics, cpu.scratch());
        let (affine, residual) = (cpu.f32(self.affine)?, cpu.optional(self.residual)?);
        let residual = residual.as_deref().map(|residual| &residual[..rows * channels]);
        cpu::apply(channels, x, &affine, &statistics, residual, relu, y);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::forward(gpu, self, None)
    }
}

impl Differentiable for BatchNorm {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Self { rows, channels, x, affine, batch, residual, relu, valid, y, .. } = *self;
        let Some(dy) = gradients.of(y) else { return };
        let d_affine = gradients.write_parameter(affine);
        let dx = gradients.write(x);
        gradients.push(BatchNormGradient {
            rows,
            channels,
            x,
            y,
            relu,
            residual: residual.is_some(),
            valid,
            affine,
            batch,
            dy,
            d_affine,
            dx,
        });
        // dy, masked in place by the operation above, is the residual's gradient.
        if let Some(residual) = residual {
            gradients.hand_over(residual, dy);
        }
    }
}

impl Operation for BatchNormInference {
    fn name(&self) -> &'static str {
        "batchnorm inference"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list = [self.x, self.affine, self.running].map(Operand::read).to_vec();
        list.extend(self.residual.map(Operand::read));
        list.push(Operand::write(self.y));
        list
    }

    fn flops(&self) -> f64 {
        flops(2, [self.rows, self.channels], self.residual, self.relu)
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { channels, relu, .. } = *self;
        let statistics = cpu::running_statistics(channels, &cpu.f32(self.running)?);
        let (x, affine, residual) = (cpu.f32(self.x)?, cpu.f32(self.affine)?, cpu.optional(self.residual)?);
        let mut y = cpu.f32_mut(self.y)?;
        cpu::apply(channels, &x, &affine, &statistics, residual.as_deref(), relu, &mut y);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::inference(gpu, self)
    }
}

impl Operation for BatchNormGradient {
    fn name(&self) -> &'static str {
        "batchnorm gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list: Vec<_> = self.valid.map(|valid| Operand::read(valid.count)).into_iter().collect();
        list.push(Operand::read(self.x));
        list.extend(self.relu.then_some(Operand::read(self.y)));
        list.extend([Operand::read(self.affine), Operand::read(self.batch)]);
        list.push(if self.relu { Operand::update(self.dy) } else { Operand::read(self.dy) });
        list.extend([Operand::write(self.d_affine), Operand::write(self.dx)]);
        list
    }

    fn flops(&self) -> f64 {
        9.0 * (self.rows * self.channels) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let channels = self.channels;
        let rows = valid_rows(cpu, self.rows, self.valid)?;
        let (x, batch) = (cpu.f32(self.x)?, cpu.f32(self.batch)?);
        let (mut d_affine, mut dx) = (cpu.f32_mut(self.d_affine)?, cpu.f32_mut(self.dx)?);
        dx[rows * channels..].fill(0.0);
        if rows == 0 {
            d_affine.fill(0.0);
            return Ok(());
        }
        let (valid, shape) = (..rows * channels, [rows, channels]);
        let x = &x[valid];
        if self.relu {
            let (y, mut dy) = (cpu.f32(self.y)?, cpu.f32_mut(self.dy)?);
            cpu::mask_and_sum(shape, x, &y[valid], &batch, &mut dy[valid], &mut d_affine, cpu.scratch());
        } else {
            cpu::sum(shape, x, &batch, &cpu.f32(self.dy)?[valid], &mut d_affine, cpu.scratch());
        }
        let (affine, dy) = (cpu.f32(self.affine)?, cpu.f32(self.dy)?);
        cpu::input_gradient(shape, x, &affine, &batch, &dy[valid], &d_affine, &mut dx[valid]);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::gradient(gpu, self)
    }
}
