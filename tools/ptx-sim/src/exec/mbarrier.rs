//! Barriers in shared memory: eight bytes that count arrivals, phase after phase.
//!
//! What they order is in two functions, [`arrived`] and [`waited`].

use super::async_copy;
use super::memory::{self, by_space};
use super::site::Site;
use super::warp::Warp;
use crate::isa::{Mbarrier, MbarrierKind, Order, Scope, Space};
use crate::lanes::{LANES, lanes, row};
use crate::monitor::{Event, Fault, Monitor, Place, Semantics};

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

/// A phase of the barrier at `offset`, as a place to publish at: each of the two has its own.
fn place_of(offset: u64, phase: u64) -> Place {
    Place::Shared((offset & !7 | phase & 1) as usize)
}

/// How a barrier's own bytes are accessed, and what its phases order.
fn semantics(order: Order) -> Semantics {
    Semantics { order, scope: Scope::Block, waits: true }
}

fn phase<M: Monitor>(site: &Site<'_, M>, offset: u64) -> u64 {
    site.block.shared.get(offset as usize & !7, 8) >> 63
}

/// Lanes arrived at a barrier and release what came before.
fn arrived<M: Monitor>(site: &mut Site<'_, M>, offset: u64, lanes: u32) {
    let place = place_of(offset, phase(site, offset));
    site.publish(semantics(Order::Release), place, lanes);
    site.block.progress = true;
}

/// Lanes saw a phase complete: they know what those knew who arrived in it.
fn waited<M: Monitor>(site: &mut Site<'_, M>, offset: u64, lanes: u32) {
    let place = place_of(offset, phase(site, offset) ^ 1);
    site.observe(semantics(Order::Acquire), place, lanes);
    site.block.progress = true;
}

/// The copies that a completed phase waited for have arrived, as of when their threads arrived.
fn land<M: Monitor>(site: &mut Site<'_, M>, offset: u64) {
    let landing = std::mem::take(&mut site.block.landing);
    let (landed, others): (Vec<_>, Vec<_>) = landing.into_iter().partition(|copy| copy.0 == offset);
    site.block.landing = others;
    for (_, access, copy) in landed {
        async_copy::arrive(site, access, copy);
    }
}

fn wrong<M: Monitor>(site: &mut Site<'_, M>, lane: usize, offset: u64, what: &str) {
    site.fault(lane, Some(offset), Fault::InvalidMbarrier(what));
}

/// An `mbarrier` instruction for the lanes of the site.
pub fn run<M: Monitor>(site: &mut Site<'_, M>, it: &Mbarrier) {
    let addresses = site.warp.addresses(&it.address);
    let operands = it.operand.map_or([1; LANES], |reg| site.warp.wide(reg));
    let mut results = [0u64; LANES];
    by_space(it.space, &addresses, site.mask, |space, addresses, mask| {
        if space != Space::Shared {
            let lane = mask.trailing_zeros() as usize;
            let fault = Fault::Invalid("an mbarrier that does not lie in shared memory");
            return site.fault(lane, Some(addresses[lane]), fault);
        }
        let mask = memory::shared_place(site, addresses, mask, 8, "an mbarrier operation");
        let mut complete = 0;
        for lane in lanes(mask) {
            results[lane] = one_lane(site, it, lane, addresses[lane], operands[lane]);
            complete |= (results[lane] as u32 & 1) << lane;
        }
        let offset = addresses[mask.trailing_zeros() as usize & 31];
        match it.kind {
            MbarrierKind::Test | MbarrierKind::TestParity if complete & mask == 0 => {
                let state = site.block.shared.get(offset as usize & !7, 8);
                site.warp.note_wait(site.pc, offset, state);
            }
            MbarrierKind::Test | MbarrierKind::TestParity => {
                if it.acquires {
                    waited(site, offset, complete & mask);
                }
            }
            _ => site.block.progress = true,
        }
    });
    if let Some(result) = it.result {
        site.warp.set(result, &results, site.mask);
    }
}

