//! Square convolutions over NHWC images, without bias.

mod cpu;
mod gpu;
mod shape;

use anyhow::Result;

use super::batchnorm::{
    BatchNorm, BatchNormGradient, BatchNormInference, JointBatchNorm, JointBatchNormGradient, StatisticsOf,
};
use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::rounding::Rounding;
use crate::device::cpu::{Call, instructions};
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
use crate::ops::rows::all_zero;
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

/// How many of the `images` are not in a tail of zeros. A batch whose size a method decides on the device is
/// padded with images of zeros, and a view that does not count has a gradient of zeros; both take no work on the
/// CPU. Elsewhere this looks at a few values.
fn images_before_zeros(values: &[f32], images: usize) -> usize {
    images - values.rchunks(values.len() / images).take_while(|image| all_zero(image)).count()
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
        let (x, w) = (cpu.f32(self.x)?, cpu.f32(self.w)?);
        let (mut y, rounding) = cpu.rounded_mut(self.y)?;
        let shape = self.shape.first(images_before_zeros(&x, self.shape.batch));
        let (y, zeros) = y.split_at_mut(shape.output_len());
        zeros.fill(0.0);
        if shape.batch > 0 {
            let x = &x[..shape.input_len()];
            let products = cpu::Products { simd: instructions::chosen()?, rounding };
            cpu::forward(products, &shape, x, &w, y, cpu.scratch());
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::forward(gpu, &self.shape, [self.x, self.w, self.y], false).map(|_| ())
    }

    /// Fuses with the batchnorm of its result. In training the convolution's epilogue leaves the partial
    /// statistics; in an evaluation it normalises, and the convolution's own result is never written.
    fn lower_with(&self, next: &dyn Operation, gpu: &mut Lowering<'_>) -> Result<bool> {
        let operands = [self.x, self.w, self.y];
        let (normalised, whose) = match next.downcast::<JointBatchNorm>() {
            Some(joint) => (Some(&joint.0), StatisticsOf::Joint),
            None => (next.downcast::<BatchNorm>(), StatisticsOf::Own),
        };
        if let Some(batchnorm) = normalised.filter(|batchnorm| self.is_normalised_by(batchnorm)) {
            let statistics = gpu::forward(gpu, &self.shape, operands, true)?;
            gpu.begin(next);
            batchnorm.lower_with_statistics(gpu, statistics, whose)?;
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
        // The data gradient's kernel can do the last pass of the batchnorm gradient before it, and the first of the
        // one behind.
        if gradients.wants(x) {
            let (dx, accumulate) = gradients.accumulate(x);
            gradients.push(ConvolutionDataGradient { shape, dy, w, dx, accumulate });
        }
        gradients.push_later(ConvolutionWeightGradient { shape, x, dy, dw });
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
        let (dy, w) = (cpu.f32(self.dy)?, cpu.f32(self.w)?);
        let (mut dx, rounding) = cpu.rounded_mut(self.dx)?;
        let shape = self.shape.first(images_before_zeros(&dy, self.shape.batch));
        let (dx, zeros) = dx.split_at_mut(shape.input_len());
        if !self.accumulate {
            zeros.fill(0.0);
        }
        if shape.batch > 0 {
            let dy = &dy[..shape.output_len()];
            let dx = (dx, self.accumulate);
            let products = cpu::Products { simd: instructions::chosen()?, rounding };
            cpu::backward_data(products, &shape, dy, &w, dx, cpu.scratch());
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::data_gradient(gpu, &self.shape, [self.dy, self.w, self.dx], self.accumulate, None).map(|_| ())
    }

    /// With the gradient of the batchnorm whose result the convolution had as input: the data gradient's
    /// epilogue leaves the partial sums.
    fn lower_with(&self, next: &dyn Operation, gpu: &mut Lowering<'_>) -> Result<bool> {
        let (gradient, whose) = match next.downcast::<JointBatchNormGradient>() {
            Some(joint) => (Some(&joint.0), StatisticsOf::Joint),
            None => (next.downcast::<BatchNormGradient>(), StatisticsOf::Own),
        };
        let Some(gradient) = gradient.filter(|gradient| self.is_gradient_for(gradient)) else {
            return Ok(false);
        };
        let operands = [self.dy, self.w, self.dx];
        let sums = gpu::data_gradient(gpu, &self.shape, operands, self.accumulate, Some(gradient))?;
        gradient.lower_with_sums(gpu, sums, whose)?;
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
        if images_before_zeros(&dy, self.shape.batch) == 0 {
            dw.fill(0.0);
        } else {
            // Of the whole batch: its sums are cut by shape, and fewer images would be cut otherwise.
            let rounding = Rounding::of(cpu.element(self.x));
            let products = cpu::Products { simd: instructions::chosen()?, rounding };
            cpu::backward_weight(products, &self.shape, &x, &dy, &mut dw, cpu.scratch());
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::weight_gradient(gpu, &self.shape, [self.x, self.dy, self.dw])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::device::{Device, Element};
    use crate::ops::batchnorm::ValidRows;

    /// Leaving out images of zeros changes no bit of the others, in all three directions; an image of zeros
    /// between others counts as any other.
    #[test]
    fn a_tail_of_zeros_takes_no_part() {
        for (in_channels, out_channels, side, kernel, stride) in
            [(3, 8, 12, 3, 1), (8, 16, 8, 3, 2), (16, 16, 4, 3, 1), (8, 24, 7, 1, 2), (64, 64, 8, 3, 1)]
        {
            let [height, width] = [side; 2];
            let whole =
                ConvolutionShape { batch: 9, height, width, in_channels, out_channels, kernel, stride };
            let noise = |len: usize, salt: u32| -> Vec<f32> {
                let bits = |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(salt) >> 8;
                (0..len).map(|i| bits(i) as f32 / (1 << 23) as f32 - 1.0).collect()
            };
            let w = noise(whole.weight_len(), 3);
            let run = |images: usize, shape: ConvolutionShape| {
                let mut device = CpuDevice::new(2).unwrap();
                let padded = |mut values: Vec<f32>, each: usize| {
                    values[images * each..].fill(0.0);
                    values[each..2 * each].fill(0.0);
                    values
                };
                let x = padded(noise(shape.input_len(), 1), shape.input_len() / shape.batch);
                let dy = padded(noise(shape.output_len(), 2), shape.output_len() / shape.batch);
                let given = [&x[..], &w, &dy];
                let results = [shape.output_len(), shape.input_len(), shape.weight_len()];
                let mut buffers = Vec::new();
                for values in given {
                    buffers.push(device.allocate(Element::F32, values.len(), "an operand").unwrap());
                    device.write_f32(*buffers.last().unwrap(), values).unwrap();
                }
                for len in results {
                    buffers.push(device.allocate(Element::F32, len, "a result").unwrap());
                    device.write_f32(*buffers.last().unwrap(), &vec![7.0; len]).unwrap();
                }
                let [x, w, dy, y, dx, dw] = std::array::from_fn(Tensor);
                device.execute(&Convolution { shape, x, w, y }, &buffers).unwrap();
                let gradient = ConvolutionDataGradient { shape, dy, w, dx, accumulate: false };
                device.execute(&gradient, &buffers).unwrap();
                device.execute(&ConvolutionWeightGradient { shape, x, dy, dw }, &buffers).unwrap();
                [3, 4, 5].map(|result| device.read_f32(buffers[result]).unwrap())
            };
            let [y, dx, dw] = run(4, whole);
            let [all_y, all_dx, _] = run(9, whole);
            let [of_y, of_dx] = [y.len() / 9 * 4, dx.len() / 9 * 4];
            assert_eq!((&y[..of_y], &dx[..of_dx]), (&all_y[..of_y], &all_dx[..of_dx]), "{whole:?}");
            assert!(y[of_y..].iter().chain(&dx[of_dx..]).all(|&value| value == 0.0));
            // The last image of the whole batch is all that keeps its zeros from being a tail.
            let close = |a: f32, b: f32| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
            let [_, _, alone] = run(4, whole.first(4));
            assert!(dw.iter().zip(&alone).all(|(&a, &b)| close(a, b)), "{whole:?}");
            assert!(run(0, whole).iter().flatten().all(|&value| value == 0.0), "{whole:?}");
        }
    }

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
            positive: None,
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
