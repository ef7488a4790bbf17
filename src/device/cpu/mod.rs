//! The CPU device: f32, all cores, the executable specification that kernels are compared with.
//!
//! An operation asks the [`Call`] for its operands' slices and computes on them. The pieces that work is cut
//! into do not depend on the number of threads, and partial sums are added in order, so results have the same
//! bits for any number of cores.

mod call;
pub mod instructions;
mod limits;
mod memory;
pub(crate) mod pages;
mod rounded;
pub mod rounding;
pub mod threads;
pub(crate) mod vectorised;

use anyhow::{Context as _, Result, ensure};

use self::instructions::Simd;
use self::memory::MainMemory;
use super::{Buffer, Device, Element, Operation, Tensor};
use crate::collective::World;
pub use call::Call;
use call::OperationScratch;
pub use rounded::RoundedCpu;

/// The processor's cores and main memory.
pub struct CpuDevice {
    simd: Simd,
    memory: MainMemory,
    pool: rayon::ThreadPool,
    scratch: OperationScratch,
    world: World,
}

impl CpuDevice {
    /// A device of `threads` threads; 0 means as many as the system allows ([`threads::count`]).
    ///
    /// # Errors
    /// When the threads cannot be started; a usage error if `RECORDS_SIMD` asks for what the processor lacks.
    pub fn new(threads: usize) -> Result<Self> {
        let simd = instructions::chosen()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads::count(threads))
            .thread_name(|i| format!("cpu device {i}"))
            .build()
            .context("cannot start the threads of the CPU device")?;
        let (memory, scratch) = (MainMemory::default(), OperationScratch::default());
        Ok(Self { simd, memory, pool, scratch, world: World::default() })
    }

    /// Runs an operation; returns the tensors that it has rounded itself.
    fn run(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<Vec<Tensor>> {
        let Self { memory, pool, scratch, world, .. } = self;
        pool.install(move || {
            // One pool thread borrows from the cells; the threads of an operation share the borrowed slices
            // only.
            let mut call = Call::new(memory, buffers, scratch, world);
            operation.run(&mut call).with_context(|| format!("in the operation '{}'", operation.name()))?;
            Ok(call.rounded())
        })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }
}

impl Device for CpuDevice {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn describe(&self) -> String {
        format!("cpu: {} threads, f32, SIMD level {}", self.threads(), self.simd)
    }

    fn join(&mut self, world: World) -> Result<()> {
        self.world = world;
        Ok(())
    }

    fn world(&self) -> World {
        self.world.clone()
    }

    fn arithmetic(&self) -> String {
        // AVX2 and AVX-512 give the same bits.
        format!("cpu, {} multiply-add", if self.simd == Simd::Portable { "portable" } else { "fused" })
    }

    fn allocate(&mut self, element: Element, len: usize, label: &str) -> Result<Buffer> {
        self.memory.allocate(element, len, label)
    }

    fn allocate_all(&mut self, requests: &[(Element, usize)], label: &str) -> Result<Vec<Buffer>> {
        // Checked together: each one alone might fit.
        let bytes = |&(element, len): &(Element, usize)| crate::memory::product(&[len, element.bytes()]);
        let all = requests.iter().map(bytes).fold(0, u64::saturating_add);
        crate::memory::ensure_room(all, label, memory::REMEDY)?;
        requests.iter().map(|&(element, len)| self.allocate(element, len, label)).collect()
    }

    fn in_main_memory(&self) -> bool {
        true
    }

    fn write_f32(&mut self, buffer: Buffer, values: &[f32]) -> Result<()> {
        ensure!(buffer.len == values.len(), "{} values for a buffer of {}", values.len(), buffer.len);
        self.memory.f32_mut(buffer)?.copy_from_slice(values);
        Ok(())
    }

    fn write_i32(&mut self, buffer: Buffer, values: &[i32]) -> Result<()> {
        ensure!(buffer.len == values.len(), "{} values for a buffer of {}", values.len(), buffer.len);
        self.memory.i32_mut(buffer)?.copy_from_slice(values);
        Ok(())
    }

    fn write_u8(&mut self, buffer: Buffer, values: &[u8]) -> Result<()> {
        ensure!(buffer.len == values.len(), "{} values for a buffer of {}", values.len(), buffer.len);
        self.memory.u8_mut(buffer)?.copy_from_slice(values);
        Ok(())
    }

    fn copy_u8(&mut self, from: Buffer, to: Buffer) -> Result<()> {
        let values = self.memory.u8(from)?.to_vec();
        self.write_u8(to, &values)
    }

    fn read_f32(&mut self, buffer: Buffer) -> Result<Vec<f32>> {
        Ok(self.memory.f32(buffer)?.to_vec())
    }

    fn read_i32(&mut self, buffer: Buffer) -> Result<Vec<i32>> {
        Ok(self.memory.i32(buffer)?.to_vec())
    }

    fn execute(&mut self, operation: &dyn Operation, buffers: &[Buffer]) -> Result<()> {
        self.run(operation, buffers).map(|_| ())
    }

    fn limits(&mut self) -> Option<super::Limits> {
        Some(limits::measure(&self.pool, self.simd, None))
    }
}
