//! Launches of the pair kernels of `loss.cu`: the loss of two views, the disambiguation of the rows that the
//! loss reads, or both at once.

use super::ViewProduct;
use crate::device::Tensor;
use crate::device::gpu::kernels::loss::{self as kernels, PAIR_WARPS, WIDE_THREADS};
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::Disambiguate;
use crate::ops::loss::{Loss, Term};

/// The operands that loss and disambiguation share.
struct PairRows {
    batch: usize,
    classes: usize,
    logits: Tensor,
    index: Tensor,
    confidence: Tensor,
}

impl PairRows {
    fn of(next: &Disambiguate) -> Self {
        let Disambiguate { batch, classes, logits, index, confidence, .. } = *next;
        Self { batch, classes, logits, index, confidence }
    }
}

/// Lowers a loss if it is of both plain views of each sample against the store; returns whether it did.
pub(super) fn lower_loss(of: &Loss, gpu: &mut Lowering<'_>) -> bool {
    let Loss { batch, classes, logits, target: confidence, .. } = *of;
    match of.index {
        Some(index) if (of.term, of.views, of.first) == (Term::Plain, 2, 0) => {
            launch(&PairRows { batch, classes, logits, index, confidence }, Some(of), None, gpu);
            true
        }
        _ => false,
    }
}

/// Lowers a disambiguation.
pub(super) fn lower_disambiguation(of: &Disambiguate, product: ViewProduct, gpu: &mut Lowering<'_>) {
    launch(&PairRows::of(of), None, Some((of, product)), gpu);
}

/// Lowers a loss and the disambiguation of its rows as one launch.
pub(super) fn lower_both(loss: &Loss, next: &Disambiguate, product: ViewProduct, gpu: &mut Lowering<'_>) {
    launch(&PairRows::of(next), Some(loss), Some((next, product)), gpu);
}

fn launch(
    rows: &PairRows,
    loss: Option<&Loss>,
    next: Option<(&Disambiguate, ViewProduct)>,
    gpu: &mut Lowering<'_>,
) {
    let &PairRows { batch, classes, .. } = rows;
    let parameters = kernels::Pair {
        batch,
        classes,
        debiased: usize::from(next.is_some_and(|(_, rule)| rule == ViewProduct::OverCandidates)),
        logits: gpu.address(rows.logits),
        index: gpu.address(rows.index),
        control: gpu.optional(next.map(|(next, _)| next.control)),
        candidates: gpu.optional(next.map(|(next, _)| next.candidates)),
        log_prior: gpu.optional(next.and_then(|(next, _)| next.log_prior)),
        confidence: gpu.address(rows.confidence),
        d_logits: gpu.optional(loss.map(|loss| loss.d_logits)),
        loss_rows: gpu.optional(loss.map(|loss| loss.loss_rows)),
    };
    let in_registers = kernels::PAIR.iter().find(|pair| classes <= 32 * pair.registers);
    gpu.launch(match in_registers {
        Some(pair) => pair.kernel.linear(batch.div_ceil(PAIR_WARPS), 32 * PAIR_WARPS, parameters),
        None => kernels::PAIR_WIDE.linear(batch, WIDE_THREADS, parameters),
    });
}
