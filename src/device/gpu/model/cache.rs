//! How much of what kernels ask for the caches keep: the L1 of a multiprocessor by replaying the addresses
//! that its blocks gather, the L2 by following what launches read and write in their order.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::device::gpu::launch::Address;
use crate::device::gpu::work::{Gather, GatherOrder, Span, Work};

/// Bytes of a line of the L1 cache, which is filled in sectors.
const LINE: usize = 128;
/// Bytes of a sector.
const SECTOR: usize = 32;
/// Steps of the blocks that are replayed at most: a hit rate settles within a few rows of an image.
const MOST_STEPS: usize = 144;

/// A cache of whole lines that forgets the one that was not used for longest.
struct LeastRecent {
    lines: usize,
    /// Of each line in the cache: when it was used last, and which sectors it has.
    held: HashMap<i64, (u64, u8)>,
    /// Lines by when they were used last.
    by_age: BTreeMap<u64, i64>,
    now: u64,
    /// Bytes of all copies, those asked for, and those missed. Copies of what lies outside an image ask for
    /// nothing: they are zeros.
    copied: usize,
    asked: usize,
    missed: usize,
}

impl LeastRecent {
    fn new(lines: usize) -> Self {
        Self { lines, held: HashMap::new(), by_age: BTreeMap::new(), now: 0, copied: 0, asked: 0, missed: 0 }
    }

    /// Asks for the sectors of `bytes` from `address` on.
    fn ask(&mut self, address: i64, bytes: usize) {
        for offset in (0..bytes).step_by(SECTOR) {
            let at = address + offset as i64;
            let (line, sector) = (at.div_euclid(LINE as i64), at.rem_euclid(LINE as i64) as usize / SECTOR);
            self.now += 1;
            self.asked += SECTOR;
            let (used, sectors) = self.held.get(&line).copied().unwrap_or((0, 0));
            if sectors >> sector & 1 == 0 {
                self.missed += SECTOR;
            }
            if sectors != 0 {
                self.by_age.remove(&used);
            }
            self.held.insert(line, (self.now, sectors | 1 << sector));
            self.by_age.insert(self.now, line);
            if self.held.len() > self.lines
                && let Some((_, oldest)) = self.by_age.pop_first()
            {
                self.held.remove(&oldest);
            }
        }
    }
}

/// What blocks side by side on a multiprocessor ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Residents {
    /// Blocks on it at once.
    pub blocks: usize,
    /// From one of them to the next in the order of the launch: the multiprocessors there are.
    pub apart: usize,
    /// Steps of each.
    pub steps: usize,
    /// Lines of its L1 cache.
    pub lines: usize,
}

/// What the L1 cache leaves of what blocks gather.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gathered {
    /// Bytes that L2 is asked for, over those that are copied.
    pub from_l2: f64,
    /// Bytes that L1 has, over those that it is asked for.
    pub hits: f64,
}

/// What the L1 cache leaves of what blocks gather side by side.
pub fn gathered(gather: &Gather, residents: Residents) -> Gathered {
    let mut cache = LeastRecent::new(residents.lines);
    for step in 0..residents.steps.min(MOST_STEPS) {
        for resident in 0..residents.blocks {
            match gather.order {
                GatherOrder::Points { .. } => points(gather, resident * residents.apart, step, &mut cache),
                GatherOrder::Columns { .. } => columns(gather, resident * residents.apart, step, &mut cache),
                // Around the cache.
                GatherOrder::Halo { .. } => {}
            }
        }
    }
    let share = |part: usize, of: usize| if of == 0 { 0.0 } else { part as f64 / of as f64 };
    Gathered {
        from_l2: share(cache.missed, cache.copied),
        hits: share(cache.asked - cache.missed, cache.asked),
    }
}

/// About the same without replaying an address, for what is to be known at once: where the lines fit that a
/// block comes back to, it asks for every pixel once; where a part of them does, for that part.
pub fn estimated(gather: &Gather, residents: Residents) -> Gathered {
    match gather.order {
        GatherOrder::Points { points, .. } => estimated_points(gather, residents, points),
        GatherOrder::Columns { bytes, across, .. } => estimated_columns(gather, residents, bytes, across),
        // Around the cache.
        GatherOrder::Halo { .. } => Gathered { from_l2: 1.0, hits: 0.0 },
    }
}

