//! Several processes that train one network: what they do together, and what is divided between them.
//!
//! | file | what |
//! |---|---|
//! | here | [`Collective`], what the processes do together; [`World`], what a device holds of it; [`Share`] |
//! | [`alone`] | a world of one process |
//! | `mpi` | a world over MPI, with the feature `mpi` |
//! | [`launch`] | what the launcher says, and how the world forms |
//! | [`members`] | what every process says of itself, and what must be the same |
//!
//! The *network* is divided, nothing else: each process takes its rows of the batch through the network and
//! back. Losses, disambiguation, class prior, queues and choices are computed by every process over the whole
//! batch, from logits that all have gathered. So the state of all processes has the same bits at any time, a
//! method needs to know nothing of it, and what one process decides all decide. Gradients are added in the
//! order of the ranks, so the bits depend on the number of processes alone.

pub mod alone;
pub mod launch;
pub mod members;
#[cfg(feature = "mpi")]
pub mod mpi;

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};

pub use alone::Alone;
use members::Member;

/// What the processes of a world do together. Every process makes the same calls in the same order.
///
/// All calls fail in bounded time if another process does not take part; the error names it.
pub trait Collective: Debug + Send + Sync {
    /// The number of this process, from 0.
    fn rank(&self) -> usize;

    /// Processes.
    fn size(&self) -> usize;

    /// The bytes of all processes, one after another; `lengths` are theirs by rank.
    ///
    /// # Errors
    /// If another process does not take part.
    fn gather(&self, own: Vec<u8>, lengths: &[usize]) -> Result<Vec<u8>>;

    /// The bytes that rank 0 gives.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn broadcast(&self, bytes: Vec<u8>) -> Result<Vec<u8>>;

    /// Looks whether the other processes are still there, where this one has waited so long for something
    /// else than a call of this trait: for an exchange between GPUs.
    ///
    /// # Errors
    /// The reason that a process gives for its end; a process that has ended; any error once that is longer
    /// than the time limit.
    fn look(&self, _waited: Duration) -> Result<()> {
        Ok(())
    }

    /// Begins the sum of `values` over the processes, each element in the order of the ranks, and returns at
    /// once. `number` names it until [`Collective::end_sum`]; the numbers of a step are given in the same
    /// order in every step.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn begin_sum(&self, number: usize, values: &[f32]) -> Result<()>;

    /// Waits for a sum that was begun, and writes it to `values`.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    fn end_sum(&self, number: usize, values: &mut [f32]) -> Result<()>;

    /// Lets the other processes know that this one ends with that exit code, and why: they end as well,
    /// wherever they are.
    fn leave(&self, code: u8, line: &str);
}

impl dyn Collective + '_ {
    /// The strings of bytes of all processes, of any lengths.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    pub fn gather_any(&self, own: &[u8]) -> Result<Vec<Vec<u8>>> {
        let lengths = self.gather((own.len() as u64).to_le_bytes().to_vec(), &vec![8; self.size()])?;
        let lengths: Vec<usize> =
            lengths.as_chunks::<8>().0.iter().map(|&bytes| u64::from_le_bytes(bytes) as usize).collect();
        let all = self.gather(own.to_vec(), &lengths)?;
        let mut rest = &all[..];
        let mut next = |length| {
            let (part, behind) = rest.split_at(length);
            rest = behind;
            part.to_vec()
        };
        Ok(lengths.into_iter().map(&mut next).collect())
    }

    /// Sums each of `values` over the processes, in the order of the ranks.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    pub fn sum_f64(&self, values: &mut [f64]) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let bytes = bytemuck::cast_slice::<f64, u8>(values).to_vec();
        let all = self.gather(bytes, &vec![size_of_val(values); self.size()])?;
        values.fill(0.0);
        for part in all.chunks_exact(size_of_val(values).max(1)) {
            values
                .iter_mut()
                .zip(part.as_chunks::<8>().0)
                .for_each(|(sum, b)| *sum += f64::from_ne_bytes(*b));
        }
        Ok(())
    }

    /// Whether `any` process says yes: a decision of one is a decision of all.
    ///
    /// # Errors
    /// As [`Collective::gather`].
    pub fn any(&self, own: bool) -> Result<bool> {
        Ok(self.gather(vec![u8::from(own)], &vec![1; self.size()])?.contains(&1))
    }
}

/// The part of a batch that a process takes through the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// This process.
    pub rank: usize,
    /// Processes.
    pub size: usize,
    /// Whether a batchnorm's statistics are those of the whole batch, or of the own rows alone.
    pub joint_batchnorm: bool,
}

impl Default for Share {
    /// The whole batch.
    fn default() -> Self {
        Self { rank: 0, size: 1, joint_batchnorm: false }
    }
}

impl Share {
    /// Whether there are other processes.
    pub fn is_divided(&self) -> bool {
        self.size > 1
    }

    /// The own ones of `count` rows, images or batches: neighbours, and as many as all have or one more.
    pub fn of(&self, count: usize) -> Range<usize> {
        self.of_rank(self.rank, count)
    }

    /// Puts `groups` groups of `count` rows of `len` values in their places: `gathered` has those of one process
    /// after the other, each process's groups of its own rows.
    ///
    /// # Panics
    /// If either slice is shorter than all rows.
    pub fn place<T: Copy>(&self, [groups, count, len]: [usize; 3], mut gathered: &[T], out: &mut [T]) {
        for rank in 0..self.size {
            let rows = self.of_rank(rank, count);
            for group in 0..groups {
                let (part, behind) = gathered.split_at(rows.len() * len);
                let first = (group * count + rows.start) * len;
                out[first..first + part.len()].copy_from_slice(part);
                gathered = behind;
            }
        }
    }

