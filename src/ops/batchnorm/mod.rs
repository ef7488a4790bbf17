//! Batchnorm over rows of channels, with the residual and the ReLU that may follow it.

mod cpu;
mod gpu;
mod joint;

use anyhow::Result;

use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::Call;
use crate::device::gpu::kernels::batchnorm_value::{MASK_FROM_BITS, MASK_FROM_X, MASK_NONE};
use crate::device::gpu::launch::Address;
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::Span;
use crate::device::{Element, Operand, Operation, Tensor};
use crate::ops::convolution::{Convolution, ConvolutionDataGradient};
use crate::ops::rows::all_zero;
pub(super) use gpu::StatisticsOf;
pub use joint::{JointBatchNorm, JointBatchNormGradient};

/// The valid rows of a batch whose size the device decides: those of the first `count[0]` images, `rows_each`
/// rows per image. The rows behind are padding: zero in activations and gradients, and they stay zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidRows {
    /// i32 `[1]`.
    pub count: Tensor,
    /// Rows (pixels) of one image.
    pub rows_each: usize,
}

/// Training batchnorm over `rows` of `channels`: y = g (x - mean) / sqrt(var + eps) + b (+ residual), then
/// ReLU if asked.
///
/// `affine` = `[g; b]`; `running` = `[mean; var]` is updated with momentum 0.1 and the unbiased variance;
/// `batch` = `[mean; 1/sqrt(var + eps)]` is kept for the gradient. With `valid`, the statistics are those of
/// the valid rows and y is 0 behind them; without any valid row `running` stays and `batch` is 0.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNorm {
    /// Rows of x: images times pixels.
    pub rows: usize,
    /// Channels C of a row.
    pub channels: usize,
    /// The input, activations `[rows, C]`.
    pub x: Tensor,
    /// The parameters `[g; b]`, f32 `[2C]`.
    pub affine: Tensor,
    /// Running mean and variance, f32 `[2C]`, updated.
    pub running: Tensor,
    /// Mean and inverse standard deviation of the batch, f32 `[2C]`, for the gradient.
    pub batch: Tensor,
    /// Activations `[rows, C]` added before the ReLU.
    pub residual: Option<Tensor>,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// The valid rows, where the device decides how many there are.
    pub valid: Option<ValidRows>,
    /// The result, activations `[rows, C]`.
    pub y: Tensor,
    /// Where a ReLU and a residual give y, what the gradient's kernel is to know of it: u8, [`positive_len`], a
    /// byte for every 16 bytes of y, whose bit i says whether value i is positive. In main memory the gradient
    /// reads y itself.
    pub positive: Option<Tensor>,
}

/// Bytes that say which of `len` activations of a type are positive ([`BatchNorm::positive`]).
pub fn positive_len(element: Element, len: usize) -> usize {
    len * element.bytes() / 16
}

/// Batchnorm with the running statistics, without a gradient; y as in [`BatchNorm`].
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormInference {
    /// Rows of x: images times pixels.
    pub rows: usize,
    /// Channels C of a row.
    pub channels: usize,
    /// The input, activations `[rows, C]`.
    pub x: Tensor,
    /// The parameters `[g; b]`, f32 `[2C]`.
    pub affine: Tensor,
    /// Running mean and variance, f32 `[2C]`, only read.
    pub running: Tensor,
    /// Activations `[rows, C]` added before the ReLU.
    pub residual: Option<Tensor>,
    /// Whether a ReLU follows.
    pub relu: bool,
    /// The result, activations `[rows, C]`.
    pub y: Tensor,
}

/// Gradient of [`BatchNorm`]. With dy masked where the ReLU gave 0 and xhat = (x - mean) / std: d_affine =
/// `[sum dy xhat; sum dy]`, dx = g/std (dy - mean(dy) - xhat mean(dy xhat)).
///
/// With a `residual`, dy is masked *in place*, so that it is the residual's gradient as well; otherwise its
/// contents are undefined afterwards. With `valid`, dy must be 0 behind the valid rows, and dx is 0 there.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchNormGradient {
    /// Rows of x: images times pixels.
    pub rows: usize,
    /// Channels C of a row.
    pub channels: usize,
    /// The input of the forward pass, `[rows, C]`.
    pub x: Tensor,
    /// The result of the forward pass, `[rows, C]`: the ReLU's mask is y > 0.
    pub y: Tensor,
    /// That mask as the forward pass has left it, which kernels read instead of y where there was a residual
    /// ([`BatchNorm::positive`]).
    pub positive: Option<Tensor>,
    /// Whether the forward pass had a ReLU.
    pub relu: bool,
    /// Whether the forward pass had a residual.
    pub residual: bool,
    /// As in the forward pass.
    pub valid: Option<ValidRows>,
    /// The parameters `[g; b]`, f32 `[2C]`.
    pub affine: Tensor,
    /// `[mean; 1/sqrt(var + eps)]` of the forward pass, f32 `[2C]`.
    pub batch: Tensor,
    /// Gradient of y, `[rows, C]`; masked in place where there is a ReLU.
    pub dy: Tensor,
    /// Gradient of the parameters, f32 `[2C]`.
    pub d_affine: Tensor,
    /// Gradient of x, `[rows, C]`.
    pub dx: Tensor,
}

