//! Loads and stores: addresses, bounds, alignment, what was written, races, and what the access costs.

use super::block::BlockState;
use super::check;
use super::grid::Worker;
use super::registers::{FULL, LANES, lanes, row};
use super::warp::Warp;
use crate::finding::FindingKind;
use crate::isa::{Access, LOCAL_WINDOW, Order, PARAM_WINDOW, SHARED_WINDOW, Space, Type};
use crate::memory::order::Place;
use crate::memory::shared::Shared;

/// Lanes of `mask` by the space their generic addresses lie in.
fn windows(addresses: &[u64; LANES], mask: u32) -> [(Space, u32, u64); 4] {
    let mut found = [
        (Space::Global, 0, 0),
        (Space::Shared, 0, SHARED_WINDOW),
        (Space::Local, 0, LOCAL_WINDOW),
        (Space::Param, 0, PARAM_WINDOW),
    ];
    for lane in lanes(mask) {
        let place = match addresses[lane] >> 32 << 32 {
            SHARED_WINDOW => 1,
            LOCAL_WINDOW => 2,
            PARAM_WINDOW => 3,
            _ => 0,
        };
        found[place].1 |= 1u32 << lane;
    }
    found
}

/// Splits a generic access by the spaces its lanes address.
pub fn by_space(
    space: Space,
    addresses: &[u64; LANES],
    mask: u32,
    mut run: impl FnMut(Space, &[u64; LANES], u32),
) {
    if space != Space::Generic {
        return run(space, addresses, mask);
    }
    for (space, mask, window) in windows(addresses, mask) {
        if mask != 0 {
            run(space, &row(|lane| addresses[lane].wrapping_sub(window)), mask);
        }
    }
}

/// How the distinct addresses of one instruction lie.
pub struct Spread {
    /// Distinct addresses.
    pub distinct: u32,
    pub sectors: u32,
}

/// Counts distinct addresses and sectors, and passes each sector once, of accesses that are aligned to their size.
pub fn spread(addresses: &[u64; LANES], mask: u32, mut sector: impl FnMut(u64)) -> Spread {
    let mut sorted = [0u64; LANES];
    let mut count = 0;
    let mut ascending = true;
    for lane in lanes(mask) {
        sorted[count] = addresses[lane];
        ascending &= count == 0 || sorted[count - 1] <= addresses[lane];
        count += 1;
    }
    if !ascending {
        sorted[..count].sort_unstable();
    }
    let (mut distinct, mut sectors) = (0, 0);
    let (mut last, mut last_sector) = (u64::MAX, u64::MAX);
    for &address in &sorted[..count] {
        if address != last {
            distinct += 1;
            last = address;
            if address >> 5 != last_sector {
                sectors += 1;
                last_sector = address >> 5;
                sector(last_sector);
            }
        }
    }
    Spread { distinct, sectors }
}

/// Drops the lanes whose address is not a multiple of the size.
fn aligned(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    addresses: &[u64; LANES],
    mask: u32,
    bytes: u64,
    pc: u32,
) -> u32 {
    let mut any = 0;
    for lane in 0..LANES {
        any |= if mask >> lane & 1 != 0 { addresses[lane] } else { 0 };
    }
    if any & (bytes - 1) == 0 {
        return mask;
    }
    let mut kept = mask;
    for lane in lanes(mask) {
        if addresses[lane] & (bytes - 1) != 0 {
            kept &= !(1 << lane);
            let address = addresses[lane];
            worker.finding(block, warp, pc, FindingKind::Misaligned, lane as u32, Some(address), || {
                format!("{bytes} bytes at {address:#x}, which is not a multiple of {bytes}")
            });
        }
    }
    kept
}

/// Where a warp's lanes lie in global memory.
pub struct Placed {
    /// The allocation, if it is the same for all.
    pub single: Option<usize>,
    pub each: [u32; LANES],
    pub mask: u32,
}

