//! The GPU device: primitives to kernel launches over a small driver (CUDA, or the PTX interpreter).
//!
//! | layer | file |
//! |---|---|
//! | what the machine has: driver, GPUs, NVRTC | `probe.rs` |
//! | the kernels' sources, their compilation, what was compiled before | `sources.rs`, `nvrtc.rs`, `cache.rs` |
//! | a launch as plain data; primitives to launches | `launch.rs`, `lower/` |
//! | what a driver must do; the drivers | `driver.rs`; `sim.rs` |
//! | the device over a driver | `gpu_device.rs` |

pub mod cache;
pub mod driver;
mod gpu_device;
pub mod launch;
pub mod lower;
pub mod nvrtc;
pub mod probe;
pub mod sources;

pub use gpu_device::{GpuDevice, Precision};

/// The error for `--device cuda` and `--device sim`.
pub fn unavailable(name: &str) -> anyhow::Error {
    crate::usage!(
        "--device {name}: not there yet in this version, no CUDA kernel exists so far; use --device cpu"
    )
}

/// Opens the GPU device `cuda` or `sim`.
///
/// # Errors
/// A usage error that says what is missing and how to get it.
pub fn open(name: &str, precision: Precision) -> anyhow::Result<GpuDevice> {
    let _ = precision;
    Err(unavailable(name))
}
