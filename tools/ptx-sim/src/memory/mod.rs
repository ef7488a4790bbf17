//! The bytes of global and of shared memory, and where they lie. What is known of them beyond their values is
//! not here.

mod global;
mod shared;

pub use global::{Allocation, Memory, Placed};
pub use shared::Shared;
