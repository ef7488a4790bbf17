//! The losses by kind and the renewals by rule that the pair kernels do not do: a block a row.

use anyhow::{Result, bail, ensure};

use super::Lowering;
use crate::device::Primitive;
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::primitive::{ConfidenceRule, LossKind};

/// Classes of a warp of a block, and warps of a block at most.
const WARP_CLASSES: usize = 128;
const ROW_WARPS: usize = 8;

/// Threads of a block that does a row of `classes`.
pub(super) fn row_threads(classes: usize) -> usize {
    32 * classes.div_ceil(WARP_CLASSES).min(ROW_WARPS)
}

fn launch(lowering: &mut Lowering<'_>, name: &'static str, shape: [usize; 2], arguments: Arguments) {
    let [batch, classes] = shape;
    let kernel = Kernel { file: "loss_by_kind.cu", name };
    lowering.launch(Launch::linear(kernel, batch, row_threads(classes), arguments));
}

/// The kernel of a loss.
fn loss_kernel(kind: LossKind) -> &'static str {
    match kind {
        LossKind::Consistency => "loss_consistency",
        LossKind::CrossEntropy => "loss_cross_entropy",
        LossKind::LeveragedSigmoid { .. } => "loss_leveraged_sigmoid",
        LossKind::LeveragedCrossEntropy { .. } => "loss_leveraged_cross_entropy",
        LossKind::CandidateSum => "loss_candidate_sum",
    }
}

/// The kernel of a renewal.
fn renewal_kernel(rule: ConfidenceRule) -> Option<&'static str> {
    match rule {
        ConfidenceRule::Positive => Some("renew_positive"),
        ConfidenceRule::Candidates => Some("renew_candidates"),
        ConfidenceRule::Leveraged => Some("renew_leveraged"),
        ConfidenceRule::ActivationValue => Some("renew_activation_value"),
        ConfidenceRule::Corr | ConfidenceRule::CorrDebiased => None,
    }
}

/// The kernel of a loss of one view and the renewal of the rows it is compared with, where there is one.
fn joint_kernel(kind: LossKind, rule: ConfidenceRule) -> Option<&'static str> {
    use ConfidenceRule as Rule;
    use LossKind as Kind;
    match (kind, rule) {
        (Kind::CrossEntropy, Rule::Positive) => Some("cross_entropy_renew_positive"),
        (Kind::CrossEntropy, Rule::ActivationValue) => Some("cross_entropy_renew_activation_value"),
        (Kind::LeveragedSigmoid { .. }, Rule::Leveraged) => Some("leveraged_sigmoid_renew"),
        (Kind::LeveragedCrossEntropy { .. }, Rule::Leveraged) => Some("leveraged_cross_entropy_renew"),
        (Kind::CandidateSum, Rule::Candidates) => Some("candidate_sum_renew"),
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
    let Some(name) = joint_kernel(kind, rule) else { bail!("no kernel does {kind:?} and {rule:?}") };
    let arguments = Arguments::new()
        .pointer(lowering.address(logits))
        .pointer(lowering.address(index))
        .pointer(lowering.address(confidence))
        .pointer(lowering.address(candidates))
        .pointer(lowering.optional(log_prior))
        .pointer(lowering.address(control))
        .pointer(lowering.address(d_logits))
        .pointer(lowering.address(loss_rows))
        .float(beta(kind))
        .count(classes);
    launch(lowering, name, [batch, classes], arguments);
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
            let arguments = Arguments::new()
                .pointer(lowering.address(logits))
                .pointer(lowering.optional(index))
                .pointer(lowering.address(target))
                .pointer(lowering.optional(candidates))
                .pointer(lowering.optional(control))
                .pointer(lowering.address(d_logits))
                .pointer(lowering.address(loss_rows))
                .float(beta(kind))
                .count(classes)
                .count(views)
                .count(first);
            launch(lowering, loss_kernel(kind), [batch, classes], arguments);
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
            let Some(name) = renewal_kernel(rule) else { bail!("no kernel for {rule:?} in this family") };
            let arguments = Arguments::new()
                .pointer(lowering.address(logits))
                .pointer(lowering.address(index))
                .pointer(lowering.optional(log_prior))
                .pointer(lowering.address(candidates))
                .pointer(lowering.address(control))
                .pointer(lowering.address(confidence))
                .count(classes);
            launch(lowering, name, [batch, classes], arguments);
        }
        _ => bail!("no kernel for the primitive '{}' in this family", primitive.name()),
    }
    Ok(())
}
