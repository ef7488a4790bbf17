//! What is wrong with a kernel's use of memory and synchronisation.

use std::fmt;

use serde::Serialize;

/// The kinds of findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// Outside every allocation, or of shared, local and parameter memory.
    OutOfBounds,
    Misaligned,
    /// A read of bytes that nothing wrote.
    Uninitialised,
    /// Two warps, no barrier between, one of them writing; or two lanes of one store with different values.
    SharedRace,
    /// Memory that a copy under way will write was read before its wait.
    AsyncCopyRace,
    /// Two blocks, nothing that orders them, one of them writing.
    GlobalRace,
    /// A barrier that a part of a warp's threads reaches.
    DivergentBarrier,
    /// Threads that wait for what never comes.
    EndlessWait,
    /// A shuffle, vote or warp barrier whose members are not those that take part.
    WrongMembers,
    /// `trap`.
    Trap,
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FindingKind::OutOfBounds => "access out of bounds",
            FindingKind::Misaligned => "misaligned access",
            FindingKind::Uninitialised => "read of memory nothing wrote",
            FindingKind::SharedRace => "race in shared memory",
            FindingKind::AsyncCopyRace => "access to memory that an asynchronous copy is writing",
            FindingKind::GlobalRace => "race between blocks in global memory",
            FindingKind::DivergentBarrier => "barrier reached by a part of a warp",
            FindingKind::EndlessWait => "wait that never ends",
            FindingKind::WrongMembers => "warp operation without all its members",
            FindingKind::Trap => "trap",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub kind: FindingKind,
    pub kernel: String,
    /// Line of the PTX.
    pub line: u32,
    /// `file:line` of the source, where the compiler kept it.
    pub source: Option<String>,
    pub block: [u32; 3],
    pub thread: [u32; 3],
    /// What exactly: the address, whose memory it is, who else took part.
    pub detail: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { kind, kernel, line, source, block, thread, detail } = self;
        write!(f, "{kind}: {detail}; kernel {kernel}, ")?;
        if let Some(source) = source {
            write!(f, "{source}, ")?;
        }
        let three = |[x, y, z]: [u32; 3]| format!("({x}, {y}, {z})");
        write!(f, "PTX line {line}, block {}, thread {}", three(*block), three(*thread))
    }
}
