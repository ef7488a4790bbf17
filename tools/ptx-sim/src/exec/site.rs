//! Where an instruction is executed: the host thread, the block and the warp it changes, and for which lanes.

use super::launch::LaunchState;
use super::warp::Warp;
use crate::isa::{BarrierKind, Reg};
use crate::memory::Shared;
use crate::monitor::{Event, Fault, Monitor, Place, Position, Range, Semantics};

/// One host thread's part of a launch.
pub struct Worker<M> {
    pub monitor: M,
    /// The allocation used last.
    pub hint: usize,
    /// What the kernel printed.
    pub printed: Vec<u8>,
}

impl<M> Worker<M> {
    /// At the start of a launch.
    pub fn new(monitor: M) -> Self {
        Self { monitor, hint: 0, printed: Vec::new() }
    }
}

/// What the warps of a block share.
pub struct BlockState<M: Monitor> {
    /// Its number in the grid.
    pub number: u64,
    pub shared: Shared,
    pub shared_bytes: u64,
    pub barriers: [Arrivals; 16],
    /// Asynchronous copies on their way, of each warp.
    pub copies: Vec<Vec<Copy<M>>>,
    /// Those that mbarriers wait for: where the barrier lies, who made the copy.
    pub landing: Vec<(u64, M::Access, Copy<M>)>,
    /// Barriers that a warp arrived at and did not stop.
    pub arrived: Vec<u32>,
    /// What the monitor keeps of the block.
    pub watched: M::Block,
    /// Something changed that others may wait for.
    pub progress: bool,
    /// Instructions run.
    pub ticks: u64,
}

/// One barrier's arrivals so far.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    pub threads: u32,
    /// None for all threads of the block.
    pub wanted: Option<u32>,
    /// Lanes whose predicate held, and lanes in all.
    pub held: u32,
    pub lanes: u32,
    /// Warps to wake.
    pub waiting: Vec<Waiting>,
    /// Some arrived and do not wait.
    pub passed: bool,
    /// The barrier that was executed last.
    pub pc: u32,
}

/// A warp that waits at a barrier, and where the result of its reduction goes: kind, register, lanes.
pub type Waiting = (u32, Option<(BarrierKind, Reg, u32)>);

/// An asynchronous copy on its way.
pub struct Copy<M: Monitor> {
    pub warp: u32,
    /// The group of its lane.
    pub group: u32,
    /// Where it goes.
    pub to: Range,
    pub data: [u8; 16],
    /// What the monitor knows of where it comes from.
    pub source: M::Source,
}

/// An instruction of a warp, and all it may use and change.
pub struct Site<'s, M: Monitor> {
    pub launch: &'s LaunchState<'s>,
    pub worker: &'s mut Worker<M>,
    pub block: &'s mut BlockState<M>,
    pub warp: &'s mut Warp,
    /// The instruction.
    pub pc: u32,
    /// Lanes that execute it.
    pub mask: u32,
}

impl<M: Monitor> Site<'_, M> {
    /// Where the warp is.
    #[inline(always)]
    pub fn position(&self) -> Position {
        Position { block: self.block.number, warp: self.warp.index, pc: self.pc }
    }

    /// The first lane that executes this.
    pub fn first(&self) -> usize {
        self.mask.trailing_zeros() as usize & 31
    }

    /// A lane asks for what cannot be done.
    #[cold]
    pub fn fault(&mut self, lane: usize, address: Option<u64>, fault: Fault<'_>) {
        self.worker.monitor.fault(self.position(), lane as u32, address, fault);
    }

    /// Something costs more than its instruction.
    #[inline]
    pub fn event(&mut self, event: Event) {
        self.worker.monitor.event(event);
    }

    /// An access of the warp starts.
    #[inline(always)]
    pub fn access(&self, semantics: Semantics) -> M::Access {
        self.worker.monitor.access(&self.block.watched, self.position(), semantics)
    }

    /// A lane reads.
    #[inline(always)]
    pub fn read(&mut self, access: M::Access, range: Range) {
        self.worker.monitor.read(&mut self.block.watched, access, range);
    }

    /// A lane reads shared memory.
    #[inline(always)]
    pub fn read_shared(&mut self, access: M::Access, lane: usize, offset: usize, bytes: u32) {
        self.read(access, Range { lane, place: Place::Shared(offset), bytes });
    }

    /// A lane writes other bytes to shared memory.
    #[inline(always)]
    pub fn write_shared(&mut self, access: M::Access, lane: usize, offset: usize, bytes: u32) {
        let range = Range { lane, place: Place::Shared(offset), bytes };
        self.worker.monitor.write(&mut self.block.watched, access, range, || false);
    }

    /// Lanes observe what was published at a place.
    #[inline]
    pub fn observe(&mut self, semantics: Semantics, place: Place, lanes: u32) {
        let at = self.position();
        self.worker.monitor.observe(&mut self.block.watched, at, semantics, place, lanes);
    }

    /// Lanes publish at a place.
    #[inline]
    pub fn publish(&mut self, semantics: Semantics, place: Place, lanes: u32) {
        let at = self.position();
        self.worker.monitor.publish(&mut self.block.watched, at, semantics, place, lanes);
    }

    /// Lanes execute something together; `all`: every one that is left.
    #[inline]
    pub fn together(&mut self, lanes: u32, all: bool) {
        let at = self.position();
        self.worker.monitor.together(&mut self.block.watched, at, lanes, all);
    }
}
