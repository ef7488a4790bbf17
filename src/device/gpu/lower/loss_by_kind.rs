//! The losses by kind and the renewals by rule that the pair kernels do not do: a block a row.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::Primitive;
use crate::device::gpu::kernels::loss_by_kind::{
    self as kernels, ConfidenceRows, LossAndDisambiguate, LossRows, ROW_WARPS,
};
use crate::device::gpu::launch::KernelOf;
use crate::device::primitive::{ConfidenceRule, LossKind};

/// Classes of a warp of a block.
const WARP_CLASSES: usize = 128;

/// Threads of a block that does a row of `classes`.
pub(super) fn row_threads(classes: usize) -> usize {
    32 * classes.div_ceil(WARP_CLASSES).min(ROW_WARPS)
}

/// The kernel of a loss.
fn loss_kernel(kind: LossKind) -> KernelOf<LossRows> {
    match kind {
        LossKind::Consistency => kernels::LOSS_CONSISTENCY,
        LossKind::CrossEntropy => kernels::LOSS_CROSS_ENTROPY,
        LossKind::LeveragedSigmoid { .. } => kernels::LOSS_LEVERAGED_SIGMOID,
        LossKind::LeveragedCrossEntropy { .. } => kernels::LOSS_LEVERAGED_CROSS_ENTROPY,
        LossKind::CandidateSum => kernels::LOSS_CANDIDATE_SUM,
    }
}

/// The kernel of a renewal.
fn renewal_kernel(rule: ConfidenceRule) -> Option<KernelOf<ConfidenceRows>> {
    match rule {
        ConfidenceRule::Positive => Some(kernels::DISAMBIGUATE_POSITIVE),
        ConfidenceRule::Candidates => Some(kernels::DISAMBIGUATE_CANDIDATES),
        ConfidenceRule::Leveraged => Some(kernels::DISAMBIGUATE_LEVERAGED),
        ConfidenceRule::ActivationValue => Some(kernels::DISAMBIGUATE_ACTIVATION_VALUE),
        ConfidenceRule::Corr | ConfidenceRule::CorrDebiased => None,
    }
}

/// The kernel of a loss of one view and the renewal of the rows it is compared with, where there is one.
fn joint_kernel(kind: LossKind, rule: ConfidenceRule) -> Option<KernelOf<LossAndDisambiguate>> {
    use ConfidenceRule as Rule;
    use LossKind as Kind;
    match (kind, rule) {
        (Kind::CrossEntropy, Rule::Positive) => Some(kernels::CROSS_ENTROPY_DISAMBIGUATE_POSITIVE),
        (Kind::CrossEntropy, Rule::ActivationValue) => {
            Some(kernels::CROSS_ENTROPY_DISAMBIGUATE_ACTIVATION_VALUE)
        }
        (Kind::LeveragedSigmoid { .. }, Rule::Leveraged) => Some(kernels::LEVERAGED_SIGMOID_DISAMBIGUATE),
        (Kind::LeveragedCrossEntropy { .. }, Rule::Leveraged) => {
            Some(kernels::LEVERAGED_CROSS_ENTROPY_DISAMBIGUATE)
        }
        (Kind::CandidateSum, Rule::Candidates) => Some(kernels::CANDIDATE_SUM_DISAMBIGUATE),
        _ => None,
    }
}

fn beta(kind: LossKind) -> f32 {
    match kind {
        LossKind::LeveragedSigmoid { beta } | LossKind::LeveragedCrossEntropy { beta } => beta,
        LossKind::Consistency | LossKind::CrossEntropy | LossKind::CandidateSum => 0.0,
    }
}

/// Whether a loss and an update read the same logits and rows, and one kernel does both.
pub(super) fn fits(loss: &Primitive, update: &Primitive) -> bool {
    match (loss, update) {
        (
            &Primitive::Loss {
                kind,
                batch,
                classes,
                views: 1,
                first: 0,
                logits,
                target,
                candidates,
                index: Some(index),
                control: None,
                ..
            },
            &Primitive::UpdateConfidence {
                rule,
                batch: updated,
                classes: updated_classes,
                logits: updated_logits,
                candidates: updated_candidates,
                index: updated_index,
                confidence,
                ..
            },
        ) => {
            joint_kernel(kind, rule).is_some()
                && [batch, classes] == [updated, updated_classes]
                && [logits, index] == [updated_logits, updated_index]
                && (kind == LossKind::CandidateSum || target == confidence)
                && (!kind.reads_candidates() || candidates == Some(updated_candidates))
        }
        _ => false,
    }
}

/// Lowers a loss and the update that fits it as one launch.
pub(super) fn lower_with_update(
    lowering: &mut Lowering<'_>,
    loss: &Primitive,
    update: &Primitive,
) -> Result<()> {
    let (
        &Primitive::Loss { kind, batch, classes, logits, d_logits, loss_rows, .. },
        &Primitive::UpdateConfidence { rule, log_prior, candidates, index, control, confidence, .. },
    ) = (loss, update)
    else {
        bail!("'{}' and '{}' are no loss and its update", loss.name(), update.name())
    };
    let Some(kernel) = joint_kernel(kind, rule) else { bail!("no kernel does {kind:?} and {rule:?}") };
    let rows = ConfidenceRows {
        classes,
        logits: lowering.address(logits),
        index: lowering.address(index),
        log_prior: lowering.optional(log_prior),
        candidates: lowering.address(candidates),
        control: lowering.address(control),
        confidence: lowering.address(confidence),
    };
    let parameters = LossAndDisambiguate {
        rows,
        beta: beta(kind),
        d_logits: lowering.address(d_logits),
        loss_rows: lowering.address(loss_rows),
    };
    lowering.launch(kernel.linear(batch, row_threads(classes), parameters));
    Ok(())
}

/// Lowers a loss or an update.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    match *primitive {
        Primitive::Loss {
            kind,
            batch,
            classes,
            views,
            first,
            logits,
            target,
            candidates,
            index,
            control,
            d_logits,
            loss_rows,
        } => {
            ensure!(candidates.is_some() || !kind.reads_candidates(), "{kind:?} without candidates");
            let rows = LossRows {
                classes,
                views,
                first,
                beta: beta(kind),
                logits: lowering.address(logits),
                index: lowering.optional(index),
                target: lowering.address(target),
                candidates: lowering.optional(candidates),
                control: lowering.optional(control),
                d_logits: lowering.address(d_logits),
                loss_rows: lowering.address(loss_rows),
            };
            lowering.launch(loss_kernel(kind).linear(batch, row_threads(classes), rows));
        }
        Primitive::UpdateConfidence {
            rule,
            batch,
            classes,
            logits,
            log_prior,
            candidates,
            index,
            control,
            confidence,
        } => {
            let Some(kernel) = renewal_kernel(rule) else { bail!("no kernel for {rule:?} in this family") };
            let rows = ConfidenceRows {
                classes,
                logits: lowering.address(logits),
                index: lowering.address(index),
                log_prior: lowering.optional(log_prior),
                candidates: lowering.address(candidates),
                control: lowering.address(control),
                confidence: lowering.address(confidence),
            };
            lowering.launch(kernel.linear(batch, row_threads(classes), rows));
        }
        _ => bail!("no kernel for the primitive '{}' in this family", primitive.name()),
    }
    Ok(())
}
