//! What blocks publish to each other: vector clocks kept as logs.
//!
//! Every global address that is used to signal has a log of *releases*: the block, and up to which time of
//! each of its warps the releasing warp knew. Who then reads the address atomically knows all releases
//! before, and whatever the releasing warps knew of other blocks. Knowledge of other blocks is therefore one
//! log position for each signalling address.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// How much of each address's log is known.
pub type Seen = Vec<(u64, u32)>;

/// What is known of some lanes of a warp beyond what is known of all: warp, lanes, and the time before which.
pub type OfLanes = (u32, u32, u32);

/// What a warp knows: of each warp of its block the time before which it knows everything, and of other
/// blocks.
#[derive(Clone, Debug, Default)]
pub struct Knowledge {
    pub own: Vec<u32>,
    pub lanes: Vec<OfLanes>,
    pub seen: Seen,
}

/// Adds log positions to others.
pub fn join_seen(seen: &mut Seen, more: &[(u64, u32)]) {
    for (address, position) in more {
        match seen.iter_mut().find(|(other, _)| other == address) {
            Some((_, known)) => *known = (*known).max(*position),
            None => seen.push((*address, *position)),
        }
    }
}

impl Knowledge {
    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.seen.is_empty()
    }

    /// Adds what another knows.
    pub fn join(&mut self, other: &Self) {
        if self.own.len() < other.own.len() {
            self.own.resize(other.own.len(), 0);
        }
        for (known, more) in self.own.iter_mut().zip(&other.own) {
            *known = (*known).max(*more);
        }
        for (warp, lanes, time) in &other.lanes {
            match self.lanes.iter_mut().find(|known| (known.0, known.1) == (*warp, *lanes)) {
                Some((_, _, known)) => *known = (*known).max(*time),
                None => self.lanes.push((*warp, *lanes, *time)),
            }
        }
        let own = &self.own;
        self.lanes.retain(|(warp, _, time)| own.get(*warp as usize).is_none_or(|known| known < time));
        join_seen(&mut self.seen, &other.seen);
    }

    /// Before which time of a lane of the block everything is known.
    pub fn of_lane(&self, warp: u32, lane: usize) -> u32 {
        let some = self.lanes.iter().filter(|(other, lanes, _)| *other == warp && lanes >> lane & 1 != 0);
        some.map(|(_, _, time)| *time).fold(self.of_warp(warp), u32::max)
    }

    /// Before which time of a warp of the block everything is known.
    pub fn of_warp(&self, warp: u32) -> u32 {
        self.own.get(warp as usize).copied().unwrap_or(0)
    }
}

#[derive(Debug, Default)]
struct Log {
    len: u32,
    /// For each block its releases: position and what was known.
    releases: HashMap<u32, Vec<(u32, Arc<Knowledge>)>>,
    /// What releasing warps knew: position here, the other address, its position.
    inherited: Vec<(u32, u64, u32)>,
}

/// What a warp did inside a lock before a fence followed the taking of it: from the first time, up to the
/// second before any fence, up to the third before one for the whole device.
#[derive(Clone, Copy, Debug)]
pub struct Early {
    pub block: u32,
    pub warp: u32,
    pub from: u32,
    pub fence: u32,
    pub device_fence: u32,
}

/// The logs and locks of one launch.
#[derive(Debug, Default)]
pub struct Signals {
    any: AtomicBool,
    logs: Mutex<HashMap<u64, Log>>,
    locks: Mutex<HashMap<u64, Vec<Early>>>,
}

impl Signals {
    /// Nothing was released yet.
    pub fn quiet(&self) -> bool {
        !self.any.load(Relaxed)
    }

    /// The position that an atomic read of `address` gives knowledge of, if anything was released there.
    pub fn observe(&self, address: u64) -> Option<u32> {
        if self.quiet() {
            return None;
        }
        let logs = self.logs.lock().ok()?;
        logs.get(&address).map(|log| log.len)
    }

    /// Publishes at `address` what a warp of `block` knew.
    pub fn release(&self, address: u64, block: u32, knowledge: &Arc<Knowledge>) {
        let Ok(mut logs) = self.logs.lock() else { return };
        self.any.store(true, Relaxed);
        let log = logs.entry(address).or_default();
        let own = log.releases.entry(block).or_default();
        // Lanes that wait publish the same again and again.
        if own.iter().rev().take(32).any(|(_, before)| Arc::ptr_eq(before, knowledge)) {
            return;
        }
        own.push((log.len, Arc::clone(knowledge)));
        let others = knowledge.seen.iter().filter(|(other, _)| *other != address);
        log.inherited.extend(others.map(|(other, position)| (log.len, *other, *position)));
        log.len += 1;
    }

    /// Before which time of a warp of another block, or of one lane of it, everything is known; or some later
    /// time than `wanted`.
    pub fn known(
        &self,
        seen: &[(u64, u32)],
        block: u32,
        (warp, lane): (u32, Option<usize>),
        wanted: u32,
    ) -> u32 {
        if seen.is_empty() {
            return 0;
        }
        let Ok(logs) = self.logs.lock() else { return u32::MAX };
        let mut reach: HashMap<u64, u32> = HashMap::new();
        let mut open = seen.to_vec();
        let mut best = 0;
        while let Some((address, position)) = open.pop() {
            let reached = reach.entry(address).or_default();
            if *reached >= position {
                continue;
            }
            let before = std::mem::replace(reached, position);
            let Some(log) = logs.get(&address) else { continue };
            if let Some(own) = log.releases.get(&block) {
                let end = own.partition_point(|(at, _)| *at < position);
                for (_, knowledge) in own[..end].iter().rev() {
                    best =
                        best.max(lane.map_or(knowledge.of_warp(warp), |lane| knowledge.of_lane(warp, lane)));
                    if best > wanted {
                        return best;
                    }
                }
            }
            let inherited = &log.inherited;
            let start = inherited.partition_point(|(at, _, _)| *at < before);
            let end = inherited.partition_point(|(at, _, _)| *at < position);
            open.extend(inherited[start..end].iter().map(|(_, address, position)| (*address, *position)));
        }
        best
    }

    /// A lock was given back.
    pub fn note_early(&self, lock: u64, early: Early) {
        let Ok(mut locks) = self.locks.lock() else { return };
        let list = locks.entry(lock).or_default();
        list.push(early);
        if list.len() > 256 {
            list.remove(0);
        }
    }

    /// Whether a use at `time` was inside the lock too early for a warp of `asking`.
    pub fn was_early(&self, lock: u64, block: u32, warp: u32, time: u32, asking: u32) -> bool {
        let Ok(locks) = self.locks.lock() else { return false };
        locks.get(&lock).is_some_and(|list| {
            list.iter().any(|early| {
                let until = if block == asking { early.fence } else { early.device_fence };
                (early.block, early.warp) == (block, warp) && early.from <= time && time < until
            })
        })
    }
}
