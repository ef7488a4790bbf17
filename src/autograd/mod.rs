//! The tape: a step is recorded once as operations over tensors, differentiated, given memory, and replayed.
//!
//! `tape` records, `gradients` differentiates, `memory` plans which temporaries share memory.

mod gradients;
mod memory;
mod tape;

pub use gradients::{Differentiable, Gradients};
pub use tape::Tape;
