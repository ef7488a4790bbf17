//! What each warp of a block knows of what others did, by the PTX memory model.
//!
//! A warp's *time* goes up whenever it synchronises. What others know of it is a time before which they know
//! everything:
//! - A **fence** closes what the warp did and knows so far. An atomic write after it (relaxed, volatile, a
//!   read-modify-write) publishes that at its address: for the block, and for other blocks if fence and write
//!   both are for the device.
//! - An atomic read of the address *observes* what was published there. Observing alone orders only the
//!   warp's volatile and atomic reads; a fence after it, or an acquire, makes it knowledge.
//! - A **barrier** makes all warps that take part know each other, and what each of them observed.
//! - Lanes of a warp know each other after an instruction that all of them execute together (`bar.warp.sync`,
//!   shuffles...).

use std::collections::HashMap;
use std::sync::Arc;

use super::super::shadow::history::{Bounds, Conflict, Kind, MOST_TIME, Stamp};
use super::super::signals::{Early, Knowledge, Seen, Signals, join_seen};
use crate::isa::{Order, Scope};
use crate::monitor::Semantics;

/// Whether two uses are a race, and what is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// Nothing orders them.
    Race,
    /// The flag was read, but no fence followed.
    NoAcquire,
    /// They are ordered by a lock, but the earlier one did not fence after taking it: in the other order they
    /// would race.
    EarlyInLock,
}

/// The later one of two uses: by which warp, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Later {
    pub stamp: Stamp,
    pub warp: u32,
    pub writes: bool,
    pub reads: bool,
}

/// A fence that lanes of a warp ran: what it closed.
#[derive(Clone, Debug)]
struct Fence {
    lanes: u32,
    scope: Scope,
    closed: Arc<Knowledge>,
}

/// A lock that a warp took, and when it fenced after that.
#[derive(Clone, Copy, Debug)]
struct Held {
    lock: u64,
    from: u32,
    fence: Option<u32>,
    device_fence: Option<u32>,
}

/// Times before which each lane knows each other lane.
type Lanes = Box<[[u32; 32]; 32]>;

/// A warp's clock and knowledge.
#[derive(Debug, Default)]
struct View {
    time: u32,
    /// Before this, lanes know all that the warp did.
    lanes_from: u32,
    stamp: Stamp,
    known: Knowledge,
    /// Of other blocks' warps, what was found known before.
    certain: HashMap<(u32, u32), u32>,
    /// What was observed through the block, and through the device, and no fence has followed yet.
    observed: Knowledge,
    observed_far: Seen,
    /// Lanes that observed it.
    observed_by: u32,
    /// What lanes know that have not met the others since.
    fresh: Vec<(u32, Knowledge)>,
    fences: Vec<Fence>,
    held: Vec<Held>,
    /// Only where some lanes synchronised without the others.
    lanes: Option<Lanes>,
}

/// What was published at one address within the block.
#[derive(Debug, Default)]
struct Flag {
    knowledge: Knowledge,
    /// What the releasing lanes knew of their own warp's lanes.
    lanes: HashMap<u32, [u32; 32]>,
}

/// Where an atomic access goes: the address as the block knows it, and whether other blocks can reach it.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    key: u64,
    global: bool,
}

impl Address {
    /// In global memory.
    pub fn global(address: u64) -> Self {
        Self { key: address, global: true }
    }

    /// In shared memory of a block, by what stands for it in histories.
    pub fn shared(offset: u64, block: u32) -> Self {
        Self { key: 1 << 63 | u64::from(block) << 32 | offset, global: false }
    }
}

/// The order of a block's warps.
#[derive(Debug, Default)]
pub struct Ordering {
    tag: u64,
    block: u64,
    id: u32,
    warps: Vec<View>,
    /// Before this, every warp knows everything of the block.
    from: u32,
    flags: HashMap<u64, Flag>,
    /// Who met last at each barrier of some warps, and when.
    met: HashMap<u32, Vec<(u32, u32)>>,
    /// What those knew that have arrived at each barrier and do not wait there.
    arrived: HashMap<u32, Vec<(u32, Knowledge)>>,
}

