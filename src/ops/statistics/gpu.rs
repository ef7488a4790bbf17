//! Launches of the counting kernels in `loss.cu`.

use super::{ConfidenceStatistics, CountFiniteSteps, StepStatistics};
use crate::device::gpu::kernels::loss::{self as kernels, CONFIDENCE_WARPS, STEP_THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};

/// Confidence rows that a block takes at a time: 32 for each of its warps.
const BLOCK_ROWS: usize = 32 * CONFIDENCE_WARPS;

pub(super) fn lower_step(of: &StepStatistics, gpu: &mut Lowering<'_>) {
    let parameters = kernels::StepStatistics {
        batch: of.batch,
        classes: of.classes,
        logits: gpu.address(of.logits),
        labels: gpu.address(of.labels),
        index: gpu.address(of.index),
        loss_rows: gpu.address(of.loss_rows),
        counters: gpu.address(of.counters),
    };
    gpu.launch(kernels::STEP_STATISTICS.linear(1, STEP_THREADS, parameters));
}

pub(super) fn lower_finite_steps(of: &CountFiniteSteps, gpu: &mut Lowering<'_>) {
    let parameters = kernels::CountFiniteSteps {
        len: of.len,
        slot: of.slot,
        values: gpu.address(of.values),
        counters: gpu.address(of.counters),
    };
    gpu.launch(kernels::COUNT_FINITE_STEPS.linear(1, STEP_THREADS, parameters));
}

pub(super) fn lower_confidence(of: &ConfidenceStatistics, gpu: &mut Lowering<'_>) {
    // Four blocks of eight warps keep the loads of a multiprocessor in flight.
    let blocks = of.rows.div_ceil(BLOCK_ROWS).min(4 * gpu.gpu().multiprocessors);
    let sums = gpu.workspace(blocks * size_of::<f64>());
    let hits = gpu.workspace(blocks * size_of::<i32>());
    let (rows, elements) = (of.rows, of.rows * of.classes);
    let partials = [Span::new(sums, blocks * size_of::<f64>()), Span::new(hits, blocks * size_of::<i32>())];
    let work = Work::of(elements as f64)
        .reading([of.confidence, of.labels].map(|tensor| gpu.span(tensor)))
        .reading(gpu.optional_span(of.candidates))
        .writing(partials);
    let parameters = kernels::ConfidenceStatistics {
        rows: of.rows,
        classes: of.classes,
        confidence: gpu.address(of.confidence),
        candidates: gpu.optional(of.candidates),
        labels: gpu.address(of.labels),
        sums,
        hits,
    };
    let launch = kernels::CONFIDENCE_STATISTICS.linear(blocks, 32 * CONFIDENCE_WARPS, parameters);
    gpu.launch(launch.doing(work));
    let work = Work::of(2.0 * blocks as f64).reading(partials).writing([gpu.span(of.out)]);
    let out = gpu.address(of.out);
    let parameters = kernels::ConfidenceStatisticsTotal { blocks, rows, sums, hits, out };
    gpu.launch(kernels::CONFIDENCE_STATISTICS_TOTAL.linear(1, 32, parameters).doing(work));
}
