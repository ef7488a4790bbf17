//! `records` trains image classifiers on long-tailed data whose labels are candidate sets (LT-PLL), with the
//! method RECORDS (ICLR 2023) and its peers. `docs/glossary.md` explains the field's terms.
//!
//! The layers, each of which uses only those after it: [`cli`] → [`report`] → [`train`] → [`settings`] →
//! ([`pll`], [`optim`], [`nn`], [`data`]) → [`ops`] → [`autograd`] → [`device`]. All of them use
//! [`declaration`], [`random`], [`files`], [`memory`], [`text`] and [`error`]; [`study`] has kernels to learn
//! from, and only [`cli`] uses it. One arrow points back: the augmentation operation runs the arithmetic of
//! [`data::augment`]. `docs/architecture.md` draws the layers and the data flow of a step.

#![allow(
    missing_docs,
    reason = "fields of operations and of the engine are described together at their struct; whole folders ask for more"
)]

#[warn(missing_docs)]
pub mod autograd;
#[warn(missing_docs)]
pub mod cli;
#[warn(missing_docs)]
pub mod data;
#[warn(missing_docs)]
pub mod declaration;
#[warn(missing_docs)]
pub mod device;
#[warn(missing_docs)]
pub mod error;
#[warn(missing_docs)]
pub mod files;
#[warn(missing_docs)]
pub mod memory;
#[warn(missing_docs)]
pub mod nn;
#[warn(missing_docs)]
pub mod ops;
#[warn(missing_docs)]
pub mod optim;
#[warn(missing_docs)]
pub mod pll;
#[warn(missing_docs)]
pub mod random;
#[warn(missing_docs)]
pub mod report;
#[warn(missing_docs)]
pub mod settings;
#[warn(missing_docs)]
pub mod study;
#[warn(missing_docs)]
pub mod text;
#[warn(missing_docs)]
pub mod train;
