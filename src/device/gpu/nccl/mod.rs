//! Exchanges between GPUs over NVIDIA's NCCL. It only moves bytes here: what is added up, our kernels add, so
//! that sums have the order of the ranks.
//!
//! All calls of a process are made by one thread. Put into a stream that is being captured, an exchange is a
//! part of the graph.

mod library;

use std::ffi::c_int;

use anyhow::{Result, anyhow, bail};

use super::exchange::Exchange;
use super::launch::Address;
pub use library::{FILE, INSTALL, Nccl, UniqueId};
use library::{RawCommunicator, RawStream};

/// ncclUint8: what is moved are bytes, whatever they stand for.
const BYTES: c_int = 1;
/// ncclInProgress, which is no error.
const IN_PROGRESS: c_int = 7;

/// This process's place among the GPUs.
pub struct Communicator {
    nccl: &'static Nccl,
    raw: RawCommunicator,
    rank: usize,
    size: usize,
    /// It was ended without the others.
    is_aborted: bool,
}

impl UniqueId {
    /// A new one, for all processes of a world.
    ///
    /// # Errors
    /// The library's.
    pub fn new(nccl: &Nccl) -> Result<Self> {
        let mut id = Self([0; 128]);
        // SAFETY: the pointer is to a live value of the library's size.
        check(nccl, "ncclGetUniqueId", unsafe { (nccl.functions.unique_id)(&mut id) })?;
        Ok(id)
    }

    /// As the first process sends it to the others.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the others receive it.
    ///
    /// # Errors
    /// For another number of bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Ok(Self(bytes.try_into().map_err(|_| anyhow!("an identifier of {} bytes", bytes.len()))?))
    }
}

/// An error with the call's name, unless the code says success.
fn check(nccl: &Nccl, call: &str, code: c_int) -> Result<()> {
    match code {
        0 | IN_PROGRESS => Ok(()),
        _ => bail!("NCCL: {call} failed: {}", nccl.words(code)),
    }
}

/// An address as the library takes it.
///
/// # Errors
/// If it is still an offset into the workspace.
fn pointer(address: Address) -> Result<*mut std::ffi::c_void> {
    match address {
        Address::Device(address) => Ok(address as usize as *mut _),
        Address::Workspace(_) => bail!("an exchange without its workspace"),
    }
}

impl Communicator {
    /// Joins the others, of which there are `size`, on the GPU whose context is current; returns once all
    /// have come.
    ///
    /// # Errors
    /// The library's.
    pub fn join(nccl: &'static Nccl, id: UniqueId, rank: usize, size: usize) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pointer is to a live handle, and the identifier came from the library.
        let code = unsafe { (nccl.functions.init)(&mut raw, size as c_int, id, rank as c_int) };
        check(nccl, "ncclCommInitRank", code)?;
        Ok(Self { nccl, raw, rank, size, is_aborted: false })
    }

