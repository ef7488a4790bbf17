//! Whether what is read was written: byte by byte, in global, shared and local memory.

use super::finding::FindingKind;
use super::report::Report;
use super::shadow::{Defect, Written, words};
use crate::lanes::LANES;
use crate::monitor::{Position, Range};

/// Reports a lane's access of bytes that nothing wrote.
#[inline(always)]
pub fn check(
    report: &mut Report<'_>,
    written: &Written,
    at: Position,
    range: Range,
    (allocation, offset): (usize, usize),
) {
    let (words, mask) = words(offset, range.bytes);
    for word in words {
        if written.of(word) & mask != mask {
            unwritten(report, at, range, allocation, offset);
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

/// Reports shared memory that holds nothing, or nothing yet.
#[cold]
pub fn unusable_shared(
    report: &mut Report<'_>,
    at: Position,
    range: Range,
    offset: usize,
    (defect, writes): (Defect, bool),
) {
    let (bytes, does) = (range.bytes, if writes { "writes" } else { "reads" });
    let name = report.subject.shared_name(offset);
    let (kind, message) = match defect {
        Defect::Outside => {
            (FindingKind::OutOfBounds, format!("{does} {bytes} bytes of shared memory at {name}"))
        }
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
