//! Which bytes of an allocation were written.

use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

/// What host reads see where nothing was written.
const POISON: u8 = 0xCD;

/// Which bytes of an allocation were written: a bit for each, a number for each word.
pub struct Written(Box<[AtomicU8]>);

impl Written {
    /// None of so many words; None if the host has not the memory.
    pub fn new(words: usize) -> Option<Self> {
        try_zeroed_slice_box(words).ok().map(Self)
    }

    /// Of a word.
    #[inline(always)]
    pub fn of(&self, word: usize) -> u8 {
        self.0[word].load(Relaxed)
    }

    /// Bytes of a word are written.
    #[inline(always)]
    pub fn add(&self, word: usize, mask: u8) {
        let old = self.0[word].load(Relaxed);
        if old & mask != mask {
            if mask == 15 {
                self.0[word].store(15, Relaxed);
            } else {
                self.0[word].fetch_or(mask, Relaxed);
            }
        }
    }

    /// The words that hold a range, and which of their bytes it covers.
    fn parts(&self, offset: usize, len: usize) -> impl Iterator<Item = (usize, u8, &AtomicU8)> {
        let (first, end) = (offset / 4, offset + len);
        self.0[first..end.div_ceil(4).max(first)].iter().enumerate().map(move |(at, written)| {
            let start = 4 * (first + at);
            let (from, to) = (offset.max(start) - start, end.min(start + 4) - start);
            (start, ((1u16 << to) - (1 << from)) as u8, written)
        })
    }

    /// The host writes a range.
    pub fn fill(&self, offset: usize, len: usize) {
        for (_, mask, written) in self.parts(offset, len) {
            written.store(written.load(Relaxed) | mask, Relaxed);
        }
    }

    /// The words from `to` on are as those `of` another allocation, or of this one.
    pub fn copy(&self, to: usize, from: &Self, of: Range<usize>) {
        for (to, from) in self.0[to..to + of.len()].iter().zip(&from.0[of]) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    /// A range counts as never written.
    pub fn forget(&self, offset: usize, len: usize) {
        for (_, mask, written) in self.parts(offset, len) {
            written.store(written.load(Relaxed) & !mask, Relaxed);
        }
    }

    /// Bytes of a range that nothing wrote.
    pub fn missing(&self, offset: usize, len: usize) -> usize {
        let missing = |(_, mask, written): (usize, u8, &AtomicU8)| mask & !written.load(Relaxed);
        self.parts(offset, len).map(|part| missing(part).count_ones() as usize).sum()
    }

    /// Puts 0xCD where nothing was written.
    pub fn poison(&self, offset: usize, out: &mut [u8]) {
        for (start, mask, written) in self.parts(offset, out.len()) {
            let missing = mask & !written.load(Relaxed);
            if missing != 0 {
                for byte in (0..4).filter(|byte| missing >> byte & 1 != 0) {
                    out[start + byte - offset] = POISON;
                }
            }
        }
    }
}
