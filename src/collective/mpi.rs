//! A world over MPI.
//!
//! Every call is a non-blocking one that is asked about until it is done, so that a process that does not
//! take part is noticed: one that has ended (its number is asked of the system, on the same machine), one
//! that says why it ends, and one that says nothing for longer than the time limit. A sum is an exchange of
//! parts, each of which one process adds up in the order of the ranks, and a second exchange of these;
//! begun sums go on whenever a call waits.

mod calls;
mod singletons;
mod sum;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use mpi::Threading;
use mpi::environment::Universe;
use mpi::traits::AsRaw as _;

use self::calls::{Communicator, Request, library, rank_and_size};
use self::singletons::Singletons;
use self::sum::Sum;
use self::watch::Watch;
pub(crate) use self::watch::or_end;
use super::Collective;
use super::launch::{Launched, Launcher};
use super::members::Member;
use crate::usage;

/// Bytes of a broadcast's messages: MPI counts in i32.
const MESSAGE: usize = 1 << 28;
/// How long a wait only yields the processor before it sleeps between two looks.
const EAGER: Duration = Duration::from_millis(5);
const SLEEP: Duration = Duration::from_micros(50);
/// How long what an ended process has sent may take to arrive.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// A world over MPI.
pub struct MpiWorld {
    rank: usize,
    size: usize,
    inner: Mutex<Inner>,
    /// Finalises MPI when it is dropped, which waits for the other processes.
    universe: Mutex<Option<Universe>>,
    /// What keeps processes together that were started without MPI.
    _singletons: Option<Singletons>,
}

/// What calls change.
struct Inner {
    calls: Communicator,
    watch: Watch,
    sums: Vec<Sum>,
    /// The processes were started without MPI: they end without it.
    is_of_singletons: bool,
}

impl std::fmt::Debug for MpiWorld {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MpiWorld({} of {})", self.rank, self.size)
    }
}

/// Whether srun has started a process without telling any MPI of the others (--mpi=none, which is what many
/// clusters have set where a user says nothing): then no variable is there that MPI's start-up reads. Other libraries
/// than Open MPI may still start by SLURM's first interface, which needs none.
fn is_without_mpi(launched: &Launched, library: &str, mut names: impl Iterator<Item = String>) -> bool {
    let is_suspect = launched.by == Launcher::Srun && library.starts_with("Open MPI");
    is_suspect && !names.any(|name| name.starts_with("PMI"))
}

impl MpiWorld {
    /// Joins the world that the launcher has started.
    ///
    /// # Errors
    /// A usage error if MPI knows of another number of processes than the launcher; if a process does not
    /// answer for `limit`.
    pub fn join(launched: &Launched, limit: Duration) -> Result<Self> {
        let line = format!(
            "rank {} of {}: MPI does not start within {} s (--world-timeout): a process is missing; see what {} says \
             of the others",
            launched.rank,
            launched.size,
            limit.as_secs_f64(),
            launched.by.words()
        );
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        if is_without_mpi(launched, &library()?, names) {
            // Open MPI itself says that in 30 lines on every process, and ends it.
            return Err(usage!(
                "this is one of {} processes that srun has started without MPI; {}",
                launched.size,
                launched.by.remedy()
            ));
        }
        let singletons = match launched.by {
            Launcher::Torchrun => Some(singletons::prepare(launched, limit)?),
            _ => None,
        };
        // What waits for all processes without a limit of its own.
        let join = || -> Result<_> {
            let Some((universe, threading)) = mpi::initialize_with_threading(Threading::Serialized) else {
                bail!("MPI is initialised already")
            };
            ensure!(
                threading >= Threading::Serialized,
                "the MPI library lets no thread but the first call it"
            );
            let world = match singletons {
                Some(_) => singletons::connect(launched)?,
                None => universe.world().as_raw(),
            };
            let [rank, size] = rank_and_size(world)?;
            if size != launched.size {
                return Err(usage!(
                    "{} has started {} processes, but MPI sees {size}; {}",
                    launched.by.words(),
                    launched.size,
                    launched.by.remedy()
                ));
            }
            let communicators = [Communicator::duplicate(world)?, Communicator::duplicate(world)?];
            Ok((universe, [rank, size], communicators))
        };
        let (universe, [rank, size], [calls, talk]) = or_end(limit, line, join)?;
        let watch = Watch::new(rank, size, talk, limit);
        let inner = Inner { calls, watch, sums: Vec::new(), is_of_singletons: singletons.is_some() };
        let universe = Mutex::new(Some(universe));
        Ok(Self { rank, size, inner: Mutex::new(inner), universe, _singletons: singletons })
    }

