//! Global memory: allocations far apart.
//!
//! Everything is atomic with relaxed order, which costs nothing over plain memory: blocks run on several host
//! threads, and a kernel may race; it must not become a race of this program.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

use crate::error::{Error, Result};
use crate::isa::SHARED_WINDOW;
use crate::lanes::LANES;

/// Where the first allocation starts. No address below is ever valid.
const FIRST: u64 = 0x1_0000_0000;
/// Of the addresses left, the part that stays unused after an allocation, so that overruns hit nothing: 16 GB
/// for the first thousand, gigabytes for the first twenty thousand.
const GAP_PART: u64 = 8192;
const LEAST_GAP: u64 = 4096;
const ALIGNMENT: u64 = 256;
/// Memory that was allocated at once.
pub struct Allocation {
    /// Its first address.
    pub base: u64,
    /// Its length.
    pub bytes: u64,
    /// As findings name it.
    pub label: String,
    words: Box<[AtomicU32]>,
}

impl Allocation {
    /// None if the host has not that much memory.
    fn new(base: u64, bytes: usize, label: &str) -> Option<Self> {
        let words = try_zeroed_slice_box(bytes.div_ceil(4)).ok()?;
        Some(Self { base, bytes: bytes as u64, label: label.to_string(), words })
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

    /// Stores bytes from the host.
    pub fn put(&self, offset: usize, len: usize, byte: impl Fn(usize) -> u8) {
        let mut at = 0;
        while at < len {
            let place = offset + at;
            if place.is_multiple_of(4) && len - at >= 4 {
                let word = u32::from_le_bytes([byte(at), byte(at + 1), byte(at + 2), byte(at + 3)]);
                self.words[place / 4].store(word, Relaxed);
                at += 4;
            } else {
                self.store(place, 1, u64::from(byte(at)), true);
                at += 1;
            }
        }
    }

    /// Stores the words `of` another allocation, or of this one, from the word `to` on.
    pub fn copy_words(&self, to: usize, from: &Self, of: Range<usize>) {
        for (to, from) in self.words[to..to + of.len()].iter().zip(&from.words[of]) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }

    /// Copies bytes to the host.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        let (mut at, len) = (0, out.len());
        while at < len {
            let place = offset + at;
            if place.is_multiple_of(4) && len - at >= 4 {
                out[at..at + 4].copy_from_slice(&self.words[place / 4].load(Relaxed).to_le_bytes());
                at += 4;
            } else {
                out[at] = self.load(place, 1) as u8;
                at += 1;
            }
        }
    }
}

/// Where the lanes of an access lie in global memory.
pub struct Placed {
    /// The allocation, if it is the same for all.
    pub single: Option<usize>,
    /// Otherwise that of each lane.
    pub each: [u32; LANES],
    /// Lanes that lie in one.
    pub mask: u32,
}

impl Placed {
    /// The allocation of a lane.
    #[inline(always)]
    pub fn index(&self, lane: usize) -> usize {
        self.single.unwrap_or(self.each[lane] as usize)
    }
}

/// All allocations, in the order of their addresses.
pub struct Memory {
    allocations: Vec<Allocation>,
    next: u64,
    /// The last ones freed, for explanations.
    freed: VecDeque<(u64, u64, String)>,
}

impl Memory {
    /// No memory.
    pub fn new() -> Self {
        Self { allocations: Vec::new(), next: FIRST, freed: VecDeque::new() }
    }

    /// Memory of zeros, after all that there is.
    ///
    /// # Errors
    /// The host has not that much memory.
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

    /// Gives an allocation back, and says which it was.
    ///
    /// # Errors
    /// No allocation starts there.
    pub fn free(&mut self, address: u64) -> Result<usize> {
        let found = self.allocations.binary_search_by_key(&address, |allocation| allocation.base);
        let index = found.map_err(|_| Error::new(format!("free: no allocation starts at {address:#x}")))?;
        let gone = self.allocations.remove(index);
        if self.freed.len() == 64 {
            self.freed.pop_front();
        }
        self.freed.push_back((gone.base, gone.bytes, gone.label));
        Ok(index)
    }

    /// An allocation by its index.
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

    /// The allocation that holds a range, and where in it that starts.
    ///
    /// # Errors
    /// The range lies in no allocation.
    pub fn locate(&self, address: u64, len: usize, doing: &str) -> Result<(usize, usize)> {
        let mut hint = usize::MAX;
        let index = self.find(address, len as u64, &mut hint).ok_or_else(|| {
            Error::new(format!("{doing} {len} bytes at {address:#x}: {}", self.explain(address)))
        })?;
        Ok((index, (address - self.allocations[index].base) as usize))
    }
}
