//! What a device can be asked to run: an operation over tensors, as plain data.
//!
//! The operations themselves live above the device, in `ops/` and beside the methods that they belong to; one from outside
//! this crate is as good as any. Matrices are row-major; images and activations are NHWC; convolution weights are
//! `[Cout, kh, kw, Cin]`.

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
    Read,
    Write,
    /// Reads what was there and leaves something new: accumulation, state.
    Update,
}

/// A tensor that an operation names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operand {
    pub tensor: Tensor,
    pub access: Access,
    /// Elements that are touched, where that is not all of them: the rows of a batch in a store of all samples.
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

    /// The least bytes moved for it: once for reading, once for writing.
    fn least_bytes(&self, buffer: Buffer) -> f64 {
        let elements = self.touched.unwrap_or(buffer.len);
        let times = if self.access == Access::Update { 2 } else { 1 };
        (times * elements * buffer.element.bytes()) as f64
    }
}

/// One operation: its operands and costs, its CPU twin, and the kernels that a GPU runs for it.
///
/// An operation never changes: everything that differs from step to step lies in device memory, so it is recorded once and
/// replayed.
pub trait Operation: Any + Debug + Send + Sync {
    /// A short name, for errors and profiles.
    fn name(&self) -> &'static str;

    /// The tensors it names, in a fixed order. The memory planner keeps each alive from the first operation that names it to
    /// the last.
    fn operands(&self) -> Vec<Operand>;

    /// Floating-point operations: a multiply-add counts two. Matrix work is exact; of the rest, the arithmetic of the
    /// formula. Where the number of rounds depends on the data, the most there can be.
    fn flops(&self) -> f64 {
        0.0
    }

    /// The least memory traffic in bytes: each operand once for reading and once for writing.
    fn least_bytes(&self, buffers: &[Buffer]) -> f64 {
        self.operands().iter().map(|operand| operand.least_bytes(buffers[operand.tensor.0])).sum()
    }

    /// Runs it on the CPU: the reference of its kernels.
    ///
    /// # Errors
    /// Where operands do not fit.
    fn run(&self, cpu: &mut Call<'_>) -> Result<()>;

    /// Appends its kernel launches.
    ///
    /// # Errors
    /// Where a shape or a type is beyond what the kernels do.
    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()>;

    /// Appends launches that do this operation and `next`, which follows it, together, if there are such; returns whether.
    ///
    /// # Errors
    /// As [`Operation::lower`].
    fn lower_with(&self, _next: &dyn Operation, _gpu: &mut Lowering<'_>) -> Result<bool> {
        Ok(false)
    }
}

impl dyn Operation {
    /// This operation as a `T`, if it is one.
    pub fn downcast<T: Operation>(&self) -> Option<&T> {
        (self as &dyn Any).downcast_ref()
    }
}

/// The name of a kernel that exists for both types of activations.
///
/// # Errors
/// For any other type.
pub fn by_type<T>(element: Element, bf16: T, f32: T) -> Result<T> {
    match element {
        Element::Bf16 => Ok(bf16),
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
