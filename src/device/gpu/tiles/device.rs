//! The GPU device, as far as it chooses tiles and measures them.

use anyhow::Result;

use super::{Decision, MeasuredOn, Tiles, Way};
use crate::device::gpu::GpuDevice;
use crate::device::gpu::launch::Launch;

impl GpuDevice {
    /// With tiles chosen as `tiles` say in all that is recorded from then on, instead of by the model.
    #[must_use]
    pub fn with_tiles(mut self, tiles: Tiles) -> Self {
        self.tiles = tiles;
        self
    }

    /// What times of this GPU and its kernels are kept by; `None` for a driver whose times are no GPU's.
    pub fn measured_on(&self) -> Option<MeasuredOn> {
        self.driver.measured_on()
    }

    /// Keeps from now on what is chosen among where operations are lowered.
    pub fn keep_decisions(&mut self) {
        self.decisions = Some(Vec::new());
    }

    /// What was chosen among since the last call.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        self.decisions.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The seconds of each of several ways to do the same
    /// ([`crate::device::gpu::driver::Driver::time_in_turn`]), on the data as they stand; what the ways write
    /// is overwritten.
    ///
    /// # Errors
    /// The driver's.
    pub fn time_ways(&mut self, ways: &[&Way], repeats: usize) -> Result<Vec<f64>> {
        let workspace = ways.iter().map(|way| way.workspace).max().unwrap_or(0);
        let start = self.workspace_of(workspace)?;
        let placed = |launch: &Launch| {
            let mut launch = launch.clone();
            launch.place_workspace(start);
            launch
        };
        let launches: Vec<Vec<Launch>> =
            ways.iter().map(|way| way.launches.iter().map(placed).collect()).collect();
        self.driver.time_in_turn(&launches, repeats)
    }
}
