//! The loop that runs a warp: one instruction after the other.

use super::launch::LaunchState;
use super::site::{BlockState, Site, Worker};
use super::warp::{Standing, Warp};
use super::{async_copy, atomic, barrier, fragment, host, matrix, mbarrier, memory, misc, together};
use crate::isa::{Guard, Op, Step};
use crate::lanes::lanes;
use crate::monitor::{Fault, Monitor};

/// Runs a warp for up to `turn` instructions, and says how it stands then.
pub fn run<M: Monitor>(
    launch: &LaunchState<'_>,
    worker: &mut Worker<M>,
    block: &mut BlockState<M>,
    warp: &mut Warp,
    turn: u32,
) -> Standing {
    let steps: &[Step] = &launch.kernel.steps;
    let fast = launch.fast;
    let mut left = turn;
    loop {
        if !warp.settle() {
            block.progress = true;
            return Standing::Done;
        }
        if left == 0 {
            return Standing::Ready;
        }
        left -= 1;
        let pc = warp.pc;
        // Only a path that ends with the last instruction gets beyond it.
        let Some(step) = steps.get(pc as usize) else { return Standing::Done };
        let mask = guarded(warp, step.guard);
        warp.ticks += 1;
        worker.monitor.issue(pc, mask.count_ones());
        warp.pc = pc + 1;
        if mask == 0 {
            continue;
        }
        let r = &mut warp.registers;
        match &step.op {
            Op::Unary(op, at) => op.run(r, *at, mask, fast),
            Op::Binary(op, at) => op.run(r, *at, mask, fast),
            Op::Ternary(op, at) => op.run(r, *at, mask, fast),
            Op::Compare(op, [p, a, b]) => {
                let bits = op.run(r, [*a, *b], fast);
                warp.set_predicate(*p, bits, mask);
            }
            Op::Branch(target, join) => {
                if mask == warp.mask {
                    warp.pc = *target;
                } else {
                    warp.diverge(mask, *target, pc + 1, *join);
                }
            }
            Op::BranchTable(table) => {
                if !warp.spread(table, mask) {
                    return Standing::Done;
                }
            }
            Op::Exit => {
                if warp.exit(mask) && !warp.pop() {
                    block.progress = true;
                    return Standing::Done;
                }
            }
            op => {
                let mut site = Site { launch, worker, block, warp, pc, mask };
                match execute(&mut site, op) {
                    Standing::Ready if std::mem::take(&mut warp.yields) => left = 0,
                    Standing::Ready => {}
                    standing => return standing,
                }
            }
        }
    }
}

/// The lanes of the path for which a guard holds.
#[inline(always)]
fn guarded(warp: &Warp, guard: Guard) -> u32 {
    if guard == Guard::ALWAYS {
        return warp.mask;
    }
    let bits = warp.registers.p[(guard.0 >> 1) as usize];
    warp.mask & (bits ^ (guard.0 & 1).wrapping_neg())
}

/// Executes an instruction that does more than arithmetic; how the warp stands after it.
#[inline(always)]
fn execute<M: Monitor>(site: &mut Site<'_, M>, op: &Op) -> Standing {
    match op {
        Op::Load(access) => memory::load(site, access),
        Op::Store(access) => memory::store(site, access),
        Op::Atomic(it) => atomic::run(site, it),
        Op::Mbarrier(it) => mbarrier::run(site, it),
        Op::PendingCount(d, a) => mbarrier::pending_count(site.warp, [*d, *a], site.mask),
        Op::Fence(scope) => {
            let (at, lanes) = (site.position(), site.mask);
            site.worker.monitor.fence(&mut site.block.watched, at, *scope, lanes);
        }
        Op::Barrier(it) => return barrier::arrive(site, it),
        Op::WarpBarrier(members) => {
            let row = site.warp.registers.w[*members as usize];
            together::barrier(site, &row);
        }
        Op::Shuffle(it) => together::shuffle(site, it),
        Op::Vote(it) => together::vote(site, it),
        Op::Match(it) => together::matching(site, it),
        Op::Reduce(it) => together::reduce(site, it),
        Op::Elect(it) => together::elect(site, it),
        Op::CopyAsync(it) => async_copy::start(site, it),
        Op::CopyCommit => commit(site.warp, site.mask),
        Op::CopyWait(Some(groups)) => async_copy::wait(site, *groups),
        Op::CopyWait(None) => {
            commit(site.warp, site.mask);
            async_copy::wait(site, 0);
        }
        Op::MatrixLoad(it) => matrix::load(site, it),
        Op::MatrixStore(it) => matrix::store(site, it),
        Op::MatrixMultiply(it) => matrix::multiply(site, it),
        Op::Product(it) => fragment::multiply(site, it),
        Op::FragmentMove(it) => fragment::transfer(site, it),
        Op::Host(call) => {
            if !host::run(site, call) {
                return Standing::Aborted;
            }
        }
        Op::Trap => {
            site.fault(site.first(), None, Fault::Trap);
            return Standing::Aborted;
        }
        op => misc::run(site.warp, op, site.mask, site.block.ticks + site.warp.ticks),
    }
    Standing::Ready
}

/// The copies that lanes have made since the last time are a group.
fn commit(warp: &mut Warp, mask: u32) {
    for lane in lanes(mask) {
        warp.groups[lane] += 1;
    }
}