/// Sums of the gradient that a kernel has left in the workspace: f32 `[tiles, 2, C]`, sum dy (x - mean) and
/// sum dy of every tile of rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct PartialGradientSums {
    /// Where they lie.
    pub address: Address,
    /// How many tiles.
    pub tiles: usize,
}

impl PartialGradientSums {
    /// Room in the workspace for those of `tiles` tiles.
    pub fn new(lowering: &mut Lowering<'_>, tiles: usize, channels: usize) -> Self {
        Self { address: lowering.workspace(tiles * 2 * channels * 4), tiles }
    }

    /// The memory that they take.
    pub fn span(&self, channels: usize) -> Span {
        gpu::partials(self.address, self.tiles, channels)
    }
}

/// Partial statistics of x `[rows, channels]` that another kernel left in the workspace: f32 `[tiles, 2,
/// channels]`, for every tile of rows and every channel the sum and the sum of squared deviations from the
/// tile's mean.
pub struct PartialStatistics {
    /// Where they lie, f32 `[tiles, 2, channels]`.
    pub address: Address,
    /// Tiles that the rows are cut into.
    pub tiles: usize,
    /// Rows (pixels) per tile; the last tile may have fewer.
    pub rows_per_tile: usize,
}

/// The last pass of a batchnorm, once the batch's mean and deviation are there.
#[derive(Clone, Debug)]
pub(super) struct Normalisation {
    /// The batchnorm.
    pub of: BatchNorm,
    /// The one whose result is the residual, whose last pass is done with this one, and whose result is nowhere.
    pub residual: Option<BatchNorm>,
}

impl Normalisation {
    /// Whether a value becomes what a factor and a summand for its channel make of it.
    fn is_affine(&self) -> bool {
        !self.of.relu && self.of.residual.is_none()
    }
}

/// What follows a batchnorm in the same pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Epilogue {
    /// Added to the normalised value.
    pub residual: Option<Tensor>,
    /// ReLU, after the residual.
    pub relu: bool,
}

/// Records training batchnorm over `rows` x `channels` and returns y; `affine` is a parameter. `valid`
/// restricts it to rows whose number the device decides.
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
    let bytes = positive_len(tape.activations(), rows * channels);
    let is_masked = relu && residual.is_some() && tape.is_for_kernels();
    let positive = is_masked.then(|| tape.temporary(Element::U8, bytes));
    let batchnorm =
        BatchNorm { rows, channels, x, affine, running, batch, residual, relu, valid, y, positive };
    let share = tape.share();
    if share.is_divided() && share.joint_batchnorm {
        tape.record(JointBatchNorm(batchnorm));
    } else {
        tape.record(batchnorm);
    }
    y
}

/// Records batchnorm with running statistics, which has no gradient; returns y.
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

/// The number of valid rows.
fn valid_rows(cpu: &Call<'_>, rows: usize, valid: Option<ValidRows>) -> Result<usize> {
    let Some(ValidRows { count, rows_each }) = valid else { return Ok(rows) };
    Ok((cpu.i32(count)?[0] as usize * rows_each).min(rows))
}

/// The arithmetic of a pass: `each` operations per value, and one each for a residual and a ReLU.
fn flops(each: usize, [rows, channels]: [usize; 2], residual: Option<Tensor>, relu: bool) -> f64 {
    (rows * channels * (each + usize::from(residual.is_some()) + usize::from(relu))) as f64
}

impl BatchNorm {
    /// Lowers it, with statistics of `whose` rows, after another operation that has summed those of the own ones;
    /// without these it sums them itself.
    pub(super) fn lower_with_statistics(
        &self,
        gpu: &mut Lowering<'_>,
        statistics: Option<PartialStatistics>,
        whose: StatisticsOf,
    ) -> Result<()> {
        gpu::forward(gpu, self, statistics, whose)
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
        list.extend(self.positive.map(Operand::write));
        list
    }

