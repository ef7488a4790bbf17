//! Times of launches, by events of the stream.

use anyhow::Result;
use cudarc::driver::{result, sys};

use super::events::Events;
use super::{CudaDriver, explain};
use crate::device::gpu::launch::Launch;

/// Rounds of which each launch's median counts, of launches one by one.
const ROUNDS_ONE_BY_ONE: usize = 11;
/// The same of sequences that are run in turn.
const ROUNDS_IN_TURN: usize = 7;
/// A sequence that takes longer than this many times the shortest, and `SLACK` seconds, is not run again: the
/// cut that gives two blocks all pixels takes thousands of times as long.
const MUCH_LONGER: f64 = 3.0;
/// The first run of short launches is as long as the host takes for them.
const SLACK: f64 = 50e-6;

/// Executable graphs, destroyed at the end.
struct Graphs(Vec<sys::CUgraphExec>);

impl Drop for Graphs {
    fn drop(&mut self) {
        for &graph in &self.0 {
            // SAFETY: instantiated by this module, used by nobody after it. An error here has nobody to go
            // to.
            let _ = unsafe { result::graph::exec_destroy(graph) };
        }
    }
}

impl CudaDriver {
    /// Seconds of each launch, with the event that ends it.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn time_one_by_one(&mut self, launches: &[Launch]) -> Result<Vec<f64>> {
        let mut samples = vec![Vec::with_capacity(ROUNDS_ONE_BY_ONE); launches.len()];
        let mut events = Events::new(launches.len() + 1)?;
        for round in 0..=ROUNDS_ONE_BY_ONE {
            events.record(0, self.stream)?;
            for (number, launch) in launches.iter().enumerate() {
                self.submit(launch, self.stream)?;
                events.record(number + 1, self.stream)?;
            }
            self.wait("timing kernels")?;
            // The first round loads kernels and fills caches.
            if round > 0 {
                for (number, samples) in samples.iter_mut().enumerate() {
                    samples.push(events.seconds(number, number + 1)?);
                }
            }
        }
        Ok(samples.into_iter().map(median).collect())
    }

    /// Seconds of each sequence, see [`crate::device::gpu::driver::Driver::time_in_turn`]. What is repeated
    /// is a graph, as in a step: launched one by one, short kernels would take as long as the host does.
    ///
    /// # Errors
    /// The driver's.
    pub(super) fn time_sequences(&mut self, sequences: &[Vec<Launch>], repeats: usize) -> Result<Vec<f64>> {
        let repeats = repeats.max(1);
        sequences.iter().flatten().try_for_each(|launch| self.functions.prepare(launch))?;
        let mut events = Events::new(2 * sequences.len())?;
        let mut seconds = self.each(&mut events, 0..sequences.len(), |driver, number| {
            sequences[number].iter().try_for_each(|launch| driver.submit(launch, driver.stream))
        })?;
        let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let in_turn: Vec<usize> =
            (0..seconds.len()).filter(|&number| seconds[number] <= MUCH_LONGER * least + SLACK).collect();
        let mut graphs = Graphs(Vec::with_capacity(in_turn.len()));
        for &number in &in_turn {
            graphs.0.push(self.repeated(&sequences[number], repeats)?);
        }
        let mut samples = vec![Vec::with_capacity(ROUNDS_IN_TURN); in_turn.len()];
        for round in 0..=ROUNDS_IN_TURN {
            let times = self.each(&mut events, 0..in_turn.len(), |driver, number| {
                // SAFETY: an executable graph of this driver, launched into its stream.
                unsafe { result::graph::launch(graphs.0[number], driver.stream) }
                    .map_err(|error| explain("timing launches", error))
            })?;
            // The first launch of a graph brings it onto the GPU.
            if round > 0 {
                samples.iter_mut().zip(times).for_each(|(samples, time)| samples.push(time));
            }
        }
        for (number, samples) in in_turn.into_iter().zip(samples) {
            seconds[number] = median(samples) / repeats as f64;
        }
        Ok(seconds)
    }

    /// Seconds of what `run` puts into the stream for each number, one after the other.
    fn each(
        &mut self,
        events: &mut Events,
        numbers: std::ops::Range<usize>,
        run: impl Fn(&mut Self, usize) -> Result<()>,
    ) -> Result<Vec<f64>> {
        for number in numbers.clone() {
            events.record(2 * number, self.stream)?;
            run(self, number)?;
            events.record(2 * number + 1, self.stream)?;
        }
        self.wait("timing launches")?;
        numbers.map(|number| events.seconds(2 * number, 2 * number + 1)).collect()
    }

    /// A graph of launches that are repeated.
    fn repeated(&mut self, launches: &[Launch], repeats: usize) -> Result<sys::CUgraphExec> {
        let graph = self.capture(|driver| {
            (0..repeats)
                .try_for_each(|_| launches.iter().try_for_each(|launch| driver.submit(launch, driver.stream)))
        })?;
        // SAFETY: a graph just captured, destroyed once instantiated; the executable one is the caller's to
        // destroy.
        unsafe {
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            result::graph::destroy(graph).map_err(|error| explain("timing launches", error))?;
            executable.map_err(|error| explain("timing launches", error))
        }
    }
}

/// The median of at least one number.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
