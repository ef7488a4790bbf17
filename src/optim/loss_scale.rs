//! Loss scaling for training in f16, decided on the device: the gradients of the loss are multiplied by a
//! scale, and the optimiser divides by it. The numbers and the source are in `kernels/scaling.cuh` and
//! `loss_scale.cu`.
//!
//! A step in which a gradient is not finite is left out: parameters, their rounded copies and the optimiser's
//! state stay as they are, the scale halves, and the step is counted. What the forward pass of such a step
//! leaves (running statistics, confidence rows, the mean feature, a momentum encoder) stays: it does not depend
//! on the scale. PyTorch's GradScaler does the same.

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::loss_scale as kernels;
pub use crate::device::gpu::kernels::loss_scale::{
    FIRST_SCALE, GOOD_STEPS, GROWTH_INTERVAL, LEAST_SCALE, LOSS_SCALE, LOSS_SCALE_LEN as LEN, SKIPPED_STEPS,
    STEPS, STOPPED_AT,
};
use crate::device::gpu::launch::Address;
use crate::device::gpu::lower::Lowering;
use crate::device::{Buffer, Device, Element, Operand, Operation, Tensor};
use crate::ops::statistics::CountNotFinite;

/// Name of the state in files.
pub const NAME: &str = "loss_scale";

/// The loss scale on a device.
#[derive(Clone, Copy, Debug)]
pub struct LossScale {
    /// f32 `[LEN]`: the scale, and what it is decided by.
    pub state: Buffer,
    /// i32 `[1]`: gradients of the step that are not finite.
    not_finite: Buffer,
}

/// The tensors by which an optimiser takes the scale out of the gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scaling {
    /// f32 `[LEN]`.
    pub state: Tensor,
    /// i32 `[1]`: if it is not 0, the step is left out.
    pub not_finite: Tensor,
}

impl LossScale {
    /// The scale before the first step.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(device: &mut dyn Device) -> Result<Self> {
        let state = device.allocate(Element::F32, LEN, "the loss scale")?;
        let not_finite = device.allocate(Element::I32, 1, "the count of gradients that are not finite")?;
        let new = Self { state, not_finite };
        new.reset(device)?;
        Ok(new)
    }

    /// Puts it back to what it is before the first step.
    ///
    /// # Errors
    /// If the device fails.
    pub fn reset(&self, device: &mut dyn Device) -> Result<()> {
        let mut state = [0.0; LEN];
        state[LOSS_SCALE] = FIRST_SCALE;
        device.write_f32(self.state, &state)
    }

    /// The tensors of a step.
    pub fn tensors(&self, tape: &mut Tape) -> Scaling {
        Scaling { state: tape.persistent(self.state), not_finite: tape.persistent(self.not_finite) }
    }

    /// Records the multiplication of the loss's gradients.
    pub fn record_scaling(&self, tape: &mut Tape, gradients: impl IntoIterator<Item = Tensor>) {
        let scale = tape.persistent(self.state);
        for gradients in gradients {
            tape.push(ScaleGradients { len: tape.len_of(gradients), scale, gradients });
        }
    }

    /// Records what comes before the optimiser's step: the count of the gradients that are not finite.
    pub fn record_count(&self, tape: &mut Tape, gradients: Buffer) {
        let (values, counts) = (tape.persistent(gradients), tape.persistent(self.not_finite));
        tape.push(CountNotFinite { len: gradients.len, slot: 0, values, counts });
    }

    /// Records what comes after it: the scale of the next step.
    pub fn record_move(&self, tape: &mut Tape) {
        let scaling = self.tensors(tape);
        tape.push(MoveScale { scaling });
    }

    /// Steps of the stage so far that were left out.
    ///
    /// # Errors
    /// If the device fails.
    pub fn steps_left_out(&self, device: &mut dyn Device) -> Result<u64> {
        Ok(device.read_f32(self.state)?[SKIPPED_STEPS] as u64)
    }

    /// Why training cannot go on, if it cannot: the scale went below [`LEAST_SCALE`].
    ///
    /// # Errors
    /// If the device fails.
    pub fn problem(&self, device: &mut dyn Device) -> Result<Option<String>> {
        let state = device.read_f32(self.state)?;
        Ok((state[STOPPED_AT] != 0.0).then(|| {
            format!(
                "the gradients do not fit f16: step {} of the stage took the loss scale below {LEAST_SCALE} \
                 ({} of {} steps were left out); use --precision bf16, or lower --lr",
                state[STOPPED_AT], state[SKIPPED_STEPS], state[STEPS]
            )
        }))
    }
}

