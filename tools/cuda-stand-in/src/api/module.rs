//! Modules and kernels.

use std::ffi::{CStr, c_char, c_int};

use super::{Out, put};
use crate::code::Code;
use crate::module::Module;
use crate::state::{self, Context};

/// # Safety
/// `image` is PTX ended by a zero byte, or begins as an ELF file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: Out<usize>, image: *const c_char) -> c_int {
    state::context("cuModuleLoadData", "", |context| {
        context.captures.forbid(Code::STREAM_CAPTURE_UNSUPPORTED)?;
        if image.is_null() {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the caller's promise. Four letters and a byte that says 32 or 64 bits begin an ELF file,
        // which is not read further.
        let text = unsafe { CStr::from_ptr(image) }.to_bytes();
        let loaded = Module::load(text, context.gpu)?;
        let handle = context.handle();
        context.modules.insert(handle, loaded);
        put(module, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuModuleUnload(module: usize) -> c_int {
    state::context("cuModuleUnload", "", |context| {
        context.captures.forbid(Code::STREAM_CAPTURE_UNSUPPORTED)?;
        context.modules.remove(&module).ok_or(Code::INVALID_HANDLE)?;
        context.functions.retain(|_, function| function.module != module);
        Ok(())
    })
}

/// # Safety
/// `name` ends with a zero byte.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(
    function: Out<usize>,
    module: usize,
    name: *const c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned();
    state::context("cuModuleGetFunction", &name, |context| {
        let loaded = !context.lazy;
        let found =
            context.modules.get(&module).ok_or(Code::INVALID_HANDLE)?.function(&name, module, loaded)?;
        let handle = context.handle();
        context.functions.insert(handle, found);
        put(function, handle)
    })
}

/// How kernels are loaded: 1 with their module, 2 when they are first needed.
#[unsafe(no_mangle)]
pub extern "C" fn cuModuleGetLoadingMode(mode: Out<c_int>) -> c_int {
    state::context("cuModuleGetLoadingMode", "", |context| put(mode, if context.lazy { 2 } else { 1 }))
}

fn attribute(context: &mut Context, number: c_int, function: usize) -> Result<c_int, Code> {
    let gpu = context.gpu;
    context.load(function)?.attribute(number, gpu)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncGetAttribute(value: Out<c_int>, number: c_int, function: usize) -> c_int {
    state::context("cuFuncGetAttribute", &number.to_string(), |context| {
        put(value, attribute(context, number, function)?)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuFuncSetAttribute(function: usize, number: c_int, value: c_int) -> c_int {
    state::context("cuFuncSetAttribute", &format!("{number} {value}"), |context| {
        let gpu = context.gpu;
        context.load(function)?.set_attribute(number, value, gpu)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    blocks: Out<c_int>,
    function: usize,
    threads: c_int,
    dynamic: usize,
) -> c_int {
    state::context("cuOccupancyMaxActiveBlocksPerMultiprocessor", "", |context| {
        let gpu = context.gpu;
        let threads =
            u32::try_from(threads).ok().filter(|threads| *threads > 0).ok_or(Code::INVALID_VALUE)?;
        let dynamic = u32::try_from(dynamic).map_err(|_| Code::INVALID_VALUE)?;
        put(blocks, context.load(function)?.residency(threads, dynamic, gpu) as c_int)
    })
}