    /// Puts an exchange into a stream.
    ///
    /// # Errors
    /// The library's.
    ///
    /// # Safety
    /// The addresses are of memory of the current context that lives until the exchange is done, or as long
    /// as the graph that it is captured in.
    pub unsafe fn exchange(&self, exchange: &Exchange, stream: RawStream) -> Result<()> {
        let functions = &self.nccl.functions;
        let check = |call: &str, code| check(self.nccl, call, code);
        match exchange {
            Exchange::First { values, bytes } => {
                let values = pointer(*values)?;
                // SAFETY: the caller's promise.
                check("ncclBroadcast", unsafe {
                    (functions.broadcast)(values, values, *bytes, BYTES, 0, self.raw, stream)
                })
            }
            Exchange::Gather { own, all, bytes } if bytes.iter().all(|each| *each == bytes[0]) => {
                let (own, all) = (pointer(*own)?, pointer(*all)?);
                // SAFETY: the caller's promise; where `own` lies in `all`, it is in its place.
                check("ncclAllGather", unsafe {
                    (functions.all_gather)(own, all, bytes[0], BYTES, self.raw, stream)
                })
            }
            Exchange::Gather { own, all, bytes } => {
                let begin = |rank: usize| all.plus(bytes[..rank].iter().sum());
                // Its own part is sent to itself unless it is there.
                let is_there = begin(self.rank) == *own;
                let with = |rank: usize| rank != self.rank || !is_there;
                let sends = (0..self.size).filter(|&rank| with(rank));
                let sends = sends.map(|rank| (rank, *own, bytes[self.rank])).collect::<Vec<_>>();
                let receives = (0..self.size).filter(|&rank| with(rank));
                let receives = receives.map(|rank| (rank, begin(rank), bytes[rank])).collect::<Vec<_>>();
                // SAFETY: the caller's promise.
                unsafe { self.group(&sends, &receives, stream) }
            }
            Exchange::Parts { parts, received } => {
                let own = parts[self.rank].1;
                let others = || (0..self.size).filter(|&rank| rank != self.rank);
                let sends = others().map(|rank| (rank, parts[rank].0, parts[rank].1)).collect::<Vec<_>>();
                let receives = others().map(|rank| (rank, received[rank], own)).collect::<Vec<_>>();
                // SAFETY: the caller's promise.
                unsafe { self.group(&sends, &receives, stream) }
            }
        }
    }

    /// Sends to and receives from these ranks, all at once.
    ///
    /// # Safety
    /// As [`Communicator::exchange`].
    unsafe fn group(
        &self,
        sends: &[(usize, Address, usize)],
        receives: &[(usize, Address, usize)],
        stream: RawStream,
    ) -> Result<()> {
        let functions = &self.nccl.functions;
        let check = |call: &str, code| check(self.nccl, call, code);
        // SAFETY: the call takes nothing.
        check("ncclGroupStart", unsafe { (functions.group_start)() })?;
        let given = || -> Result<()> {
            for &(rank, from, bytes) in sends.iter().filter(|(.., bytes)| *bytes > 0) {
                let from = pointer(from)?;
                // SAFETY: the caller's promise.
                let code = unsafe { (functions.send)(from, bytes, BYTES, rank as c_int, self.raw, stream) };
                check("ncclSend", code)?;
            }
            for &(rank, to, bytes) in receives.iter().filter(|(.., bytes)| *bytes > 0) {
                let to = pointer(to)?;
                // SAFETY: the caller's promise.
                let code = unsafe { (functions.receive)(to, bytes, BYTES, rank as c_int, self.raw, stream) };
                check("ncclRecv", code)?;
            }
            Ok(())
        };
        let given = given();
        // A group has to end whatever happened in it.
        // SAFETY: the call takes nothing.
        let ended = check("ncclGroupEnd", unsafe { (functions.group_end)() });
        given.and(ended)
    }

    /// Whether the library has found that something is wrong since.
    ///
    /// # Errors
    /// What that is.
    pub fn look(&self) -> Result<()> {
        let mut found = 0;
        // SAFETY: a live communicator, and a pointer to a live int.
        let code = unsafe { (self.nccl.functions.asynchronous_error)(self.raw, &mut found) };
        check(self.nccl, "ncclCommGetAsyncError", code)?;
        match found {
            0 | IN_PROGRESS => Ok(()),
            code => bail!("NCCL: {}", self.nccl.words(code)),
        }
    }

    /// Ends all exchanges under way, without the others.
    pub fn abort(&mut self) {
        if !std::mem::replace(&mut self.is_aborted, true) {
            // SAFETY: a live communicator, which is not used again.
            let _ = unsafe { (self.nccl.functions.abort)(self.raw) };
        }
    }

    /// Whether it was ended without the others.
    pub fn is_aborted(&self) -> bool {
        self.is_aborted
    }
}

impl Drop for Communicator {
    /// Its exchanges are done, and the graphs that they are captured in destroyed.
    fn drop(&mut self) {
        if !self.is_aborted {
            // SAFETY: a live communicator that nobody uses after this. An error has nobody to go to.
            let _ = unsafe { (self.nccl.functions.destroy)(self.raw) };
        }
    }
}
