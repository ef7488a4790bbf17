//! Launches of `loss_by_kind.cu`: one block per row.

use super::{Loss, Term};
use crate::device::gpu::kernels::loss_by_kind::{LossAndDisambiguate, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::Disambiguate;
use crate::ops::rows::row_threads;

/// Lowers a loss without a disambiguation.
pub(super) fn lower(of: &Loss, gpu: &mut Lowering<'_>) {
    let control = match of.term {
        Term::Plain => None,
        Term::Mixed { control } => Some(control),
    };
    let rows = LossRows {
        classes: of.classes,
        views: of.views,
        first: of.first,
        beta: of.row_loss.constant(),
        logits: gpu.address(of.logits),
        index: gpu.optional(of.index),
        target: gpu.optional(of.row_loss.reads_target().then_some(of.target)),
        candidates: gpu.optional(of.row_loss.reads_candidates().then_some(of.candidates)),
        control: gpu.optional(control),
        d_logits: gpu.address(of.d_logits),
        loss_rows: gpu.address(of.loss_rows),
    };
    gpu.launch(of.row_loss.kernel().linear(of.batch, row_threads(of.classes), rows));
}

/// Lowers a loss of one view and the disambiguation of its rows as one launch.
pub(in crate::ops) fn launch_joint(
    loss: &Loss,
    next: &Disambiguate,
    kernel: KernelOf<LossAndDisambiguate>,
    gpu: &mut Lowering<'_>,
) {
    let parameters = LossAndDisambiguate {
        rows: next.kernel_rows(gpu),
        beta: loss.row_loss.constant(),
        d_logits: gpu.address(loss.d_logits),
        loss_rows: gpu.address(loss.loss_rows),
    };
    gpu.launch(kernel.linear(loss.batch, row_threads(loss.classes), parameters));
}
