//! Whether an access may happen now: notes it in the histories of its words, and reports what nothing wrote and races.

use super::block::BlockState;
use super::grid::Worker;
use super::warp::Warp;
use crate::finding::FindingKind;
use crate::isa::{Order, Scope};
use crate::memory::order::{Later, Place, Verdict};
use crate::memory::races::{self, Bounds, Conflict, Use};
use crate::memory::shared::{Defect, Shared};
use crate::memory::space::Allocation;

/// A warp's access, as histories know it, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    pub me: Use,
    pub bounds: Bounds,
    /// A read-modify-write, which has read what it replaces.
    pub modifies: bool,
}

/// Who this warp is, for the histories, in an access of this order.
#[inline(always)]
pub fn who(block: &BlockState, warp: &Warp, order: Order, scope: Scope, waits: bool) -> Who {
    let (me, bounds) = block.order.access(warp.index, order, scope, waits);
    Who { me, bounds, modifies: false }
}

/// The same for a plain access.
#[inline(always)]
pub fn plain(block: &BlockState, warp: &Warp) -> Who {
    let (me, bounds) = block.order.me(warp.index);
    Who { me, bounds, modifies: false }
}

/// Where a race is, for its message.
enum At<'a> {
    Global(&'a Allocation, u64),
    Shared(usize),
}

/// Reports two uses that may conflict if they are a race; `silent`: the write leaves what was there.
#[cold]
fn judge(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    conflict: Conflict,
    who: Who,
    writes: bool,
    silent: &dyn Fn() -> bool,
    at: &At<'_>,
    lane: usize,
    pc: u32,
) -> bool {
    let signals = &worker.launch.signals;
    let new = Later { me: who.me.by(lane), warp: warp.index, writes, reads: !writes || who.modifies };
    let verdict = block.order.judge(signals, conflict, new, silent);
    if verdict != Verdict::Fine {
        report(worker, block, warp, conflict, verdict, writes, at, lane, pc);
    }
    verdict != Verdict::Fine
}

/// Reports a race.
fn report(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    conflict: Conflict,
    verdict: Verdict,
    writes: bool,
    at: &At<'_>,
    lane: usize,
    pc: u32,
) {
    let old = conflict.old;
    let (does, did) = (if writes { "writes" } else { "reads" }, if conflict.read { "read" } else { "wrote" });
    let other_block = old.block() != block.order.id();
    let (kind, address) = match at {
        At::Shared(offset) => (FindingKind::SharedRace, *offset as u64),
        At::Global(_, address) if other_block => (FindingKind::BlockRace, *address),
        At::Global(_, address) => (FindingKind::GlobalRace, *address),
    };
    let place = match at {
        At::Shared(offset) => format!("shared memory at {}", worker.launch.shared_name(*offset)),
        At::Global(allocation, address) => {
            format!("{:?} at byte {}", allocation.label, address - allocation.base)
        }
    };
    let (me, other, missing) = if other_block {
        let other = worker.launch.block_of(u64::from(old.block()));
        let missing = "in the same launch with nothing that orders the two";
        (format!("block {:?}", block.index), format!("block {other:?}"), missing)
    } else if old.warp() != warp.index {
        (format!("warp {}", warp.index), format!("warp {}", old.warp()), "with no barrier between")
    } else if old.lane() != lane || !old.many() {
        (
            format!("lane {lane}"),
            format!("lane {}", old.lane()),
            "with nothing between that synchronises the warp",
        )
    } else {
        (format!("lane {lane}"), "other lanes".into(), "with nothing between that synchronises the warp")
    };
    let missing = match verdict {
        Verdict::NoAcquire => "and published, but no fence follows the read of the flag",
        Verdict::EarlyInLock => "inside the same lock, but with no fence between taking the lock and that",
        _ => missing,
    };
    worker.finding(block, warp, pc, kind, lane as u32, Some(address), || {
        format!("{me} {does} {place}, which {other} {did} {missing}")
    });
}

/// The words of an access and the bytes of each that it uses.
#[inline(always)]
fn words(offset: usize, bytes: u32) -> (usize, usize, u8) {
    if bytes >= 4 {
        (offset / 4, bytes as usize / 4, 15)
    } else {
        (offset / 4, 1, ((1u8 << bytes) - 1) << (offset & 3))
    }
}

/// Reports a global access of bytes that nothing wrote.
#[inline(always)]
pub fn check_written(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    lane: usize,
    pc: u32,
) {
    let (first, count, mask) = words((address - allocation.base) as usize, bytes);
    for word in first..first + count {
        if allocation.written(word) & mask != mask {
            unwritten(worker, block, warp, allocation, address, bytes, lane, pc);
        }
    }
}

#[cold]
fn unwritten(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    lane: usize,
    pc: u32,
) {
    worker.finding(block, warp, pc, FindingKind::Uninitialised, lane as u32, Some(address), || {
        format!(
            "reads {bytes} bytes of {:?} from byte {}, which nothing wrote all of",
            allocation.label,
            address - allocation.base
        )
    });
}

/// Notes and checks one lane's read of global memory.
#[inline(always)]
pub fn check_read(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    who: Who,
    lane: usize,
    pc: u32,
) {
    check_written(worker, block, warp, allocation, address, bytes, lane, pc);
    let (first, count, mask) = words((address - allocation.base) as usize, bytes);
    let (me, mut reported) = (who.me.by(lane), false);
    for word in first..first + count {
        if mask == 15
            && allocation.history(word).is_some_and(|mut h| races::plain_read(&mut h, me, who.bounds))
        {
            continue;
        }
        allocation.histories(word, mask, me.tag(), |history| {
            for conflict in races::read(history, me, who.bounds).into_iter().flatten() {
                if !reported {
                    let at = At::Global(allocation, address);
                    reported = judge(worker, block, warp, conflict, who, false, &|| false, &at, lane, pc);
                }
            }
        });
    }
}

