//! When a run looks at what the device has counted: at no cost to the step, and soon enough.

use std::time::{Duration, Instant};

use crate::device::Device;

/// A GPU works through steps that were handed over long before. Every look waits until it has nothing left to
/// do, which costs some 20 microseconds: four hundred-thousandths of this time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// After which steps to look. It has no effect on what is computed.
#[derive(Debug)]
pub struct Looks {
    last: Instant,
    steps_since: usize,
    /// Look after so many steps.
    interval: usize,
}

impl Looks {
    /// The first look at a GPU is after a few steps, when their time is known.
    pub fn new() -> Self {
        Self { last: Instant::now(), steps_since: 0, interval: 16 }
    }

    /// Counts a step, and says whether to look after it: after each where it costs nothing, in main memory,
    /// else twice a second.
    pub fn is_due(&mut self, device: &dyn Device) -> bool {
        self.steps_since += 1;
        device.in_main_memory() || self.steps_since >= self.interval
    }

    /// The device has finished all steps so far.
    pub fn looked(&mut self) {
        let step = self.last.elapsed().as_secs_f64() / self.steps_since.max(1) as f64;
        self.interval = ((BETWEEN_LOOKS.as_secs_f64() / step.max(1e-9)) as usize).max(1);
        self.restart();
    }

    /// Something else than steps took time.
    pub fn restart(&mut self) {
        (self.last, self.steps_since) = (Instant::now(), 0);
    }
}

impl Default for Looks {
    fn default() -> Self {
        Self::new()
    }
}
