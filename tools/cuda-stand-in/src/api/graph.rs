//! Graphs.

use std::ffi::{c_int, c_ulonglong};

use super::{Out, put};
use crate::code::Code;
use crate::state;

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphInstantiateWithFlags(
    executable: Out<usize>,
    graph: usize,
    flags: c_ulonglong,
) -> c_int {
    state::context("cuGraphInstantiateWithFlags", "", |context| {
        if flags != 0 {
            return Err(Code::NOT_SUPPORTED);
        }
        let copy = context.graphs.get(&graph).ok_or(Code::INVALID_HANDLE)?.clone();
        let handle = context.handle();
        context.executables.insert(handle, copy);
        put(executable, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphDestroy(graph: usize) -> c_int {
    state::context("cuGraphDestroy", "", |context| {
        context.graphs.remove(&graph).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGraphExecDestroy(executable: usize) -> c_int {
    state::context("cuGraphExecDestroy", "", |context| {
        context.executables.remove(&executable).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    })
}

/// # Safety
/// Host memory that its copies name must be valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGraphLaunch(executable: usize, stream: usize) -> c_int {
    state::context("cuGraphLaunch", &executable.to_string(), |context| {
        context.stream(stream)?;
        // A graph inside a graph would be a node of its own kind.
        context.captures.forbid_in(stream, Code::NOT_SUPPORTED)?;
        let graph = context.executables.get(&executable).ok_or(Code::INVALID_HANDLE)?.clone();
        // SAFETY: the caller's promise.
        unsafe { context.run(&graph, stream) };
        Ok(())
    })
}
