//! CORR (docs/spec.md, section 6): consistency regularisation of two views, sum_{c_k=0} -ln(|1-p_k|+eps) +
//! KL(c||p) for each.
//!
//! The loss pulls both views towards the confidence row and pushes classes of zero confidence down.
//! Disambiguation updates the row from the product of both views' probabilities, c <- sqrt(`[c>0]` p^w p^s) /
//! sum. With a debias it reads logits less the log-prior, and the candidate set is the mask instead of the
//! current row, so that a dropped class can come back.

mod consistency;
mod disambiguation;
mod pair;

use std::sync::Arc;

pub use self::consistency::Consistency;
pub use self::disambiguation::ViewProduct;
use super::label_method::LabelMethod;
use super::registry::MethodEntry;

/// CORR for the registry.
pub static ENTRY: MethodEntry =
    MethodEntry::new("corr", "CORR", "Consistency regularisation of two views", |_| Box::new(method()));

/// CORR.
pub fn method() -> LabelMethod {
    LabelMethod {
        debiased_disambiguation: Arc::new(ViewProduct::OverCandidates),
        ..LabelMethod::new(Consistency, ViewProduct::OverPositive)
    }
}
