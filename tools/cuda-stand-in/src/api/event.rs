//! Events.

use std::ffi::{c_int, c_uint};

use super::{Out, put};
use crate::code::{Code, Result};
use crate::state::{self, Context, Event, Recorded, wait_until};

/// Flag of an event that keeps no time.
const DISABLE_TIMING: c_uint = 2;

#[unsafe(no_mangle)]
pub extern "C" fn cuEventCreate(event: Out<usize>, flags: c_uint) -> c_int {
    state::context("cuEventCreate", "", |context| {
        let handle = context.handle();
        context
            .events
            .insert(handle, Event { timed: flags & DISABLE_TIMING == 0, recorded: None, reached: None });
        put(event, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventDestroy_v2(event: usize) -> c_int {
    state::context("cuEventDestroy_v2", "", |context| {
        context.events.remove(&event).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventRecord(event: usize, stream: usize) -> c_int {
    state::context("cuEventRecord", "", |context| {
        context.stream(stream)?;
        let recorded = context.captures.mark(stream).map_or(Recorded::At(context.clock), Recorded::Captured);
        let reached = context.busy_until(stream);
        let event = context.events.get_mut(&event).ok_or(Code::INVALID_HANDLE)?;
        (event.recorded, event.reached) = (Some(recorded), reached);
        Ok(())
    })
}

/// # Errors
/// Not recorded in a stream, or in a captured one.
fn time(context: &Context, event: usize) -> Result<f64> {
    let event = context.events.get(&event).filter(|event| event.timed).ok_or(Code::INVALID_HANDLE)?;
    match event.recorded {
        Some(Recorded::At(time)) => Ok(time),
        Some(Recorded::Captured(_)) => Err(Code::CAPTURED_EVENT),
        None => Err(Code::INVALID_HANDLE),
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventSynchronize(event: usize) -> c_int {
    state::context("cuEventSynchronize", "", |context| {
        let event = context.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
        match event.recorded {
            Some(Recorded::Captured(_)) => Err(Code::CAPTURED_EVENT),
            _ => {
                wait_until(event.reached);
                Ok(())
            }
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventQuery(event: usize) -> c_int {
    state::context("cuEventQuery", "", |context| {
        let event = context.events.get(&event).ok_or(Code::INVALID_HANDLE)?;
        match event.recorded {
            Some(Recorded::Captured(_)) => Err(Code::CAPTURED_EVENT),
            _ => context.at_end(event.reached),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime(milliseconds: Out<f32>, from: usize, to: usize) -> c_int {
    state::context("cuEventElapsedTime", "", |context| {
        put(milliseconds, (1e3 * (time(context, to)? - time(context, from)?)) as f32)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuEventElapsedTime_v2(milliseconds: Out<f32>, from: usize, to: usize) -> c_int {
    cuEventElapsedTime(milliseconds, from, to)
}
