//! A recorded step: operations in order and the memory of their tensors.

use std::sync::Arc;

use anyhow::Result;

use super::{Buffer, Device, Operation, Tensor};

/// Operations in order, and the buffer that each tensor of the tape was given.
#[derive(Clone, Debug)]
pub struct Program {
    /// What to run, in this order.
    pub operations: Vec<Arc<dyn Operation>>,
    /// The memory of tensor `i`; tensors may share memory where their lifetimes do not overlap.
    pub buffers: Vec<Buffer>,
    /// Which of this memory is temporary.
    pub temporaries: Temporaries,
}

/// The allocations that temporaries share; apart from kept tensors, their contents do not survive a replay.
#[derive(Clone, Debug, Default)]
pub struct Temporaries {
    /// Numbers of the device's allocations.
    pub allocations: Vec<usize>,
    /// Bytes allocated.
    pub bytes: usize,
    /// Bytes they would take without sharing.
    pub unshared_bytes: usize,
    /// Tensors among them that are read after a replay.
    pub kept: Vec<Tensor>,
}

impl Program {
    /// A program without temporaries.
    pub fn new(operations: impl Into<Vec<Arc<dyn Operation>>>, buffers: Vec<Buffer>) -> Self {
        Self { operations: operations.into(), buffers, temporaries: Temporaries::default() }
    }

    /// How many operations name each tensor; `None` for a tensor whose values outlive a replay, so that others
    /// may read them.
    pub(super) fn uses(&self) -> Vec<Option<usize>> {
        let Temporaries { allocations, kept, .. } = &self.temporaries;
        let mut uses: Vec<Option<usize>> =
            self.buffers.iter().map(|buffer| allocations.contains(&buffer.allocation).then_some(0)).collect();
        kept.iter().for_each(|tensor| uses[tensor.0] = None);
        for operand in self.operations.iter().flat_map(|operation| operation.operands()) {
            if let Some(count) = &mut uses[operand.tensor.0] {
                *count += 1;
            }
        }
        uses
    }
}

/// The device's number for a prepared program; only [`Device::record`] makes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recording(pub(super) usize);

/// A program that a device has prepared for replays.
#[derive(Clone, Debug)]
pub struct Plan {
    program: Program,
    recording: Recording,
}

impl Plan {
    /// Has `device` prepare `program`.
    ///
    /// # Errors
    /// If the device cannot run an operation, or its memory is exhausted.
    pub fn record(program: Program, device: &mut dyn Device) -> Result<Self> {
        let recording = device.record(&program)?;
        Ok(Self { program, recording })
    }

    /// The operations, in the order in which they run.
    pub fn operations(&self) -> &[Arc<dyn Operation>] {
        &self.program.operations
    }

    /// The memory of all tensors.
    pub fn buffers(&self) -> &[Buffer] {
        &self.program.buffers
    }

    /// The memory of a tensor.
    pub fn buffer(&self, tensor: Tensor) -> Buffer {
        self.program.buffers[tensor.0]
    }

    /// The memory of its temporaries.
    pub fn temporaries(&self) -> &Temporaries {
        &self.program.temporaries
    }

    /// Floating-point operations of one replay.
    pub fn flops(&self) -> f64 {
        self.program.operations.iter().map(|operation| operation.flops()).sum()
    }

    /// The least memory traffic of one replay, bytes.
    pub fn least_bytes(&self) -> f64 {
        let bytes = |operation: &Arc<dyn Operation>| operation.least_bytes(&self.program.buffers);
        self.program.operations.iter().map(bytes).sum()
    }

    /// The device's number for it.
    pub(super) fn recording(&self) -> Recording {
        self.recording
    }
}
