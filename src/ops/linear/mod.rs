//! The fully connected layer.

mod cpu;
mod gpu;

use anyhow::Result;

use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Operand, Operation, Tensor};
pub(crate) use cpu::dot;

/// y `[R,K]` = x `[R,D]` W^T + b; `parameters` = `[W (K x D); b (K)]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// Rows R of x.
    pub rows: usize,
    /// Inputs D.
    pub inputs: usize,
    /// Outputs K.
    pub outputs: usize,
    /// The input, f32 `[R,D]`.
    pub x: Tensor,
    /// W and b, f32 `[K D + K]`.
    pub parameters: Tensor,
    /// The result, f32 `[R,K]`.
    pub y: Tensor,
}

/// Gradient of [`Linear`]: d_parameters = `[dy^T x; column sums of dy]`, dx = dy W.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearGradient {
    /// Rows R of x.
    pub rows: usize,
    /// Inputs D.
    pub inputs: usize,
    /// Outputs K.
    pub outputs: usize,
    /// The input of the forward pass, f32 `[R,D]`.
    pub x: Tensor,
    /// W and b, f32 `[K D + K]`.
    pub parameters: Tensor,
    /// Gradient of y, f32 `[R,K]`.
    pub dy: Tensor,
    /// Gradient of W and b, f32 `[K D + K]`.
    pub d_parameters: Tensor,
    /// Gradient of x, f32 `[R,D]`.
    pub dx: Tensor,
}

/// Records the layer on x `[rows, inputs]` with a parameter `[W (outputs x inputs); b]`; returns
/// `[rows, outputs]`, in f32.
pub fn linear(tape: &mut Tape, [rows, inputs, outputs]: [usize; 3], x: Tensor, parameters: Tensor) -> Tensor {
    let y = tape.result(Element::F32, rows * outputs);
    tape.record(Linear { rows, inputs, outputs, x, parameters, y });
    y
}

impl Operation for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::read(self.parameters), Operand::write(self.y)]
    }

    fn flops(&self) -> f64 {
        2.0 * (self.rows * self.inputs * self.outputs) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, parameters) = (cpu.f32(self.x)?, cpu.f32(self.parameters)?);
        cpu::forward([self.inputs, self.outputs], &x, &parameters, &mut cpu.f32_mut(self.y)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::forward(gpu, self)
    }
}

impl Differentiable for Linear {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Self { rows, inputs, outputs, x, parameters, y } = *self;
        let Some(dy) = gradients.of(y) else { return };
        let d_parameters = gradients.write_parameter(parameters);
        let dx = gradients.write(x);
        gradients.push(LinearGradient { rows, inputs, outputs, x, parameters, dy, d_parameters, dx });
    }
}

impl Operation for LinearGradient {
    fn name(&self) -> &'static str {
        "linear gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::read(self.x),
            Operand::read(self.parameters),
            Operand::read(self.dy),
            Operand::write(self.d_parameters),
            Operand::write(self.dx),
        ]
    }

    fn flops(&self) -> f64 {
        4.0 * (self.rows * self.inputs * self.outputs) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let shape = [self.inputs, self.outputs];
        let (dy, parameters) = (cpu.f32(self.dy)?, cpu.f32(self.parameters)?);
        cpu::input_gradient(shape, &dy, &parameters, &mut cpu.f32_mut(self.dx)?);
        cpu::parameter_gradient(shape, &cpu.f32(self.x)?, &dy, &mut cpu.f32_mut(self.d_parameters)?);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::gradient(gpu, self)
    }
}
