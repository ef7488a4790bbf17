//! What the lanes of a warp do together: barriers of the warp, shuffles, votes, matches and reductions.

use super::registers::RowW;
use super::site::Site;
use crate::isa::{AtomicKind, Match, Reduce, Shuffle, ShuffleMode, Vote, VoteMode};
use crate::lanes::{LANES, lanes, mask_of};
use crate::monitor::{Fault, Monitor};

/// Lanes that are named as members must take part unless they exited, and those that take part must be
/// members. They synchronise.
fn meet<M: Monitor>(site: &mut Site<'_, M>, members: &RowW) {
    let mask = site.mask;
    let first = members[site.first()];
    if mask == site.warp.live && first & mask == mask && *members == [first; LANES] {
        return site.together(mask, true);
    }
    let live = site.warp.live & !site.warp.leaving(&site.launch.kernel.steps) | mask;
    let wrong =
        lanes(mask).find(|lane| members[*lane] & live & !mask != 0 || members[*lane] >> lane & 1 == 0);
    if let Some(lane) = wrong {
        site.fault(lane, None, Fault::OtherMembers { named: members[lane], here: mask });
    }
    let mut rest = mask;
    while rest != 0 {
        let named = members[rest.trailing_zeros() as usize];
        let group = rest & mask_of(|lane| members[lane] == named);
        site.together(group, group == live);
        rest &= !group;
    }
}

/// `bar.warp.sync`: lanes of a diverged path wait there until the others come to one too.
pub fn barrier<M: Monitor>(site: &mut Site<'_, M>, row: &RowW) {
    let (mask, steps) = (site.mask, &site.launch.kernel.steps);
    let named = lanes(mask).fold(0, |bits, lane| bits | row[lane]);
    let missing = named & site.warp.live & !mask;
    if missing != 0 {
        let absent = missing & !site.warp.waiting() & !site.warp.leaving(steps);
        if absent != 0 && site.warp.wait_for(absent, mask, site.pc) {
            return;
        }
        if absent == 0 && lanes(mask).all(|lane| row[lane] >> lane & 1 != 0) {
            site.warp.wake(named);
            let mut rest = mask;
            while rest != 0 {
                let members = row[rest.trailing_zeros() as usize] & site.warp.live;
                let all = site.warp.is_whole(members, steps);
                site.together(members, all);
                rest &= !members;
            }
            return;
        }
    }
    meet(site, row);
}

/// `shfl`.
pub fn shuffle<M: Monitor>(site: &mut Site<'_, M>, it: &Shuffle) {
    if let Some(members) = it.members {
        let members = *site.warp.word(members);
        meet(site, &members);
    }
    let (values, by, clamp) =
        (*site.warp.word(it.value), *site.warp.word(it.lane), *site.warp.word(it.clamp));
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
        site.warp.set_word(result.index, &t, site.mask);
    }
    if let Some(p) = it.inside {
        site.warp.set_predicate(p.index, inside, site.mask);
    }
}

/// `vote`.
pub fn vote<M: Monitor>(site: &mut Site<'_, M>, it: &Vote) {
    if let Some(members) = it.members {
        let members = *site.warp.word(members);
        meet(site, &members);
    }
    let yes = site.warp.predicate(it.value, it.negated) & site.mask;
    let all = |bits: bool| if bits { u32::MAX } else { 0 };
    match it.mode {
        VoteMode::Ballot => site.warp.set_word(it.result.index, &[yes; LANES], site.mask),
        VoteMode::All => site.warp.set_predicate(it.result.index, all(yes == site.mask), site.mask),
        VoteMode::Any => site.warp.set_predicate(it.result.index, all(yes != 0), site.mask),
        VoteMode::Uniform => {
            site.warp.set_predicate(it.result.index, all(yes == 0 || yes == site.mask), site.mask)
        }
    }
}

/// `match`.
pub fn matching<M: Monitor>(site: &mut Site<'_, M>, it: &Match) {
    let members = *site.warp.word(it.members);
    meet(site, &members);
    let values = site.warp.wide(it.value);
    let equal = |lane: usize| site.mask & mask_of(|other| values[other] == values[lane]);
    let mut t = [0; LANES];
    for lane in lanes(site.mask) {
        let same = equal(lane);
        t[lane] = if it.all { if same == site.mask { site.mask } else { 0 } } else { same };
    }
    site.warp.set_word(it.result.index, &t, site.mask);
    if let Some(p) = it.same {
        let all = equal(site.mask.trailing_zeros() as usize) == site.mask;
        site.warp.set_predicate(p.index, if all { u32::MAX } else { 0 }, site.mask);
    }
}

/// `redux`.
pub fn reduce<M: Monitor>(site: &mut Site<'_, M>, it: &Reduce) {
    let members = *site.warp.word(it.members);
    meet(site, &members);
    let values = *site.warp.word(it.value);
    let value = lanes(site.mask)
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
    site.warp.set_word(it.result.index, &[value; LANES], site.mask);
}

/// `elect`.
pub fn elect<M: Monitor>(site: &mut Site<'_, M>, it: &(Option<u32>, u32, u32)) {
    let members = site.warp.registers.w[it.2 as usize];
    meet(site, &members);
    let leader = site.mask.trailing_zeros();
    if let Some(d) = it.0 {
        site.warp.set_word(d, &[leader; LANES], site.mask);
    }
    site.warp.set_predicate(it.1, 1 << leader, site.mask);
}
