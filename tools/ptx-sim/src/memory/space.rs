//! Global memory: allocations far apart, with for each word its value, which of its bytes were written, who used it last in
//! this launch, and which sectors a launch touched.
//!
//! Everything is atomic with relaxed order, which costs nothing over plain memory: blocks run on several host threads, and
//! a kernel may race; it must not become a race of this program.

use std::collections::VecDeque;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

use super::races::{self, SLOTS};
use crate::error::{Error, Result};
use crate::isa::SHARED_WINDOW;

/// Where the first allocation starts. No address below is ever valid.
const FIRST: u64 = 0x1_0000_0000;
/// Of the addresses left, the part that stays unused after an allocation, so that overruns hit nothing: 16 GB for the first
/// thousand, gigabytes for the first twenty thousand.
const GAP_PART: u64 = 8192;
const LEAST_GAP: u64 = 4096;
const ALIGNMENT: u64 = 256;
/// What host reads see where nothing was written.
pub const POISON: u8 = 0xCD;

pub struct Allocation {
    pub base: u64,
    pub bytes: u64,
    pub label: String,
    words: Box<[AtomicU32]>,
    /// A bit for each byte of a word that was written.
    written: Box<[AtomicU8]>,
    history: Box<[AtomicU64]>,
    /// Histories of single bytes, once one was used by itself.
    fine: OnceLock<Box<[AtomicU64]>>,
    read: Box<[AtomicU64]>,
    stored: Box<[AtomicU64]>,
    touched: AtomicBool,
}

impl Allocation {
    /// None if the host has not that much memory.
    fn new(base: u64, bytes: usize, label: &str) -> Option<Self> {
        let words = bytes.div_ceil(4);
        let sectors = bytes.div_ceil(32).div_ceil(64);
        Some(Self {
            base,
            bytes: bytes as u64,
            label: label.to_string(),
            words: try_zeroed_slice_box(words).ok()?,
            written: try_zeroed_slice_box(words).ok()?,
            history: try_zeroed_slice_box(words.checked_mul(SLOTS)?).ok()?,
            fine: OnceLock::new(),
            read: try_zeroed_slice_box(sectors).ok()?,
            stored: try_zeroed_slice_box(sectors).ok()?,
            touched: AtomicBool::new(false),
        })
    }

    /// `width` is 1, 2, 4 or 8 and the offset a multiple of it, inside the allocation.
    #[inline(always)]
    pub fn load(&self, offset: usize, width: u32) -> u64 {
        match width {
            4 => u64::from(self.words[offset / 4].load(Relaxed)),
            8 => {
                let low = self.words[offset / 4].load(Relaxed);
                let high = self.words[offset / 4 + 1].load(Relaxed);
                u64::from(high) << 32 | u64::from(low)
            }
            _ => {
                let word = self.words[offset / 4].load(Relaxed) >> (8 * (offset & 3));
                u64::from(if width == 1 { word & 0xFF } else { word & 0xFFFF })
            }
        }
    }

    /// The same for stores. `alone` says that no other host thread runs.
    #[inline(always)]
    pub fn store(&self, offset: usize, width: u32, value: u64, alone: bool) {
        match width {
            4 => self.words[offset / 4].store(value as u32, Relaxed),
            8 => {
                self.words[offset / 4].store(value as u32, Relaxed);
                self.words[offset / 4 + 1].store((value >> 32) as u32, Relaxed);
            }
            _ => {
                let shift = 8 * (offset & 3) as u32;
                let kept = if width == 1 { 0xFFu32 } else { 0xFFFF } << shift;
                let merged = |old: u32| old & !kept | (value as u32) << shift & kept;
                let word = &self.words[offset / 4];
                if alone {
                    word.store(merged(word.load(Relaxed)), Relaxed);
                } else {
                    let _ = word.fetch_update(Relaxed, Relaxed, |old| Some(merged(old)));
                }
            }
        }
    }

    /// Which of the bytes `mask` of a word were written.
    #[inline(always)]
    pub fn written(&self, word: usize) -> u8 {
        self.written[word].load(Relaxed)
    }

    #[inline(always)]
    pub fn set_written(&self, word: usize, mask: u8) {
        let old = self.written[word].load(Relaxed);
        if old & mask != mask {
            if mask == 15 {
                self.written[word].store(15, Relaxed);
            } else {
                self.written[word].fetch_or(mask, Relaxed);
            }
        }
    }

    /// A word's history.
    #[inline(always)]
    pub fn history(&self, word: usize) -> Option<&[AtomicU64; SLOTS]> {
        slots(&self.history, word)
    }

