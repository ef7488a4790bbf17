//! The tape: a step is recorded once as primitives over tensors, differentiated, given memory, and replayed.
//!
//! `tape` records and differentiates, `memory` plans which temporaries share memory.

mod memory;
mod tape;

pub use tape::Tape;
