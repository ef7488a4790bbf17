//! CORR (SPEC 6): the loss pulls both views towards the confidence row and pushes classes of zero confidence down; the row is
//! renewed from the product of both views' probabilities. With a debias, the renewal reads logits less the log-prior and is
//! masked by the candidate set instead of the current row.

use super::ConfidenceStore;
use crate::autograd::Tape;
use crate::device::primitive::ConfidenceRule;
use crate::device::{Element, Primitive, Tensor};

/// The store's tensors on a tape.
#[derive(Clone, Copy)]
pub struct Rows {
    pub confidence: Tensor,
    pub candidates: Tensor,
    /// The samples of the step, i32 `[B]`.
    pub index: Tensor,
}

/// Records the loss and its gradient; returns (gradient of the logits `[2B,K]`, losses of the samples `[B]`).
pub fn record_loss(
    tape: &mut Tape,
    store: &ConfidenceStore,
    batch: usize,
    logits: Tensor,
    rows: Rows,
) -> (Tensor, Tensor) {
    let classes = store.classes;
    let d_logits = tape.temporary(Element::F32, 2 * batch * classes);
    let loss_rows = tape.temporary(Element::F32, batch);
    let (confidence, index) = (rows.confidence, rows.index);
    tape.push(Primitive::Loss {
        kind: crate::device::primitive::LossKind::Consistency,
        batch,
        classes,
        views: 2,
        first: 0,
        logits,
        target: confidence,
        candidates: None,
        index: Some(index),
        control: None,
        d_logits,
        loss_rows,
    });
    (d_logits, loss_rows)
}

/// Records the renewal of the confidence rows, debiased where a log-prior is given. Comes after [`record_loss`], which
/// reads the old rows.
pub fn record_update(
    tape: &mut Tape,
    store: &ConfidenceStore,
    batch: usize,
    logits: Tensor,
    log_prior: Option<Tensor>,
    rows: Rows,
    control: Tensor,
) {
    let rule = if log_prior.is_some() { ConfidenceRule::CorrDebiased } else { ConfidenceRule::Corr };
    let Rows { confidence, candidates, index } = rows;
    let classes = store.classes;
    tape.push(Primitive::UpdateConfidence {
        rule,
        batch,
        classes,
        logits,
        log_prior,
        candidates,
        index,
        control,
        confidence,
    });
}