/// Checks global addresses; lanes that are wrong are dropped and reported.
pub fn place(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    addresses: &[u64; LANES],
    mask: u32,
    bytes: u64,
    pc: u32,
    what: &str,
) -> Placed {
    let mask = aligned(worker, block, warp, addresses, mask, bytes, pc);
    let (mut low, mut high) = (u64::MAX, 0);
    for lane in 0..LANES {
        let used = mask >> lane & 1 != 0;
        low = low.min(if used { addresses[lane] } else { u64::MAX });
        high = high.max(if used { addresses[lane] } else { 0 });
    }
    let memory = worker.launch.memory;
    if mask == 0 {
        return Placed { single: None, each: [0; LANES], mask };
    }
    if let Some(index) = memory.find(low, (high - low).saturating_add(bytes), &mut worker.hint) {
        return Placed { single: Some(index), each: [0; LANES], mask };
    }
    let mut placed = Placed { single: None, each: [0; LANES], mask };
    for lane in lanes(mask) {
        let address = addresses[lane];
        match memory.find(address, bytes, &mut worker.hint) {
            Some(index) => placed.each[lane] = index as u32,
            None => {
                placed.mask &= !(1 << lane);
                worker.finding(block, warp, pc, FindingKind::OutOfBounds, lane as u32, Some(address), || {
                    format!("{what} of {bytes} bytes at {address:#x}: {}", memory.explain(address))
                });
            }
        }
    }
    placed
}

impl Placed {
    pub fn index(&self, lane: usize) -> usize {
        self.single.unwrap_or(self.each[lane] as usize)
    }
}

/// Values a load found, one row for each element.
type Rows = [[u64; LANES]; 4];

fn extend(value: Type, bits: u64) -> u64 {
    if value.is_signed() { value.extend(bits) as u64 } else { bits }
}

fn write_back(warp: &mut Warp, access: &Access, rows: &Rows, mask: u32) {
    for (element, reg) in access.registers.iter().enumerate() {
        if let Some(reg) = reg {
            if access.value.is_signed() {
                warp.set(*reg, &row(|lane| extend(access.value, rows[element][lane])), mask);
            } else {
                warp.set(*reg, &rows[element], mask);
            }
        }
    }
}

pub fn load(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    access: &Access,
    mask: u32,
    pc: u32,
) {
    let addresses = warp.addresses(&access.address);
    let width = access.value.bytes();
    let bytes = width * access.registers.len() as u32;
    let mut rows: Rows = [[0; LANES]; 4];
    let elements = access.registers.len();
    by_space(access.space, &addresses, mask, |space, addresses, mask| match space {
        Space::Shared => {
            if access.space == Space::Generic {
                worker.counters.shared_loads += 1;
                worker.moved_loads += 1;
            }
            let mask = shared_place(worker, block, warp, addresses, mask, bytes, pc, "a load");
            if access.order != Order::Weak {
                let places = places(Space::Shared, block.order.id(), addresses, mask);
                check::observe(worker, block, warp, places, access.order, access.scope);
            }
            let who = check::who(block, warp, access.order, access.scope, access.waits);
            for lane in lanes(mask) {
                let offset = addresses[lane] as usize;
                check::shared_read(worker, block, warp, offset, bytes, who, lane, pc);
                for element in 0..elements {
                    rows[element][lane] = block.shared.get(offset + element * width as usize, width);
                }
            }
            shared_cost(worker, addresses, mask, bytes);
        }
        Space::Global | Space::Generic | Space::Const => {
            let placed = place(worker, block, warp, addresses, mask, u64::from(bytes), pc, "a load");
            let memory = worker.launch.memory;
            if access.order != Order::Weak {
                let places = places(Space::Global, 0, addresses, placed.mask);
                check::observe(worker, block, warp, places, access.order, access.scope);
            }
            let who = check::who(block, warp, access.order, access.scope, access.waits);
            for lane in lanes(placed.mask) {
                let allocation = memory.get(placed.index(lane));
                let address = addresses[lane];
                if access.read_only {
                    check::check_read_only(worker, block, warp, allocation, address, bytes, lane, pc);
                    check::check_written(worker, block, warp, allocation, address, bytes, lane, pc);
                } else {
                    check::check_read(worker, block, warp, allocation, address, bytes, who, lane, pc);
                }
                let offset = (address - allocation.base) as usize;
                for element in 0..elements {
                    rows[element][lane] = allocation.load(offset + element * width as usize, width);
                }
            }
            if space != Space::Const {
                global_cost(worker, addresses, &placed, bytes, false);
            }
        }
        Space::Local | Space::Frame => {
            local_access(worker, block, warp, access, space, addresses, mask, &mut rows, false, pc);
        }
        Space::Param => {
            let params = worker.launch.params;
            let end = addresses.map(|address| address.checked_add(u64::from(bytes)));
            for lane in lanes(mask) {
                let slice = end[lane].and_then(|end| params.get(addresses[lane] as usize..end as usize));
                let Some(slice) = slice else {
                    let address = addresses[lane];
                    worker.finding(
                        block,
                        warp,
                        pc,
                        FindingKind::OutOfBounds,
                        lane as u32,
                        Some(address),
                        || {
                            format!(
                                "a load of {bytes} bytes at byte {address} of {} of parameters",
                                params.len()
                            )
                        },
                    );
                    continue;
                };
                for element in 0..elements {
                    let part = &slice[element * width as usize..][..width as usize];
                    let mut word = [0; 8];
                    word[..part.len()].copy_from_slice(part);
                    rows[element][lane] = u64::from_le_bytes(word);
                }
            }
        }
    });
    if access.order != Order::Weak {
        let lane = mask.trailing_zeros() as usize & 31;
        warp.note_wait(pc, addresses[lane], rows[0][lane]);
    }
    write_back(warp, access, &rows, mask);
}

