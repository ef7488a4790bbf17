//! SoLar's masked predictions, choice of samples, loss, and the count behind its class prior.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use super::loss_by_kind::row_threads;
use crate::device::Primitive;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};

/// Threads of the one block that chooses or counts.
const THREADS: usize = 1024;

/// Shared memory that such a kernel has beside what is asked for here.
const SHARED_RESERVED: usize = 512;

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: "solar.cu", name }
}

/// One block with `bytes` of shared memory.
fn launch_one_block(
    lowering: &mut Lowering<'_>,
    name: &'static str,
    bytes: usize,
    arguments: Arguments,
) -> Result<()> {
    let limit = lowering.gpu().shared_bytes;
    ensure!(
        bytes + SHARED_RESERVED <= limit,
        "{name}: its {bytes} bytes are more than the {limit} of a block"
    );
    let launch = Launch::linear(kernel(name), 1, THREADS, arguments);
    lowering.launch(Launch { shared_bytes: bytes as u32, ..launch });
    Ok(())
}

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::MaskedSoftmax { batch, classes, logits, candidates, index, out } => {
            let arguments = Arguments::new()
                .pointer(lowering.address(logits))
                .pointer(lowering.address(candidates))
                .pointer(lowering.address(index))
                .pointer(lowering.address(out))
                .count(classes);
            let threads = row_threads(classes);
            lowering.launch(Launch::linear(kernel("masked_softmax"), batch, threads, arguments));
        }
        Primitive::CountLargest { rows, classes, x, counts } => {
            let arguments = Arguments::new()
                .pointer(lowering.address(x))
                .pointer(lowering.address(counts))
                .counts(&[rows, classes]);
            launch_one_block(lowering, "count_largest", classes * size_of::<i32>(), arguments)?;
        }
        Primitive::ChooseSamples {
            batch,
            classes,
            threshold,
            logits,
            refined,
            class_prior,
            control,
            permutations,
            step,
            chosen,
            rows,
            partners,
            count,
        } => {
            let steps = lowering.len(permutations) / batch;
            ensure!(steps > 0, "choose samples: no permutation of the batch");
            let arguments = Arguments::new()
                .pointer(lowering.address(logits))
                .pointer(lowering.address(refined))
                .pointer(lowering.address(class_prior))
                .pointer(lowering.address(control))
                .pointer(lowering.address(permutations))
                .pointer(lowering.address(step))
                .pointer(lowering.address(chosen))
                .pointer(lowering.address(rows))
                .pointer(lowering.address(partners))
                .pointer(lowering.address(count))
                .float(threshold)
                .counts(&[batch, classes, steps]);
            let bytes = batch * (size_of::<f32>() + size_of::<i32>());
            launch_one_block(lowering, "choose_samples", bytes, arguments)?;
        }
        Primitive::SolarLoss {
            batch,
            classes,
            weak,
            strong,
            refined,
            mixed,
            confidence,
            index,
            chosen,
            count,
            control,
            d_weak,
            d_strong,
            loss_rows,
        } => {
            let arguments = Arguments::new()
                .pointer(lowering.address(weak))
                .pointer(lowering.address(strong))
                .pointer(lowering.address(refined))
                .pointer(lowering.optional(mixed.map(|mixed| mixed.logits)))
                .pointer(lowering.optional(mixed.map(|mixed| mixed.target)))
                .pointer(lowering.address(confidence))
                .pointer(lowering.address(index))
                .pointer(lowering.address(chosen))
                .pointer(lowering.address(count))
                .pointer(lowering.address(control))
                .pointer(lowering.address(d_weak))
                .pointer(lowering.address(d_strong))
                .pointer(lowering.optional(mixed.map(|mixed| mixed.d_logits)))
                .pointer(lowering.address(loss_rows))
                .count(classes);
            lowering.launch(Launch::linear(kernel("solar_loss"), batch, row_threads(classes), arguments));
        }
        _ => bail!("no kernel for the primitive '{}' in this family", primitive.name()),
    }
    Ok(())
}
