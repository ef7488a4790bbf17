//! Which sectors of an allocation a launch touched.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

/// Words of bits that are looked at together: those of a megabyte.
const PAGE: usize = 512;

/// Which sectors of an allocation were touched: a bit for each of 32 bytes.
pub struct Sectors {
    read: Box<[AtomicU64]>,
    stored: Box<[AtomicU64]>,
    /// Pages of both that have bits.
    pages: Box<[AtomicBool]>,
    any: AtomicBool,
}

impl Sectors {
    /// None of so many bytes; None if the host has not the memory.
    pub fn new(bytes: usize) -> Option<Self> {
        let words = bytes.div_ceil(32).div_ceil(64);
        let pages = (0..words.div_ceil(PAGE)).map(|_| AtomicBool::new(false)).collect();
        Some(Self {
            read: try_zeroed_slice_box(words).ok()?,
            stored: try_zeroed_slice_box(words).ok()?,
            pages,
            any: AtomicBool::new(false),
        })
    }

    /// A sector is read or stored to.
    #[inline(always)]
    pub fn touch(&self, sector: usize, store: bool) {
        let bits = if store { &self.stored } else { &self.read };
        let (place, bit) = (&bits[sector / 64], 1u64 << (sector & 63));
        if place.load(Relaxed) & bit == 0 {
            place.fetch_or(bit, Relaxed);
            self.pages[sector / 64 / PAGE].store(true, Relaxed);
            self.any.store(true, Relaxed);
        }
    }

    /// Distinct sectors read and written since the last call.
    pub fn take(&self) -> (u64, u64) {
        if !self.any.swap(false, Relaxed) {
            return (0, 0);
        }
        let (mut read, mut stored) = (0, 0);
        let pages = self.pages.iter().zip(self.read.chunks(PAGE).zip(self.stored.chunks(PAGE)));
        for (_, (loads, stores)) in pages.filter(|(page, _)| page.swap(false, Relaxed)) {
            let count = |bits: &AtomicU64| u64::from(bits.swap(0, Relaxed).count_ones());
            read += loads.iter().map(count).sum::<u64>();
            stored += stores.iter().map(count).sum::<u64>();
        }
        (read, stored)
    }
}
