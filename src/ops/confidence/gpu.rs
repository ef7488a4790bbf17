//! Launches of the disambiguations in `loss_by_kind.cu`: a block for each row.

use super::Disambiguate;
use crate::device::gpu::launch::Arguments;
use crate::device::gpu::lower::Lowering;
use crate::ops::loss::launch_rows;

/// Lowers a disambiguation alone.
pub(super) fn lower(of: &Disambiguate, kernel: &'static str, gpu: &mut Lowering<'_>) {
    let arguments = Arguments::new()
        .pointer(gpu.address(of.logits))
        .pointer(gpu.address(of.index))
        .pointer(gpu.optional(of.log_prior))
        .pointer(gpu.address(of.candidates))
        .pointer(gpu.address(of.control))
        .pointer(gpu.address(of.confidence))
        .count(of.classes);
    launch_rows(gpu, kernel, [of.batch, of.classes], arguments);
}
