//! The time of a launch, from what it does and what is known of its kernel: for `records profile`, and for
//! the choice among kernels that do the same.
//!
//! | question | file |
//! |---|---|
//! | what is known of a kernel? | `facts.rs` |
//! | what does a GPU do? | `gpus.rs`, `gpus.toml` |
//! | how long is a multiprocessor busy? | `queues.rs` |
//! | what do the caches keep? | `cache.rs` |
//!
//! What the multiprocessors take is in `queues.rs`. Registers, shared memory and threads say how many blocks
//! are on one at once. What comes from DRAM and L2 takes its own time beside that; the longest counts.

pub mod cache;
pub mod facts;
pub mod gpus;
mod queues;

use std::collections::HashMap;

use anyhow::Result;

use super::launch::Launch;
use super::work::{Gather, GatherOrder, Product, Work};
use cache::{Gathered, L2, Residents, Traffic};
use facts::Facts;
use gpus::Gpu;
use queues::{Demand, Makespan, makespan};

/// Registers of a multiprocessor.
const REGISTERS: usize = 65_536;
/// Shared memory that the system takes of every block, bytes.
const BLOCK_RESERVED: usize = 1024;
/// Passes through shared memory of an asynchronous copy of 16 bytes a lane.
const PASSES: f64 = 4.0;
/// Machine instructions for one of PTX: addresses are computed anew.
const SASS_OF_PTX: f64 = 1.2;
/// Loads of a warp that are under way at once, at most.
const MOST_LOADS: u32 = 8;
/// The share of the second longest of the three times that the longest does not hide, where a product waits
/// for memory.
const UNHIDDEN: f64 = 0.25;
/// Where hits of L1 are only estimated, L2 counts as waited for from this share of the longest time on, if pixels
/// are asked for once a tap: a choice is not to hang on which of two nearly equal times is called the longer.
const NEARLY: f64 = 0.9;

/// What a kernel's time is bound by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Products.
    TensorCores,
    /// Issue slots.
    Issue,
    /// Passes through shared memory.
    SharedMemory,
    /// Latency that too few warps hide.
    Latency,
    /// f32 arithmetic.
    F32,
    /// The L2 cache.
    L2,
    /// Device memory.
    Dram,
}

impl Limit {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::TensorCores => "tensor cores",
            Self::Issue => "issue slots",
            Self::SharedMemory => "shared memory",
            Self::Latency => "latency",
            Self::F32 => "f32 arithmetic",
            Self::L2 => "L2",
            Self::Dram => "DRAM",
        }
    }
}

/// Seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Time {
    /// As the model computes it: nothing unknown is lost.
    pub best: f64,
    /// Divided by the calibration.
    pub expected: f64,
    /// By the pessimistic one.
    pub pessimistic: f64,
}

impl std::ops::AddAssign for Time {
    fn add_assign(&mut self, other: Self) {
        self.best += other.best;
        self.expected += other.expected;
        self.pessimistic += other.pessimistic;
    }
}

impl std::iter::Sum for Time {
    fn sum<I: Iterator<Item = Self>>(times: I) -> Self {
        times.fold(Self::default(), |mut sum, time| {
            sum += time;
            sum
        })
    }
}

impl std::ops::Sub for Time {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            best: self.best - other.best,
            expected: self.expected - other.expected,
            pessimistic: self.pessimistic - other.pessimistic,
        }
    }
}

impl std::ops::Mul<f64> for Time {
    type Output = Self;

    fn mul(self, factor: f64) -> Self {
        Self {
            best: self.best * factor,
            expected: self.expected * factor,
            pessimistic: self.pessimistic * factor,
        }
    }
}

