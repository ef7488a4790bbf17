//! Loads and stores: which space an address lies in, whether it lies inside, and what is moved.

use super::site::Site;
use super::warp::Warp;
use crate::isa::{Access, LOCAL_WINDOW, Order, PARAM_WINDOW, SHARED_WINDOW, Space};
use crate::lanes::{LANES, lanes, row};
use crate::memory::{Allocation, Placed, Shared};
use crate::monitor::{Event, Fault, Monitor, Place, Range, Semantics};

/// Each lane's address.
pub type Addresses = [u64; LANES];

/// Lanes of `mask` by the space their generic addresses lie in.
fn windows(addresses: &Addresses, mask: u32) -> [(Space, u32, u64); 4] {
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
pub fn by_space(space: Space, addresses: &Addresses, mask: u32, mut run: impl FnMut(Space, &Addresses, u32)) {
    if space != Space::Generic {
        return run(space, addresses, mask);
    }
    for (space, mask, window) in windows(addresses, mask) {
        if mask != 0 {
            run(space, &row(|lane| addresses[lane].wrapping_sub(window)), mask);
        }
    }
}

/// Drops the lanes whose address is not a multiple of the size.
fn aligned<M: Monitor>(site: &mut Site<'_, M>, addresses: &Addresses, mask: u32, bytes: u64) -> u32 {
    let mut any = 0;
    for (lane, address) in addresses.iter().enumerate() {
        any |= if mask >> lane & 1 != 0 { *address } else { 0 };
    }
    if any & (bytes - 1) == 0 {
        return mask;
    }
    let mut kept = mask;
    for lane in lanes(mask) {
        if addresses[lane] & (bytes - 1) != 0 {
            kept &= !(1 << lane);
            site.fault(lane, Some(addresses[lane]), Fault::Misaligned { bytes });
        }
    }
    kept
}

/// Finds global addresses; lanes that are wrong are dropped and reported.
pub fn place<M: Monitor>(
    site: &mut Site<'_, M>,
    addresses: &Addresses,
    mask: u32,
    bytes: u64,
    what: &str,
) -> Placed {
    let mask = aligned(site, addresses, mask, bytes);
    let (mut low, mut high) = (u64::MAX, 0);
    for (lane, address) in addresses.iter().enumerate() {
        let used = mask >> lane & 1 != 0;
        low = low.min(if used { *address } else { u64::MAX });
        high = high.max(if used { *address } else { 0 });
    }
    let memory = site.launch.memory;
    let mut placed = Placed { single: None, each: [0; LANES], mask };
    if mask == 0 {
        return placed;
    }
    placed.single = memory.find(low, (high - low).saturating_add(bytes), &mut site.worker.hint);
    if placed.single.is_some() {
        return placed;
    }
    for lane in lanes(mask) {
        match memory.find(addresses[lane], bytes, &mut site.worker.hint) {
            Some(index) => placed.each[lane] = index as u32,
            None => {
                placed.mask &= !(1 << lane);
                site.fault(lane, Some(addresses[lane]), Fault::OutsideGlobal { what, bytes });
            }
        }
    }
    placed
}

/// [`place`] for copies of which some lanes read fewer than `bytes`.
pub fn place_parts<M: Monitor>(
    site: &mut Site<'_, M>,
    addresses: &Addresses,
    mask: u32,
    bytes: u32,
    (read, what): (&[u32; LANES], &str),
) -> Placed {
    let mut placed = Placed { single: None, each: [0; LANES], mask: 0 };
    let mask = aligned(site, addresses, mask, u64::from(bytes));
    for lane in lanes(mask) {
        let one = place(site, addresses, 1 << lane, 1, what);
        let Some(allocation) = one.single else { continue };
        let found = site.launch.memory.get(allocation);
        if addresses[lane] - found.base + u64::from(read[lane]) > found.bytes {
            site.fault(lane, Some(addresses[lane]), Fault::PastEnd { what, bytes: read[lane], allocation });
            continue;
        }
        placed.each[lane] = allocation as u32;
        placed.mask |= 1 << lane;
    }
    placed
}

/// Drops lanes outside shared memory or misaligned.
pub fn shared_place<M: Monitor>(
    site: &mut Site<'_, M>,
    addresses: &Addresses,
    mask: u32,
    bytes: u32,
    what: &str,
) -> u32 {
    let mask = aligned(site, addresses, mask, u64::from(bytes));
    let size = site.block.shared_bytes;
    let mut high = 0;
    for (lane, address) in addresses.iter().enumerate() {
        high = high.max(if mask >> lane & 1 != 0 { *address } else { 0 });
    }
    if high.saturating_add(u64::from(bytes)) <= size {
        return mask;
    }
    let mut kept = mask;
    for lane in lanes(mask) {
        if addresses[lane].saturating_add(u64::from(bytes)) > size {
            kept &= !(1 << lane);
            site.fault(lane, Some(addresses[lane]), Fault::OutsideShared { what, bytes });
        }
    }
    kept
}

/// What the lanes of one access move: elements of one type.
struct Transfer<'a> {
    access: &'a Access,
    semantics: Semantics,
    /// Bytes of an element, elements of a lane, and bytes of a lane.
    width: u32,
    elements: usize,
    bytes: u32,
    /// Each element's values.
    rows: [[u64; LANES]; 4],
}

