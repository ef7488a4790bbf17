//! SGD with momentum and weight decay, as PyTorch's.

mod cpu;
mod gpu;

use anyhow::Result;

use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
use crate::ops::control;

/// g += wd p; v = mu v + g; p -= lr v, lr from `control`. `copy` = the new p, rounded to its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    pub len: usize,
    pub momentum: f32,
    pub weight_decay: f32,
    pub control: Tensor,
    pub gradients: Tensor,
    pub velocity: Tensor,
    pub parameters: Tensor,
    pub copy: Option<Tensor>,
}

impl Operation for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list = vec![Operand::read(self.control), Operand::read(self.gradients)];
        list.extend([Operand::update(self.velocity), Operand::update(self.parameters)]);
        list.extend(self.copy.map(Operand::write));
        list
    }

    fn flops(&self) -> f64 {
        6.0 * self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { momentum, weight_decay, .. } = *self;
        let settings =
            cpu::Settings { rate: cpu.f32(self.control)?[control::LEARNING_RATE], momentum, weight_decay };
        let (mut velocity, mut parameters) = (cpu.f32_mut(self.velocity)?, cpu.f32_mut(self.parameters)?);
        cpu::sgd(settings, &cpu.f32(self.gradients)?, &mut velocity, &mut parameters);
        if let Some(copy) = self.copy {
            cpu.f32_mut(copy)?.copy_from_slice(&parameters);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower(gpu, self)
    }
}
