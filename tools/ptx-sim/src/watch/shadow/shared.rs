//! What is known of a block's shared memory: which bytes were written, which a copy is still to fill, and who
//! used them.

use std::ops::Range;

use super::history::{self, Bounds, Conflict, SLOTS, Stamp};

/// What is known of a word.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    history: [u64; SLOTS],
    written: u8,
    /// Bytes that a copy is still to fill; the upper four bits: bytes that belong to nothing.
    pending: u8,
}

impl Word {
    /// Whether some of the bytes belong to nothing.
    fn outside(&self, mask: u8) -> bool {
        self.pending >> 4 & mask != 0
    }
}

/// Something wrong with an access.
#[derive(Clone, Copy, Debug)]
pub enum Defect {
    /// Some of it belongs to no variable.
    Outside,
    /// Nothing wrote all of it.
    Unwritten,
    /// An asynchronous copy is still to fill it.
    Pending,
    /// A race, unless what the warp knows orders the two.
    Conflict(Conflict),
}

/// The shadow of a block's shared memory.
#[derive(Debug, Default)]
pub struct SharedShadow {
    words: Vec<Word>,
    /// Histories of single bytes, once one was used.
    fine: Vec<[u64; SLOTS]>,
}

impl SharedShadow {
    /// Of that many bytes, of which nothing is known but that some belong to nothing.
    pub fn reset(&mut self, bytes: usize, gaps: &[Range<usize>]) {
        self.words.clear();
        self.words.resize(bytes.div_ceil(4), Word::default());
        self.fine.clear();
        for byte in gaps.iter().flat_map(Clone::clone) {
            self.words[byte / 4].pending |= 16 << (byte % 4);
        }
    }

    /// Notes a read of `bytes` bytes; what may be wrong with it.
    #[inline(always)]
    pub fn read(&mut self, offset: usize, bytes: u32, new: Stamp, bounds: Bounds) -> Option<Vec<Defect>> {
        let mut rest = (offset, bytes);
        while rest.1 >= 4 {
            let word = &mut self.words[rest.0 / 4];
            if (word.written, word.pending) != (15, 0) || !history::plain_read(&mut word.history, new, bounds)
            {
                return Some(self.checked_read(rest.0, rest.1, new, bounds));
            }
            rest = (rest.0 + 4, rest.1 - 4);
        }
        if rest.1 == 0 { None } else { Some(self.checked_read(rest.0, rest.1, new, bounds)) }
    }

    #[inline(never)]
    fn checked_read(&mut self, offset: usize, bytes: u32, new: Stamp, bounds: Bounds) -> Vec<Defect> {
        let mut found = Vec::new();
        let Self { words, fine, .. } = self;
        each_word(offset, bytes, |at, mask| {
            let word = &mut words[at];
            if word.outside(mask) {
                return found.push(Defect::Outside);
            } else if word.pending & mask != 0 {
                found.push(Defect::Pending);
            } else if word.written & mask != mask {
                found.push(Defect::Unwritten);
            }
            histories(word, fine, at, mask, new.tag(), |slots| {
                found.extend(history::read(slots, new, bounds).into_iter().flatten().map(Defect::Conflict));
            });
        });
        found
    }

    /// Notes a write, which makes the bytes written; what may be wrong with it.
    #[inline(always)]
    pub fn write(&mut self, offset: usize, bytes: u32, new: Stamp, bounds: Bounds) -> Option<Vec<Defect>> {
        let mut rest = (offset, bytes);
        while rest.1 >= 4 {
            let word = &mut self.words[rest.0 / 4];
            if word.pending != 0 || !history::plain_write(&mut word.history, new, bounds) {
                return Some(self.checked_write(rest.0, rest.1, new, bounds));
            }
            word.written = 15;
            rest = (rest.0 + 4, rest.1 - 4);
        }
        if rest.1 == 0 { None } else { Some(self.checked_write(rest.0, rest.1, new, bounds)) }
    }

    #[inline(never)]
    fn checked_write(&mut self, offset: usize, bytes: u32, new: Stamp, bounds: Bounds) -> Vec<Defect> {
        let mut found = Vec::new();
        let Self { words, fine, .. } = self;
        each_word(offset, bytes, |at, mask| {
            let word = &mut words[at];
            if word.outside(mask) {
                return found.push(Defect::Outside);
            } else if word.pending & mask != 0 {
                found.push(Defect::Pending);
            }
            word.written |= mask;
            histories(word, fine, at, mask, new.tag(), |slots| {
                found.extend(history::write(slots, new, bounds).into_iter().flatten().map(Defect::Conflict));
            });
        });
        found
    }

    /// Whether every byte belongs to a variable, was written and no copy is still to fill it.
    pub fn usable(&self, offset: usize, bytes: u32) -> Option<Defect> {
        let mut found = None;
        each_word(offset, bytes, |at, mask| {
            let word = &self.words[at];
            if word.outside(mask) {
                found = Some(Defect::Outside);
            } else if word.pending & mask != 0 {
                found = found.or(Some(Defect::Pending));
            } else if word.written & mask != mask {
                found = found.or(Some(Defect::Unwritten));
            }
        });
        found
    }

    /// An asynchronous copy into these bytes starts.
    pub fn begin_copy(
        &mut self,
        offset: usize,
        bytes: u32,
        new: Stamp,
        bounds: Bounds,
    ) -> Option<Vec<Defect>> {
        let known: [u8; 4] =
            std::array::from_fn(|word| self.words.get(offset / 4 + word).map_or(0, |w| w.written));
        let found = self.write(offset, bytes, new, bounds);
        for (word, written) in known.into_iter().enumerate().take(bytes as usize / 4) {
            let word = &mut self.words[offset / 4 + word];
            (word.written, word.pending) = (written, word.pending | 15);
        }
        found
    }

    /// It arrives.
    pub fn end_copy(&mut self, offset: usize, bytes: u32, new: Stamp, bounds: Bounds) {
        self.write(offset, bytes, new, bounds);
        for word in offset / 4..offset / 4 + bytes as usize / 4 {
            self.words[word].pending &= 0xF0;
        }
    }
}

/// Calls for the history of a word, or for those of its bytes where some were used alone.
#[inline(always)]
fn histories(
    word: &mut Word,
    fine: &mut Vec<[u64; SLOTS]>,
    at: usize,
    mask: u8,
    tag: u64,
    mut f: impl FnMut(&mut [u64; SLOTS]),
) {
    if mask == 15 && !history::is_fine(&word.history, tag) {
        return f(&mut word.history);
    }
    if fine.len() < 4 * at + 4 {
        fine.resize(4 * at + 4, [0; SLOTS]);
    }
    if !history::is_fine(&word.history, tag) {
        history::make_fine(&mut word.history, tag, |byte, slot, value| fine[4 * at + byte][slot] = value);
    }
    for byte in (0..4).filter(|byte| mask >> byte & 1 != 0) {
        f(&mut fine[4 * at + byte]);
    }
}

/// Calls for each word of a range with the mask of its bytes.
#[inline(always)]
fn each_word(offset: usize, bytes: u32, mut f: impl FnMut(usize, u8)) {
    if bytes >= 4 {
        for word in 0..bytes as usize / 4 {
            f(offset / 4 + word, 15);
        }
    } else {
        f(offset / 4, ((1u8 << bytes) - 1) << (offset & 3));
    }
}