/// A launch's time and where it goes.
#[derive(Clone, Debug)]
pub struct Predicted {
    /// Without the gap to the next launch.
    pub time: Time,
    /// What it is bound by.
    pub limit: Limit,
    /// Registers of a thread.
    pub registers: u32,
    /// Blocks on a multiprocessor at once.
    pub residents: usize,
    /// Bytes between DRAM and L2.
    pub dram: Traffic,
    /// Bytes that multiprocessors ask L2 for and give it.
    pub l2_bytes: f64,
    /// The share of what a product gathers that the L1 cache has.
    pub l1_hits: Option<f64>,
    /// Seconds of the multiprocessors, of L2 and of DRAM, each alone.
    pub alone: [f64; 3],
    /// The same, of the multiprocessors without what the last turn of blocks leaves idle.
    pub busy: [f64; 3],
    /// Seconds of `time.best` that this idleness costs.
    pub idle: f64,
}

impl Predicted {
    /// Seconds of the expected time that the idleness of the last turn of blocks costs.
    pub fn expected_idle(&self) -> f64 {
        self.idle * self.time.expected / self.time.best
    }
}

/// Expected seconds of launches that do one thing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// In turn, the gaps between them included.
    pub whole: f64,
    /// What they keep a GPU from doing beside them: without what their last turns leave idle, and without
    /// gaps.
    pub busy: f64,
}

/// Predicts launches in their order: what one leaves in L2 the next may find there.
pub struct Model<'a> {
    gpu: &'a Gpu,
    /// None where every byte comes from DRAM once, and hits of L1 are estimated.
    l2: Option<L2>,
    /// What L1 leaves, by what is gathered and by whom.
    gathered: HashMap<(Gather, Residents), Gathered>,
}

