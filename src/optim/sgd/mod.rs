//! SGD with plain or Nesterov momentum and weight decay, with PyTorch's formulas.

mod cpu;
mod gpu;

use anyhow::Result;

use super::loss_scale::Scaling;
use super::{Arenas, Hyperparameters, Optimiser, OptimiserState};
use crate::autograd::Tape;
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Buffer, Device, Element, Operand, Operation, Tensor};
use crate::ops::control;

/// SGD with its velocities.
pub struct SgdOptimiser {
    constants: Hyperparameters,
    nesterov: bool,
    velocity: Buffer,
}

impl SgdOptimiser {
    /// SGD for `len` parameters, with plain momentum.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(constants: Hyperparameters, len: usize, device: &mut dyn Device) -> Result<Self> {
        Ok(Self { constants, nesterov: false, velocity: device.allocate(Element::F32, len, "the momentum")? })
    }

    /// SGD with Nesterov's momentum.
    ///
    /// # Errors
    /// As [`SgdOptimiser::new`].
    pub fn nesterov(constants: Hyperparameters, len: usize, device: &mut dyn Device) -> Result<Self> {
        Ok(Self { nesterov: true, ..Self::new(constants, len, device)? })
    }
}

impl Optimiser for SgdOptimiser {
    fn record(&self, tape: &mut Tape, arenas: &Arenas, control: Tensor) {
        let Hyperparameters { momentum, weight_decay, .. } = self.constants;
        let nesterov = self.nesterov;
        let [gradients, velocity, parameters] =
            [arenas.gradients, self.velocity, arenas.values].map(|buffer| tape.persistent(buffer));
        let copy = arenas.copy.map(|buffer| tape.persistent(buffer));
        let len = arenas.values.len;
        let scaling = arenas.scale.map(|scale| scale.tensors(tape));
        tape.push(Sgd {
            len,
            momentum,
            weight_decay,
            nesterov,
            control,
            gradients,
            scaling,
            velocity,
            parameters,
            copy,
        });
    }

    fn state(&self) -> Vec<OptimiserState> {
        vec![OptimiserState::PerParameter { prefix: "momentum.", arena: self.velocity }]
    }
}

/// g += wd p; v = mu v + g; p -= lr v, or p -= lr (g + mu v) with Nesterov's momentum; lr comes from
/// `control`. `copy` receives the new p, rounded to its type.
#[derive(Clone, Debug, PartialEq)]
pub struct Sgd {
    /// Parameters.
    pub len: usize,
    /// mu.
    pub momentum: f32,
    /// wd, applied to the gradient.
    pub weight_decay: f32,
    /// Whether the momentum is Nesterov's.
    pub nesterov: bool,
    /// The step's control block, f32 ([`control`]).
    pub control: Tensor,
    /// g, f32 `[len]`.
    pub gradients: Tensor,
    /// The scale of g, which is taken out first.
    pub scaling: Option<Scaling>,
    /// v, f32 `[len]`.
    pub velocity: Tensor,
    /// p, f32 `[len]`.
    pub parameters: Tensor,
    /// The rounded parameters, `[len]`, where convolutions read them.
    pub copy: Option<Tensor>,
}

impl Operation for Sgd {
    fn name(&self) -> &'static str {
        "sgd"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut list = vec![Operand::read(self.control), Operand::read(self.gradients)];
        list.extend([Operand::update(self.velocity), Operand::update(self.parameters)]);
        list.extend(Scaling::operands(self.scaling));
        list.extend(self.copy.map(Operand::write));
        list
    }

    fn flops(&self) -> f64 {
        6.0 * self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let Self { momentum, weight_decay, nesterov, .. } = *self;
        let rate = cpu.f32(self.control)?[control::LEARNING_RATE];
        let Some(unscale) = Scaling::unscaling(self.scaling, cpu)? else { return Ok(()) };
        let settings = cpu::SgdScalars { rate, momentum, weight_decay, nesterov, unscale };
        let (mut velocity, mut parameters) = (cpu.f32_mut(self.velocity)?, cpu.f32_mut(self.parameters)?);
        cpu::sgd(settings, &cpu.f32(self.gradients)?, &mut velocity, &mut parameters);
        if let Some(copy) = self.copy {
            let (mut copy, rounding) = cpu.rounded_mut(copy)?;
            rounding.copy(&parameters, &mut copy);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower(gpu, self)
    }
}
