//! Device memory and what is known of every byte of it.

pub mod order;
pub mod races;
pub mod shared;
pub mod space;
pub mod sync;