impl Ordering {
    /// A new block of the launch `tag`.
    pub fn start(&mut self, tag: u64, block: u64, warps: usize) {
        (self.tag, self.block, self.from) = (tag, block, 1);
        self.flags.clear();
        self.met.clear();
        self.arrived.clear();
        self.warps.clear();
        self.warps.resize_with(warps, View::default);
        for warp in 0..warps {
            let view = &mut self.warps[warp];
            (view.time, view.lanes_from) = (1, 1);
            view.stamp = Stamp::new(tag, block, warp as u32, 1);
        }
        self.id = Stamp::new(tag, block, 0, 0).party();
    }

    /// The launch and block as histories know them.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// A warp as histories know it now.
    #[inline(always)]
    pub fn plain(&self, warp: u32) -> (Stamp, Bounds) {
        let view = &self.warps[warp as usize];
        (view.stamp, Bounds { lanes: view.lanes_from, block: self.from })
    }

    /// The same for an access of this order.
    #[inline(always)]
    pub fn access(&self, warp: u32, semantics: Semantics) -> (Stamp, Bounds) {
        let (stamp, bounds) = self.plain(warp);
        let kind = match (semantics.order, semantics.scope) {
            (Order::Weak, _) => return (stamp, bounds),
            (Order::Volatile, _) => Kind::Volatile,
            (_, Scope::Device) => Kind::Strong,
            (_, Scope::Block) => Kind::Block,
        };
        let stamp = stamp.of(kind, semantics.waits);
        (if self.warps[warp as usize].fences.is_empty() { stamp } else { stamp.fenced() }, bounds)
    }

    fn set_time(&mut self, warp: u32, time: u32) {
        let view = &mut self.warps[warp as usize];
        view.time = time.min(MOST_TIME);
        view.stamp = Stamp::new(self.tag, self.block, warp, view.time);
    }

    #[inline(always)]
    fn tick(&mut self, warp: u32) {
        let time = self.warps[warp as usize].time + 1;
        self.set_time(warp, time);
    }

    /// All that a warp did and knows.
    fn closed(&self, warp: u32) -> Knowledge {
        let view = &self.warps[warp as usize];
        let mut closed = view.known.clone();
        closed.own.resize(self.warps.len(), 0);
        closed.own.iter_mut().for_each(|time| *time = (*time).max(self.from));
        closed.own[warp as usize] = view.time + 1;
        view.fresh.iter().for_each(|(_, knowledge)| closed.join(knowledge));
        closed
    }

    /// All that lanes of a warp did and know: of their warp's other lanes what came before the last time they
    /// met.
    fn closed_by(&self, warp: u32, lanes: u32) -> Knowledge {
        let view = &self.warps[warp as usize];
        let mut closed = view.known.clone();
        closed.own.resize(self.warps.len(), 0);
        closed.own.iter_mut().for_each(|time| *time = (*time).max(self.from));
        closed.own[warp as usize] = view.lanes_from;
        closed.lanes.push((warp, lanes, view.time + 1));
        if let Some(matrix) = &view.lanes {
            let first = lanes.trailing_zeros() as usize & 31;
            let others =
                (0..32).filter(|other| lanes >> other & 1 == 0 && matrix[first][*other] > view.lanes_from);
            closed.lanes.extend(others.map(|other| (warp, 1 << other, matrix[first][other])));
        }
        let fresh = view.fresh.iter().filter(|(by, _)| by & lanes != 0);
        fresh.for_each(|(_, knowledge)| closed.join(knowledge));
        closed
    }

    /// Lanes learn something; the others when they meet them next.
    fn learn(view: &mut View, lanes: u32, knowledge: &Knowledge) {
        match view.fresh.iter_mut().find(|(by, _)| *by == lanes) {
            Some((_, fresh)) => fresh.join(knowledge),
            None => view.fresh.push((lanes, knowledge.clone())),
        }
    }

    /// The lanes have met: all know what each of them does.
    fn share(view: &mut View) {
        for (_, knowledge) in std::mem::take(&mut view.fresh) {
            view.known.join(&knowledge);
        }
    }

