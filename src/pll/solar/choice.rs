//! The chosen samples of a step and their mixed views.
//!
//! The device decides how many samples are chosen: their rows are moved to the front of a batch of fixed
//! size, and every operation that must not see the rest gets the count.

use anyhow::Result;

use super::Solar;
use super::operations::{ChooseSamples, MixedLoss};
use crate::device::{Element, Tensor};
use crate::ops::mixup::MixupChosen;
use crate::pll::mixup::MixupBuffers;
use crate::pll::recorder::StepRecorder;

/// Which samples of a step are chosen.
#[derive(Clone, Copy)]
pub struct Choice {
    /// i32 `[B]`: 1 for a chosen sample.
    pub chosen: Tensor,
    /// i32 `[B]`: the rows of the chosen samples in order, and the row each is mixed with.
    rows: Tensor,
    partners: Tensor,
    /// Number of chosen samples, i32 `[1]`.
    pub count: Tensor,
}

impl Choice {
    /// Records the choice from the logits `[B,K]` of the weak views and pseudo-labels `[B,K]`.
    pub fn record(step: &mut StepRecorder<'_>, solar: &Solar, logits: Tensor, refined: Tensor) -> Self {
        let (batch, classes, control) = (step.batch, step.rows.classes, step.rows.control);
        let tape = &mut *step.tape;
        let class_prior = tape.persistent(solar.refinery.class_prior);
        let mixup = solar.mixup.tensors(tape);
        let [chosen, rows, partners] = [(); 3].map(|()| tape.temporary(Element::I32, batch));
        let count = tape.temporary(Element::I32, 1);
        let total = tape.persistent(solar.chosen);
        tape.push(ChooseSamples {
            batch,
            classes,
            threshold: solar.settings.tau as f32,
            logits,
            pseudo_labels: refined,
            class_prior,
            control,
            permutations: mixup.permutations,
            step: mixup.step,
            chosen,
            rows,
            partners,
            count,
            total,
        });
        Self { chosen, rows, partners, count }
    }

    /// Records the forward pass of the chosen samples' mixed views, from `images` `[B, ..]` and pseudo-labels
    /// `[B,K]`.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn record_mixed(
        &self,
        step: &mut StepRecorder<'_>,
        mixup: &MixupBuffers,
        images: Tensor,
        refined: Tensor,
    ) -> Result<MixedLoss> {
        let (classes, activations) = (step.rows.classes, step.tape.activations());
        let images = self.record_mixup(step, mixup, images, step.image_len, activations);
        let target = self.record_mixup(step, mixup, refined, classes, Element::F32);
        let logits = step.forward_first(images, self.count)?.logits;
        let d_logits = step.tape.temporary(Element::F32, step.batch * classes);
        Ok(MixedLoss { logits, target, d_logits })
    }

    /// Records the mixture of the chosen rows of x `[B,len]`.
    fn record_mixup(
        &self,
        step: &mut StepRecorder<'_>,
        mixup: &MixupBuffers,
        x: Tensor,
        len: usize,
        element: Element,
    ) -> Tensor {
        let Self { rows, partners, count, .. } = *self;
        let batch = step.batch;
        let mixup = mixup.tensors(step.tape);
        let out = step.tape.temporary(element, batch * len);
        let (weights, step_number) = (mixup.weights, mixup.step);
        step.tape.push(MixupChosen { batch, len, weights, step: step_number, rows, partners, count, x, out });
        out
    }
}
