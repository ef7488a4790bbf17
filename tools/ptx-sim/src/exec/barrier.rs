//! The sixteen barriers of a block.

use super::block::BlockState;
use super::grid::Worker;
use super::registers::{LANES, store};
use super::warp::{Status, Stop, Warp};
use crate::finding::FindingKind;
use crate::isa::{Barrier, BarrierKind, Reg};
use crate::memory::sync::Knowledge;

/// A warp to wake, and where the result of the reduction goes: kind, register, lanes.
type Waiting = (u32, Option<(BarrierKind, Reg, u32)>);

/// One barrier's arrivals so far.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    pub threads: u32,
    /// None for all threads of the block.
    pub wanted: Option<u32>,
    /// Lanes whose predicate held, and lanes in all.
    pub held: u32,
    pub lanes: u32,
    pub waiting: Vec<Waiting>,
    /// What those knew that arrived without waiting.
    pub arrived: Vec<(u32, Knowledge)>,
    pub pc: u32,
}

/// A warp arrives. Says why it stops, if it does.
pub fn arrive(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &Barrier,
    mask: u32,
    pc: u32,
) -> Option<Stop> {
    let steps = &worker.launch.kernel.steps;
    if !warp.is_whole(mask, steps) {
        let (live, lane) = (warp.live & !warp.leaving(steps), mask.trailing_zeros());
        worker.finding(block, warp, pc, FindingKind::DivergentBarrier, lane, None, || {
            format!("lanes {mask:#010x} of the warp reach the barrier, lanes {:#010x} do not", live & !mask)
        });
        return Some(Stop::Abort);
    }
    let lane = mask.trailing_zeros() as usize;
    let id = warp.word(it.id)[lane];
    let wanted = it.threads.map(|threads| warp.word(threads)[lane]);
    let Some(barrier) = block.barriers.get_mut(id as usize) else {
        worker.finding(block, warp, pc, FindingKind::InvalidAccess, lane as u32, None, || {
            format!("barrier {id}: there are 16")
        });
        return Some(Stop::Abort);
    };
    if wanted.is_some_and(|wanted| wanted == 0 || wanted % LANES as u32 != 0) {
        worker.finding(block, warp, pc, FindingKind::InvalidAccess, lane as u32, None, || {
            "a barrier's thread count that is not a multiple of the warp's size".into()
        });
        return Some(Stop::Abort);
    }
    if barrier.threads == 0 {
        barrier.wanted = wanted;
        (barrier.held, barrier.lanes) = (0, 0);
    }
    barrier.pc = pc;
    barrier.threads += LANES as u32;
    if let Some((p, negated)) = it.value {
        barrier.held += (warp.predicate(p, negated) & mask).count_ones();
    }
    barrier.lanes += mask.count_ones();
    let waits = it.kind != BarrierKind::Arrive;
    if waits {
        let result = it.result.map(|reg| (it.kind, reg, mask));
        barrier.waiting.push((warp.index, result));
        warp.status = Status::Waiting(id);
    } else {
        let knowledge = block.order.arrive(warp.index);
        block.barriers[id as usize].arrived.push((warp.index, knowledge));
    }
    block.arrived.push(id);
    if waits { Some(Stop::Barrier) } else { None }
}

/// Lets the warps of a barrier go on if it is complete.
pub fn release(worker: &mut Worker<'_>, block: &mut BlockState, warps: &mut [Warp], id: u32) -> bool {
    let live = warps.iter().filter(|warp| warp.status != Status::Done).count() as u32 * LANES as u32;
    let barrier = &mut block.barriers[id as usize];
    if barrier.threads == 0 {
        return false;
    }
    let complete = match barrier.wanted {
        Some(wanted) => barrier.threads >= wanted,
        None => barrier.threads >= live,
    };
    if !complete {
        return false;
    }
    let mut done = std::mem::take(barrier);
    let waited: Vec<u32> = done.waiting.iter().map(|(index, _)| *index).collect();
    if done.wanted.is_none() && done.arrived.is_empty() || waited.len() == warps.len() {
        block.order.barrier_of_all();
    } else {
        block.order.barrier(id, &waited, &done.arrived);
    }
    for (index, result) in done.waiting.drain(..) {
        let warp = &mut warps[index as usize];
        warp.status = Status::Ready;
        if let Some((kind, reg, mask)) = result {
            match kind {
                BarrierKind::Count => {
                    store(&mut warp.registers.w[reg.index as usize], &[done.held; LANES], mask);
                }
                BarrierKind::And => {
                    warp.set_predicate(reg.index, if done.held == done.lanes { u32::MAX } else { 0 }, mask);
                }
                _ => warp.set_predicate(reg.index, if done.held > 0 { u32::MAX } else { 0 }, mask),
            }
        }
    }
    block.barriers[id as usize].waiting = done.waiting;
    warps.iter_mut().for_each(|warp| warp.spins = 0);
    block.progress = true;
    worker.counters.barriers_completed += 1;
    true
}
