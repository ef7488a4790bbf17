//! Global memory: allocations apart from each other, a shadow that knows which bytes were written, and who touched what in the running
//! launch.

use std::collections::HashMap;

use crate::error::{Result, error};

/// Where the windows of the other spaces lie in generic addresses.
pub const SHARED_BASE: u64 = 1 << 40;
pub const LOCAL_BASE: u64 = 1 << 41;
pub const PARAM_BASE: u64 = 1 << 42;
/// Where global memory begins.
const GLOBAL_BASE: u64 = 1 << 32;
/// Between two allocations.
const GAP: u64 = 4096;
/// What host reads give for bytes that nothing wrote.
const UNWRITTEN: u8 = 0xcd;

/// Who touched a granule in this launch. Blocks count from 1; times are those of [`Order`].
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    writer: u32,
    write_time: u32,
    reader: u32,
    read_time: u32,
}

/// More than one block read it.
const MANY: u32 = u32::MAX;
/// The writer wrote atomically.
const ATOMIC: u32 = 1 << 31;

/// An allocation.
#[derive(Debug)]
pub struct Allocation {
    pub base: u64,
    pub label: String,
    data: Vec<u8>,
    /// 0xff for every byte that was written.
    written: Vec<u8>,
    cells: Vec<Cell>,
    /// Bytes of a cell: 4 until a smaller store is seen.
    granule: usize,
    /// The launch that the cells are of.
    launch: u64,
    /// Sectors touched in this launch: bit 0 read, bit 1 written.
    sectors: Vec<u8>,
}

/// How an access touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    Read,
    Write,
    /// A load that orders, as `ld.acquire` and `ld.volatile` do.
    StrongRead,
    StrongWrite,
    Atomic,
}

/// What stands against an access.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    Outside,
    Unwritten { bytes: usize },
    Race { other: u32, wrote: bool },
}

/// What is known of the order of blocks: a block that fences and then writes a flag or counts with an atomic makes its earlier writes
/// known to every block that reads the flag or counts after it.
#[derive(Debug, Default)]
pub struct Order {
    now: u32,
    blocks: HashMap<u32, Knowledge>,
    places: HashMap<u64, Place>,
    block_count: usize,
}

#[derive(Debug, Default)]
struct Knowledge {
    /// Time of the last fence.
    fenced: u32,
    /// Up to which time each other block's accesses are known.
    known: HashMap<u32, u32>,
    /// Versions of places already taken over.
    seen: HashMap<u64, u64>,
}

#[derive(Debug, Default)]
struct Place {
    version: u64,
    released: HashMap<u32, u32>,
}

impl Order {
    fn new(block_count: usize) -> Self {
        Self { now: 1, block_count, ..Self::default() }
    }

    /// A fence of a block.
    pub fn fence(&mut self, block: u32) {
        self.blocks.entry(block).or_default().fenced = self.now;
        self.now += 1;
    }

    /// An atomic or ordering access to a place.
    fn meet(&mut self, block: u32, address: u64, releases: bool) {
        let knowledge = self.blocks.entry(block).or_default();
        let place = self.places.entry(address).or_default();
        if releases && knowledge.fenced > 0 {
            let mut changed = false;
            let mut raise = |who: u32, time: u32| {
                let entry = place.released.entry(who).or_default();
                if *entry < time {
                    *entry = time;
                    changed = true;
                }
            };
            raise(block, knowledge.fenced);
            knowledge.known.iter().for_each(|(&who, &time)| raise(who, time));
            place.version += u64::from(changed);
        }
        let seen = knowledge.seen.entry(address).or_default();
        if *seen < place.version {
            *seen = place.version;
            for (&who, &time) in place.released.iter().filter(|(who, _)| **who != block) {
                let entry = knowledge.known.entry(who).or_default();
                *entry = (*entry).max(time);
            }
        }
    }

    fn knows(&self, block: u32, other: u32, time: u32) -> bool {
        self.blocks.get(&block).and_then(|k| k.known.get(&other)).is_some_and(|&known| known >= time)
    }

    fn knows_all(&self, block: u32, time: u32) -> bool {
        self.blocks.get(&block).is_some_and(|k| {
            k.known.len() + 1 >= self.block_count && k.known.values().all(|&known| known >= time)
        })
    }
}

/// All of global memory.
#[derive(Debug)]
pub struct Memory {
    allocations: Vec<Allocation>,
    next: u64,
    launch: u64,
    pub order: Order,
}