    /// Lanes run a fence.
    pub fn fence(&mut self, warp: u32, scope: Scope, lanes: u32) {
        let view = &mut self.warps[warp as usize];
        let by = view.observed_by & lanes;
        if by != 0 {
            let mut observed = std::mem::take(&mut view.observed);
            if scope == Scope::Device {
                let far = std::mem::take(&mut view.observed_far);
                join_seen(&mut observed.seen, &far);
            }
            Self::learn(view, by, &observed);
        }
        for held in &mut view.held {
            held.fence = held.fence.or(Some(view.time + 1));
            if scope == Scope::Device {
                held.device_fence = held.device_fence.or(Some(view.time + 1));
            }
        }
        let closed = Arc::new(self.closed_by(warp, lanes));
        let fences = &mut self.warps[warp as usize].fences;
        fences.retain_mut(|fence| {
            if scope == Scope::Device || fence.scope == Scope::Block {
                fence.lanes &= !lanes;
            }
            fence.lanes != 0
        });
        fences.push(Fence { lanes, scope, closed });
        self.tick(warp);
    }

    /// Nothing was published within the block yet.
    pub fn quiet(&self) -> bool {
        self.flags.is_empty()
    }

    /// The warp has run no fence yet.
    pub fn never_fenced(&self, warp: u32) -> bool {
        self.warps[warp as usize].fences.is_empty()
    }

    /// An atomic read of a place by lanes: observes what was published there, or knows it at once if it
    /// acquires.
    pub fn observe(&mut self, signals: &Signals, warp: u32, at: Address, semantics: Semantics, lanes: u32) {
        let Semantics { order, scope, .. } = semantics;
        let acquires = matches!(order, Order::Acquire | Order::Both);
        let far = if at.global && scope == Scope::Device { signals.observe(at.key) } else { None };
        let view = &mut self.warps[warp as usize];
        if let Some(position) = far {
            if acquires {
                let seen = Knowledge { seen: vec![(at.key, position)], ..Knowledge::default() };
                Self::learn(view, lanes, &seen);
            } else {
                join_seen(&mut view.observed_far, &[(at.key, position)]);
                view.observed_by |= lanes;
            }
        }
        if self.flags.is_empty() {
            return;
        }
        let Some(flag) = self.flags.get(&at.key) else { return };
        if acquires {
            Self::learn(view, lanes, &flag.knowledge);
        } else {
            view.observed.join(&flag.knowledge);
            view.observed_by |= lanes;
        }
        if let Some(row) = flag.lanes.get(&warp) {
            let matrix = view.lanes.get_or_insert_with(|| Box::new([[0; 32]; 32]));
            for (lane, known) in matrix.iter_mut().enumerate() {
                if lanes >> lane & 1 != 0 {
                    known.iter_mut().zip(row).for_each(|(known, more)| *known = (*known).max(*more));
                }
            }
        }
    }

    /// What the last fence of at least this scope closed for lanes that ran it.
    fn fenced_by(&mut self, warp: u32, least: Scope, lanes: u32) -> Option<Arc<Knowledge>> {
        let fences = &mut self.warps[warp as usize].fences;
        let wide = |fence: &Fence| least == Scope::Block || fence.scope == Scope::Device;
        let place = fences.iter().rposition(|fence| fence.lanes & lanes != 0 && wide(fence))?;
        let fence = &mut fences[place];
        if fence.lanes & !lanes == 0 {
            return Some(Arc::clone(&fence.closed));
        }
        // The other lanes closed what they did themselves.
        let mut closed = Knowledge::clone(&fence.closed);
        for (of, by, _) in &mut closed.lanes {
            *by &= if *of == warp && *by & fence.lanes == fence.lanes { lanes } else { u32::MAX };
        }
        let narrow = Fence { lanes: fence.lanes & lanes, scope: fence.scope, closed: Arc::new(closed) };
        fence.lanes &= !lanes;
        let closed = Arc::clone(&narrow.closed);
        fences.insert(place + 1, narrow);
        Some(closed)
    }

