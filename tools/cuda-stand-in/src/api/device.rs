//! Initialisation, the GPU, the primary context, error texts.

use std::ffi::{c_char, c_int, c_uint};

use super::{Out, put};
use crate::code::Code;
use crate::log;
use crate::state;

/// Newer than any compiler.
const CUDA_VERSION: c_int = 99_000;

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> c_int {
    let loading = if log::loads_at_once() { "eager" } else { "lazy" };
    state::driver(
        "cuInit",
        loading,
        |state| if flags == 0 { state.initialise() } else { Err(Code::INVALID_VALUE) },
    )
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(code: c_int, text: Out<*const c_char>) -> c_int {
    words(code, text, |(name, _)| name.as_ptr())
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorString(code: c_int, text: Out<*const c_char>) -> c_int {
    words(code, text, |(_, text)| text.as_ptr())
}

type Words = (&'static std::ffi::CStr, &'static std::ffi::CStr);

fn words(code: c_int, text: Out<*const c_char>, which: impl Fn(Words) -> *const c_char) -> c_int {
    let found = Code(code).words().ok_or(Code::INVALID_VALUE);
    found.and_then(|words| put(text, which(words))).map_or_else(|code| code.0, |()| 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDriverGetVersion(version: Out<c_int>) -> c_int {
    put(version, CUDA_VERSION).map_or_else(|code| code.0, |()| 0)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: Out<c_int>) -> c_int {
    state::driver("cuDeviceGetCount", "", |_| put(count, 1))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: Out<c_int>, ordinal: c_int) -> c_int {
    state::driver("cuDeviceGet", "", |state| state.device(ordinal).and_then(|_| put(device, ordinal)))
}

/// # Safety
/// `text` has room for `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(text: *mut u8, len: c_int, device: c_int) -> c_int {
    state::driver("cuDeviceGetName", "", |state| {
        let name = state.device(device)?.name.as_bytes();
        let room = usize::try_from(len).map_err(|_| Code::INVALID_VALUE)?;
        if text.is_null() || room == 0 {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        let text = unsafe { std::slice::from_raw_parts_mut(text, room) };
        let shown = name.len().min(room - 1);
        text[..shown].copy_from_slice(&name[..shown]);
        text[shown] = 0;
        Ok(())
    })
}

/// Each process has a GPU of its own, unless STAND_IN_UUID numbers it.
#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid(uuid: Out<[u8; 16]>, device: c_int) -> c_int {
    state::driver("cuDeviceGetUuid", "", |state| {
        state.device(device)?;
        let number = log::number("STAND_IN_UUID").unwrap_or(u64::from(std::process::id()));
        put(uuid, u128::from(number).to_be_bytes())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: c_int) -> c_int {
    cuDeviceGetUuid(uuid, device)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceTotalMem_v2(bytes: Out<usize>, device: c_int) -> c_int {
    state::driver("cuDeviceTotalMem_v2", "", |state| put(bytes, state.device(device)?.memory))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetAttribute(value: Out<c_int>, number: c_int, device: c_int) -> c_int {
    state::driver("cuDeviceGetAttribute", &number.to_string(), |state| {
        put(value, state.device(device)?.attribute(number)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: Out<usize>, device: c_int) -> c_int {
    state::driver("cuDevicePrimaryCtxRetain", "", |state| put(context, state.retain(device)?))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> c_int {
    state::driver("cuDevicePrimaryCtxRelease_v2", "", |state| {
        state.device(device)?;
        state.release()
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(context: usize) -> c_int {
    state::driver("cuCtxSetCurrent", "", |state| {
        let lives = state.context.as_ref().is_some_and(|found| found.handle == context);
        if context != 0 && !lives {
            return Err(Code::INVALID_CONTEXT);
        }
        state::set_current(context);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxGetCurrent(context: Out<usize>) -> c_int {
    state::driver("cuCtxGetCurrent", "", |_| put(context, state::current()))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> c_int {
    state::context("cuCtxSynchronize", "", |context| {
        context.captures.forbid(Code::STREAM_CAPTURE_UNSUPPORTED)
    })
}

/// NVIDIA's compiler asks the driver for its undocumented tables, and does without.
#[unsafe(no_mangle)]
pub extern "C" fn cuGetExportTable(_table: Out<usize>, _identifier: usize) -> c_int {
    state::driver("cuGetExportTable", "", |_| Err(Code::NOT_FOUND))
}
