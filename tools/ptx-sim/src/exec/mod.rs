//! Running kernels: lanes in rows, warps in lock step, blocks over host threads.
// Loops over lanes and elements index several rows at once, and checks take the whole place of an access.
#![allow(clippy::needless_range_loop, clippy::too_many_arguments)]

pub mod alu;
mod async_copy;
mod atomic;
mod barrier;
pub mod block;
mod check;
mod convert;
pub mod float;
mod fragment;
pub mod grid;
pub mod host;
mod matrix;
mod mbarrier;
mod memory;
mod misc;
mod printf;
pub mod registers;
mod shuffle;
pub mod warp;