    /// Calls for the history of a word, or for those of its bytes where some were used alone in launch `tag`.
    #[inline(never)]
    pub fn histories(&self, word: usize, mask: u8, tag: u64, mut f: impl FnMut(&mut &[AtomicU64; SLOTS])) {
        let Some(mut history) = slots(&self.history, word) else { return };
        if mask == 15 && !races::is_fine(&history, tag) {
            f(&mut history);
        } else {
            self.fine_histories(word, mask, tag, history, f);
        }
    }

    #[inline(never)]
    fn fine_histories(
        &self,
        word: usize,
        mask: u8,
        tag: u64,
        mut history: &[AtomicU64; SLOTS],
        mut f: impl FnMut(&mut &[AtomicU64; SLOTS]),
    ) {
        let fine = self.fine.get_or_init(|| {
            // Without memory for them, single bytes are not checked.
            try_zeroed_slice_box(4 * self.history.len()).unwrap_or_default()
        });
        if fine.is_empty() {
            return;
        }
        if !races::is_fine(&history, tag) {
            races::make_fine(&mut history, tag, |byte, slot, value| {
                fine[SLOTS * (4 * word + byte) + slot].store(value, Relaxed);
            });
        }
        for byte in (0..4).filter(|byte| mask >> byte & 1 != 0) {
            if let Some(mut history) = slots(fine, 4 * word + byte) {
                f(&mut history);
            }
        }
    }

