//! Global average pooling over the positions of NHWC images.

mod cpu;
mod gpu;

use anyhow::Result;

use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Operand, Operation, Tensor};

/// y `[N,C]` f32 = mean over the positions of x `[N,P,C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePool {
    /// N, P and C.
    pub shape: [usize; 3],
    /// The input, activations `[N,P,C]`.
    pub x: Tensor,
    /// The result, f32 `[N,C]`.
    pub y: Tensor,
}

/// dx `[N,P,C]` = dy `[N,C]` / P.
#[derive(Clone, Debug, PartialEq)]
pub struct AveragePoolGradient {
    /// N, P and C.
    pub shape: [usize; 3],
    /// Gradient of y, f32 `[N,C]`.
    pub dy: Tensor,
    /// Gradient of x, activations `[N,P,C]`.
    pub dx: Tensor,
}

/// Records the mean over the positions of x `[N,P,C]`; returns `[N,C]`.
pub fn average_pool(tape: &mut Tape, shape: [usize; 3], x: Tensor) -> Tensor {
    let [images, _, channels] = shape;
    let y = tape.result(Element::F32, images * channels);
    tape.record(AveragePool { shape, x, y });
    y
}

impl Operation for AveragePool {
    fn name(&self) -> &'static str {
        "average pool"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::write(self.y)]
    }

    fn flops(&self) -> f64 {
        self.shape.iter().product::<usize>() as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let [_, positions, channels] = self.shape;
        cpu::forward(positions, channels, &cpu.f32(self.x)?, &mut cpu.f32_mut(self.y)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower(self, gpu)
    }
}

impl Differentiable for AveragePool {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Some(dy) = gradients.of(self.y) else { return };
        let dx = gradients.write(self.x);
        gradients.push(AveragePoolGradient { shape: self.shape, dy, dx });
    }
}

impl Operation for AveragePoolGradient {
    fn name(&self) -> &'static str {
        "average pool gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.dy), Operand::write(self.dx)]
    }

    fn flops(&self) -> f64 {
        let [images, _, channels] = self.shape;
        (images * channels) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let [_, positions, channels] = self.shape;
        cpu::gradient(positions, channels, &cpu.f32(self.dy)?, &mut cpu.f32_mut(self.dx)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower_gradient(self, gpu)
    }
}
