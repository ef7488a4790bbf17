//! Launches.

use std::ffi::{c_int, c_uint, c_void};

use crate::code::{Code, Result};
use crate::module::{Function, Shape};
use crate::state;
use crate::work::Work;

/// Ends the list of a launch's extra words; a packed block of parameters, and its length, follow the other
/// two.
const LAUNCH_PARAM_END: usize = 0;
const LAUNCH_PARAM_BUFFER: usize = 1;
const LAUNCH_PARAM_BUFFER_SIZE: usize = 2;

/// Packs parameters given by a pointer each.
///
/// # Errors
/// Invalid value where a pointer is null.
///
/// # Safety
/// `parameters` has a pointer for each of the kernel's parameters, to as many bytes as that has.
unsafe fn packed(function: &Function, parameters: *const *const u8) -> Result<Vec<u8>> {
    let mut bytes = vec![0; function.parameter_bytes];
    if function.parameters.is_empty() {
        return Ok(bytes);
    }
    if parameters.is_null() {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    let pointers = unsafe { std::slice::from_raw_parts(parameters, function.parameters.len()) };
    for (&pointer, &(offset, len)) in pointers.iter().zip(&function.parameters) {
        if pointer.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise.
        bytes[offset..offset + len].copy_from_slice(unsafe { std::slice::from_raw_parts(pointer, len) });
    }
    Ok(bytes)
}

/// The parameters given as a packed block.
///
/// # Errors
/// Invalid value where its length is not the kernel's.
///
/// # Safety
/// `extra` is a list of words as CUDA describes it.
unsafe fn block(function: &Function, mut extra: *const usize) -> Result<Vec<u8>> {
    let (mut start, mut len) = (0usize, 0usize);
    loop {
        // SAFETY: the caller's promise: pairs of words, the last one alone.
        match unsafe { *extra } {
            LAUNCH_PARAM_END => break,
            // SAFETY: as above.
            LAUNCH_PARAM_BUFFER => start = unsafe { *extra.add(1) },
            // SAFETY: as above; the second word points to the length.
            LAUNCH_PARAM_BUFFER_SIZE => len = unsafe { *(*extra.add(1) as *const usize) },
            _ => return Err(Code::INVALID_VALUE),
        }
        // SAFETY: as above.
        extra = unsafe { extra.add(2) };
    }
    if start == 0 || len != function.parameter_bytes {
        return Err(Code::INVALID_VALUE);
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(start as *const u8, len) }.to_vec())
}

/// # Safety
/// As [`packed`] and [`block`], of which one is given.
unsafe fn launch(
    call: &str,
    function: usize,
    shape: Shape,
    stream: usize,
    parameters: *const *const u8,
    extra: *const c_void,
) -> c_int {
    let detail = state::name_of(function);
    let Shape { grid, block: threads, dynamic, .. } = shape;
    let detail = format!("{detail} {} {} {dynamic}", words(grid), words(threads));
    state::context(call, &detail, |context| {
        let gpu = context.gpu;
        let function = context.load(function)?.clone();
        function.check(&shape, gpu)?;
        // SAFETY: the caller's promise.
        let arguments = unsafe {
            match (parameters.is_null(), extra.is_null()) {
                (false, false) => return Err(Code::INVALID_VALUE),
                (_, true) => packed(&function, parameters)?,
                (true, false) => block(&function, extra.cast())?,
            }
        };
        let Function { name, program, .. } = function;
        // SAFETY: no host memory is named.
        unsafe { context.enqueue(stream, Work::Kernel { name, program, shape, arguments }) }
    })
}

fn words(size: [u32; 3]) -> String {
    size.map(|size| size.to_string()).join("x")
}

/// # Safety
/// `parameters` or `extra` as CUDA describes them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: usize,
    gx: c_uint,
    gy: c_uint,
    gz: c_uint,
    bx: c_uint,
    by: c_uint,
    bz: c_uint,
    dynamic: c_uint,
    stream: usize,
    parameters: *const *const u8,
    extra: *const c_void,
) -> c_int {
    let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], dynamic, cooperative: false };
    // SAFETY: the caller's promise.
    unsafe { launch("cuLaunchKernel", function, shape, stream, parameters, extra) }
}

/// # Safety
/// `parameters` as CUDA describes them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: usize,
    gx: c_uint,
    gy: c_uint,
    gz: c_uint,
    bx: c_uint,
    by: c_uint,
    bz: c_uint,
    dynamic: c_uint,
    stream: usize,
    parameters: *const *const u8,
) -> c_int {
    let shape = Shape { grid: [gx, gy, gz], block: [bx, by, bz], dynamic, cooperative: true };
    // SAFETY: the caller's promise.
    unsafe { launch("cuLaunchCooperativeKernel", function, shape, stream, parameters, std::ptr::null()) }
}
