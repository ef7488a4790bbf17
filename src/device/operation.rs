//! What a device runs: an operation over tensors, as plain data.
//!
//! The operations themselves lie above the device, in `ops/` and beside the methods they belong to; other
//! crates can define their own. Matrices are row-major; images and activations are NHWC; convolution weights
//! are `[Cout, kh, kw, Cin]`.

use std::any::Any;
use std::fmt::Debug;

use anyhow::Result;

use super::cpu::Call;
use super::gpu::lower::Lowering;
use super::{Buffer, Element};

/// A tensor of a tape, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub usize);

/// What an operation does to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads what it holds and leaves it unchanged.
    Read,
    /// Overwrites it without reading it.
    Write,
    /// Reads it and writes it: accumulation, state.
    Update,
}

/// A tensor that an operation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    /// The tensor, by its number on the tape.
    pub tensor: Tensor,
    /// What the operation does to it.
    pub access: Access,
    /// How many elements are accessed, if not all: the rows of a batch in a store of all samples.
    pub touched: Option<usize>,
}

impl Operand {
    /// A tensor that is read.
    pub fn read(tensor: Tensor) -> Self {
        Self { tensor, access: Access::Read, touched: None }
    }

    /// A tensor that is overwritten.
    pub fn write(tensor: Tensor) -> Self {
        Self { tensor, access: Access::Write, touched: None }
    }

    /// A tensor that is read and overwritten.
    pub fn update(tensor: Tensor) -> Self {
        Self { tensor, access: Access::Update, touched: None }
    }

    /// The same, but only `elements` of it are touched.
    pub fn touching(self, elements: usize) -> Self {
        Self { touched: Some(elements), ..self }
    }

    /// The least traffic in bytes: one read, one write, or both.
    fn least_bytes(&self, buffer: Buffer) -> f64 {
        let elements = self.touched.unwrap_or(buffer.len);
        let times = if self.access == Access::Update { 2 } else { 1 };
        (times * elements * buffer.element.bytes()) as f64
    }
}

/// One operation: its operands and costs, its CPU twin, and the kernels that a GPU runs for it.
///
/// An operation never changes: everything that differs between steps lies in device memory, so it is recorded
/// once and replayed.
pub trait Operation: Any + Debug + Send + Sync {
    /// A short name, for errors and profiles.
    fn name(&self) -> &'static str;

    /// Its tensors, in a fixed order. The memory planner keeps each alive from the first operation that names
    /// it to the last.
    fn operands(&self) -> Vec<Operand>;

    /// Floating-point operations; a multiply-add counts as two. Exact for matrix products, the arithmetic of
    /// the formula for the rest. If the number of rounds depends on the data, an upper bound.
    fn flops(&self) -> f64 {
        0.0
    }

    /// The least memory traffic in bytes: each operand is read once, written once, or both.
    fn least_bytes(&self, buffers: &[Buffer]) -> f64 {
        self.operands().iter().map(|operand| operand.least_bytes(buffers[operand.tensor.0])).sum()
    }

    /// Whether a GPU may run it beside the operations after it, up to the first that needs its result: for
    /// one whose result is needed late, such as the gradient of a weight. Nothing else changes, no bit of a
    /// result.
    fn runs_aside(&self) -> bool {
        false
    }

    /// Whether other processes take part in it: GPUs by exchanges between its launches. The interpreter,
    /// which has none, runs it in main memory ([`Operation::run`]), between the launches before and after it.
    fn is_exchange(&self) -> bool {
        false
    }

    /// Runs it on the CPU; the kernels are compared with this.
    ///
    /// # Errors
    /// If an operand has the wrong type or length.
    fn run(&self, cpu: &mut Call<'_>) -> Result<()>;

    /// Appends its kernel launches.
    ///
    /// # Errors
    /// If no kernel supports the shape or the type.
    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()>;

    /// Appends launches that do this operation and its successor `next` together, if there are such kernels;
    /// returns whether it did.
    ///
    /// # Errors
    /// As [`Operation::lower`].
    fn lower_with(&self, _next: &dyn Operation, _gpu: &mut Lowering<'_>) -> Result<bool> {
        Ok(false)
    }

    /// Whether a device may do this operation, or its last part, and `next`, the first behind it that does not run
    /// aside, in one kernel that writes `next`'s results while this operation's operands are still being read. Then
    /// the memory planner does not let them share memory.
    fn overlaps(&self, _next: &dyn Operation) -> bool {
        false
    }
}

impl dyn Operation {
    /// This operation as a `T`, if it is one.
    pub fn downcast<T: Operation>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// Selects between the versions of a kernel by the type of the activations.
///
/// # Errors
/// For a type other than bf16, f16 and f32.
pub fn by_type<T>(element: Element, [bf16, f16, f32]: [T; 3]) -> Result<T> {
    match element {
        Element::Bf16 => Ok(bf16),
        Element::F16 => Ok(f16),
        Element::F32 => Ok(f32),
        other => anyhow::bail!("there is no kernel for activations of {other:?}"),
    }
}

/// An array of operations of any types, as [`Program::new`](crate::device::Program::new) takes it.
#[macro_export]
macro_rules! operations {
    ($($operation:expr),* $(,)?) => {
        [$(std::sync::Arc::new($operation) as std::sync::Arc<dyn $crate::device::Operation>),*]
    };
}
