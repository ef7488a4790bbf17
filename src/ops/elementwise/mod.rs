//! Elementwise operations on flat arrays.

mod gpu;

use anyhow::Result;
use rayon::prelude::*;

use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Operand, Operation, Tensor};
pub(crate) use gpu::check_parameters;

/// `to` `[len]` = `from` `[len]`: f32 rounded to the type of `to`, or a copy between equal types.
#[derive(Clone, Debug, PartialEq)]
pub struct Convert {
    /// Elements of both tensors.
    pub len: usize,
    /// The source.
    pub from: Tensor,
    /// The destination; its element type decides the conversion.
    pub to: Tensor,
}

impl Operation for Convert {
    fn name(&self) -> &'static str {
        "convert"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.from), Operand::write(self.to)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (mut to, rounding) = cpu.rounded_mut(self.to)?;
        rounding.copy(&cpu.f32(self.from)?, &mut to);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::convert(gpu, self)
    }
}

/// out `[len]` = a + b, all f32 or all activations; each sum is rounded once.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum {
    /// Elements of each tensor.
    pub len: usize,
    /// a and b.
    pub terms: [Tensor; 2],
    /// The result, of the type of both terms.
    pub out: Tensor,
}

/// Records the sum of two tensors of one type and length.
pub fn sum(tape: &mut Tape, terms: [Tensor; 2]) -> Tensor {
    let (len, element) = (tape.len_of(terms[0]), tape.element_of(terms[0]));
    let out = tape.result(element, len);
    tape.record(Sum { len, terms, out });
    out
}

impl Operation for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn operands(&self) -> Vec<Operand> {
        let [a, b] = self.terms;
        vec![Operand::read(a), Operand::read(b), Operand::write(self.out)]
    }

    fn flops(&self) -> f64 {
        self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let [a, b] = self.terms;
        const CHUNK: usize = 1 << 14;
        let (a, b, (mut out, rounding)) = (cpu.f32(a)?, cpu.f32(b)?, cpu.rounded_mut(self.out)?);
        let terms = a.par_chunks(CHUNK).zip(b.par_chunks(CHUNK));
        out.par_chunks_mut(CHUNK).zip(terms).for_each(|(out, (a, b))| {
            out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = a + b);
            rounding.apply(out);
        });
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::sum(gpu, self)
    }
}

impl Differentiable for Sum {
    /// Both terms have the gradient of the sum. One takes over its memory; the other gets a copy, because
    /// further gradients may be added to either.
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Some(dy) = gradients.of(self.out) else { return };
        let [a, b] = self.terms;
        if gradients.wants(b) {
            let db = gradients.write(b);
            gradients.push(Convert { len: self.len, from: dy, to: db });
        }
        if gradients.wants(a) {
            gradients.hand_over(a, dy);
        }
    }
}

/// y `[len]` = max(x, 0), f32; a NaN stays NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct Relu {
    /// Elements of both tensors.
    pub len: usize,
    /// The input.
    pub x: Tensor,
    /// The result.
    pub y: Tensor,
}

/// dx `[len]` = dy where y > 0, else 0; f32.
#[derive(Clone, Debug, PartialEq)]
pub struct ReluGradient {
    /// Elements of each tensor.
    pub len: usize,
    /// The result of the forward pass, whose sign is the mask.
    pub y: Tensor,
    /// Gradient of y.
    pub dy: Tensor,
    /// Gradient of the input.
    pub dx: Tensor,
}

/// Records max(x, 0) of an f32 tensor.
pub fn relu(tape: &mut Tape, x: Tensor) -> Tensor {
    let len = tape.len_of(x);
    let y = tape.result(Element::F32, len);
    tape.record(Relu { len, x, y });
    y
}

impl Operation for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::write(self.y)]
    }

    fn flops(&self) -> f64 {
        self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, mut y) = (cpu.f32(self.x)?, cpu.f32_mut(self.y)?);
        // Not `max`, which would lose a NaN.
        y.iter_mut().zip(x.iter()).for_each(|(y, &x)| *y = if x < 0.0 { 0.0 } else { x });
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::relu(gpu, self);
        Ok(())
    }
}

impl Differentiable for Relu {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Self { len, x, y } = *self;
        let Some(dy) = gradients.of(y).filter(|_| gradients.wants(x)) else { return };
        let dx = gradients.write(x);
        gradients.push(ReluGradient { len, y, dy, dx });
    }
}

impl Operation for ReluGradient {
    fn name(&self) -> &'static str {
        "relu gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.y), Operand::read(self.dy), Operand::write(self.dx)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (y, dy, mut dx) = (cpu.f32(self.y)?, cpu.f32(self.dy)?, cpu.f32_mut(self.dx)?);
        let values = y.iter().zip(dy.iter()).map(|(&y, &dy)| if y > 0.0 { dy } else { 0.0 });
        dx.iter_mut().zip(values).for_each(|(dx, value)| *dx = value);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::relu_gradient(gpu, self);
        Ok(())
    }
}
