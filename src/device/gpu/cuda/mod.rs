//! The CUDA driver: compiled kernels, one stream, recorded sequences as graphs of up to two branches.
//!
//! | CUDA | here |
//! |---|---|
//! | primary context, one non-blocking stream | made in [`CudaDriver::open`], released when dropped |
//! | module of a cubin or of PTX | one a file under kernels/, loaded when a launch first names it |
//! | graph captured from the stream, and from a second one between events | [`Driver::record`], `branches.rs` |
//! | copies in the second stream, beside the graphs | [`Driver::write_aside`], [`Driver::read_aside`] |
//! | times of launches | `timing.rs` |
//! | exchanges with other GPUs, captured with the rest | `together.rs`, over NCCL |
//! | asynchronous errors | seen at the next call that waits, and reported with that call |
//!
//! Nothing here runs without the probe having found the driver, so the bindings never look for a library in
//! vain.

mod branches;
mod events;
mod functions;
mod open;
mod timing;
#[cfg(feature = "nccl")]
mod together;
#[cfg(not(feature = "nccl"))]
#[path = "without_nccl.rs"]
mod together;

use std::ffi::c_void;

use anyhow::{Result, anyhow};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

use branches::Joints;
use events::Events;
use functions::Functions;
use together::Together;

use super::branches::Place;
use super::driver::{Activity, Driver, Gpu, Memory, NotEnoughMemory};
use super::launch::Launch;
use super::tiles::MeasuredOn;
use crate::collective::World;

/// One GPU through the CUDA driver.
pub struct CudaDriver {
    gpu: Gpu,
    measured_on: MeasuredOn,
    device: sys::CUdevice,
    stream: sys::CUstream,
    /// Takes part in captures, and in copies beside the other's work.
    aside: sys::CUstream,
    functions: Functions,
    sequences: Vec<sys::CUgraphExec>,
    arenas: Vec<sys::CUdeviceptr>,
    /// Bytes of all arenas.
    taken: u64,
    activity: Activity,
    /// What is forgotten is overwritten.
    poison: bool,
    /// The events at the ends of what is timed, once something was.
    clock: Option<Events>,
    /// The GPUs of other processes.
    together: Option<Together>,
}

/// What forgotten memory is overwritten with: as floats of any width NaN, as integers -1.
const POISON: u8 = 0xFF;

/// Puts what failed before the driver's own words.
fn explain(call: &str, error: DriverError) -> anyhow::Error {
    let name =
        error.error_name().map_or_else(|_| format!("{:?}", error.0), |n| n.to_string_lossy().into_owned());
    let text = error.error_string().map(|t| t.to_string_lossy().into_owned()).unwrap_or_default();
    anyhow!("CUDA: {call} failed with {name}: {text}")
}

impl CudaDriver {
    /// Puts a launch into a stream: runs it, or records it while the stream is being captured.
    fn submit(&mut self, launch: &Launch, stream: sys::CUstream) -> Result<()> {
        if let Some(exchange) = &launch.exchange {
            return self.exchange(exchange, stream);
        }
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
        // SAFETY: a loaded function; one pointer a parameter into a block that outlives the call, laid out as
        // the kernel's signature; the addresses in it are of this context's allocations, which live as long
        // as the driver.
        unsafe {
            if launch.cooperative {
                result::launch_cooperative_kernel(
                    function,
                    (gx, gy, gz),
                    (bx, by, bz),
                    launch.shared_bytes,
                    stream,
                    &mut parameters,
                )
            } else {
                result::launch_kernel(
                    function,
                    (gx, gy, gz),
                    (bx, by, bz),
                    launch.shared_bytes,
                    stream,
                    &mut parameters,
                )
            }
        }
        .map_err(|error| explain(&format!("launching {}", launch.kernel.name), error))
    }

    /// The graph of what `work` puts into the driver's stream, and into others that it forks from that by
    /// events and joins again.
    fn capture(&mut self, work: impl FnOnce(&mut Self) -> Result<()>) -> Result<sys::CUgraph> {
        let failed = |error| explain("recording the step", error);
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the driver's own stream.
        unsafe { result::stream::begin_capture(self.stream, mode) }.map_err(failed)?;
        let submitted = work(self);
        // The capture has to end whatever happened in it.
        // SAFETY: as above.
        let graph = unsafe { result::stream::end_capture(self.stream) };
        submitted?;
        graph.map_err(failed)
    }

