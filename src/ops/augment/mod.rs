//! Augmented views of a step's samples, computed from images resident on the device.

mod cpu;
mod gpu;

use anyhow::Result;

use crate::data::augment::parameters::VIEW_BYTES;
use crate::device::cpu::Call;
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};

/// Views of this step's samples, augmented and normalised: `images` u8 `[N,H,W,3]`, `parameters` u8
/// `[N,2,VIEW_BYTES]` and `index` i32 `[B]` give the first V B rows of `views` `[R,S,S,3]`, V = `count`. View
/// `first` of the samples fills the first B rows. `normalisation` f32 `[6]` holds mean, then standard
/// deviation.
#[derive(Clone, Debug, PartialEq)]
pub struct Augment {
    /// Samples B.
    pub batch: usize,
    /// The view in the first B rows: 0 weak, 1 strong.
    pub first: usize,
    /// Views V.
    pub count: usize,
    /// Height and width of the source images.
    pub source: [usize; 2],
    /// Height and width of a view.
    pub size: usize,
    /// The source images, u8 `[N,H,W,3]`.
    pub images: Tensor,
    /// The drawn augmentation parameters, u8 `[N,2,VIEW_BYTES]`: weak view, then strong.
    pub parameters: Tensor,
    /// The samples of the step, i32 `[B]`.
    pub index: Tensor,
    /// Mean and standard deviation of each channel, f32 `[6]`.
    pub normalisation: Tensor,
    /// The result, activations `[R,S,S,3]` with R at least V B.
    pub views: Tensor,
}

impl Operation for Augment {
    fn name(&self) -> &'static str {
        "augment"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::read(self.images).touching(self.batch * self.source[0] * self.source[1] * 3),
            Operand::read(self.parameters).touching(self.batch * self.count * VIEW_BYTES),
            Operand::read(self.index),
            Operand::read(self.normalisation),
            Operand::write(self.views).touching(self.batch * self.count * self.size * self.size * 3),
        ]
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu::augment(
            self,
            &cpu.u8(self.images)?,
            &cpu.u8(self.parameters)?,
            &cpu.i32(self.index)?,
            &cpu.f32(self.normalisation)?,
            &mut cpu.f32_mut(self.views)?,
        )
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu::lower(gpu, self)
    }
}
