//! AdamW (Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019), with PyTorch's
//! formulas.

use anyhow::{Result, bail};
use rayon::prelude::*;

use super::loss_scale::Scaling;
use super::{Arenas, Hyperparameters, Optimiser, OptimiserState};
use crate::autograd::Tape;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::adamw::{self as kernels, ADAM_EPSILON, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::{Buffer, Device, Element, Operand, Operation, Tensor};
use crate::ops::control;
use crate::ops::elementwise::check_parameters;

/// AdamW with its state; `momentum` of the hyperparameters is its first beta.
pub struct AdamWOptimiser {
    constants: Hyperparameters,
    mean: Buffer,
    square: Buffer,
    corrections: Buffer,
}

impl AdamWOptimiser {
    /// AdamW for `len` parameters.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(constants: Hyperparameters, len: usize, device: &mut dyn Device) -> Result<Self> {
        let mut allocate = |len, label| device.allocate(Element::F32, len, label);
        Ok(Self {
            constants,
            mean: allocate(len, "the moving mean of the gradients")?,
            square: allocate(len, "the moving mean of their squares")?,
            corrections: allocate(2, "the corrections of the moving means")?,
        })
    }
}

impl Optimiser for AdamWOptimiser {
    fn record(&self, tape: &mut Tape, arenas: &Arenas, control: Tensor) {
        let Hyperparameters { momentum, beta2, weight_decay } = self.constants;
        let betas = [momentum, beta2];
        let corrections = tape.persistent(self.corrections);
        let scaling = arenas.scale.map(|scale| scale.tensors(tape));
        tape.push(AdvanceCorrections { betas, scaling, corrections });
        let [gradients, mean, square, parameters] =
            [arenas.gradients, self.mean, self.square, arenas.values].map(|buffer| tape.persistent(buffer));
        let copy = arenas.copy.map(|buffer| tape.persistent(buffer));
        tape.push(AdamW {
            len: arenas.values.len,
            betas,
            weight_decay,
            control,
            corrections,
            gradients,
            scaling,
            mean,
            square,
            parameters,
            copy,
        });
    }

    fn state(&self) -> Vec<OptimiserState> {
        vec![
            OptimiserState::PerParameter { prefix: "adamw.mean.", arena: self.mean },
            OptimiserState::PerParameter { prefix: "adamw.square.", arena: self.square },
            OptimiserState::Whole { name: "adamw.corrections", values: self.corrections },
        ]
    }
}

/// The bias corrections 1 - beta^t of both moving means after t steps, from 0: c <- beta c + (1 - beta).
#[derive(Clone, Debug, PartialEq)]
pub struct AdvanceCorrections {
    /// beta1 and beta2.
    pub betas: [f32; 2],
    /// Whether the step counts.
    pub scaling: Option<Scaling>,
    /// c1 and c2, f32 `[2]`, advanced in place.
    pub corrections: Tensor,
}

/// p *= 1 - lr wd; m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= (lr / c1) m / (sqrt(v / c2) + eps),
/// with lr from `control` and c1, c2 from `corrections`. `copy` receives the new p, rounded to its type.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// Parameters.
    pub len: usize,
    /// b1 and b2: the share of the past in the moving means of g and of g^2.
    pub betas: [f32; 2],
    /// wd, applied to the parameter itself (decoupled from the gradient).
    pub weight_decay: f32,
    /// The step's control block, f32 ([`control`]).
    pub control: Tensor,
    /// c1 and c2, f32 `[2]`, of [`AdvanceCorrections`].
    pub corrections: Tensor,
    /// g, f32 `[len]`.
    pub gradients: Tensor,
    /// The scale of g, which is taken out first.
    pub scaling: Option<Scaling>,
    /// m, f32 `[len]`.
    pub mean: Tensor,
    /// v, f32 `[len]`.
    pub square: Tensor,
    /// p, f32 `[len]`.
    pub parameters: Tensor,
    /// The rounded parameters, `[len]`, where convolutions read them.
    pub copy: Option<Tensor>,
}

/// share old + (1 - share) value.
fn moved(share: f32, old: f32, value: f32) -> f32 {
    share * old + (1.0 - share) * value
}

impl Operation for AdvanceCorrections {
    fn name(&self) -> &'static str {
        "adamw corrections"
    }

    fn operands(&self) -> Vec<Operand> {
        let not_finite = self.scaling.map(|scaling| Operand::read(scaling.not_finite));
        not_finite.into_iter().chain([Operand::update(self.corrections)]).collect()
    }

    fn flops(&self) -> f64 {
        8.0
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        if Scaling::unscaling(self.scaling, cpu)?.is_none() {
            return Ok(());
        }
        let mut corrections = cpu.f32_mut(self.corrections)?;
        corrections.iter_mut().zip(self.betas).for_each(|(c, beta)| *c = moved(beta, *c, 1.0));
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let [beta1, beta2] = self.betas;
        let [_, not_finite] = Scaling::addresses(self.scaling, gpu);
        let corrections = gpu.address(self.corrections);
        let given = kernels::AdamwCorrections { beta1, beta2, not_finite, corrections };
        gpu.launch(kernels::ADAMW_CORRECTIONS.linear(1, 32, given));
        Ok(())
    }
}

