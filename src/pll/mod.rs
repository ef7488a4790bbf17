//! Partial-label learning: a method is a loss, a disambiguation of the confidence rows, and a debias.
//!
//! | file | what |
//! |---|---|
//! | [`confidence`] | the N x K store of confidence rows and the candidate sets |
//! | [`corr`] | CORR: pair loss, confidence from the product of two views |
//! | [`debias`] | RECORDS: moving mean feature, class-prior estimate, log-debias |
//!
//! A new method is one file here, and a primitive where it needs arithmetic that no other has.

pub mod confidence;
pub mod corr;
pub mod debias;

pub use confidence::ConfidenceStore;
pub use debias::ClassPrior;
