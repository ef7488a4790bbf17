//! The GPU device: primitives to kernel launches over a small driver (CUDA, or the PTX interpreter).
//!
//! | layer | file |
//! |---|---|
//! | what the machine has: driver, GPUs, NVRTC | `probe.rs` |
//! | the kernels' sources, their compilation, what was compiled before | `sources.rs`, `nvrtc.rs`, `cache.rs` |
//! | the kernels' parameters and constants as Rust | `kernels.rs`, written by build.rs |
//! | a launch as plain data; primitives to launches | `launch.rs`, `lower/` |
//! | what a driver must do; the drivers | `driver.rs`; `cuda.rs`, `sim.rs` |
//! | the device over a driver | `gpu_device.rs` |

pub mod cache;
mod cuda;
pub mod driver;
mod gpu_device;
pub mod kernels;
pub mod launch;
pub mod lower;
pub mod nvrtc;
pub mod probe;
pub mod sim;
pub mod sources;

pub use gpu_device::{GpuDevice, Precision};

/// Opens the GPU device `cuda` or `sim`.
///
/// # Errors
/// A usage error that says what is missing and how to get it.
pub fn open(name: &str, precision: Precision) -> anyhow::Result<GpuDevice> {
    let driver: Box<dyn driver::Driver> = match name {
        "cuda" => Box::new(cuda::CudaDriver::open()?),
        "sim" => Box::new(sim::SimDriver::open(warp_seed()?)?),
        other => return Err(crate::usage!("--device {other}: the kernels run on cuda or sim")),
    };
    Ok(GpuDevice::new(driver, precision))
}

/// The order in which the interpreter runs warps: `RECORDS_WARP_SEED`, which tests vary; 0 without it.
fn warp_seed() -> anyhow::Result<u64> {
    let Some(word) = std::env::var_os("RECORDS_WARP_SEED") else { return Ok(0) };
    let word = word.to_string_lossy();
    word.parse().map_err(|_| {
        crate::usage!("RECORDS_WARP_SEED {word:?}: must be a whole number from 0 to 18446744073709551615")
    })
}
