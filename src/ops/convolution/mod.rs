//! Square convolutions over NHWC images, without bias.

mod cpu;
mod gpu;
mod shape;

use anyhow::Result;

use super::batchnorm::{BatchNorm, BatchNormGradient, BatchNormInference};
use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::{Call, instructions};
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
pub use shape::ConvolutionShape;

/// y `[N,OH,OW,Cout]` = convolution of x `[N,H,W,Cin]` with w `[Cout,kh,kw,Cin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    /// Extents of x, w and y.
    pub shape: ConvolutionShape,
    /// The input, `[N,H,W,Cin]`.
    pub x: Tensor,
    /// The weights, `[Cout,kh,kw,Cin]`.
    pub w: Tensor,
    /// The result, `[N,OH,OW,Cout]`.
    pub y: Tensor,
}

/// dx = (or +=, if `accumulate`) the gradient of [`Convolution`] with respect to its input.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionDataGradient {
    /// Extents of the forward pass.
    pub shape: ConvolutionShape,
    /// Gradient of y, `[N,OH,OW,Cout]`.
    pub dy: Tensor,
    /// The weights, `[Cout,kh,kw,Cin]`.
    pub w: Tensor,
    /// Gradient of x, `[N,H,W,Cin]`.
    pub dx: Tensor,
    /// Whether the gradient is added to what `dx` holds.
    pub accumulate: bool,
}

/// dw = the gradient of [`Convolution`] with respect to its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionWeightGradient {
    /// Extents of the forward pass.
    pub shape: ConvolutionShape,
    /// The input of the forward pass, `[N,H,W,Cin]`.
    pub x: Tensor,
    /// Gradient of y, `[N,OH,OW,Cout]`.
    pub dy: Tensor,
    /// Gradient of w, f32 `[Cout,kh,kw,Cin]`.
    pub dw: Tensor,
}

/// Records the convolution of x `[N,H,W,Cin]` with a parameter `[Cout,kh,kw,Cin]`; returns y
/// `[N,OH,OW,Cout]`.
pub fn convolution(tape: &mut Tape, shape: ConvolutionShape, x: Tensor, w: Tensor) -> Tensor {
    let y = tape.result(tape.activations(), shape.output_len());
    tape.record(Convolution { shape, x, w, y });
    y
}

impl Convolution {
    /// Whether the batchnorm normalises this convolution's result, so that the convolution's kernel can sum
    /// its statistics. These are over all rows, because a convolution does not know how many are valid.
    fn is_normalised_by(&self, next: &BatchNorm) -> bool {
        let Self { shape, y, .. } = self;
        next.valid.is_none()
            && next.x == *y
            && next.channels == shape.out_channels
            && next.rows * next.channels == shape.output_len()
    }
}

impl Convolution {
    /// Whether the batchnorm with running statistics normalises what this gives, and all of it.
    fn is_only_for(&self, next: &BatchNormInference) -> bool {
        let Self { shape, y, .. } = self;
        next.x == *y
            && next.residual != Some(*y)
            && next.channels == shape.out_channels
            && next.rows * next.channels == shape.output_len()
    }
}

impl Operation for Convolution {
    fn name(&self) -> &'static str {
        "convolution"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::read(self.w), Operand::write(self.y)]
    }

    fn flops(&self) -> f64 {
        self.shape.flops()
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, w, mut y) = (cpu.f32(self.x)?, cpu.f32(self.w)?, cpu.f32_mut(self.y)?);
        cpu::forward(instructions::chosen()?, &self.shape, &x, &w, &mut y, cpu.scratch());
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::forward(gpu, &self.shape, [self.x, self.w, self.y], false).map(|_| ())
    }

    /// Fuses with the batchnorm of its result. In training the convolution's epilogue leaves the partial
    /// statistics; in an evaluation it normalises, and the convolution's own result is never written.
    fn lower_with(&self, next: &dyn Operation, gpu: &mut Lowering<'_>) -> Result<bool> {
        let operands = [self.x, self.w, self.y];
        if let Some(next) = next.downcast::<BatchNorm>().filter(|next| self.is_normalised_by(next)) {
            let statistics = gpu::forward(gpu, &self.shape, operands, true)?;
            gpu.begin(next);
            next.lower_with_statistics(gpu, statistics)?;
            return Ok(true);
        }
        match next.downcast::<BatchNormInference>() {
            Some(next) if self.is_only_for(next) && gpu.is_only_between(self.y) => {
                gpu::forward_and_normalise(gpu, &self.shape, operands, next)
            }
            _ => Ok(false),
        }
    }

    fn overlaps(&self, next: &dyn Operation) -> bool {
        next.downcast::<BatchNormInference>().is_some_and(|next| self.is_only_for(next))
    }
}

