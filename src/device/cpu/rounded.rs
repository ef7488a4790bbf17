//! The CPU device that rounds as a GPU does: the executable specification of bf16 and f16.
//!
//! Buffers of that type hold f32 values that were rounded to it: what an operation writes there is rounded
//! before the next one reads it, by the operation itself where that is faster
//! ([`Call::rounded_mut`](super::Call)). With bf16, convolutions multiply bf16 and sum in f32, as tensor
//! cores do; everything else computes in f32, as kernels do. So only the order of sums differs from a GPU
//! (and, on chips that sum in f16 over short runs, those sums).

use anyhow::Result;

use super::CpuDevice;
use super::instructions::PairSums;
use super::limits;
use super::rounding::Rounding;
use crate::collective::World;
use crate::device::{Access, Buffer, Device, Element, Limits, Operation};

/// The CPU with activations rounded to bf16 or f16.
pub struct RoundedCpu {
    cpu: CpuDevice,
    element: Element,
}

/// The type that the CPU keeps for it: f32 in place of one of half the size.
fn widened_element(element: Element) -> Element {
    if matches!(element, Element::Bf16 | Element::F16) { Element::F32 } else { element }
}

impl RoundedCpu {
    /// `cpu` with activations stored as `element`.
    pub fn new(cpu: CpuDevice, element: Element) -> Self {
        Self { cpu, element }
    }

    /// How products of bf16 are summed, if that is what it rounds to.
    pub fn pair_sums(&self) -> Option<PairSums> {
        (self.element == Element::Bf16).then(|| PairSums::of(self.cpu.simd))
    }

    fn round(&self, buffer: Buffer) -> Result<()> {
        let rounding = Rounding::of(buffer.element);
        if rounding != Rounding::None {
            let mut borrowed = self.cpu.memory.f32_mut(buffer)?;
            let values = &mut borrowed[..];
            self.cpu.pool.install(|| rounding.apply_in_parallel(values));
        }
        Ok(())
    }
}

impl Device for RoundedCpu {
    fn name(&self) -> &'static str {
        self.cpu.name()
    }

    fn describe(&self) -> String {
        let (threads, simd) = (self.cpu.threads(), self.cpu.simd);
        let how = match self.pair_sums() {
            Some(sums) if sums.is_emulated() => {
                let emulated =
                    "slower than f32: the processor has no AVX512_BF16, or RECORDS_SIMD forbids it";
                format!("bf16 ({sums}, {emulated})")
            }
            Some(sums) => format!("bf16 ({sums})"),
            None => "f16 (emulated)".into(),
        };
        format!(
            "cpu: {threads} threads, {how}, SIMD level {simd}; activations, their gradients and weights are \
             rounded as on a GPU"
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
        self.cpu.write_f32(buffer, values)?;
        self.round(buffer)
    }

    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()> {
        self.cpu.write_i32(buffer, values)
    }

    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        self.cpu.write_u8(buffer, values)
    }

    fn copy_u8(&mut self, from: Buffer, to: Buffer) -> Result<()> {
        self.cpu.copy_u8(from, to)
    }

    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>> {
        self.cpu.read_f32(buffer)
    }

    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>> {
        self.cpu.read_i32(buffer)
    }

    fn execute(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<()> {
        let rounded = self.cpu.run(operation, buffers)?;
        let written = operation.operands().into_iter().filter(|operand| operand.access != Access::Read);
        let written = written.map(|operand| operand.tensor).filter(|tensor| !rounded.contains(tensor));
        written.map(|tensor| buffers[tensor.0]).try_for_each(|buffer| self.round(buffer))
    }

    fn limits(&mut self) -> Option<Limits> {
        Some(limits::measure(&self.cpu.pool, self.cpu.simd, self.pair_sums()))
    }
}