impl Scaling {
    /// What a gradient of this step is multiplied by, or `None` if the step is left out.
    ///
    /// # Errors
    /// If a tensor has another type.
    pub fn unscaling(scaling: Option<Self>, cpu: &Call<'_>) -> Result<Option<f32>> {
        let Some(Self { state, not_finite }) = scaling else { return Ok(Some(1.0)) };
        Ok((cpu.i32(not_finite)?[0] == 0).then_some(1.0 / cpu.f32(state)?[LOSS_SCALE]))
    }

    /// The addresses for a kernel, null without a scale.
    pub fn addresses(scaling: Option<Self>, gpu: &Lowering<'_>) -> [Address; 2] {
        [scaling.map(|s| s.state), scaling.map(|s| s.not_finite)].map(|tensor| gpu.optional(tensor))
    }

    /// The operands of an optimiser that reads it.
    pub fn operands(scaling: Option<Self>) -> impl Iterator<Item = Operand> {
        scaling.into_iter().flat_map(|s| [Operand::read(s.state), Operand::read(s.not_finite)])
    }
}

/// gradients *= the loss scale.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleGradients {
    /// Gradients.
    pub len: usize,
    /// f32 `[LEN]`.
    pub scale: Tensor,
    /// f32 `[len]`, changed in place.
    pub gradients: Tensor,
}

/// Halves the scale after a step with gradients that are not finite, doubles it after [`GROWTH_INTERVAL`]
/// steps without, and zeroes the count.
#[derive(Clone, Debug, PartialEq)]
pub struct MoveScale {
    /// The state and the count.
    pub scaling: Scaling,
}

impl Operation for ScaleGradients {
    fn name(&self) -> &'static str {
        "loss scaling"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.scale).touching(1), Operand::update(self.gradients)]
    }

    fn flops(&self) -> f64 {
        self.len as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let scale = cpu.f32(self.scale)?[LOSS_SCALE];
        cpu.f32_mut(self.gradients)?[..self.len].iter_mut().for_each(|gradient| *gradient *= scale);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { len, .. } = *self;
        let [scale, gradients] = [self.scale, self.gradients].map(|tensor| gpu.address(tensor));
        let parameters = kernels::ScaleGradients { len, scale, gradients };
        gpu.launch_over(kernels::SCALE_GRADIENTS, [kernels::THREADS, 1], len, parameters);
        Ok(())
    }
}

