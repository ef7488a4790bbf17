//! PiCO (Wang et al., "PiCO: contrastive label disambiguation for partial label learning", ICLR 2022;
//! docs/spec.md, section 13).
//!
//! In a step, the weak views give logits and embeddings q. From these follow the pseudo-label of each sample,
//! the update of its confidence row towards the candidate with the nearest prototype, and the update of the
//! prototypes. The momentum encoder computes keys k from the strong views. The loss is the cross-entropy of
//! the weak views with the confidence rows, plus a contrastive loss of q against q, k and a queue of earlier
//! keys, whose positives are the rows with the same pseudo-label. Until disambiguation starts, the
//! contrastive loss is MoCo's, which needs no labels, and the confidence rows stay.
//!
//! | file | what |
//! |---|---|
//! | here | the method's hooks, the order of a step, the queue |
//! | [`settings`] | its settings |
//! | [`projection`] | embeddings: the layers on a network's features |
//! | [`encoder`] | the momentum encoder |
//! | [`prototypes`] | pseudo-labels, confidence rows and prototypes |
//! | [`contrast`] | the contrastive loss |

pub mod contrast;
pub mod encoder;
pub mod projection;
pub mod prototypes;
pub mod settings;

use std::sync::Arc;

use anyhow::{Context, Result};

use self::contrast::Contrast;
use self::encoder::MomentumEncoder;
use self::projection::Projected;
use self::prototypes::{MovePrototypes, PseudoLabels};
use self::settings::PicoSettings;
use super::method::{Learner, Method, OWN_SCALARS, Room, StageEpoch, StateTensor};
use super::recorder::{Exposed, RecordedStep, StepRecorder, StepRows};
use super::registry::{MethodEntry, Scalar};
use crate::device::gpu::kernels::pico::NO_LABEL;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::nn::{Network, Outputs, StateDict};
use crate::ops::input::{AdvanceStep, StoreRows};
use crate::ops::loss::{CrossEntropy, Loss, Term};
use crate::random::philox::{Purpose, Stream};

/// PiCO for the registry.
pub static ENTRY: MethodEntry = MethodEntry {
    no_mixup: Some("a mixture of two samples has neither one pseudo-label nor one prototype"),
    scalars: &[Scalar { name: "phi", default: 0.95 }],
    step_settings: &["moco-queue", "moco-m", "proto-m", "loss-weight", "low-dim", "temperature"],
    ..MethodEntry::with_settings::<PicoSettings>("pico", "PiCO", "Contrastive label disambiguation")
};

impl Method for PicoSettings {
    fn network(&self, network: Box<dyn Network>) -> Box<dyn Network> {
        Box::new(Projected { network, columns: self.columns })
    }

    fn on_device(&self, room: &Room, device: &mut dyn Device) -> Result<Box<dyn Learner>> {
        Ok(Box::new(Pico::new(self, room, device)?))
    }
}

/// Earlier keys, a ring of blocks of one batch each.
struct Queue {
    /// f32 `[Q,D]`.
    keys: Buffer,
    /// f32 `[Q]`: pseudo-labels.
    labels: Buffer,
    /// The oldest block, which is overwritten next, i32 `[1]`.
    position: Buffer,
}

/// PiCO in training.
struct Pico {
    settings: PicoSettings,
    batch: usize,
    encoder: MomentumEncoder,
    /// f32 `[K,D]`.
    prototypes: Buffer,
    queue: Queue,
}

impl Pico {
    /// The state before the first step: prototypes are 0, and the queue holds random directions without
    /// labels.
    fn new(settings: &PicoSettings, room: &Room, device: &mut dyn Device) -> Result<Self> {
        let columns = settings.columns;
        let rows = settings.queue.div_ceil(room.batch) * room.batch;
        let parameters = room.parameters.context("the momentum encoder needs a network to follow")?;
        let encoder = MomentumEncoder::new(parameters, settings.key_momentum, device)?;
        let queue = Queue {
            keys: device.allocate(Element::F32, rows * columns, "the queue of keys")?,
            labels: device.allocate(Element::F32, rows, "the queue's labels")?,
            position: device.allocate(Element::I32, 1, "the queue's position")?,
        };
        device.write_f32(queue.keys, &random_directions([rows, columns]))?;
        device.write_f32(queue.labels, &vec![NO_LABEL; rows])?;
        let prototypes = device.allocate(Element::F32, room.classes * columns, "the prototypes")?;
        Ok(Self { settings: settings.clone(), batch: room.batch, encoder, prototypes, queue })
    }