impl<'a> Transfer<'a> {
    #[inline(always)]
    fn of(access: &'a Access) -> Self {
        let Access { order, scope, waits, .. } = *access;
        let (width, elements) = (access.value.bytes(), access.registers.len());
        Self {
            access,
            semantics: Semantics { order, scope, waits },
            width,
            elements,
            bytes: width * elements as u32,
            rows: [[0; LANES]; 4],
        }
    }

    fn atomic(&self) -> bool {
        self.access.order != Order::Weak
    }

    #[inline(always)]
    fn load(&mut self, lane: usize, offset: usize, get: impl Fn(usize, u32) -> u64) {
        for element in 0..self.elements {
            self.rows[element][lane] = get(offset + element * self.width as usize, self.width);
        }
    }

    #[inline(always)]
    fn store(&self, lane: usize, offset: usize, mut put: impl FnMut(usize, u32, u64)) {
        for element in 0..self.elements {
            put(offset + element * self.width as usize, self.width, self.rows[element][lane]);
        }
    }

    /// Whether a lane's values are what lies there.
    #[inline(always)]
    fn silent(&self, lane: usize, offset: usize, get: impl Fn(usize, u32) -> u64) -> bool {
        let kept = if self.width == 8 { u64::MAX } else { (1 << (8 * self.width)) - 1 };
        (0..self.elements).all(|element| {
            get(offset + element * self.width as usize, self.width) == self.rows[element][lane] & kept
        })
    }

    fn write_back(&self, warp: &mut Warp, mask: u32) {
        let value = self.access.value;
        for (reg, values) in self.access.registers.iter().zip(&self.rows) {
            if let Some(reg) = reg {
                if value.is_signed() {
                    warp.set(*reg, &row(|lane| value.extend(values[lane]) as u64), mask);
                } else {
                    warp.set(*reg, values, mask);
                }
            }
        }
    }
}

/// Where a lane accesses global memory.
#[inline(always)]
pub fn locate(allocation: &Allocation, index: usize, address: u64) -> (usize, Place) {
    let offset = (address - allocation.base) as usize;
    (offset, Place::Global { allocation: index, offset })
}

/// `ld` for the lanes of the site.
pub fn load<M: Monitor>(site: &mut Site<'_, M>, access: &Access) {
    let addresses = site.warp.addresses(&access.address);
    let mut it = Transfer::of(access);
    by_space(access.space, &addresses, site.mask, |space, addresses, mask| match space {
        Space::Shared => load_shared(site, &mut it, addresses, mask),
        Space::Global | Space::Generic | Space::Const => {
            load_global(site, &mut it, addresses, mask, space != Space::Const);
        }
        Space::Local | Space::Frame => load_local(site, &mut it, addresses, mask, space == Space::Local),
        Space::Param => load_parameter(site, &mut it, addresses, mask),
    });
    if it.atomic() {
        let lane = site.first();
        site.warp.note_wait(site.pc, addresses[lane], it.rows[0][lane]);
    }
    it.write_back(site.warp, site.mask);
}