/// Of blocks that keep their points: what a tap asks for again is all that those before it asked for.
fn estimated_points(gather: &Gather, residents: Residents, points: usize) -> Gathered {
    let taps = gather.taps.len();
    // Pixels that the taps of a block's points take, those around them included.
    let around = if taps > 1 { 2 * gather.image[1] } else { 0 };
    let distinct = (points * gather.stride * gather.stride + around).min(points * taps);
    let needed = residents.blocks * distinct * gather.pixel_bytes.min(LINE) / LINE;
    let kept = (residents.lines as f64 / needed.max(1) as f64).min(1.0);
    let hits = kept * (1.0 - distinct as f64 / (points * taps) as f64);
    Gathered { from_l2: 1.0 - hits, hits }
}

/// Of blocks that keep their taps, the mean of the blocks that cover all taps: where a tap was, another of
/// the same block comes some points later, and finds what is still there after all that was touched
/// meanwhile.
fn estimated_columns(gather: &Gather, residents: Residents, bytes: usize, across: usize) -> Gathered {
    let end = gather.taps.len() * gather.pixel_bytes;
    let (mut asked, mut missed) = (0.0, 0.0);
    for from in (0..across).map(|block| block * bytes) {
        let tracks = tracks(gather, from..(from + bytes).min(end));
        // Lines that the blocks side by side touch while each goes on by so many points.
        let touched = |points: isize| {
            let of = |two: &[Visit]| points.min(two[0].ahead - two[1].ahead);
            let of = |track: &Vec<Visit>| points + track.windows(2).map(of).sum::<isize>();
            let sectors = tracks.values().map(of).sum::<isize>() * residents.blocks as isize;
            (sectors * SECTOR as isize) as f64 / LINE as f64
        };
        for track in tracks.values() {
            let kept = |two: &[Visit]| residents.lines as f64 / touched(two[0].ahead - two[1].ahead);
            let kept = std::iter::once(0.0).chain(track.windows(2).map(kept));
            for (visit, kept) in track.iter().zip(kept) {
                asked += visit.inside;
                missed += visit.inside * (1.0 - kept.min(1.0));
            }
        }
    }
    let copied = (across * bytes) as f64 / SECTOR as f64;
    Gathered { from_l2: missed / copied, hits: if asked > 0.0 { 1.0 - missed / asked } else { 0.0 } }
}

/// A tap of a block on its way over the points.
struct Visit {
    /// Points by which it is ahead of the tap in the middle.
    ahead: isize,
    /// The share of points for which it is inside of the image.
    inside: f64,
}

/// The taps of a block's part of the taps' pixels, by the sector of a pixel that they take, and by which
/// pixels those are where not every one is a point: each track from the tap that is furthest ahead.
fn tracks(gather: &Gather, part: Range<usize>) -> BTreeMap<(usize, isize, isize), Vec<Visit>> {
    let ([rows, columns], stride) = (gather.points, gather.stride as isize);
    let inside = |tap: isize, points: usize, size: usize| {
        let is_inside = |point: &isize| (0..size as isize).contains(&(point * stride + tap));
        (0..points as isize).filter(is_inside).count() as f64 / points as f64
    };
    let mut tracks: BTreeMap<_, Vec<Visit>> = BTreeMap::new();
    let mut at = part.start;
    while at < part.end {
        let (tap, offset) = (at / gather.pixel_bytes, at % gather.pixel_bytes);
        let len = (gather.pixel_bytes - offset).min(part.end - at);
        let [down, across] = gather.taps[tap];
        let ahead = down.div_euclid(stride) * columns as isize + across.div_euclid(stride);
        let inside = inside(down, rows, gather.image[0]) * inside(across, columns, gather.image[1]);
        for sector in (offset..offset + len).step_by(SECTOR) {
            let of = (sector, down.rem_euclid(stride), across.rem_euclid(stride));
            tracks.entry(of).or_default().push(Visit { ahead, inside });
        }
        at += len;
    }
    tracks.values_mut().for_each(|track| track.sort_by_key(|visit| std::cmp::Reverse(visit.ahead)));
    tracks
}

/// The address of the pixel that a tap takes for a point; `None` outside the image.
fn pixel(gather: &Gather, point: usize, [down, across]: [isize; 2]) -> Option<i64> {
    let ([height, width], [rows, columns]) = (gather.image, gather.points);
    let (column, line) = (point % columns, point / columns);
    let (row, image) = (line % rows, line / rows);
    let y = (row * gather.stride).checked_add_signed(down).filter(|&y| y < height)?;
    let x = (column * gather.stride).checked_add_signed(across).filter(|&x| x < width)?;
    Some((((image * height + y) * width + x) * gather.pixel_bytes) as i64)
}

