//! Running kernels: lanes in rows, warps in lock step, blocks over host threads.
//!
//! Each file uses only those of the lines above it:
//!
//! | files | what |
//! |---|---|
//! | `registers`, `float`, `alu`, `convert` | rows of registers, and what one lane computes |
//! | `warp`, `packed`, `misc` | a warp and its paths; instructions that only change its registers |
//! | `waits`, `launch`, `site` | which host threads wait; what a launch, a block and a host thread hold; an instruction's place in all that |
//! | `memory`, `together`, `barrier`, `matrix`, `printf` | what reaches beyond a warp's registers |
//! | `atomic`, `async_copy`, `mbarrier`, `fragment`, `host` | what is made of these |
//! | `step`, `block`, `grid` | a warp's instructions, a block's warps, a launch's blocks |

mod alu;
mod async_copy;
mod atomic;
mod barrier;
mod block;
mod convert;
mod float;
mod fragment;
mod grid;
mod host;
mod launch;
mod matrix;
mod mbarrier;
mod memory;
mod misc;
mod packed;
mod printf;
mod registers;
mod site;
mod step;
mod together;
mod waits;
mod warp;

pub use alu::fast;
pub use grid::run;
pub use launch::{Heap, LaunchState};
pub use registers::{Bf16, F16};
pub use waits::Waits;