impl Operation for AdamW {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn operands(&self) -> Vec<Operand> {
        let read = [self.control, self.corrections, self.gradients].map(Operand::read);
        let update = [self.mean, self.square, self.parameters].map(Operand::update);
        let copy = self.copy.map(Operand::write);
        read.into_iter().chain(Scaling::operands(self.scaling)).chain(update).chain(copy).collect()
    }

    fn flops(&self) -> f64 {
        14.0 * self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        const CHUNK: usize = 1 << 14;
        let ([beta1, beta2], weight_decay) = (self.betas, self.weight_decay);
        let Some(unscale) = Scaling::unscaling(self.scaling, cpu)? else { return Ok(()) };
        let rate = cpu.f32(self.control)?[control::LEARNING_RATE];
        let (corrections, gradients) = (cpu.f32(self.corrections)?, cpu.f32(self.gradients)?);
        let (c1, c2) = (corrections[0], corrections[1]);
        let (mut mean, mut square) = (cpu.f32_mut(self.mean)?, cpu.f32_mut(self.square)?);
        let mut parameters = cpu.f32_mut(self.parameters)?;
        let state = mean.par_chunks_mut(CHUNK).zip(square.par_chunks_mut(CHUNK));
        let chunks = gradients.par_chunks(CHUNK).zip(parameters.par_chunks_mut(CHUNK)).zip(state);
        chunks.for_each(|((gradients, parameters), (mean, square))| {
            for (((&g, p), m), v) in gradients.iter().zip(parameters).zip(mean).zip(square) {
                let g = g * unscale;
                (*m, *v) = (moved(beta1, *m, g), moved(beta2, *v, g * g));
                let step = *m / ((*v / c2).sqrt() + ADAM_EPSILON);
                *p = *p * (1.0 - rate * weight_decay) - rate / c1 * step;
            }
        });
        if let Some(copy) = self.copy {
            let (mut copy, rounding) = cpu.rounded_mut(copy)?;
            rounding.copy(&parameters, &mut copy);
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        check_parameters(self.len)?;
        let [beta1, beta2] = self.betas;
        let kernel = match self.copy.map(|copy| gpu.element(copy)) {
            None | Some(Element::Bf16) => kernels::ADAMW,
            Some(Element::F16) => kernels::ADAMW_F16,
            Some(other) => {
                bail!("AdamW keeps a rounded copy of the weights in bf16 or f16, not in {other:?}")
            }
        };
        let [scale, not_finite] = Scaling::addresses(self.scaling, gpu);
        let given = kernels::Adamw {
            len: self.len,
            beta1,
            beta2,
            weight_decay: self.weight_decay,
            control: gpu.address(self.control),
            corrections: gpu.address(self.corrections),
            gradients: gpu.address(self.gradients),
            scale,
            not_finite,
            mean: gpu.address(self.mean),
            square: gpu.address(self.square),
            parameters: gpu.address(self.parameters),
            copy: gpu.optional(self.copy),
        };
        gpu.launch_over(kernel, [THREADS, 1], self.len, given);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;

    /// Twenty steps of one recorded plan against the formula of the paper in f64. A step rounds to f32 about
    /// ten times, 2^-24 each, and changes a parameter by at most about lr = 0.1.
    #[test]
    fn steps_follow_the_paper() {
        let mut device = CpuDevice::new(1).unwrap();
        let mut upload = |values: &[f32]| {
            let buffer = device.allocate(Element::F32, values.len(), "a test").unwrap();
            device.write_f32(buffer, values).unwrap();
            buffer
        };
        let start = [1.5f32, -0.25, 0.0, 3.0];
        let (values, gradients) = (upload(&start), upload(&[0.0; 4]));
        let rate = 0.1f64;
        let control = upload(&[rate as f32; control::LEN]);
        let constants = Hyperparameters { momentum: 0.9, beta2: 0.999, weight_decay: 0.01 };
        let optimiser = AdamWOptimiser::new(constants, 4, &mut device).unwrap();
        let mut tape = Tape::new(Element::F32);
        let control = tape.persistent(control);
        optimiser.record(&mut tape, &Arenas { values, gradients, copy: None, scale: None }, control);
        let plan = tape.finish(&mut device).unwrap();
        let (mut p, mut m, mut v) = (start.map(f64::from), [0.0; 4], [0.0; 4]);
        for t in 1..=20 {
            let g: [f32; 4] = std::array::from_fn(|i| ((t * (i + 1)) as f32 * 0.7).sin());
            device.write_f32(gradients, &g).unwrap();
            device.replay(&plan).unwrap();
            for i in 0..4 {
                let g = f64::from(g[i]);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.999 * v[i] + 0.001 * g * g;
                let (mean, square) =
                    (m[i] / (1.0 - 0.9f64.powi(t as i32)), v[i] / (1.0 - 0.999f64.powi(t as i32)));
                p[i] = p[i] * (1.0 - rate * 0.01) - rate * mean / (square.sqrt() + 1e-8);
            }
        }
        for (ours, expected) in device.read_f32(values).unwrap().into_iter().zip(p) {
            assert!((f64::from(ours) - expected).abs() < 2e-5, "{ours}, {expected}");
        }
    }
}