    fn wait(&mut self, call: &str) -> Result<()> {
        self.activity.synchronisations += 1;
        self.settle()?;
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
                sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => NotEnoughMemory {
                    label: label.into(),
                    bytes: total as u64,
                    free: free as u64,
                    all: all as u64,
                    own: self.taken,
                    gpu: self.gpu.clone(),
                }
                .into(),
                _ => explain(&format!("allocating {label}"), error),
            }
        })?;
        self.taken += total as u64;
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
        // The copy itself may wait for the stream.
        self.settle()?;
        // SAFETY: the device checked the range; the host memory lives until the wait below.
        unsafe { result::memcpy_htod_async(address, bytes, self.stream) }
            .map_err(|error| explain("copying to the GPU", error))?;
        self.wait("copying to the GPU")
    }

    fn works_aside(&self) -> bool {
        true
    }

    fn write_aside(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.activity.copies_aside += 1;
        // With other processes, which may be gone, no wait is left to the driver.
        self.settle()?;
        let failed = |error| explain("copying to the GPU", error);
        // SAFETY: the device checked the range; the host memory lives until the wait. Outside captures that stream
        // has no other work.
        unsafe {
            result::memcpy_htod_async(address, bytes, self.aside).map_err(failed)?;
            result::stream::synchronize(self.aside).map_err(failed)
        }
    }

    fn read_aside(&mut self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.activity.copies_aside += 1;
        self.settle()?;
        let failed = |error| explain("copying from the GPU", error);
        // SAFETY: as in `write_aside`.
        unsafe {
            result::memcpy_dtoh_async(bytes, address, self.aside).map_err(failed)?;
            result::stream::synchronize(self.aside).map_err(failed)
        }
    }

    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.activity.copies_within += 1;
        // SAFETY: the device checked both ranges.
        unsafe { result::memcpy_dtod_async(to, from, bytes, self.stream) }
            .map_err(|error| explain("copying on the GPU", error))
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.activity.copies_from_device += 1;
        self.settle()?;
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
        self.submit(launch, self.stream)
    }

    fn record(&mut self, launches: &[Launch], places: &[Place]) -> Result<usize> {
        // Loading and setting attributes are not allowed while the stream is captured.
        launches.iter().try_for_each(|launch| self.functions.prepare(launch))?;
        let mut joints = Joints::of(places)?;
        let graph = self.capture(|driver| driver.submit_all(launches, places, &mut joints))?;
        // SAFETY: a graph just captured, destroyed once instantiated; the executable graph is destroyed in
        // drop.
        unsafe {
            let sequence = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            result::graph::destroy(graph).map_err(|error| explain("recording the step", error))?;
            self.sequences.push(sequence.map_err(|error| explain("instantiating the step", error))?);
        }
        Ok(self.sequences.len() - 1)
    }

    fn replay(&mut self, sequence: usize) -> Result<()> {
        self.activity.sequence_launches += 1;
        self.before_replay()?;
        // SAFETY: an executable graph of this driver, launched into its stream.
        unsafe { result::graph::launch(self.sequences[sequence], self.stream) }
            .map_err(|error| explain("launching the step", error))?;
        self.after_replay()
    }

    fn join(&mut self, world: &World) -> Result<()> {
        self.join_others(world)
    }

    fn synchronise(&mut self) -> Result<()> {
        self.wait("waiting for the GPU")
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<f64>> {
        self.time_one_by_one(launches)
    }

    fn measured_on(&self) -> Option<MeasuredOn> {
        Some(self.measured_on.clone())
    }

    fn time_in_turn(&mut self, sequences: &[Vec<Launch>], repeats: usize) -> Result<Vec<f64>> {
        self.time_sequences(sequences, repeats)
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
        if launch.exchange.is_some() {
            return Ok(None);
        }
        self.functions.residency(launch).map(Some)
    }

    fn activity(&self) -> Activity {
        self.activity
    }
}

impl Drop for CudaDriver {
    fn drop(&mut self) {
        self.clock = None;
        self.part();
        // Errors cannot be reported from here, and the context goes with the process anyway.
        // SAFETY: everything was made by this driver and is used by nobody after it; work in flight is waited
        // for.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            for &sequence in &self.sequences {
                let _ = result::graph::exec_destroy(sequence);
            }
            self.together = None;
            self.functions.unload();
            for &arena in &self.arenas {
                let _ = result::free_sync(arena);
            }
            let _ = result::stream::destroy(self.aside);
            let _ = result::stream::destroy(self.stream);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
