//! SoLar's masked predictions, choice of samples, loss, and the count behind its class prior.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use super::loss_by_kind::row_threads;
use crate::device::Primitive;
use crate::device::gpu::kernels::solar::{self as kernels, CHOICE_THREADS};
use crate::device::gpu::launch::{KernelOf, Launch, Parameters};

/// Shared memory that such a kernel has beside what is asked for here.
const SHARED_RESERVED: usize = 512;

/// One block with `bytes` of shared memory.
fn launch_one_block<P: Parameters>(
    lowering: &mut Lowering<'_>,
    kernel: KernelOf<P>,
    bytes: usize,
    parameters: P,
) -> Result<()> {
    let (name, limit) = (kernel.kernel.name, lowering.gpu().shared_bytes);
    ensure!(
        bytes + SHARED_RESERVED <= limit,
        "{name}: its {bytes} bytes are more than the {limit} of a block"
    );
    let launch = kernel.linear(1, CHOICE_THREADS, parameters);
    lowering.launch(Launch { shared_bytes: bytes as u32, ..launch });
    Ok(())
}

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::MaskedSoftmax { batch, classes, logits, candidates, index, out } => {
            let parameters = kernels::MaskedSoftmax {
                classes,
                logits: lowering.address(logits),
                candidates: lowering.address(candidates),
                index: lowering.address(index),
                out: lowering.address(out),
            };
            lowering.launch(kernels::MASKED_SOFTMAX.linear(batch, row_threads(classes), parameters));
        }
        Primitive::CountLargest { rows, classes, x, counts } => {
            let [x, counts] = [x, counts].map(|tensor| lowering.address(tensor));
            let parameters = kernels::CountArgmax { rows, classes, x, counts };
            launch_one_block(lowering, kernels::COUNT_ARGMAX, classes * size_of::<i32>(), parameters)?;
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
            let parameters = kernels::ChooseSamples {
                batch,
                classes,
                steps,
                threshold,
                logits: lowering.address(logits),
                pseudo_labels: lowering.address(refined),
                class_prior: lowering.address(class_prior),
                control: lowering.address(control),
                permutations: lowering.address(permutations),
                step: lowering.address(step),
                chosen: lowering.address(chosen),
                rows: lowering.address(rows),
                partners: lowering.address(partners),
                count: lowering.address(count),
            };
            let bytes = batch * (size_of::<f32>() + size_of::<i32>());
            launch_one_block(lowering, kernels::CHOOSE_SAMPLES, bytes, parameters)?;
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
            let parameters = kernels::SolarLoss {
                classes,
                weak: lowering.address(weak),
                strong: lowering.address(strong),
                pseudo_labels: lowering.address(refined),
                mixed: lowering.optional(mixed.map(|mixed| mixed.logits)),
                mixed_target: lowering.optional(mixed.map(|mixed| mixed.target)),
                confidence: lowering.address(confidence),
                index: lowering.address(index),
                chosen: lowering.address(chosen),
                count: lowering.address(count),
                control: lowering.address(control),
                d_weak: lowering.address(d_weak),
                d_strong: lowering.address(d_strong),
                d_mixed: lowering.optional(mixed.map(|mixed| mixed.d_logits)),
                loss_rows: lowering.address(loss_rows),
            };
            lowering.launch(kernels::SOLAR_LOSS.linear(batch, row_threads(classes), parameters));
        }
        _ => bail!("no kernel for the primitive '{}' in this family", primitive.name()),
    }
    Ok(())
}
