//! Events of streams: for times, and for the order between streams.

use anyhow::Result;
use cudarc::driver::{result, sys};

use super::explain;

/// Events, all with times or all without.
pub struct Events(Vec<sys::CUevent>);

impl Events {
    /// As many events.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(count: usize) -> Result<Self> {
        Self::with(count, sys::CUevent_flags::CU_EVENT_DEFAULT)
    }

    /// As many that keep no time.
    ///
    /// # Errors
    /// The driver's.
    pub fn untimed(count: usize) -> Result<Self> {
        Self::with(count, sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)
    }

    fn with(count: usize, flags: sys::CUevent_flags) -> Result<Self> {
        let mut events = Self(Vec::with_capacity(count));
        for _ in 0..count {
            let event = result::event::create(flags).map_err(|error| explain("cuEventCreate", error))?;
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

    /// Has what is put into the stream next wait for one that was recorded.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&self, number: usize, stream: sys::CUstream) -> Result<()> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: an event and a stream that live.
        unsafe { result::stream::wait_event(stream, self.0[number], flags) }
            .map_err(|error| explain("cuStreamWaitEvent", error))
    }

    /// Whether what was in the stream before one that was recorded is done.
    ///
    /// # Errors
    /// The driver's.
    #[cfg(feature = "nccl")]
    pub fn is_done(&self, number: usize) -> Result<bool> {
        // SAFETY: an event that lives.
        is_ready(unsafe { sys::cuEventQuery(self.0[number]) })
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

/// What the driver's answer to whether work is done says.
///
/// # Errors
/// The driver's.
#[cfg(feature = "nccl")]
pub fn is_ready(code: sys::CUresult) -> Result<bool> {
    match code {
        sys::CUresult::CUDA_SUCCESS => Ok(true),
        sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
        code => Err(explain("waiting for the GPU", result::DriverError(code))),
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
