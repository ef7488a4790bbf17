//! What CORR, PRODEN, LW, CAVL and CC have in common: a loss of each view against the confidence rows, and a renewal of the rows
//! from the same logits. All views go through one forward. The files of the methods say which loss and which renewal.

use anyhow::Result;

use super::confidence::Start;
use super::method::{Learner, Method, Room};
use super::mixup::Mixup;
use super::recorder::{RecordedStep, Rows, StepRecorder};
use crate::autograd::Tape;
use crate::device::primitive::{ConfidenceRule, LossKind};
use crate::device::{Device, Element, Primitive, Tensor};

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

/// Gradient and losses of logits.
#[derive(Clone, Copy)]
pub struct LabelLoss {
    /// f32 `[R,K]`, of the logits.
    pub d_logits: Tensor,
    /// f32 `[B]`; their mean is the loss.
    pub loss_rows: Tensor,
}

impl Method for LabelMethod {
    fn start(&self) -> Start {
        self.start
    }

    fn on_device(&self, room: &Room, device: &mut dyn Device) -> Result<Box<dyn Learner>> {
        let mixup = if room.mixup { Some(room.mixup(device)?) } else { None };
        Ok(Box::new(LabelLearner { method: *self, mixup }))
    }
}

/// A label method in training; its state is the confidence rows alone.
struct LabelLearner {
    method: LabelMethod,
    mixup: Option<Mixup>,
}

impl Learner for LabelLearner {
    fn record(&self, step: &mut StepRecorder<'_>) -> Result<RecordedStep> {
        let views = self.method.views;
        let shown = views * step.batch;
        let images = step.views_together(views, self.mixup.is_some())?;
        let target = self.mixup.as_ref().map(|mixup| {
            mixup.record_views(step.tape, [shown, step.image_len], images);
            mixup.record_rows(step.tape, step.rows)
        });
        let outputs = step.forward(images)?;
        // The estimate first, so that loss and renewal, which read the same rows, stand side by side.
        let log_prior = step.log_prior(shown, &outputs);
        let loss = self.method.record(step.tape, step.batch, outputs.logits, step.rows, log_prior, target);
        let names = [["logits.weak", "logits.strong"], ["logits.weak_mixed", "logits.strong_mixed"]];
        Ok(RecordedStep {
            logits: vec![(outputs.logits, loss.d_logits)],
            loss_rows: loss.loss_rows,
            names: names[..images_per_view(target)].iter().flat_map(|set| &set[..views]).copied().collect(),
            exposed: Vec::new(),
        })
    }

    fn mixup(&self) -> Option<&Mixup> {
        self.mixup.as_ref()
    }
}

/// 2 where there are mixed targets: every view is forwarded plain and mixed.
fn images_per_view(mixed: Option<Tensor>) -> usize {
    if mixed.is_some() { 2 } else { 1 }
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
    ) -> LabelLoss {
        let Rows { classes, confidence, candidates, index, control } = rows;
        let Self { views, loss: kind, .. } = *self;
        let d_logits = tape.temporary(Element::F32, images_per_view(mixed) * views * batch * classes);
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
        LabelLoss { d_logits, loss_rows }
    }
}
