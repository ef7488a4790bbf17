//! Optimisers.

pub mod sgd;