/// One lane's operation; the state before it, or whether the phase is complete.
fn one_lane<M: Monitor>(
    site: &mut Site<'_, M>,
    it: &Mbarrier,
    lane: usize,
    offset: u64,
    operand: u64,
) -> u64 {
    use MbarrierKind::{
        Arrive, ArriveDrop, ArriveExpect, ArriveNoComplete, CompleteBytes, CopiesArrive,
        CopiesArriveIncrement, Expect, Init, Invalidate, Test, TestParity,
    };
    let place = offset as usize;
    if it.kind == Init {
        if operand == 0 || operand > COUNT {
            wrong(site, lane, offset, &format!("a count of {operand}; 1 to {COUNT} belong there"));
        }
        let access = site.access(Semantics::WEAK);
        site.write_shared(access, lane, place, 8);
        site.block.shared.put(place, 8, Word::new(operand).0);
        return 0;
    }
    let access = site.access(semantics(Order::Relaxed));
    site.read_shared(access, lane, place, 8);
    let old = Word(site.block.shared.get(place, 8));
    if old.0 & VALID == 0 {
        wrong(site, lane, offset, "used without mbarrier.init, or after mbarrier.inval");
        return 0;
    }
    let (count, pending, bytes) = (old.count(), old.pending(), old.bytes());
    let new = match it.kind {
        Test => return u64::from((operand ^ old.0) & PHASE != 0),
        TestParity => return u64::from(old.0 >> 63 != operand & 1),
        Invalidate => Word(0),
        Expect => old.with(count, pending, bytes + operand as i64),
        CompleteBytes => old.with(count, pending, bytes - operand as i64),
        CopiesArriveIncrement => old,
        Init | Arrive | ArriveNoComplete | ArriveDrop | ArriveExpect | CopiesArrive => {
            let many = matches!(it.kind, Arrive | ArriveDrop | ArriveNoComplete);
            let arrivals = if many { operand } else { 1 };
            if arrivals > pending || arrivals == 0 {
                let what = format!("{arrivals} arrivals where the phase waits for {pending}");
                wrong(site, lane, offset, &what);
            }
            let expected = if it.kind == ArriveExpect { operand as i64 } else { 0 };
            let left = if it.kind == ArriveDrop { count.saturating_sub(arrivals) } else { count };
            old.with(left, pending.saturating_sub(arrivals), bytes + expected)
        }
    };
    if matches!(it.kind, CopiesArrive | CopiesArriveIncrement) {
        track(site, lane, offset);
    }
    finish(site, it, lane, offset, new);
    old.0
}

/// Stores the new state, and turns to the next phase if this one is complete.
fn finish<M: Monitor>(site: &mut Site<'_, M>, it: &Mbarrier, lane: usize, offset: u64, new: Word) {
    if it.releases {
        arrived(site, offset, 1 << lane);
    }
    // A copy that counts for itself leaves the number of arrivals as it was, and cannot be the last.
    let counts = !matches!(it.kind, MbarrierKind::Invalidate | MbarrierKind::CopiesArriveIncrement);
    let (new, complete) = if counts && new.0 & VALID != 0 { new.settled() } else { (new, false) };
    if complete && it.kind == MbarrierKind::ArriveNoComplete {
        wrong(site, lane, offset, "an arrival that may not complete the phase completes it");
    }
    let access = site.access(semantics(Order::Relaxed));
    site.write_shared(access, lane, offset as usize, 8);
    site.block.shared.put(offset as usize, 8, new.0);
    if complete {
        land(site, offset);
        site.event(Event::BarrierCompleted);
    }
}

/// From here on the barrier at `offset` waits for the lane's copies.
fn track<M: Monitor>(site: &mut Site<'_, M>, lane: usize, offset: u64) {
    let access = site.access(Semantics::WEAK);
    arrived(site, offset, 1 << lane);
    let copies = &mut site.block.copies[site.warp.index as usize];
    let (tracked, others): (Vec<_>, Vec<_>) =
        std::mem::take(copies).into_iter().partition(|copy| copy.to.lane == lane);
    *copies = others;
    site.block.landing.extend(tracked.into_iter().map(|copy| (offset, access, copy)));
}

/// `mbarrier.pending_count`: arrivals a state still waits for.
pub fn pending_count(warp: &mut Warp, [result, state]: [u32; 2], mask: u32) {
    let states = &warp.registers.d[state as usize];
    let counts = row(|lane| Word(states[lane]).pending() as u32);
    warp.set_word(result, &counts, mask);
}
