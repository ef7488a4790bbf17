//! The CPU device that rounds as a GPU does: the executable specification of bf16 and f16.
//!
//! Buffers of that type hold f32 values that were rounded to it: what an operation writes there is rounded before
//! the next one reads it. Operations compute in f32, as kernels do, so only the order of sums differs from a GPU
//! (and, on chips that sum in f16 over short runs, those sums).

use anyhow::Result;
use rayon::prelude::*;

use super::CpuDevice;
use crate::collective::World;
use crate::device::{Access, Buffer, Device, Element, Limits, Operation};

/// The CPU with activations rounded to bf16 or f16.
pub struct RoundedCpu {
    cpu: CpuDevice,
    element: Element,
}

/// The buffer on the CPU: f32 in place of a type of half the size.
fn widened(buffer: Buffer) -> Buffer {
    Buffer { element: widened_element(buffer.element), ..buffer }
}

fn widened_element(element: Element) -> Element {
    if matches!(element, Element::Bf16 | Element::F16) { Element::F32 } else { element }
}

impl RoundedCpu {
    /// `cpu` with activations stored as `element`.
    pub fn new(cpu: CpuDevice, element: Element) -> Self {
        Self { cpu, element }
    }

    fn round(&self, buffer: Buffer) -> Result<()> {
        let mut borrowed = self.cpu.memory.f32_mut(widened(buffer))?;
        let (values, element) = (&mut borrowed[..], buffer.element);
        self.cpu.pool.install(|| {
            values.par_iter_mut().with_min_len(1 << 14).for_each(|value| *value = element.rounded(*value));
        });
        Ok(())
    }
}

impl Device for RoundedCpu {
    fn name(&self) -> &'static str {
        self.cpu.name()
    }

    fn describe(&self) -> String {
        let word = if self.element == Element::F16 { "f16" } else { "bf16" };
        format!(
            "{}, activations, their gradients and weights rounded to {word} as on a GPU",
            self.cpu.describe()
        )
    }

    fn activations(&self) -> Element {
        self.element
    }

    fn join(&mut self, world: World) -> Result<()> {
        self.cpu.join(world)
    }

    fn world(&self) -> World {
        self.cpu.world()
    }

    fn arithmetic(&self) -> String {
        format!("{}, rounded to {:?}", self.cpu.arithmetic(), self.element)
    }

    fn in_main_memory(&self) -> bool {
        true
    }

    fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer> {
        Ok(Buffer { element, ..self.cpu.allocate(widened_element(element), len, label)? })
    }

    fn allocate_all(&mut self, requests: &[(Element, usize)], label: &str) -> Result<Vec<Buffer>> {
        let inner: Vec<_> = requests.iter().map(|&(element, len)| (widened_element(element), len)).collect();
        let buffers = self.cpu.allocate_all(&inner, label)?;
        Ok(buffers.into_iter().zip(requests).map(|(b, &(element, _))| Buffer { element, ..b }).collect())
    }

    fn write_f32(&mut self, buffer: Buffer, values: &[f32]) -> Result<()> {
        self.cpu.write_f32(widened(buffer), values)?;
        if widened(buffer) == buffer { Ok(()) } else { self.round(buffer) }
    }

    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()> {
        self.cpu.write_i32(buffer, values)
    }

    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        self.cpu.write_u8(buffer, values)
    }

    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>> {
        self.cpu.read_f32(widened(buffer))
    }

    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>> {
        self.cpu.read_i32(buffer)
    }

    fn execute(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<()> {
        let inner: Vec<Buffer> = buffers.iter().map(|&buffer| widened(buffer)).collect();
        self.cpu.execute(operation, &inner)?;
        let written = operation.operands().into_iter().filter(|operand| operand.access != Access::Read);
        let written = written.map(|operand| buffers[operand.tensor.0]);
        written.filter(|&buffer| widened(buffer) != buffer).try_for_each(|buffer| self.round(buffer))
    }

    fn limits(&mut self) -> Option<Limits> {
        self.cpu.limits()
    }
}
