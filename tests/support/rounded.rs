//! A CPU device that rounds like a GPU with bf16 activations: every activation that an operation writes is
//! rounded to bf16 before the next one reads it. The only remaining difference to the kernels is the order of
//! sums.

use anyhow::Result;
use records::device::cpu::CpuDevice;
use records::device::{Access, Buffer, Device, Element, Operation};

pub struct RoundedCpu(pub CpuDevice);

/// The buffer on the CPU: f32 in place of bf16.
fn widened(buffer: Buffer) -> Buffer {
    let element = if buffer.element == Element::Bf16 { Element::F32 } else { buffer.element };
    Buffer { element, ..buffer }
}

fn round(values: &mut [f32]) {
    values.iter_mut().for_each(|value| *value = half::bf16::from_f32(*value).to_f32());
}

impl Device for RoundedCpu {
    fn name(&self) -> &'static str {
        "cpu rounded to bf16"
    }

    fn describe(&self) -> String {
        self.name().into()
    }

    fn activations(&self) -> Element {
        Element::Bf16
    }

    fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer> {
        let inner = if element == Element::Bf16 { Element::F32 } else { element };
        Ok(Buffer { element, ..self.0.allocate(inner, len, label)? })
    }

    fn write_f32(&mut self, buffer: Buffer, values: &[f32]) -> Result<()> {
        let mut values = values.to_vec();
        if buffer.element == Element::Bf16 {
            round(&mut values);
        }
        self.0.write_f32(widened(buffer), &values)
    }

    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()> {
        self.0.write_i32(buffer, values)
    }

    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        self.0.write_u8(buffer, values)
    }

    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>> {
        self.0.read_f32(widened(buffer))
    }

    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>> {
        self.0.read_i32(buffer)
    }

    fn execute(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<()> {
        let inner: Vec<Buffer> = buffers.iter().map(|&buffer| widened(buffer)).collect();
        self.0.execute(operation, &inner)?;
        for operand in operation.operands() {
            let buffer = buffers[operand.tensor.0];
            if operand.access != Access::Read && buffer.element == Element::Bf16 {
                let mut values = self.0.read_f32(widened(buffer))?;
                round(&mut values);
                self.0.write_f32(widened(buffer), &values)?;
            }
        }
        Ok(())
    }
}
