//! NCCL's functions.

use std::ffi::{c_char, c_int};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Out, memory, put};
use crate::code::Code;
use crate::nccl::{self, Part, Transfer};
use crate::state;
use crate::work::Work;

/// ncclUniqueId.
#[repr(C)]
pub struct UniqueId([u8; 128]);

/// A call's result.
fn result(result: Result<(), c_int>) -> c_int {
    result.map_or_else(|code| code, |()| nccl::SUCCESS)
}

fn put_in<T>(out: Out<'_, T>, value: T) -> Result<(), c_int> {
    put(out, value).map_err(|_| nccl::refuse("no place for a result"))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetVersion(version: Out<c_int>) -> c_int {
    result(put_in(version, nccl::VERSION))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetErrorString(code: c_int) -> *const c_char {
    let text = match code {
        nccl::SUCCESS => c"no error",
        nccl::CUDA_ERROR => c"unhandled cuda error",
        nccl::SYSTEM_ERROR => c"unhandled system error",
        nccl::INVALID_ARGUMENT => c"invalid argument",
        nccl::INVALID_USAGE => c"invalid usage",
        nccl::REMOTE_ERROR => c"remote process exited or there was a network error",
        _ => c"unknown result code",
    };
    text.as_ptr()
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGetUniqueId(id: Out<UniqueId>) -> c_int {
    result(nccl::identifier().and_then(|found| put_in(id, UniqueId(found))))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommInitRank(
    communicator: Out<usize>,
    size: c_int,
    id: UniqueId,
    rank: c_int,
) -> c_int {
    let current = state::context("ncclCommInitRank", &format!("{rank} of {size}"), |_| Ok(()));
    if current != 0 {
        return nccl::CUDA_ERROR;
    }
    result(nccl::join(&id.0, rank, size).and_then(|handle| put_in(communicator, handle)))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommDestroy(communicator: usize) -> c_int {
    state::context("ncclCommDestroy", "", |_| Ok(()));
    result(nccl::end(communicator))
}

/// Work that waits for others is given up.
#[unsafe(no_mangle)]
pub extern "C" fn ncclCommAbort(communicator: usize) -> c_int {
    state::context("ncclCommAbort", "", |context| {
        context.hangs = false;
        Ok(())
    });
    result(nccl::end(communicator))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclCommGetAsyncError(communicator: usize, error: Out<c_int>) -> c_int {
    let found = nccl::communicator(communicator).map(|found| found.error.load(Ordering::SeqCst));
    result(found.and_then(|found| put_in(error, found)))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupStart() -> c_int {
    nccl::begin_group();
    nccl::SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclGroupEnd() -> c_int {
    result(nccl::end_group().and_then(|parts| submit("ncclGroupEnd", parts)))
}

/// Puts exchanges into their streams.
fn submit(call: &str, parts: Vec<Part>) -> Result<(), c_int> {
    for (stream, exchange) in nccl::exchanges(parts)? {
        let bytes = |transfers: &[Transfer]| transfers.iter().map(|transfer| transfer.bytes).sum::<usize>();
        let detail = format!("{} {}", bytes(&exchange.sends), bytes(&exchange.receives));
        let code = state::context(call, &detail, |context| {
            for Transfer { at, bytes, .. } in exchange.sends.iter().chain(&exchange.receives) {
                memory::inside(context, *at, *bytes)?;
            }
            // SAFETY: no host memory is named.
            unsafe { context.enqueue(stream, Work::Exchange(Arc::new(exchange))) }
        });
        match Code(code) {
            Code(0) => {}
            Code::INVALID_VALUE | Code::INVALID_HANDLE => return Err(nccl::INVALID_ARGUMENT),
            _ => return Err(nccl::CUDA_ERROR),
        }
    }
    Ok(())
}

/// A call, in its group or by itself.
fn call(name: &str, part: Result<Part, c_int>) -> c_int {
    let alone = nccl::in_group(part);
    result(alone.and_then(|alone| alone.map_or(Ok(()), |part| submit(name, vec![part]))))
}

/// Bytes of so many values, and the process's rank and how many there are.
fn described(communicator: usize, count: usize, kind: c_int) -> Result<[usize; 3], c_int> {
    let found = nccl::communicator(communicator)?;
    let bytes = nccl::bytes_of(kind)?.checked_mul(count);
    let bytes = bytes.filter(|bytes| *bytes > 0 && *bytes < 1 << 40);
    Ok([bytes.ok_or_else(|| nccl::refuse(&format!("{count} values")))?, found.rank, found.size])
}

fn peer(peer: c_int) -> Result<usize, c_int> {
    usize::try_from(peer).map_err(|_| nccl::refuse(&format!("rank {peer}")))
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclSend(
    from: u64,
    count: usize,
    kind: c_int,
    to: c_int,
    communicator: usize,
    stream: usize,
) -> c_int {
    let part = described(communicator, count, kind).and_then(|[bytes, ..]| {
        let sends = vec![Transfer { peer: peer(to)?, at: from, bytes }];
        Ok(Part { communicator, stream, sends, receives: Vec::new() })
    });
    call("ncclSend", part)
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclRecv(
    to: u64,
    count: usize,
    kind: c_int,
    from: c_int,
    communicator: usize,
    stream: usize,
) -> c_int {
    let part = described(communicator, count, kind).and_then(|[bytes, ..]| {
        let receives = vec![Transfer { peer: peer(from)?, at: to, bytes }];
        Ok(Part { communicator, stream, sends: Vec::new(), receives })
    });
    call("ncclRecv", part)
}

/// What is sent lies in its place of what is received, or apart from it.
#[unsafe(no_mangle)]
pub extern "C" fn ncclAllGather(
    from: u64,
    to: u64,
    count: usize,
    kind: c_int,
    communicator: usize,
    stream: usize,
) -> c_int {
    let part = described(communicator, count, kind).map(|[bytes, rank, size]| {
        let place = |peer: usize| to + (peer * bytes) as u64;
        let with = |peer: &usize| *peer != rank || place(rank) != from;
        let sends = (0..size).filter(with).map(|peer| Transfer { peer, at: from, bytes }).collect();
        let receives = (0..size).filter(with).map(|peer| Transfer { peer, at: place(peer), bytes }).collect();
        Part { communicator, stream, sends, receives }
    });
    call("ncclAllGather", part)
}

#[unsafe(no_mangle)]
pub extern "C" fn ncclBroadcast(
    from: u64,
    to: u64,
    count: usize,
    kind: c_int,
    root: c_int,
    communicator: usize,
    stream: usize,
) -> c_int {
    let part = described(communicator, count, kind).and_then(|[bytes, rank, size]| {
        let root = peer(root)?;
        let with = |peer: &usize| *peer != rank || from != to;
        let (sends, receives) = if rank == root {
            let sends = (0..size).filter(with).map(|peer| Transfer { peer, at: from, bytes });
            let own = with(&rank).then_some(Transfer { peer: rank, at: to, bytes });
            (sends.collect(), own.into_iter().collect())
        } else {
            (Vec::new(), vec![Transfer { peer: root, at: to, bytes }])
        };
        Ok(Part { communicator, stream, sends, receives })
    });
    call("ncclBroadcast", part)
}
