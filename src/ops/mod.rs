//! The operations: one folder per family, with operands, costs and gradient in `mod.rs`, the CPU twin in `cpu.rs` and the
//! kernel launches in `gpu.rs`. Their kernels lie in `kernels/`.
//!
//! An operation is a struct that implements [`Operation`](crate::device::Operation) and, where it has a gradient,
//! [`Differentiable`](crate::autograd::Differentiable). What belongs to one method alone lies beside that method in `pll/`.

pub mod augment;
pub mod batchnorm;
pub mod convolution;
pub mod elementwise;
pub mod input;
pub mod linear;
pub mod mixup;
pub mod pooling;
