//! Launches of the pair kernels of `loss.cu`: the loss of two views, the disambiguation of the rows it is against, or both at once.

use super::ViewProduct;
use crate::device::Tensor;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::Disambiguate;
use crate::ops::loss::{Loss, Term};

/// Classes that a warp keeps in registers at most.
const REGISTER_CLASSES: usize = 256;

/// Warps of a block of the kernels that give a row to a warp.
const WARPS: usize = 2;

/// The rows of a launch.
struct Rows {
    batch: usize,
    classes: usize,
    logits: Tensor,
    index: Tensor,
    confidence: Tensor,
}

impl Rows {
    fn of(next: &Disambiguate) -> Self {
        let Disambiguate { batch, classes, logits, index, confidence, .. } = *next;
        Self { batch, classes, logits, index, confidence }
    }
}

/// Lowers a loss, if it is that of plain views, both of each sample, against the store; returns whether.
pub(super) fn lower_loss(of: &Loss, gpu: &mut Lowering<'_>) -> bool {
    let Loss { batch, classes, logits, target: confidence, .. } = *of;
    match of.index {
        Some(index) if (of.term, of.views, of.first) == (Term::Plain, 2, 0) => {
            launch(&Rows { batch, classes, logits, index, confidence }, Some(of), None, gpu);
            true
        }
        _ => false,
    }
}

/// Lowers a disambiguation.
pub(super) fn lower_disambiguation(of: &Disambiguate, rule: ViewProduct, gpu: &mut Lowering<'_>) {
    launch(&Rows::of(of), None, Some((of, rule)), gpu);
}

/// Lowers a loss and the disambiguation of its rows as one launch.
pub(super) fn lower_both(loss: &Loss, next: &Disambiguate, rule: ViewProduct, gpu: &mut Lowering<'_>) {
    launch(&Rows::of(next), Some(loss), Some((next, rule)), gpu);
}

fn launch(
    rows: &Rows,
    loss: Option<&Loss>,
    next: Option<(&Disambiguate, ViewProduct)>,
    gpu: &mut Lowering<'_>,
) {
    let &Rows { batch, classes, .. } = rows;
    let arguments = Arguments::new()
        .pointer(gpu.address(rows.logits))
        .pointer(gpu.address(rows.index))
        .pointer(gpu.address(rows.confidence))
        .pointer(gpu.optional(loss.map(|loss| loss.d_logits)))
        .pointer(gpu.optional(loss.map(|loss| loss.loss_rows)))
        .pointer(gpu.optional(next.map(|(next, _)| next.control)))
        .pointer(gpu.optional(next.map(|(next, _)| next.candidates)))
        .pointer(gpu.optional(next.and_then(|(next, _)| next.log_prior)))
        .count(batch)
        .count(classes)
        .count(usize::from(next.is_some_and(|(_, rule)| rule == ViewProduct::OverCandidates)));
    let name = match classes.div_ceil(32) {
        0..=1 => "pair_32",
        2 => "pair_64",
        3..=4 => "pair_128",
        5..=8 => "pair_256",
        _ => "pair_wide",
    };
    let (blocks, threads) =
        if classes > REGISTER_CLASSES { (batch, 256) } else { (batch.div_ceil(WARPS), 32 * WARPS) };
    gpu.launch(Launch::linear(Kernel { file: "loss.cu", name }, blocks, threads, arguments));
}
