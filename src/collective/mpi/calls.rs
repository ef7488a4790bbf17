//! The calls of MPI that a world makes, each with the memory that it works on. rsmpi's own requests end the
//! process if one is left unfinished, which is what happens when another process is lost.

use std::mem::{self, MaybeUninit};

use anyhow::{Result, bail, ensure};
use mpi::ffi;

/// A communicator, for as long as the process lives.
#[derive(Clone, Copy)]
pub(super) struct Communicator(ffi::MPI_Comm);

// SAFETY: handles may be used by any thread; MPI is initialised for calls from several, one at a time, and
// all are made under one lock.
unsafe impl Send for Communicator {}

/// A call under way, and its memory.
pub(super) struct Request {
    raw: ffi::MPI_Request,
    send: Vec<u8>,
    received: Vec<u8>,
    numbers: Vec<Vec<i32>>,
    is_done: bool,
}

// SAFETY: as for Communicator.
unsafe impl Send for Request {}

/// The error of a call whose code is not 0.
pub(super) fn check(code: i32) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let mut text = vec![0u8; 1024];
    let mut length = 0;
    // SAFETY: the text has room for MPI_MAX_ERROR_STRING, which is at most 512 in the libraries there are.
    unsafe { ffi::MPI_Error_string(code, text.as_mut_ptr().cast(), &mut length) };
    text.truncate(length.max(0) as usize);
    bail!("MPI: {}", String::from_utf8_lossy(&text));
}

/// Counts and displacements of parts of these lengths that follow each other.
fn layout(lengths: &[usize]) -> Result<[Vec<i32>; 2]> {
    let all: usize = lengths.iter().sum();
    ensure!(i32::try_from(all).is_ok(), "an exchange of {all} bytes is more than MPI counts");
    let mut end = 0;
    let mut displacements = Vec::with_capacity(lengths.len());
    for length in lengths {
        displacements.push(end as i32);
        end += length;
    }
    Ok([lengths.iter().map(|&length| length as i32).collect(), displacements])
}

