//! `records` trains image classifiers on long-tailed data whose labels are candidate sets (LT-PLL), with the
//! method RECORDS (ICLR 2023) and its peers. `docs/glossary.md` explains the field's terms.
//!
//! The layers, each of which uses only those after it: [`cli`] → ([`report`], [`profile`], [`exchange`]) → [`train`] → [`settings`] →
//! ([`pll`], [`optim`], [`nn`], [`data`]) → [`ops`] → [`autograd`] → [`device`]. All of them use
//! [`declaration`], [`collective`], [`random`], [`files`], [`memory`], [`text`], [`svg`], [`protobuf`] and [`error`]; [`study`] has kernels to learn
//! from, and only [`cli`] uses it. One arrow points back: the augmentation operation runs the arithmetic of
//! [`data::augment`]. `docs/architecture.md` draws the layers and the data flow of a step.

pub mod autograd;
pub mod cli;
pub mod collective;
pub mod data;
pub mod declaration;
pub mod device;
pub mod error;
pub mod exchange;
pub mod files;
pub mod memory;
pub mod nn;
pub mod ops;
pub mod optim;
pub mod pll;
pub mod profile;
pub mod protobuf;
pub mod random;
pub mod report;
pub mod settings;
pub mod study;
pub mod svg;
pub mod text;
pub mod train;
