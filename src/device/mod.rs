//! The interface of a device, and the devices.
//!
//! A device owns memory and runs [`Operation`]s. The tape ([`crate::autograd`]) records operations over
//! [`Tensor`]s once, plans their memory and gives the device a [`Program`] to prepare for replays. Everything
//! that changes between steps lies in device memory, so a plan never changes.
//!
//! | layer | file |
//! |---|---|
//! | the interface of an operation: operands, costs, CPU twin, kernels | `operation.rs` |
//! | a recorded step | `plan.rs` |
//! | the limits of a machine | `limits.rs` |
//! | the CPU: f32, threads, the reference of every kernel | `cpu/` |
//! | the GPU kernels behind a driver | `gpu/` |

pub mod cpu;
pub mod gpu;
pub mod limits;
pub mod operation;
pub mod plan;

use std::time::Instant;

use anyhow::Result;

use crate::collective::World;
use crate::usage;

use gpu::tiles::{Tiles, Times};
pub use limits::Limits;
pub use operation::{Access, Operand, Operation, Tensor};
pub use plan::{Plan, Program, Recording, Temporaries};

/// The type of a buffer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// The upper half of an f32, in which a GPU stores activations and its copies of the weights.
    Bf16,
    /// IEEE half precision, for the same.
    F16,
    /// Signed 32-bit integers: classes, positions, counts.
    I32,
    /// Bytes: images, and candidate sets as 0 or 1.
    U8,
}

impl Element {
    /// Bytes of one element.
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 | Element::I32 => 4,
            Element::Bf16 | Element::F16 => 2,
            Element::U8 => 1,
        }
    }

    /// The value as a buffer of this type holds it: rounded to the nearest, ties to even; beyond the largest,
    /// infinity.
    pub fn rounded(self, value: f32) -> f32 {
        match self {
            Element::Bf16 => half::bf16::from_f32(value).to_f32(),
            Element::F16 => half::f16::from_f32(value).to_f32(),
            _ => value,
        }
    }
}

/// A range of device memory: `len` elements from `offset` of one allocation. The device checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// Which allocation of the device.
    pub allocation: usize,
    /// First element.
    pub offset: usize,
    /// Number of elements.
    pub len: usize,
    /// Type of the elements.
    pub element: Element,
}

impl Buffer {
    /// No memory: that of a tensor which no operation names.
    pub const NOWHERE: Self = Self { allocation: usize::MAX, offset: 0, len: 0, element: Element::U8 };

    /// `len` elements from `offset` of this buffer.
    ///
    /// # Panics
    /// If the range does not lie inside this buffer: a mistake of the caller, never of a user.
    pub fn part(self, offset: usize, len: usize) -> Buffer {
        assert!(offset + len <= self.len, "part {offset}+{len} of a buffer of {}", self.len);
        Buffer { offset: self.offset + offset, len, ..self }
    }
}

/// One launch of a recorded plan and the time it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// The source file of the kernel.
    pub file: &'static str,
    /// The name of its function.
    pub kernel: &'static str,
    /// Measured on a GPU, with the event that ends it; predicted by the interpreter.
    pub seconds: f64,
    /// Blocks of it that a multiprocessor holds at once; `None` where that is not known.
    pub resident_blocks: Option<u32>,
}

/// A device: memory, transfers, and running operations.
pub trait Device {
    /// `cpu`, `cuda` or `sim`.
    fn name(&self) -> &'static str;

    /// The type of activations, their gradients and the convolutions' copies of the weights. Everything else
    /// is f32.
    fn activations(&self) -> Element {
        Element::F32
    }

    /// The channels of every activation must be a multiple of this.
    fn channel_multiple(&self) -> usize {
        1
    }

    /// Whether operations that may ([`Operation::runs_aside`]) run beside those after them, so that their
    /// memory is in use for longer than their turn.
    fn has_branches(&self) -> bool {
        false
    }

    /// Whether the device's memory is the host's.
    fn in_main_memory(&self) -> bool {
        false
    }

    /// One line that describes the device and how it is used.
    fn describe(&self) -> String;

    /// Takes the processes that share every batch with this one.
    ///
    /// # Errors
    /// A usage error if the device cannot work with other processes.
    fn join(&mut self, world: World) -> Result<()> {
        match world.is_alone() {
            true => Ok(()),
            false => Err(usage!(
                "--device {}: {} processes cannot share a step on it; start one, or take --device cpu",
                self.name(),
                world.size()
            )),
        }
    }

    /// The processes that share every batch; this one alone unless it has [joined](Device::join) others.
    fn world(&self) -> World {
        World::default()
    }

    /// What decides the bits of its results: devices of which this is the same give the same bits.
    fn arithmetic(&self) -> String {
        self.name().into()
    }

