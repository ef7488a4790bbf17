//! Launches of `loss_by_kind.cu`: a block for each row.

use super::{Loss, Term};
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::Disambiguate;
use crate::ops::rows::row_threads;

/// Launches a kernel of the file over `batch` rows of `classes`.
pub(in crate::ops) fn launch_rows(
    gpu: &mut Lowering<'_>,
    name: &'static str,
    [batch, classes]: [usize; 2],
    arguments: Arguments,
) {
    let kernel = Kernel { file: "loss_by_kind.cu", name };
    gpu.launch(Launch::linear(kernel, batch, row_threads(classes), arguments));
}

/// Lowers a loss alone.
pub(super) fn lower(of: &Loss, gpu: &mut Lowering<'_>) {
    let control = match of.term {
        Term::Plain => None,
        Term::Mixed { control } => Some(control),
    };
    let arguments = Arguments::new()
        .pointer(gpu.address(of.logits))
        .pointer(gpu.optional(of.index))
        .pointer(gpu.optional(of.row_loss.reads_target().then_some(of.target)))
        .pointer(gpu.optional(of.row_loss.reads_candidates().then_some(of.candidates)))
        .pointer(gpu.optional(control))
        .pointer(gpu.address(of.d_logits))
        .pointer(gpu.address(of.loss_rows))
        .float(of.row_loss.constant())
        .count(of.classes)
        .count(of.views)
        .count(of.first);
    launch_rows(gpu, of.row_loss.kernel(), [of.batch, of.classes], arguments);
}

/// Lowers a loss of one view and the disambiguation of its rows as one launch.
pub(in crate::ops) fn launch_joint(
    loss: &Loss,
    next: &Disambiguate,
    kernel: &'static str,
    gpu: &mut Lowering<'_>,
) {
    let arguments = Arguments::new()
        .pointer(gpu.address(loss.logits))
        .pointer(gpu.address(next.index))
        .pointer(gpu.address(next.confidence))
        .pointer(gpu.address(next.candidates))
        .pointer(gpu.optional(next.log_prior))
        .pointer(gpu.address(next.control))
        .pointer(gpu.address(loss.d_logits))
        .pointer(gpu.address(loss.loss_rows))
        .float(loss.row_loss.constant())
        .count(loss.classes);
    launch_rows(gpu, kernel, [loss.batch, loss.classes], arguments);
}
