//! What a device can do, and the devices.
//!
//! A device owns memory and runs [`Primitive`]s. The tape ([`crate::autograd`]) records primitives over [`Tensor`]s once,
//! plans their memory and hands the device a [`Plan`] to replay each step. Everything that changes from step to step lies
//! in device memory, so a plan never changes.
//!
//! | layer | file |
//! |---|---|
//! | the primitives, their operands and costs | `primitive.rs` |
//! | what a machine can do at most | `limits.rs` |
//! | the CPU: f32, threads, the reference of every kernel | `cpu/` |
//! | the GPU kernels behind a driver | `gpu/` |

pub mod convolution_shape;
pub mod cpu;
#[warn(missing_docs)]
pub mod gpu;
pub mod limits;
pub mod primitive;

use anyhow::Result;

pub use convolution_shape::ConvolutionShape;
pub use limits::Limits;
pub use primitive::{Primitive, Tensor};

/// The type of a buffer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// IEEE single precision.
    F32,
    /// The upper half of an f32: what a GPU stores activations and weight copies as.
    Bf16,
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
            Element::Bf16 => 2,
            Element::U8 => 1,
        }
    }
}

/// A range of device memory: `len` elements from `offset` of one allocation. Plain data; the device checks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// `len` elements from `offset` of this buffer.
    ///
    /// # Panics
    /// If the range does not lie inside this buffer: a mistake of the caller, never of a user.
    pub fn part(self, offset: usize, len: usize) -> Buffer {
        assert!(offset + len <= self.len, "part {offset}+{len} of a buffer of {}", self.len);
        Buffer { offset: self.offset + offset, len, ..self }
    }
}

/// A recorded step: primitives in order, and the buffer every tensor of the tape was given.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What to run, in this order.
    pub primitives: Vec<Primitive>,
    /// The memory of tensor `i`; tensors may share memory where their lifetimes do not overlap.
    pub buffers: Vec<Buffer>,
    /// The allocations that temporaries share; what they hold outlives no replay, but for kept tensors.
    pub temporary_allocations: Vec<usize>,
    /// Bytes allocated for temporaries.
    pub temporary_bytes: usize,
    /// Bytes the temporaries would take without sharing.
    pub unshared_bytes: usize,
    /// What [`Device::record`] returned for this plan.
    pub recording: usize,
}

impl Plan {
    /// The memory of a tensor.
    pub fn buffer(&self, tensor: Tensor) -> Buffer {
        self.buffers[tensor.0]
    }

    /// Floating-point operations of one replay.
    pub fn flops(&self) -> f64 {
        self.primitives.iter().map(Primitive::flops).sum()
    }
}

/// One launch of a recorded plan and the time it takes.
#[derive(Clone, Debug, PartialEq)]
pub struct KernelTime {
    /// Function name.
    pub kernel: &'static str,
    /// Measured on a GPU, predicted by the interpreter.
    pub seconds: f64,
}

/// What a device answers: memory, transfers, and running primitives.
pub trait Device {
    /// `cpu`, `cuda` or `sim`.
    fn name(&self) -> &'static str;

    /// How activations, their gradients and the convolutions' copies of the weights are stored. Everything else is f32.
    fn activations(&self) -> Element {
        Element::F32
    }

    /// What the channels of every activation must be a multiple of.
    fn channel_multiple(&self) -> usize {
        1
    }

    /// Whether the device's memory is the host's.
    fn in_main_memory(&self) -> bool {
        false
    }

    /// One line for people: what it is and what of it is used.
    fn describe(&self) -> String;

    /// New memory of `len` zeros. `label` appears in errors. Fails when memory is exhausted.
    fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer>;

    /// Memory for several buffers at once, their contents undefined: the temporaries of a plan.
    fn allocate_all(&mut self, requests: &[(Element, usize)], label: &str) -> Result<Vec<Buffer>> {
        requests.iter().map(|&(element, len)| self.allocate(element, len, label)).collect()
    }

    /// Copies host values in, rounded where the buffer is bf16; lengths must agree.
    fn write_f32(&mut self, buffer: Buffer, values: &[f32]) -> Result<()>;
    /// Copies host values in; lengths must agree.
    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()>;
    /// Copies host values in; lengths must agree.
    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()>;
    /// Copies values out, bf16 widened.
    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>>;
    /// Copies values out.
    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>>;

    /// Runs one primitive whose tensor `i` lies in `buffers[i]`.
    fn execute(&mut self, primitive: &Primitive, buffers: &[Buffer]) -> Result<()>;

    /// Prepares a plan for replays; called once, when it is finished. Returns what [`Plan::recording`] is to hold.
    fn record(&mut self, _plan: &Plan) -> Result<usize> {
        Ok(0)
    }

    /// What the machine can do at most, measured or of a data sheet; `None` where that is not known.
    fn limits(&mut self) -> Option<Limits> {
        None
    }

    /// Waits until everything asked for has been done.
    fn synchronise(&mut self) -> Result<()> {
        Ok(())
    }

    /// The launches of a recorded plan with their times; none where a device has no kernels. Runs the plan, several times on a
    /// GPU.
    fn kernel_times(&mut self, _plan: &Plan) -> Result<Vec<KernelTime>> {
        Ok(Vec::new())
    }

    /// Runs a whole plan. A device that can record a plan once and launch it as a unit overrides this.
    fn replay(&mut self, plan: &Plan) -> Result<()> {
        plan.primitives.iter().try_for_each(|primitive| self.execute(primitive, &plan.buffers))
    }
}
