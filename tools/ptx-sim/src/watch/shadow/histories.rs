//! Histories of an allocation's words and, once one was used by itself, of its bytes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

use super::history::{self, SLOTS, Stamp};

/// Words of a piece. Pages that nobody touches cost nothing, but a system may refuse a single request for
/// more memory than it has, and histories take six times that of what they are about.
const PIECE: usize = 1 << 26;
/// Histories to be forgotten beyond which new memory of zeros is cheaper than a look at all of them.
const MANY: usize = 1 << 20;

/// Who used an allocation's words last.
pub struct Histories {
    first: Piece,
    /// Of words beyond the first piece.
    rest: Vec<Piece>,
}

#[derive(Default)]
struct Piece {
    words: Box<[AtomicU64]>,
    /// Of single bytes.
    fine: OnceLock<Box<[AtomicU64]>>,
}

impl Piece {
    fn new(words: usize) -> Option<Self> {
        let words = try_zeroed_slice_box(words * SLOTS).ok()?;
        Some(Self { words, fine: OnceLock::new() })
    }

    /// Histories of single bytes; none if the host has not the memory, and then bytes are not checked.
    fn fine(&self) -> &[AtomicU64] {
        self.fine.get_or_init(|| try_zeroed_slice_box(4 * self.words.len()).unwrap_or_default())
    }

    fn forget(&mut self) {
        if self.words.len() >= MANY
            && let Some(fresh) = Self::new(self.words.len() / SLOTS)
        {
            *self = fresh;
            return;
        }
        for slot in self.words.iter().chain(self.fine.get().into_iter().flatten()) {
            // Looking first keeps pages that were never used out of memory.
            if slot.load(Relaxed) != 0 {
                slot.store(0, Relaxed);
            }
        }
    }
}

impl Histories {
    /// Nobody used any of so many words; None if the host has not the memory.
    pub fn new(words: usize) -> Option<Self> {
        let first = Piece::new(words.min(PIECE))?;
        let starts = (PIECE..words).step_by(PIECE);
        let rest = starts.map(|start| Piece::new((words - start).min(PIECE))).collect::<Option<_>>()?;
        Some(Self { first, rest })
    }

    /// A word's piece and its place there.
    fn piece(&self, word: usize) -> Option<(&Piece, usize)> {
        match word.checked_sub(PIECE) {
            None => Some((&self.first, word)),
            Some(later) => Some((self.rest.get(later / PIECE)?, later % PIECE)),
        }
    }

    /// A word's history.
    #[inline(always)]
    pub fn of(&self, word: usize) -> Option<&[AtomicU64; SLOTS]> {
        match slots(&self.first.words, word) {
            None => self.later(word),
            found => found,
        }
    }

    #[cold]
    #[inline(never)]
    fn later(&self, word: usize) -> Option<&[AtomicU64; SLOTS]> {
        let (piece, word) = self.piece(word)?;
        slots(&piece.words, word)
    }

    /// Calls for the history of a word, or for those of its bytes where some were used alone in launch `tag`.
    #[inline(never)]
    pub fn each(&self, word: usize, mask: u8, tag: u64, mut f: impl FnMut(&mut &[AtomicU64; SLOTS])) {
        let Some(mut whole) = self.of(word) else { return };
        if mask == 15 && !history::is_fine(&whole, tag) {
            f(&mut whole);
        } else if let Some((piece, word)) = self.piece(word) {
            each_byte(piece.fine(), (word, mask, tag), whole, f);
        }
    }

    /// A read or write of bytes of a word by launch `tag`, one before the current one, that fits, if it is
    /// still remembered.
    pub fn used_by(
        &self,
        (word, mask): (usize, u8),
        tag: u64,
        read: bool,
        fits: impl Fn(Stamp) -> bool,
    ) -> Option<Stamp> {
        let whole = self.of(word)?;
        if !history::is_fine(&whole, tag) {
            return history::used_by(&whole, tag, read, fits);
        }
        let (piece, word) = self.piece(word)?;
        let bytes = (0..4).filter(|byte| mask >> byte & 1 != 0);
        bytes
            .filter_map(|byte| slots(piece.fine(), 4 * word + byte))
            .find_map(|slots| history::used_by(&slots, tag, read, &fits))
    }

    /// Stands for who last wrote a word in launch `tag`: it changes when anybody writes.
    pub fn last_write(&self, word: usize, tag: u64) -> u64 {
        let mut bytes = [None; 4];
        let mut at = 0;
        self.each(word, 15, tag, |slots| {
            bytes[at] = Some(slots[0].load(Relaxed));
            at += 1;
        });
        let first = bytes[0].unwrap_or(0);
        if bytes.iter().flatten().all(|byte| *byte == first) {
            return first;
        }
        bytes.iter().flatten().fold(1, |mark, byte| (mark ^ byte).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Forgets all: before launch tags are used again.
    pub fn forget(&mut self) {
        self.first.forget();
        self.rest.iter_mut().for_each(Piece::forget);
    }
}

#[inline(never)]
fn each_byte(
    fine: &[AtomicU64],
    (word, mask, tag): (usize, u8, u64),
    mut whole: &[AtomicU64; SLOTS],
    mut f: impl FnMut(&mut &[AtomicU64; SLOTS]),
) {
    if fine.is_empty() {
        return;
    }
    if !history::is_fine(&whole, tag) {
        history::make_fine(&mut whole, tag, |byte, slot, value| {
            fine[SLOTS * (4 * word + byte) + slot].store(value, Relaxed);
        });
    }
    for byte in (0..4).filter(|byte| mask >> byte & 1 != 0) {
        if let Some(mut slots) = slots(fine, 4 * word + byte) {
            f(&mut slots);
        }
    }
}

#[inline(always)]
fn slots(histories: &[AtomicU64], index: usize) -> Option<&[AtomicU64; SLOTS]> {
    histories.get(SLOTS * index..)?.first_chunk()
}
