//! Runs the PTX that NVRTC emits on the CPU: exactly, with checks, with counters.
//!
//! | module | what |
//! |---|---|
//! | `parse` | text to statements |
//! | `decode`, `op`, `flow` | statements to instructions over numbered registers; where diverging lanes meet again |
//! | `memory` | global memory, its shadow, races between blocks |
//! | `exec` | running a launch |
//! | `finding`, `counters` | what was found, what was counted |
//! | `machine` | the door: memory and launches |

mod counters;
mod decode;
mod error;
mod exec;
mod finding;
mod flow;
mod machine;
mod memory;
mod op;
mod parse;
mod program;

pub use counters::Counters;
pub use error::Error;
pub use exec::Launch;
pub use finding::{Finding, FindingKind};
pub use machine::{Machine, Report, Settings};
pub use program::{Kernel, Parameter, Program};
