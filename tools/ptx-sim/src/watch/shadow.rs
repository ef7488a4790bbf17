//! What is known of global memory: beside each allocation, a shadow with a part for each monitor.

use super::cost::Sectors;
use super::initialised::Written;
use super::races::Histories;

/// What is known of an allocation.
pub struct Shadow {
    pub written: Written,
    pub histories: Histories,
    pub sectors: Sectors,
}

impl Shadow {
    /// Of an allocation of that many bytes; None if the host has not the memory.
    pub fn new(bytes: usize) -> Option<Self> {
        let words = bytes.div_ceil(4);
        Some(Self {
            written: Written::new(words)?,
            histories: Histories::new(words)?,
            sectors: Sectors::new(bytes)?,
        })
    }
}

/// The words of an access and the bytes of each that it uses.
#[inline(always)]
pub fn words(offset: usize, bytes: u32) -> (std::ops::Range<usize>, u8) {
    let first = offset / 4;
    if bytes >= 4 {
        (first..first + bytes as usize / 4, 15)
    } else {
        (first..first + 1, ((1u8 << bytes) - 1) << (offset & 3))
    }
}
