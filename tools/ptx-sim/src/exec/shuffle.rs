//! Shuffles, votes, matches and reductions over the lanes of a warp.

use super::block::BlockState;
use super::grid::Worker;
use super::registers::{LANES, RowW, lanes, store};
use super::warp::Warp;
use crate::finding::FindingKind;
use crate::isa::{AtomicKind, Match, Reduce, Shuffle, ShuffleMode, Vote, VoteMode};

/// Lanes that are named as members must take part unless they exited, and those that take part must be members. They
/// synchronise.
pub fn check_members(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    members: &RowW,
    mask: u32,
    pc: u32,
) {
    let steps = &worker.launch.kernel.steps;
    let first = members[mask.trailing_zeros() as usize & 31];
    if mask == warp.live && first & mask == mask && *members == [first; LANES] {
        return block.order.together(warp.index, mask, true);
    }
    let live = warp.live & !warp.leaving(steps) | mask;
    let wrong =
        lanes(mask).find(|lane| members[*lane] & live & !mask != 0 || members[*lane] >> lane & 1 == 0);
    if let Some(lane) = wrong {
        let named = members[lane];
        worker.finding(block, warp, pc, FindingKind::DivergentWarp, lane as u32, None, || {
            format!("members {named:#010x} but the lanes that execute this together are {mask:#010x}")
        });
    }
    let mut rest = mask;
    while rest != 0 {
        let named = members[rest.trailing_zeros() as usize];
        let group =
            lanes(rest).filter(|lane| members[*lane] == named).fold(0, |bits, lane| bits | 1u32 << lane);
        block.order.together(warp.index, group, group == live);
        rest &= !group;
    }
}

pub fn shuffle(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &Shuffle,
    mask: u32,
    pc: u32,
) {
    if let Some(members) = it.members {
        let members = *warp.word(members);
        check_members(worker, block, warp, &members, mask, pc);
    }
    let (values, by, clamp) = (*warp.word(it.value), *warp.word(it.lane), *warp.word(it.clamp));
    let (mut t, mut inside) = ([0; LANES], 0u32);
    for lane in 0..LANES as u32 {
        let (by, clamp) = (by[lane as usize] & 31, clamp[lane as usize]);
        let segment = clamp >> 8 & 31;
        let most = lane & segment | clamp & 31 & !segment;
        let least = lane & segment;
        let (from, ok) = match it.mode {
            ShuffleMode::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= most as i32),
            ShuffleMode::Down => (lane + by, lane + by <= most),
            ShuffleMode::Butterfly => (lane ^ by, lane ^ by <= most),
            ShuffleMode::Index => {
                let from = least | by & !segment;
                (from, from <= most)
            }
        };
        let from = if ok { from } else { lane };
        t[lane as usize] = values[from as usize & 31];
        inside |= u32::from(ok) << lane;
    }
    if let Some(result) = it.result {
        store(&mut warp.registers.w[result.index as usize], &t, mask);
    }
    if let Some(p) = it.inside {
        warp.set_predicate(p.index, inside, mask);
    }
}

pub fn vote(worker: &mut Worker<'_>, block: &mut BlockState, warp: &mut Warp, it: &Vote, mask: u32, pc: u32) {
    if let Some(members) = it.members {
        let members = *warp.word(members);
        check_members(worker, block, warp, &members, mask, pc);
    }
    let yes = warp.predicate(it.value, it.negated) & mask;
    let all = |bits: bool| if bits { u32::MAX } else { 0 };
    match it.mode {
        VoteMode::Ballot => store(&mut warp.registers.w[it.result.index as usize], &[yes; LANES], mask),
        VoteMode::All => warp.set_predicate(it.result.index, all(yes == mask), mask),
        VoteMode::Any => warp.set_predicate(it.result.index, all(yes != 0), mask),
        VoteMode::Uniform => warp.set_predicate(it.result.index, all(yes == 0 || yes == mask), mask),
    }
}

pub fn matching(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &Match,
    mask: u32,
    pc: u32,
) {
    let members = *warp.word(it.members);
    check_members(worker, block, warp, &members, mask, pc);
    let values = warp.wide(it.value);
    let equal = |lane: usize| {
        lanes(mask).filter(|other| values[*other] == values[lane]).fold(0, |bits, other| bits | 1u32 << other)
    };
    let mut t = [0; LANES];
    for lane in lanes(mask) {
        let same = equal(lane);
        t[lane] = if it.all { if same == mask { mask } else { 0 } } else { same };
    }
    store(&mut warp.registers.w[it.result.index as usize], &t, mask);
    if let Some(p) = it.same {
        let all = equal(mask.trailing_zeros() as usize) == mask;
        warp.set_predicate(p.index, if all { u32::MAX } else { 0 }, mask);
    }
}

pub fn reduce(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &Reduce,
    mask: u32,
    pc: u32,
) {
    let members = *warp.word(it.members);
    check_members(worker, block, warp, &members, mask, pc);
    let values = *warp.word(it.value);
    let value = lanes(mask)
        .map(|lane| values[lane])
        .reduce(|a, b| match it.kind {
            AtomicKind::Min if it.signed => (a as i32).min(b as i32) as u32,
            AtomicKind::Max if it.signed => (a as i32).max(b as i32) as u32,
            AtomicKind::Min => a.min(b),
            AtomicKind::Max => a.max(b),
            AtomicKind::And => a & b,
            AtomicKind::Or => a | b,
            AtomicKind::Xor => a ^ b,
            _ => a.wrapping_add(b),
        })
        .unwrap_or(0);
    store(&mut warp.registers.w[it.result.index as usize], &[value; LANES], mask);
}

pub fn elect(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &(Option<u32>, u32, u32),
    mask: u32,
    pc: u32,
) {
    let members = warp.registers.w[it.2 as usize];
    check_members(worker, block, warp, &members, mask, pc);
    let leader = mask.trailing_zeros();
    if let Some(d) = it.0 {
        store(&mut warp.registers.w[d as usize], &[leader; LANES], mask);
    }
    warp.set_predicate(it.1, 1 << leader, mask);
}
