//! `records` trains image classifiers from long-tailed data whose labels are candidate sets (LT-PLL), with the
//! method RECORDS (ICLR 2023) and its peers.
//!
//! The layers, each of which only uses those after it:
//! [`cli`] → [`report`] → [`train`] → ([`pll`], [`nn`], [`data`]) → [`autograd`] → [`device`]; [`settings`], [`declaration`],
//! [`random`], [`files`], [`memory`], [`text`] and [`error`] are used by all of them. One arrow points back: the CPU device runs the augmentation arithmetic of
//! [`data::augment`].

pub mod autograd;
pub mod cli;
pub mod data;
pub mod declaration;
pub mod device;
pub mod error;
pub mod files;
pub mod memory;
pub mod nn;
pub mod ops;
pub mod pll;
pub mod random;
pub mod report;
pub mod settings;
pub mod text;
pub mod train;