pub fn store(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    access: &Access,
    mask: u32,
    pc: u32,
) {
    let addresses = warp.addresses(&access.address);
    let width = access.value.bytes();
    let bytes = width * access.registers.len() as u32;
    let mut rows: Rows = [[0; LANES]; 4];
    for (element, reg) in access.registers.iter().enumerate() {
        if let Some(reg) = reg {
            rows[element] = warp.wide(*reg);
        }
    }
    let elements = access.registers.len();
    let kept = if width == 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
    by_space(access.space, &addresses, mask, |space, addresses, mask| match space {
        Space::Shared => {
            if access.space == Space::Generic {
                worker.counters.shared_stores += 1;
                worker.moved_stores += 1;
            }
            let mask = shared_place(worker, block, warp, addresses, mask, bytes, pc, "a store");
            let who = check::who(block, warp, access.order, access.scope, access.waits);
            for lane in lanes(mask) {
                let offset = addresses[lane] as usize;
                let silent = |shared: &Shared| {
                    (0..elements).all(|element| {
                        shared.get(offset + element * width as usize, width) == rows[element][lane] & kept
                    })
                };
                check::shared_write(worker, block, warp, offset, bytes, who, silent, lane, pc);
                for element in 0..elements {
                    block.shared.put(offset + element * width as usize, width, rows[element][lane]);
                }
            }
            if access.order != Order::Weak {
                let places = places(Space::Shared, block.order.id(), addresses, mask);
                check::publish(worker, block, warp, places, access.order, access.scope);
                release_locks(worker, block, warp, space, addresses, mask, access);
            }
            shared_cost(worker, addresses, mask, bytes);
            block.progress = true;
        }
        Space::Global | Space::Generic | Space::Const => {
            let placed = place(worker, block, warp, addresses, mask, u64::from(bytes), pc, "a store");
            let memory = worker.launch.memory;
            let who = check::who(block, warp, access.order, access.scope, access.waits);
            for lane in lanes(placed.mask) {
                let allocation = memory.get(placed.index(lane));
                let address = addresses[lane];
                let offset = (address - allocation.base) as usize;
                let silent = || {
                    (0..elements).all(|element| {
                        allocation.load(offset + element * width as usize, width)
                            == rows[element][lane] & kept
                    })
                };
                check::check_write(worker, block, warp, allocation, address, bytes, who, silent, lane, pc);
                for element in 0..elements {
                    let at = offset + element * width as usize;
                    allocation.store(at, width, rows[element][lane], worker.launch.alone);
                }
            }
            if access.order != Order::Weak {
                let places = places(Space::Global, 0, addresses, placed.mask);
                check::publish(worker, block, warp, places, access.order, access.scope);
                release_locks(worker, block, warp, Space::Global, addresses, placed.mask, access);
            }
            global_cost(worker, addresses, &placed, bytes, true);
            block.progress = true;
        }
        Space::Local | Space::Frame => {
            local_access(worker, block, warp, access, space, addresses, mask, &mut rows, true, pc);
        }
        Space::Param => {
            worker.finding(block, warp, pc, FindingKind::InvalidAccess, mask.trailing_zeros(), None, || {
                "a store to the parameters".into()
            });
        }
    });
}