impl Differentiable for Convolution {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Self { shape, x, w, y } = *self;
        let Some(dy) = gradients.of(y) else { return };
        let dw = gradients.write_parameter(w);
        gradients.push(ConvolutionWeightGradient { shape, x, dy, dw });
        if gradients.wants(x) {
            let (dx, accumulate) = gradients.accumulate(x);
            gradients.push(ConvolutionDataGradient { shape, dy, w, dx, accumulate });
        }
    }
}

impl ConvolutionDataGradient {
    /// Whether this writes the dy of a batchnorm, so that the sums of that gradient can be made on the way:
    /// those of all rows, as a convolution does not know how many are valid.
    fn is_gradient_for(&self, next: &BatchNormGradient) -> bool {
        let Self { shape, dx, .. } = self;
        next.valid.is_none()
            && next.dy == *dx
            && next.channels == shape.in_channels
            && next.rows * next.channels == shape.input_len()
    }
}

impl Operation for ConvolutionDataGradient {
    fn name(&self) -> &'static str {
        "convolution data gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        let dx = if self.accumulate { Operand::update(self.dx) } else { Operand::write(self.dx) };
        vec![Operand::read(self.dy), Operand::read(self.w), dx]
    }

    fn flops(&self) -> f64 {
        self.shape.flops()
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (dy, w, mut dx) = (cpu.f32(self.dy)?, cpu.f32(self.w)?, cpu.f32_mut(self.dx)?);
        let dx = (&mut *dx, self.accumulate);
        cpu::backward_data(instructions::chosen()?, &self.shape, &dy, &w, dx, cpu.scratch());
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::data_gradient(gpu, &self.shape, [self.dy, self.w, self.dx], self.accumulate, None).map(|_| ())
    }

    /// With the gradient of the batchnorm whose result the convolution had as input: the data gradient's
    /// epilogue leaves the partial sums.
    fn lower_with(&self, next: &dyn Operation, gpu: &mut Lowering<'_>) -> Result<bool> {
        let Some(next) = next.downcast::<BatchNormGradient>().filter(|next| self.is_gradient_for(next))
        else {
            return Ok(false);
        };
        let operands = [self.dy, self.w, self.dx];
        let sums = gpu::data_gradient(gpu, &self.shape, operands, self.accumulate, Some(next))?;
        next.lower_with_sums(gpu, sums)?;
        Ok(true)
    }
}

impl Operation for ConvolutionWeightGradient {
    fn name(&self) -> &'static str {
        "convolution weight gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::read(self.dy), Operand::write(self.dw)]
    }

    fn flops(&self) -> f64 {
        self.shape.flops()
    }

    /// The optimiser needs dw, and nothing before it does: the rest of the backward pass goes on meanwhile.
    fn runs_aside(&self) -> bool {
        true
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, dy, mut dw) = (cpu.f32(self.x)?, cpu.f32(self.dy)?, cpu.f32_mut(self.dw)?);
        cpu::backward_weight(instructions::chosen()?, &self.shape, &x, &dy, &mut dw, cpu.scratch());
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::weight_gradient(gpu, &self.shape, [self.x, self.dy, self.dw])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::batchnorm::ValidRows;

    #[test]
    fn the_statistics_of_what_a_convolution_writes_are_summed_with_it() {
        let shape = ConvolutionShape {
            batch: 2,
            height: 5,
            width: 4,
            in_channels: 8,
            out_channels: 16,
            kernel: 3,
            stride: 2,
        };
        let convolution = Convolution { shape, x: Tensor(0), w: Tensor(1), y: Tensor(2) };
        let batchnorm = |rows, channels, x| BatchNorm {
            rows,
            channels,
            x,
            affine: Tensor(3),
            running: Tensor(4),
            batch: Tensor(5),
            residual: None,
            relu: true,
            valid: None,
            y: Tensor(6),
        };
        assert!(convolution.is_normalised_by(&batchnorm(2 * 3 * 2, 16, Tensor(2))));
        assert!(!convolution.is_normalised_by(&batchnorm(2 * 3 * 2, 16, Tensor(0))));
        assert!(!convolution.is_normalised_by(&batchnorm(2 * 3 * 2 * 2, 8, Tensor(2))));
        assert!(!convolution.is_normalised_by(&batchnorm(2 * 3, 16, Tensor(2))));
        // A convolution sums over all rows.
        let valid = Some(ValidRows { count: Tensor(7), rows_each: 6 });
        assert!(!convolution.is_normalised_by(&BatchNorm { valid, ..batchnorm(2 * 3 * 2, 16, Tensor(2)) }));
    }
}
