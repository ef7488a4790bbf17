//! Defects found while a kernel runs.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;

/// Kinds of defects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// An access outside every allocation, shared or local memory, or the parameters.
    OutOfBounds,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of bytes that nothing wrote.
    Uninitialised,
    /// Two threads use the same shared byte, one of them writing, and nothing orders the two.
    SharedRace,
    /// The same for global memory, between threads of one block.
    GlobalRace,
    /// The same between two blocks.
    BlockRace,
    /// The same between two launches that nothing orders.
    LaunchRace,
    /// Use of shared memory that an asynchronous copy is still to fill, or a write of what it is still to
    /// read.
    PendingCopy,
    /// A barrier that only a part of a warp reaches, or that the block's warps wait at for ever.
    DivergentBarrier,
    /// A warp-wide instruction whose members are not all there.
    DivergentWarp,
    /// Warps that wait for each other, or for a value that nobody writes, for ever.
    NeverEnds,
    /// The kernel executed `trap`.
    Trap,
    /// An operation on a state space that does not have it.
    InvalidAccess,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfBounds => "out of bounds",
            Self::Misaligned => "misaligned",
            Self::Uninitialised => "uninitialised read",
            Self::SharedRace => "race on shared memory",
            Self::GlobalRace => "race on global memory within a block",
            Self::BlockRace => "race on global memory between blocks",
            Self::LaunchRace => "race on global memory between launches",
            Self::PendingCopy => "use before an asynchronous copy arrived",
            Self::DivergentBarrier => "divergent barrier",
            Self::DivergentWarp => "divergent warp instruction",
            Self::NeverEnds => "wait that never ends",
            Self::Trap => "trap",
            Self::InvalidAccess => "invalid access",
        })
    }
}

/// A line of the CUDA source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourceLine {
    /// As the compiler was told.
    pub file: String,
    /// Counted from 1.
    pub line: u32,
}

/// One defect: the first time it was seen, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The kernel's name.
    pub kernel: String,
    /// What is wrong.
    pub kind: FindingKind,
    /// Where in the source, if the PTX says.
    pub source: Option<SourceLine>,
    /// Where in the PTX.
    pub ptx_line: u32,
    /// The block.
    pub block: [u32; 3],
    /// The thread within it.
    pub thread: [u32; 3],
    /// The address in the space that was accessed.
    pub address: Option<u64>,
    /// An explanation: buffer, offset, and the other party of a race.
    pub message: String,
    /// How many lanes, at this instruction, had the same kind of defect.
    pub times: u64,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at ", self.kernel, self.kind)?;
        if let Some(source) = &self.source {
            write!(f, "{}:{} ", source.file, source.line)?;
        }
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        write!(
            f,
            "(PTX line {}), block {bx},{by},{bz} thread {tx},{ty},{tz}: {}",
            self.ptx_line, self.message
        )?;
        if self.times > 1 {
            write!(f, " ({} times)", self.times)?;
        }
        Ok(())
    }
}

/// Findings of one launch so far: one for each kind and instruction.
#[derive(Debug, Default)]
pub struct Findings {
    found: HashMap<(FindingKind, u32), (u64, Finding)>,
    pub total: u64,
}

impl Findings {
    /// Counts one; `describe` is only called if it is the first of its kind there.
    pub fn add(&mut self, kind: FindingKind, step: u32, block: u64, describe: impl FnOnce() -> Finding) {
        self.total += 1;
        self.found.entry((kind, step)).or_insert_with(|| (block, describe())).1.times += 1;
    }

    /// Adds another worker's; of two the one in the lower block stays.
    pub fn merge(&mut self, other: Findings) {
        self.total += other.total;
        for (key, (block, finding)) in other.found {
            match self.found.entry(key) {
                std::collections::hash_map::Entry::Vacant(entry) => {
                    entry.insert((block, finding));
                }
                std::collections::hash_map::Entry::Occupied(mut entry) => {
                    let times = entry.get().1.times + finding.times;
                    if block < entry.get().0 {
                        entry.insert((block, finding));
                    }
                    entry.get_mut().1.times = times;
                }
            }
        }
    }

    /// At most `most` of them, in the order of blocks and then lines.
    pub fn into_list(self, most: usize) -> Vec<Finding> {
        let mut list: Vec<_> = self.found.into_iter().collect();
        list.sort_by_key(|((kind, step), (block, _))| (*block, *step, *kind));
        list.into_iter().take(most).map(|(_, (_, finding))| finding).collect()
    }
}