impl<'a> Model<'a> {
    /// A GPU with nothing in its caches.
    pub fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, l2: Some(L2::new(gpu.l2_bytes)), gathered: HashMap::new() }
    }

    /// The expected seconds of launches that do one thing in turn, at once: without following what caches
    /// hold. None where a kernel is unknown.
    pub fn estimate(gpu: &'a Gpu, launches: &[Launch]) -> Option<Estimate> {
        let mut model = Self { gpu, l2: None, gathered: HashMap::new() };
        let predicted = model.predict(launches).ok()?;
        let whole = predicted.iter().map(|predicted| predicted.time.expected + gpu.gap).sum();
        let busy =
            predicted.iter().map(|predicted| predicted.time.expected - predicted.expected_idle()).sum();
        Some(Estimate { whole, busy })
    }

    /// The times of launches that run one after the other; all have their work.
    ///
    /// A usage error for a kernel of which nothing is known.
    pub fn predict<'l>(&mut self, launches: impl IntoIterator<Item = &'l Launch>) -> Result<Vec<Predicted>> {
        launches.into_iter().map(|launch| self.launch(launch, launch.known_work())).collect()
    }

    /// The same, of a sequence that is repeated: what the last round left in L2 is there.
    ///
    /// As [`Model::predict`].
    pub fn predict_repeated<'l>(
        &mut self,
        launches: impl IntoIterator<Item = &'l Launch> + Clone,
    ) -> Result<Vec<Predicted>> {
        for launch in launches.clone() {
            self.traffic(launch.known_work());
        }
        self.predict(launches)
    }

    /// Bytes between DRAM and L2.
    fn traffic(&mut self, work: &Work) -> Traffic {
        let every = || Traffic { read: work.read_bytes(), written: work.written_bytes() };
        self.l2.as_mut().map_or_else(every, |l2| l2.run(work))
    }

    fn launch(&mut self, launch: &Launch, work: &Work) -> Result<Predicted> {
        let gpu = self.gpu;
        let facts = facts::of(launch.kernel, gpu.architecture)?;
        let residents = resident_blocks(gpu, facts, launch);
        let dram = self.traffic(work);
        let moved = work.read_bytes() + work.written_bytes();
        let pipelined = work.product.as_ref().filter(|_| facts.main_loop.hmma > 0);
        let (Makespan { cycles, busy, limit: bound }, l2_bytes, l1_hits) = match pipelined {
            Some(product) => {
                let makespan = product_cycles(gpu, facts, launch, residents, product);
                let (bytes, hits) = self.gathered(launch, facts, residents, product);
                (makespan, bytes + work.written_bytes(), hits)
            }
            None => (plain_cycles(gpu, facts, launch, residents, work), moved, None),
        };
        let barriers = work.grid_barriers as f64 * gpu.grid_barrier;
        let alone = [cycles / gpu.clock + barriers, l2_bytes / gpu.l2, (dram.read + dram.written) / gpu.dram];
        let busy = [busy / gpu.clock + barriers, alone[1], alone[2]];
        let (limit, mut seconds) =
            longest(alone, if barriers > 0.5 * alone[0] { Limit::Latency } else { bound });
        let perhaps_l2 =
            self.l2.is_none() && pipelined.is_some_and(asks_for_taps) && alone[1] >= NEARLY * seconds;
        if pipelined.is_some() && (matches!(limit, Limit::L2 | Limit::Dram) || perhaps_l2) {
            let mut ordered = alone;
            ordered.sort_by(f64::total_cmp);
            seconds += UNHIDDEN * ordered[1];
        }
        let idle = (seconds - busy.into_iter().fold(0.0, f64::max)).min(alone[0] - busy[0]).max(0.0);
        let best = seconds + gpu.ramp;
        let calibration = if work.product.is_some() { gpu.product } else { gpu.other };
        let time =
            Time { best, expected: best / calibration.expected, pessimistic: best / calibration.pessimistic };
        let registers = facts.registers;
        Ok(Predicted { time, limit, registers, residents, dram, l2_bytes, l1_hits, alone, busy, idle })
    }

    /// Bytes that the blocks of a product ask L2 for, and the share of the gathered ones that L1 has: 0 of
    /// what bypasses it.
    fn gathered(
        &mut self,
        launch: &Launch,
        facts: &Facts,
        residents: usize,
        product: &Product,
    ) -> (f64, Option<f64>) {
        let gpu = self.gpu;
        let set_aside = shared_set_aside(gpu, residents * block_shared(facts, launch));
        let lines = gpu.l1_bytes.saturating_sub(set_aside) / 128;
        let [rows, columns] = product.tile;
        let (mut bytes, mut copied, mut hits) = (0.0, 0.0, 0.0);
        for group in &product.groups {
            let steps = (group.blocks * group.steps) as f64;
            let slice = (product.slice * 2) as f64;
            let Some(gather) = &group.gather else {
                bytes += steps * slice * (rows + columns) as f64;
                continue;
            };
            if let GatherOrder::Halo { pixels, bytes: of_slice, around } = gather.order {
                let slices = gather.pixel_bytes.div_ceil(of_slice);
                bytes += (pixels * slices * of_slice) as f64 + steps * slice * around as f64;
                continue;
            }
            let side_by_side = Residents {
                blocks: residents.min(group.blocks.div_ceil(gpu.multiprocessors)),
                apart: gpu.multiprocessors,
                steps: group.steps,
                lines,
            };
            let left = match self.l2 {
                None => cache::estimated(gather, side_by_side),
                Some(_) => *self
                    .gathered
                    .entry((gather.clone(), side_by_side))
                    .or_insert_with(|| cache::gathered(gather, side_by_side)),
            };
            let [through, around] = match gather.order {
                GatherOrder::Points { .. } | GatherOrder::Halo { .. } => [rows, columns],
                GatherOrder::Columns { .. } => [columns, rows],
            };
            copied += steps * through as f64;
            hits += steps * through as f64 * left.hits;
            bytes += steps * slice * (through as f64 * left.from_l2 + around as f64);
        }
        (bytes, (copied > 0.0).then(|| hits / copied))
    }
}

/// Whether blocks ask for their pixels anew for each of many taps, so that much depends on what L1 keeps.
fn asks_for_taps(product: &Product) -> bool {
    let asks = |gather: &Gather| {
        matches!(gather.order, GatherOrder::Points { .. }) && gather.stride == 1 && gather.taps.len() > 4
    };
    product.groups.iter().filter_map(|group| group.gather.as_ref()).any(asks)
}

/// The longest of the multiprocessors', L2's and DRAM's time.
fn longest([multiprocessors, l2, dram]: [f64; 3], bound: Limit) -> (Limit, f64) {
    let times = [(bound, multiprocessors), (Limit::L2, l2), (Limit::Dram, dram)];
    times.into_iter().fold((bound, 0.0), |most, time| if time.1 > most.1 { time } else { most })
}

