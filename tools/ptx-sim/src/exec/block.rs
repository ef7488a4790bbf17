//! A block: turns for its warps until all are done, or none can go on.

use super::barrier;
use super::launch::LaunchState;
use super::registers::Registers;
use super::site::{Arrivals, BlockState, Worker};
use super::step;
use super::warp::{Standing, Warp};
use crate::isa::RegisterFile;
use crate::lanes::{FULL, LANES};
use crate::memory::Shared;
use crate::monitor::{Fault, Monitor, Position};

/// Instructions a warp runs before the next one's turn. Long: warps of real kernels mostly meet at barriers.
const TURN: u32 = 4096;
/// Loads that find the same value after which a warp is taken to wait for ever, if nothing changes meanwhile.
const MOST_SPINS: u32 = 20_000;

/// A block and its warps.
pub struct Block<M: Monitor> {
    state: BlockState<M>,
    warps: Vec<Warp>,
    /// The state of a generator of random turns; 0 if there are none.
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

impl<M: Monitor> Block<M> {
    /// One that has not started.
    pub fn new() -> Self {
        let state = BlockState {
            number: 0,
            shared: Shared::default(),
            shared_bytes: 0,
            barriers: Default::default(),
            copies: Vec::new(),
            landing: Vec::new(),
            arrived: Vec::new(),
            watched: M::Block::default(),
            progress: false,
            ticks: 0,
        };
        Self { state, warps: Vec::new(), random: 0, order: Vec::new(), changed: false }
    }

    /// Makes the block ready to run as that number of the grid.
    pub fn start(&mut self, launch: &LaunchState<'_>, worker: &mut Worker<M>, number: u64) {
        let threads = launch.threads();
        let count = threads.div_ceil(LANES as u32);
        let state = &mut self.state;
        state.number = number;
        state.shared_bytes = u64::from(launch.shared.end);
        state.shared.reset(launch.shared.end as usize);
        state.barriers.fill(Arrivals::default());
        state.arrived.clear();
        state.landing.clear();
        state.copies.clear();
        state.copies.resize_with(count as usize, Vec::new);
        (state.progress, state.ticks) = (false, 0);
        worker.monitor.begin(&mut state.watched, number);
        self.warps.resize_with(count as usize, Warp::new);
        self.random = if launch.seed == 0 { 0 } else { mix(launch.seed ^ mix(number)) | 1 };
        self.order = (0..count).collect();
        for (index, warp) in (0..count).zip(&mut self.warps) {
            let left = threads - index * LANES as u32;
            warp.start(index, if left >= LANES as u32 { FULL } else { (1 << left) - 1 });
            warp.local.clear();
            warp.local.resize(launch.kernel.local_bytes as usize * LANES, 0);
            set_registers(launch, &mut warp.registers, number, index);
        }
    }

    /// A turn for every warp that is ready; how the block stands after it.
    pub fn round(&mut self, launch: &LaunchState<'_>, worker: &mut Worker<M>) -> Standing {
        if self.random != 0 {
            for at in (1..self.order.len()).rev() {
                self.random = mix(self.random);
                self.order.swap(at, (self.random % (at as u64 + 1)) as usize);
            }
        }
        let mut ran = false;
        for at in 0..self.order.len() {
            let index = self.order[at] as usize;
            if self.warps[index].standing == Standing::Ready {
                ran = true;
                if self.turn(launch, worker, index) == Standing::Aborted {
                    return Standing::Aborted;
                }
            }
        }
        if ran && self.warps.iter().any(|warp| warp.standing != Standing::Done) {
            return Standing::Ready;
        }
        let waiting = self.warps.iter().map(|warp| warp.standing).find(|it| *it != Standing::Done);
        waiting.unwrap_or(Standing::Done)
    }

