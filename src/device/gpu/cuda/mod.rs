//! The CUDA driver: compiled kernels, one stream, recorded sequences as graphs.
//!
//! | CUDA | here |
//! |---|---|
//! | primary context, one non-blocking stream | made in [`CudaDriver::open`], released when dropped |
//! | module of a cubin or of PTX | one a file under kernels/, loaded when a launch first names it |
//! | graph captured from the stream | [`Driver::record`] |
//! | asynchronous errors | seen at the next call that waits, and reported with that call |
//!
//! Nothing here runs without the probe having found the driver, so the bindings never look for a library in vain.

mod events;
mod functions;

use std::ffi::c_void;

use anyhow::{Result, anyhow};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use events::Events;
use functions::Functions;

use super::cache::KernelCache;
use super::driver::{Activity, Driver, Gpu, Memory};
use super::gpu_code;
use super::launch::Launch;
use super::nvrtc::Target;
use super::probe;
use crate::usage;

/// Rounds over which [`Driver::time`] takes each launch's median.
const TIMED_ROUNDS: usize = 11;

/// One GPU through the CUDA driver.
pub struct CudaDriver {
    gpu: Gpu,
    device: sys::CUdevice,
    stream: sys::CUstream,
    functions: Functions,
    sequences: Vec<sys::CUgraphExec>,
    arenas: Vec<sys::CUdeviceptr>,
    activity: Activity,
    /// What is forgotten is overwritten.
    poison: bool,
    /// The events at the ends of what is timed, once something was.
    clock: Option<Events>,
}

/// Name of the variable that has memory overwritten where its contents may not be read any more.
const POISON_VARIABLE: &str = "RECORDS_POISON";
/// As floats of any width NaN, as integers -1.
const POISON: u8 = 0xFF;

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

/// Puts what failed before the driver's own words.
fn explain(call: &str, error: DriverError) -> anyhow::Error {
    let name =
        error.error_name().map_or_else(|_| format!("{:?}", error.0), |n| n.to_string_lossy().into_owned());
    let text = error.error_string().map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
    anyhow!("CUDA: {call} failed with {name}: {text}")
}

/// Whether a driver translates what the compiler makes: PTX of a newer CUDA than its own it does not know.
fn translatable(target: Target, compiler: (u32, u32), driver: (u32, u32)) -> Result<()> {
    if matches!(target, Target::Ptx(_)) && compiler > driver {
        let [(major, minor), (newest, of_it)] = [compiler, driver];
        return Err(usage!(
            "PTX of NVRTC {major}.{minor} is newer than the driver's CUDA {newest}.{of_it}; update the driver, or {}",
            "`pip install` an NVRTC that is not newer than the driver"
        ));
    }
    Ok(())
}

impl CudaDriver {
    /// Opens the first GPU that the driver shows (`CUDA_VISIBLE_DEVICES` chooses another).
    ///
    /// # Errors
    /// Usage errors that say what to install or change: no driver, no GPU, a driver or GPU that is too old, no NVRTC, an NVRTC
    /// newer than the driver.
    pub fn open() -> Result<Self> {
        let found =
            probe::usable().map_err(|missing| usage!("--device cuda: {missing}, or use --device cpu"))?;
        let first = found.gpus.first().ok_or_else(|| anyhow!("a usable driver shows a GPU"))?;
        let architecture = first.compute_capability.0 * 10 + first.compute_capability.1;
        let poison = poison()?;
        let cache = KernelCache::open()?;
        let target = gpu_code::target(architecture, cache.compiler())?;
        translatable(target, cache.compiler().found.version, found.cuda_version)?;
        let device = result::device::get(0).map_err(|error| explain("cuDeviceGet", error))?;
        // SAFETY: the device was returned by the driver; the context is released in drop.
        let (stream, shared_bytes) = unsafe {
            let context =
                result::primary_ctx::retain(device).map_err(|e| explain("cuDevicePrimaryCtxRetain", e))?;
            result::ctx::set_current(context).map_err(|e| explain("cuCtxSetCurrent", e))?;
            let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
                .map_err(|e| explain("cuStreamCreate", e))?;
            let most = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN;
            let shared = result::device::get_attribute(device, most)
                .map_err(|e| explain("cuDeviceGetAttribute", e))?;
            (stream, shared.unsigned_abs() as usize)
        };
        let multiprocessors = first.multiprocessors as usize;
        let gpu = Gpu { name: first.name.clone(), architecture, multiprocessors, shared_bytes };
        Ok(Self {
            gpu,
            device,
            stream,
            functions: Functions::new(cache, target, multiprocessors),
            sequences: Vec::new(),
            arenas: Vec::new(),
            activity: Activity::default(),
            poison,
            clock: None,
        })
    }