    /// Records pseudo-labels `[B]`, the update of the confidence rows, and then that of the prototypes, which
    /// the former do not see.
    fn record_labels(&self, step: &mut StepRecorder<'_>, weak: &Outputs, embeddings: Tensor) -> Tensor {
        let log_prior = step.log_prior(step.batch, weak);
        let StepRows { classes, confidence, candidates, index, control } = step.rows;
        let (batch, columns) = (step.batch, self.settings.columns);
        let prototypes = step.tape.persistent(self.prototypes);
        let labels = step.tape.temporary(Element::F32, batch);
        step.tape.push(PseudoLabels {
            batch,
            classes,
            columns,
            logits: weak.logits,
            log_prior,
            candidates,
            index,
            embeddings,
            prototypes,
            control,
            labels,
            confidence,
        });
        let momentum = self.settings.prototype_momentum as f32;
        step.tape.push(MovePrototypes { batch, classes, columns, momentum, embeddings, labels, prototypes });
        labels
    }

    /// Records the loss of the logits `[B,K]` against the confidence rows; returns their gradient and the
    /// losses `[B]`.
    fn record_classification(&self, step: &mut StepRecorder<'_>, logits: Tensor) -> [Tensor; 2] {
        let StepRows { classes, confidence, candidates, index, .. } = step.rows;
        let batch = step.batch;
        let d_logits = step.tape.temporary(Element::F32, batch * classes);
        let loss_rows = step.tape.temporary(Element::F32, batch);
        step.tape.push(Loss {
            row_loss: Arc::new(CrossEntropy),
            term: Term::Plain,
            joint: None,
            batch,
            classes,
            views: 1,
            first: 0,
            logits,
            target: confidence,
            candidates,
            index: Some(index),
            d_logits,
            loss_rows,
        });
        [d_logits, loss_rows]
    }

    /// Records the contrastive loss, which is added to `loss_rows`, and then overwrites the oldest block of
    /// the queue with the keys; returns the gradient of the embeddings `[B,D]`.
    fn record_contrast(
        &self,
        step: &mut StepRecorder<'_>,
        [embeddings, keys, labels, loss_rows]: [Tensor; 4],
    ) -> Tensor {
        let (batch, columns, control) = (step.batch, self.settings.columns, step.rows.control);
        let tape = &mut *step.tape;
        let [queue, queue_labels, position] =
            [self.queue.keys, self.queue.labels, self.queue.position].map(|buffer| tape.persistent(buffer));
        let gradient = tape.temporary(Element::F32, batch * columns);
        let queue_rows = self.queue.labels.len;
        tape.push(Contrast {
            batch,
            columns,
            queue_rows,
            temperature: self.settings.temperature as f32,
            weight: self.settings.weight as f32,
            embeddings,
            keys,
            labels,
            queue,
            queue_labels,
            control,
            gradient,
            loss_rows,
        });
        for (columns, rows, store) in [(columns, keys, queue), (1, labels, queue_labels)] {
            tape.push(StoreRows { batch, columns, rows, step: position, store });
        }
        tape.push(AdvanceStep { step: position, modulus: Some(queue_rows / batch) });
        gradient
    }
}

/// Rows of length 1, the same in every run.
fn random_directions([rows, columns]: [usize; 2]) -> Vec<f32> {
    let mut stream = Stream::new(0, Purpose::Initialisation, 0, u32::MAX, 0);
    let mut values: Vec<f32> = (0..rows * columns).map(|_| stream.normal() as f32).collect();
    values.chunks_exact_mut(columns).for_each(projection::direction);
    values
}

/// The embeddings of a projected network.
fn projection_of(outputs: &Outputs) -> Result<Tensor> {
    outputs.projection.context("the network has no projection")
}

