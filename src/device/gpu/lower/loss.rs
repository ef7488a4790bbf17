//! The pair loss with the renewal of its confidence rows, and their counters. Other losses and renewals: [`super::loss_by_kind`].

use anyhow::{Result, bail};

use super::{Lowering, loss_by_kind};
use crate::device::gpu::kernels::loss::{
    self as kernels, CONFIDENCE_WARPS, PAIR_WARPS, STEP_THREADS, WIDE_THREADS,
};
use crate::device::primitive::{ConfidenceRule, LossKind};
use crate::device::{Primitive, Tensor};

/// Rows of confidence that a block of the statistics takes at a time: 32 for each of its warps.
const STATISTICS_ROWS: usize = 32 * CONFIDENCE_WARPS;

/// What a launch of the pair kernels does: a loss, a renewal, or both on the same rows.
struct Pair {
    batch: usize,
    classes: usize,
    logits: Tensor,
    confidence: Tensor,
    index: Tensor,
    loss: Option<Loss>,
    renewal: Option<Renewal>,
}

struct Loss {
    d_logits: Tensor,
    loss_rows: Tensor,
}

struct Renewal {
    rule: ConfidenceRule,
    log_prior: Option<Tensor>,
    candidates: Tensor,
    control: Tensor,
}

impl Pair {
    /// What a primitive asks for, if it is one of the two.
    fn of(primitive: &Primitive) -> Option<Self> {
        match *primitive {
            Primitive::Loss {
                kind: LossKind::Consistency,
                batch,
                classes,
                views: 2,
                first: 0,
                logits,
                target,
                index: Some(index),
                control: None,
                d_logits,
                loss_rows,
                ..
            } => {
                let loss = Some(Loss { d_logits, loss_rows });
                Some(Self { batch, classes, logits, confidence: target, index, loss, renewal: None })
            }
            Primitive::UpdateConfidence {
                rule: rule @ (ConfidenceRule::Corr | ConfidenceRule::CorrDebiased),
                batch,
                classes,
                logits,
                log_prior,
                candidates,
                index,
                control,
                confidence,
            } => {
                let renewal = Some(Renewal { rule, log_prior, candidates, control });
                Some(Self { batch, classes, logits, confidence, index, loss: None, renewal })
            }
            _ => None,
        }
    }

    fn same_rows(&self, other: &Self) -> bool {
        let rows = |pair: &Self| (pair.batch, pair.classes, pair.logits, pair.confidence, pair.index);
        rows(self) == rows(other)
    }

    fn launch(&self, lowering: &mut Lowering<'_>) {
        let loss = self.loss.as_ref();
        let renewal = self.renewal.as_ref();
        let parameters = kernels::Pair {
            batch: self.batch,
            classes: self.classes,
            debiased: usize::from(renewal.is_some_and(|r| r.rule == ConfidenceRule::CorrDebiased)),
            logits: lowering.address(self.logits),
            index: lowering.address(self.index),
            control: lowering.optional(renewal.map(|renewal| renewal.control)),
            candidates: lowering.optional(renewal.map(|renewal| renewal.candidates)),
            log_prior: lowering.optional(renewal.and_then(|renewal| renewal.log_prior)),
            confidence: lowering.address(self.confidence),
            d_logits: lowering.optional(loss.map(|loss| loss.d_logits)),
            loss_rows: lowering.optional(loss.map(|loss| loss.loss_rows)),
        };
        let in_registers = kernels::PAIR.iter().find(|pair| self.classes <= 32 * pair.registers);
        lowering.launch(match in_registers {
            Some(pair) => pair.kernel.linear(self.batch.div_ceil(PAIR_WARPS), 32 * PAIR_WARPS, parameters),
            None => kernels::PAIR_WIDE.linear(self.batch, WIDE_THREADS, parameters),
        });
    }
}

/// Whether a loss and an update read the same logits and rows, so that one kernel does both.
pub(super) fn fits(pair: &Primitive, update: &Primitive) -> bool {
    match (Pair::of(pair), Pair::of(update)) {
        (Some(pair), Some(update)) => {
            pair.loss.is_some() && update.renewal.is_some() && pair.same_rows(&update)
        }
        _ => false,
    }
}

/// Lowers a loss and the update of the same rows as one launch.
pub(super) fn lower_with_update(
    lowering: &mut Lowering<'_>,
    pair: &Primitive,
    update: &Primitive,
) -> Result<()> {
    match (Pair::of(pair), Pair::of(update)) {
        (Some(pair), Some(update)) => {
            Pair { renewal: update.renewal, ..pair }.launch(lowering);
            Ok(())
        }
        _ => bail!("'{}' and '{}' are no loss and its update", pair.name(), update.name()),
    }
}

/// Lowers a primitive of this family.
pub(super) fn lower(lowering: &mut Lowering<'_>, primitive: &Primitive) -> Result<()> {
    if let Some(pair) = Pair::of(primitive) {
        pair.launch(lowering);
        return Ok(());
    }
    match *primitive {
        Primitive::StepStatistics { batch, classes, logits, labels, index, loss_rows, counters } => {
            let parameters = kernels::StepStatistics {
                batch,
                classes,
                logits: lowering.address(logits),
                labels: lowering.address(labels),
                index: lowering.address(index),
                loss_rows: lowering.address(loss_rows),
                counters: lowering.address(counters),
            };
            lowering.launch(kernels::STEP_STATISTICS.linear(1, STEP_THREADS, parameters));
        }
        Primitive::CountFiniteSteps { len, slot, values, counters } => {
            let [values, counters] = [values, counters].map(|tensor| lowering.address(tensor));
            let parameters = kernels::CountFiniteSteps { len, slot, values, counters };
            lowering.launch(kernels::COUNT_FINITE_STEPS.linear(1, STEP_THREADS, parameters));
        }
        Primitive::ConfidenceStatistics { rows, classes, confidence, candidates, labels, out } => {
            // Four blocks of eight warps keep the loads of a multiprocessor in flight.
            let blocks = rows.div_ceil(STATISTICS_ROWS).min(4 * lowering.gpu().multiprocessors);
            let sums = lowering.workspace(blocks * size_of::<f64>());
            let hits = lowering.workspace(blocks * size_of::<i32>());
            let parameters = kernels::ConfidenceStatistics {
                rows,
                classes,
                confidence: lowering.address(confidence),
                candidates: lowering.optional(candidates),
                labels: lowering.address(labels),
                sums,
                hits,
            };
            lowering.launch(kernels::CONFIDENCE_STATISTICS.linear(blocks, STATISTICS_ROWS, parameters));
            let out = lowering.address(out);
            let parameters = kernels::ConfidenceStatisticsTotal { blocks, rows, sums, hits, out };
            lowering.launch(kernels::CONFIDENCE_STATISTICS_TOTAL.linear(1, 32, parameters));
        }
        _ => loss_by_kind::lower(lowering, primitive)?,
    }
    Ok(())
}
