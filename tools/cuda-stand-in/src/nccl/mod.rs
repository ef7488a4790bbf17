//! NCCL between processes of one machine: an exchange is work of a stream, and is captured as other work is.
//!
//! A process that is lost, or does not take part, is as with the library: the work never ends, and the error
//! of a closed connection is seen by who asks the communicator for it.

mod links;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::io::ErrorKind;
use std::ops::Range;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ptx_sim::Machine;

use crate::code::Code;
use crate::log;
use links::Links;

/// The library's results.
pub const SUCCESS: c_int = 0;
pub const CUDA_ERROR: c_int = 1;
pub const SYSTEM_ERROR: c_int = 2;
pub const INVALID_ARGUMENT: c_int = 4;
pub const INVALID_USAGE: c_int = 5;
pub const REMOTE_ERROR: c_int = 6;

/// The version that is claimed: 2.18.3.
pub const VERSION: c_int = 21803;

/// Begins an identifier.
const MAGIC: [u8; 8] = *b"stand-in";

/// How long a process waits for another, within a call, before its work hangs for good.
fn limit() -> Duration {
    Duration::from_secs(log::number("STAND_IN_NCCL_SECONDS").unwrap_or(60))
}

/// A communicator of this process.
pub struct Communicator {
    links: Mutex<Links>,
    pub rank: usize,
    pub size: usize,
    /// What ncclCommGetAsyncError says.
    pub error: AtomicI32,
}

static COMMUNICATORS: Mutex<Option<HashMap<usize, Arc<Communicator>>>> = Mutex::new(None);

