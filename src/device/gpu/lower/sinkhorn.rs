//! The label refinery of SoLar.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::kernels::sinkhorn::{self as kernels, THREADS};
use crate::device::gpu::launch::Launch;
use crate::device::{Primitive, primitive::SinkhornSettings};

/// Fewer rows than this are not worth another block at the barrier.
const LEAST_ROWS: usize = 64;

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    let Primitive::Sinkhorn {
        batch,
        queue_rows,
        classes,
        settings,
        predictions,
        queue,
        class_prior,
        barrier,
        refined,
        outcome,
    } = *primitive
    else {
        bail!("no kernel for the primitive '{}' in this family", primitive.name())
    };
    let SinkhornSettings { power, rounds, check_every, tolerance, relaxation } = settings;
    ensure!(rounds > 0 && check_every > 0, "sinkhorn: no rounds, or none after which the error is looked at");
    let rows = batch + queue_rows;
    let blocks = rows.div_ceil(LEAST_ROWS).min(lowering.gpu().multiprocessors);
    let slice_rows = rows.div_ceil(blocks);

    let limit = lowering.gpu().shared_bytes;
    let vectors = size_of::<f32>() * (2 * classes + 1 + THREADS + slice_rows);
    ensure!(vectors <= limit, "sinkhorn: {classes} classes and {rows} rows are more than {limit} bytes hold");
    let with_slice = vectors + size_of::<f32>() * slice_rows * (classes + 1);
    let (kernel, shared_bytes) = if with_slice <= limit {
        (kernels::SINKHORN_RESIDENT, with_slice)
    } else {
        (kernels::SINKHORN_STREAMING, vectors)
    };

    let partials = lowering.workspace(2 * blocks * (classes + 1) * size_of::<f32>());
    let parameters = kernels::Sinkhorn {
        batch,
        queue_rows,
        classes,
        rounds,
        check_every,
        slice_rows,
        power,
        tolerance,
        relaxation,
        predictions: lowering.address(predictions),
        queue: lowering.optional(queue),
        class_prior: lowering.address(class_prior),
        barrier: lowering.address(barrier),
        partials,
        pseudo_labels: lowering.address(refined),
        outcome: lowering.address(outcome),
    };
    let launch = kernel.linear(blocks, THREADS, parameters);
    lowering.launch(Launch { shared_bytes: shared_bytes as u32, cooperative: true, ..launch });
    Ok(())
}
