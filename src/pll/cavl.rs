//! CAVL (Zhang et al., "Exploiting class activation value for partial-label learning", ICLR 2022; SPEC 6): one view,
//! cross-entropy with the candidate of largest class activation value |z_k - 1| z_k; in the first epoch with all candidates alike.

use super::confidence::Start;
use super::label_method::LabelMethod;
use super::registry::Entry;
use crate::device::primitive::{ConfidenceRule, LossKind};

/// CAVL for the registry.
pub static ENTRY: Entry = Entry {
    // Each row is renewed from the first step on.
    first_update: 0,
    ..Entry::new("cavl", "CAVL", "Class activation value learning", |_| Box::new(METHOD))
};

/// CAVL.
pub const METHOD: LabelMethod = LabelMethod {
    views: 1,
    loss: LossKind::CrossEntropy,
    rule: ConfidenceRule::ActivationValue,
    debiased_rule: ConfidenceRule::ActivationValue,
    reads_debias: true,
    start: Start::Uniform,
};
