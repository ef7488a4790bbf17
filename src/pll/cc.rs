//! CC (Feng et al., "Provably consistent partial-label learning", NeurIPS 2020; SPEC 6): one view, -ln sum_{k in s} p_k.
//!
//! The loss reads no confidence row, so a debias acts at test only. The rows hold what the loss implies, s p / sum, for the
//! figures on disambiguation alone.

use super::method::{LabelMethod, Start};
use crate::device::primitive::{ConfidenceRule, LossKind};

/// CC.
pub const METHOD: LabelMethod = LabelMethod {
    views: 1,
    loss: LossKind::CandidateSum,
    rule: ConfidenceRule::Candidates,
    debiased_rule: ConfidenceRule::Candidates,
    reads_debias: false,
    start: Start::Uniform,
};
