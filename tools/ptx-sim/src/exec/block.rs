//! A block: its warps take turns, meet at barriers, and share memory.

use super::Context;
use super::shared::Shared;
use super::warp::{Stop, Waiting, Warp};
use crate::finding::FindingKind;
use crate::op::BarrierKind;

/// Whether a block has more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Going,
    Done,
}

/// Instructions a warp runs at a stretch: long without a seed, short where other blocks wait for it.
const STRETCH: u64 = 100_000;
const COOPERATIVE_STRETCH: u64 = 500;

/// A block being run.
pub struct Block {
    pub place: [u32; 3],
    /// Its number, counted from 1.
    pub number: u32,
    pub shared: Shared,
    pub warps: Vec<Warp>,
    random: u64,
    seeded: bool,
}

impl Block {
    pub fn new(context: &Context<'_>, index: u64, place: [u32; 3], seed: u64) -> Self {
        let kernel = context.kernel;
        let threads: u32 = context.launch.block.iter().product();
        let bytes = kernel.dynamic_shared + context.launch.shared_bytes as usize;
        let warps =
            (0..threads.div_ceil(32)).map(|number| Warp::new(context, number, place, threads)).collect();
        Self {
            place,
            number: index as u32 + 1,
            shared: Shared::new(bytes, kernel.shared_granule),
            warps,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
                ^ index.wrapping_add(1).wrapping_mul(0xd1b5_4a32_d192_ed03),
            seeded: seed != 0,
        }
    }

    /// A pseudo-random number (xorshift).
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Lets every warp that can run go on for a while, then opens barriers.
    pub fn turn(&mut self, context: &mut Context<'_>) -> Progress {
        let count = self.warps.len();
        let first = if self.seeded { self.random() as usize % count } else { 0 };
        let backwards = self.seeded && self.random() & 1 == 1;
        let mut moved = false;
        for step in 0..count {
            let index = if backwards { (first + count - step) % count } else { (first + step) % count };
            if !self.warps[index].can_run() {
                continue;
            }
            moved = true;
            let stretch = match (self.seeded, context.launch.cooperative) {
                (true, _) => 8 + self.random() % 300,
                (false, true) => COOPERATIVE_STRETCH,
                (false, false) => STRETCH,
            };
            let Self { warps, shared, place, number, .. } = self;
            if warps[index].run(context, shared, *place, *number, stretch) == Stop::OutOfBudget {
                let warp = &warps[index];
                let instruction = &context.kernel.code[warp.position().min(context.kernel.code.len() - 1)];
                let detail =
                    "no end within the instructions allowed: threads spin for what never comes".to_string();
                context.report(FindingKind::EndlessWait, instruction, *place, warp.thread(0), detail);
                return Progress::Done;
            }
        }
        let opened = self.open_barriers();
        if self.warps.iter().all(Warp::is_done) {
            return Progress::Done;
        }
        if !moved && !opened {
            let Some(warp) = self.warps.iter().find(|warp| !warp.is_done()) else { return Progress::Done };
            let waiting: Vec<String> = self.warps.iter().map(Warp::state).collect();
            let instruction = &context.kernel.code[warp.position()];
            let detail = format!("no warp can go on: {}", waiting.join(", "));
            context.report(FindingKind::EndlessWait, instruction, self.place, warp.thread(0), detail);
            return Progress::Done;
        }
        Progress::Going
    }

    /// Lets warps through barriers at which all that are expected have arrived.
    fn open_barriers(&mut self) -> bool {
        let alive = self.warps.iter().filter(|warp| !warp.is_done()).count() as u32;
        let mut opened = false;
        for id in 0..16 {
            let at: Vec<usize> = (0..self.warps.len())
                .filter(|&w| self.warps[w].waiting().is_some_and(|b| b.id == id))
                .collect();
            let Some(first) = at.iter().find_map(|&w| self.warps[w].waiting()) else { continue };
            let expected = first.count.map_or(alive, |threads| threads.div_ceil(32));
            let arrived: u32 = self.warps.iter().map(|warp| warp.arrivals(id)).sum();
            if arrived < expected {
                continue;
            }
            opened = true;
            let values: Vec<Waiting> = at.iter().filter_map(|&w| self.warps[w].waiting()).collect();
            let count: u32 = values.iter().map(|b| b.value.count_ones()).sum();
            let members: u32 = values.iter().map(|b| b.members.count_ones()).sum();
            for &w in &at {
                let Some(waiting) = self.warps[w].waiting() else { continue };
                let result = match waiting.kind {
                    BarrierKind::Count => Some(count),
                    BarrierKind::All => Some(if count == members { u32::MAX } else { 0 }),
                    BarrierKind::Any => Some(if count > 0 { u32::MAX } else { 0 }),
                    BarrierKind::Sync | BarrierKind::Arrive => None,
                };
                self.warps[w].release(result);
            }
            self.warps.iter_mut().for_each(|warp| warp.forget_arrivals(id));
            self.shared.barrier();
        }
        opened
    }

    /// Adds up what the block counted.
    pub fn finish(self, context: &mut Context<'_>) {
        for warp in &self.warps {
            for (total, count) in context.classes.iter_mut().zip(warp.classes) {
                *total += count;
            }
            context.counters.thread_instructions += warp.thread_instructions;
        }
    }
}
