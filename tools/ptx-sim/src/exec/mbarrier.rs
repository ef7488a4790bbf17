//! Barriers in shared memory: eight bytes that count arrivals, phase after phase.
//!
//! What they order is in two functions, [`arrived`] and [`waited`].

use super::async_copy;
use super::block::BlockState;
use super::check;
use super::grid::Worker;
use super::memory::{self, by_space};
use super::registers::{LANES, lanes};
use super::warp::{Pending, Warp};
use crate::finding::FindingKind;
use crate::isa::{Mbarrier, MbarrierKind, Order, Scope, Space};
use crate::memory::order::Place;
use crate::memory::races::Use;

/// How the eight bytes are used here; PTX leaves it open.
const PHASE: u64 = 1 << 63;
const VALID: u64 = 1 << 62;
/// Arrivals a phase takes, and those it still waits for.
const COUNT: u64 = (1 << 20) - 1;
const PENDING: u32 = 20;
/// Bytes still to come, in two's complement.
const BYTES: u32 = 40;
const BYTE_BITS: u32 = 22;

/// Of a state: the phase it was in, and arrivals still to come.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn new(count: u64) -> Self {
        Self(VALID | (count & COUNT) << PENDING | count & COUNT)
    }

    fn count(self) -> u64 {
        self.0 & COUNT
    }

    fn pending(self) -> u64 {
        self.0 >> PENDING & COUNT
    }

    fn bytes(self) -> i64 {
        ((self.0 >> BYTES) << (64 - BYTE_BITS)) as i64 >> (64 - BYTE_BITS)
    }

    fn with(self, count: u64, pending: u64, bytes: i64) -> Self {
        let bytes = bytes as u64 & ((1 << BYTE_BITS) - 1);
        Self(self.0 & (PHASE | VALID) | bytes << BYTES | pending << PENDING | count)
    }

    /// The next phase, if this one is complete.
    fn settled(self) -> (Self, bool) {
        if self.pending() > 0 || self.bytes() != 0 {
            return (self, false);
        }
        (Self(self.0 ^ PHASE).with(self.count(), self.count(), 0), true)
    }
}

/// A copy that an mbarrier waits for: where the barrier lies, who made it, the copy.
pub type Landing = (u64, Use, Pending);

/// A phase of the barrier at `offset`, as a place to publish at: each of the two has its own.
fn place_of(block: &BlockState, offset: u64, phase: u64) -> Place {
    Place::shared(offset & !7 | phase & 1, block.order.id())
}

fn phase(block: &BlockState, offset: u64) -> u64 {
    block.shared.get(offset as usize & !7, 8) >> 63
}

/// The lanes of a warp arrived at a barrier and release what came before.
fn arrived(worker: &Worker<'_>, block: &mut BlockState, warp: &Warp, offset: u64, lanes: u32) {
    let place = place_of(block, offset, phase(block, offset));
    let (signals, order) = (&worker.launch.signals, Order::Release);
    block.order.publish(signals, warp.index, place, order, Scope::Block, lanes);
    block.progress = true;
}

/// The lanes of a warp saw a phase complete: they know what those knew who arrived in it.
fn waited(worker: &Worker<'_>, block: &mut BlockState, warp: &Warp, offset: u64, lanes: u32) {
    let place = place_of(block, offset, phase(block, offset) ^ 1);
    let (signals, order) = (&worker.launch.signals, Order::Acquire);
    block.order.observe(signals, warp.index, place, order, Scope::Block, lanes);
    block.progress = true;
}

/// The copies that a completed phase waited for have arrived, as of when their threads arrived.
fn land(worker: &mut Worker<'_>, block: &mut BlockState, warp: &Warp, offset: u64, pc: u32) {
    let (landed, others) = std::mem::take(&mut block.landing).into_iter().partition(|copy| copy.0 == offset);
    block.landing = others;
    let landed: Vec<Landing> = landed;
    for (_, who, copy) in landed {
        async_copy::arrive(worker, block, warp, &copy, who, pc);
    }
}

/// The copies of `lanes` that `wait_group` waits for, of those an mbarrier tracks too.
pub fn wait_group(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    lanes: u32,
    kept: u32,
    pc: u32,
) {
    if block.landing.is_empty() {
        return;
    }
    let groups = warp.groups;
    let mine = |(_, who, copy): &Landing| {
        let lane = copy.lane as usize;
        who.warp() == warp.index && lanes >> lane & 1 != 0 && copy.group.saturating_add(kept) < groups[lane]
    };
    let (landed, others): (Vec<_>, Vec<_>) = std::mem::take(&mut block.landing).into_iter().partition(mine);
    block.landing = others;
    for (_, _, copy) in landed {
        let who = check::plain(block, warp).me.by(copy.lane as usize);
        async_copy::arrive(worker, block, warp, &copy, who, pc);
    }
}

fn wrong(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    lane: usize,
    offset: u64,
    pc: u32,
    what: &str,
) {
    let name = worker.launch.shared_name(offset as usize);
    worker.finding(block, warp, pc, FindingKind::InvalidAccess, lane as u32, Some(offset), || {
        format!("mbarrier at {name} of shared memory: {what}")
    });
}

