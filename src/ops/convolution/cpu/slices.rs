//! What the taps of a direct sum read, cut into pieces whose sums stay in registers.

use super::direct::Tap;
use super::tile::Segment;

/// Part of a sum: segments of a row, and the row of a panel that they begin with.
pub(super) struct Slice {
    pub first: usize,
    pub segments: Vec<Segment>,
}

/// The stretches of a pixel's window that the taps read, neighbours joined. `pitch` is a row of the window,
/// and a pixel has `each` factors.
pub(super) fn segments(taps: &[Tap], [top, left]: [isize; 2], pitch: usize, each: usize) -> Vec<Segment> {
    let mut segments: Vec<Segment> = Vec::new();
    for tap in taps {
        let start = (tap.row - top).unsigned_abs() * pitch + (tap.column - left).unsigned_abs() * each;
        match segments.last_mut() {
            Some(last) if last.start + last.len == start => last.len += each,
            _ => segments.push(Segment { start, len: each }),
        }
    }
    segments
}

/// Cuts segments into slices of at most `depth` factors.
pub(super) fn slices(segments: &[Segment], depth: usize) -> Vec<Slice> {
    let mut slices: Vec<Slice> = Vec::new();
    let (mut row, mut room) = (0, 0);
    for segment in segments {
        let mut at = 0;
        while at < segment.len {
            if room == 0 {
                slices.push(Slice { first: row, segments: Vec::new() });
                room = depth;
            }
            let len = room.min(segment.len - at);
            if let Some(slice) = slices.last_mut() {
                slice.segments.push(Segment { start: segment.start + at, len });
            }
            (at, row, room) = (at + len, row + len, room - len);
        }
    }
    slices
}