impl Memory {
    pub fn new() -> Self {
        Self { allocations: Vec::new(), next: GLOBAL_BASE, launch: 0, order: Order::default() }
    }

    pub fn allocate(&mut self, bytes: usize, label: &str) -> u64 {
        let base = self.next;
        self.next = (base + bytes as u64 + GAP).next_multiple_of(256);
        self.allocations.push(Allocation {
            base,
            label: label.into(),
            data: vec![0; bytes],
            written: vec![0; bytes],
            cells: Vec::new(),
            granule: 4,
            launch: 0,
            sectors: Vec::new(),
        });
        base
    }

    pub fn free(&mut self, address: u64) -> Result<()> {
        let index = self.index(address).filter(|&index| self.allocations[index].base == address);
        let index = index.ok_or_else(|| error!("{address:#x} is no allocation to free"))?;
        self.allocations.remove(index);
        Ok(())
    }

    /// The allocation that an address lies in or behind.
    fn index(&self, address: u64) -> Option<usize> {
        let after = self.allocations.partition_point(|allocation| allocation.base <= address);
        let index = after.checked_sub(1)?;
        let allocation = &self.allocations[index];
        (address - allocation.base < allocation.data.len() as u64).then_some(index)
    }

    fn range(&self, address: u64, len: usize) -> Result<(usize, usize)> {
        let index = self.index(address);
        let fits = index.filter(|&index| {
            let allocation = &self.allocations[index];
            (address - allocation.base) as usize + len <= allocation.data.len()
        });
        match fits {
            Some(index) => Ok((index, (address - self.allocations[index].base) as usize)),
            None if len == 0 => Ok((usize::MAX, 0)),
            None => Err(error!("{len} bytes at {address:#x} do not lie in an allocation")),
        }
    }

    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        let (index, at) = self.range(address, bytes.len())?;
        if let Some(allocation) = self.allocations.get_mut(index) {
            allocation.data[at..at + bytes.len()].copy_from_slice(bytes);
            allocation.written[at..at + bytes.len()].fill(0xff);
        }
        Ok(())
    }

    pub fn fill(&mut self, address: u64, len: usize, byte: u8) -> Result<()> {
        let (index, at) = self.range(address, len)?;
        if let Some(allocation) = self.allocations.get_mut(index) {
            allocation.data[at..at + len].fill(byte);
            allocation.written[at..at + len].fill(0xff);
        }
        Ok(())
    }

    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        let (index, at) = self.range(address, out.len())?;
        if let Some(allocation) = self.allocations.get(index) {
            out.copy_from_slice(&allocation.data[at..at + out.len()]);
            for (byte, written) in out.iter_mut().zip(&allocation.written[at..]) {
                if *written == 0 {
                    *byte = UNWRITTEN;
                }
            }
        }
        Ok(())
    }

    pub fn uninitialised(&self, address: u64, len: usize) -> usize {
        match self.range(address, len) {
            Ok((index, at)) => self
                .allocations
                .get(index)
                .map_or(0, |a| a.written[at..at + len].iter().filter(|&&written| written == 0).count()),
            Err(_) => len,
        }
    }

    pub fn forget(&mut self, address: u64, len: usize) -> Result<()> {
        let (index, at) = self.range(address, len)?;
        if let Some(allocation) = self.allocations.get_mut(index) {
            allocation.written[at..at + len].fill(0);
        }
        Ok(())
    }

    /// Begins a launch of so many blocks: nobody has touched anything.
    pub fn begin_launch(&mut self, blocks: usize) {
        self.launch += 1;
        self.order = Order::new(blocks);
    }

    /// Different sectors read and written in this launch.
    pub fn unique_sectors(&self) -> (u64, u64) {
        let touched = self.allocations.iter().filter(|allocation| allocation.launch == self.launch);
        touched.flat_map(|allocation| &allocation.sectors).fold((0, 0), |(read, written), &bits| {
            (read + u64::from(bits & 1), written + u64::from(bits >> 1))
        })
    }

    /// Describes an address: whose memory, or how far from the nearest.
    pub fn describe(&self, address: u64) -> String {
        if let Some(index) = self.index(address) {
            let allocation = &self.allocations[index];
            return format!(
                "byte {} of the {} of '{}'",
                address - allocation.base,
                allocation.data.len(),
                allocation.label
            );
        }
        let after = self.allocations.partition_point(|allocation| allocation.base <= address);
        match after.checked_sub(1).map(|index| &self.allocations[index]) {
            Some(before) => format!(
                "address {address:#x}, {} bytes past the end of '{}' ({} bytes)",
                address - before.base - before.data.len() as u64,
                before.label,
                before.data.len()
            ),
            None => format!("address {address:#x}, before all memory"),
        }
    }

    /// The bytes `at..at+len` for an access of a block, with everything that stands against it. `cached` is the index of an
    /// allocation to try first.
    #[inline]
    pub fn touch(
        &mut self,
        block: u32,
        address: u64,
        len: usize,
        touch: Touch,
        cached: &mut usize,
    ) -> std::result::Result<(&mut [u8], Option<Fault>), Fault> {
        let hit = self.allocations.get(*cached).is_some_and(|allocation| {
            address >= allocation.base && address - allocation.base < allocation.data.len() as u64
        });
        if !hit {
            *cached = self.index(address).ok_or(Fault::Outside)?;
        }
        let launch = self.launch;
        if matches!(touch, Touch::Atomic | Touch::StrongRead | Touch::StrongWrite) {
            self.order.meet(block, address, touch != Touch::StrongRead);
        }
        let allocation = &mut self.allocations[*cached];
        let at = (address - allocation.base) as usize;
        if at + len > allocation.data.len() {
            return Err(Fault::Outside);
        }
        if allocation.launch != launch {
            allocation.begin(launch);
        }
        let reads = !matches!(touch, Touch::Write | Touch::StrongWrite);
        let writes = !matches!(touch, Touch::Read | Touch::StrongRead);
        let mut fault = None;
        if reads {
            let missing = allocation.written[at..at + len].iter().filter(|&&written| written == 0).count();
            if missing > 0 {
                fault = Some(Fault::Unwritten { bytes: missing });
            }
        }
        if writes {
            allocation.written[at..at + len].fill(0xff);
            if len < allocation.granule || !at.is_multiple_of(allocation.granule) {
                allocation.refine();
            }
        }
        allocation.sectors[at / 32] |= u8::from(reads) | u8::from(writes) << 1;
        let race = allocation.cross(&self.order, block, at, len, touch);
        if fault.is_none() {
            fault = race;
        }
        Ok((&mut allocation.data[at..at + len], fault))
    }
}