    /// What is chosen by among kernels that do the same, which also decides bits; `None` where nothing is
    /// chosen.
    fn tiles(&self) -> Option<&Tiles> {
        None
    }

    /// Chooses otherwise in what is recorded from now on, where anything is chosen.
    fn choose_tiles_by(&mut self, _tiles: Tiles) {}

    /// Whether times were measured on such a device.
    fn is_measured_by(&self, _times: &Times) -> bool {
        false
    }

    /// Allocates `len` zeros. `label` names the memory in errors.
    ///
    /// # Errors
    /// If memory is exhausted; the message names `label`.
    fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer>;

    /// Allocates several buffers at once, contents undefined: the temporaries of a plan.
    ///
    /// # Errors
    /// As [`Device::allocate`], for all requests together.
    fn allocate_all(&mut self, requests: &[(Element, usize)], label: &str) -> Result<Vec<Buffer>> {
        requests.iter().map(|&(element, len)| self.allocate(element, len, label)).collect()
    }

    /// Copies host values in, rounding them if the buffer is bf16 or f16; lengths must agree.
    ///
    /// # Errors
    /// If lengths or types differ, or the device fails.
    fn write_f32(&mut self, buffer: Buffer, values: &[f32]) -> Result<()>;

    /// Copies host values in; lengths must agree.
    ///
    /// # Errors
    /// As [`Device::write_f32`].
    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()>;

    /// Copies host values in; lengths must agree.
    ///
    /// # Errors
    /// As [`Device::write_f32`].
    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()>;

    /// Copies host values in beside the work submitted so far, none of which may name the buffer; waits for the
    /// copy alone.
    ///
    /// # Errors
    /// As [`Device::write_f32`].
    fn write_aside(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        self.write_u8(buffer, values)
    }

    /// Copies a buffer of bytes to another of the same length, after the work submitted so far; does not wait.
    ///
    /// # Errors
    /// As [`Device::write_f32`].
    fn copy_u8(&mut self, from: Buffer, to: Buffer) -> Result<()>;

    /// Copies values out, widening bf16 and f16.
    ///
    /// # Errors
    /// If the buffer has another type, or the device fails.
    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>>;

    /// Copies values out.
    ///
    /// # Errors
    /// As [`Device::read_f32`].
    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>>;

    /// Keeps a copy of what the buffers hold after the work submitted so far, in place of the last one. Whether the
    /// device does: one that has done its work when a call returns has no use for it.
    ///
    /// # Errors
    /// If memory is exhausted, or the device fails.
    fn take_snapshot(&mut self, _buffers: &[Buffer]) -> Result<bool> {
        Ok(false)
    }

    /// Has reads give the snapshot's values, beside the work submitted since it was taken, or again the present
    /// ones. Of a buffer that is not in it they fail.
    fn show_snapshot(&mut self, _shown: bool) {}

    /// Runs one operation; its tensor `i` lies in `buffers[i]`.
    ///
    /// # Errors
    /// If an operand has the wrong type or length, no kernel supports the operation, or the device fails.
    fn execute(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<()>;

    /// Prepares a program for replays: [`Plan::record`] calls it once.
    ///
    /// # Errors
    /// If an operation cannot be lowered, or memory is exhausted.
    fn record(&mut self, _program: &Program) -> Result<Recording> {
        Ok(Recording::default())
    }

    /// The limits of the machine, measured or from its data sheet; `None` if unknown.
    fn limits(&mut self) -> Option<Limits> {
        None
    }

    /// Waits until all submitted work has finished.
    ///
    /// # Errors
    /// If submitted work has failed.
    fn synchronise(&mut self) -> Result<()> {
        Ok(())
    }

    /// The launches of a recorded plan with their times; empty for a device without kernels. Runs the plan,
    /// on a GPU several times.
    ///
    /// # Errors
    /// As [`Device::replay`].
    fn kernel_times(&mut self, _plan: &Plan) -> Result<Vec<KernelTime>> {
        Ok(Vec::new())
    }

    /// Seconds of a replay: the mean of `count` that follow each other without a pause, by the device's own
    /// clock where it has one.
    fn replay_seconds(&mut self, plan: &Plan, count: usize) -> Result<f64> {
        self.synchronise()?;
        let started = Instant::now();
        (0..count).try_for_each(|_| self.replay(plan))?;
        self.synchronise()?;
        Ok(started.elapsed().as_secs_f64() / count as f64)
    }

    /// Runs a whole plan. A device that can record a plan once and launch it as a unit overrides this.
    ///
    /// # Errors
    /// As [`Device::execute`].
    fn replay(&mut self, plan: &Plan) -> Result<()> {
        plan.operations().iter().try_for_each(|operation| self.execute(&**operation, plan.buffers()))
    }
}