    /// An atomic write of a place by lanes: publishes what they fenced before, or everything if it releases.
    pub fn publish(&mut self, signals: &Signals, warp: u32, at: Address, semantics: Semantics, lanes: u32) {
        let Semantics { order, scope, .. } = semantics;
        let releases = matches!(order, Order::Release | Order::Both);
        if !releases && self.warps[warp as usize].fences.is_empty() {
            return;
        }
        let (near, far) = if releases {
            let closed = Arc::new(self.closed_by(warp, lanes));
            self.tick(warp);
            let far = (scope == Scope::Device).then(|| Arc::clone(&closed));
            (Some(closed), far)
        } else {
            let far = if scope == Scope::Device { self.fenced_by(warp, Scope::Device, lanes) } else { None };
            (self.fenced_by(warp, Scope::Block, lanes), far)
        };
        if let Some(closed) = near {
            let view = &self.warps[warp as usize];
            let flag = self.flags.entry(at.key).or_default();
            flag.knowledge.join(&closed);
            let row = flag.lanes.entry(warp).or_insert([0; 32]);
            for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
                for (other, known) in row.iter_mut().enumerate() {
                    let more = view.lanes.as_ref().map_or(0, |matrix| matrix[lane][other]);
                    *known = (*known).max(more).max(view.lanes_from);
                }
                row[lane] = row[lane].max(closed.of_lane(warp, lane));
            }
        }
        if let Some(closed) = far
            && at.global
        {
            signals.release(at.key, self.id, &closed);
        }
    }

    /// A read-modify-write that may have taken a lock, or given it back.
    pub fn note_lock(
        &mut self,
        signals: &Signals,
        warp: u32,
        at: Address,
        takes: bool,
        semantics: Semantics,
    ) {
        let Semantics { order, scope, .. } = semantics;
        let held = &mut self.warps[warp as usize].held;
        if let Some(place) = held.iter().position(|held| held.lock == at.key) {
            if takes {
                return;
            }
            let gone = held.remove(place);
            let end = self.warps[warp as usize].time + 1;
            let early = Early {
                block: self.id,
                warp,
                from: gone.from,
                fence: gone.fence.unwrap_or(end),
                device_fence: gone.device_fence.unwrap_or(end),
            };
            if early.device_fence > early.from {
                signals.note_early(at.key, early);
            }
        } else if takes {
            self.tick(warp);
            let view = &mut self.warps[warp as usize];
            if view.held.len() == 8 {
                view.held.remove(0);
            }
            let fenced = matches!(order, Order::Acquire | Order::Both).then_some(view.time);
            let device_fence = if scope == Scope::Device { fenced } else { None };
            view.held.push(Held { lock: at.key, from: view.time, fence: fenced, device_fence });
        }
    }

    /// Whether the warp holds a lock there.
    pub fn holds(&self, warp: u32, at: Address) -> bool {
        self.warps[warp as usize].held.iter().any(|held| held.lock == at.key)
    }

    /// Whether a warp has observed anything that another block published.
    pub fn learned(&self, warp: u32) -> bool {
        let view = &self.warps[warp as usize];
        let fresh = view.fresh.iter().any(|(_, knowledge)| !knowledge.seen.is_empty());
        fresh || !view.known.seen.is_empty() || !view.observed_far.is_empty()
    }

    /// A warp arrives at a barrier at which it does not wait.
    pub fn arrive(&mut self, warp: u32, id: u32) {
        let mut closed = self.closed(warp);
        self.add_observed(warp, &mut closed);
        self.tick(warp);
        self.arrived.entry(id).or_default().push((warp, closed));
    }

    fn add_observed(&self, warp: u32, knowledge: &mut Knowledge) {
        let view = &self.warps[warp as usize];
        if !view.observed.is_empty() {
            knowledge.join(&view.observed);
        }
        join_seen(&mut knowledge.seen, &view.observed_far);
    }

    /// The warps that waited at a barrier go on, and know each other and those that only arrived. But if it
    /// was used before by others of whom one of these knows nothing, chance decided who met whom, and it
    /// orders nobody.
    pub fn barrier(&mut self, id: u32, waited: &[u32]) {
        let arrived = self.arrived.remove(&id).unwrap_or_default();
        let mut all = Knowledge::default();
        for warp in waited {
            all.join(&self.closed(*warp));
            self.add_observed(*warp, &mut all);
        }
        arrived.iter().for_each(|(_, knowledge)| all.join(knowledge));
        let before = self.met.remove(&id).unwrap_or_default();
        let stranger = |warp: u32, knows: &Knowledge| {
            let known = |(other, time): &(u32, u32)| knows.of_warp(*other).max(self.from) > *time;
            !before.iter().any(|(other, _)| *other == warp) && !before.iter().all(known)
        };
        let by_chance = waited.iter().any(|warp| stranger(*warp, &self.warps[*warp as usize].known))
            || arrived.iter().any(|(warp, knowledge)| stranger(*warp, knowledge));
        let now = waited.iter().map(|warp| (*warp, self.warps[*warp as usize].time));
        let then = arrived.iter().map(|(warp, knowledge)| (*warp, knowledge.of_warp(*warp) - 1));
        let now = now.chain(then).collect();
        self.met.insert(id, now);
        for warp in waited {
            self.tick(*warp);
            let view = &mut self.warps[*warp as usize];
            view.lanes_from = view.time;
            Self::share(view);
            if !by_chance {
                view.known.join(&all);
                view.observed_by = 0;
                view.observed = Knowledge::default();
                view.observed_far.clear();
            }
        }
    }

    /// A barrier of all warps that have not exited; what others did before they exited is known as well.
    pub fn barrier_of_all(&mut self, id: u32) {
        self.arrived.remove(&id);
        let time = 1 + self.warps.iter().map(|view| view.time).max().unwrap_or(0);
        let mut seen = Seen::new();
        for view in &mut self.warps {
            Self::share(view);
            join_seen(&mut seen, &view.known.seen);
            join_seen(&mut seen, &view.observed.seen);
            join_seen(&mut seen, &view.observed_far);
        }
        for warp in 0..self.warps.len() as u32 {
            self.set_time(warp, time);
            let view = &mut self.warps[warp as usize];
            view.lanes_from = view.time;
            if !seen.is_empty() {
                view.known.seen.clone_from(&seen);
            }
            view.observed = Knowledge::default();
            view.observed_far.clear();
            view.observed_by = 0;
        }
        self.from = time.min(MOST_TIME);
    }

    /// Lanes of a warp execute something together; `all`: every one that is left.
    #[inline]
    pub fn together(&mut self, warp: u32, lanes: u32, all: bool) {
        if all {
            self.tick(warp);
            let view = &mut self.warps[warp as usize];
            view.lanes_from = view.time;
            if view.observed_by != 0 {
                view.observed_by = u32::MAX;
            }
            if !view.fresh.is_empty() {
                Self::share(view);
            }
        } else {
            self.some_together(warp, lanes);
        }
    }

    #[cold]
    fn some_together(&mut self, warp: u32, lanes: u32) {
        let view = &mut self.warps[warp as usize];
        for (by, _) in &mut view.fresh {
            *by |= if *by & lanes != 0 { lanes } else { 0 };
        }
        view.observed_by |= if view.observed_by & lanes != 0 { lanes } else { 0 };
        let time = view.time + 1;
        let matrix = view.lanes.get_or_insert_with(|| Box::new([[0; 32]; 32]));
        let mut row = [0u32; 32];
        for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
            row.iter_mut().zip(&matrix[lane]).for_each(|(known, more)| *known = (*known).max(*more));
        }
        for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
            row[lane] = time;
        }
        for lane in (0..32).filter(|lane| lanes >> lane & 1 != 0) {
            matrix[lane] = row;
        }
        self.tick(warp);
    }

    /// Whether two uses that may conflict are a race. `silent`: the write changes nothing.
    pub fn verdict(
        &mut self,
        signals: &Signals,
        conflict: Conflict,
        new: Later,
        silent: impl FnOnce() -> bool,
    ) -> Verdict {
        let old = conflict.old;
        let near = old.party() == self.id;
        if near && old.time() == MOST_TIME || tolerated(conflict, new.stamp, near, new.writes) {
            return Verdict::Fine;
        }
        let harmless = new.writes && !conflict.read;
        let id = self.id;
        let view = &mut self.warps[new.warp as usize];
        if near && old.warp() == new.warp {
            let lanes = view.lanes.as_ref();
            let known = lanes.is_some_and(|known| known[new.stamp.lane()][old.lane()] > old.time());
            return if known || harmless && silent() { Verdict::Fine } else { Verdict::Race };
        }
        let known = view.known_of(signals, old, near, new.stamp.lane());
        if known > old.time() {
            return if view.was_early(signals, old, id) { Verdict::EarlyInLock } else { Verdict::Fine };
        }
        let observed = view.observed_of(signals, old, near, new.stamp.lane());
        // The atomic write that published is known with what it published.
        let publishes = old.is_fenced() && old.is_strong() && !conflict.read;
        if publishes && known.max(observed) > 0 || harmless && silent() {
            return Verdict::Fine;
        }
        match observed > old.time() {
            true if new.reads && new.stamp.kind() != Kind::Weak => Verdict::Fine,
            true => Verdict::NoAcquire,
            false => Verdict::Race,
        }
    }
}

