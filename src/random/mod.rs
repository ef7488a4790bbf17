//! Random numbers: our own counter-based stream ([`philox`]) and the two streams the reference draws its data from
//! ([`numpy`], [`python`]).

pub mod numpy;
pub mod philox;
pub mod python;
