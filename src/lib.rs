//! `records` trains image classifiers from long-tailed data whose labels are candidate sets (LT-PLL), with the
//! method RECORDS (ICLR 2023) and its peers.
//!
//! The layers, each of which only uses those after it:
//! [`cli`] → [`report`] → [`train`] → ([`pll`], [`nn`], [`data`]) → [`autograd`] → [`device`]; [`settings`], [`declaration`],
//! [`random`], [`files`], [`memory`], [`text`] and [`error`] are used by all of them. One arrow points back: the CPU device runs the augmentation arithmetic of
//! [`data::augment`].

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
#[allow(clippy::too_many_lines, reason = "the operations are one match")]
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
pub mod random;
#[warn(missing_docs)]
pub mod report;
pub mod settings;
#[warn(missing_docs)]
pub mod text;
#[allow(clippy::too_many_lines, reason = "a replay's keys stand in one place")]
pub mod train;
