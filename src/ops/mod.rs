//! The operations: one folder per family, with operands, costs and gradient in `mod.rs`, the CPU twin in `cpu.rs` and the
//! kernel launches in `gpu.rs`. Their kernels lie in `kernels/`.
//!
//! An operation is a struct that implements [`Operation`](crate::device::Operation) and, where it has a gradient,
//! [`Differentiable`](crate::autograd::Differentiable). What belongs to one method alone lies beside that method in `pll/`:
//! [`loss::Loss`] and [`confidence::Disambiguate`] go over the rows of a batch, and a method brings what is done to a row.

pub mod augment;
pub mod batchnorm;
pub mod confidence;
pub mod control;
pub mod convolution;
pub mod elementwise;
pub mod input;
pub mod linear;
pub mod loss;
pub mod mixup;
pub mod pooling;
pub mod rows;
pub mod statistics;
