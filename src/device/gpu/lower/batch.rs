//! What feeds a step: [`Primitive::SelectBatch`], [`Primitive::AdvanceStep`], [`Primitive::NormaliseImages`],
//! [`Primitive::StoreRows`] and [`Primitive::Mixup`].

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::{Element, Primitive, Tensor};

const FILE: &str = "batch.cu";
const THREADS: usize = 256;

/// Launches of [`THREADS`] threads that a multiprocessor holds at once: 1536 threads of an RTX 3090's.
const RESIDENT_BLOCKS: usize = 6;

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: FILE, name }
}

impl Lowering<'_> {
    fn len(&self, tensor: Tensor) -> usize {
        self.buffers[tensor.0].len
    }
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
        Primitive::AdvanceStep { step, modulus: None } => {
            let arguments = Arguments::new().pointer(lowering.address(step));
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
        Primitive::Mixup { batch, rows, len, weights, permutations, step, index, x, out: Some(out) } => {
            let steps = lowering.len(weights);
            ensure!(
                steps > 0 && lowering.len(permutations) == steps * batch,
                "a mixup needs a weight and a permutation of the batch for every step"
            );
            ensure!(index.is_none() || rows == batch, "a mixup of indexed rows is one group");
            ensure!(lowering.element(x) == lowering.element(out), "a mixup keeps the type of its rows");
            let (name, vector) = match lowering.element(x) {
                Element::Bf16 => ("mixup_bf16", 8),
                _ => ("mixup_f32", 4),
            };
            // A thread has one vector of a row, or one value where rows are no whole vectors; four in rows too long for
            // a block.
            let units = if len % vector == 0 { len / vector } else { len };
            let threads = units.next_multiple_of(32).min(THREADS);
            let parts = units.div_ceil(4 * threads);
            let arguments = Arguments::new()
                .pointer(lowering.address(weights))
                .pointer(lowering.address(permutations))
                .pointer(lowering.address(step))
                .pointer(lowering.optional(index))
                .pointer(lowering.address(x))
                .pointer(lowering.address(out))
                .counts(&[batch, len, steps]);
            let mut launch = Launch::linear(kernel(name), rows, threads, arguments);
            launch.grid[1] = parts as u32;
            lowering.launch(launch);
        }
        _ => bail!("no kernel for the primitive '{}' in {FILE}", primitive.name()),
    }
    Ok(())
}
