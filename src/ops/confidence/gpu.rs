//! Launches of the disambiguations in `loss_by_kind.cu`: one block per row.

use super::Disambiguate;
use crate::device::gpu::kernels::loss_by_kind::ConfidenceRows;
use crate::device::gpu::launch::KernelOf;
use crate::device::gpu::lower::Lowering;
use crate::ops::rows::row_threads;

impl Disambiguate {
    /// The parameters of the kernels.
    pub(in crate::ops) fn kernel_rows(&self, gpu: &Lowering<'_>) -> ConfidenceRows {
        ConfidenceRows {
            classes: self.classes,
            logits: gpu.address(self.logits),
            index: gpu.address(self.index),
            log_prior: gpu.optional(self.log_prior),
            candidates: gpu.address(self.candidates),
            control: gpu.address(self.control),
            confidence: gpu.address(self.confidence),
        }
    }

    /// Launches `kernel`, one of `loss_by_kind.cu` or another with the same parameters.
    pub fn lower_rows(&self, kernel: KernelOf<ConfidenceRows>, gpu: &mut Lowering<'_>) {
        let rows = self.kernel_rows(gpu);
        gpu.launch(kernel.linear(self.batch, row_threads(self.classes), rows));
    }
}
