//! The GPU device: primitives to kernel launches over a small driver (CUDA, or the PTX interpreter).
//!
//! | layer | file |
//! |---|---|
//! | what the machine has: driver, GPUs, NVRTC | `probe.rs` |
//! | the kernels' sources and their compilation | `sources.rs`, `nvrtc.rs` |
//! | a launch as plain data | `launch.rs` |

pub mod launch;
pub mod nvrtc;
pub mod probe;
pub mod sources;

/// The error for `--device cuda` and `--device sim`.
pub fn unavailable(name: &str) -> anyhow::Error {
    crate::usage!(
        "--device {name}: not there yet in this version, no CUDA kernel exists so far; use --device cpu"
    )
}