    /// Says who the processes are: their names in errors, and which of them have ended.
    pub fn know(&self, members: &[Member]) {
        self.inner().watch.know(members);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Waits until `done` says so, while begun sums go on.
    fn wait(&mut self, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        loop {
            if done(self)? {
                return Ok(());
            }
            self.advance()?;
            let waited = began.elapsed();
            if let Err(error) = self.watch.look(waited) {
                return self.last_words(error, done);
            }
            if waited < EAGER { thread::yield_now() } else { thread::sleep(SLEEP) }
        }
    }

    /// Whether a call is done after all, when a process has been found to have ended. Where MPI ends first, it waits
    /// for all; singletons end when they are done, and what they have sent last may still arrive.
    fn last_words(
        &mut self,
        error: anyhow::Error,
        mut done: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let began = Instant::now();
        while self.is_of_singletons && began.elapsed() < LAST_WORDS {
            if done(self)? {
                return Ok(());
            }
            thread::sleep(SLEEP);
        }
        Err(error)
    }

    /// Lets all begun sums go on.
    fn advance(&mut self) -> Result<()> {
        self.sums.iter_mut().try_for_each(Sum::advance)
    }

    /// What a call has received.
    fn received(&mut self, mut request: Request) -> Result<Vec<u8>> {
        self.wait(|_| request.test())?;
        Ok(request.into_received())
    }
}

impl Collective for MpiWorld {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn gather(&self, own: Vec<u8>, lengths: &[usize]) -> Result<Vec<u8>> {
        ensure!(own.len() == lengths[self.rank], "{} bytes instead of {}", own.len(), lengths[self.rank]);
        let mut inner = self.inner();
        let request = inner.calls.gather(own, lengths)?;
        inner.received(request)
    }

    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut inner = self.inner();
        let length = inner.calls.broadcast((bytes.len() as u64).to_le_bytes().to_vec())?;
        let length = inner.received(length)?;
        let length = u64::from_le_bytes(length.try_into().unwrap_or_default()) as usize;
        let mut all = Vec::with_capacity(length);
        for begin in (0..length).step_by(MESSAGE) {
            let end = length.min(begin + MESSAGE);
            let part = if self.rank == 0 { bytes[begin..end].to_vec() } else { vec![0; end - begin] };
            let request = inner.calls.broadcast(part)?;
            all.extend(inner.received(request)?);
        }
        Ok(all)
    }

    fn look(&self, waited: Duration) -> Result<()> {
        let mut inner = self.inner();
        inner.advance()?;
        inner.watch.look(waited)
    }

    fn begin_sum(&self, number: usize, values: &[f32]) -> Result<()> {
        let mut inner = self.inner();
        while inner.sums.len() <= number {
            // Of its own: the second exchange begins when the first is done, which differs between processes,
            // while calls of one communicator must have the same order everywhere.
            let (mut duplicate, communicator) = inner.calls.begin_duplicate()?;
            inner.wait(|_| duplicate.test())?;
            let sum = Sum::new(self.rank, self.size, *communicator);
            inner.sums.push(sum);
        }
        inner.sums[number].begin(values)?;
        inner.advance()
    }

    fn end_sum(&self, number: usize, values: &mut [f32]) -> Result<()> {
        let mut inner = self.inner();
        inner.wait(|inner| inner.sums[number].take(values))
    }

    fn leave(&self, code: u8, line: &str) {
        self.inner().watch.leave(code, line);
    }
}

impl Drop for MpiWorld {
    /// Finalising waits for all processes: not once one of them has ended otherwise. Nor of singletons, where Open
    /// MPI's finalising waits for ever now and then: a communicator is not taken apart.
    fn drop(&mut self) {
        let inner = self.inner();
        let orderly = inner.watch.is_orderly() && !inner.is_of_singletons;
        drop(inner);
        let universe = self.universe.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if !orderly {
            std::mem::forget(universe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn srun_without_mpi_is_known() {
        let srun = Launched { by: Launcher::Srun, rank: 0, size: 2, local_rank: None };
        let names = |names: &'static [&'static str]| names.iter().map(|name| name.to_string());
        let open_mpi = "Open MPI v4.1.4, package: Debian OpenMPI";
        assert!(is_without_mpi(&srun, open_mpi, names(&["PATH", "SLURM_PROCID"])));
        assert!(!is_without_mpi(&srun, "MPICH Version: 4.0.2", names(&["SLURM_PROCID"])));
        assert!(!is_without_mpi(&srun, open_mpi, names(&["SLURM_PROCID", "PMIX_NAMESPACE"])));
        assert!(!is_without_mpi(&srun, open_mpi, names(&["PMI_FD"])));
        assert!(!is_without_mpi(&Launched { by: Launcher::OpenMpi, ..srun }, open_mpi, names(&[])));
    }
}
