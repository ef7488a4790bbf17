//! What execution says of itself while it runs, and to whom.
//!
//! Execution computes results and nothing else. Whatever watches it (bounds, initialisation, races, barriers,
//! cost) is a [`Monitor`]: execution calls it where something happens and never asks what it thinks of that.
//! The compiler puts the monitor's code where the calls are, so that what a monitor does not watch costs
//! nothing.

use crate::isa::{Order, Scope};
use crate::lanes::LANES;
use crate::memory::Placed;

/// Where a warp is.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    /// The block's number in the grid.
    pub block: u64,
    /// The warp's number in the block.
    pub warp: u32,
    /// The instruction.
    pub pc: u32,
}

/// How an access takes part in the order of others.
#[derive(Clone, Copy, Debug)]
pub struct Semantics {
    pub order: Order,
    pub scope: Scope,
    /// The value decides whether a loop goes on.
    pub waits: bool,
}

impl Semantics {
    /// Those of a plain access.
    pub const WEAK: Self = Self { order: Order::Weak, scope: Scope::Device, waits: false };
}

/// Where an access goes.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A byte of an allocation.
    Global { allocation: usize, offset: usize },
    /// A byte of the block's shared memory.
    Shared(usize),
    /// A byte of the lane's local memory.
    Local(usize),
}

/// What one lane accesses: aligned to its size, or whole words, and inside.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub lane: usize,
    pub place: Place,
    pub bytes: u32,
}

/// An atomic read-modify-write of one lane.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub semantics: Semantics,
    /// What it leaves differs from what it found.
    pub changes: bool,
    /// It wrote, were it the same value: a compare-and-swap that fails does not.
    pub writes: bool,
    /// If it changes the value, that takes a lock, unless it gives back one that is held.
    pub locks: bool,
}

/// Costs that no access tells.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A generic load turned out to be one of shared memory.
    SharedLoad,
    /// A generic store turned out to be one to shared memory.
    SharedStore,
    /// Bytes of local memory, over all lanes.
    LocalBytes(u64),
    /// Lanes of an atomic operation.
    AtomicLanes(u32),
    /// Floating-point operations of a matrix product.
    MatrixFlops(u64),
    /// A barrier, or a phase of one in shared memory, is complete.
    BarrierCompleted,
}

