//! Which of a group of launches used each byte of an allocation, and how.
//!
//! The launches are divided into chains, in each of which every launch comes after the one before it. Of each
//! byte, chain and way of use only the last launch has to be known: what comes after that one comes after
//! those before it too. So nothing is forgotten, however many launches there are.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

/// A way to use memory. Block-wide atomics are plain to other launches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A plain read.
    Read,
    /// An atomic or volatile read.
    AtomicRead,
    /// A plain or volatile write.
    Write,
    /// An atomic write.
    AtomicWrite,
}

impl Use {
    /// Whether it reads only.
    pub fn reads(self) -> bool {
        matches!(self, Self::Read | Self::AtomicRead)
    }

    /// Earlier uses that it must not meet unordered.
    fn conflicts(self) -> &'static [Self] {
        use Use::{AtomicRead, AtomicWrite, Read, Write};
        match self {
            Read => &[Write, AtomicWrite],
            AtomicRead => &[Write],
            Write => &[Read, AtomicRead, Write, AtomicWrite],
            AtomicWrite => &[Read, Write],
        }
    }
}

/// Rows of a chain: one for each way of use, and one for its first write.
const ROWS: usize = 5;
const FIRST_WRITE: usize = 4;

/// A launch's place among the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub chain: usize,
    /// Counted from 1 in its chain.
    pub step: u8,
    /// Of each chain, how many of its launches come before this one; of its own, this one too.
    pub after: Vec<u8>,
}

/// An earlier use by a launch that does not come before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meeting {
    pub chain: usize,
    pub step: u8,
    pub way: Use,
}

/// The uses of one allocation: for each word a row of four bytes, a number of a launch for each of its bytes,
/// of every chain and way; and a row that marks bytes of which the group's launches made the first write
/// ever.
pub struct Uses {
    pieces: Vec<Box<[AtomicU32]>>,
    chains: usize,
}

/// Words of a piece: a system may refuse a single request for more memory than it has, though little of it
/// will be touched.
const PIECE: usize = 1 << 20;

impl Uses {
    /// None yet of so many words; None if the host has not the memory.
    pub fn new(words: usize, chains: usize) -> Option<Self> {
        let each = ROWS * chains + 1;
        let starts = (0..words).step_by(PIECE);
        let pieces = starts.map(|start| try_zeroed_slice_box(each * (words - start).min(PIECE)).ok());
        Some(Self { pieces: pieces.collect::<Option<_>>()?, chains })
    }

    fn rows(&self, word: usize) -> &[AtomicU32] {
        let (each, at) = (ROWS * self.chains + 1, word % PIECE);
        &self.pieces[word / PIECE][each * at..each * (at + 1)]
    }

    /// Notes that a launch uses bytes of a word. `unwritten`: those that nothing had written.
    pub fn note(&self, word: usize, mask: u8, by: &Place, way: Use, unwritten: u8) {
        let rows = self.rows(word);
        let own = &rows[ROWS * by.chain..ROWS * (by.chain + 1)];
        let all = u32::from(by.step) * 0x0101_0101;
        set(&own[way as usize], spread(mask), all);
        if !way.reads() {
            let old = own[FIRST_WRITE].load(Relaxed);
            let missing = (0..4).filter(|byte| old >> (8 * byte) & 255 == 0);
            set(&own[FIRST_WRITE], spread(mask & missing.fold(0, |bits, byte| bits | 1 << byte)), all);
            set(&rows[ROWS * self.chains], spread(mask & unwritten), u32::MAX);
        }
    }

    /// Calls for each earlier use of these bytes that a launch must not meet unordered and does.
    pub fn meetings(&self, word: usize, mask: u8, by: &Place, way: Use, mut f: impl FnMut(Meeting)) {
        let rows = self.rows(word);
        for chain in (0..self.chains).filter(|chain| *chain != by.chain) {
            for other in way.conflicts() {
                let steps = rows[ROWS * chain + *other as usize].load(Relaxed) & spread(mask);
                let last = steps.to_le_bytes().into_iter().max().unwrap_or(0);
                if last > by.after[chain] {
                    f(Meeting { chain, step: last, way: *other });
                }
            }
        }
    }

    /// Whether bytes were first written by launches of the group of which none comes before this one: had it
    /// run before them, as it may, it would have found nothing there.
    pub fn may_be_unwritten(&self, word: usize, mask: u8, by: &Place) -> bool {
        let rows = self.rows(word);
        let fresh = rows[ROWS * self.chains].load(Relaxed) & spread(mask);
        if fresh == 0 {
            return false;
        }
        (0..4).filter(|byte| fresh >> (8 * byte) & 255 != 0).any(|byte| {
            let first = |chain: usize| rows[ROWS * chain + FIRST_WRITE].load(Relaxed) >> (8 * byte) & 255;
            !(0..self.chains).any(|chain| (1..=u32::from(by.after[chain])).contains(&first(chain)))
        })
    }
}

/// A byte of ones for each bit.
fn spread(mask: u8) -> u32 {
    (0..4).fold(0, |bits, byte| bits | if mask >> byte & 1 != 0 { 255 << (8 * byte) } else { 0 })
}

fn set(row: &AtomicU32, bits: u32, value: u32) {
    let old = row.load(Relaxed);
    if (old ^ value) & bits != 0 {
        let _ = row.fetch_update(Relaxed, Relaxed, |old| Some(old & !bits | value & bits));
    }
}
