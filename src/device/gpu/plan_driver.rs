//! A driver that computes nothing and writes every launch down: the plan of a run on a GPU that is not there.
//!
//! Memory is addresses alone, so a network of any size takes no room; what is read back are zeros.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use anyhow::Result;

use super::branches::Place;
use super::driver::{Activity, Driver, Gpu, Memory};
use super::launch::Launch;
use crate::usage;

const FIRST_ADDRESS: u64 = 1 << 20;

/// Launches with their places among branches, in the order in which they would have run, filled while the
/// driver is used.
#[derive(Clone, Default)]
pub struct Launched(Rc<RefCell<Vec<(Launch, Place)>>>);

impl Launched {
    /// Takes out what was launched since the last call.
    pub fn take(&self) -> Vec<(Launch, Place)> {
        self.0.take()
    }
}

/// See the module.
pub struct PlanDriver {
    gpu: Gpu,
    /// The first address that is free.
    end: u64,
    taken: Rc<Cell<u64>>,
    sequences: Vec<Vec<(Launch, Place)>>,
    launched: Launched,
    activity: Activity,
}

impl PlanDriver {
    /// A driver that stands for `gpu`.
    pub fn new(gpu: Gpu) -> Self {
        let (sequences, launched, activity) = (Vec::new(), Launched::default(), Activity::default());
        Self { gpu, end: FIRST_ADDRESS, taken: Rc::default(), sequences, launched, activity }
    }

    /// A handle on the number of bytes that were asked for.
    pub fn taken(&self) -> Rc<Cell<u64>> {
        self.taken.clone()
    }

    /// A handle on what is launched.
    pub fn launched(&self) -> Launched {
        self.launched.clone()
    }
}

/// Nothing here takes time.
fn not_run(launches: usize) -> anyhow::Error {
    usage!("{launches} launches were written down, none ran: records profile predicts their times")
}

impl Driver for PlanDriver {
    fn name(&self) -> &'static str {
        "gpu"
    }

    fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn allocate(&mut self, bytes: &[usize], label: &str) -> Result<Vec<Memory>> {
        self.activity.allocations += 1;
        let mut one = |&bytes: &usize| {
            let address = self.end;
            let end = (bytes as u64).checked_next_multiple_of(256).and_then(|len| address.checked_add(len));
            // What no 64-bit machine can address would make later sums of addresses overflow.
            self.end = end.filter(|&end| end < 1 << 60).ok_or_else(|| {
                usage!("{label}: {bytes} bytes are more than a GPU addresses; take a smaller --batch-size")
            })?;
            Ok(Memory { address, bytes })
        };
        let memory = bytes.iter().map(&mut one).collect();
        self.taken.set(self.end - FIRST_ADDRESS);
        memory
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<()> {
        self.activity.copies_to_device += 1;
        Ok(())
    }

    fn works_aside(&self) -> bool {
        true
    }

    fn write_aside(&mut self, _: u64, _: &[u8]) -> Result<()> {
        self.activity.copies_aside += 1;
        Ok(())
    }

    fn read_aside(&mut self, _: u64, bytes: &mut [u8]) -> Result<()> {
        self.activity.copies_aside += 1;
        bytes.fill(0);
        Ok(())
    }

    fn copy(&mut self, _: u64, _: u64, _: usize) -> Result<()> {
        self.activity.copies_within += 1;
        Ok(())
    }

    fn read(&mut self, _: u64, bytes: &mut [u8]) -> Result<()> {
        self.activity.copies_from_device += 1;
        self.activity.synchronisations += 1;
        bytes.fill(0);
        Ok(())
    }

    fn clear(&mut self, _: Memory) -> Result<()> {
        Ok(())
    }

    fn forget(&mut self, _: Memory) -> Result<()> {
        Ok(())
    }

    fn launch(&mut self, launch: &Launch) -> Result<()> {
        self.activity.launches += 1;
        self.launched.0.borrow_mut().push((launch.clone(), Place::default()));
        Ok(())
    }

    fn record(&mut self, launches: &[Launch], places: &[Place]) -> Result<usize> {
        self.sequences.push(launches.iter().cloned().zip(places.iter().copied()).collect());
        Ok(self.sequences.len() - 1)
    }

    fn replay(&mut self, sequence: usize) -> Result<()> {
        self.activity.sequence_launches += 1;
        self.launched.0.borrow_mut().extend_from_slice(&self.sequences[sequence]);
        Ok(())
    }

    fn synchronise(&mut self) -> Result<()> {
        self.activity.synchronisations += 1;
        Ok(())
    }

    fn time(&mut self, launches: &[Launch]) -> Result<Vec<f64>> {
        Err(not_run(launches.len()))
    }

    fn start_clock(&mut self) -> Result<()> {
        Err(not_run(0))
    }

    fn stop_clock(&mut self) -> Result<f64> {
        Err(not_run(0))
    }

    fn activity(&self) -> Activity {
        self.activity
    }
}
