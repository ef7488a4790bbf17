//! A block: its shared memory and barriers, and turns for its warps.

use super::barrier::{self, Arrivals};
use super::grid::Worker;
use super::mbarrier::Landing;
use super::registers::{FULL, LANES};
use super::warp::{self, Status, Stop, Warp};
use crate::finding::FindingKind;
use crate::isa::{Constant, RegisterFile, Special};
use crate::memory::order::Ordering;
use crate::memory::shared::Shared;

/// Instructions a warp runs before the next one's turn. Long: warps of real kernels mostly meet at barriers.
const TURN: u32 = 4096;
/// Loads that find the same value after which a warp is taken to wait for ever, if nothing changes meanwhile.
const MOST_SPINS: u32 = 20_000;

/// What the warps of a block share.
#[derive(Default)]
pub struct BlockState {
    pub index: [u32; 3],
    pub linear: u64,
    pub shared: Shared,
    pub shared_bytes: u64,
    pub barriers: Vec<Arrivals>,
    /// Asynchronous copies that mbarriers wait for.
    pub landing: Vec<Landing>,
    /// Barriers that a warp arrived at and did not stop.
    pub arrived: Vec<u32>,
    /// What its warps know of each other and of other blocks.
    pub order: Ordering,
    /// Something changed that others may wait for.
    pub progress: bool,
    pub ticks: u64,
}

/// How a block stands after a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Running,
    /// All its warps that are left wait, and none of them can be woken from inside.
    Stuck,
    Done,
    Abort,
}

#[derive(Default)]
pub struct Block {
    pub state: BlockState,
    pub warps: Vec<Warp>,
    random: u64,
    order: Vec<u32>,
    changed: bool,
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ x >> 31
}

impl Block {
    /// Makes the block ready to run as number `linear` of the grid.
    pub fn start(&mut self, worker: &Worker<'_>, linear: u64) {
        let launch = worker.launch;
        let kernel = launch.kernel;
        let [x, y, z] = launch.block;
        let threads = x * y * z;
        let count = threads.div_ceil(LANES as u32);
        let state = &mut self.state;
        state.index = launch.block_of(linear);
        state.linear = linear;
        state.shared_bytes = u64::from(launch.shared_bytes);
        state.shared.reset(launch.shared_bytes as usize);
        state.barriers.clear();
        state.barriers.resize(16, Arrivals::default());
        state.arrived.clear();
        state.landing.clear();
        state.order.start(launch.tag, linear, count as usize);
        (state.progress, state.ticks) = (false, 0);
        self.warps.resize_with(count as usize, Warp::new);
        self.random = if launch.seed == 0 { 0 } else { mix(launch.seed ^ mix(linear)) | 1 };
        self.order = (0..count).collect();
        for index in 0..count {
            let left = threads - index * LANES as u32;
            let live = if left >= LANES as u32 { FULL } else { (1 << left) - 1 };
            let warp = &mut self.warps[index as usize];
            warp.start(index, live);
            let [w, d, p] = kernel.rows;
            let registers = &mut warp.registers;
            registers.w.clear();
            registers.w.resize(w as usize, [0; LANES]);
            registers.d.clear();
            registers.d.resize(d as usize, [0; LANES]);
            registers.p.clear();
            registers.p.resize(p as usize, 0);
            let local = kernel.local_bytes as usize * LANES;
            warp.local.clear();
            warp.local.resize(local, 0);
            warp.local_written.clear();
            warp.local_written.resize(local, 0);
            for (reg, constant) in &kernel.constants {
                let row: [u64; LANES] = match constant {
                    Constant::Value(value) => [*value; LANES],
                    Constant::Variable(variable, addend) => {
                        [launch.variables[*variable].wrapping_add(*addend as u64); LANES]
                    }
                    Constant::DynamicShared(addend) => {
                        [u64::from(launch.dynamic_shared).wrapping_add(*addend as u64); LANES]
                    }
                    Constant::Special(special) => std::array::from_fn(|lane| {
                        let thread = index * LANES as u32 + lane as u32;
                        u64::from(launch.special(*special, state.index, linear, thread))
                    }),
                };
                match reg.file {
                    RegisterFile::W => registers.w[reg.index as usize] = row.map(|value| value as u32),
                    RegisterFile::D => registers.d[reg.index as usize] = row,
                    RegisterFile::Predicate => registers.p[reg.index as usize] = row[0] as u32,
                }
            }
        }
    }

