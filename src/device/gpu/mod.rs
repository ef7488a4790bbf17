//! NVIDIA GPUs.

pub mod probe;