    /// Puts a launch into the stream: runs it, or records it while the stream is being captured.
    fn submit(&mut self, launch: &Launch) -> Result<()> {
        let function = self.functions.get(launch)?;
        let bytes = launch.arguments.bytes();
        let mut parameters: Vec<*mut c_void> = launch
            .arguments
            .offsets()
            .iter()
            // The driver only reads through these pointers.
            .map(|&offset| bytes[offset..].as_ptr().cast_mut().cast())
            .collect();
        let [gx, gy, gz] = launch.grid;
        let [bx, by, bz] = launch.block;
        // SAFETY: a loaded function; one pointer a parameter into a block that outlives the call, laid out as the kernel's
        // signature; the addresses in it are of this context's allocations, which live as long as the driver.
        unsafe {
            if launch.cooperative {
                result::launch_cooperative_kernel(
                    function,
                    (gx, gy, gz),
                    (bx, by, bz),
                    launch.shared_bytes,
                    self.stream,
                    &mut parameters,
                )
            } else {
                result::launch_kernel(
                    function,
                    (gx, gy, gz),
                    (bx, by, bz),
                    launch.shared_bytes,
                    self.stream,
                    &mut parameters,
                )
            }
        }
        .map_err(|error| explain(&format!("launching {}", launch.kernel.name), error))
    }

    fn wait(&mut self, call: &str) -> Result<()> {
        self.activity.synchronisations += 1;
        // SAFETY: the driver's own stream.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|error| explain(call, error))
    }
}