/// What cannot be done as the kernel asks: execution leaves it out, or stops the launch.
#[derive(Clone, Copy, Debug)]
pub enum Fault<'a> {
    /// The address is no multiple of the access's size.
    Misaligned {
        bytes: u64,
    },
    /// In no allocation.
    OutsideGlobal {
        what: &'a str,
        bytes: u64,
    },
    /// It starts in an allocation and ends outside.
    PastEnd {
        what: &'a str,
        bytes: u32,
        allocation: usize,
    },
    OutsideShared {
        what: &'a str,
        bytes: u32,
    },
    OutsideLocal {
        bytes: usize,
        size: usize,
    },
    OutsideParameters {
        bytes: u32,
        size: usize,
    },
    /// A use that the state space or the instruction does not have.
    Invalid(&'a str),
    /// The same of an mbarrier.
    InvalidMbarrier(&'a str),
    /// A block's barrier of a number too high.
    NoBarrier {
        id: u32,
    },
    /// A call through a pointer that points to no function of the signature.
    WrongPointer,
    Trap,
    AssertionFailed {
        what: &'a str,
        file: &'a str,
        line: u32,
    },
    /// A part of a warp's lanes at a barrier of the block.
    DividedAtBarrier {
        here: u32,
        missing: u32,
    },
    /// The members of a warp-wide instruction are not the lanes that execute it together.
    OtherMembers {
        named: u32,
        here: u32,
    },
    /// A part of a warp's lanes at a matrix instruction, which takes them all.
    DividedMatrix {
        here: u32,
    },
    /// The block's warps wait at barriers for ever: each with its barrier's number. Of the first one's
    /// barrier: its number, the threads it waits for (None: all of them), and those that arrived.
    Stuck {
        waiting: &'a [(u32, u32)],
        id: u32,
        wanted: Option<u32>,
        arrived: u32,
    },
    /// The block's warps wait for a value that nothing changes.
    Spinning {
        cooperative: bool,
    },
    /// The launch's budget of instructions is used up.
    BudgetUsed,
}

/// Watches a launch, or a host thread's part of one. Every method may do nothing; see [`crate::watch`] for
/// what the checks and counters do.
pub trait Monitor {
    /// What it keeps of each block.
    type Block: Default;
    /// A warp's access: by whom, when, and how.
    type Access: Copy;
    /// What an asynchronous copy read, as it was then.
    type Source: Copy;

    /// A block starts.
    fn begin(&mut self, block: &mut Self::Block, number: u64);

    /// A warp issues an instruction for that many lanes.
    fn issue(&mut self, pc: u32, lanes: u32);

    /// Something costs more than its instruction.
    fn event(&mut self, event: Event);

    /// A lane, or a warp by its first one, asks what cannot be done.
    fn fault(&mut self, at: Position, lane: u32, address: Option<u64>, fault: Fault<'_>);

    /// A warp starts an access, whose lanes follow.
    fn access(&self, block: &Self::Block, at: Position, semantics: Semantics) -> Self::Access;

    /// A lane reads.
    fn read(&mut self, block: &mut Self::Block, access: Self::Access, range: Range);

    /// A lane reads through the read-only cache.
    fn read_only(&mut self, block: &mut Self::Block, access: Self::Access, range: Range);

    /// A lane writes; the bytes are still the old ones. `silent`: the new ones are the same.
    fn write(
        &mut self,
        block: &mut Self::Block,
        access: Self::Access,
        range: Range,
        silent: impl Fn() -> bool,
    );

    /// A lane reads and writes at once.
    fn modify(&mut self, block: &mut Self::Block, at: Position, range: Range, change: Change);

    /// An asynchronous copy starts. `from`: the first byte it reads and how many, if it reads any.
    fn copy_starts(
        &mut self,
        block: &mut Self::Block,
        access: Self::Access,
        to: Range,
        from: Option<(Place, u32)>,
    ) -> Self::Source;

    /// It arrives. `access`: as of when its thread arrived or waited.
    fn copy_arrives(
        &mut self,
        block: &mut Self::Block,
        at: Position,
        access: Self::Access,
        to: Range,
        source: Self::Source,
    );

    /// Lanes read a place atomically, and what was published there counts for them.
    fn observe(
        &mut self,
        block: &mut Self::Block,
        at: Position,
        semantics: Semantics,
        place: Place,
        lanes: u32,
    );

    /// Lanes write a place atomically, which publishes what they fenced, or all they did if it is a release.
    fn publish(
        &mut self,
        block: &mut Self::Block,
        at: Position,
        semantics: Semantics,
        place: Place,
        lanes: u32,
    );

    /// A store to a place that may be a lock: it gives the lock back.
    fn unlock(&mut self, block: &mut Self::Block, at: Position, semantics: Semantics, place: Place);

    /// Lanes run a fence.
    fn fence(&mut self, block: &mut Self::Block, at: Position, scope: Scope, lanes: u32);

    /// Lanes of a warp execute something together; `all`: every one that is left.
    fn together(&mut self, block: &mut Self::Block, at: Position, lanes: u32, all: bool);

    /// A warp arrives at a barrier of the block and does not wait there.
    fn arrive(&mut self, block: &mut Self::Block, at: Position, id: u32);

    /// A barrier is complete, and those who waited go on. `all`: it is one of all warps.
    fn release(&mut self, block: &mut Self::Block, id: u32, waited: &[u32], all: bool);

    /// A warp's access to global memory, for what it costs.
    fn global_traffic(&mut self, addresses: &[u64; LANES], placed: &Placed, bytes: u32, store: bool);

    /// A warp's access to shared memory, for what it costs.
    fn shared_traffic(&mut self, addresses: &[u64; LANES], mask: u32, bytes: u32);

    /// Rows of 16 bytes that a matrix instruction accesses in one pass, if no banks conflict.
    fn matrix_rows(&mut self, addresses: &[u64]);
}
