//! Square convolutions over NHWC images, without bias.

mod cpu;
mod gpu;
mod shape;

use anyhow::Result;

use super::batchnorm::BatchNorm;
use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
pub use shape::ConvolutionShape;

/// y `[N,OH,OW,Cout]` = convolution of x `[N,H,W,Cin]` with w `[Cout,kh,kw,Cin]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Convolution {
    pub shape: ConvolutionShape,
    pub x: Tensor,
    pub w: Tensor,
    pub y: Tensor,
}

/// dx = (or +=, if `accumulate`) the gradient of [`Convolution`] with respect to its input.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionDataGradient {
    pub shape: ConvolutionShape,
    pub dy: Tensor,
    pub w: Tensor,
    pub dx: Tensor,
    pub accumulate: bool,
}

/// dw = the gradient of [`Convolution`] with respect to its weights.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvolutionWeightGradient {
    pub shape: ConvolutionShape,
    pub x: Tensor,
    pub dy: Tensor,
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
    /// Whether the batchnorm normalises what this gives, so that its statistics can be summed where they are
    /// made: those of all rows, as a convolution does not know how many are valid.
    fn is_normalised_by(&self, next: &BatchNorm) -> bool {
        let Self { shape, y, .. } = self;
        next.valid.is_none()
            && next.x == *y
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
        cpu::forward(&self.shape, &x, &w, &mut y, cpu.scratch());
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::forward(gpu, &self.shape, [self.x, self.w, self.y], false).map(|_| ())
    }

    /// With its batchnorm: the convolution's epilogue leaves the partial statistics.
    fn lower_with(&self, next: &dyn Operation, gpu: &mut Lowering<'_>) -> Result<bool> {
        let Some(next) = next.downcast::<BatchNorm>().filter(|next| self.is_normalised_by(next)) else {
            return Ok(false);
        };
        let statistics = gpu::forward(gpu, &self.shape, [self.x, self.w, self.y], true)?;
        gpu.begin(next);
        next.lower_with_statistics(gpu, statistics)?;
        Ok(true)
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
        cpu::backward_data(&self.shape, &dy, &w, &mut dx, self.accumulate, cpu.scratch());
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::data_gradient(gpu, &self.shape, [self.dy, self.w, self.dx], self.accumulate)
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

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, dy, mut dw) = (cpu.f32(self.x)?, cpu.f32(self.dy)?, cpu.f32_mut(self.dw)?);
        cpu::backward_weight(&self.shape, &x, &dy, &mut dw, cpu.scratch());
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
        // A convolution's sums are of all rows.
        let valid = Some(ValidRows { count: Tensor(7), rows_each: 6 });
        assert!(!convolution.is_normalised_by(&BatchNorm { valid, ..batchnorm(2 * 3 * 2, 16, Tensor(2)) }));
    }
}
