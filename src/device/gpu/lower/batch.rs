//! What feeds a step: [`Primitive::SelectBatch`], [`Primitive::AdvanceStep`], [`Primitive::NormaliseImages`],
//! [`Primitive::StoreRows`], [`Primitive::Mixup`] and [`Primitive::MixupChosen`].

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::kernels::batch::{self as kernels, THREADS};
use crate::device::gpu::launch::{KernelOf, Launch, Parameters};
use crate::device::{Element, Primitive};

/// Launches of [`THREADS`] threads that a multiprocessor holds at once: 1536 threads of an RTX 3090's.
const RESIDENT_BLOCKS: usize = 6;

/// A launch over rows of `len` of the type `element`: a block a row, or several where rows are long.
fn by_rows<P: Parameters>(
    [bf16, f32]: [KernelOf<P>; 2],
    element: Element,
    rows: usize,
    len: usize,
    parameters: P,
) -> Launch {
    let (kernel, vector) = match element {
        Element::Bf16 => (bf16, 8),
        _ => (f32, 4),
    };
    // A thread has one vector of a row, or one value where rows are no whole vectors; four in rows too long for a block.
    let units = if len.is_multiple_of(vector) { len / vector } else { len };
    let threads = units.next_multiple_of(32).min(THREADS);
    let mut launch = kernel.linear(rows, threads, parameters);
    launch.grid[1] = units.div_ceil(4 * threads) as u32;
    launch
}

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::SelectBatch { batch, order, step, index } => {
            let steps = lowering.len(order) / batch;
            ensure!(steps > 0, "an order of fewer samples than a batch");
            let parameters = kernels::SelectBatch {
                batch,
                steps,
                order: lowering.address(order),
                step: lowering.address(step),
                index: lowering.address(index),
            };
            lowering.launch(kernels::SELECT_BATCH.linear(batch.div_ceil(THREADS), THREADS, parameters));
        }
        Primitive::AdvanceStep { step, modulus } => {
            ensure!(modulus != Some(0), "a step is of at least one");
            let parameters =
                kernels::AdvanceStep { modulus: modulus.unwrap_or(0), step: lowering.address(step) };
            lowering.launch(kernels::ADVANCE_STEP.linear(1, 1, parameters));
        }
        Primitive::NormaliseImages { batch, pixels, images, step, normalisation, x } => {
            let count = lowering.len(images) / (3 * pixels);
            let kernel = match lowering.element(x) {
                Element::Bf16 => kernels::NORMALISE_IMAGES_BF16,
                _ => kernels::NORMALISE_IMAGES_F32,
            };
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
        }
        Primitive::StoreRows { batch, columns, rows, step, store } => {
            let len = batch * columns;
            let parameters = kernels::StoreRows {
                len,
                steps: lowering.len(store) / len,
                rows: lowering.address(rows),
                step: lowering.address(step),
                store: lowering.address(store),
            };
            lowering.launch(kernels::STORE_ROWS.linear(len.div_ceil(THREADS), THREADS, parameters));
        }
        Primitive::Mixup { batch, rows, len, weights, permutations, step, index, x, out } => {
            let steps = lowering.len(weights);
            ensure!(
                steps > 0 && lowering.len(permutations) == steps * batch,
                "a mixup needs a weight and a permutation of the batch for every step"
            );
            ensure!(index.is_none() || rows == batch, "a mixup of indexed rows is one group");
            let element = lowering.element(x);
            let out = match out {
                Some(out) => {
                    ensure!(lowering.element(out) == element, "a mixup keeps the type of its rows");
                    lowering.address(out)
                }
                None => {
                    ensure!(lowering.len(x) == 2 * rows * len, "no room for mixed rows behind those given");
                    lowering.address(x).plus(rows * len * element.bytes())
                }
            };
            let parameters = kernels::Mixup {
                batch,
                len,
                steps,
                weights: lowering.address(weights),
                permutations: lowering.address(permutations),
                step: lowering.address(step),
                index: lowering.optional(index),
                x: lowering.address(x),
                out,
            };
            let kernels = [kernels::MIXUP_BF16, kernels::MIXUP_F32];
            lowering.launch(by_rows(kernels, element, rows, len, parameters));
        }
        Primitive::MixupChosen { batch, len, weights, step, rows, partners, count, x, out } => {
            let (steps, element) = (lowering.len(weights), lowering.element(x));
            ensure!(steps > 0, "a mixup needs a weight for every step");
            ensure!(lowering.element(out) == element, "a mixup keeps the type of its rows");
            let parameters = kernels::MixupChosen {
                len,
                steps,
                weights: lowering.address(weights),
                step: lowering.address(step),
                rows: lowering.address(rows),
                partners: lowering.address(partners),
                count: lowering.address(count),
                x: lowering.address(x),
                out: lowering.address(out),
            };
            let kernels = [kernels::MIXUP_CHOSEN_BF16, kernels::MIXUP_CHOSEN_F32];
            lowering.launch(by_rows(kernels, element, batch, len, parameters));
        }
        _ => bail!("no kernel for the primitive '{}' in this family", primitive.name()),
    }
    Ok(())
}
