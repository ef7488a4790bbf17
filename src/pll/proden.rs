//! PRODEN (Lv et al., "Progressive identification of true labels for partial-label learning", ICML 2020;
//! docs/spec.md, section 6): one view, -sum c_k ln p_k; c <- `[c>0]` p / sum, from debiased logits if there
//! is a debias.

use anyhow::Result;

use super::label_method::LabelMethod;
use super::registry::MethodEntry;
use crate::device::gpu::kernels::loss_by_kind;
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::{Disambiguate, Disambiguation, ViewPrediction, partial_softmax};
use crate::ops::loss::CrossEntropy;

/// PRODEN for the registry.
pub static ENTRY: MethodEntry =
    MethodEntry::new("proden", "PRODEN", "Progressive identification of true labels", |_| Box::new(method()));

/// PRODEN.
pub fn method() -> LabelMethod {
    LabelMethod {
        joint: Some(loss_by_kind::CROSS_ENTROPY_DISAMBIGUATE_POSITIVE),
        ..LabelMethod::new(CrossEntropy, PositiveSoftmax)
    }
}

/// c <- `[c>0]` p / sum, that is the softmax of z over the classes of positive confidence.
#[derive(Clone, Copy, Debug)]
pub struct PositiveSoftmax;

impl Disambiguation for PositiveSoftmax {
    fn row(&self, confidence: &mut [f32], _: &[u8], views: &[ViewPrediction]) {
        let positive: Vec<bool> = confidence.iter().map(|&c| c > 0.0).collect();
        partial_softmax(confidence, &views[0].softmax.log_p, |k| positive[k]);
    }

    fn lower(&self, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<()> {
        of.lower_rows(loss_by_kind::DISAMBIGUATE_POSITIVE, gpu);
        Ok(())
    }
}
