//! CORR (SPEC 6): consistency regularisation of two views, sum_{c_k=0} -ln(|1-p_k|+eps) + KL(c||p) for each.
//!
//! The loss pulls both views towards the confidence row and pushes classes of zero confidence down; the row is renewed from the
//! product of both views' probabilities, c <- sqrt(`[c>0]` p^w p^s) / sum. With a debias the renewal reads logits less the
//! log-prior and is masked by the candidate set instead of the current row, so that a dropped class can come back.

use super::confidence::Start;
use super::label_method::LabelMethod;
use super::registry::Entry;
use crate::device::primitive::{ConfidenceRule, LossKind};

/// CORR for the registry.
pub static ENTRY: Entry =
    Entry::new("corr", "CORR", "Consistency regularisation of two views", |_| Box::new(METHOD));

/// CORR.
pub const METHOD: LabelMethod = LabelMethod {
    views: 2,
    loss: LossKind::Consistency,
    rule: ConfidenceRule::Corr,
    debiased_rule: ConfidenceRule::CorrDebiased,
    reads_debias: true,
    start: Start::Uniform,
};
