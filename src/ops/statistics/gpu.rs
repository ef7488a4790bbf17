//! Launches of the counting kernels in `loss.cu`.

use super::{ConfidenceStatistics, CountFiniteSteps, StepStatistics};
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;

const FILE: &str = "loss.cu";

/// Rows of confidence that a block of the statistics takes at a time: 32 for each of its eight warps.
const BLOCK_ROWS: usize = 256;

pub(super) fn lower_step(of: &StepStatistics, gpu: &mut Lowering<'_>) {
    let arguments = Arguments::new()
        .pointer(gpu.address(of.logits))
        .pointer(gpu.address(of.labels))
        .pointer(gpu.address(of.index))
        .pointer(gpu.address(of.loss_rows))
        .pointer(gpu.address(of.counters))
        .count(of.batch)
        .count(of.classes);
    gpu.launch(Launch::linear(Kernel { file: FILE, name: "step_statistics" }, 1, 1024, arguments));
}

pub(super) fn lower_finite_steps(of: &CountFiniteSteps, gpu: &mut Lowering<'_>) {
    let arguments = Arguments::new()
        .pointer(gpu.address(of.values))
        .pointer(gpu.address(of.counters))
        .count(of.len)
        .count(of.slot);
    gpu.launch(Launch::linear(Kernel { file: FILE, name: "count_finite_steps" }, 1, 1024, arguments));
}

pub(super) fn lower_confidence(of: &ConfidenceStatistics, gpu: &mut Lowering<'_>) {
    // Four blocks of eight warps keep the loads of a multiprocessor in flight.
    let blocks = of.rows.div_ceil(BLOCK_ROWS).min(4 * gpu.gpu().multiprocessors);
    let sums = gpu.workspace(blocks * size_of::<f64>());
    let hits = gpu.workspace(blocks * size_of::<i32>());
    let arguments = Arguments::new()
        .pointer(gpu.address(of.confidence))
        .pointer(gpu.optional(of.candidates))
        .pointer(gpu.address(of.labels))
        .pointer(sums)
        .pointer(hits)
        .count(of.rows)
        .count(of.classes);
    gpu.launch(Launch::linear(Kernel { file: FILE, name: "confidence_statistics" }, blocks, 256, arguments));
    let arguments = Arguments::new()
        .pointer(sums)
        .pointer(hits)
        .pointer(gpu.address(of.out))
        .count(blocks)
        .count(of.rows);
    let kernel = Kernel { file: FILE, name: "confidence_statistics_total" };
    gpu.launch(Launch::linear(kernel, 1, 32, arguments));
}