/// Shared memory of a block, with what the system takes.
fn block_shared(facts: &Facts, launch: &Launch) -> usize {
    facts.shared_bytes as usize + launch.shared_bytes as usize + BLOCK_RESERVED
}

/// The least that may be set aside as shared memory for so many bytes.
fn shared_set_aside(gpu: &Gpu, bytes: usize) -> usize {
    let most = gpu.shared_bytes.last().copied().unwrap_or(0);
    gpu.shared_bytes.iter().copied().find(|&aside| aside >= bytes).unwrap_or(most)
}

/// Blocks of a launch on a multiprocessor at once.
fn resident_blocks(gpu: &Gpu, facts: &Facts, launch: &Launch) -> usize {
    let warps = launch.warps().max(1);
    // Registers are handed out to a warp in lots of 256.
    let registers = (facts.registers as usize * 32).next_multiple_of(256) * warps;
    let most_shared = gpu.shared_bytes.last().copied().unwrap_or(0);
    let by = [
        gpu.threads / (32 * warps),
        gpu.blocks,
        REGISTERS / registers.max(1),
        most_shared / block_shared(facts, launch),
    ];
    by.into_iter().min().unwrap_or(1).max(1)
}

/// Cycles of a product whose main loop runs on the tensor cores.
fn product_cycles(
    gpu: &Gpu,
    facts: &Facts,
    launch: &Launch,
    residents: usize,
    product: &Product,
) -> Makespan {
    let main = facts.main_loop;
    let outside = facts.instructions.warp * SASS_OF_PTX;
    // A loop that loads to registers waits for them: nothing is copied ahead.
    let waits = main.ldg > 0 && !product.loads_ahead;
    let (exposed, efficiency) = if waits { (gpu.load_latency, gpu.issue_efficiency) } else { (0.0, 1.0) };
    // Not all that a loop with branches has in machine code is executed in every step.
    let executed = f64::from(main.all).min(facts.instructions.item * SASS_OF_PTX);
    let demand = |steps: f64| Demand {
        servers: [
            f64::from(main.hmma - main.short) * gpu.hmma_cycles + f64::from(main.short) * gpu.hmma_f16_cycles,
            (executed - f64::from(main.hmma) + outside / steps) / efficiency,
            // What is copied through L1 is read there as well.
            facts.wavefronts.item + PASSES * f64::from(main.cached),
        ],
        latency: product.barriers as f64 * gpu.step_latency + exposed + gpu.block_latency / steps,
    };
    let groups = product.groups.iter().filter(|group| group.steps > 0);
    let groups: Vec<(usize, f64)> = groups.map(|group| (group.blocks, group.steps as f64)).collect();
    makespan(gpu, &groups, launch.warps(), residents, demand)
}

/// Cycles of any other kernel: a warp's instructions, loads and passes as one step.
fn plain_cycles(gpu: &Gpu, facts: &Facts, launch: &Launch, residents: usize, work: &Work) -> Makespan {
    let warps = (launch.blocks() * launch.warps()) as f64;
    let items = work.items(launch.warps()) / warps;
    let of = |count: facts::Count| count.warp + count.item * items;
    let under_way = f64::from(facts.main_loop.ldg.clamp(1, MOST_LOADS));
    let demand = Demand {
        servers: [0.0, of(facts.instructions) * SASS_OF_PTX / gpu.issue_efficiency, of(facts.wavefronts)],
        latency: of(facts.loads) / under_way * gpu.load_latency,
    };
    let groups = [(launch.blocks(), 1.0)];
    let makespan = makespan(gpu, &groups, launch.warps(), residents, |_| demand);
    let arithmetic = work.flops / 2.0 / gpu.f32_lanes / gpu.multiprocessors as f64;
    if work.product.is_none() && arithmetic > makespan.cycles {
        Makespan { cycles: arithmetic, busy: arithmetic, limit: Limit::F32 }
    } else {
        makespan
    }
}
