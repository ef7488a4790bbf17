//! Loads and stores: addresses, bounds, alignment, what was written, races, and what the access costs.

use super::block::BlockState;
use super::grid::Worker;
use super::registers::{FULL, LANES, lanes, row};
use super::warp::Warp;
use crate::code::{Access, LOCAL_WINDOW, Order, PARAM_WINDOW, SHARED_WINDOW, Space, Type};
use crate::finding::FindingKind;
use crate::memory::races::{self, Conflict, Use};
use crate::memory::shared::Defect;
use crate::memory::space::Allocation;

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

/// Who this warp is, for the histories.
pub fn me(block: &BlockState, warp: &Warp, order: Order) -> Use {
    block.me.by(warp.index, order != Order::Weak)
}

/// Reports two uses of a word that may be a race.
pub fn judge(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    conflict: Conflict,
    old: Use,
    was_read: bool,
    writes: bool,
    allocation: &Allocation,
    address: u64,
    lane: u32,
    pc: u32,
) {
    let did = if was_read { "read" } else { "wrote" };
    let does = if writes { "writes" } else { "reads" };
    let offset = address - allocation.base;
    match conflict {
        Conflict::None => {}
        Conflict::Warps => {
            worker.finding(block, warp, pc, FindingKind::GlobalRace, lane, Some(address), || {
                format!(
                    "warp {} {does} {:?} at byte {offset}, which warp {} {did} with no barrier between",
                    warp.index,
                    allocation.label,
                    old.warp()
                )
            });
        }
        Conflict::Blocks => {
            let signals = &worker.launch.signals;
            if signals.known(&mut block.knowledge, old.block(), old.epoch()) {
                return;
            }
            let other = worker.launch.block_of(u64::from(old.block()));
            worker.finding(block, warp, pc, FindingKind::BlockRace, lane, Some(address), || {
                format!(
                    "block {:?} {does} {:?} at byte {offset}, which block {other:?} {did} in the same launch with \
                     nothing that orders the two",
                    block.index, allocation.label
                )
            });
        }
    }
}

/// The words of an access and the bytes of each that it uses.
#[inline(always)]
pub fn words(offset: usize, bytes: u32) -> (usize, usize, u8) {
    if bytes >= 4 {
        (offset / 4, bytes as usize / 4, 15)
    } else {
        (offset / 4, 1, ((1u8 << bytes) - 1) << (offset & 3))
    }
}

/// Notes and checks one lane's read of global memory.
#[inline(always)]
pub fn check_read(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    who: Use,
    lane: usize,
    pc: u32,
) {
    let (first, count, mask) = words((address - allocation.base) as usize, bytes);
    let who = who.of_bytes(mask);
    for word in first..first + count {
        let written = allocation.written(word);
        if written & mask != mask {
            unwritten(worker, block, warp, allocation, address, bytes, lane, pc);
        }
        if let Some((conflict, old)) = races::read(allocation.history(word), who) {
            judge(worker, block, warp, conflict, old, false, false, allocation, address, lane as u32, pc);
        }
    }
}

#[cold]
fn unwritten(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    lane: usize,
    pc: u32,
) {
    worker.finding(block, warp, pc, FindingKind::Uninitialised, lane as u32, Some(address), || {
        format!(
            "reads {bytes} bytes of {:?} from byte {}, which nothing wrote all of",
            allocation.label,
            address - allocation.base
        )
    });
}

