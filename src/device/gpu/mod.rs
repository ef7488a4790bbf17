//! The place of the GPU device: primitives to kernel launches over a small driver (CUDA, or the PTX interpreter).
//!
//! Not there yet. Until it is, asking for it is an error that says so; nothing is emulated behind its name.

pub mod probe;

/// The error for `--device cuda` and `--device sim`.
pub fn unavailable(name: &str) -> anyhow::Error {
    crate::usage!(
        "--device {name}: not there yet in this version, no CUDA kernel exists so far; use --device cpu"
    )
}
