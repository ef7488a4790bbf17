//! Who used a word last, packed into 64 bits, and which two uses have to be looked at more closely.
//!
//! A use is known by the launch, the block, the warp, the lane and the warp's time, which goes up by one
//! whenever the warp synchronises with anybody. Two uses of the same byte by different lanes, one of them a
//! write, conflict unless the later one's lane *knows* the earlier one (see `order`). Most conflicts are
//! excluded here, by two bounds: of its own warp a lane knows all that was before the last time all lanes
//! synchronised, of its block all that was before the last barrier of all warps.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const FLAGS: u32 = 21;
const KIND: u64 = 3 << FLAGS;
const SYNC: u64 = 1 << (FLAGS + 2);
const FENCED: u64 = 1 << (FLAGS + 3);
const MANY: u64 = 1 << (FLAGS + 4);
const FINE: u64 = 1 << (FLAGS + 5);
const LANE: u32 = 27;
const WARP: u32 = 32;
const BLOCK: u32 = 37;
const TAG: u32 = 56;
/// Times of one warp that can be told apart: what comes later is never reported.
pub const MOST_TIME: u32 = (1 << FLAGS) - 1;
const MOST_BLOCK: u64 = (1 << (TAG - BLOCK)) - 1;
/// Launches that can be told apart before histories are cleared.
pub const MOST_TAG: u64 = (1 << 8) - 1;

/// How an access takes part in the order of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Weak = 0,
    /// Goes to memory and may be waited on, but orders nothing and tears no lost update away.
    Volatile = 1,
    /// Relaxed, acquire, release or a read-modify-write, for the whole device.
    Strong = 2,
    /// The same for the block only.
    Block = 3,
}

/// One use of a word: by whom, when and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp(u64);

impl Stamp {
    /// A plain use by a warp's first lane.
    pub fn new(tag: u64, block: u64, warp: u32, time: u32) -> Self {
        // Blocks beyond those that can be told apart take part only in races between blocks.
        let time = if block > MOST_BLOCK { MOST_TIME } else { time.min(MOST_TIME) };
        Self(tag << TAG | (block & MOST_BLOCK) << BLOCK | u64::from(warp & 31) << WARP | u64::from(time))
    }

    /// The same as an access of this kind. `waits`: the value decides whether a loop goes on.
    #[inline(always)]
    pub fn of(self, kind: Kind, waits: bool) -> Self {
        Self(self.0 | (kind as u64) << FLAGS | if waits { SYNC } else { 0 })
    }

    /// The same by a warp that has fenced what it did before.
    pub fn fenced(self) -> Self {
        Self(self.0 | FENCED)
    }

    /// The same by another lane.
    #[inline(always)]
    pub fn by(self, lane: usize) -> Self {
        Self(self.0 | (lane as u64) << LANE)
    }

    /// Who used it.
    pub fn lane(self) -> usize {
        (self.0 >> LANE & 31) as usize
    }

    /// Its warp in the block.
    pub fn warp(self) -> u32 {
        (self.0 >> WARP & 31) as u32
    }

    /// Its block, as far as blocks can be told apart.
    pub fn block(self) -> u32 {
        (self.0 >> BLOCK & MOST_BLOCK) as u32
    }

    /// Its launch and block: what stands for the block where several launches meet.
    pub fn party(self) -> u32 {
        (self.0 >> BLOCK) as u32
    }

    /// The warp's time then.
    #[inline(always)]
    pub fn time(self) -> u32 {
        self.0 as u32 & MOST_TIME
    }

    /// The launch.
    #[inline(always)]
    pub fn tag(self) -> u64 {
        self.0 >> TAG
    }

    /// Of a read: several lanes of the warp read. Of a write: another, atomic and unordered one is kept
    /// beside it.
    pub fn many(self) -> bool {
        self.0 & MANY != 0
    }

    /// How it takes part in the order of others.
    pub fn kind(self) -> Kind {
        match (self.0 & KIND) >> FLAGS {
            0 => Kind::Weak,
            1 => Kind::Volatile,
            2 => Kind::Strong,
            _ => Kind::Block,
        }
    }

    /// Without the mark that another write is kept beside it.
    #[inline(always)]
    fn alone(self) -> Self {
        Self(self.0 & !MANY)
    }

    fn weak(self) -> bool {
        self.0 & KIND == 0
    }

