//! Opening the driver: what has to be there, and what the environment asks for.

use anyhow::{Result, anyhow};
use cudarc::driver::{result, sys};

use super::functions::Functions;
use super::{CudaDriver, explain};
use crate::device::gpu::cache::KernelCache;
use crate::device::gpu::driver::{Activity, Gpu};
use crate::device::gpu::nvrtc::Target;
use crate::device::gpu::tiles::MeasuredOn;
use crate::device::gpu::{gpu_code, probe};
use crate::usage;

/// Name of the variable that has memory overwritten where its contents may not be read any more.
const POISON_VARIABLE: &str = "RECORDS_POISON";
/// Whether `RECORDS_POISON` is 1.
///
/// # Errors
/// A usage error where it is anything else but 0 or empty.
fn poison() -> Result<bool> {
    let word = std::env::var_os(POISON_VARIABLE).unwrap_or_default();
    match word.to_str() {
        Some("1") => Ok(true),
        Some("" | "0") => Ok(false),
        _ => Err(usage!("{POISON_VARIABLE} {word:?}: must be 0 or 1")),
    }
}

/// Whether a driver translates what the compiler makes: PTX of a newer CUDA than its own it does not know.
fn translatable(target: Target, compiler: (u32, u32), driver: (u32, u32)) -> Result<()> {
    if matches!(target, Target::Ptx(_)) && compiler > driver {
        let [(major, minor), (newest, of_it)] = [compiler, driver];
        return Err(usage!(
            "PTX of NVRTC {major}.{minor} is newer than the driver's CUDA {newest}.{of_it}; {}",
            "update the driver, or `pip install` an NVRTC that is not newer than it"
        ));
    }
    Ok(())
}

impl CudaDriver {
    /// Opens the GPU of the process that is `number`th on its machine: that one of those that the driver
    /// shows (`CUDA_VISIBLE_DEVICES` chooses which), and from the first on again where there are not so many.
    ///
    /// # Errors
    /// Usage errors that say what to install or change: no driver, no GPU, a driver or GPU that is too old,
    /// no NVRTC, an NVRTC newer than the driver.
    pub fn open(number: usize) -> Result<Self> {
        let found =
            probe::usable().map_err(|missing| usage!("--device cuda: {missing}, or use --device cpu"))?;
        let ordinal = number % found.gpus.len().max(1);
        let chosen = found.gpus.get(ordinal).ok_or_else(|| anyhow!("a usable driver shows a GPU"))?;
        let architecture = chosen.architecture();
        let poison = poison()?;
        let cache = KernelCache::open()?;
        let target = gpu_code::target(architecture, cache.compiler())?;
        translatable(target, cache.compiler().found.version, found.cuda_version)?;
        let device = result::device::get(ordinal as i32).map_err(|error| explain("cuDeviceGet", error))?;
        // SAFETY: the device was returned by the driver; the context is released in drop.
        let (stream, aside, shared_bytes) = unsafe {
            let context =
                result::primary_ctx::retain(device).map_err(|e| explain("cuDevicePrimaryCtxRetain", e))?;
            result::ctx::set_current(context).map_err(|e| explain("cuCtxSetCurrent", e))?;
            let stream = || {
                let kind = result::stream::StreamKind::NonBlocking;
                result::stream::create(kind).map_err(|e| explain("cuStreamCreate", e))
            };
            let (stream, aside) = (stream()?, stream()?);
            let most = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
            let shared = result::device::get_attribute(device, most)
                .map_err(|e| explain("cuDeviceGetAttribute", e))?;
            (stream, aside, shared.unsigned_abs() as usize)
        };
        let multiprocessors = chosen.multiprocessors as usize;
        let measured_on = MeasuredOn::of(chosen, &cache)?;
        let gpu = Gpu {
            name: chosen.name.clone(),
            architecture,
            multiprocessors,
            shared_bytes,
            choice: Default::default(),
        };
        Ok(Self {
            gpu,
            measured_on,
            device,
            stream,
            aside,
            functions: Functions::new(cache, target, multiprocessors),
            sequences: Vec::new(),
            arenas: Vec::new(),
            taken: 0,
            activity: Activity::default(),
            poison,
            clock: None,
            together: None,
        })
    }
}