    /// Stands for who last wrote a word in launch `tag`: it changes when anybody writes.
    pub fn last_write(&self, word: usize, tag: u64) -> u64 {
        let mut bytes = [None; 4];
        let mut at = 0;
        self.histories(word, 15, tag, |history| {
            bytes[at] = Some(history[0].load(Relaxed));
            at += 1;
        });
        let first = bytes[0].unwrap_or(0);
        if bytes.iter().flatten().all(|byte| *byte == first) {
            return first;
        }
        bytes.iter().flatten().fold(1, |mark, byte| (mark ^ byte).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    /// Notes that a sector was read or stored to.
    #[inline(always)]
    pub fn touch(&self, sector: usize, store: bool) {
        let bits = if store { &self.stored } else { &self.read };
        let (place, bit) = (&bits[sector / 64], 1u64 << (sector & 63));
        if place.load(Relaxed) & bit == 0 {
            place.fetch_or(bit, Relaxed);
            self.touched.store(true, Relaxed);
        }
    }

    /// Distinct sectors read and written since the last call.
    fn take_touched(&self) -> (u64, u64) {
        if !self.touched.swap(false, Relaxed) {
            return (0, 0);
        }
        let take = |bits: &[AtomicU64]| bits.iter().map(|b| u64::from(b.swap(0, Relaxed).count_ones())).sum();
        (take(&self.read), take(&self.stored))
    }

    fn forget_history(&self) {
        for slot in self.history.iter().chain(self.fine.get().into_iter().flatten()) {
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

/// All allocations, in the order of their addresses.
pub struct Memory {
    allocations: Vec<Allocation>,
    next: u64,
    /// The last ones freed, for explanations.
    freed: VecDeque<(u64, u64, String)>,
}

impl Memory {
    pub fn new() -> Self {
        Self { allocations: Vec::new(), next: FIRST, freed: VecDeque::new() }
    }

    pub fn allocate(&mut self, bytes: usize, label: &str) -> u64 {
        self.try_allocate(bytes, label).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn try_allocate(&mut self, bytes: usize, label: &str) -> Result<u64> {
        let base = self.next;
        let new = Allocation::new(base, bytes, label);
        let new = new.ok_or_else(|| Error::new(format!("no memory for {label:?} of {bytes} bytes")))?;
        let end = base + bytes as u64;
        let gap = (SHARED_WINDOW.saturating_sub(end) / GAP_PART).max(LEAST_GAP);
        self.next = (end + gap).next_multiple_of(ALIGNMENT);
        self.allocations.push(new);
        Ok(base)
    }

    pub fn free(&mut self, address: u64) -> Result<()> {
        let found = self.allocations.binary_search_by_key(&address, |allocation| allocation.base);
        let index = found.map_err(|_| Error::new(format!("free: no allocation starts at {address:#x}")))?;
        let gone = self.allocations.remove(index);
        if self.freed.len() == 64 {
            self.freed.pop_front();
        }
        self.freed.push_back((gone.base, gone.bytes, gone.label));
        Ok(())
    }

    #[inline]
    pub fn get(&self, index: usize) -> &Allocation {
        &self.allocations[index]
    }

    /// The allocation that holds `bytes` bytes from `address`; `hint` is where the last one was found.
    #[inline]
    pub fn find(&self, address: u64, bytes: u64, hint: &mut usize) -> Option<usize> {
        let holds = |allocation: &Allocation| {
            address >= allocation.base
                && address - allocation.base <= allocation.bytes
                && allocation.bytes - (address - allocation.base) >= bytes
        };
        if self.allocations.get(*hint).is_some_and(holds) {
            return Some(*hint);
        }
        let after = self.allocations.partition_point(|allocation| allocation.base <= address);
        let index = after.checked_sub(1)?;
        if holds(&self.allocations[index]) {
            *hint = index;
            return Some(index);
        }
        None
    }

    /// Where an address lies that no allocation holds.
    pub fn explain(&self, address: u64) -> String {
        for (base, bytes, label) in self.freed.iter().rev() {
            if address >= *base && address - base < *bytes {
                return format!("byte {} of {label:?}, which was freed", address - base);
            }
        }
        let after = self.allocations.partition_point(|allocation| allocation.base <= address);
        let before = after.checked_sub(1).map(|index| &self.allocations[index]);
        let next = self.allocations.get(after).filter(|next| next.base - address <= LEAST_GAP);
        if let Some(before) = before
            && next.is_none()
            && address < self.next
        {
            let past = address - before.base;
            return if past < before.bytes {
                format!("byte {past} of {:?} ({} bytes), reaching past its end", before.label, before.bytes)
            } else {
                format!(
                    "{} bytes past the end of {:?} ({} bytes)",
                    past - before.bytes,
                    before.label,
                    before.bytes
                )
            };
        }
        if let Some(next) = next {
            return format!("{} bytes before {:?}", next.base - address, next.label);
        }
        "no allocation is near".into()
    }

    fn range(&self, address: u64, len: usize, doing: &str) -> Result<(&Allocation, usize)> {
        let mut hint = usize::MAX;
        match self.find(address, len as u64, &mut hint) {
            Some(index) => {
                let allocation = &self.allocations[index];
                Ok((allocation, (address - allocation.base) as usize))
            }
            None => {
                Err(Error::new(format!("{doing} {len} bytes at {address:#x}: {}", self.explain(address))))
            }
        }
    }

    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        let (allocation, offset) = self.range(address, bytes.len(), "write")?;
        self.put(allocation, offset, bytes.len(), |at| bytes[at]);
        Ok(())
    }

    pub fn fill(&self, address: u64, len: usize, byte: u8) -> Result<()> {
        let (allocation, offset) = self.range(address, len, "fill")?;
        self.put(allocation, offset, len, |_| byte);
        Ok(())
    }

    fn put(&self, allocation: &Allocation, offset: usize, len: usize, byte: impl Fn(usize) -> u8) {
        let mut at = 0;
        while at < len {
            let place = offset + at;
            if place.is_multiple_of(4) && len - at >= 4 {
                let word = u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
                allocation.words[place / 4].store(word, Relaxed);
                allocation.written[place / 4].store(15, Relaxed);
                at += 4;
            } else {
                allocation.store(place, 1, u64::from(byte(at)), true);
                allocation.set_written(place / 4, 1 << (place & 3));
                at += 1;
            }
        }
    }

    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        let (allocation, offset) = self.range(address, out.len(), "read")?;
        let (mut at, len) = (0, out.len());
        while at < len {
            let place = offset + at;
            let word = place / 4;
            if place.is_multiple_of(4) && len - at >= 4 && allocation.written(word) == 15 {
                out[at..at + 4].copy_from_slice(&allocation.words[word].load(Relaxed).to_le_bytes());
                at += 4;
            } else {
                let known = allocation.written(word) >> (place & 3) & 1 != 0;
                out[at] = if known { allocation.load(place, 1) as u8 } else { POISON };
                at += 1;
            }
        }
        Ok(())
    }

    /// Bytes of the range that nothing wrote; all of them where there is no allocation.
    pub fn uninitialised(&self, address: u64, len: usize) -> usize {
        let Ok((allocation, offset)) = self.range(address, len, "look at") else {
            return len;
        };
        (offset..offset + len).filter(|at| allocation.written(at / 4) >> (at & 3) & 1 == 0).count()
    }

    pub fn forget(&self, address: u64, len: usize) -> Result<()> {
        let (allocation, offset) = self.range(address, len, "forget")?;
        for at in offset..offset + len {
            allocation.written[at / 4].fetch_and(!(1 << (at & 3)), Relaxed);
        }
        Ok(())
    }

    /// Distinct sectors read and written since the last call, over all allocations.
    pub fn take_touched(&self) -> (u64, u64) {
        self.allocations.iter().map(Allocation::take_touched).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    }

    /// Forgets who used what: before launch tags are used again.
    pub fn forget_history(&self) {
        self.allocations.iter().for_each(Allocation::forget_history);
    }
}