impl Learner for Pico {
    fn record(&self, step: &mut StepRecorder<'_>) -> Result<RecordedStep> {
        let images = step.views_to_forward(0..1)?;
        let weak = step.forward(images)?;
        let embeddings = projection_of(&weak)?;
        let labels = self.record_labels(step, &weak, embeddings);
        let images = step.views_to_forward(1..2)?;
        let keys = projection_of(&self.encoder.record(step, images)?)?;
        let [d_logits, loss_rows] = self.record_classification(step, weak.logits);
        let gradient = self.record_contrast(step, [embeddings, keys, labels, loss_rows]);
        let (batch, columns) = (step.batch, self.settings.columns);
        Ok(RecordedStep {
            logits: vec![(weak.logits, d_logits)],
            seeds: vec![(embeddings, gradient)],
            loss_rows,
            names: vec!["logits.weak"],
            exposed: vec![
                Exposed { name: "embeddings", tensor: embeddings, shape: vec![batch, columns] },
                Exposed { name: "keys", tensor: keys, shape: vec![batch, columns] },
                Exposed { name: "pseudo_labels", tensor: labels, shape: vec![batch] },
            ],
        })
    }

    fn begin_epoch(&self, at: StageEpoch, _: &mut dyn Device) -> Result<[f64; OWN_SCALARS]> {
        Ok([phi(&self.settings, at), 0.0])
    }

    fn watched(&self) -> Vec<(&'static str, Buffer)> {
        vec![
            ("PiCO's momentum encoder", self.encoder.parameters.values),
            ("PiCO's prototypes", self.prototypes),
            ("PiCO's queue", self.queue.keys),
        ]
    }

    fn state(&self) -> Vec<StateTensor> {
        let columns = self.settings.columns;
        let tensor = |name, shape| StateTensor { name, shape, shares: false };
        vec![
            tensor("key_encoder", vec![self.encoder.parameters.len()]),
            tensor("prototypes", vec![self.prototypes.len / columns, columns]),
            tensor("key_queue", vec![self.queue.labels.len, columns]),
            tensor("key_queue_labels", vec![self.queue.labels.len]),
            tensor("key_queue_position", vec![1]),
        ]
    }

    fn export(&self, device: &mut dyn Device) -> Result<Vec<Vec<f32>>> {
        let Queue { keys, labels, position } = self.queue;
        let position = device.read_i32(position)?[0] as f32;
        let buffers = [self.encoder.parameters.values, self.prototypes, keys, labels];
        let mut values =
            buffers.map(|buffer| device.read_f32(buffer)).into_iter().collect::<Result<Vec<_>>>()?;
        values.push(vec![position]);
        Ok(values)
    }

    fn exported(&self) -> Option<Vec<Buffer>> {
        let Queue { keys, labels, position } = self.queue;
        Some(vec![self.encoder.parameters.values, self.prototypes, keys, labels, position])
    }

    fn import(&self, state: &StateDict, _: Option<usize>, device: &mut dyn Device) -> Result<()> {
        let given = |name: &str| state.get(name).map(|(_, values)| values.as_slice());
        if let Some(values) = given("key_encoder") {
            self.encoder.parameters.write(values, device)?;
        }
        let Queue { keys, labels, position } = self.queue;
        let buffers = [("prototypes", self.prototypes), ("key_queue", keys), ("key_queue_labels", labels)];
        for (name, buffer) in buffers {
            if let Some(values) = given(name) {
                device.write_f32(buffer, values)?;
            }
        }
        let blocks = labels.len / self.batch;
        match given("key_queue_position") {
            Some(values) => device.write_i32(position, &[(values[0] as i32).clamp(0, blocks as i32 - 1)]),
            None => Ok(()),
        }
    }
}

/// The weight of the old value in the confidence rows: as in the authors' code, that of epoch e lies (e - 1)
/// / E of the way from the first value to the second.
pub fn phi(settings: &PicoSettings, at: StageEpoch) -> f64 {
    let [from, to] = settings.confidence_momentum;
    from + (to - from) * at.epoch.saturating_sub(1) as f64 / at.epochs.max(1) as f64
}
