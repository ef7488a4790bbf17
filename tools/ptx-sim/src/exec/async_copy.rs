//! `cp.async`: the source is read at once, the destination changes when the copy is waited for.

use super::block::BlockState;
use super::grid::Worker;
use super::memory;
use super::registers::{LANES, lanes};
use super::warp::{Pending, Warp};
use crate::code::{CopyAsync, Order};

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
    let who = memory::me(block, warp, Order::Weak);
    for lane in lanes(mask) {
        let mut data = [0; 16];
        if placed.mask >> lane & 1 != 0 {
            let allocation = launch.memory.get(placed.index(lane));
            let offset = (from[lane] - allocation.base) as usize;
            let mut at = 0;
            while at < read[lane] {
                let width = if read[lane] - at >= 4 { 4 } else { 1 };
                let address = from[lane] + u64::from(at);
                memory::check_read(worker, block, warp, allocation, address, width, who, lane, pc);
                let value = allocation.load(offset + at as usize, width).to_le_bytes();
                data[at as usize..][..width as usize].copy_from_slice(&value[..width as usize]);
                at += width;
            }
        }
        if let Some(defect) = block.shared.begin_copy(to[lane] as usize, it.bytes, warp.index) {
            memory::shared_defect(worker, block, warp, defect, true, to[lane] as usize, it.bytes, lane, pc);
        }
        warp.pending.push(Pending {
            lane: lane as u8,
            bytes: it.bytes as u8,
            group: warp.groups[lane],
            to: to[lane] as u32,
            data,
        });
    }
    memory::global_cost(worker, &from, &placed, it.bytes, false);
    memory::shared_cost(worker, &to, mask, it.bytes);
    block.progress = true;
    block.unpublished = true;
}
