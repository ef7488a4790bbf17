//! Streams, and capturing them.

use std::ffi::{c_int, c_uint};

use super::{Out, put};
use crate::capture::Mode;
use crate::code::Code;
use crate::state::{self, Recorded};

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamCreate(stream: Out<usize>, flags: c_uint) -> c_int {
    state::context("cuStreamCreate", "", |context| {
        if flags > 1 {
            return Err(Code::INVALID_VALUE);
        }
        let handle = context.handle();
        context.streams.insert(handle, None);
        put(stream, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamDestroy_v2(stream: usize) -> c_int {
    state::context("cuStreamDestroy_v2", "", |context| {
        context.captures.forbid_in(stream, Code::STREAM_CAPTURE_UNSUPPORTED)?;
        context.streams.remove(&stream).map(|_| ()).ok_or(Code::INVALID_HANDLE)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamSynchronize(stream: usize) -> c_int {
    state::context("cuStreamSynchronize", "", |context| {
        context.stream(stream)?;
        context.captures.forbid_in(stream, Code::STREAM_CAPTURE_UNSUPPORTED)?;
        context.waited(stream)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamQuery(stream: usize) -> c_int {
    state::context("cuStreamQuery", "", |context| {
        context.stream(stream)?;
        context.captures.forbid_in(stream, Code::STREAM_CAPTURE_UNSUPPORTED)?;
        context.at_end(context.busy_until(stream))
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamWaitEvent(stream: usize, event: usize, _flags: c_uint) -> c_int {
    state::context("cuStreamWaitEvent", "", |context| {
        context.stream(stream)?;
        let recorded = context.events.get(&event).ok_or(Code::INVALID_HANDLE)?.recorded.clone();
        match recorded {
            Some(Recorded::Captured(mark)) => context.captures.wait(stream, &mark),
            // Work that is not captured cannot be waited for by what is.
            Some(Recorded::At(_)) => context.captures.forbid_in(stream, Code::STREAM_CAPTURE_ISOLATION),
            None => Ok(()),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(stream: usize, mode: c_int) -> c_int {
    state::context("cuStreamBeginCapture_v2", "", |context| {
        let mode = match mode {
            0 => Mode::Global,
            1 => Mode::ThreadLocal,
            2 => Mode::Relaxed,
            _ => return Err(Code::INVALID_VALUE),
        };
        if stream > 2 && !context.streams.contains_key(&stream) {
            return Err(Code::INVALID_HANDLE);
        }
        context.captures.begin(stream, mode)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamEndCapture(stream: usize, graph: Out<usize>) -> c_int {
    state::context("cuStreamEndCapture", "", |context| {
        let captured = context.captures.end(stream)?;
        let handle = context.handle();
        context.graphs.insert(handle, captured);
        put(graph, handle)
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamIsCapturing(stream: usize, status: Out<c_int>) -> c_int {
    state::context("cuStreamIsCapturing", "", |context| {
        put(status, c_int::from(context.captures.has(stream)))
    })
}
