//! What all host threads of a launch share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use crate::isa::{Constant, Kernel, SharedLayout, Special};
use crate::lanes::{LANES, row};
use crate::memory::Memory;

use super::waits::Waits;

/// A launch.
pub struct LaunchState<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a Memory,
    pub params: &'a [u8],
    pub grid: [u32; 3],
    /// Numbers of the blocks that run, if not all do.
    pub chosen: Option<&'a [u64]>,
    pub block: [u32; 3],
    pub shared: SharedLayout,
    /// All blocks run at the same time.
    pub cooperative: bool,
    /// Of the order of warps.
    pub seed: u64,
    /// Addresses of the module's variables.
    pub variables: &'a [u64],
    /// One host thread only.
    pub alone: bool,
    /// The machine has the faster arithmetic.
    pub fast: bool,
    /// Held by who accesses global memory atomically: see [`LaunchState::atomic_turn`].
    pub atomics: Mutex<()>,
    pub heap: Heap,
    /// Where cooperative groups find their grid's barrier; 0 if there is none.
    pub workspace: u64,
    /// Instructions left.
    pub budget: AtomicU64,
    /// The next block to run.
    pub next: AtomicU64,
    pub waits: Waits,
    pub stop: AtomicBool,
}

impl LaunchState<'_> {
    /// How many blocks run.
    pub fn blocks(&self) -> u64 {
        let all = || self.grid.iter().map(|size| u64::from(*size)).product();
        self.chosen.map_or_else(all, |chosen| chosen.len() as u64)
    }

    /// The number in the grid of one of them.
    pub fn number_of(&self, place: u64) -> u64 {
        self.chosen.map_or(place, |chosen| chosen[place as usize])
    }

    /// Of one block.
    pub fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    /// The turn of one warp's atomic access, whichever thread runs it, while the guard lives. A value and
    /// what the monitors know of it change together: who reads a flag has also observed what it publishes.
    pub fn atomic_turn(&self) -> Option<MutexGuard<'_, ()>> {
        if self.alone { None } else { self.atomics.lock().ok() }
    }

    /// Something changed that other blocks may wait for.
    pub fn note_progress(&self) {
        if !self.alone {
            self.waits.note_change();
        }
    }

    /// Takes instructions from the launch's budget; false if there are none left.
    pub fn spend(&self, instructions: u64) -> bool {
        let before = self.budget.fetch_sub(instructions, Relaxed);
        // It wraps below zero.
        before >= instructions && before < u64::MAX / 2
    }

    /// What a register holds at first, in the lanes of a block's warp.
    pub fn constant(&self, constant: Constant, block: u64, warp: u32) -> [u64; LANES] {
        match constant {
            Constant::Value(value) => [value; LANES],
            Constant::Variable(variable, addend) => {
                [self.variables[variable].wrapping_add(addend as u64); LANES]
            }
            Constant::DynamicShared(addend) => {
                [u64::from(self.shared.dynamic).wrapping_add(addend as u64); LANES]
            }
            Constant::Special(special) => {
                let of =
                    |lane: usize| u64::from(self.special(special, block, warp * LANES as u32 + lane as u32));
                if special.differs_by_lane() { row(of) } else { [of(0); LANES] }
            }
        }
    }

    fn special(&self, special: Special, block: u64, thread: u32) -> u32 {
        let lane = thread & 31;
        let along = |[x, y, _]: [u32; 3], number: u64, axis: u8| {
            let (x, y) = (u64::from(x), u64::from(y));
            (match axis {
                0 => number % x,
                1 => number / x % y,
                _ => number / (x * y),
            }) as u32
        };
        match special {
            Special::Tid(axis) => along(self.block, u64::from(thread), axis),
            Special::Ntid(axis) => self.block[axis as usize],
            Special::Ctaid(axis) => along(self.grid, block, axis),
            Special::Nctaid(axis) => self.grid[axis as usize],
            Special::Lane => lane,
            Special::Warp => thread / LANES as u32,
            Special::Warps => self.threads().div_ceil(LANES as u32),
            Special::Sm => (block % 128) as u32,
            Special::Sms => 128,
            Special::Grid | Special::Zero => 0,
            Special::MaskEq => 1 << lane,
            Special::MaskLe => u32::MAX >> (31 - lane),
            Special::MaskLt => (1 << lane) - 1,
            Special::MaskGe => u32::MAX << lane,
            Special::MaskGt => u32::MAX << lane & !(1 << lane),
            Special::DynamicShared => self.shared.dynamic_bytes,
            Special::TotalShared => self.shared.bytes,
            Special::WorkspaceHigh => (self.workspace >> 32) as u32,
            Special::WorkspaceLow => self.workspace as u32,
            Special::One => 1,
        }
    }
}

/// The device's heap: what `malloc` gives out is never given out again.
#[derive(Debug, Default)]
pub struct Heap {
    pub base: u64,
    pub bytes: u64,
    pub used: AtomicU64,
}

impl Heap {
    /// The address of fresh memory; 0 if there is none left.
    pub fn allocate(&self, bytes: u64) -> u64 {
        let Some(taken) = bytes.max(1).checked_next_multiple_of(16).and_then(|size| size.checked_add(16))
        else {
            return 0;
        };
        let step = |used: u64| used.checked_add(taken).filter(|used| *used <= self.bytes);
        self.used.fetch_update(Relaxed, Relaxed, step).map_or(0, |start| self.base + start)
    }
}
