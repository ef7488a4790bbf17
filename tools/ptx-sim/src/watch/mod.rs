//! What watches a launch: each monitor in a file or folder of its own, and [`Watch`], which is all of them at
//! once.
//!
//! | monitor | watches |
//! |---|---|
//! | `bounds` | addresses outside memory or out of line, and uses that a state space does not have |
//! | `initialised` | reads of bytes that nothing wrote |
//! | `races` | accesses that nothing orders |
//! | `launches` | accesses that nothing orders by launches that nothing orders |
//! | `barriers` | lanes and warps that do not meet, or wait for ever |
//! | `cost` | instructions, sectors, passes through shared memory |

mod barriers;
mod bounds;
mod cost;
mod counters;
mod finding;
mod group;
mod initialised;
mod launches;
mod races;
mod report;
mod shadow;
mod signals;

use crate::isa::{Order, Scope};
use crate::lanes::LANES;
use crate::memory::Placed;
use crate::monitor::{Change, Event, Fault, Monitor, Place, Position, Range, Semantics};
use cost::Cost;
use initialised::LocalShadow;
use races::order::{Address, Ordering};
use races::{Accessor, Suspect};
use report::Report;
use shadow::{Defect, SharedShadow};

pub use counters::Counters;
pub use finding::{Finding, FindingKind, Findings, SourceLine};
pub use group::{Group, MOST_MEMBERS};
pub use report::Subject;
pub use shadow::Shadow;
pub use shadow::history::MOST_TAG;
pub use signals::Signals;

/// All monitors, for one host thread.
pub struct Watch<'a> {
    report: Report<'a>,
    cost: Cost,
    /// Of shared memory.
    gaps: Vec<std::ops::Range<usize>>,
}

/// What they keep of a block.
#[derive(Default)]
pub struct Block {
    order: Ordering,
    shared: SharedShadow,
    local: LocalShadow,
}

/// Where and what an asynchronous copy read: allocation, first word, and who had written each word.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    allocation: usize,
    word: usize,
    written_by: [u64; 4],
    words: usize,
}

impl<'a> Watch<'a> {
    /// Nothing was seen yet.
    pub fn new(subject: &'a Subject<'a>) -> Self {
        let report = Report { subject, findings: Findings::default() };
        Self { report, cost: Cost::new(subject.kernel), gaps: subject.shared_gaps() }
    }

    /// What was found and counted.
    pub fn finish(self) -> (Counters, Findings) {
        (self.cost.finish(self.report.subject.kernel), self.report.findings)
    }

    /// A place as what is published there is known.
    fn address(&self, block: &Block, place: Place) -> Address {
        match place {
            Place::Global { allocation, offset } => {
                Address::global(self.report.subject.memory.get(allocation).base + offset as u64)
            }
            Place::Shared(offset) | Place::Local(offset) => Address::shared(offset as u64, block.order.id()),
        }
    }

    /// Reports the first thing that is wrong with an access to shared memory.
    #[cold]
    fn defects(&mut self, block: &mut Block, defects: &[Defect], offset: usize, new: &Suspect<'_>) {
        for defect in defects {
            match defect {
                Defect::Conflict(conflict) => {
                    if races::check(&mut self.report, &mut block.order, *conflict, new) {
                        return;
                    }
                }
                defect => {
                    let (at, defect) = (new.accessor.at, (*defect, new.writes));
                    return initialised::unusable_shared(&mut self.report, at, new.range, offset, defect);
                }
            }
        }
    }

    /// A read of global memory that has to be looked at.
    #[inline(never)]
    fn read_global(
        &mut self,
        block: &mut Block,
        accessor: Accessor,
        range: Range,
        (allocation, offset): (usize, usize),
    ) {
        let (report, order) = (&mut self.report, &mut block.order);
        launches::check(report, order, &Suspect { accessor, range, writes: false, silent: &|| false }, false);
        let written = &report.subject.shadows[allocation].written;
        initialised::check(report, written, accessor.at, range, (allocation, offset));
        races::read_global(report, order, accessor, range, (allocation, offset));
    }

    /// The same of a write.
    #[inline(never)]
    fn write_global(
        &mut self,
        block: &mut Block,
        accessor: Accessor,
        range: Range,
        place: (usize, usize),
        silent: &dyn Fn() -> bool,
    ) {
        let (report, order) = (&mut self.report, &mut block.order);
        launches::check(report, order, &Suspect { accessor, range, writes: true, silent }, false);
        races::write_global(report, order, accessor, range, place, silent);
    }