/// Notes and checks one lane's write.
#[inline(always)]
pub fn check_write(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    allocation: &Allocation,
    address: u64,
    bytes: u32,
    who: Use,
    lane: usize,
    pc: u32,
) {
    let (first, count, mask) = words((address - allocation.base) as usize, bytes);
    let who = who.of_bytes(mask);
    for word in first..first + count {
        allocation.set_written(word, mask);
        let found = races::write(allocation.history(word), who);
        for (conflict, old, was_read) in found.into_iter().flatten() {
            judge(worker, block, warp, conflict, old, was_read, true, allocation, address, lane as u32, pc);
        }
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
            let atomic = access.order != Order::Weak;
            for lane in lanes(mask) {
                let offset = addresses[lane] as usize;
                if let Some(defect) = block.shared.read(offset, bytes, warp.index, atomic) {
                    shared_defect(worker, block, warp, defect, false, offset, bytes, lane, pc);
                }
                for element in 0..elements {
                    rows[element][lane] = block.shared.get(offset + element * width as usize, width);
                }
            }
            shared_cost(worker, addresses, mask, bytes);
        }
        Space::Global | Space::Generic | Space::Const => {
            let placed = place(worker, block, warp, addresses, mask, u64::from(bytes), pc, "a load");
            let memory = worker.launch.memory;
            let who = me(block, warp, access.order);
            if access.order == Order::Weak {
                block.unpublished = true;
            } else {
                for lane in lanes(placed.mask) {
                    worker.launch.signals.access(addresses[lane], block.id, None, &mut block.knowledge);
                }
            }
            for lane in lanes(placed.mask) {
                let allocation = memory.get(placed.index(lane));
                let address = addresses[lane];
                check_read(worker, block, warp, allocation, address, bytes, who, lane, pc);
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
    by_space(access.space, &addresses, mask, |space, addresses, mask| match space {
        Space::Shared => {
            if access.space == Space::Generic {
                worker.counters.shared_stores += 1;
                worker.moved_stores += 1;
            }
            let mask = shared_place(worker, block, warp, addresses, mask, bytes, pc, "a store");
            let atomic = access.order != Order::Weak;
            for lane in lanes(mask) {
                let offset = addresses[lane] as usize;
                if let Some(defect) = block.shared.write(offset, bytes, warp.index, atomic) {
                    shared_defect(worker, block, warp, defect, true, offset, bytes, lane, pc);
                }
                for element in 0..elements {
                    block.shared.put(offset + element * width as usize, width, rows[element][lane]);
                }
            }
            let distinct = shared_cost(worker, addresses, mask, bytes);
            if distinct < mask.count_ones() {
                same_address(worker, block, warp, addresses, mask, &rows, width, FindingKind::SharedRace, pc);
            }
            block.progress = true;
        }
        Space::Global | Space::Generic | Space::Const => {
            let placed = place(worker, block, warp, addresses, mask, u64::from(bytes), pc, "a store");
            let memory = worker.launch.memory;
            let who = me(block, warp, access.order);
            for lane in lanes(placed.mask) {
                let allocation = memory.get(placed.index(lane));
                let address = addresses[lane];
                check_write(worker, block, warp, allocation, address, bytes, who, lane, pc);
                let offset = (address - allocation.base) as usize;
                for element in 0..elements {
                    let at = offset + element * width as usize;
                    allocation.store(at, width, rows[element][lane], worker.launch.alone);
                }
            }
            if access.order == Order::Weak {
                warp.unfenced = true;
                block.unpublished = true;
            } else {
                signal(worker, block, warp, addresses, placed.mask, access.order);
            }
            let distinct = global_cost(worker, addresses, &placed, bytes, true);
            if distinct < placed.mask.count_ones() {
                let kind = FindingKind::GlobalRace;
                same_address(worker, block, warp, addresses, placed.mask, &rows, width, kind, pc);
            }
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

/// An atomic access of global addresses: learns what others published there and publishes, if it is a release.
pub fn signal(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    addresses: &[u64; LANES],
    mask: u32,
    order: Order,
) {
    let releases = matches!(order, Order::Release | Order::Both) || block.fenced && !warp.unfenced;
    let release = releases.then_some(block.epoch);
    for lane in lanes(mask) {
        worker.launch.signals.access(addresses[lane], block.id, release, &mut block.knowledge);
    }
    // What comes after is not published; an epoch without an access needs no number of its own.
    if releases && std::mem::take(&mut block.unpublished) {
        block.next_epoch(worker.launch.tag);
    }
}

/// Two lanes of one store that write different values to one address.
#[cold]
fn same_address(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    addresses: &[u64; LANES],
    mask: u32,
    rows: &Rows,
    width: u32,
    kind: FindingKind,
    pc: u32,
) {
    let kept = if width == 8 { u64::MAX } else { (1 << (8 * width)) - 1 };
    for lane in lanes(mask) {
        let other = lanes(mask & ((1u32 << lane) - 1)).find(|other| {
            addresses[*other] == addresses[lane]
                && rows.iter().any(|row| (row[*other] ^ row[lane]) & kept != 0)
        });
        if let Some(other) = other {
            let address = addresses[lane];
            worker.finding(block, warp, pc, kind, lane as u32, Some(address), || {
                format!("lanes {other} and {lane} of one store write different values to {address:#x}")
            });
        }
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

#[cold]
pub fn shared_defect(
    worker: &mut Worker<'_>,
    block: &BlockState,
    warp: &Warp,
    defect: Defect,
    writes: bool,
    offset: usize,
    bytes: u32,
    lane: usize,
    pc: u32,
) {
    let does = if writes { "writes" } else { "reads" };
    let name = worker.launch.shared_name(offset);
    let (kind, message) = match defect {
        Defect::Unwritten => (
            FindingKind::Uninitialised,
            format!("reads {bytes} bytes of shared memory at {name}, which nothing wrote all of"),
        ),
        Defect::Pending => (
            FindingKind::PendingCopy,
            format!(
                "{does} {bytes} bytes of shared memory at {name} that an asynchronous copy is still to fill"
            ),
        ),
        Defect::Race { warp: other, wrote } => (
            FindingKind::SharedRace,
            format!(
                "warp {} {does} shared memory at {name}, which warp {other} {} with no barrier between",
                warp.index,
                if wrote { "wrote" } else { "read" }
            ),
        ),
    };
    worker.finding(block, warp, pc, kind, lane as u32, Some(offset as u64), || message);
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