    /// Those of another process.
    pub fn of_rank(&self, rank: usize, count: usize) -> Range<usize> {
        let begin = |rank: usize| (rank * count).div_ceil(self.size);
        begin(rank)..begin(rank + 1)
    }
}

/// The processes that train together, as a device holds them.
#[derive(Clone, Debug)]
pub struct World {
    collective: Arc<dyn Collective>,
    members: Vec<Member>,
    joint_batchnorm: bool,
    local_rank: usize,
    limit: Duration,
}

impl Default for World {
    fn default() -> Self {
        Self::new(Arc::new(Alone))
    }
}

impl World {
    /// A world over `collective` whose batchnorm statistics are joint.
    pub fn new(collective: Arc<dyn Collective>) -> Self {
        let limit = Duration::from_secs_f64(launch::DEFAULT_TIMEOUT);
        Self { collective, members: Vec::new(), joint_batchnorm: true, local_rank: 0, limit }
    }

    /// The same as its launcher has started it: which process of its machine it is, by the launcher or else
    /// by the members, and how long one waits for the others.
    pub fn as_launched(self, local_rank: Option<usize>, limit: Duration) -> Self {
        let own = self.members.get(self.rank()).map(|member| &member.host);
        let before = self.members.iter().take(self.rank());
        let counted = before.filter(|member| Some(&member.host) == own).count();
        Self { local_rank: local_rank.unwrap_or(counted), limit, ..self }
    }

    /// The same, with who the processes are.
    pub fn with_members(self, members: Vec<Member>) -> Self {
        Self { members, ..self }
    }

    /// The same with batchnorm statistics of the whole batch, or of each process's own rows.
    pub fn with_joint_batchnorm(self, joint_batchnorm: bool) -> Self {
        Self { joint_batchnorm, ..self }
    }

    /// Checks that all processes say the same; see [`members::agree`].
    ///
    /// # Errors
    /// A usage error, the same on all, that names what differs; if another process does not take part.
    pub fn agree(&self, own: &[(String, String)], remedy: &str) -> Result<()> {
        members::agree(self, &self.members, own, remedy)
    }

    /// A process in messages.
    pub fn name_of(&self, rank: usize) -> String {
        self.members.get(rank).map_or_else(|| format!("rank {rank}"), |member| member.named(rank))
    }

    /// Threads of this process where nothing is said; 0, as many as the system allows, if it is alone.
    pub fn threads(&self) -> usize {
        let Some(own) = self.members.get(self.rank()) else { return 0 };
        own.threads(self.members.iter().filter(|member| member.machine == own.machine).count())
    }

    /// What they do together.
    pub fn collective(&self) -> &dyn Collective {
        &*self.collective
    }

    /// This process.
    pub fn rank(&self) -> usize {
        self.collective.rank()
    }

    /// Processes.
    pub fn size(&self) -> usize {
        self.collective.size()
    }

    /// The number of this process among those of its machine.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// How long a process waits for the others.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether there is no other process.
    pub fn is_alone(&self) -> bool {
        self.size() == 1
    }

    /// Whether this process has the run's folder and terminal.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// What this process computes of a batch.
    pub fn share(&self) -> Share {
        Share { rank: self.rank(), size: self.size(), joint_batchnorm: self.joint_batchnorm }
    }

    /// What `first` gives on rank 0, on every process. An error of `first` ends the others as well, once rank
    /// 0 says so.
    ///
    /// # Errors
    /// Those of `first`; if another process does not take part.
    pub fn from_first(&self, first: impl FnOnce() -> Result<Vec<u8>>) -> Result<Vec<u8>> {
        if self.is_alone() {
            return first();
        }
        self.collective.broadcast(if self.is_first() { first()? } else { Vec::new() })
    }

    /// Gathers f32 rows: `own` are this process's of `groups` groups of `count` rows of `len` values, which
    /// come out whole and in order.
    ///
    /// # Errors
    /// If `own` has another length; if another process does not take part.
    pub fn gather_rows(&self, own: &[f32], [groups, count, len]: [usize; 3], all: &mut [f32]) -> Result<()> {
        let share = self.share();
        let rows = |rank| share.of_rank(rank, count);
        ensure!(own.len() == groups * share.of(count).len() * len, "{} own values of rows", own.len());
        let lengths: Vec<usize> = (0..share.size).map(|rank| groups * rows(rank).len() * len * 4).collect();
        let gathered = self.collective.gather(bytemuck::cast_slice(own).to_vec(), &lengths)?;
        share.place([groups, count, 4 * len], &gathered, bytemuck::cast_slice_mut(all));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_neighbours_and_almost_equal() {
        for (size, count) in [(1, 5), (2, 5), (3, 7), (4, 4), (5, 64), (3, 2)] {
            let share = |rank| Share { rank, size, joint_batchnorm: true }.of(count);
            let mut next = 0;
            for rank in 0..size {
                assert_eq!(share(rank).start, next);
                assert!(share(rank).len().abs_diff(count / size) <= 1, "{size} {count}");
                next = share(rank).end;
            }
            assert_eq!(next, count);
        }
    }

    #[test]
    fn one_process_has_everything() {
        let world = World::default();
        assert!(world.is_alone() && world.is_first() && !world.share().is_divided());
        let mut all = [0.0; 6];
        world.gather_rows(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [1, 3, 2], &mut all).unwrap();
        assert_eq!(all, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        assert_eq!(world.collective().gather_any(b"ab").unwrap(), [b"ab"]);
        assert!(world.collective().any(true).unwrap() && !world.collective().any(false).unwrap());
    }
}
