//! The GPU device: operations to kernel launches over a small driver (CUDA, or the PTX interpreter).
//!
//! | layer | file |
//! |---|---|
//! | what the machine has: driver, GPUs, NVRTC | `probe.rs`, `nvrtc_search.rs` |
//! | the kernels' sources | `sources.rs` |
//! | their compilation, for which target; what was compiled before | `nvrtc.rs`, `gpu_code.rs`, `cache.rs` |
//! | which kept files are trusted | `own_files.rs` |
//! | the kernels' parameters and constants as Rust | `kernels.rs`, written by build.rs |
//! | a launch as plain data; operations to launches | `launch.rs`, `lower/` |
//! | what several GPUs do together, as plain data | `exchange.rs` |
//! | what launches that do the same are chosen by | `tiles/` |
//! | what a launch does, and how long it takes | `work.rs`, `model/` |
//! | which launches may run beside which | `branches.rs` |
//! | what a driver must do; the drivers | `driver.rs`; `cuda/`, `sim.rs`, `plan_driver.rs` |
//! | exchanges between GPUs, with the feature `nccl` | `nccl/` |
//! | the device over a driver | `gpu_device.rs` |
//! | operations of several processes, between the interpreter's launches | `host.rs` |

pub mod branches;
pub mod cache;
mod cuda;
pub mod driver;
pub mod exchange;
pub mod gpu_code;
mod gpu_device;
mod host;
pub mod kernels;
pub mod launch;
pub mod lower;
pub mod model;
#[cfg(feature = "nccl")]
pub mod nccl;
pub mod nvrtc;
pub mod nvrtc_search;
mod own_files;
pub mod plan_driver;
pub mod probe;
#[cfg(feature = "sim")]
pub mod sim;
pub mod sources;
pub mod tiles;
pub mod work;

pub use gpu_device::{GpuDevice, Precision};
use tiles::Tiles;

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// An NVIDIA GPU.
    Cuda,
    /// The PTX interpreter, which the feature `sim` builds in.
    Sim,
}

impl std::str::FromStr for DriverKind {
    type Err = anyhow::Error;

    fn from_str(word: &str) -> anyhow::Result<Self> {
        match word {
            "cuda" => Ok(Self::Cuda),
            "sim" => Ok(Self::Sim),
            _ => Err(crate::usage!("device {word:?}: the kernels run on cuda or sim")),
        }
    }
}

/// Opens the GPU device over a driver.
///
/// # Errors
/// A usage error that says what is missing and how to get it.
pub fn open(kind: DriverKind, precision: Precision) -> anyhow::Result<GpuDevice> {
    open_nth(kind, precision, 0)
}

/// The same for the process that is `number`th on its machine: it takes that GPU, from the first on again
/// where there are not so many.
///
/// # Errors
/// As [`open`].
pub fn open_nth(kind: DriverKind, precision: Precision, number: usize) -> anyhow::Result<GpuDevice> {
    let branches = branches::wanted()?;
    let driver = open_driver_nth(kind, number)?;
    let tiles = Tiles::of(&*driver)?;
    Ok(GpuDevice::new(driver, precision).with_branches(branches).with_tiles(tiles))
}

/// Opens the driver of a device.
///
/// # Errors
/// As [`open`].
pub fn open_driver(kind: DriverKind) -> anyhow::Result<Box<dyn driver::Driver>> {
    open_driver_nth(kind, 0)
}

fn open_driver_nth(kind: DriverKind, number: usize) -> anyhow::Result<Box<dyn driver::Driver>> {
    match kind {
        DriverKind::Cuda => Ok(Box::new(cuda::CudaDriver::open(number)?)),
        #[cfg(feature = "sim")]
        DriverKind::Sim => Ok(Box::new(sim::SimDriver::open(warp_seed()?)?)),
        #[cfg(not(feature = "sim"))]
        DriverKind::Sim => Err(crate::usage!(
            "--device sim: this build has no PTX interpreter; build with `--features sim`, or use --device cpu"
        )),
    }
}

/// The order in which the interpreter runs warps: `RECORDS_WARP_SEED`, which tests vary; 0 without it.
///
/// # Errors
/// A usage error where it is no number.
#[cfg(feature = "sim")]
pub fn warp_seed() -> anyhow::Result<u64> {
    let Some(word) = std::env::var_os("RECORDS_WARP_SEED") else { return Ok(0) };
    let word = word.to_string_lossy();
    word.parse().map_err(|_| {
        crate::usage!("RECORDS_WARP_SEED {word:?}: must be a whole number from 0 to 18446744073709551615")
    })
}
