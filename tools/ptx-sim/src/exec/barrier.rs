//! The sixteen barriers of a block.

use super::site::{BlockState, Site, Worker};
use super::warp::{Standing, Warp};
use crate::isa::{Barrier, BarrierKind};
use crate::lanes::LANES;
use crate::monitor::{Fault, Monitor};

/// A warp arrives: how it stands then.
pub fn arrive<M: Monitor>(site: &mut Site<'_, M>, it: &Barrier) -> Standing {
    let (mask, lane) = (site.mask, site.first());
    let steps = &site.launch.kernel.steps;
    if !site.warp.is_whole(mask, steps) {
        let missing = site.warp.live & !site.warp.leaving(steps) & !mask;
        site.fault(lane, None, Fault::DividedAtBarrier { here: mask, missing });
        return Standing::Aborted;
    }
    let id = site.warp.word(it.id)[lane];
    let wanted = it.threads.map(|threads| site.warp.word(threads)[lane]);
    let Some(barrier) = site.block.barriers.get_mut(id as usize) else {
        site.fault(lane, None, Fault::NoBarrier { id });
        return Standing::Aborted;
    };
    if wanted.is_some_and(|wanted| wanted == 0 || wanted % LANES as u32 != 0) {
        let what = "a barrier's thread count that is not a multiple of the warp's size";
        site.fault(lane, None, Fault::Invalid(what));
        return Standing::Aborted;
    }
    if barrier.threads == 0 {
        barrier.wanted = wanted;
        (barrier.held, barrier.lanes) = (0, 0);
    }
    barrier.pc = site.pc;
    barrier.threads += LANES as u32;
    if let Some((p, negated)) = it.value {
        barrier.held += (site.warp.predicate(p, negated) & mask).count_ones();
    }
    barrier.lanes += mask.count_ones();
    let standing = if it.kind == BarrierKind::Arrive {
        barrier.passed = true;
        let at = site.position();
        site.worker.monitor.arrive(&mut site.block.watched, at, id);
        Standing::Ready
    } else {
        let result = it.result.map(|reg| (it.kind, reg, mask));
        barrier.waiting.push((site.warp.index, result));
        Standing::Waiting(id)
    };
    site.block.arrived.push(id);
    standing
}

/// Lets the warps of a barrier go on if it is complete.
pub fn release<M: Monitor>(worker: &mut Worker<M>, block: &mut BlockState<M>, warps: &mut [Warp], id: u32) {
    let live = warps.iter().filter(|warp| warp.standing != Standing::Done).count() * LANES;
    let barrier = &mut block.barriers[id as usize];
    if barrier.threads == 0 || barrier.threads < barrier.wanted.unwrap_or(live as u32) {
        return;
    }
    let mut done = std::mem::take(barrier);
    let waited: Vec<u32> = done.waiting.iter().map(|(index, _)| *index).collect();
    let all = done.wanted.is_none() && !done.passed || waited.len() == warps.len();
    worker.monitor.release(&mut block.watched, id, &waited, all);
    let every = |yes: bool| if yes { u32::MAX } else { 0 };
    for (index, result) in done.waiting.drain(..) {
        let warp = &mut warps[index as usize];
        warp.standing = Standing::Ready;
        match result {
            Some((BarrierKind::Count, reg, mask)) => warp.set_word(reg.index, &[done.held; LANES], mask),
            Some((BarrierKind::And, reg, mask)) => {
                warp.set_predicate(reg.index, every(done.held == done.lanes), mask);
            }
            Some((_, reg, mask)) => warp.set_predicate(reg.index, every(done.held > 0), mask),
            None => {}
        }
    }
    // Its memory is used again.
    block.barriers[id as usize].waiting = done.waiting;
    warps.iter_mut().for_each(|warp| warp.spins = 0);
    block.progress = true;
}
