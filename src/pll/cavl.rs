//! CAVL (Zhang et al., "Exploiting class activation value for partial-label learning", ICLR 2022;
//! docs/spec.md, section 6): one view, cross-entropy with the candidate of largest class activation value
//! |z_k - 1| z_k. In the first epoch all candidates have the same weight.

use anyhow::Result;

use super::label_method::LabelMethod;
use super::registry::MethodEntry;
use crate::device::gpu::kernels::loss_by_kind;
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::{Disambiguate, Disambiguation, ViewPrediction};
use crate::ops::loss::CrossEntropy;

/// CAVL for the registry.
pub static ENTRY: MethodEntry = MethodEntry {
    // Rows are updated from the first step on.
    first_update: 0,
    ..MethodEntry::new("cavl", "CAVL", "Class activation value learning", |_| Box::new(method()))
};

/// CAVL.
pub fn method() -> LabelMethod {
    LabelMethod {
        joint: Some(loss_by_kind::CROSS_ENTROPY_DISAMBIGUATE_ACTIVATION_VALUE),
        ..LabelMethod::new(CrossEntropy, ActivationValue)
    }
}

/// c <- one-hot at the first candidate with the largest class activation value |z - 1| z.
#[derive(Clone, Copy, Debug)]
pub struct ActivationValue;

impl Disambiguation for ActivationValue {
    fn row(&self, confidence: &mut [f32], candidates: &[u8], views: &[ViewPrediction]) {
        let z = &views[0].logits;
        let value = |k: usize| (z[k] - 1.0).abs() * z[k];
        let inside = (0..z.len()).filter(|&k| candidates[k] != 0);
        let best = inside.reduce(|best, k| if value(k) > value(best) { k } else { best });
        confidence.fill(0.0);
        best.into_iter().for_each(|k| confidence[k] = 1.0);
    }

    fn lower(&self, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<()> {
        of.lower_rows(loss_by_kind::DISAMBIGUATE_ACTIVATION_VALUE, gpu);
        Ok(())
    }
}
