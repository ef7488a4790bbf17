//! What feeds a step: [`Primitive::SelectBatch`], [`Primitive::AdvanceStep`], [`Primitive::NormaliseImages`],
//! [`Primitive::StoreRows`], [`Primitive::Mixup`] and [`Primitive::MixupChosen`].

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::{Element, Primitive};

const FILE: &str = "batch.cu";
const THREADS: usize = 256;

/// Launches of [`THREADS`] threads that a multiprocessor holds at once: 1536 threads of an RTX 3090's.
const RESIDENT_BLOCKS: usize = 6;

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: FILE, name }
}

/// A launch over rows of `len` of the type `element`: a block a row, or several where rows are long.
fn by_rows(
    names: [&'static str; 2],
    element: Element,
    rows: usize,
    len: usize,
    arguments: Arguments,
) -> Launch {
    let (name, vector) = match element {
        Element::Bf16 => (names[0], 8),
        _ => (names[1], 4),
    };
    // A thread has one vector of a row, or one value where rows are no whole vectors; four in rows too long for a block.
    let units = if len.is_multiple_of(vector) { len / vector } else { len };
    let threads = units.next_multiple_of(32).min(THREADS);
    let mut launch = Launch::linear(kernel(name), rows, threads, arguments);
    launch.grid[1] = units.div_ceil(4 * threads) as u32;
    launch
}

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::SelectBatch { batch, order, step, index } => {
            let steps = lowering.len(order) / batch;
            ensure!(steps > 0, "an order of fewer samples than a batch");
            let arguments = Arguments::new()
                .pointer(lowering.address(order))
                .pointer(lowering.address(step))
                .pointer(lowering.address(index))
                .counts(&[batch, steps]);
            let blocks = batch.div_ceil(THREADS);
            lowering.launch(Launch::linear(kernel("select_batch"), blocks, THREADS, arguments));
        }
        Primitive::AdvanceStep { step, modulus } => {
            ensure!(modulus != Some(0), "a step is of at least one");
            let arguments = Arguments::new().pointer(lowering.address(step)).count(modulus.unwrap_or(0));
            lowering.launch(Launch::linear(kernel("advance_step"), 1, 1, arguments));
        }
        Primitive::NormaliseImages { batch, pixels, images, step, normalisation, x } => {
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
        }
        Primitive::StoreRows { batch, columns, rows, step, store } => {
            let len = batch * columns;
            let arguments = Arguments::new()
                .pointer(lowering.address(rows))
                .pointer(lowering.address(step))
                .pointer(lowering.address(store))
                .counts(&[len, lowering.len(store) / len]);
            lowering.launch(Launch::linear(kernel("store_rows"), len.div_ceil(THREADS), THREADS, arguments));
        }
        Primitive::Mixup { batch, rows, len, weights, permutations, step, index, x, out } => {
            let steps = lowering.len(weights);
            ensure!(
                steps > 0 && lowering.len(permutations) == steps * batch,
                "a mixup needs a weight and a permutation of the batch for every step"
            );
            ensure!(index.is_none() || rows == batch, "a mixup of indexed rows is one group");
            let element = lowering.element(x);
            let to = match out {
                Some(out) => {
                    ensure!(lowering.element(out) == element, "a mixup keeps the type of its rows");
                    lowering.address(out)
                }
                None => {
                    ensure!(lowering.len(x) == 2 * rows * len, "no room for mixed rows behind those given");
                    lowering.address(x) + (rows * len * element.bytes()) as u64
                }
            };
            let arguments = Arguments::new()
                .pointer(lowering.address(weights))
                .pointer(lowering.address(permutations))
                .pointer(lowering.address(step))
                .pointer(lowering.optional(index))
                .pointer(lowering.address(x))
                .pointer(to)
                .counts(&[batch, len, steps]);
            lowering.launch(by_rows(["mixup_bf16", "mixup_f32"], element, rows, len, arguments));
        }
        Primitive::MixupChosen { batch, len, weights, step, rows, partners, count, x, out } => {
            let (steps, element) = (lowering.len(weights), lowering.element(x));
            ensure!(steps > 0, "a mixup needs a weight for every step");
            ensure!(lowering.element(out) == element, "a mixup keeps the type of its rows");
            let arguments = Arguments::new()
                .pointer(lowering.address(weights))
                .pointer(lowering.address(step))
                .pointer(lowering.address(rows))
                .pointer(lowering.address(partners))
                .pointer(lowering.address(count))
                .pointer(lowering.address(x))
                .pointer(lowering.address(out))
                .counts(&[len, steps]);
            let names = ["mixup_chosen_bf16", "mixup_chosen_f32"];
            lowering.launch(by_rows(names, element, batch, len, arguments));
        }
        _ => bail!("no kernel for the primitive '{}' in {FILE}", primitive.name()),
    }
    Ok(())
}
