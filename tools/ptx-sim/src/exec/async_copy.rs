//! `cp.async`: the source is read at once, the destination changes when the copy is waited for.

use super::block::BlockState;
use super::check;
use super::grid::Worker;
use super::memory;
use super::registers::{LANES, lanes};
use super::warp::{Pending, Warp};
use crate::finding::FindingKind;
use crate::isa::CopyAsync;
use crate::memory::races::Use;

pub fn start(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &CopyAsync,
    mask: u32,
    pc: u32,
) {
    let (to, from) = (warp.addresses(&it.to), warp.addresses(&it.from));
    let mask = memory::shared_place(worker, block, warp, &to, mask, it.bytes, pc, "an asynchronous copy");
    let ignored = it.ignore.map_or(0, |(p, negated)| warp.predicate(p, negated));
    let mut read = [it.bytes; LANES];
    if let Some(reg) = it.source_bytes {
        let counts = *warp.word(reg);
        read = counts.map(|count| count.min(it.bytes));
    }
    let reading =
        lanes(mask & !ignored).filter(|lane| read[*lane] > 0).fold(0, |bits, lane| bits | 1u32 << lane);
    // The whole 16 bytes must be aligned, only those that are read must be there.
    let whole = lanes(reading).all(|lane| read[lane] == it.bytes);
    let placed = if whole {
        memory::place(worker, block, warp, &from, reading, u64::from(it.bytes), pc, "an asynchronous copy")
    } else {
        memory::place_parts(worker, block, warp, &from, reading, it.bytes, &read, pc)
    };
    let launch = worker.launch;
    let who = check::plain(block, warp);
    for lane in lanes(mask) {
        let mut data = [0; 16];
        let (mut source, mut written_by) = (None, [0; 4]);
        if placed.mask >> lane & 1 != 0 {
            let allocation = launch.memory.get(placed.index(lane));
            let offset = (from[lane] - allocation.base) as usize;
            let mut at = 0;
            while at < read[lane] {
                let width = if read[lane] - at >= 4 { 4 } else { 1 };
                let address = from[lane] + u64::from(at);
                check::check_read(worker, block, warp, allocation, address, width, who, lane, pc);
                let value = allocation.load(offset + at as usize, width).to_le_bytes();
                data[at as usize..][..width as usize].copy_from_slice(&value[..width as usize]);
                at += width;
            }
            let word = offset / 4;
            source = Some((placed.index(lane) as u32, word as u32));
            for (at, writer) in written_by.iter_mut().enumerate().take(read[lane].div_ceil(4) as usize) {
                *writer = allocation.last_write(word + at, launch.tag);
            }
        }
        let place = to[lane] as usize;
        if let Some(defects) = block.shared.begin_copy(place, it.bytes, who.me.by(lane), who.bounds) {
            let changes = &|| false;
            check::shared_defects(
                worker, block, warp, &defects, place, it.bytes, who, true, changes, lane, pc,
            );
        }
        warp.pending.push(Pending {
            lane: lane as u8,
            bytes: it.bytes as u8,
            group: warp.groups[lane],
            to: to[lane] as u32,
            data,
            from: source,
            words_read: read[lane].div_ceil(4) as u8,
            written_by,
        });
    }
    memory::global_cost(worker, &from, &placed, it.bytes, false);
    memory::shared_cost(worker, &to, mask, it.bytes);
    block.progress = true;
}

/// A copy that its thread waited for is there, unless its source was written meanwhile.
pub fn arrive(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    copy: &Pending,
    who: Use,
    pc: u32,
) {
    let lane = copy.lane as usize;
    if let Some((index, word)) = copy.from {
        let allocation = worker.launch.memory.get(index as usize);
        let changed = (0..copy.words_read as usize)
            .find(|at| allocation.last_write(word as usize + at, worker.launch.tag) != copy.written_by[*at]);
        if let Some(at) = changed {
            let offset = 4 * (u64::from(word) + at as u64);
            let address = allocation.base + offset;
            worker.finding(block, warp, pc, FindingKind::PendingCopy, lane as u32, Some(address), || {
                format!(
                    "an asynchronous copy from {:?} at byte {offset}, which was written before the copy was waited for",
                    allocation.label
                )
            });
        }
    }
    let bounds = check::plain(block, warp).bounds;
    block.shared.end_copy(copy.to as usize, &copy.data[..copy.bytes as usize], who, bounds);
}