    /// A turn for every warp that is ready.
    pub fn round(&mut self, worker: &mut Worker<'_>) -> Round {
        if self.random != 0 {
            for at in (1..self.order.len()).rev() {
                self.random = mix(self.random);
                self.order.swap(at, (self.random % (at as u64 + 1)) as usize);
            }
        }
        let mut ran = false;
        for at in 0..self.order.len() {
            let index = self.order[at] as usize;
            if self.warps[index].status != Status::Ready {
                continue;
            }
            ran = true;
            let turn = if self.random == 0 {
                TURN
            } else {
                self.random = mix(self.random);
                16 + (self.random >> 32) as u32 % 96
            };
            let warp = &mut self.warps[index];
            let before = warp.ticks;
            self.state.progress = false;
            let stop = warp::run(worker, &mut self.state, warp, turn);
            let ran = warp.ticks - before;
            self.state.ticks += ran;
            if !worker.spend(ran) {
                worker.finding(
                    &self.state,
                    warp,
                    warp.pc.saturating_sub(1),
                    FindingKind::NeverEnds,
                    warp.mask.trailing_zeros() & 31,
                    None,
                    || "the launch used up its budget of instructions".into(),
                );
                return Round::Abort;
            }
            if self.state.progress {
                self.changed = true;
                worker.launch.note_progress();
                self.warps.iter_mut().for_each(|warp| warp.spins = 0);
            }
            if stop == Stop::Abort {
                return Round::Abort;
            }
            while let Some(id) = self.state.arrived.pop() {
                barrier::release(worker, &mut self.state, &mut self.warps, id);
            }
            if stop == Stop::Done {
                // The others may have waited only for this one.
                for id in 0..16 {
                    barrier::release(worker, &mut self.state, &mut self.warps, id);
                }
            }
        }
        if self.warps.iter().all(|warp| warp.status == Status::Done) {
            return Round::Done;
        }
        if !ran {
            return Round::Stuck;
        }
        Round::Running
    }

    /// Whether anything changed since the last call that others may wait for.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether every warp that could run only waits for a value to change; None if no warp could run.
    pub fn only_spins(&self) -> Option<bool> {
        let mut ready = self.warps.iter().filter(|warp| warp.status == Status::Ready).peekable();
        ready.peek()?;
        Some(ready.all(|warp| warp.spins > MOST_SPINS))
    }

    /// Reports that the block's warps wait for each other.
    pub fn report_stuck(&self, worker: &mut Worker<'_>) {
        let waiting: Vec<_> = self
            .warps
            .iter()
            .filter_map(|warp| match warp.status {
                Status::Waiting(id) => Some((warp.index, id)),
                _ => None,
            })
            .collect();
        let Some((first, id)) = waiting.first().copied() else { return };
        let warp = &self.warps[first as usize];
        let barrier = &self.state.barriers[id as usize];
        let list: Vec<_> = waiting.iter().map(|(warp, id)| format!("warp {warp} at barrier {id}")).collect();
        let wanted = barrier.wanted.map_or("all threads".to_string(), |wanted| format!("{wanted} threads"));
        let lane = warp.live.trailing_zeros() & 31;
        let kind = FindingKind::DivergentBarrier;
        worker.finding(&self.state, warp, barrier.pc, kind, lane, None, || {
            format!(
                "the block is stuck: {}; barrier {id} waits for {wanted} and {} arrived",
                list.join(", "),
                barrier.threads
            )
        });
    }

    /// Reports that the block's warps wait for a value nobody writes.
    pub fn report_spinning(&self, worker: &mut Worker<'_>) {
        let Some(warp) = self.warps.iter().find(|warp| warp.status == Status::Ready) else { return };
        let lane = warp.mask.trailing_zeros() & 31;
        let how = if worker.launch.cooperative {
            "no warp of the launch changes anything any more"
        } else {
            "only another block could write it, which the launch does not promise to run at the same time (it is \
             not cooperative)"
        };
        let pc = warp.pc.saturating_sub(1);
        worker.finding(&self.state, warp, pc, FindingKind::NeverEnds, lane, None, || {
            format!("waits for a value to change: {how}")
        });
    }
}

/// Special registers of one thread.
pub fn thread_index(block: [u32; 3], thread: u32) -> [u32; 3] {
    let [x, y, _] = block;
    [thread % x, thread / x % y, thread / (x * y)]
}

impl super::grid::LaunchState<'_> {
    fn special(&self, special: Special, block: [u32; 3], linear: u64, thread: u32) -> u32 {
        let lane = thread & 31;
        match special {
            Special::Tid(axis) => thread_index(self.block, thread)[axis as usize],
            Special::Ntid(axis) => self.block[axis as usize],
            Special::Ctaid(axis) => block[axis as usize],
            Special::Nctaid(axis) => self.grid[axis as usize],
            Special::Lane => lane,
            Special::Warp => thread / LANES as u32,
            Special::Warps => (self.block[0] * self.block[1] * self.block[2]).div_ceil(LANES as u32),
            Special::Sm => (linear % 128) as u32,
            Special::Sms => 128,
            Special::Grid => 0,
            Special::MaskEq => 1 << lane,
            Special::MaskLe => u32::MAX >> (31 - lane),
            Special::MaskLt => (1 << lane) - 1,
            Special::MaskGe => u32::MAX << lane,
            Special::MaskGt => u32::MAX << lane & !(1 << lane),
            Special::DynamicShared => self.shared_bytes - self.dynamic_shared,
            Special::TotalShared => self.shared_bytes,
            Special::WorkspaceHigh => (self.workspace >> 32) as u32,
            Special::WorkspaceLow => self.workspace as u32,
            Special::Zero => 0,
            Special::One => 1,
        }
    }
}
