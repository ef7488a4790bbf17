//! The pair loss with the renewal of its confidence rows, and their counters. Other losses and renewals: [`super::loss_by_kind`].

use anyhow::{Result, bail};

use super::{Lowering, loss_by_kind};
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::primitive::{ConfidenceRule, LossKind};
use crate::device::{Primitive, Tensor};

const FILE: &str = "loss.cu";

/// Classes that a warp keeps in registers at most.
const REGISTER_CLASSES: usize = 256;

/// Warps of a block of the kernels that give a row to a warp.
const PAIR_WARPS: usize = 2;

/// Rows of confidence that a block of the statistics takes at a time: 32 for each of its eight warps.
const STATISTICS_ROWS: usize = 256;

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
        let arguments = Arguments::new()
            .pointer(lowering.address(self.logits))
            .pointer(lowering.address(self.index))
            .pointer(lowering.address(self.confidence))
            .pointer(lowering.optional(loss.map(|loss| loss.d_logits)))
            .pointer(lowering.optional(loss.map(|loss| loss.loss_rows)))
            .pointer(lowering.optional(renewal.map(|renewal| renewal.control)))
            .pointer(lowering.optional(renewal.map(|renewal| renewal.candidates)))
            .pointer(lowering.optional(renewal.and_then(|renewal| renewal.log_prior)))
            .count(self.batch)
            .count(self.classes)
            .count(usize::from(renewal.is_some_and(|r| r.rule == ConfidenceRule::CorrDebiased)));
        let name = match self.classes.div_ceil(32) {
            0..=1 => "pair_32",
            2 => "pair_64",
            3..=4 => "pair_128",
            5..=8 => "pair_256",
            _ => "pair_wide",
        };
        let kernel = Kernel { file: FILE, name };
        let (blocks, threads) = if self.classes > REGISTER_CLASSES {
            (self.batch, 256)
        } else {
            (self.batch.div_ceil(PAIR_WARPS), 32 * PAIR_WARPS)
        };
        lowering.launch(Launch::linear(kernel, blocks, threads, arguments));
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
            let arguments = Arguments::new()
                .pointer(lowering.address(logits))
                .pointer(lowering.address(labels))
                .pointer(lowering.address(index))
                .pointer(lowering.address(loss_rows))
                .pointer(lowering.address(counters))
                .count(batch)
                .count(classes);
            let kernel = Kernel { file: FILE, name: "step_statistics" };
            lowering.launch(Launch::linear(kernel, 1, 1024, arguments));
        }
        Primitive::CountFiniteSteps { len, slot, values, counters } => {
            let arguments = Arguments::new()
                .pointer(lowering.address(values))
                .pointer(lowering.address(counters))
                .count(len)
                .count(slot);
            let kernel = Kernel { file: FILE, name: "count_finite_steps" };
            lowering.launch(Launch::linear(kernel, 1, 1024, arguments));
        }
        Primitive::ConfidenceStatistics { rows, classes, confidence, candidates, labels, out } => {
            // Four blocks of eight warps keep the loads of a multiprocessor in flight.
            let blocks = rows.div_ceil(STATISTICS_ROWS).min(4 * lowering.gpu().multiprocessors);
            let sums = lowering.workspace(blocks * size_of::<f64>());
            let hits = lowering.workspace(blocks * size_of::<i32>());
            let arguments = Arguments::new()
                .pointer(lowering.address(confidence))
                .pointer(lowering.optional(candidates))
                .pointer(lowering.address(labels))
                .pointer(sums)
                .pointer(hits)
                .count(rows)
                .count(classes);
            let kernel = Kernel { file: FILE, name: "confidence_statistics" };
            lowering.launch(Launch::linear(kernel, blocks, 256, arguments));
            let arguments = Arguments::new()
                .pointer(sums)
                .pointer(hits)
                .pointer(lowering.address(out))
                .count(blocks)
                .count(rows);
            let kernel = Kernel { file: FILE, name: "confidence_statistics_total" };
            lowering.launch(Launch::linear(kernel, 1, 32, arguments));
        }
        _ => loss_by_kind::lower(lowering, primitive)?,
    }
    Ok(())
}