    fn flops(&self) -> f64 {
        flops(5, [self.rows, self.channels], self.residual, self.relu)
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { channels, relu, .. } = *self;
        let rows = valid_rows(cpu, self.rows, self.valid)?;
        let (x, (mut y, rounding)) = (cpu.f32(self.x)?, cpu.rounded_mut(self.y)?);
        let mut statistics = cpu.f32_mut(self.batch)?;
        y[rows * channels..].fill(0.0);
        let mut positive = self.positive.map(|bits| cpu.u8_mut(bits)).transpose()?;
        if let Some(bits) = &mut positive {
            bits.fill(0);
        }
        if rows == 0 {
            statistics.fill(0.0);
            return Ok(());
        }
        let (x, y) = (&x[..rows * channels], &mut y[..rows * channels]);
        let mut running = cpu.f32_mut(self.running)?;
        cpu::statistics([rows, channels], x, &mut running, &mut statistics, cpu.scratch());
        let (affine, residual) = (cpu.f32(self.affine)?, cpu.optional(self.residual)?);
        let residual = residual.as_deref().map(|residual| &residual[..rows * channels]);
        cpu::apply(channels, x, [&affine, &statistics], residual, relu, (y, rounding));
        if let Some(bits) = &mut positive {
            cpu::positive_bits(16 / cpu.element(self.y).bytes(), y, bits);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::forward(gpu, self, None, StatisticsOf::Own)
    }

    /// The convolution that reads y may normalise x itself.
    fn overlaps(&self, next: &dyn Operation) -> bool {
        next.downcast::<Convolution>().is_some_and(|next| next.x == self.y)
    }
}

impl Differentiable for BatchNorm {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        self.record_gradient(gradients, |gradients, gradient| gradients.push(gradient));
    }

    /// A convolution's data gradient makes the sums of the batchnorm gradient behind it.
    fn follows_at_once(&self) -> bool {
        true
    }
}

impl BatchNorm {
    /// Hands its gradient to `push`.
    fn record_gradient(
        &self,
        gradients: &mut Gradients<'_>,
        push: impl FnOnce(&mut Gradients<'_>, BatchNormGradient),
    ) {
        let Self { rows, channels, x, affine, batch, residual, relu, valid, y, positive, .. } = *self;
        let Some(dy) = gradients.of(y) else { return };
        let d_affine = gradients.write_parameter(affine);
        let dx = gradients.write(x);
        let gradient = BatchNormGradient {
            rows,
            channels,
            x,
            y,
            positive,
            relu,
            residual: residual.is_some(),
            valid,
            affine,
            batch,
            dy,
            d_affine,
            dx,
        };
        push(gradients, gradient);
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
        let (mut y, rounding) = cpu.rounded_mut(self.y)?;
        let given = [&affine[..], &statistics];
        cpu::apply(channels, &x, given, residual.as_deref(), relu, (&mut y, rounding));
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::inference(gpu, self)
    }
}

impl BatchNormGradient {
    /// Lowers it with the sums that another operation has made while it wrote dy, masked where
    /// [`BatchNormGradient::mask`] asks for that; without them it makes them itself.
    pub(super) fn lower_with_sums(
        &self,
        gpu: &mut Lowering<'_>,
        sums: Option<PartialGradientSums>,
        whose: StatisticsOf,
    ) -> Result<()> {
        gpu::gradient(gpu, self, sums, whose)
    }

    /// Where the kernels find the ReLU's mask. With a residual it is the forward pass's bits and is left in dy;
    /// without, it is recomputed from x whenever it is needed.
    pub(super) fn mask(&self) -> usize {
        match (self.relu, self.residual) {
            (false, _) => MASK_NONE,
            (true, false) => MASK_FROM_X,
            (true, true) => MASK_FROM_BITS,
        }
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
        list.extend(self.positive.map(Operand::read));
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
        let (mut d_affine, (mut dx, rounding)) = (cpu.f32_mut(self.d_affine)?, cpu.rounded_mut(self.dx)?);
        dx[rows * channels..].fill(0.0);
        if rows == 0 {
            d_affine.fill(0.0);
            return Ok(());
        }
        let valid = ..rows * channels;
        let (x, affine) = (&x[valid], cpu.f32(self.affine)?);
        let given = [&affine[..], &batch];
        let y = if self.mask() == MASK_FROM_BITS { Some(cpu.f32(self.y)?) } else { None };
        let mask = match (self.relu, &y) {
            (false, _) => cpu::Mask::None,
            (true, None) => cpu::Mask::FromX,
            (true, Some(y)) => cpu::Mask::FromY(&y[valid]),
        };
        // What the mask leaves of dy needs no rounding.
        let (mut dy, _) = cpu.rounded_mut(self.dy)?;
        let dy = &mut dy[valid];
        if all_zero(dy) {
            // Nothing depends on this pass, as where a method chose no sample.
            d_affine.fill(0.0);
            dx.fill(0.0);
            return Ok(());
        }
        cpu::sum(channels, x, given, &mask, dy, &mut d_affine, cpu.scratch());
        let dx = (&mut dx[valid], rounding);
        cpu::input_gradient([rows, channels], x, given, &mask, dy, &d_affine, dx);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::gradient(gpu, self, None, StatisticsOf::Own)
    }

    /// The data gradient of the convolution that gave x may compute dx itself.
    fn overlaps(&self, next: &dyn Operation) -> bool {
        next.downcast::<ConvolutionDataGradient>().is_some_and(|next| next.dy == self.dx)
    }
}