    /// A turn for one warp.
    fn turn(&mut self, launch: &LaunchState<'_>, worker: &mut Worker<M>, index: usize) -> Standing {
        let turn = if self.random == 0 {
            TURN
        } else {
            self.random = mix(self.random);
            16 + (self.random >> 32) as u32 % 96
        };
        let (state, warp) = (&mut self.state, &mut self.warps[index]);
        let before = warp.ticks;
        state.progress = false;
        warp.standing = step::run(launch, worker, state, warp, turn);
        let (standing, ran) = (warp.standing, warp.ticks - before);
        state.ticks += ran;
        if !launch.spend(ran) {
            let (at, lane) = (stopped(state, warp), warp.mask.trailing_zeros() & 31);
            worker.monitor.fault(at, lane, None, Fault::BudgetUsed);
            return Standing::Aborted;
        }
        if state.progress {
            self.changed = true;
            launch.note_progress();
            self.forget_spins();
        }
        if standing != Standing::Aborted {
            while let Some(id) = self.state.arrived.pop() {
                barrier::release(worker, &mut self.state, &mut self.warps, id);
            }
        }
        if standing == Standing::Done {
            // The others may have waited only for this one.
            for id in 0..16 {
                barrier::release(worker, &mut self.state, &mut self.warps, id);
            }
        }
        standing
    }

    /// Whether anything changed since the last call that others may wait for.
    pub fn changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Something changed that its warps may wait for.
    pub fn forget_spins(&mut self) {
        self.warps.iter_mut().for_each(|warp| warp.spins = 0);
    }

    /// Whether every warp that could run only waits for a value to change; None if no warp could run.
    pub fn only_spins(&self) -> Option<bool> {
        let mut ready = self.warps.iter().filter(|warp| warp.standing == Standing::Ready).peekable();
        ready.peek()?;
        Some(ready.all(|warp| warp.spins > MOST_SPINS))
    }

    /// Reports that the block's warps wait for each other.
    pub fn report_stuck(&self, worker: &mut Worker<M>) {
        let waits = |warp: &Warp| match warp.standing {
            Standing::Waiting(id) => Some((warp.index, id)),
            _ => None,
        };
        let waiting: Vec<_> = self.warps.iter().filter_map(waits).collect();
        let Some((first, id)) = waiting.first().copied() else { return };
        let warp = &self.warps[first as usize];
        let Arrivals { threads: arrived, wanted, pc, .. } = self.state.barriers[id as usize];
        let at = Position { block: self.state.number, warp: first, pc };
        let fault = Fault::Stuck { waiting: &waiting, id, wanted, arrived };
        worker.monitor.fault(at, warp.live.trailing_zeros() & 31, None, fault);
    }

    /// Reports that the block's warps wait for a value nobody writes.
    pub fn report_spinning(&self, launch: &LaunchState<'_>, worker: &mut Worker<M>) {
        let Some(warp) = self.warps.iter().find(|warp| warp.standing == Standing::Ready) else { return };
        let (at, lane) = (stopped(&self.state, warp), warp.mask.trailing_zeros() & 31);
        worker.monitor.fault(at, lane, None, Fault::Spinning { cooperative: launch.cooperative });
    }
}

/// At the instruction that a warp ran last.
fn stopped<M: Monitor>(state: &BlockState<M>, warp: &Warp) -> Position {
    Position { block: state.number, warp: warp.index, pc: warp.pc.saturating_sub(1) }
}

/// What registers hold before the first instruction.
fn set_registers(launch: &LaunchState<'_>, registers: &mut Registers, block: u64, warp: u32) {
    let kernel = launch.kernel;
    let [w, d, p] = kernel.rows.map(|rows| rows as usize);
    registers.w.clear();
    registers.w.resize(w, [0; LANES]);
    registers.d.clear();
    registers.d.resize(d, [0; LANES]);
    registers.p.clear();
    registers.p.resize(p, 0);
    for (reg, constant) in &kernel.constants {
        let (row, index) = (launch.constant(*constant, block, warp), reg.index as usize);
        match reg.file {
            RegisterFile::W => registers.w[index] = row.map(|value| value as u32),
            RegisterFile::D => registers.d[index] = row,
            RegisterFile::Predicate => registers.p[index] = row[0] as u32,
        }
    }
}
