//! Memory: taking it, giving it back, copies and fills.

use std::ffi::c_int;

use super::{Out, put};
use crate::code::{Code, Result};
use crate::log;
use crate::state::{self, Context};
use crate::work::Work;

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: Out<usize>, total: Out<usize>) -> c_int {
    state::context("cuMemGetInfo_v2", "", |context| {
        put(free, context.gpu.memory - context.used())?;
        put(total, context.gpu.memory)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: Out<u64>, bytes: usize) -> c_int {
    state::context("cuMemAlloc_v2", &bytes.to_string(), |context| {
        context.captures.forbid(Code::STREAM_CAPTURE_UNSUPPORTED)?;
        if bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        if context.gpu.memory - context.used() < bytes {
            return Err(Code::OUT_OF_MEMORY);
        }
        let label = format!("allocation {}", context.allocations.len());
        let taken = context.machine.try_allocate(bytes, &label).map_err(|_| Code::OUT_OF_MEMORY)?;
        context.allocations.insert(taken, bytes);
        put(address, taken)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    state::context("cuMemFree_v2", "", |context| {
        context.captures.forbid(Code::STREAM_CAPTURE_UNSUPPORTED)?;
        context.allocations.remove(&address).ok_or(Code::INVALID_VALUE)?;
        context.machine.free(address).map_err(|_| Code::INVALID_VALUE)
    })
}

/// Whether a range lies in one allocation: what the driver checks of a copy at once.
pub(super) fn inside(context: &Context, address: u64, bytes: usize) -> Result<()> {
    let found = context.allocations.iter().any(|(&start, &len)| {
        let offset = address.checked_sub(start);
        offset.is_some_and(|offset| offset <= len as u64 && bytes as u64 <= len as u64 - offset)
    });
    if found {
        return Ok(());
    }
    log::note(&format!("{bytes} bytes at {address:#x} are in no allocation"));
    Err(Code::INVALID_VALUE)
}

/// # Safety
/// `from` has so many bytes, until the copy has been made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: usize, bytes: usize, stream: usize) -> c_int {
    state::context("cuMemcpyHtoDAsync_v2", &bytes.to_string(), |context| {
        inside(context, to, bytes)?;
        // SAFETY: the caller's promise.
        unsafe { context.enqueue(stream, Work::ToDevice { to, from, bytes }) }
    })
}

/// # Safety
/// `to` has room for so many bytes, until the copy has been made.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: usize, from: u64, bytes: usize, stream: usize) -> c_int {
    state::context("cuMemcpyDtoHAsync_v2", &bytes.to_string(), |context| {
        inside(context, from, bytes)?;
        // SAFETY: the caller's promise.
        unsafe { context.enqueue(stream, Work::FromDevice { to, from, bytes }) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: usize) -> c_int {
    state::context("cuMemcpyDtoDAsync_v2", &bytes.to_string(), |context| {
        inside(context, to, bytes)?;
        inside(context, from, bytes)?;
        // SAFETY: no host memory is named.
        unsafe { context.enqueue(stream, Work::Within { to, from, bytes }) }
    })
}

/// # Safety
/// `from` has so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: usize, bytes: usize) -> c_int {
    state::context("cuMemcpyHtoD_v2", &bytes.to_string(), |context| {
        inside(context, to, bytes)?;
        // SAFETY: the caller's promise.
        unsafe { context.enqueue(0, Work::ToDevice { to, from, bytes }) }
    })
}

/// # Safety
/// `to` has room for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: usize, from: u64, bytes: usize) -> c_int {
    state::context("cuMemcpyDtoH_v2", &bytes.to_string(), |context| {
        inside(context, from, bytes)?;
        // SAFETY: the caller's promise.
        unsafe { context.enqueue(0, Work::FromDevice { to, from, bytes }) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemsetD8Async(at: u64, value: u8, bytes: usize, stream: usize) -> c_int {
    state::context("cuMemsetD8Async", &format!("{bytes} of {value:#04x}"), |context| {
        inside(context, at, bytes)?;
        // SAFETY: no host memory is named.
        unsafe { context.enqueue(stream, Work::Fill { at, value, bytes }) }
    })
}