/// What the library says that it is; it need not have started.
pub(super) fn library() -> Result<String> {
    let mut text = vec![0u8; ffi::MPI_MAX_LIBRARY_VERSION_STRING as usize];
    let mut length = 0;
    // SAFETY: the text is as long as the call wants, which may be made at any time.
    check(unsafe { ffi::MPI_Get_library_version(text.as_mut_ptr().cast(), &mut length) })?;
    text.truncate(length.max(0) as usize);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// This process's rank, and the number of processes.
pub(super) fn rank_and_size(of: ffi::MPI_Comm) -> Result<[usize; 2]> {
    let [mut rank, mut size] = [0; 2];
    // SAFETY: a valid communicator, and pointers to live numbers.
    unsafe {
        check(ffi::MPI_Comm_rank(of, &mut rank))?;
        check(ffi::MPI_Comm_size(of, &mut size))?;
    }
    Ok([rank.max(0) as usize, size.max(0) as usize])
}

impl Communicator {
    /// A communicator of the same processes, at the beginning, when all are there. Waits for them without a limit.
    pub fn duplicate(of: ffi::MPI_Comm) -> Result<Self> {
        let mut new = MaybeUninit::uninit();
        // SAFETY: the call writes the handle if it succeeds.
        let new = unsafe {
            check(ffi::MPI_Comm_dup(of, new.as_mut_ptr()))?;
            new.assume_init()
        };
        // An error then comes back as a code instead of ending the process.
        // SAFETY: both handles are valid.
        check(unsafe { ffi::MPI_Comm_set_errhandler(new, ffi::RSMPI_ERRORS_RETURN) })?;
        Ok(Self(new))
    }

    /// Begins another; it may be used once the request is done.
    pub fn begin_duplicate(&self) -> Result<(Request, Box<Self>)> {
        let mut request = Request::new(Vec::new(), 0, Vec::new());
        // SAFETY: any value will do for a handle that is overwritten.
        let mut new = Box::new(Self(unsafe { ffi::RSMPI_COMM_NULL }));
        // SAFETY: the handle is in memory that does not move, and is kept until the request is done.
        check(unsafe { ffi::MPI_Comm_idup(self.0, &mut new.0, &mut request.raw) })?;
        Ok((request, new))
    }

    /// Begins to gather what all processes give, as long as `lengths` says.
    pub fn gather(&self, own: Vec<u8>, lengths: &[usize]) -> Result<Request> {
        let [counts, displacements] = layout(lengths)?;
        let count = own.len() as i32;
        let mut request = Request::new(own, lengths.iter().sum(), vec![counts, displacements]);
        // SAFETY: all memory is the request's, which keeps it where it is until the call is done.
        check(unsafe {
            ffi::MPI_Iallgatherv(
                request.send.as_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                request.received.as_mut_ptr().cast(),
                request.numbers[0].as_ptr(),
                request.numbers[1].as_ptr(),
                ffi::RSMPI_UINT8_T,
                self.0,
                &mut request.raw,
            )
        })?;
        Ok(request)
    }

    /// Begins to give each process its part of `own` and to receive this one's part of theirs; `lengths` are
    /// those of the parts.
    pub fn exchange(&self, own: Vec<u8>, lengths: &[usize], rank: usize) -> Result<Request> {
        let [counts, displacements] = layout(lengths)?;
        let [theirs, their_displacements] = layout(&vec![lengths[rank]; lengths.len()])?;
        let received = lengths[rank] * lengths.len();
        let numbers = vec![counts, displacements, theirs, their_displacements];
        let mut request = Request::new(own, received, numbers);
        // SAFETY: as in [`Communicator::gather`].
        check(unsafe {
            ffi::MPI_Ialltoallv(
                request.send.as_ptr().cast(),
                request.numbers[0].as_ptr(),
                request.numbers[1].as_ptr(),
                ffi::RSMPI_UINT8_T,
                request.received.as_mut_ptr().cast(),
                request.numbers[2].as_ptr(),
                request.numbers[3].as_ptr(),
                ffi::RSMPI_UINT8_T,
                self.0,
                &mut request.raw,
            )
        })?;
        Ok(request)
    }

    /// Begins to give all processes the bytes of rank 0; the others give as many.
    pub fn broadcast(&self, bytes: Vec<u8>) -> Result<Request> {
        let count = bytes.len() as i32;
        let mut request = Request::new(Vec::new(), 0, Vec::new());
        request.received = bytes;
        request.received.reserve(1);
        // SAFETY: as in [`Communicator::gather`].
        check(unsafe {
            ffi::MPI_Ibcast(
                request.received.as_mut_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                0,
                self.0,
                &mut request.raw,
            )
        })?;
        Ok(request)
    }

    /// Begins to send a message that counts as sent when it is being received.
    pub fn send(&self, bytes: Vec<u8>, to: usize, tag: i32) -> Result<Request> {
        let count = bytes.len() as i32;
        let mut request = Request::new(bytes, 0, Vec::new());
        // SAFETY: as in [`Communicator::gather`].
        check(unsafe {
            let bytes = request.send.as_ptr().cast();
            ffi::MPI_Issend(bytes, count, ffi::RSMPI_UINT8_T, to as i32, tag, self.0, &mut request.raw)
        })?;
        Ok(request)
    }

    /// A message with this tag that has arrived, and from which process.
    pub fn arrived(&self, tag: i32) -> Result<Option<(usize, Vec<u8>)>> {
        let (mut flag, mut count) = (0, 0);
        let mut status: ffi::MPI_Status = no_status();
        // SAFETY: all places for answers are valid, and the message that is received is the one that was
        // found: no other thread receives.
        unsafe {
            check(ffi::MPI_Iprobe(ffi::RSMPI_ANY_SOURCE, tag, self.0, &mut flag, &mut status))?;
            if flag == 0 {
                return Ok(None);
            }
            check(ffi::MPI_Get_count(&status, ffi::RSMPI_UINT8_T, &mut count))?;
            let mut bytes = Vec::with_capacity(count.max(1) as usize);
            bytes.resize(count.max(0) as usize, 0u8);
            let (into, source) = (bytes.as_mut_ptr().cast(), status.MPI_SOURCE);
            check(ffi::MPI_Recv(into, count, ffi::RSMPI_UINT8_T, source, tag, self.0, &mut status))?;
            Ok(Some((source as usize, bytes)))
        }
    }
}

/// A status before a call fills it in.
fn no_status() -> ffi::MPI_Status {
    // SAFETY: a plain C structure, for which all zeros is a value.
    unsafe { mem::zeroed() }
}

impl Request {
    fn new(mut send: Vec<u8>, received: usize, numbers: Vec<Vec<i32>>) -> Self {
        // The address of an empty vector is what Open MPI takes for "in place".
        send.reserve(1);
        // SAFETY: reading a constant of the library.
        let raw = unsafe { ffi::RSMPI_REQUEST_NULL };
        let mut memory = Vec::with_capacity(received.max(1));
        memory.resize(received, 0);
        Self { raw, send, received: memory, numbers, is_done: false }
    }

    /// Whether the call is done.
    pub fn test(&mut self) -> Result<bool> {
        if !self.is_done {
            let mut flag = 0;
            // SAFETY: the request is under way.
            check(unsafe { ffi::MPI_Test(&mut self.raw, &mut flag, ffi::RSMPI_STATUS_IGNORE) })?;
            self.is_done = flag != 0;
        }
        Ok(self.is_done)
    }

    /// What was received; the call is done.
    pub fn into_received(mut self) -> Vec<u8> {
        mem::take(&mut self.received)
    }
}

impl Drop for Request {
    /// The library may still write to the memory of a call that is not done.
    fn drop(&mut self) {
        if !self.is_done {
            mem::forget((
                mem::take(&mut self.send),
                mem::take(&mut self.received),
                mem::take(&mut self.numbers),
            ));
        }
    }
}