/// Where lanes access atomically.
pub fn places(
    space: Space,
    block: u32,
    addresses: &[u64; LANES],
    mask: u32,
) -> impl Iterator<Item = (usize, Place)> {
    let addresses = *addresses;
    lanes(mask).map(move |lane| {
        let address = addresses[lane];
        (lane, if space == Space::Shared { Place::shared(address, block) } else { Place::global(address) })
    })
}

/// A store may give a lock back.
fn release_locks(
    worker: &Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    space: Space,
    addresses: &[u64; LANES],
    mask: u32,
    access: &Access,
) {
    for (_, place) in places(space, block.order.id(), addresses, mask) {
        let signals = &worker.launch.signals;
        block.order.note_lock(signals, warp.index, place, false, access.order, access.scope);
    }
}

/// Counts the sectors of a global access and marks them; returns the number of distinct addresses.
pub fn global_cost(
    worker: &mut Worker<'_>,
    addresses: &[u64; LANES],
    placed: &Placed,
    bytes: u32,
    store: bool,
) -> u32 {
    if placed.mask == 0 {
        return 0;
    }
    let memory = worker.launch.memory;
    let spread = match placed.single {
        Some(index) => {
            let allocation = memory.get(index);
            let first = allocation.base >> 5;
            spread(addresses, placed.mask, |sector| allocation.touch((sector - first) as usize, store))
        }
        None => {
            for lane in lanes(placed.mask) {
                let allocation = memory.get(placed.index(lane));
                allocation.touch(((addresses[lane] - allocation.base) >> 5) as usize, store);
            }
            spread(addresses, placed.mask, |_| {})
        }
    };
    let least = (u64::from(spread.distinct) * u64::from(bytes)).div_ceil(32);
    let counters = &mut worker.counters;
    if store {
        counters.store_sectors += u64::from(spread.sectors);
        counters.store_sectors_least += least;
    } else {
        counters.load_sectors += u64::from(spread.sectors);
        counters.load_sectors_least += least;
    }
    spread.distinct
}

/// Drops lanes outside shared memory or misaligned.
pub fn shared_place(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    addresses: &[u64; LANES],
    mask: u32,
    bytes: u32,
    pc: u32,
    what: &str,
) -> u32 {
    let mask = aligned(worker, block, warp, addresses, mask, u64::from(bytes), pc);
    let size = block.shared_bytes;
    let mut high = 0;
    for lane in 0..LANES {
        high = high.max(if mask >> lane & 1 != 0 { addresses[lane] } else { 0 });
    }
    if high.saturating_add(u64::from(bytes)) <= size {
        return mask;
    }
    let mut kept = mask;
    for lane in lanes(mask) {
        let address = addresses[lane];
        if address.saturating_add(u64::from(bytes)) > size {
            kept &= !(1 << lane);
            worker.finding(block, warp, pc, FindingKind::OutOfBounds, lane as u32, Some(address), || {
                format!("{what} of {bytes} bytes at byte {address} of {size} of shared memory")
            });
        }
    }
    kept
}

/// Passes through shared memory of one group of lanes: the most distinct words in one bank. Returns that and the number of
/// distinct addresses.
pub fn wavefronts(addresses: &[u64], words: u64) -> u32 {
    // Most groups have one word a bank: the first word of each bank is kept, and others are looked at only then.
    let mut first = [u64::MAX; 32];
    let mut conflict = false;
    for address in addresses {
        for part in 0..words {
            let word = address / 4 + part;
            let bank = &mut first[word as usize & 31];
            if *bank == u64::MAX {
                *bank = word;
            } else {
                conflict |= *bank != word;
            }
        }
    }
    if !conflict {
        return 1;
    }
    let mut all: Vec<u64> =
        addresses.iter().flat_map(|address| (0..words).map(move |part| address / 4 + part)).collect();
    all.sort_unstable();
    all.dedup();
    let mut counts = [0u32; 32];
    for word in all {
        counts[word as usize & 31] += 1;
    }
    counts.into_iter().max().unwrap_or(1)
}