fn load_shared<M: Monitor>(site: &mut Site<'_, M>, it: &mut Transfer<'_>, addresses: &Addresses, mask: u32) {
    if it.access.space == Space::Generic {
        site.event(Event::SharedLoad);
    }
    let mask = shared_place(site, addresses, mask, it.bytes, "a load");
    if it.atomic() {
        for lane in lanes(mask) {
            site.observe(it.semantics, Place::Shared(addresses[lane] as usize), 1 << lane);
        }
    }
    let access = site.access(it.semantics);
    for lane in lanes(mask) {
        let offset = addresses[lane] as usize;
        site.read_shared(access, lane, offset, it.bytes);
        it.load(lane, offset, |at, width| site.block.shared.get(at, width));
    }
    site.worker.monitor.shared_traffic(addresses, mask, it.bytes);
}

fn load_global<M: Monitor>(
    site: &mut Site<'_, M>,
    it: &mut Transfer<'_>,
    addresses: &Addresses,
    mask: u32,
    counts: bool,
) {
    let placed = place(site, addresses, mask, u64::from(it.bytes), "a load");
    let (launch, memory) = (site.launch, site.launch.memory);
    let guard = it.atomic().then(|| launch.atomic_turn());
    if it.atomic() {
        for lane in lanes(placed.mask) {
            let index = placed.index(lane);
            let (_, place) = locate(memory.get(index), index, addresses[lane]);
            site.observe(it.semantics, place, 1 << lane);
        }
    }
    let access = site.access(it.semantics);
    for lane in lanes(placed.mask) {
        let index = placed.index(lane);
        let allocation = memory.get(index);
        let (offset, place) = locate(allocation, index, addresses[lane]);
        let range = Range { lane, place, bytes: it.bytes };
        if it.access.read_only {
            site.worker.monitor.read_only(&mut site.block.watched, access, range);
        } else {
            site.read(access, range);
        }
        it.load(lane, offset, |at, width| allocation.load(at, width));
    }
    drop(guard);
    if counts {
        site.worker.monitor.global_traffic(addresses, &placed, it.bytes, false);
    }
}

fn load_parameter<M: Monitor>(
    site: &mut Site<'_, M>,
    it: &mut Transfer<'_>,
    addresses: &Addresses,
    mask: u32,
) {
    let params = site.launch.params;
    for lane in lanes(mask) {
        let end = addresses[lane].checked_add(u64::from(it.bytes));
        let slice = end.and_then(|end| params.get(addresses[lane] as usize..end as usize));
        let Some(slice) = slice else {
            let fault = Fault::OutsideParameters { bytes: it.bytes, size: params.len() };
            site.fault(lane, Some(addresses[lane]), fault);
            continue;
        };
        it.load(lane, 0, |at, width| number(&slice[at..][..width as usize]));
    }
}

/// A number of up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// `st` for the lanes of the site.
pub fn store<M: Monitor>(site: &mut Site<'_, M>, access: &Access) {
    let addresses = site.warp.addresses(&access.address);
    let mut it = Transfer::of(access);
    for (values, reg) in it.rows.iter_mut().zip(&access.registers) {
        if let Some(reg) = reg {
            *values = site.warp.wide(*reg);
        }
    }
    by_space(access.space, &addresses, site.mask, |space, addresses, mask| match space {
        Space::Shared => store_shared(site, &it, addresses, mask),
        Space::Global | Space::Generic | Space::Const => store_global(site, &it, addresses, mask),
        Space::Local | Space::Frame => store_local(site, &it, addresses, mask, space == Space::Local),
        Space::Param => {
            site.fault(mask.trailing_zeros() as usize, None, Fault::Invalid("a store to the parameters"));
        }
    });
}

fn store_shared<M: Monitor>(site: &mut Site<'_, M>, it: &Transfer<'_>, addresses: &Addresses, mask: u32) {
    if it.access.space == Space::Generic {
        site.event(Event::SharedStore);
    }
    let mask = shared_place(site, addresses, mask, it.bytes, "a store");
    let access = site.access(it.semantics);
    for lane in lanes(mask) {
        let offset = addresses[lane] as usize;
        let range = Range { lane, place: Place::Shared(offset), bytes: it.bytes };
        let shared: &mut Shared = &mut site.block.shared;
        let silent = || it.silent(lane, offset, |at, width| shared.get(at, width));
        site.worker.monitor.write(&mut site.block.watched, access, range, silent);
        it.store(lane, offset, |at, width, value| shared.put(at, width, value));
    }
    if it.atomic() {
        announce(site, it.semantics, mask, |lane| Place::Shared(addresses[lane] as usize));
    }
    site.worker.monitor.shared_traffic(addresses, mask, it.bytes);
    site.block.progress = true;
}

