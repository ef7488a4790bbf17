//! `cp.async`: the source is read at once, the destination changes when the copy is waited for.

use super::memory;
use super::site::{Copy, Site};
use crate::isa::CopyAsync;
use crate::lanes::{LANES, lanes, mask_of};
use crate::monitor::{Monitor, Place, Range, Semantics};

/// A copy starts in the lanes of the site.
pub fn start<M: Monitor>(site: &mut Site<'_, M>, it: &CopyAsync) {
    const WHAT: &str = "an asynchronous copy";
    let (to, from) = (site.warp.addresses(&it.to), site.warp.addresses(&it.from));
    let mask = memory::shared_place(site, &to, site.mask, it.bytes, WHAT);
    let ignored = it.ignore.map_or(0, |(p, negated)| site.warp.predicate(p, negated));
    let mut read = [it.bytes; LANES];
    if let Some(reg) = it.source_bytes {
        read = site.warp.word(reg).map(|count| count.min(it.bytes));
    }
    let reading = mask & !ignored & mask_of(|lane| read[lane] > 0);
    // The whole 16 bytes must be aligned, only those that are read must be there.
    let placed = if lanes(reading).all(|lane| read[lane] == it.bytes) {
        memory::place(site, &from, reading, u64::from(it.bytes), WHAT)
    } else {
        memory::place_parts(site, &from, reading, it.bytes, (&read, WHAT))
    };
    let access = site.access(Semantics::WEAK);
    for lane in lanes(mask) {
        let (mut data, mut source) = ([0; 16], None);
        if placed.mask >> lane & 1 != 0 {
            let allocation = site.launch.memory.get(placed.index(lane));
            let (start, place) = memory::locate(allocation, placed.index(lane), from[lane]);
            let mut at = 0;
            while at < read[lane] {
                let width = if read[lane] - at >= 4 { 4 } else { 1 };
                let offset = start + at as usize;
                let place = Place::Global { allocation: placed.index(lane), offset };
                site.read(access, Range { lane, place, bytes: width });
                let value = allocation.load(offset, width).to_le_bytes();
                data[at as usize..][..width as usize].copy_from_slice(&value[..width as usize]);
                at += width;
            }
            source = Some((place, read[lane]));
        }
        let to = Range { lane, place: Place::Shared(to[lane] as usize), bytes: it.bytes };
        let source = site.worker.monitor.copy_starts(&mut site.block.watched, access, to, source);
        let (warp, group) = (site.warp.index, site.warp.groups[lane]);
        site.block.copies[warp as usize].push(Copy { warp, group, to, data, source });
    }
    site.worker.monitor.global_traffic(&from, &placed, it.bytes, false);
    site.worker.monitor.shared_traffic(&to, mask, it.bytes);
    site.block.progress = true;
}

/// The lanes of the site wait for all but each one's last `kept` groups.
pub fn wait<M: Monitor>(site: &mut Site<'_, M>, kept: u32) {
    let (index, mask, groups) = (site.warp.index, site.mask, site.warp.groups);
    let waited = |copy: &Copy<M>| {
        let lane = copy.to.lane;
        copy.warp == index && mask >> lane & 1 != 0 && copy.group.saturating_add(kept) < groups[lane]
    };
    if !site.block.landing.is_empty() {
        // Those that an mbarrier tracks too.
        let landing = std::mem::take(&mut site.block.landing);
        let (landed, others): (Vec<_>, Vec<_>) = landing.into_iter().partition(|(_, _, copy)| waited(copy));
        site.block.landing = others;
        for (_, _, copy) in landed {
            let access = site.access(Semantics::WEAK);
            arrive(site, access, copy);
        }
    }
    let copies = std::mem::take(&mut site.block.copies[index as usize]);
    for copy in copies {
        if waited(&copy) {
            let access = site.access(Semantics::WEAK);
            arrive(site, access, copy);
        } else {
            site.block.copies[index as usize].push(copy);
        }
    }
}

/// A copy that its thread waited for is there. `access`: as of when it waited.
pub fn arrive<M: Monitor>(site: &mut Site<'_, M>, access: M::Access, copy: Copy<M>) {
    let at = site.position();
    site.worker.monitor.copy_arrives(&mut site.block.watched, at, access, copy.to, copy.source);
    if let Place::Shared(offset) = copy.to.place {
        site.block.shared.put_all(offset, &copy.data[..copy.to.bytes as usize]);
    }
}