impl View {
    /// Before which time a lane knows everything of the lane that made `old`, or some later time than that
    /// use's.
    fn known_of(&mut self, signals: &Signals, old: Stamp, near: bool, lane: usize) -> u32 {
        let known = if near {
            self.known.of_lane(old.warp(), old.lane())
        } else {
            let certain = self.certain.entry((old.party(), old.warp())).or_default();
            if *certain <= old.time() {
                let whole = (old.warp(), None);
                *certain = signals.known(&self.known.seen, old.party(), whole, old.time()).max(*certain);
            }
            if *certain > old.time() { *certain } else { known_through(signals, &self.known, old, near) }
        };
        let mine = self.fresh.iter().filter(|(by, _)| by >> lane & 1 != 0);
        mine.map(|(_, knowledge)| known_through(signals, knowledge, old, near)).fold(known, u32::max)
    }

    /// The same of what the lane has observed and not fenced.
    fn observed_of(&self, signals: &Signals, old: Stamp, near: bool, lane: usize) -> u32 {
        if self.observed_by >> lane & 1 == 0 {
            return 0;
        }
        if near {
            return known_through(signals, &self.observed, old, near);
        }
        let mut all = self.known.clone();
        all.join(&self.observed);
        join_seen(&mut all.seen, &self.observed_far);
        known_through(signals, &all, old, near)
    }