/// Notes and checks one lane's write; `silent`: it leaves what was there.
#[inline(always)]
pub fn check_write(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    who: Who,
    silent: impl Fn() -> bool,
    lane: usize,
    pc: u32,
) {
    let (first, count, mask) = words((address - allocation.base) as usize, bytes);
    let (me, mut reported) = (who.me.by(lane), false);
    for word in first..first + count {
        allocation.set_written(word, mask);
        if mask == 15
            && allocation.history(word).is_some_and(|mut h| races::plain_write(&mut h, me, who.bounds))
        {
            continue;
        }
        allocation.histories(word, mask, me.tag(), |history| {
            for conflict in races::write(history, me, who.bounds).into_iter().flatten() {
                if !reported {
                    let at = At::Global(allocation, address);
                    reported = judge(worker, block, warp, conflict, who, true, &silent, &at, lane, pc);
                }
            }
        });
    }
}

/// Reports a read through the read-only cache of what this launch wrote.
pub fn check_read_only(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    lane: usize,
    pc: u32,
) {
    let (first, count, mask) = words((address - allocation.base) as usize, bytes);
    let tag = worker.launch.tag;
    let mut writer = None;
    for word in first..first + count {
        allocation.histories(word, mask, tag, |history| writer = writer.or(races::written_in(history, tag)));
    }
    let Some(writer) = writer else { return };
    let other = worker.launch.block_of(u64::from(writer.block()));
    let near = writer.block() == block.order.id();
    let kind = if near { FindingKind::GlobalRace } else { FindingKind::BlockRace };
    worker.finding(block, warp, pc, kind, lane as u32, Some(address), || {
        format!(
            "reads {:?} at byte {} through the read-only cache, which block {other:?} wrote in the same launch",
            allocation.label,
            address - allocation.base
        )
    });
}

/// Notes and checks one lane's read of shared memory.
#[inline(always)]
pub fn shared_read(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    offset: usize,
    bytes: u32,
    who: Who,
    lane: usize,
    pc: u32,
) {
    if let Some(defects) = block.shared.read(offset, bytes, who.me.by(lane), who.bounds) {
        shared_defects(worker, block, warp, &defects, offset, bytes, who, false, &|| false, lane, pc);
    }
}

/// Notes and checks one lane's write of shared memory; `silent`: it leaves what is there.
#[inline(always)]
pub fn shared_write(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    offset: usize,
    bytes: u32,
    who: Who,
    silent: impl Fn(&Shared) -> bool,
    lane: usize,
    pc: u32,
) {
    if let Some(defects) = block.shared.write(offset, bytes, who.me.by(lane), who.bounds) {
        let silent = silent(&block.shared);
        shared_defects(worker, block, warp, &defects, offset, bytes, who, true, &|| silent, lane, pc);
    }
}

/// Reports the first thing that is wrong with an access.
#[cold]
pub fn shared_defects(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    defects: &[Defect],
    offset: usize,
    bytes: u32,
    who: Who,
    writes: bool,
    silent: &dyn Fn() -> bool,
    lane: usize,
    pc: u32,
) {
    for defect in defects {
        match defect {
            Defect::Conflict(conflict) => {
                let at = At::Shared(offset);
                if judge(worker, block, warp, *conflict, who, writes, silent, &at, lane, pc) {
                    return;
                }
            }
            defect => return shared_content(worker, block, warp, *defect, offset, bytes, writes, lane, pc),
        }
    }
}

/// Reports shared memory that holds nothing yet.
#[cold]
pub fn shared_content(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    defect: Defect,
    offset: usize,
    bytes: u32,
    writes: bool,
    lane: usize,
    pc: u32,
) {
    let does = if writes { "writes" } else { "reads" };
    let name = worker.launch.shared_name(offset);
    let (kind, message) = match defect {
        Defect::Pending => (
            FindingKind::PendingCopy,
            format!(
                "{does} {bytes} bytes of shared memory at {name} that an asynchronous copy is still to fill"
            ),
        ),
        _ => (
            FindingKind::Uninitialised,
            format!("reads {bytes} bytes of shared memory at {name}, which nothing wrote all of"),
        ),
    };
    worker.finding(block, warp, pc, kind, lane as u32, Some(offset as u64), || message);
}

/// Whether an atomic operation can learn or publish anything: its lanes then do so one after the other.
pub fn talks(worker: &Worker<'_>, block: &BlockState, warp: &Warp, order: Order) -> bool {
    matches!(order, Order::Release | Order::Both)
        || !block.order.quiet()
        || !block.order.never_fenced(warp.index)
        || !worker.launch.signals.quiet()
}

/// An atomic read of addresses: learns what was published there.
pub fn observe(
    worker: &Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    places: impl IntoIterator<Item = (usize, Place)>,
    order: Order,
    scope: Scope,
) {
    let signals = &worker.launch.signals;
    if block.order.quiet() && signals.quiet() {
        return;
    }
    for (lane, place) in places {
        block.order.observe(signals, warp.index, place, order, scope, 1 << lane);
    }
}

/// An atomic write of addresses: publishes what was fenced before, or everything if it is a release.
pub fn publish(
    worker: &Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    places: impl IntoIterator<Item = (usize, Place)>,
    order: Order,
    scope: Scope,
) {
    if !matches!(order, Order::Release | Order::Both) && block.order.never_fenced(warp.index) {
        return;
    }
    for (lane, place) in places {
        block.order.publish(&worker.launch.signals, warp.index, place, order, scope, 1 << lane);
    }
}
