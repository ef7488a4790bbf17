//! What the GPU device needs of a driver: memory, compiled kernels, launches, and sequences of launches.
//!
//! Everything above this line is the same for a GPU and for the interpreter.

use anyhow::Result;

use super::Precision;
use super::branches::Place;
use super::launch::Launch;
use super::tiles::MeasuredOn;
use crate::collective::World;
use crate::device::Limits;
use crate::usage;

/// A range of device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Address on the device, 256-byte aligned.
    pub address: u64,
    /// Length.
    pub bytes: usize,
}

/// What a driver was asked to do so far. A training epoch must add nothing but launches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Calls that asked for memory.
    pub allocations: u64,
    /// Copies from the host, each of which waits for the device.
    pub copies_to_device: u64,
    /// Copies from and to the host beside what the device is at.
    pub copies_aside: u64,
    /// Copies within the device.
    pub copies_within: u64,
    /// Copies to the host, each of which waits for the device.
    pub copies_from_device: u64,
    /// Waits for the device.
    pub synchronisations: u64,
    /// Kernels launched one by one.
    pub launches: u64,
    /// Whole recorded sequences launched.
    pub sequence_launches: u64,
}

/// What is known of the GPU, real or modelled; decides how work is cut.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Name for people.
    pub name: String,
    /// Compute capability times ten, 86 for sm_86.
    pub architecture: u32,
    /// Streaming multiprocessors.
    pub multiprocessors: usize,
    /// Largest dynamic shared memory of a block, bytes.
    pub shared_bytes: usize,
    /// How kernels are chosen among those that do the same.
    pub choice: Choice,
}

/// How kernels are chosen among those that do the same: the fastest by the model, if nothing else is said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The GPU built in that they are timed on, if not the nearest.
    pub rates: Option<&'static str>,
    /// The tiles that convolutions take where they can, as `64x64` or `halo_64x288`, the first before the
    /// others: for tests of every one. If there are any, nothing is timed.
    pub tiles: &'static [&'static str],
}

impl Gpu {
    /// Whether its tensor cores are twice as fast with f16 products summed in f16 as in f32: the GeForce chips of
    /// Ampere and Ada (NVIDIA, "Ampere GA102 GPU architecture", and Ada's counterpart, tables of rates).
    pub fn sums_in_f16(&self) -> bool {
        matches!(self.architecture, 86 | 89)
    }
}

/// The error of a GPU without enough memory.
#[derive(Debug)]
pub struct NotEnoughMemory {
    /// What it is for.
    pub label: String,
    /// Bytes asked for.
    pub bytes: u64,
    /// Bytes free on the GPU.
    pub free: u64,
    /// All bytes of the GPU.
    pub all: u64,
    /// Bytes that this driver has taken before.
    pub own: u64,
    /// Which GPU.
    pub gpu: Gpu,
}

impl NotEnoughMemory {
    /// What was asked for and what there is.
    pub fn in_words(&self) -> String {
        let Self { label, bytes, free, all, .. } = self;
        let [bytes, free, all] = [bytes, free, all].map(|bytes| bytes >> 20);
        format!("not enough GPU memory: {bytes} MiB for {label}, and {free} of {all} MiB are free")
    }
}

impl std::fmt::Display for NotEnoughMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; try a smaller --batch-size or --width", self.in_words())
    }
}

impl std::error::Error for NotEnoughMemory {}

/// A driver. Launches run in the order they are given; a call that reads memory waits for them.
pub trait Driver {
    /// `cuda`, `sim`, or `gpu` for one that only plans.
    fn name(&self) -> &'static str;

    /// The GPU.
    fn gpu(&self) -> &Gpu;

    /// New memory, contents undefined; one request after the other, from one allocation where that is of use.
    ///
    /// # Errors
    /// When the GPU's memory is exhausted: a message with `label` and the remedy.
    fn allocate(&mut self, bytes: &[usize], label: &str) -> Result<Vec<Memory>>;

    /// Copies in.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()>;

    /// Whether what is launched runs while the host goes on.
    fn works_aside(&self) -> bool;

    /// Copies in beside what was launched before, none of which may touch that memory; waits for the copy alone.
    ///
    /// # Errors
    /// The driver's.
    fn write_aside(&mut self, address: u64, bytes: &[u8]) -> Result<()>;

    /// Copies out beside what was launched before, none of which may change that memory; waits for the copy alone.
    ///
    /// # Errors
    /// The driver's.
    fn read_aside(&mut self, address: u64, bytes: &mut [u8]) -> Result<()>;

    /// Copies so many bytes within the device, after everything launched before; does not wait.
    ///
    /// # Errors
    /// The driver's.
    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()>;

    /// Copies out, after everything launched before.
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<()>;

    /// Sets every byte to 0.
    fn clear(&mut self, memory: Memory) -> Result<()>;

    /// Makes the contents undefined, where the driver can tell: reading them before they are written again is
    /// a fault.
    fn forget(&mut self, memory: Memory) -> Result<()>;

    /// Launches one kernel.
    ///
    /// # Errors
    /// What the GPU or the interpreter found wrong.
    fn launch(&mut self, launch: &Launch) -> Result<()>;

    /// Prepares launches to be run as a unit: a captured graph on a GPU. Each launch comes after those that its
    /// place says, and before whatever the driver is asked for next. Returns its number.
    fn record(&mut self, launches: &[Launch], places: &[Place]) -> Result<usize>;

    /// Runs a recorded sequence.
    fn replay(&mut self, sequence: usize) -> Result<()>;

    /// Takes the GPUs of other processes, with which launches may have exchanges from then on.
    ///
    /// # Errors
    /// A usage error if it cannot.
    fn join(&mut self, world: &World) -> Result<()> {
        Err(usage!(
            "--device {}: {} processes cannot share a step on it; start one",
            self.name(),
            world.size()
        ))
    }

    /// What the GPU can do at most with activations of that precision; `None` where that is not known.
    fn limits(&self, _precision: Precision) -> Option<Limits> {
        None
    }

    /// Waits until everything launched has ended.
    fn synchronise(&mut self) -> Result<()>;

    /// Seconds that each launch takes, in this order and on the data as it stands: measured on a GPU, each
    /// with the event that ends it (a microsecond or two); predicted from counts by the interpreter.
    fn time(&mut self, launches: &[Launch]) -> Result<Vec<f64>>;

    /// What times that are measured here are kept by; `None` where kernels do not run on a GPU.
    fn measured_on(&self) -> Option<MeasuredOn> {
        None
    }

    /// Seconds of each of several sequences of launches that do the same: each is run `repeats` times without
    /// a pause, in rounds in which all take turns, so that what drifts meets all; the median of the rounds
    /// over `repeats`. One that takes much longer than the shortest runs once.
    ///
    /// # Errors
    /// A usage error where kernels do not run on a GPU; the driver's.
    fn time_in_turn(&mut self, _sequences: &[Vec<Launch>], _repeats: usize) -> Result<Vec<f64>> {
        Err(usage!("--device {}: its times are no GPU's; take --device cuda", self.name()))
    }

    /// Starts the clock, once what was asked for before has ended.
    fn start_clock(&mut self) -> Result<()>;

    /// Seconds from the clock's start to the end of what was asked for since: the GPU's own where there is
    /// one.
    fn stop_clock(&mut self) -> Result<f64>;

    /// Blocks of a launch that a multiprocessor holds at once; `None` where that is not known.
    fn residency(&mut self, _launch: &Launch) -> Result<Option<u32>> {
        Ok(None)
    }

    /// What was asked for so far.
    fn activity(&self) -> Activity;
}
