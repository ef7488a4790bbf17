//! Launches of `batch.cu`.

use anyhow::{Result, ensure};

use super::{AdvanceStep, NormaliseImages, SelectBatch, StoreRows};
use crate::device::Element;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;

const FILE: &str = "batch.cu";
const THREADS: usize = 256;

/// Launches of [`THREADS`] threads that a multiprocessor holds at once: 1536 threads of an RTX 3090's.
const RESIDENT_BLOCKS: usize = 6;

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: FILE, name }
}

/// Lowers the choice of a batch.
pub(super) fn select_batch(lowering: &mut Lowering<'_>, operation: &SelectBatch) -> Result<()> {
    let &SelectBatch { batch, order, step, index } = operation;
    let steps = lowering.len(order) / batch;
    ensure!(steps > 0, "an order of fewer samples than a batch");
    let arguments = Arguments::new()
        .pointer(lowering.address(order))
        .pointer(lowering.address(step))
        .pointer(lowering.address(index))
        .counts(&[batch, steps]);
    let blocks = batch.div_ceil(THREADS);
    lowering.launch(Launch::linear(kernel("select_batch"), blocks, THREADS, arguments));
    Ok(())
}

/// Lowers the counting of a step.
pub(super) fn advance_step(lowering: &mut Lowering<'_>, operation: &AdvanceStep) -> Result<()> {
    let &AdvanceStep { step, modulus } = operation;
    ensure!(modulus != Some(0), "a step is of at least one");
    let arguments = Arguments::new().pointer(lowering.address(step)).count(modulus.unwrap_or(0));
    lowering.launch(Launch::linear(kernel("advance_step"), 1, 1, arguments));
    Ok(())
}

/// Lowers the normalisation of images.
pub(super) fn normalise_images(lowering: &mut Lowering<'_>, operation: &NormaliseImages) -> Result<()> {
    let &NormaliseImages { batch, pixels, images, step, normalisation, x } = operation;
    let count = lowering.len(images) / (3 * pixels);
    let name = match lowering.element(x) {
        Element::Bf16 => "normalise_images_bf16",
        _ => "normalise_images_f32",
    };
    let arguments = Arguments::new()
        .pointer(lowering.address(images))
        .pointer(lowering.address(step))
        .pointer(lowering.address(normalisation))
        .pointer(lowering.address(x))
        .counts(&[batch, pixels, count]);
    let blocks = batch.min(RESIDENT_BLOCKS * lowering.gpu().multiprocessors);
    lowering.launch(Launch::linear(kernel(name), blocks, THREADS, arguments));
    Ok(())
}

/// Lowers the storing of rows.
pub(super) fn store_rows(lowering: &mut Lowering<'_>, operation: &StoreRows) -> Result<()> {
    let &StoreRows { batch, columns, rows, step, store } = operation;
    let len = batch * columns;
    let arguments = Arguments::new()
        .pointer(lowering.address(rows))
        .pointer(lowering.address(step))
        .pointer(lowering.address(store))
        .counts(&[len, lowering.len(store) / len]);
    lowering.launch(Launch::linear(kernel("store_rows"), len.div_ceil(THREADS), THREADS, arguments));
    Ok(())
}