    /// It was atomic.
    pub fn is_strong(self) -> bool {
        matches!(self.kind(), Kind::Strong | Kind::Block)
    }

    /// Its value decides whether a loop goes on.
    pub fn waits(self) -> bool {
        self.0 & SYNC != 0
    }

    /// Its warp had fenced what it did before.
    pub fn is_fenced(self) -> bool {
        self.0 & FENCED != 0
    }

    #[inline(always)]
    fn same_warp(self, other: Self) -> bool {
        (self.0 ^ other.0) >> WARP == 0
    }
}

/// Times before which a lane knows everything: of its own warp's lanes, and of its block's warps.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    pub lanes: u32,
    pub block: u32,
}

/// An earlier use that the later one may not know.
#[derive(Clone, Copy, Debug)]
pub struct Conflict {
    pub old: Stamp,
    /// It was a read.
    pub read: bool,
    /// The later one's warp has read what is there by a volatile or atomic access since, or somebody waits on
    /// it.
    pub observed: bool,
}

/// No look is needed: another launch, the same lane, or before the bounds.
#[inline(always)]
fn passed(old: Stamp, new: Stamp, bounds: Bounds) -> bool {
    let differs = old.0 ^ new.0;
    if differs >> TAG != 0 {
        return true;
    }
    if differs >> WARP == 0 {
        return old.time() < bounds.lanes || differs >> LANE == 0 && old.0 & MANY == 0;
    }
    differs >> BLOCK == 0 && old.time() < bounds.block
}

/// The history of a word or of a byte: the last write, the last read, and one by somebody else before.
pub trait History {
    fn get(&self, slot: usize) -> u64;
    fn set(&mut self, slot: usize, value: u64);
}

/// Slots of a history.
pub const SLOTS: usize = 3;
const WRITE: usize = 0;
const LAST: usize = 1;
const OTHER: usize = 2;

impl History for [u64; SLOTS] {
    #[inline(always)]
    fn get(&self, slot: usize) -> u64 {
        self[slot]
    }

    #[inline(always)]
    fn set(&mut self, slot: usize, value: u64) {
        self[slot] = value;
    }
}

impl History for &[AtomicU64; SLOTS] {
    #[inline(always)]
    fn get(&self, slot: usize) -> u64 {
        self[slot].load(Relaxed)
    }

    #[inline(always)]
    fn set(&mut self, slot: usize, value: u64) {
        self[slot].store(value, Relaxed);
    }
}

/// Notes a read that certainly conflicts with nothing; false if that is not certain, with nothing noted.
#[inline(always)]
pub fn plain_read(history: &mut impl History, new: Stamp, bounds: Bounds) -> bool {
    let old = history.get(WRITE);
    if old & (FINE | MANY) != 0 || !passed(Stamp(old), new, bounds) {
        return false;
    }
    note_read(history, new, bounds, true);
    true
}

/// Notes a write that certainly conflicts with nothing; false if that is not certain, with nothing noted.
#[inline(always)]
pub fn plain_write(history: &mut impl History, new: Stamp, bounds: Bounds) -> bool {
    let old = history.get(WRITE);
    let (last, other) = (history.get(LAST), history.get(OTHER));
    if old & (FINE | MANY) != 0
        || new.is_strong() && Stamp(old).weak()
        || !passed(Stamp(old), new, bounds)
        || !passed(Stamp(last), new, bounds)
        || !passed(Stamp(other), new, bounds)
    {
        return false;
    }
    history.set(WRITE, new.0);
    if last != 0 {
        history.set(LAST, 0);
    }
    if other != 0 {
        history.set(OTHER, 0);
    }
    true
}

/// Notes a read; the earlier writes that it may not know.
#[inline(never)]
pub fn read(history: &mut impl History, new: Stamp, bounds: Bounds) -> [Option<Conflict>; 2] {
    let old = Stamp(history.get(WRITE));
    let before = if old.many() { conflict(Stamp(history.get(OTHER)), new, bounds, false) } else { None };
    let found = [conflict(old.alone(), new, bounds, false), before];
    note_read(history, new, bounds, !old.many());
    found
}

#[inline(always)]
fn conflict(old: Stamp, new: Stamp, bounds: Bounds, read: bool) -> Option<Conflict> {
    if passed(old, new, bounds) { None } else { Some(Conflict { old, read, observed: false }) }
}

