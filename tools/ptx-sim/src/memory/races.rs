//! Who used a word last, packed into 64 bits, and when two uses are a race.
//!
//! A use is known by the launch, the block, the warp, how many barriers the block had passed (its phase) and how often the
//! block had published its work to others (its epoch). Two uses of the same byte, one of them a write and not both atomic,
//! are a race
//! - within a block, if the warps differ and neither the phase nor the epoch changed in between,
//! - between blocks, unless the later block knows of the earlier one's epoch (see `sync`).
//!
//! Counts that run out of bits stick at their end and are then never reported: rather a race missed than a false one.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const ATOMIC: u64 = 1 << 4;
const WARP: u32 = 5;
const PHASE: u32 = 10;
const EPOCH: u32 = 22;
const BLOCK: u32 = 31;
const TAG: u32 = 54;
/// Phases that can be told apart.
pub const MOST_PHASE: u64 = (1 << (EPOCH - PHASE)) - 1;
/// Epochs that can be told apart.
pub const MOST_EPOCH: u64 = (1 << (BLOCK - EPOCH)) - 1;
const MOST_BLOCK: u64 = (1 << (TAG - BLOCK)) - 1;
/// Launches that can be told apart before histories are cleared.
pub const MOST_TAG: u64 = (1 << 10) - 1;

/// One use of a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Use(pub u64);

impl Use {
    /// A use by a block's first warp, of no byte yet.
    pub fn new(tag: u64, block: u64, epoch: u64, phase: u64) -> Self {
        // Blocks beyond those that can be told apart take part only in races between blocks.
        let phase = if block > MOST_BLOCK { MOST_PHASE } else { phase };
        Self(
            tag << TAG
                | (block & MOST_BLOCK) << BLOCK
                | epoch.min(MOST_EPOCH) << EPOCH
                | phase.min(MOST_PHASE) << PHASE,
        )
    }

    #[inline(always)]
    pub fn by(self, warp: u32, atomic: bool) -> Self {
        Self(self.0 | u64::from(warp & 31) << WARP | if atomic { ATOMIC } else { 0 })
    }

    #[inline(always)]
    pub fn of_bytes(self, mask: u8) -> Self {
        Self(self.0 | u64::from(mask))
    }

    pub fn warp(self) -> u32 {
        (self.0 >> WARP & 31) as u32
    }

    pub fn block(self) -> u32 {
        (self.0 >> BLOCK & MOST_BLOCK) as u32
    }

    pub fn epoch(self) -> u32 {
        (self.0 >> EPOCH & MOST_EPOCH) as u32
    }

    fn phase(self) -> u64 {
        self.0 >> PHASE & MOST_PHASE
    }

    fn tag(self) -> u64 {
        self.0 >> TAG
    }

    fn bytes(self) -> u64 {
        self.0 & 15
    }

    /// The same but for the bytes.
    #[inline(always)]
    fn same(self, other: Self) -> bool {
        (self.0 ^ other.0) & !15 == 0
    }

    /// By the same warp of the same launch.
    #[inline(always)]
    fn same_warp(self, other: Self) -> bool {
        const WHO: u64 = (u64::MAX << BLOCK) | 31 << WARP;
        (self.0 ^ other.0) & WHO == 0
    }
}

/// What two uses are to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conflict {
    None,
    /// Of two warps of one block.
    Warps,
    /// Of two blocks, which is a race if the later one does not know the earlier one's epoch.
    Blocks,
}

#[inline(always)]
fn conflict(old: Use, new: Use) -> Conflict {
    if old.same_warp(new) || old.tag() != new.tag() {
        return Conflict::None;
    }
    different(old, new)
}

#[inline(never)]
fn different(old: Use, new: Use) -> Conflict {
    if old.bytes() & new.bytes() == 0 || old.0 & new.0 & ATOMIC != 0 {
        return Conflict::None;
    }
    if old.block() == new.block() {
        let sure = old.phase() != MOST_PHASE && u64::from(old.epoch()) != MOST_EPOCH;
        if sure && old.phase() == new.phase() && old.epoch() == new.epoch() {
            return Conflict::Warps;
        }
        return Conflict::None;
    }
    if u64::from(old.epoch()) == MOST_EPOCH { Conflict::None } else { Conflict::Blocks }
}

/// Notes a read; the earlier use it conflicts with, if one.
#[inline(always)]
pub fn read(history: &[AtomicU64], new: Use) -> Option<(Conflict, Use)> {
    let [write, last, other] = history else { return None };
    let old = Use(write.load(Relaxed));
    let found = match conflict(old, new) {
        Conflict::None => None,
        conflict => Some((conflict, old)),
    };
    note_read(last, other, new);
    found
}

#[inline(always)]
fn note_read(last: &AtomicU64, other: &AtomicU64, new: Use) {
    let before = Use(last.load(Relaxed));
    if before.same(new) {
        if before.0 | new.0 != before.0 {
            last.store(before.0 | new.0, Relaxed);
        }
        return;
    }
    if !before.same_warp(new) {
        other.store(before.0, Relaxed);
    }
    last.store(new.0, Relaxed);
}

/// Notes a write; the earlier use it conflicts with, if one, and whether that was a read.
#[inline(always)]
pub fn write(history: &[AtomicU64], new: Use) -> [Option<(Conflict, Use, bool)>; 2] {
    let [write, last, other] = history else { return [None, None] };
    let old = Use(write.load(Relaxed));
    let mut found = [None, None];
    if old.same(new) {
        write.store(old.0 | new.0, Relaxed);
    } else {
        let kind = conflict(old, new);
        if kind != Conflict::None {
            found[0] = Some((kind, old, false));
        }
        write.store(new.0, Relaxed);
    }
    for slot in [last, other] {
        let reader = Use(slot.load(Relaxed));
        let kind = conflict(reader, new);
        if kind != Conflict::None {
            found[1] = found[1].or(Some((kind, reader, true)));
        }
    }
    found
}