    /// Who modifies a place, having noted whether that takes a lock or gives one back.
    fn modifier(&mut self, block: &mut Block, at: Position, address: Address, change: Change) -> Accessor {
        let order = &mut block.order;
        if change.changes {
            let held = order.holds(at.warp, address);
            if change.locks || held {
                let signals = self.report.subject.signals;
                order.note_lock(signals, at.warp, address, change.locks && !held, change.semantics);
            }
        }
        Accessor { modifies: true, ..self.access(block, at, change.semantics) }
    }
}

impl Monitor for Watch<'_> {
    type Block = Block;
    type Access = Accessor;
    type Source = Option<Source>;

    fn begin(&mut self, block: &mut Block, number: u64) {
        let subject = self.report.subject;
        let threads = subject.block.iter().map(|size| u64::from(*size)).product::<u64>();
        let warps = threads.div_ceil(LANES as u64) as usize;
        block.order.start(subject.tag, number, warps);
        block.shared.reset(subject.shared.end as usize, &self.gaps);
        block.local.reset(warps, subject.kernel.local_bytes as usize);
        self.cost.counters.blocks += 1;
        self.cost.counters.threads += threads;
    }

    #[inline(always)]
    fn issue(&mut self, pc: u32, lanes: u32) {
        self.cost.issue(pc, lanes);
    }

    #[inline]
    fn event(&mut self, event: Event) {
        self.cost.event(event);
    }

    #[cold]
    fn fault(&mut self, at: Position, lane: u32, address: Option<u64>, fault: Fault<'_>) {
        let found =
            bounds::describe(self.report.subject, address, fault).or_else(|| barriers::describe(fault));
        if let Some((kind, message)) = found {
            self.report.note(at, lane, kind, address, || message);
        }
    }

    #[inline(always)]
    fn access(&self, block: &Block, at: Position, semantics: Semantics) -> Accessor {
        let (stamp, bounds) = block.order.access(at.warp, semantics);
        Accessor { at, stamp, bounds, modifies: false }
    }

    #[inline(always)]
    fn read(&mut self, block: &mut Block, accessor: Accessor, range: Range) {
        match range.place {
            Place::Global { allocation, offset } => {
                let subject = self.report.subject;
                let alone = subject.group.is_none();
                if !(alone && races::plain_read(&subject.shadows[allocation], accessor, range, offset)) {
                    self.read_global(block, accessor, range, (allocation, offset));
                }
            }
            Place::Shared(offset) => {
                let stamp = accessor.stamp.by(range.lane);
                if let Some(defects) = block.shared.read(offset, range.bytes, stamp, accessor.bounds) {
                    let suspect = Suspect { accessor, range, writes: false, silent: &|| false };
                    self.defects(block, &defects, offset, &suspect);
                }
            }
            Place::Local(offset) => block.local.check(&mut self.report, accessor.at, range, offset),
        }
    }

    fn read_only(&mut self, block: &mut Block, accessor: Accessor, range: Range) {
        if let Place::Global { allocation, offset } = range.place {
            let suspect = Suspect { accessor, range, writes: false, silent: &|| false };
            launches::check(&mut self.report, &mut block.order, &suspect, true);
            races::read_only(&mut self.report, &block.order, accessor, range, (allocation, offset));
            let written = &self.report.subject.shadows[allocation].written;
            initialised::check(&mut self.report, written, accessor.at, range, (allocation, offset));
        }
    }

    #[inline(always)]
    fn write(&mut self, block: &mut Block, accessor: Accessor, range: Range, silent: impl Fn() -> bool) {
        match range.place {
            Place::Global { allocation, offset } => {
                let subject = self.report.subject;
                let alone = subject.group.is_none();
                if !(alone && races::plain_write(&subject.shadows[allocation], accessor, range, offset)) {
                    self.write_global(block, accessor, range, (allocation, offset), &silent);
                }
            }
            Place::Shared(offset) => {
                let stamp = accessor.stamp.by(range.lane);
                if let Some(defects) = block.shared.write(offset, range.bytes, stamp, accessor.bounds) {
                    let suspect = Suspect { accessor, range, writes: true, silent: &silent };
                    self.defects(block, &defects, offset, &suspect);
                }
            }
            Place::Local(offset) => block.local.write(accessor.at, range, offset),
        }
    }

    fn modify(&mut self, block: &mut Block, at: Position, range: Range, change: Change) {
        match range.place {
            Place::Global { allocation, offset } => {
                let written = &self.report.subject.shadows[allocation].written;
                initialised::check(&mut self.report, written, at, range, (allocation, offset));
            }
            Place::Shared(offset) | Place::Local(offset) => {
                if let Some(defect) = block.shared.usable(offset, range.bytes) {
                    initialised::unusable_shared(&mut self.report, at, range, offset, (defect, true));
                    if matches!(defect, Defect::Outside) {
                        return;
                    }
                }
            }
        }
        let lane = 1 << range.lane;
        self.observe(block, at, change.semantics, range.place, lane);
        let address = self.address(block, range.place);
        let accessor = self.modifier(block, at, address, change);
        if change.changes {
            self.write(block, accessor, range, || false);
        } else {
            self.read(block, accessor, range);
        }
        if change.writes {
            self.publish(block, at, change.semantics, range.place, lane);
        }
    }

    fn copy_starts(
        &mut self,
        block: &mut Block,
        accessor: Accessor,
        to: Range,
        from: Option<(Place, u32)>,
    ) -> Option<Source> {
        let subject = self.report.subject;
        let mut source = None;
        if let Some((Place::Global { allocation, offset }, bytes)) = from {
            let (word, words) = (offset / 4, bytes.div_ceil(4) as usize);
            let histories = &subject.shadows[allocation].histories;
            let mut written_by = [0; 4];
            for (at, writer) in written_by.iter_mut().enumerate().take(words) {
                *writer = histories.last_write(word + at, subject.tag);
            }
            source = Some(Source { allocation, word, written_by, words });
        }
        if let Place::Shared(offset) = to.place {
            let stamp = accessor.stamp.by(to.lane);
            if let Some(defects) = block.shared.begin_copy(offset, to.bytes, stamp, accessor.bounds) {
                let suspect = Suspect { accessor, range: to, writes: true, silent: &|| false };
                self.defects(block, &defects, offset, &suspect);
            }
        }
        source
    }

    fn copy_arrives(
        &mut self,
        block: &mut Block,
        at: Position,
        accessor: Accessor,
        to: Range,
        source: Option<Source>,
    ) {
        if let Some(Source { allocation, word, written_by, words }) = source {
            let subject = self.report.subject;
            let histories = &subject.shadows[allocation].histories;
            let changed = |at: &usize| histories.last_write(word + at, subject.tag) != written_by[*at];
            if let Some(first) = (0..words).find(changed) {
                let (allocation, offset) = (subject.memory.get(allocation), 4 * (word + first) as u64);
                let (kind, address) = (FindingKind::PendingCopy, Some(allocation.base + offset));
                self.report.note(at, to.lane as u32, kind, address, || {
                    let label = &allocation.label;
                    format!(
                        "an asynchronous copy from {label:?} at byte {offset}, which was written before \
                         the copy was waited for"
                    )
                });
            }
        }
        if let Place::Shared(offset) = to.place {
            let (_, bounds) = block.order.plain(at.warp);
            block.shared.end_copy(offset, to.bytes, accessor.stamp.by(to.lane), bounds);
        }
    }

    #[inline]
    fn observe(&mut self, block: &mut Block, at: Position, semantics: Semantics, place: Place, lanes: u32) {
        let signals = self.report.subject.signals;
        if !block.order.quiet() || !signals.quiet() {
            let address = self.address(block, place);
            block.order.observe(signals, at.warp, address, semantics, lanes);
        }
    }

    #[inline]
    fn publish(&mut self, block: &mut Block, at: Position, semantics: Semantics, place: Place, lanes: u32) {
        if matches!(semantics.order, Order::Release | Order::Both) || !block.order.never_fenced(at.warp) {
            let address = self.address(block, place);
            block.order.publish(self.report.subject.signals, at.warp, address, semantics, lanes);
        }
    }

    fn unlock(&mut self, block: &mut Block, at: Position, semantics: Semantics, place: Place) {
        let address = self.address(block, place);
        block.order.note_lock(self.report.subject.signals, at.warp, address, false, semantics);
    }

    fn fence(&mut self, block: &mut Block, at: Position, scope: Scope, lanes: u32) {
        block.order.fence(at.warp, scope, lanes);
    }

    #[inline]
    fn together(&mut self, block: &mut Block, at: Position, lanes: u32, all: bool) {
        block.order.together(at.warp, lanes, all);
    }

    fn arrive(&mut self, block: &mut Block, at: Position, id: u32) {
        block.order.arrive(at.warp, id);
    }

    fn release(&mut self, block: &mut Block, id: u32, waited: &[u32], all: bool) {
        if all {
            block.order.barrier_of_all(id);
        } else {
            block.order.barrier(id, waited);
        }
        self.cost.counters.barriers_completed += 1;
    }

    fn global_traffic(&mut self, addresses: &[u64; LANES], placed: &Placed, bytes: u32, store: bool) {
        self.cost.global_traffic(self.report.subject, addresses, (placed, bytes, store));
    }

    fn shared_traffic(&mut self, addresses: &[u64; LANES], mask: u32, bytes: u32) {
        self.cost.shared_traffic(addresses, mask, bytes);
    }

    fn matrix_rows(&mut self, addresses: &[u64]) {
        self.cost.group(addresses, 4);
    }
}
