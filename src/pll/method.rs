//! What a method is, but for SoLar: a loss of each view against the confidence rows, and a renewal of the rows from the same
//! logits. The files of the methods say which.

use crate::autograd::Tape;
use crate::device::primitive::{ConfidenceRule, LossKind};
use crate::device::{Element, Primitive, Tensor};

/// A method's loss and disambiguation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LabelMethod {
    /// Views of a sample that the network sees: 1 is the weak one, 2 the weak and the strong.
    pub views: usize,
    /// Loss of a view.
    pub loss: LossKind,
    /// How rows are renewed without and with a debias.
    pub rule: ConfidenceRule,
    pub debiased_rule: ConfidenceRule,
    /// Whether the renewal reads debiased logits. Where it does not, a debias acts at test only.
    pub reads_debias: bool,
    /// What the confidence rows hold at first.
    pub start: Start,
}

/// Confidence rows before the first renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// c = s / sum s (SPEC 3).
    Uniform,
    /// The same, and beside it (1 - s) / sum (1 - s): LW weighs the other classes too.
    UniformInsideAndOutside,
}

impl Start {
    /// The rows `[N,K]` of candidate sets `[N,K]`.
    pub fn rows(self, classes: usize, candidates: &[u8]) -> Vec<f32> {
        let share = |size: usize| if size == 0 { 0.0 } else { 1.0 / size as f32 };
        let row = |set: &[u8]| {
            let size = set.iter().filter(|&&s| s != 0).count();
            let outside = match self {
                Start::Uniform => 0.0,
                Start::UniformInsideAndOutside => share(classes - size),
            };
            set.iter().map(|&s| if s != 0 { share(size) } else { outside }).collect::<Vec<f32>>()
        };
        candidates.chunks_exact(classes).flat_map(row).collect()
    }
}

/// The confidence store and the control block on a tape.
#[derive(Clone, Copy)]
pub struct Rows {
    pub classes: usize,
    /// f32 `[N,K]`.
    pub confidence: Tensor,
    /// u8 `[N,K]`.
    pub candidates: Tensor,
    /// The samples of the step, i32 `[B]`.
    pub index: Tensor,
    /// See [`crate::device::primitive::control`].
    pub control: Tensor,
}

/// Gradient and losses that a method recorded.
#[derive(Clone, Copy)]
pub struct Recorded {
    /// f32 `[R,K]`, of the logits.
    pub d_logits: Tensor,
    /// f32 `[B]`; their mean is the loss.
    pub loss_rows: Tensor,
}

impl LabelMethod {
    /// Records the loss and the renewal on logits `[R,K]` whose first rows are the views of `batch` samples, `log_prior` being
    /// what the debias subtracts. With `mixed` target rows `[B,K]`, as many rows again are mixed views, whose loss against them
    /// is added with the weight in the control block. The loss reads the rows before their renewal.
    pub fn record(
        &self,
        tape: &mut Tape,
        batch: usize,
        logits: Tensor,
        rows: Rows,
        log_prior: Option<Tensor>,
        mixed: Option<Tensor>,
    ) -> Recorded {
        let Rows { classes, confidence, candidates, index, control } = rows;
        let Self { views, loss: kind, .. } = *self;
        let sets = if mixed.is_some() { 2 } else { 1 };
        let d_logits = tape.temporary(Element::F32, sets * views * batch * classes);
        let loss_rows = tape.temporary(Element::F32, batch);
        let loss = |first, target, index: Option<Tensor>, control| Primitive::Loss {
            kind,
            batch,
            classes,
            views,
            first,
            logits,
            target,
            candidates: kind.reads_candidates().then_some(candidates),
            index,
            control,
            d_logits,
            loss_rows,
        };
        // Side by side, loss and renewal of the same rows are one kernel.
        tape.push(loss(0, confidence, Some(index), None));
        let log_prior = log_prior.filter(|_| self.reads_debias);
        tape.push(Primitive::UpdateConfidence {
            rule: if log_prior.is_some() { self.debiased_rule } else { self.rule },
            batch,
            classes,
            logits,
            log_prior,
            candidates,
            index,
            control,
            confidence,
        });
        if let Some(target) = mixed {
            tape.push(loss(views * batch, target, None, Some(control)));
        }
        Recorded { d_logits, loss_rows }
    }
}

#[cfg(test)]
mod tests {
    use super::Start;

    #[test]
    fn rows_start_uniform() {
        let sets = [1, 0, 1, 0, 1, 0, 1, 1, 1];
        assert_eq!(
            Start::Uniform.rows(3, &sets),
            [0.5, 0.0, 0.5, 0.0, 1.0, 0.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]
        );
        let both = Start::UniformInsideAndOutside.rows(3, &sets);
        assert_eq!(both, [0.5, 1.0, 0.5, 0.5, 1.0, 0.5, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
    }
}
