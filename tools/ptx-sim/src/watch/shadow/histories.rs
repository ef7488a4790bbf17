//! Histories of an allocation's words and, once one was used by itself, of its bytes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

use super::history::{self, SLOTS, Stamp};

/// Who used an allocation's words last.
pub struct Histories {
    words: Box<[AtomicU64]>,
    /// Of single bytes.
    fine: OnceLock<Box<[AtomicU64]>>,
}

impl Histories {
    /// Nobody used any of so many words; None if the host has not the memory.
    pub fn new(words: usize) -> Option<Self> {
        let words = try_zeroed_slice_box(words.checked_mul(SLOTS)?).ok()?;
        Some(Self { words, fine: OnceLock::new() })
    }

    /// A word's history.
    #[inline(always)]
    pub fn of(&self, word: usize) -> Option<&[AtomicU64; SLOTS]> {
        slots(&self.words, word)
    }

    /// Calls for the history of a word, or for those of its bytes where some were used alone in launch `tag`.
    #[inline(never)]
    pub fn each(&self, word: usize, mask: u8, tag: u64, mut f: impl FnMut(&mut &[AtomicU64; SLOTS])) {
        let Some(mut slots) = slots(&self.words, word) else { return };
        if mask == 15 && !history::is_fine(&slots, tag) {
            f(&mut slots);
        } else {
            self.each_byte(word, mask, tag, slots, f);
        }
    }

    #[inline(never)]
    fn each_byte(
        &self,
        word: usize,
        mask: u8,
        tag: u64,
        mut whole: &[AtomicU64; SLOTS],
        mut f: impl FnMut(&mut &[AtomicU64; SLOTS]),
    ) {
        let fine = self.fine.get_or_init(|| {
            // Without memory for them, single bytes are not checked.
            try_zeroed_slice_box(4 * self.words.len()).unwrap_or_default()
        });
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

    /// A read or write of bytes of a word by launch `tag`, a launch before the current one, if it is still remembered.
    pub fn used_by(&self, word: usize, mask: u8, tag: u64, read: bool) -> Option<Stamp> {
        let whole = slots(&self.words, word)?;
        if !history::is_fine(&whole, tag) {
            return history::used_by(&whole, tag, read);
        }
        let fine = self.fine.get()?;
        let bytes = (0..4).filter(|byte| mask >> byte & 1 != 0);
        bytes
            .filter_map(|byte| slots(fine, 4 * word + byte))
            .find_map(|slots| history::used_by(&slots, tag, read))
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
        for slot in self.words.iter().chain(self.fine.get().into_iter().flatten()) {
            // Looking first keeps pages that were never used out of memory.
            if slot.load(Relaxed) != 0 {
                slot.store(0, Relaxed);
            }
        }
    }
}

#[inline(always)]
fn slots(histories: &[AtomicU64], index: usize) -> Option<&[AtomicU64; SLOTS]> {
    histories[SLOTS * index..].first_chunk()
}
