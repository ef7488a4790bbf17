//! The momentum encoder: a network whose parameters are a moving average of those in training; it computes
//! the keys.

use anyhow::{Result, bail};
use rayon::prelude::*;

use crate::device::cpu::Call;
use crate::device::gpu::kernels::pico::{self as kernels, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::{Buffer, Device, Element, Operand, Operation, Tensor};
use crate::nn::{Outputs, Parameters};
use crate::pll::StepRecorder;

/// The momentum encoder on a device. Its batchnorm uses the statistics of each batch, so running statistics
/// are not part of its state.
pub struct MomentumEncoder {
    /// The encoder's own parameters.
    pub parameters: Parameters,
    /// The values of the network in training.
    followed: Buffer,
    momentum: f32,
}

impl MomentumEncoder {
    /// An encoder with the current parameters of the network.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(followed: &Parameters, momentum: f64, device: &mut dyn Device) -> Result<Self> {
        let parameters = followed.copied(device)?;
        Ok(Self { parameters, followed: followed.values, momentum: momentum as f32 })
    }

    /// Records a step of the moving average, then the forward pass of `images`.
    ///
    /// # Errors
    /// As [`StepRecorder::forward_with`].
    pub fn record(&self, step: &mut StepRecorder<'_>, images: Tensor) -> Result<Outputs> {
        let Parameters { values, copy, .. } = self.parameters;
        let [from, average] = [self.followed, values].map(|buffer| step.tape.persistent(buffer));
        let copy = copy.map(|buffer| step.tape.persistent(buffer));
        step.tape.push(MoveAverage { len: values.len, momentum: self.momentum, values: from, average, copy });
        step.forward_with(&self.parameters, images)
    }
}

/// average `[len]` = m average + (1 - m) values, f32. `copy` receives the new average, rounded to its type.
#[derive(Clone, Debug, PartialEq)]
pub struct MoveAverage {
    /// Values of each tensor.
    pub len: usize,
    /// m, the share of the old average.
    pub momentum: f32,
    /// The values of the network in training, f32 `[len]`.
    pub values: Tensor,
    /// The moving average, f32 `[len]`, updated.
    pub average: Tensor,
    /// The rounded average, `[len]`, where convolutions read it.
    pub copy: Option<Tensor>,
}

/// Values per task of the CPU twin.
const CHUNK: usize = 1 << 14;

impl Operation for MoveAverage {
    fn name(&self) -> &'static str {
        "move average"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut operands = vec![Operand::read(self.values), Operand::update(self.average)];
        operands.extend(self.copy.map(Operand::write));
        operands
    }

    fn flops(&self) -> f64 {
        3.0 * self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (values, mut average) = (cpu.f32(self.values)?, cpu.f32_mut(self.average)?);
        let momentum = self.momentum;
        average.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(average, values)| {
            average.iter_mut().zip(values).for_each(|(a, v)| *a = momentum * *a + (1.0 - momentum) * v);
        });
        if let Some(copy) = self.copy {
            cpu.f32_mut(copy)?.copy_from_slice(&average);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { len, momentum, .. } = *self;
        let kernel = match self.copy.map(|copy| gpu.element(copy)) {
            None | Some(Element::Bf16) => kernels::MOVE_AVERAGE,
            Some(Element::F16) => kernels::MOVE_AVERAGE_F16,
            Some(other) => bail!("the momentum encoder keeps a copy in bf16 or f16, not in {other:?}"),
        };
        let [values, average] = [self.values, self.average].map(|tensor| gpu.address(tensor));
        let parameters =
            kernels::MoveAverage { len, momentum, values, average, copy: gpu.optional(self.copy) };
        gpu.launch_over(kernel, [THREADS, 1], len, parameters);
        Ok(())
    }
}
