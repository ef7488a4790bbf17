//! The label refinery of SoLar.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::{Primitive, primitive::SinkhornSettings};

const FILE: &str = "sinkhorn.cu";

const THREADS: usize = 512;

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
    let (name, shared_bytes) =
        if with_slice <= limit { ("sinkhorn_resident", with_slice) } else { ("sinkhorn_streaming", vectors) };

    let partials = lowering.workspace(2 * blocks * (classes + 1) * size_of::<f32>());
    let arguments = Arguments::new()
        .pointer(lowering.address(predictions))
        .pointer(lowering.optional(queue))
        .pointer(lowering.address(class_prior))
        .pointer(lowering.address(barrier))
        .pointer(partials)
        .pointer(lowering.address(refined))
        .pointer(lowering.address(outcome))
        .count(batch)
        .count(queue_rows)
        .count(classes)
        .count(rounds)
        .count(check_every)
        .count(slice_rows)
        .float(power)
        .float(tolerance)
        .float(relaxation);
    let launch = Launch::linear(Kernel { file: FILE, name }, blocks, THREADS, arguments);
    lowering.launch(Launch { shared_bytes: shared_bytes as u32, cooperative: true, ..launch });
    Ok(())
}
