//! The tape: a step is recorded once as operations over tensors, differentiated, given memory, and replayed.
//!
//! `tape` records, `gradients` differentiates, `order` says which gradient comes next, `addition` sums gradients,
//! `memory` decides which temporaries share memory.

mod addition;
mod gradients;
mod memory;
mod order;
mod tape;

pub use addition::Add;
pub use gradients::{Differentiable, Gradients};
pub use tape::Tape;