#[inline(always)]
fn note_read(history: &mut impl History, new: Stamp, bounds: Bounds, two: bool) {
    let last = Stamp(history.get(LAST));
    if (last.0 ^ new.0) & !(31 << LANE | MANY) == 0 {
        if last.0 & MANY == 0 && last.0 != new.0 {
            history.set(LAST, last.0 | MANY);
        }
        return;
    }
    // A plain read by the same lane stays known beside one that is not plain.
    let plainer = last.same_warp(new) && last.weak() && !new.weak();
    if two && (!passed(last, new, bounds) || plainer) {
        history.set(OTHER, last.0);
    }
    history.set(LAST, new.0);
}

/// Notes a write; the earlier writes and read that it may not know. Reads before a write need no memory of
/// their own: who comes after the write comes after them, or the write itself was a race.
///
/// An atomic write may meet others that nothing orders, so that who may meet it need not come after what it
/// comes after. One write stays known beside it: the plain one that it replaced, or an atomic one of another
/// warp that nothing orders.
#[inline(never)]
pub fn write(history: &mut impl History, new: Stamp, bounds: Bounds) -> [Option<Conflict>; 3] {
    let marked = Stamp(history.get(WRITE));
    if marked == new && history.get(LAST) == 0 && history.get(OTHER) == 0 {
        return [None; 3];
    }
    let old = marked.alone();
    let mut found = [conflict(old, new, bounds, false), None, None];
    let matters =
        |used: Stamp| used.tag() == new.tag() && !(used.block() == new.block() && used.time() < bounds.block);
    let mut hidden = Stamp::default();
    if new.is_strong() && old.weak() && matters(old)
        || found[0].is_some() && old.is_strong() && !new.weak() && !old.same_warp(new)
    {
        hidden = old;
    }
    let mut observed = false;
    for slot in [LAST, OTHER] {
        let used = Stamp(history.get(slot));
        if used.0 == 0 {
            continue;
        }
        if slot == OTHER && marked.many() {
            found[1] = conflict(used, new, bounds, false);
            if !new.weak() && matters(used) && (hidden.0 == 0 || used.weak()) {
                hidden = used;
            }
        } else {
            found[2] = found[2].or(conflict(used, new, bounds, true));
            // What anybody waits on is a flag, and changes hands by being read.
            observed |= !used.weak() && (used.same_warp(new) || used.waits() && used.tag() == new.tag());
        }
        history.set(slot, 0);
    }
    found[..2].iter_mut().flatten().for_each(|found| found.observed = observed);
    if hidden.0 != 0 {
        history.set(OTHER, hidden.0);
        history.set(WRITE, new.0 | MANY);
    } else if marked != new {
        history.set(WRITE, new.0);
    }
    found
}

/// Whether anything of the launch wrote.
pub fn written_in(history: &impl History, tag: u64) -> Option<Stamp> {
    let old = Stamp(history.get(WRITE));
    (old.tag() == tag).then_some(old)
}

/// A read or write by launch `tag` that fits, if one is still remembered.
pub fn used_by(history: &impl History, tag: u64, read: bool, fits: impl Fn(Stamp) -> bool) -> Option<Stamp> {
    let mark = history.get(WRITE);
    let beside = mark & MANY != 0;
    let slots: &[usize] = match (read, beside) {
        (true, false) => &[LAST, OTHER],
        (true, true) => &[LAST],
        (false, false) => &[WRITE],
        (false, true) => &[WRITE, OTHER],
    };
    let values = slots.iter().map(|slot| history.get(*slot)).filter(|value| value & FINE == 0);
    let stamps = values.map(|value| if read { Stamp(value) } else { Stamp(value).alone() });
    stamps.filter(|stamp| stamp.tag() == tag).find(|stamp| fits(*stamp))
}

/// Whether the word's bytes have histories of their own in this launch.
#[inline(always)]
pub fn is_fine(history: &impl History, tag: u64) -> bool {
    let mark = history.get(WRITE);
    mark & FINE != 0 && mark >> TAG == tag
}

/// Gives the word's bytes histories of their own.
pub fn make_fine(history: &mut impl History, tag: u64, mut byte: impl FnMut(usize, usize, u64)) {
    for slot in 0..SLOTS {
        let value = history.get(slot);
        (0..4).for_each(|at| byte(at, slot, value));
    }
    history.set(WRITE, tag << TAG | FINE);
    history.set(LAST, 0);
    history.set(OTHER, 0);
}