pub fn run(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &Mbarrier,
    mask: u32,
    pc: u32,
) {
    let addresses = warp.addresses(&it.address);
    let operands = it.operand.map_or([1; LANES], |reg| warp.wide(reg));
    let mut results = [0u64; LANES];
    by_space(it.space, &addresses, mask, |space, addresses, mask| {
        if space != Space::Shared {
            let lane = mask.trailing_zeros();
            worker.finding(
                block,
                warp,
                pc,
                FindingKind::InvalidAccess,
                lane,
                Some(addresses[lane as usize]),
                || "an mbarrier that does not lie in shared memory".into(),
            );
            return;
        }
        let mask = memory::shared_place(worker, block, warp, addresses, mask, 8, pc, "an mbarrier operation");
        let mut complete = 0;
        for lane in lanes(mask) {
            results[lane] = one_lane(worker, block, warp, it, addresses[lane], operands[lane], lane, pc);
            complete |= (results[lane] as u32 & 1) << lane;
        }
        let lane = mask.trailing_zeros() as usize & 31;
        match it.kind {
            MbarrierKind::Test | MbarrierKind::TestParity if complete & mask == 0 => {
                warp.note_wait(pc, addresses[lane], block.shared.get(addresses[lane] as usize & !7, 8));
            }
            MbarrierKind::Test | MbarrierKind::TestParity => {
                if it.acquires {
                    waited(worker, block, warp, addresses[lane], complete & mask);
                }
            }
            _ => block.progress = true,
        }
    });
    if let Some(result) = it.result {
        warp.set(result, &results, mask);
    }
}

/// One lane's operation; the state before it, or whether the phase is complete.
fn one_lane(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &Mbarrier,
    offset: u64,
    operand: u64,
    lane: usize,
    pc: u32,
) -> u64 {
    use MbarrierKind::{
        Arrive, ArriveDrop, ArriveExpect, ArriveNoComplete, CompleteBytes, CopiesArrive,
        CopiesArriveIncrement, Expect, Init, Invalidate, Test, TestParity,
    };
    let place = offset as usize;
    if it.kind == Init {
        if operand == 0 || operand > COUNT {
            wrong(
                worker,
                block,
                warp,
                lane,
                offset,
                pc,
                &format!("a count of {operand}; 1 to {COUNT} belong there"),
            );
        }
        let who = check::plain(block, warp);
        check::shared_write(worker, block, warp, place, 8, who, |_| false, lane, pc);
        block.shared.put(place, 8, Word::new(operand).0);
        return 0;
    }
    let who = check::who(block, warp, Order::Relaxed, Scope::Block, true);
    check::shared_read(worker, block, warp, place, 8, who, lane, pc);
    let old = Word(block.shared.get(place, 8));
    if old.0 & VALID == 0 {
        wrong(worker, block, warp, lane, offset, pc, "used without mbarrier.init, or after mbarrier.inval");
        return 0;
    }
    let (count, pending, bytes) = (old.count(), old.pending(), old.bytes());
    let arrivals = if matches!(it.kind, Arrive | ArriveDrop | ArriveNoComplete) { operand } else { 1 };
    let new = match it.kind {
        Test => return u64::from((operand ^ old.0) & PHASE != 0),
        TestParity => return u64::from(old.0 >> 63 != operand & 1),
        Invalidate => Word(0),
        Expect => old.with(count, pending, bytes + operand as i64),
        CompleteBytes => old.with(count, pending, bytes - operand as i64),
        CopiesArriveIncrement => old,
        Init | Arrive | ArriveNoComplete | ArriveDrop | ArriveExpect | CopiesArrive => {
            if arrivals > pending || arrivals == 0 {
                let what = format!("{arrivals} arrivals where the phase waits for {pending}");
                wrong(worker, block, warp, lane, offset, pc, &what);
            }
            let expected = if it.kind == ArriveExpect { operand as i64 } else { 0 };
            let left = if it.kind == ArriveDrop { count.saturating_sub(arrivals) } else { count };
            old.with(left, pending.saturating_sub(arrivals), bytes + expected)
        }
    };
    if matches!(it.kind, CopiesArrive | CopiesArriveIncrement) {
        track(worker, block, warp, offset, lane);
    }
    finish(worker, block, warp, it, new, offset, lane, pc);
    old.0
}

/// Stores the new state, and turns to the next phase if this one is complete.
fn finish(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    it: &Mbarrier,
    new: Word,
    offset: u64,
    lane: usize,
    pc: u32,
) {
    if it.releases {
        arrived(worker, block, warp, offset, 1 << lane);
    }
    // A copy that counts for itself leaves the number of arrivals as it was, and cannot be the last.
    let counts = !matches!(it.kind, MbarrierKind::Invalidate | MbarrierKind::CopiesArriveIncrement);
    let (new, complete) = if counts && new.0 & VALID != 0 { new.settled() } else { (new, false) };
    if complete && it.kind == MbarrierKind::ArriveNoComplete {
        wrong(
            worker,
            block,
            warp,
            lane,
            offset,
            pc,
            "an arrival that may not complete the phase completes it",
        );
    }
    let who = check::who(block, warp, Order::Relaxed, Scope::Block, true);
    check::shared_write(worker, block, warp, offset as usize, 8, who, |_| false, lane, pc);
    block.shared.put(offset as usize, 8, new.0);
    if complete {
        land(worker, block, warp, offset, pc);
        worker.counters.barriers_completed += 1;
    }
}

/// From here on the barrier at `offset` waits for the lane's copies.
fn track(worker: &Worker<'_>, block: &mut BlockState, warp: &mut Warp, offset: u64, lane: usize) {
    let who = check::plain(block, warp).me.by(lane);
    arrived(worker, block, warp, offset, 1 << lane);
    let (mine, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut warp.pending).into_iter().partition(|copy| copy.lane as usize == lane);
    warp.pending = others;
    block.landing.extend(mine.into_iter().map(|copy| (offset, who, copy)));
}

/// What `mbarrier.pending_count` finds in a state.
pub fn pending_count(state: u64) -> u32 {
    Word(state).pending() as u32
}
