//! `records` trains image classifiers from long-tailed data whose labels are candidate sets (LT-PLL), with the
//! method RECORDS (ICLR 2023) and its peers.
//!
//! The layers, each of which only uses those after it: [`cli`] → ([`report`], [`profile`]) → [`train`] → [`settings`] →
//! ([`pll`], [`optim`], [`nn`], [`data`]) → [`ops`] → [`autograd`] → [`device`]. [`declaration`], [`random`], [`files`], [`memory`], [`text`] and
//! [`error`] are used by all of them; [`study`] runs kernels to learn from beside the operations, and only [`cli`] uses it.
//! One arrow points back: augmentation as an operation runs the arithmetic of [`data::augment`]. `docs/architecture.md` draws
//! the layers and the data flow of a step.

#![allow(
    missing_docs,
    reason = "fields of operations and of the engine are described together at their struct; whole folders ask for more"
)]

pub mod autograd;
#[warn(missing_docs)]
pub mod cli;
#[warn(missing_docs)]
pub mod data;
pub mod declaration;
pub mod device;
#[warn(missing_docs)]
pub mod error;
#[warn(missing_docs)]
pub mod files;
#[warn(missing_docs)]
pub mod memory;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod pll;
#[warn(missing_docs)]
pub mod profile;
#[warn(missing_docs)]
pub mod random;
#[warn(missing_docs)]
pub mod report;
pub mod settings;
#[warn(missing_docs)]
pub mod study;
#[warn(missing_docs)]
pub mod text;
pub mod train;
