//! Events of a stream, for times.

use anyhow::Result;
use cudarc::driver::{result, sys};

use super::explain;

/// Timing events of one stream.
pub struct Events(Vec<sys::CUevent>);

impl Events {
    /// As many events.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(count: usize) -> Result<Self> {
        let mut events = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)
                .map_err(|error| explain("cuEventCreate", error))?;
            events.0.push(event);
        }
        Ok(events)
    }

    /// Records one behind what is in the stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn record(&mut self, number: usize, stream: sys::CUstream) -> Result<()> {
        // SAFETY: an event and a stream that live.
        unsafe { result::event::record(self.0[number], stream) }
            .map_err(|error| explain("cuEventRecord", error))
    }

    /// Seconds between two that were recorded and waited for.
    ///
    /// # Errors
    /// The driver's.
    pub fn seconds(&self, from: usize, to: usize) -> Result<f64> {
        // SAFETY: both events live, were recorded and waited for.
        let milliseconds = unsafe { result::event::elapsed(self.0[from], self.0[to]) }
            .map_err(|error| explain("cuEventElapsedTime", error))?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        for &event in &self.0 {
            // SAFETY: made by this object, used by nobody after it. An error here has nobody to go to.
            let _ = unsafe { result::event::destroy(event) };
        }
    }
}
