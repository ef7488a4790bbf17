//! The instruction set: from PTX text to kernels of numbered registers. Nothing here knows how instructions
//! run.

mod class;
mod decode;
mod flow;
mod instruction;
mod kernel;
mod matrix;
mod parse;
pub mod tables;
mod types;
mod waits;

pub use class::Class;
pub use decode::{Description, Program};
pub use instruction::*;
pub use kernel::*;
pub use matrix::*;
pub use tables::{Binary, Compare, Ternary, Unary};
pub use types::*;
