//! PRODEN (Lv et al., "Progressive identification of true labels for partial-label learning", ICML 2020; SPEC 6): one view,
//! -sum c_k ln p_k; c <- `[c>0]` p / sum, of debiased logits where there is a debias.

use super::method::{LabelMethod, Start};
use crate::device::primitive::{ConfidenceRule, LossKind};

/// PRODEN.
pub const METHOD: LabelMethod = LabelMethod {
    views: 1,
    loss: LossKind::CrossEntropy,
    rule: ConfidenceRule::Positive,
    debiased_rule: ConfidenceRule::Positive,
    reads_debias: true,
    start: Start::Uniform,
};
