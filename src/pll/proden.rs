//! PRODEN (Lv et al., "Progressive identification of true labels for partial-label learning", ICML 2020; SPEC 6): one view,
//! -sum c_k ln p_k; c <- `[c>0]` p / sum, of debiased logits where there is a debias.

use super::confidence::Start;
use super::label_method::LabelMethod;
use super::registry::Entry;
use crate::device::primitive::{ConfidenceRule, LossKind};

/// PRODEN for the registry.
pub static ENTRY: Entry =
    Entry::new("proden", "PRODEN", "Progressive identification of true labels", |_| Box::new(METHOD));

/// PRODEN.
pub const METHOD: LabelMethod = LabelMethod {
    views: 1,
    loss: LossKind::CrossEntropy,
    rule: ConfidenceRule::Positive,
    debiased_rule: ConfidenceRule::Positive,
    reads_debias: true,
    start: Start::Uniform,
};