impl Allocation {
    fn begin(&mut self, launch: u64) {
        self.launch = launch;
        self.cells.clear();
        self.cells.resize(self.data.len().div_ceil(self.granule), Cell::default());
        self.sectors.clear();
        self.sectors.resize(self.data.len().div_ceil(32), 0);
    }

    /// A cell for every byte from now on.
    #[cold]
    fn refine(&mut self) {
        if self.granule == 1 {
            return;
        }
        let cells = (0..self.data.len()).map(|at| self.cells[at / self.granule]).collect();
        self.cells = cells;
        self.granule = 1;
    }

    /// Notes an access in its cells; the first conflict with another block.
    #[inline]
    fn cross(&mut self, order: &Order, block: u32, at: usize, len: usize, touch: Touch) -> Option<Fault> {
        let now = order.now;
        let mut fault = None;
        let cells = &mut self.cells[at / self.granule..(at + len).div_ceil(self.granule)];
        for cell in cells {
            let writer = cell.writer & !ATOMIC;
            let atomic = cell.writer & ATOMIC != 0;
            match touch {
                Touch::Read | Touch::StrongRead => {
                    let excused = touch == Touch::StrongRead && atomic;
                    if writer != 0
                        && writer != block
                        && !excused
                        && !order.knows(block, writer, cell.write_time)
                    {
                        fault = Some(Fault::Race { other: writer, wrote: true });
                    }
                    cell.reader = if cell.reader == 0 || cell.reader == block { block } else { MANY };
                    cell.read_time = now;
                }
                Touch::Write | Touch::StrongWrite | Touch::Atomic => {
                    let gentle = touch != Touch::Write;
                    if writer != 0
                        && writer != block
                        && !(gentle && atomic)
                        && !order.knows(block, writer, cell.write_time)
                    {
                        fault = Some(Fault::Race { other: writer, wrote: true });
                    }
                    // Ordering reads and atomics read too; they do not conflict with atomics.
                    if !gentle && cell.reader != 0 && cell.reader != block {
                        let known = match cell.reader {
                            MANY => order.knows_all(block, cell.read_time),
                            reader => order.knows(block, reader, cell.read_time),
                        };
                        if !known {
                            fault = Some(Fault::Race { other: cell.reader, wrote: false });
                        }
                    }
                    cell.writer = block | if gentle { ATOMIC } else { 0 };
                    cell.write_time = now;
                }
            }
        }
        fault
    }
}