fn store_global<M: Monitor>(site: &mut Site<'_, M>, it: &Transfer<'_>, addresses: &Addresses, mask: u32) {
    let placed = place(site, addresses, mask, u64::from(it.bytes), "a store");
    let (launch, memory, alone) = (site.launch, site.launch.memory, site.launch.alone);
    let guard = it.atomic().then(|| launch.atomic_turn());
    let access = site.access(it.semantics);
    for lane in lanes(placed.mask) {
        let index = placed.index(lane);
        let allocation = memory.get(index);
        let (offset, place) = locate(allocation, index, addresses[lane]);
        let range = Range { lane, place, bytes: it.bytes };
        let silent = || it.silent(lane, offset, |at, width| allocation.load(at, width));
        site.worker.monitor.write(&mut site.block.watched, access, range, silent);
        it.store(lane, offset, |at, width, value| allocation.store(at, width, value, alone));
    }
    if it.atomic() {
        announce(site, it.semantics, placed.mask, |lane| {
            let index = placed.index(lane);
            locate(memory.get(index), index, addresses[lane]).1
        });
    }
    drop(guard);
    site.worker.monitor.global_traffic(addresses, &placed, it.bytes, true);
    site.block.progress = true;
}

/// Lanes have stored atomically: that publishes, and may give locks back.
fn announce<M: Monitor>(
    site: &mut Site<'_, M>,
    semantics: Semantics,
    mask: u32,
    place: impl Fn(usize) -> Place,
) {
    for lane in lanes(mask) {
        site.publish(semantics, place(lane), 1 << lane);
    }
    let at = site.position();
    for lane in lanes(mask) {
        site.worker.monitor.unlock(&mut site.block.watched, at, semantics, place(lane));
    }
}

/// Drops lanes outside local memory or misaligned; where each of the others starts in the warp's.
fn local_place<M: Monitor>(
    site: &mut Site<'_, M>,
    it: &Transfer<'_>,
    addresses: &Addresses,
    mask: u32,
    counts: bool,
) -> (u32, usize) {
    let (bytes, size) = (it.bytes as usize, site.launch.kernel.local_bytes as usize);
    let mask = aligned(site, addresses, mask, bytes as u64);
    if counts {
        site.event(Event::LocalBytes(u64::from(mask.count_ones()) * bytes as u64));
    }
    let mut kept = mask;
    for lane in lanes(mask) {
        if addresses[lane].saturating_add(bytes as u64) > size as u64 {
            kept &= !(1 << lane);
            site.fault(lane, Some(addresses[lane]), Fault::OutsideLocal { bytes, size });
        }
    }
    (kept, size)
}

/// From local memory and call frames: a stretch of its own for each lane. `counts`: it is no call frame.
fn load_local<M: Monitor>(
    site: &mut Site<'_, M>,
    it: &mut Transfer<'_>,
    addresses: &Addresses,
    mask: u32,
    counts: bool,
) {
    let (mask, size) = local_place(site, it, addresses, mask, counts);
    let access = site.access(Semantics::WEAK);
    for lane in lanes(mask) {
        let offset = addresses[lane] as usize;
        if counts {
            site.read(access, Range { lane, place: Place::Local(offset), bytes: it.bytes });
        }
        it.load(lane, lane * size + offset, |at, width| number(&site.warp.local[at..][..width as usize]));
    }
}

fn store_local<M: Monitor>(
    site: &mut Site<'_, M>,
    it: &Transfer<'_>,
    addresses: &Addresses,
    mask: u32,
    counts: bool,
) {
    let (mask, size) = local_place(site, it, addresses, mask, counts);
    let access = site.access(Semantics::WEAK);
    for lane in lanes(mask) {
        let offset = addresses[lane] as usize;
        let range = Range { lane, place: Place::Local(offset), bytes: it.bytes };
        site.worker.monitor.write(&mut site.block.watched, access, range, || false);
        it.store(lane, lane * size + offset, |at, width, value| {
            site.warp.local[at..][..width as usize].copy_from_slice(&value.to_le_bytes()[..width as usize]);
        });
    }
}
