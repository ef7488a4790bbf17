//! Partial-label learning: a method is a loss, a disambiguation of the confidence rows, and further state
//! that it learns; most methods can be combined with a debias.
//!
//! | file | what |
//! |---|---|
//! | [`method`] | the interface: [`Method`], made of settings, and [`Learner`], the same in training |
//! | [`recorder`] | how a method records its step |
//! | [`registry`] | the list of methods: word, title, and what each can be combined with |
//! | [`confidence`] | the N x K store of confidence rows and the candidate sets |
//! | [`mixup`] | weights and permutations of mixed views |
//! | [`debias`] | RECORDS: mean feature, class-prior estimate, log-debias; the oracle's constant prior |
//! | [`label_method`] | the common part of the next seven |
//! | [`corr`] | CORR: pair loss, confidence from the product of two views |
//! | [`proden`] | PRODEN: cross-entropy, confidence from the probabilities |
//! | [`lw`] | LW: weighted losses inside and outside the candidate set |
//! | [`cavl`] | CAVL: cross-entropy with the candidate of largest activation value |
//! | [`cc`] | CC: the candidate set's probability |
//! | [`mse`] | MSE: squared error, estimated from complementary labels |
//! | [`exp`] | EXP: the exponential of the candidate set's probability |
//! | [`solar`] | SoLar: pseudo-labels by Sinkhorn, chosen samples, queue and class prior |
//! | [`pico`] | PiCO: contrastive loss, momentum encoder, prototypes |
//!
//! A new method is one file or folder here and its line in [`registry`]; `examples/own_method.rs` has one
//! outside the crate.

pub mod cavl;
pub mod cc;
pub mod confidence;
pub mod corr;
pub mod debias;
pub mod exp;
pub mod label_method;
pub mod lw;
pub mod method;
pub mod mixup;
pub mod mse;
pub mod pico;
pub mod proden;
pub mod recorder;
pub mod registry;
pub mod solar;

pub use confidence::{ConfidenceStore, Start};
pub use debias::{ClassPrior, ClassPriorSource};
pub use label_method::LabelMethod;
pub use method::{Learner, Method};
pub use recorder::{RecordedStep, StepRecorder};