/// A step of a block that keeps its points.
fn points(gather: &Gather, block: usize, step: usize, cache: &mut LeastRecent) {
    let GatherOrder::Points { points, bytes, across } = gather.order else { return };
    let (slice, tap) = (step / gather.taps.len(), gather.taps[step % gather.taps.len()]);
    let from = slice * bytes;
    let len = bytes.min(gather.pixel_bytes.saturating_sub(from));
    for point in block / across * points..(block / across + 1) * points {
        cache.copied += bytes;
        if let Some(address) = pixel(gather, point, tap) {
            cache.ask(address + from as i64, len);
        }
    }
}

/// A step of a block that keeps its part of the taps' pixels.
fn columns(gather: &Gather, block: usize, step: usize, cache: &mut LeastRecent) {
    let GatherOrder::Columns { bytes, points, across, down, share } = gather.order else { return };
    let first = block / (across * down) * share + step * points;
    let from = block % across * bytes;
    for point in first..first + points {
        cache.copied += bytes;
        let mut at = from;
        while at < (from + bytes).min(gather.taps.len() * gather.pixel_bytes) {
            let (tap, offset) = (at / gather.pixel_bytes, at % gather.pixel_bytes);
            let len = (gather.pixel_bytes - offset).min(from + bytes - at);
            if let Some(address) = pixel(gather, point, gather.taps[tap]) {
                cache.ask(address + offset as i64, len);
            }
            at += len;
        }
    }
}

/// Bytes of the pieces that the L2 cache is followed in.
const PIECE: u64 = 64 << 10;

/// The L2 cache of the whole GPU: a byte is still there after `m` others came in from DRAM with probability
/// exp(-m / size), as if each took the place of one by chance. That lies between the cliff of a cache that
/// forgets the oldest and the hashing of real ones.
pub struct L2 {
    bytes: f64,
    /// Bytes that came in so far.
    came: f64,
    /// Of each piece of memory: what had come in when it was touched last, and how likely it holds what DRAM
    /// has not.
    pieces: HashMap<u64, (f64, f64)>,
}

/// Bytes between L2 and DRAM.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Traffic {
    /// From DRAM.
    pub read: f64,
    /// To DRAM, sooner or later.
    pub written: f64,
}

impl L2 {
    /// An empty cache of so many bytes.
    pub fn new(bytes: f64) -> Self {
        Self { bytes, came: 0.0, pieces: HashMap::new() }
    }

    /// What a launch moves between the cache and DRAM. Its operands are gone through side by side, as blocks
    /// do.
    pub fn run(&mut self, work: &Work) -> Traffic {
        let operands: Vec<(Vec<(u64, f64)>, bool)> = work
            .reads
            .iter()
            .map(|span| (pieces(span), false))
            .chain(work.writes.iter().map(|span| (pieces(span), true)))
            .collect();
        let longest = operands.iter().map(|(pieces, _)| pieces.len()).max().unwrap_or(0);
        let mut traffic = Traffic::default();
        for turn in 0..longest {
            for (pieces, writes) in &operands {
                // Shorter ones are spread over the turns.
                let from = (turn * pieces.len()).div_ceil(longest);
                let to = ((turn + 1) * pieces.len()).div_ceil(longest);
                for &(piece, bytes) in &pieces[from..to] {
                    self.touch(piece, bytes, *writes, &mut traffic);
                }
            }
        }
        traffic
    }

    fn touch(&mut self, piece: u64, bytes: f64, writes: bool, traffic: &mut Traffic) {
        let (here, unsaved) = match self.pieces.get(&piece) {
            Some((came, unsaved)) => (((came - self.came) / self.bytes).exp(), *unsaved),
            None => (0.0, 0.0),
        };
        self.came += (1.0 - here) * bytes;
        let unsaved = if writes {
            // What is overwritten before it left never has to.
            traffic.written += (1.0 - here * unsaved) * bytes;
            1.0
        } else {
            traffic.read += (1.0 - here) * bytes;
            here * unsaved
        };
        self.pieces.insert(piece, (self.came, unsaved));
    }
}

