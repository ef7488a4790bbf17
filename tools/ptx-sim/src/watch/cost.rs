//! What a launch costs: instructions, sectors of global memory, passes through shared memory.

use super::counters::Counters;
use super::report::Subject;
use crate::isa::{Class, Kernel, Op};
use crate::lanes::{FULL, LANES, lanes};
use crate::memory::Placed;
use crate::monitor::Event;

/// What one host thread's part of a launch costs.
pub struct Cost {
    pub counters: Counters,
    /// For each instruction: how often a warp ran it, and how many lanes.
    counts: Vec<(u64, u64)>,
    /// Generic accesses that turned out to be to shared memory.
    moved_loads: u64,
    moved_stores: u64,
}

impl Cost {
    /// Nothing yet.
    pub fn new(kernel: &Kernel) -> Self {
        Self {
            counters: Counters::default(),
            counts: vec![(0, 0); kernel.steps.len()],
            moved_loads: 0,
            moved_stores: 0,
        }
    }

    /// A warp issues an instruction.
    #[inline(always)]
    pub fn issue(&mut self, pc: u32, lanes: u32) {
        let count = &mut self.counts[pc as usize];
        count.0 += 1;
        count.1 += u64::from(lanes);
    }

    /// See [`Event`].
    #[inline]
    pub fn event(&mut self, event: Event) {
        let counters = &mut self.counters;
        match event {
            Event::SharedLoad => {
                counters.shared_loads += 1;
                self.moved_loads += 1;
            }
            Event::SharedStore => {
                counters.shared_stores += 1;
                self.moved_stores += 1;
            }
            Event::LocalBytes(bytes) => counters.local_bytes += bytes,
            Event::AtomicLanes(lanes) => counters.atomic_lanes += u64::from(lanes),
            Event::MatrixFlops(flops) => counters.mma_flops += flops,
            Event::BarrierCompleted => counters.barriers_completed += 1,
        }
    }

    /// Counts the sectors of a global access and marks them.
    pub fn global_traffic(
        &mut self,
        subject: &Subject<'_>,
        addresses: &[u64; LANES],
        (placed, bytes, store): (&Placed, u32, bool),
    ) {
        if placed.mask == 0 {
            return;
        }
        let (memory, shadows) = (subject.memory, subject.shadows);
        let spread = match placed.single {
            Some(index) => {
                let (first, sectors) = (memory.get(index).base >> 5, &shadows[index].sectors);
                spread(addresses, placed.mask, |sector| sectors.touch((sector - first) as usize, store))
            }
            None => {
                for lane in lanes(placed.mask) {
                    let index = placed.index(lane);
                    let offset = addresses[lane] - memory.get(index).base;
                    shadows[index].sectors.touch((offset >> 5) as usize, store);
                }
                spread(addresses, placed.mask, |_| {})
            }
        };
        let least = (u64::from(spread.distinct) * u64::from(bytes)).div_ceil(32);
        let counters = &mut self.counters;
        if store {
            counters.store_sectors += u64::from(spread.sectors);
            counters.store_sectors_least += least;
        } else {
            counters.load_sectors += u64::from(spread.sectors);
            counters.load_sectors_least += least;
        }
    }

    /// Counts the passes of a shared access.
    pub fn shared_traffic(&mut self, addresses: &[u64; LANES], mask: u32, bytes: u32) {
        if mask == 0 {
            return;
        }
        let group = match bytes {
            16 => 8,
            8 => 16,
            _ => 32,
        };
        // Consecutive words: no conflict, and every address its own.
        if mask == FULL && bytes >= 4 {
            let (first, step) = (addresses[0], u64::from(bytes));
            let mut straight = true;
            for (lane, address) in addresses.iter().enumerate() {
                straight &= *address == first.wrapping_add(step * lane as u64);
            }
            if straight {
                self.counters.shared_wavefronts += (LANES / group) as u64;
                return;
            }
        }
        for start in (0..LANES).step_by(group) {
            let mut chosen = [0; LANES];
            let mut count = 0;
            for (lane, address) in addresses.iter().enumerate().skip(start).take(group) {
                if mask >> lane & 1 != 0 {
                    chosen[count] = *address;
                    count += 1;
                }
            }
            self.group(&chosen[..count], u64::from(bytes).div_ceil(4));
        }
    }

    /// Counts the passes of a group of lanes that may take one, each with that many words.
    pub fn group(&mut self, addresses: &[u64], words: u64) {
        if !addresses.is_empty() {
            let passes = u64::from(wavefronts(addresses, words));
            self.counters.shared_wavefronts += passes;
            self.counters.bank_conflicts += passes - 1;
        }
    }

    /// The counters, instructions by class included.
    pub fn finish(mut self, kernel: &Kernel) -> Counters {
        let counters = &mut self.counters;
        for (step, (warps, lanes)) in kernel.steps.iter().zip(&self.counts) {
            counters.thread_instructions += lanes;
            *counters.class_mut(step.class) += warps;
            if step.class == Class::Float {
                let fused = matches!(&step.op, Op::Ternary(..));
                counters.f32_flops += lanes * if fused { 2 } else { 1 };
            }
        }
        counters.global_loads -= self.moved_loads.min(counters.global_loads);
        counters.global_stores -= self.moved_stores.min(counters.global_stores);
        self.counters
    }
}

/// How the distinct addresses of one instruction lie.
struct Spread {
    /// Distinct addresses.
    distinct: u32,
    sectors: u32,
}

/// Counts distinct addresses and sectors, and passes each sector once, of accesses that are aligned to their
/// size.
fn spread(addresses: &[u64; LANES], mask: u32, mut sector: impl FnMut(u64)) -> Spread {
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

/// Passes through shared memory of one group of lanes: the most distinct words in one bank.
fn wavefronts(addresses: &[u64], words: u64) -> u32 {
    // Most groups have one word a bank: the first word of each bank is kept, and others are looked at only
    // then.
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
