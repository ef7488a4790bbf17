//! Launches of `batch.cu`.

use anyhow::{Result, ensure};

use super::{AdvanceStep, NormaliseImages, SelectBatch, StoreRows};
use crate::device::gpu::kernels::batch::{self as kernels, THREADS};
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;

/// Blocks of [`THREADS`] threads that a multiprocessor holds at once: 1536 threads on an RTX 3090.
const RESIDENT_BLOCKS: usize = 6;

/// Lowers the selection of a batch.
pub(super) fn select_batch(lowering: &mut Lowering<'_>, operation: &SelectBatch) -> Result<()> {
    let &SelectBatch { batch, order, step, index } = operation;
    let steps = lowering.len(order) / batch;
    ensure!(steps > 0, "the order has fewer samples than a batch");
    let [order, step, index] = [order, step, index].map(|tensor| lowering.address(tensor));
    let parameters = kernels::SelectBatch { batch, steps, order, step, index };
    lowering.launch(kernels::SELECT_BATCH.linear(batch.div_ceil(THREADS), THREADS, parameters));
    Ok(())
}

/// Lowers the step counter.
pub(super) fn advance_step(lowering: &mut Lowering<'_>, operation: &AdvanceStep) -> Result<()> {
    let &AdvanceStep { step, modulus } = operation;
    ensure!(modulus != Some(0), "the modulus of a step counter is 0");
    let parameters = kernels::AdvanceStep { modulus: modulus.unwrap_or(0), step: lowering.address(step) };
    lowering.launch(kernels::ADVANCE_STEP.linear(1, 1, parameters));
    Ok(())
}

/// Lowers the normalisation of images.
pub(super) fn normalise_images(lowering: &mut Lowering<'_>, operation: &NormaliseImages) -> Result<()> {
    let &NormaliseImages { batch, pixels, images, step, normalisation, x } = operation;
    let count = lowering.len(images) / (3 * pixels);
    use kernels::{NORMALISE_IMAGES_BF16, NORMALISE_IMAGES_F16, NORMALISE_IMAGES_F32};
    let kernels = [NORMALISE_IMAGES_BF16, NORMALISE_IMAGES_F16, NORMALISE_IMAGES_F32];
    let kernel = by_type(lowering.element(x), kernels)?;
    let parameters = kernels::NormaliseImages {
        batch,
        pixels,
        count,
        images: lowering.address(images),
        step: lowering.address(step),
        normalisation: lowering.address(normalisation),
        x: lowering.address(x),
    };
    let blocks = batch.min(RESIDENT_BLOCKS * lowering.gpu().multiprocessors);
    lowering.launch(kernel.linear(blocks, THREADS, parameters));
    Ok(())
}

/// Lowers the storing of rows.
pub(super) fn store_rows(lowering: &mut Lowering<'_>, operation: &StoreRows) -> Result<()> {
    let &StoreRows { batch, columns, rows, step, store } = operation;
    let len = batch * columns;
    let parameters = kernels::StoreRows {
        len,
        steps: lowering.len(store) / len,
        rows: lowering.address(rows),
        step: lowering.address(step),
        store: lowering.address(store),
    };
    lowering.launch(kernels::STORE_ROWS.linear(len.div_ceil(THREADS), THREADS, parameters));
    Ok(())
}