/// The pieces of memory that a span touches, with the bytes in each.
fn pieces(span: &Span) -> Vec<(u64, f64)> {
    let Address::Device(start) = span.address else { return Vec::new() };
    let end = start + span.bytes as u64;
    let part = |piece: u64| {
        let (from, to) = ((piece * PIECE).max(start), ((piece + 1) * PIECE).min(end));
        (piece, (to - from) as f64)
    };
    (start / PIECE..end.div_ceil(PIECE)).map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(kernel: isize, lines: usize) -> Gathered {
        let taps = (0..kernel * kernel).map(|i| [i / kernel - kernel / 2, i % kernel - kernel / 2]).collect();
        let order = GatherOrder::Points { points: 128, bytes: 64, across: 1 };
        let gather = Gather { image: [32, 32], pixel_bytes: 64, points: [32, 32], stride: 1, taps, order };
        let steps = (kernel * kernel) as usize;
        gathered(&gather, Residents { blocks: 1, apart: 82, steps, lines })
    }

    /// A 1x1 asks for nothing twice; a 3x3 for nearly everything nine times: 6 rows of 32 pixels where 9
    /// times 128 are asked for, less what lies outside.
    #[test]
    fn l1_keeps_what_neighbouring_taps_share() {
        assert_eq!(gather(1, 1 << 20), Gathered { from_l2: 1.0, hits: 0.0 });
        let all = gather(3, 1 << 20);
        assert!((0.12..0.18).contains(&all.from_l2) && (0.82..0.88).contains(&all.hits), "{all:?}");
        let nothing = gather(3, 1);
        assert!(nothing.hits < 0.6, "{nothing:?}");
        let some = gather(3, 64);
        assert!(some.hits <= all.hits && some.hits >= nothing.hits, "{some:?}");
        // The first row of an image has no row above: less is asked for than copied.
        assert!(nothing.from_l2 < 1.0 - nothing.hits);
    }

    /// The estimate has the same limits as the replay: no hits of a 1x1, most where all fits.
    #[test]
    fn hits_are_estimated_without_a_replay() {
        let gather = |kernel: isize, lines: usize| {
            let taps =
                (0..kernel * kernel).map(|i| [i / kernel - kernel / 2, i % kernel - kernel / 2]).collect();
            let order = GatherOrder::Points { points: 128, bytes: 64, across: 1 };
            let gather =
                Gather { image: [32, 32], pixel_bytes: 64, points: [32, 32], stride: 1, taps, order };
            let residents = Residents { blocks: 1, apart: 82, steps: (kernel * kernel) as usize, lines };
            estimated(&gather, residents)
        };
        assert_eq!(gather(1, 1 << 20), Gathered { from_l2: 1.0, hits: 0.0 });
        let [all, some, nothing] = [1 << 20, 48, 1].map(|lines| gather(3, lines).from_l2);
        assert!((0.12..0.18).contains(&all) && (0.5..0.7).contains(&some) && nothing > 0.98, "{all} {some}");
    }

    /// Of weight gradients, too, the estimate is near the replay: tiles of one tap, of a row of taps, and of
    /// parts of taps, in caches that hold what neighbouring taps share and in those that do not. The replay
    /// looks at the first blocks, so that only tiles whose blocks are alike compare.
    #[test]
    fn hits_of_columns_are_estimated() {
        let taps: Vec<[isize; 2]> = (0..9).map(|tap| [tap / 3 - 1, tap % 3 - 1]).collect();
        for (size, channels, stride, columns) in [
            (32, 64, 1, 64),
            (32, 64, 1, 128),
            (32, 64, 1, 192),
            (32, 64, 1, 576),
            (16, 128, 1, 192),
            (32, 64, 2, 576),
        ] {
            for (blocks, lines) in [(1, 500), (2, 224), (2, 40)] {
                let out = size / stride;
                let across = (9 * channels) / columns;
                let order =
                    GatherOrder::Columns { bytes: 2 * columns, points: 32, across, down: 1, share: 4096 };
                let (image, points) = ([size, size], [out, out]);
                let gather =
                    Gather { image, pixel_bytes: 2 * channels, points, stride, taps: taps.clone(), order };
                let residents = Residents { blocks, apart: 82, steps: 128, lines };
                let (ours, replayed) = (estimated(&gather, residents), gathered(&gather, residents));
                assert!(
                    (ours.from_l2 - replayed.from_l2).abs() < 0.1,
                    "{gather:?} {residents:?}: {ours:?} {replayed:?}"
                );
            }
        }
    }

    /// What is small and read again is still there, what is larger than the cache is not; what is overwritten
    /// is not saved twice.
    #[test]
    fn l2_keeps_what_is_small() {
        let span = |mb: usize| Span::new(Address::Device(1 << 30), mb << 20);
        for (mb, share) in [(1, 0.85..0.99), (64, 0.0..0.01)] {
            let mut l2 = L2::new(10e6);
            let read = Work::of(0.0).reading([span(mb)]);
            let bytes = read.read_bytes();
            assert_eq!(l2.run(&read).read, bytes);
            let hits = 1.0 - l2.run(&read).read / bytes;
            assert!(share.contains(&hits), "{mb} MB: {hits}");
        }
        let mut l2 = L2::new(100e6);
        let write = Work::of(0.0).writing([span(1)]);
        assert_eq!(l2.run(&write).written, write.written_bytes());
        assert!(l2.run(&write).written < 0.05 * write.written_bytes());
    }
}
