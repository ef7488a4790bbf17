//! What is remembered of memory: beside each allocation a shadow with a part for each monitor, and one beside
//! a block's shared memory. Nothing is checked here.

mod histories;
pub mod history;
mod sectors;
mod shared;
mod uses;
mod written;

pub use histories::Histories;
pub use sectors::Sectors;
pub use shared::{Defect, SharedShadow};
pub use uses::{Meeting, Place, Use, Uses};
pub use written::Written;

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