/// Counts the passes of a shared access; returns the number of distinct addresses.
pub fn shared_cost(worker: &mut Worker<'_>, addresses: &[u64; LANES], mask: u32, bytes: u32) -> u32 {
    if mask == 0 {
        return 0;
    }
    let group = match bytes {
        16 => 8,
        8 => 16,
        _ => 32,
    };
    // Consecutive words: no conflict, and every address its own.
    if mask == FULL && bytes >= 4 {
        let step = u64::from(bytes);
        let mut straight = true;
        for lane in 0..LANES {
            straight &= addresses[lane] == addresses[0].wrapping_add(step * lane as u64);
        }
        if straight {
            worker.counters.shared_wavefronts += (LANES / group) as u64;
            return LANES as u32;
        }
    }
    let (mut passes, mut least) = (0, 0);
    for start in (0..LANES).step_by(group) {
        let mut chosen = [0; LANES];
        let mut count = 0;
        for lane in start..start + group {
            if mask >> lane & 1 != 0 {
                chosen[count] = addresses[lane];
                count += 1;
            }
        }
        if count > 0 {
            passes += wavefronts(&chosen[..count], u64::from(bytes).div_ceil(4));
            least += 1;
        }
    }
    worker.counters.shared_wavefronts += u64::from(passes);
    worker.counters.bank_conflicts += u64::from(passes - least);
    spread(addresses, mask, |_| {}).distinct
}

/// Local memory and call frames: a stretch of its own for each lane.
fn local_access(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &mut Warp,
    access: &Access,
    space: Space,
    addresses: &[u64; LANES],
    mask: u32,
    rows: &mut Rows,
    writes: bool,
    pc: u32,
) {
    let width = access.value.bytes() as usize;
    let elements = access.registers.len();
    let bytes = width * elements;
    let size = worker.launch.kernel.local_bytes as usize;
    let mask = aligned(worker, block, warp, addresses, mask, bytes as u64, pc);
    for lane in lanes(mask) {
        let offset = addresses[lane] as usize;
        if addresses[lane].saturating_add(bytes as u64) > size as u64 {
            worker.finding(
                block,
                warp,
                pc,
                FindingKind::OutOfBounds,
                lane as u32,
                Some(addresses[lane]),
                || format!("{bytes} bytes at byte {offset} of {size} of local memory"),
            );
            continue;
        }
        let at = lane * size + offset;
        if writes {
            for element in 0..elements {
                let value = rows[element][lane].to_le_bytes();
                warp.local[at + element * width..][..width].copy_from_slice(&value[..width]);
            }
            warp.local_written[at..at + bytes].fill(1);
        } else {
            if space == Space::Local && warp.local_written[at..at + bytes].contains(&0) {
                worker.finding(
                    block,
                    warp,
                    pc,
                    FindingKind::Uninitialised,
                    lane as u32,
                    Some(addresses[lane]),
                    || {
                        format!(
                            "reads {bytes} bytes at byte {offset} of local memory, which nothing wrote all of"
                        )
                    },
                );
            }
            for element in 0..elements {
                let mut value = [0; 8];
                value[..width].copy_from_slice(&warp.local[at + element * width..][..width]);
                rows[element][lane] = u64::from_le_bytes(value);
            }
        }
    }
    if space == Space::Local {
        worker.counters.local_bytes += u64::from(mask.count_ones()) * bytes as u64;
    }
}

/// [`place`] for copies of which some lanes read fewer than `bytes`.
pub fn place_parts(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    addresses: &[u64; LANES],
    mask: u32,
    bytes: u32,
    read: &[u32; LANES],
    pc: u32,
) -> Placed {
    let mut placed = Placed { single: None, each: [0; LANES], mask: 0 };
    let mask = aligned(worker, block, warp, addresses, mask, u64::from(bytes), pc);
    for lane in lanes(mask) {
        let what = "an asynchronous copy";
        let one = place(worker, block, warp, addresses, 1 << lane, 1, pc, what);
        let Some(index) = one.single else { continue };
        let end = worker.launch.memory.get(index);
        if addresses[lane] - end.base + u64::from(read[lane]) > end.bytes {
            let address = addresses[lane];
            worker.finding(block, warp, pc, FindingKind::OutOfBounds, lane as u32, Some(address), || {
                format!("{what} of {} bytes past the end of {:?}", read[lane], end.label)
            });
            continue;
        }
        placed.each[lane] = index as u32;
        placed.mask |= 1 << lane;
    }
    placed
}
