//! Whether what is read was written: byte by byte, in global, shared and local memory.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use bytemuck::allocation::try_zeroed_slice_box;

use super::finding::FindingKind;
use super::report::Report;
use super::shadow::words;
use super::shared::Defect;
use crate::lanes::LANES;
use crate::monitor::{Position, Range};

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

    /// Reports a lane's access of bytes that nothing wrote.
    #[inline(always)]
    pub fn check(
        &self,
        report: &mut Report<'_>,
        at: Position,
        range: Range,
        allocation: usize,
        offset: usize,
    ) {
        let (words, mask) = words(offset, range.bytes);
        for word in words {
            if self.of(word) & mask != mask {
                unwritten(report, at, range, allocation, offset);
            }
        }
    }
}

#[cold]
fn unwritten(report: &mut Report<'_>, at: Position, range: Range, allocation: usize, offset: usize) {
    let allocation = report.subject.memory.get(allocation);
    let address = Some(allocation.base + offset as u64);
    report.note(at, range.lane as u32, FindingKind::Uninitialised, address, || {
        let (bytes, label) = (range.bytes, &allocation.label);
        format!("reads {bytes} bytes of {label:?} from byte {offset}, which nothing wrote all of")
    });
}

/// Reports shared memory that holds nothing yet.
#[cold]
pub fn empty_shared(
    report: &mut Report<'_>,
    at: Position,
    range: Range,
    offset: usize,
    (defect, writes): (Defect, bool),
) {
    let (bytes, does) = (range.bytes, if writes { "writes" } else { "reads" });
    let name = report.subject.shared_name(offset);
    let (kind, message) = match defect {
        Defect::Pending => (
            FindingKind::PendingCopy,
            format!(
                "{does} {bytes} bytes of shared memory at {name} that an asynchronous copy is still to fill"
            ),
        ),
        _ => (
            FindingKind::Uninitialised,
            format!("reads {bytes} bytes of shared memory at {name}, which nothing wrote all of"),
        ),
    };
    report.note(at, range.lane as u32, kind, Some(offset as u64), || message);
}

/// Which bytes of its warps' local memory were written.
#[derive(Debug, Default)]
pub struct LocalShadow {
    /// Of one lane.
    bytes: usize,
    /// Of each warp, lane after lane.
    written: Vec<Vec<bool>>,
}

impl LocalShadow {
    /// None of so many bytes a lane.
    pub fn reset(&mut self, warps: usize, bytes: usize) {
        self.bytes = bytes;
        self.written.resize_with(warps, Vec::new);
        for written in &mut self.written {
            written.clear();
            written.resize(bytes * LANES, false);
        }
    }

    fn of(&mut self, at: Position, range: Range, offset: usize) -> &mut [bool] {
        let start = range.lane * self.bytes + offset;
        &mut self.written[at.warp as usize][start..start + range.bytes as usize]
    }

    /// A lane writes.
    pub fn write(&mut self, at: Position, range: Range, offset: usize) {
        self.of(at, range, offset).fill(true);
    }

    /// Reports a lane's read of bytes that nothing wrote.
    pub fn check(&mut self, report: &mut Report<'_>, at: Position, range: Range, offset: usize) {
        if self.of(at, range, offset).contains(&false) {
            let (bytes, address) = (range.bytes, Some(offset as u64));
            report.note(at, range.lane as u32, FindingKind::Uninitialised, address, || {
                format!("reads {bytes} bytes at byte {offset} of local memory, which nothing wrote all of")
            });
        }
    }
}