fn all<T>(work: impl FnOnce(&mut HashMap<usize, Arc<Communicator>>) -> T) -> T {
    work(COMMUNICATORS.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

/// The communicator of a handle.
///
/// # Errors
/// Invalid argument where there is none.
pub fn communicator(handle: usize) -> Result<Arc<Communicator>, c_int> {
    all(|all| all.get(&handle).cloned()).ok_or_else(|| refuse("no communicator"))
}

/// Ends a communicator.
///
/// # Errors
/// As [`communicator`].
pub fn end(handle: usize) -> Result<(), c_int> {
    let ended = all(|all| all.remove(&handle)).ok_or_else(|| refuse("no communicator"))?;
    ended.links.lock().unwrap_or_else(PoisonError::into_inner).close();
    Ok(())
}

/// Notes what is wrong with an argument.
pub fn refuse(what: &str) -> c_int {
    log::note(&format!("NCCL: {what}"));
    INVALID_ARGUMENT
}

/// A new identifier: where the processes come to.
///
/// # Errors
/// System error.
pub fn identifier() -> Result<[u8; 128], c_int> {
    let root = links::found(limit()).map_err(|_| SYSTEM_ERROR)?;
    let mut id = [0; 128];
    id[..8].copy_from_slice(&MAGIC);
    id[8..10].copy_from_slice(&root.to_le_bytes());
    Ok(id)
}

/// Joins the others; the handle of the communicator.
///
/// # Errors
/// Invalid argument, or system error where the others do not come.
pub fn join(id: &[u8; 128], rank: c_int, size: c_int) -> Result<usize, c_int> {
    join_within(id, rank, size, limit())
}

fn join_within(id: &[u8; 128], rank: c_int, size: c_int, limit: Duration) -> Result<usize, c_int> {
    if id[..8] != MAGIC || size < 1 || !(0..size).contains(&rank) {
        return Err(refuse(&format!("rank {rank} of {size}, or an identifier of another library")));
    }
    let (rank, size, root) = (rank as usize, size as usize, u16::from_le_bytes([id[8], id[9]]));
    let links = Links::join(root, rank, size, limit).map_err(|error| {
        log::note(&format!("NCCL: rank {rank} of {size} does not join: {error}"));
        SYSTEM_ERROR
    })?;
    let new = Arc::new(Communicator { links: Mutex::new(links), rank, size, error: AtomicI32::new(0) });
    let handle = Arc::as_ptr(&new) as usize;
    all(|all| all.insert(handle, new));
    Ok(handle)
}

/// Bytes of a data type's value: ncclDataType_t.
///
/// # Errors
/// Invalid argument for another number.
pub fn bytes_of(kind: c_int) -> Result<usize, c_int> {
    match kind {
        0 | 1 => Ok(1),
        6 | 9 => Ok(2),
        2 | 3 | 7 => Ok(4),
        4 | 5 | 8 => Ok(8),
        _ => Err(refuse(&format!("data type {kind}"))),
    }
}

/// Bytes that go to a process, or come from it.
#[derive(Clone, Debug)]
pub struct Transfer {
    pub peer: usize,
    pub at: u64,
    pub bytes: usize,
}

impl Transfer {
    fn range(&self) -> Range<u64> {
        self.at..self.at + self.bytes as u64
    }
}

/// What is done in one piece.
pub struct Exchange {
    communicator: Arc<Communicator>,
    pub sends: Vec<Transfer>,
    pub receives: Vec<Transfer>,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Exchange({:?}, {:?})", self.sends, self.receives)
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

impl Exchange {
    /// Checks what a process can check by itself.
    ///
    /// # Errors
    /// Invalid argument for a process that is not there, or memory that is received twice or while it is
    /// sent; invalid usage where what it sends to itself it does not receive.
    pub fn new(
        communicator: Arc<Communicator>,
        sends: Vec<Transfer>,
        receives: Vec<Transfer>,
    ) -> Result<Self, c_int> {
        let all = || sends.iter().chain(&receives);
        if let Some(transfer) = all().find(|transfer| transfer.peer >= communicator.size) {
            return Err(refuse(&format!("rank {} of {}", transfer.peer, communicator.size)));
        }
        let ranges: Vec<_> = receives.iter().map(Transfer::range).collect();
        let twice =
            ranges.iter().enumerate().any(|(at, range)| ranges[..at].iter().any(|r| overlap(r, range)));
        let both = sends.iter().any(|send| ranges.iter().any(|range| overlap(range, &send.range())));
        if twice || both {
            return Err(refuse("memory is received twice, or while it is sent"));
        }
        let own = |list: &[Transfer]| -> Vec<usize> {
            let own = list.iter().filter(|transfer| transfer.peer == communicator.rank);
            own.map(|transfer| transfer.bytes).collect()
        };
        if own(&sends) != own(&receives) {
            refuse("what a rank sends to itself it does not receive");
            return Err(INVALID_USAGE);
        }
        Ok(Self { communicator, sends, receives })
    }

    /// Does it.
    ///
    /// # Errors
    /// Launch failed where bytes are sent that nothing has written; illegal address outside allocations; not
    /// ready where another process does not do its part.
    pub fn perform(&self, machine: &mut Machine) -> Result<(), Code> {
        // Nothing writes anything then.
        let is_checked = !log::on("STAND_IN_SKIP");
        let Communicator { rank, size, .. } = *self.communicator;
        let mut sent = vec![Vec::new(); size];
        for Transfer { peer, at, bytes } in &self.sends {
            let missing = machine.uninitialised(*at, *bytes);
            if is_checked && missing > 0 {
                log::note(&format!("NCCL sends {missing} of {bytes} bytes that nothing has written"));
                return Err(Code::LAUNCH_FAILED);
            }
            let mut message = vec![0; *bytes];
            machine.read(*at, &mut message).map_err(|_| Code::ILLEGAL_ADDRESS)?;
            sent[*peer].push(message);
        }
        let own = std::mem::take(&mut sent[rank]);
        let mut lengths = vec![Vec::new(); size];
        for Transfer { peer, bytes, .. } in self.receives.iter().filter(|transfer| transfer.peer != rank) {
            lengths[*peer].push(*bytes);
        }
        let mut links = self.communicator.links.lock().unwrap_or_else(PoisonError::into_inner);
        debug_assert_eq!((links.rank, links.size()), (rank, size));
        let mut received = links.exchange(&sent, &lengths).map_err(|error| self.hang(&error))?;
        received[rank] = own;
        let mut received: Vec<_> = received.into_iter().map(Vec::into_iter).collect();
        for Transfer { peer, at, .. } in &self.receives {
            let message = received[*peer].next().ok_or(Code::ILLEGAL_ADDRESS)?;
            machine.write(*at, &message).map_err(|_| Code::ILLEGAL_ADDRESS)?;
        }
        Ok(())
    }

    /// What another process did not do: the work never ends. Of a closed connection and a message that does
    /// not fit, the library would know.
    fn hang(&self, error: &std::io::Error) -> Code {
        let known = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => SUCCESS,
            ErrorKind::InvalidData => INVALID_USAGE,
            _ => REMOTE_ERROR,
        };
        if known != REMOTE_ERROR {
            log::note(&format!("NCCL: an exchange of rank {} does not end: {error}", self.communicator.rank));
        }
        self.communicator.error.store(known, Ordering::SeqCst);
        Code::NOT_READY
    }
}

/// A call of a group.
pub struct Part {
    pub communicator: usize,
    pub stream: usize,
    pub sends: Vec<Transfer>,
    pub receives: Vec<Transfer>,
}

/// The group that this thread gathers.
#[derive(Default)]
struct Group {
    depth: usize,
    parts: Vec<Part>,
    failed: Option<c_int>,
}

thread_local! {
    static GROUP: RefCell<Group> = RefCell::default();
}

/// Begins a group, or one inside it.
pub fn begin_group() {
    GROUP.with_borrow_mut(|group| group.depth += 1);
}

/// Ends a group; what there is to do, where it was the outermost.
///
/// # Errors
/// Invalid usage where none was begun; the error of a call in it.
pub fn end_group() -> Result<Vec<Part>, c_int> {
    GROUP.with_borrow_mut(|group| {
        let Some(depth) = group.depth.checked_sub(1) else {
            refuse("the end of a group that was not begun");
            return Err(INVALID_USAGE);
        };
        group.depth = depth;
        if depth > 0 {
            return Ok(Vec::new());
        }
        let Group { parts, failed, .. } = std::mem::take(group);
        failed.map_or(Ok(parts), Err)
    })
}

/// Adds a call to the group; gives it back where there is none. The error of a call is also that of its
/// group.
///
/// # Errors
/// That of the call.
pub fn in_group(part: Result<Part, c_int>) -> Result<Option<Part>, c_int> {
    GROUP.with_borrow_mut(|group| match part {
        Err(code) => {
            group.failed = (group.depth > 0).then_some(code);
            Err(code)
        }
        Ok(part) if group.depth == 0 => Ok(Some(part)),
        Ok(part) => {
            group.parts.push(part);
            Ok(None)
        }
    })
}

/// The exchanges of a group, one a communicator, with their streams.
///
/// # Errors
/// Invalid usage where a communicator's calls name several streams; those of [`Exchange::new`].
pub fn exchanges(parts: Vec<Part>) -> Result<Vec<(usize, Exchange)>, c_int> {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match joined.iter_mut().find(|other| other.communicator == part.communicator) {
            Some(other) if other.stream != part.stream => {
                refuse("several streams for a communicator in one group");
                return Err(INVALID_USAGE);
            }
            Some(other) => {
                other.sends.extend(part.sends);
                other.receives.extend(part.receives);
            }
            None => joined.push(part),
        }
    }
    let of = |part: Part| {
        let exchange = Exchange::new(communicator(part.communicator)?, part.sends, part.receives)?;
        Ok((part.stream, exchange))
    };
    joined.into_iter().map(of).collect()
}
