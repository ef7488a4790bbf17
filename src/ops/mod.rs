//! The operations, one folder per family: operands, costs and gradient in `mod.rs`, the CPU twin in `cpu.rs`
//! and the kernel launches in `gpu.rs`. Their kernels are in `kernels/`.
//!
//! An operation is a struct that implements [`Operation`](crate::device::Operation) and, if it has a
//! gradient, [`Differentiable`](crate::autograd::Differentiable). Operations of a single method lie beside
//! that method in `pll/`. [`loss::Loss`] and [`confidence::Disambiguate`] loop over the rows of a batch; each
//! method supplies the arithmetic of a row.

pub mod augment;
pub mod batchnorm;
pub mod confidence;
pub mod control;
pub mod convolution;
pub mod division;
pub mod elementwise;
pub mod input;
pub mod linear;
pub mod loss;
pub mod mixup;
pub mod pooling;
pub mod rows;
pub mod statistics;
