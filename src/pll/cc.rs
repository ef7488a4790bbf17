//! CC (Feng et al., "Provably consistent partial-label learning", NeurIPS 2020; SPEC 6): one view, -ln sum_{k in s} p_k.
//!
//! The loss reads no confidence row, so a debias acts at test only. The rows hold what the loss implies, s p / sum, for the
//! figures on disambiguation alone.

use super::confidence::Start;
use super::label_method::LabelMethod;
use super::registry::Entry;
use crate::device::primitive::{ConfidenceRule, LossKind};

/// CC for the registry.
pub static ENTRY: Entry = Entry {
    no_mixup: Some("its loss reads candidate sets, which cannot be mixed as soft labels can"),
    ..Entry::new("cc", "CC", "Classifier-consistent loss of the candidate set's probability", |_| {
        Box::new(METHOD)
    })
};

/// CC.
pub const METHOD: LabelMethod = LabelMethod {
    views: 1,
    loss: LossKind::CandidateSum,
    rule: ConfidenceRule::Candidates,
    debiased_rule: ConfidenceRule::Candidates,
    reads_debias: false,
    start: Start::Uniform,
};
