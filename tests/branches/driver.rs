//! Drivers for tests of branches: one that changes what another is given, one that only keeps what it is given.

use std::cell::RefCell;
use std::rc::Rc;

use anyhow::Result;
use records::device::gpu::branches::Place;
use records::device::gpu::driver::{Activity, Driver, Gpu, Memory};
use records::device::gpu::launch::Launch;

/// A driver whose recorded sequences get other places.
pub struct Changed<F>(pub Box<dyn Driver>, pub F);

impl<F: Fn(&mut [Place])> Driver for Changed<F> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn gpu(&self) -> &Gpu {
        self.0.gpu()
    }

    fn allocate(&mut self, bytes: &[usize], label: &str) -> Result<Vec<Memory>> {
        self.0.allocate(bytes, label)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.0.write(address, bytes)
    }

    fn works_aside(&self) -> bool {
        self.0.works_aside()
    }

    fn write_aside(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_aside(address, bytes)
    }

    fn read_aside(&mut self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.0.read_aside(address, bytes)
    }

    fn copy(&mut self, from: u64, to: u64, bytes: usize) -> Result<()> {
        self.0.copy(from, to, bytes)
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<()> {
        self.0.read(address, bytes)
    }

    fn clear(&mut self, memory: Memory) -> Result<()> {
        self.0.clear(memory)
    }

    fn forget(&mut self, memory: Memory) -> Result<()> {
        self.0.forget(memory)
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.0.launch(launch)
    }

    fn record(&mut self, launches: &[Launch], places: &[Place]) -> Result<usize> {
        let mut places = places.to_vec();
        (self.1)(&mut places);
        self.0.record(launches, &places)
    }

    fn replay(&mut self, sequence: usize) -> Result<()> {
        self.0.replay(sequence)
    }

    fn synchronise(&mut self) -> Result<()> {
        self.0.synchronise()
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<f64>> {
        self.0.time(launches)
    }

    fn start_clock(&mut self) -> Result<()> {
        self.0.start_clock()
    }

    fn stop_clock(&mut self) -> Result<f64> {
        self.0.stop_clock()
    }

    fn activity(&self) -> Activity {
        self.0.activity()
    }
}

/// The launches of each recorded sequence and their places.
pub type Recorded = Rc<RefCell<Vec<(Vec<Launch>, Vec<Place>)>>>;

/// A GPU that has no memory and runs nothing.
pub struct Paper {
    gpu: Gpu,
    next: u64,
    recorded: Recorded,
}

impl Paper {
    /// As large as an RTX 3090.
    pub fn new(recorded: Recorded) -> Self {
        let (name, architecture) = ("paper".into(), 86);
        let gpu = Gpu {
            name,
            architecture,
            multiprocessors: 82,
            shared_bytes: 99 << 10,
            choice: Default::default(),
        };
        Self { gpu, next: 1 << 20, recorded }
    }
}

impl Driver for Paper {
    fn name(&self) -> &'static str {
        "paper"
    }

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn allocate(&mut self, bytes: &[usize], _: &str) -> Result<Vec<Memory>> {
        let mut one = |&bytes: &usize| {
            let memory = Memory { address: self.next, bytes };
            self.next += bytes.next_multiple_of(256) as u64;
            memory
        };
        Ok(bytes.iter().map(&mut one).collect())
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn works_aside(&self) -> bool {
        false
    }

    fn write_aside(&mut self, _: u64, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn read_aside(&mut self, _: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn copy(&mut self, _: u64, _: u64, _: usize) -> Result<()> {
        Ok(())
    }

    fn read(&mut self, _: u64, bytes: &mut [u8]) -> Result<()> {
        bytes.fill(0);
        Ok(())
    }

    fn clear(&mut self, _: Memory) -> Result<()> {
        Ok(())
    }

    fn forget(&mut self, _: Memory) -> Result<()> {
        Ok(())
    }

    fn launch(&mut self, _: &Launch) -> Result<()> {
        Ok(())
    }

    fn record(&mut self, launches: &[Launch], places: &[Place]) -> Result<usize> {
        let mut recorded = self.recorded.borrow_mut();
        recorded.push((launches.to_vec(), places.to_vec()));
        Ok(recorded.len() - 1)
    }

    fn replay(&mut self, _: usize) -> Result<()> {
        Ok(())
    }

    fn synchronise(&mut self) -> Result<()> {
        Ok(())
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<f64>> {
        Ok(vec![0.0; launches.len()])
    }

    fn start_clock(&mut self) -> Result<()> {
        Ok(())
    }

    fn stop_clock(&mut self) -> Result<f64> {
        Ok(0.0)
    }

    fn activity(&self) -> Activity {
        Activity::default()
    }
}
