//! Operations that have no kernel because other processes take part in them: they run in main memory,
//! between the launches before and after them. Only the interpreter does so: on a GPU, every such operation
//! would wait for all launches before it.

use std::sync::Arc;

use anyhow::{Result, bail};

use crate::device::cpu::CpuDevice;
use crate::device::{Access, Buffer, Device, Element, Operand, Operation};

/// An operation of a plan with its memory on both sides.
pub(super) struct HostCall {
    operation: Arc<dyn Operation>,
    /// Where each tensor of the operation lies in main memory; the rest of the plan's are not there.
    mirror: Vec<Buffer>,
    /// What is copied: on the GPU, in main memory, and why.
    moved: Vec<(Buffer, Buffer, Access)>,
}

/// The buffer in main memory: f32 in place of a type of half the size.
fn widened(buffer: Buffer) -> Element {
    if matches!(buffer.element, Element::Bf16 | Element::F16) { Element::F32 } else { buffer.element }
}

impl HostCall {
    /// Prepares `operation`, whose tensors lie in `buffers` of the GPU.
    pub fn new(operation: Arc<dyn Operation>, buffers: &[Buffer], host: &mut CpuDevice) -> Result<Self> {
        let (mut mirror, mut moved) = (buffers.to_vec(), Vec::new());
        for Operand { tensor, access, .. } in operation.operands() {
            let device = buffers[tensor.0];
            let label = "values of an operation in main memory";
            mirror[tensor.0] = host.allocate(widened(device), device.len, label)?;
            moved.push((device, mirror[tensor.0], access));
        }
        Ok(Self { operation, mirror, moved })
    }

    /// Runs it: copies its operands in, and what it has written back.
    pub fn run(&self, gpu: &mut dyn Device, host: &mut CpuDevice) -> Result<()> {
        for &(device, buffer, access) in &self.moved {
            match buffer.element {
                _ if access == Access::Write => {}
                // The bits of activations, for kernels: what runs here reads the activations themselves.
                Element::U8 => {}
                Element::F32 => host.write_f32(buffer, &gpu.read_f32(device)?)?,
                Element::I32 => host.write_i32(buffer, &gpu.read_i32(device)?)?,
                other => bail!("'{}' reads {other:?} in main memory", self.operation.name()),
            }
        }
        host.execute(&*self.operation, &self.mirror)?;
        for &(device, buffer, access) in &self.moved {
            match buffer.element {
                _ if access == Access::Read => {}
                Element::U8 => {}
                Element::F32 => gpu.write_f32(device, &host.read_f32(buffer)?)?,
                Element::I32 => gpu.write_i32(device, &host.read_i32(buffer)?)?,
                other => bail!("'{}' writes {other:?} in main memory", self.operation.name()),
            }
        }
        Ok(())
    }
}
