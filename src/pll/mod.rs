//! Partial-label learning: a method is a loss, a disambiguation of the confidence rows, and a debias.
//!
//! | file | what |
//! |---|---|
//! | [`confidence`] | the N x K store of confidence rows and the candidate sets |
//! | [`method`] | what the methods below but SoLar have in common |
//! | [`corr`] | CORR: pair loss, confidence from the product of two views |
//! | [`proden`] | PRODEN: cross-entropy, confidence from the probabilities |
//! | [`lw`] | LW: weighted losses inside and outside the candidate set |
//! | [`lw_settings`], [`solar_settings`] | the settings that are LW's and SoLar's own |
//! | [`cavl`] | CAVL: cross-entropy with the candidate of largest activation value |
//! | [`cc`] | CC: the candidate set's probability |
//! | [`solar`] | SoLar: pseudo-labels by Sinkhorn, chosen samples, queue and class prior |
//! | [`debias`] | RECORDS: moving mean feature, class-prior estimate, log-debias; and the oracle's constant prior |
//! | [`mixup`] | weights and permutations of mixed views |
//!
//! A new method is one file here, and a primitive where it needs arithmetic that no other has.

pub mod cavl;
pub mod cc;
pub mod confidence;
pub mod corr;
pub mod debias;
pub mod lw;
pub mod lw_settings;
pub mod method;
pub mod mixup;
pub mod proden;
pub mod solar;
pub mod solar_settings;

pub use confidence::ConfidenceStore;
pub use debias::{ClassPrior, Debias};
pub use method::LabelMethod;
pub use solar::Solar;