    /// Whether `old` happened in a lock that the warp holds now, before a fence followed the taking of it.
    fn was_early(&self, signals: &Signals, old: Stamp, block: u32) -> bool {
        let (warp, time) = (old.warp(), old.time());
        self.held.iter().any(|held| signals.was_early(held.lock, old.party(), warp, time, block))
    }
}

fn known_through(signals: &Signals, knowledge: &Knowledge, old: Stamp, near: bool) -> u32 {
    match near {
        true => knowledge.of_lane(old.warp(), old.lane()),
        false => signals.known(&knowledge.seen, old.party(), (old.warp(), Some(old.lane())), old.time()),
    }
}

/// Uses that conflict and may: atomic ones with each other if both are so for each other's threads, and
/// volatile ones that wait for the other or that come after it because their thread has read it.
fn tolerated(conflict: Conflict, new: Stamp, near: bool, writes: bool) -> bool {
    let old = conflict.old;
    let kinds = (old.kind(), new.kind());
    if kinds.0 == Kind::Weak || kinds.1 == Kind::Weak {
        return false;
    }
    if !near && (kinds.0 == Kind::Block || kinds.1 == Kind::Block) {
        return false;
    }
    match (old.is_strong(), new.is_strong()) {
        (true, true) => true,
        _ if old.waits() || new.waits() || conflict.observed => true,
        (false, false) => false,
        // A lock given back by a volatile store and then taken, or a plain look at a counter.
        (false, true) => conflict.read || !writes || old.is_fenced(),
        (true, false) => conflict.read || !writes,
    }
}
