//! The common part of CORR, PRODEN, LW, CAVL, CC, MSE and EXP: a loss of each view against the confidence
//! rows or candidate sets, and a disambiguation of the rows from the same logits. All views go through one
//! forward pass. Each method's file supplies its loss and disambiguation.

use std::sync::Arc;

use anyhow::Result;

use super::confidence::Start;
use super::method::{Learner, Method, Room};
use super::mixup::MixupBuffers;
use super::recorder::{RecordedStep, StepRecorder, StepRows};
use crate::autograd::Tape;
use crate::device::gpu::kernels::loss_by_kind::LossAndDisambiguate;
use crate::device::gpu::launch::KernelOf;
use crate::device::{Device, Element, Tensor};
use crate::ops::confidence::{Disambiguate, Disambiguation};
use crate::ops::loss::{Loss, RowLoss, Term};

/// A method's loss and disambiguation.
#[derive(Clone, Debug)]
pub struct LabelMethod {
    /// Views of a sample that the network sees: 1 is the weak view, 2 the weak and the strong.
    pub views: usize,
    /// Loss of a view.
    pub row_loss: Arc<dyn RowLoss>,
    /// The rule without a debias.
    pub disambiguation: Arc<dyn Disambiguation>,
    /// The rule with a debias.
    pub debiased_disambiguation: Arc<dyn Disambiguation>,
    /// The kernel of `loss_by_kind.cu` that computes loss and disambiguation at once, if there is one.
    pub joint: Option<KernelOf<LossAndDisambiguate>>,
    /// Whether the disambiguation reads debiased logits. If not, a debias acts at test only.
    pub reads_debias: bool,
    /// The initial confidence rows.
    pub start: Start,
}

impl LabelMethod {
    /// A method whose loss takes as many views as `disambiguation` reads. By default the disambiguation reads
    /// debiased logits if there is a debias, rows start uniform, and no kernel does both.
    pub fn new(row_loss: impl RowLoss, disambiguation: impl Disambiguation) -> Self {
        let disambiguation: Arc<dyn Disambiguation> = Arc::new(disambiguation);
        Self {
            views: disambiguation.views(),
            row_loss: Arc::new(row_loss),
            debiased_disambiguation: disambiguation.clone(),
            disambiguation,
            joint: None,
            reads_debias: true,
            start: Start::Uniform,
        }
    }
}

/// Gradient and losses of a step's logits.
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
        Ok(Box::new(LabelLearner { method: self.clone(), mixup }))
    }
}

/// A label method in training; its only state is the confidence rows.
struct LabelLearner {
    method: LabelMethod,
    mixup: Option<MixupBuffers>,
}

impl Learner for LabelLearner {
    fn record(&self, step: &mut StepRecorder<'_>) -> Result<RecordedStep> {
        let views = self.method.views;
        let shown = views * step.batch;
        let images = match self.mixup {
            Some(_) => step.views_together(views, true)?,
            None => step.views_to_forward(0..views)?,
        };
        let target = self.mixup.as_ref().map(|mixup| {
            mixup.record_views(step.tape, [shown, step.image_len], images);
            mixup.record_rows(step.tape, step.rows)
        });
        let outputs = step.forward(images)?;
        // The class-prior estimate comes first, so that loss and disambiguation, which read the same rows,
        // are neighbours.
        let log_prior = step.log_prior(shown, &outputs);
        let loss = self.method.record(step.tape, step.batch, outputs.logits, step.rows, log_prior, target);
        let names = [["logits.weak", "logits.strong"], ["logits.weak_mixed", "logits.strong_mixed"]];
        Ok(RecordedStep {
            logits: vec![(outputs.logits, loss.d_logits)],
            seeds: Vec::new(),
            loss_rows: loss.loss_rows,
            names: names[..images_per_view(target)].iter().flat_map(|set| &set[..views]).copied().collect(),
            exposed: Vec::new(),
        })
    }

    fn mixup(&self) -> Option<&MixupBuffers> {
        self.mixup.as_ref()
    }
}

/// 2 if there are mixed targets, because every view is forwarded plain and mixed.
fn images_per_view(mixed: Option<Tensor>) -> usize {
    if mixed.is_some() { 2 } else { 1 }
}

impl LabelMethod {
    /// Records the loss and the disambiguation on logits `[R,K]` whose first rows are the views of `batch`
    /// samples; the debias subtracts `log_prior`. With `mixed` target rows `[B,K]`, as many rows again are
    /// mixed views; their loss is added with the weight in the control block. The loss reads the rows before
    /// disambiguation updates them.
    pub fn record(
        &self,
        tape: &mut Tape,
        batch: usize,
        logits: Tensor,
        rows: StepRows,
        log_prior: Option<Tensor>,
        mixed: Option<Tensor>,
    ) -> LabelLoss {
        let StepRows { classes, confidence, candidates, index, control } = rows;
        let views = self.views;
        let d_logits = tape.temporary(Element::F32, images_per_view(mixed) * views * batch * classes);
        let loss_rows = tape.temporary(Element::F32, batch);
        let plain = Loss {
            row_loss: self.row_loss.clone(),
            term: Term::Plain,
            joint: self.joint,
            batch,
            classes,
            views,
            first: 0,
            logits,
            target: confidence,
            candidates,
            index: Some(index),
            d_logits,
            loss_rows,
        };
        let log_prior = log_prior.filter(|_| self.reads_debias);
        let debiased = log_prior.is_some();
        let disambiguation = if debiased { &self.debiased_disambiguation } else { &self.disambiguation };
        // As neighbours, loss and disambiguation of the same rows become one kernel.
        tape.push(plain.clone());
        tape.push(Disambiguate {
            disambiguation: disambiguation.clone(),
            joint: self.joint,
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
            let (term, first) = (Term::Mixed { control }, views * batch);
            tape.push(Loss { term, joint: None, first, target, index: None, ..plain });
        }
        LabelLoss { d_logits, loss_rows }
    }
}
