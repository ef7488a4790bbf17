//! `records` trains image classifiers from long-tailed data whose labels are candidate sets (LT-PLL), with the
//! method RECORDS (ICLR 2023) and its peers.
//!
//! The layers, each of which only uses those after it:
//! [`cli`] → [`train`] → ([`pll`], [`nn`], [`data`], [`report`]) → [`autograd`] → [`device`]; [`settings`], [`random`] and [`error`]
//! are used by all of them.

pub mod autograd;
pub mod cli;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod nn;
pub mod pll;
pub mod random;
pub mod report;
pub mod settings;
pub mod train;