impl Operation for MoveScale {
    fn name(&self) -> &'static str {
        "loss scale of the next step"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::update(self.scaling.state), Operand::update(self.scaling.not_finite)]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (mut state, mut count) =
            (cpu.f32_mut(self.scaling.state)?, cpu.i32_mut(self.scaling.not_finite)?);
        let overflow = std::mem::take(&mut count[0]) != 0;
        let good = if overflow { 0.0 } else { state[GOOD_STEPS] + 1.0 };
        let grows = good >= GROWTH_INTERVAL as f32;
        state[LOSS_SCALE] *= match (overflow, grows) {
            (true, _) => 0.5,
            (false, true) => 2.0,
            (false, false) => 1.0,
        };
        state[GOOD_STEPS] = if grows { 0.0 } else { good };
        state[SKIPPED_STEPS] += f32::from(u8::from(overflow));
        state[STEPS] += 1.0;
        if state[LOSS_SCALE] < LEAST_SCALE && state[STOPPED_AT] == 0.0 {
            state[STOPPED_AT] = state[STEPS];
        }
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let [scale, not_finite] = Scaling::addresses(Some(self.scaling), gpu);
        gpu.launch(kernels::MOVE_SCALE.linear(1, 1, kernels::MoveScale { scale, not_finite }));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::optim::{Arenas, Hyperparameters, registry};

    /// Seven steps of each optimiser with a scale beside one without: an overflow leaves a step out, and the
    /// next steps continue with half the scale as if it had never been. Powers of two change no bit.
    #[test]
    fn an_overflow_leaves_out_one_step_and_halves_the_scale() {
        for name in registry::names() {
            let mut device = CpuDevice::new(1).unwrap();
            let constants = Hyperparameters { momentum: 0.9, beta2: 0.999, weight_decay: 0.01 };
            let mut train = |scaled: bool| {
                let mut upload = |values: &[f32]| {
                    let buffer = device.allocate(Element::F32, values.len(), "a test").unwrap();
                    device.write_f32(buffer, values).unwrap();
                    buffer
                };
                let (values, gradients) = (upload(&[1.5, -0.25, 3.0]), upload(&[0.0; 3]));
                let control = upload(&[0.1; crate::ops::control::LEN]);
                let scale = scaled.then(|| LossScale::new(&mut device).unwrap());
                let optimiser = registry::find(name).unwrap()(constants, 3, &mut device).unwrap();
                let mut tape = Tape::new(Element::F32);
                let (control, seed) = (tape.persistent(control), tape.persistent(gradients));
                if let Some(scale) = &scale {
                    scale.record_scaling(&mut tape, [seed]);
                    scale.record_count(&mut tape, gradients);
                }
                optimiser.record(&mut tape, &Arenas { values, gradients, copy: None, scale }, control);
                if let Some(scale) = &scale {
                    scale.record_move(&mut tape);
                }
                let plan = tape.finish(&mut device).unwrap();
                for step in 0..7 {
                    let overflows = step == 2 || step == 5;
                    if overflows && !scaled {
                        continue;
                    }
                    let g = if overflows { f32::INFINITY } else { (step as f32 * 0.7).sin() };
                    device.write_f32(gradients, &[g, 0.5, -g]).unwrap();
                    device.replay(&plan).unwrap();
                }
                let state = scale.map(|scale| device.read_f32(scale.state).unwrap());
                (device.read_f32(values).unwrap(), state)
            };
            let ((plain, _), (scaled, state)) = (train(false), train(true));
            assert_eq!(plain, scaled, "{name}");
            assert_eq!(state.unwrap(), [FIRST_SCALE / 4.0, 1.0, 2.0, 7.0, 0.0], "{name}");
        }
    }

    /// The scale doubles after GROWTH_INTERVAL good steps, and says which step took it below 1.
    #[test]
    fn the_scale_grows_after_its_interval_and_stops_below_one() {
        let mut device = CpuDevice::new(1).unwrap();
        let scale = LossScale::new(&mut device).unwrap();
        let mut tape = Tape::new(Element::F32);
        scale.record_move(&mut tape);
        let plan = tape.finish(&mut device).unwrap();
        for _ in 1..GROWTH_INTERVAL {
            device.replay(&plan).unwrap();
        }
        let before = GROWTH_INTERVAL as f32 - 1.0;
        assert_eq!(device.read_f32(scale.state).unwrap(), [FIRST_SCALE, before, 0.0, before, 0.0]);
        device.replay(&plan).unwrap();
        assert_eq!(device.read_f32(scale.state).unwrap()[..2], [2.0 * FIRST_SCALE, 0.0]);
        // 2^17 is halved to 2^-1 by the 18th step.
        for _ in 0..17 {
            device.write_i32(scale.not_finite, &[3]).unwrap();
            device.replay(&plan).unwrap();
        }
        assert_eq!(scale.problem(&mut device).unwrap(), None);
        device.write_i32(scale.not_finite, &[1]).unwrap();
        device.replay(&plan).unwrap();
        let problem = scale.problem(&mut device).unwrap().unwrap();
        assert!(problem.contains("step 2018") && problem.contains("--precision bf16"), "{problem}");
    }
}