impl Driver for CudaDriver {
    fn name(&self) -> &'static str {
        "cuda"
    }

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn allocate(&mut self, bytes: &[usize], label: &str) -> Result<Vec<Memory>> {
        self.activity.allocations += 1;
        // One arena for all, each part on a boundary that serves every vector load and a whole DRAM burst.
        let total: usize = bytes.iter().map(|bytes| bytes.next_multiple_of(256)).sum();
        // SAFETY: freed in drop; contents are the caller's to write.
        let arena = unsafe { result::malloc_sync(total.max(1)) }.map_err(|error| {
            let (free, all) = result::mem_get_info().unwrap_or((0, 0));
            match error.0 {
                sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => anyhow!(
                    "not enough GPU memory: {label} needs {} MiB, {} of {} MiB are free; try a smaller --batch-size or --width",
                    total >> 20,
                    free >> 20,
                    all >> 20
                ),
                _ => explain(&format!("allocating {label}"), error),
            }
        })?;
        self.arenas.push(arena);
        let mut address = arena;
        Ok(bytes
            .iter()
            .map(|&bytes| {
                let memory = Memory { address, bytes };
                address += bytes.next_multiple_of(256) as u64;
                memory
            })
            .collect())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.activity.copies_to_device += 1;
        // SAFETY: the device checked the range; the host memory lives until the wait below.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream) }
            .map_err(|error| explain("copying to the GPU", error))?;
        self.wait("copying to the GPU")
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.activity.copies_from_device += 1;
        // SAFETY: the device checked the range; the host memory lives until the wait below.
        unsafe { result::memcpy_dtoh_async(bytes, address, self.stream) }
            .map_err(|error| explain("copying from the GPU", error))?;
        self.wait("copying from the GPU")
    }

    fn clear(&mut self, memory: Memory) -> Result<()> {
        // SAFETY: a range of an allocation that lives as long as the driver.
        unsafe { result::memset_d8_async(memory.address, 0, memory.bytes, self.stream) }
            .map_err(|error| explain("clearing memory", error))
    }

    fn forget(&mut self, memory: Memory) -> Result<()> {
        if !self.poison {
            return Ok(());
        }
        // SAFETY: a range of an allocation that lives as long as the driver.
        unsafe { result::memset_d8_async(memory.address, POISON, memory.bytes, self.stream) }
            .map_err(|error| explain("overwriting memory", error))
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.activity.launches += 1;
        self.functions.prepare(launch)?;
        self.submit(launch)
    }

    fn record(&mut self, launches: &[Launch]) -> Result<usize> {
        // Loading and setting attributes are not allowed while the stream is captured.
        launches.iter().try_for_each(|launch| self.functions.prepare(launch))?;
        // SAFETY: the driver's own stream; the graph is destroyed once instantiated, the executable graph in drop.
        unsafe {
            let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            result::stream::begin_capture(self.stream, mode)
                .map_err(|error| explain("recording the step", error))?;
            let submitted = launches.iter().try_for_each(|launch| self.submit(launch));
            // The capture has to end whatever happened in it.
            let graph = result::stream::end_capture(self.stream);
            submitted?;
            let graph = graph.map_err(|error| explain("recording the step", error))?;
            let flags = sys::CUgraphInstantiate_flags(0);
            let sequence = result::graph::instantiate(graph, flags);
            result::graph::destroy(graph).map_err(|error| explain("recording the step", error))?;
            self.sequences.push(sequence.map_err(|error| explain("instantiating the step", error))?);
        }
        Ok(self.sequences.len() - 1)
    }

    fn replay(&mut self, sequence: usize) -> Result<()> {
        self.activity.sequence_launches += 1;
        // SAFETY: an executable graph of this driver, launched into its stream.
        unsafe { result::graph::launch(self.sequences[sequence], self.stream) }
            .map_err(|error| explain("launching the step", error))
    }

    fn synchronise(&mut self) -> Result<()> {
        self.wait("waiting for the GPU")
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<f64>> {
        let mut samples = vec![Vec::with_capacity(TIMED_ROUNDS); launches.len()];
        let mut events = Events::new(launches.len() + 1)?;
        for round in 0..=TIMED_ROUNDS {
            events.record(0, self.stream)?;
            for (number, launch) in launches.iter().enumerate() {
                self.submit(launch)?;
                events.record(number + 1, self.stream)?;
            }
            self.wait("timing kernels")?;
            // The first round loads kernels and fills caches.
            if round > 0 {
                for (number, samples) in samples.iter_mut().enumerate() {
                    samples.push(events.seconds(number, number + 1)?);
                }
            }
        }
        Ok(samples
            .into_iter()
            .map(|mut samples| {
                samples.sort_by(f64::total_cmp);
                samples[samples.len() / 2]
            })
            .collect())
    }

    fn start_clock(&mut self) -> Result<()> {
        let mut events = Events::new(2)?;
        events.record(0, self.stream)?;
        self.clock = Some(events);
        Ok(())
    }

    fn stop_clock(&mut self) -> Result<f64> {
        let mut events = self.clock.take().ok_or_else(|| anyhow!("the clock was not started"))?;
        events.record(1, self.stream)?;
        self.wait("timing replays")?;
        events.seconds(0, 1)
    }

    fn residency(&mut self, launch: &Launch) -> Result<Option<u32>> {
        self.functions.residency(launch).map(Some)
    }

    fn activity(&self) -> Activity {
        self.activity
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        // Errors cannot be reported from here, and the context goes with the process anyway.
        // SAFETY: everything was made by this driver and is used by nobody after it; work in flight is waited for.
        self.clock = None;
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            for &sequence in &self.sequences {
                let _ = result::graph::exec_destroy(sequence);
            }
            self.functions.unload();
            for &arena in &self.arenas {
                let _ = result::free_sync(arena);
            }
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
