//! A launch: blocks over host threads, or all of them in turns if it is cooperative.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::block::{Block, BlockState, Round, thread_index};
use super::host::Heap;
use super::warp::Warp;
use crate::counters::Counters;
use crate::finding::{Finding, FindingKind, Findings, SourceLine};
use crate::isa::{Class, Kernel, Op, SharedLabel};
use crate::memory::space::Memory;
use crate::memory::sync::Signals;

/// What all workers of a launch share.
pub struct LaunchState<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a Memory,
    pub params: &'a [u8],
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Static and dynamic.
    pub shared_bytes: u32,
    /// Where the dynamic part starts.
    pub dynamic_shared: u32,
    pub cooperative: bool,
    pub seed: u64,
    pub tag: u64,
    /// Addresses of the module's variables.
    pub variables: &'a [u64],
    /// One host thread only.
    pub alone: bool,
    /// The machine has the faster arithmetic.
    pub fast: bool,
    pub atomics: Mutex<()>,
    pub signals: Signals,
    pub heap: Heap,
    /// Where cooperative groups find their grid's barrier; 0 if there is none.
    pub workspace: u64,
    pub budget: AtomicU64,
    pub next: AtomicU64,
    /// Counts changes others may wait for.
    pub changes: AtomicU64,
    pub stop: AtomicBool,
}

impl LaunchState<'_> {
    pub fn blocks(&self) -> u64 {
        self.grid.iter().map(|size| u64::from(*size)).product()
    }

    /// Of one block.
    pub fn threads(&self) -> u64 {
        self.block.iter().map(|size| u64::from(*size)).product()
    }

    pub fn block_of(&self, linear: u64) -> [u32; 3] {
        let [x, y, _] = self.grid.map(u64::from);
        [(linear % x) as u32, (linear / x % y) as u32, (linear / (x * y)) as u32]
    }

    pub fn note_progress(&self) {
        if !self.alone {
            self.changes.fetch_add(1, Relaxed);
        }
    }

    /// The shared variable at an offset, for messages.
    pub fn shared_name(&self, offset: usize) -> String {
        for SharedLabel { offset: start, bytes, name } in &self.kernel.shared_labels {
            if offset >= *start as usize && offset < (*start + *bytes) as usize {
                return format!("{name:?} byte {}", offset - *start as usize);
            }
        }
        if offset >= self.dynamic_shared as usize {
            return format!("byte {} of the dynamic part", offset - self.dynamic_shared as usize);
        }
        format!("byte {offset}")
    }
}

/// One host thread's part of a launch.
pub struct Worker<'a> {
    pub launch: &'a LaunchState<'a>,
    pub counters: Counters,
    /// For each instruction: how often a warp ran it, and how many lanes.
    pub counts: Vec<(u64, u64)>,
    pub findings: Findings,
    /// The allocation used last.
    pub hint: usize,
    /// Generic accesses that turned out to be to shared memory.
    pub moved_loads: u64,
    pub moved_stores: u64,
    /// What the kernel printed.
    pub printed: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(launch: &'a LaunchState<'a>) -> Self {
        Self {
            launch,
            counters: Counters::default(),
            counts: vec![(0, 0); launch.kernel.steps.len()],
            findings: Findings::default(),
            hint: 0,
            moved_loads: 0,
            moved_stores: 0,
            printed: Vec::new(),
        }
    }

    #[cold]
    pub fn finding(
        &mut self,
        block: &BlockState,
        warp: &Warp,
        pc: u32,
        kind: FindingKind,
        lane: u32,
        address: Option<u64>,
        message: impl FnOnce() -> String,
    ) {
        let kernel = self.launch.kernel;
        let shape = self.launch.block;
        self.findings.add(kind, pc, block.linear, || {
            let step = kernel.steps.get(pc as usize);
            Finding {
                kernel: kernel.name.clone(),
                kind,
                source: step.and_then(|step| step.source).map(|(file, line)| SourceLine {
                    file: kernel.files.get(&file).cloned().unwrap_or_default(),
                    line,
                }),
                ptx_line: step.map_or(0, |step| step.line),
                block: block.index,
                thread: thread_index(shape, warp.index * 32 + lane),
                address,
                message: message(),
                times: 0,
            }
        });
    }

    /// Takes instructions from the launch's budget; false if there are none left.
    pub fn spend(&self, instructions: u64) -> bool {
        let before = self.launch.budget.fetch_sub(instructions, Relaxed);
        // It wraps below zero.
        before >= instructions && before < u64::MAX / 2
    }

    fn finish(mut self) -> (Counters, Findings, Vec<u8>) {
        let counters = &mut self.counters;
        for (step, (warps, lanes)) in self.launch.kernel.steps.iter().zip(&self.counts) {
            counters.thread_instructions += lanes;
            *counters.class_mut(step.class) += warps;
            if step.class == Class::Float {
                let fused = matches!(&step.op, Op::Ternary(..));
                counters.f32_flops += lanes * if fused { 2 } else { 1 };
            }
        }
        counters.global_loads -= self.moved_loads.min(counters.global_loads);
        counters.global_stores -= self.moved_stores.min(counters.global_stores);
        (self.counters, self.findings, self.printed)
    }

    /// Blocks one after the other, until none is left.
    fn run_blocks(&mut self) {
        let mut block = Block::default();
        loop {
            let linear = self.launch.next.fetch_add(1, Relaxed);
            if linear >= self.launch.blocks() || self.launch.stop.load(Relaxed) {
                return;
            }
            block.start(self, linear);
            self.counters.blocks += 1;
            self.counters.threads += self.launch.threads();
            let mut changes = self.launch.changes.load(Relaxed);
            loop {
                match block.round(self) {
                    Round::Running => {}
                    Round::Done => break,
                    Round::Stuck => {
                        block.report_stuck(self);
                        break;
                    }
                    Round::Abort => {
                        self.launch.stop.store(true, Relaxed);
                        return;
                    }
                }
                if block.only_spins() == Some(true) {
                    let now = self.launch.changes.load(Relaxed);
                    if now == changes {
                        block.report_spinning(self);
                        self.launch.stop.store(true, Relaxed);
                        return;
                    }
                    changes = now;
                    block.warps.iter_mut().for_each(|warp| warp.spins = 0);
                }
            }
        }
    }

    /// All blocks alive, a round for each in turn.
    fn run_cooperative(&mut self) {
        let count = self.launch.blocks();
        let mut blocks: Vec<Block> = Vec::new();
        for linear in 0..count {
            let mut block = Block::default();
            block.start(self, linear);
            blocks.push(block);
        }
        self.counters.blocks += count;
        self.counters.threads += count * self.launch.threads();
        let mut live: Vec<usize> = (0..blocks.len()).collect();
        while !live.is_empty() {
            let (mut stuck, mut aborted) = (0, false);
            let mut changed = false;
            live.retain(|index| {
                if aborted {
                    return true;
                }
                let block = &mut blocks[*index];
                let round = block.round(self);
                changed |= block.changed();
                match round {
                    Round::Running => true,
                    Round::Done => false,
                    Round::Stuck => {
                        stuck += 1;
                        true
                    }
                    Round::Abort => {
                        aborted = true;
                        true
                    }
                }
            });
            if aborted {
                return;
            }
            if changed {
                for index in &live {
                    blocks[*index].warps.iter_mut().for_each(|warp| warp.spins = 0);
                }
            }
            if stuck == live.len() && stuck > 0 {
                for index in &live {
                    blocks[*index].report_stuck(self);
                }
                return;
            }
            let spins = live.iter().filter_map(|index| blocks[*index].only_spins());
            if spins.reduce(|all, one| all && one) == Some(true) {
                for index in &live {
                    blocks[*index].report_spinning(self);
                }
                return;
            }
        }
    }
}

/// Runs a launch on `threads` host threads.
pub fn run(launch: &LaunchState<'_>, threads: usize) -> (Counters, Findings, Vec<u8>) {
    let mut total = (Counters::default(), Findings::default(), Vec::new());
    if launch.cooperative || launch.alone {
        let mut worker = Worker::new(launch);
        if launch.cooperative {
            worker.run_cooperative();
        } else {
            worker.run_blocks();
        }
        total = worker.finish();
    } else {
        let parts = std::thread::scope(|scope| {
            let handles: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut worker = Worker::new(launch);
                        worker.run_blocks();
                        worker.finish()
                    })
                })
                .collect();
            handles.into_iter().map(|handle| handle.join()).collect::<Vec<_>>()
        });
        for part in parts {
            match part {
                Ok((counters, findings, _)) => {
                    total.0 += &counters;
                    total.1.merge(findings);
                }
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    }
    total.0.launches = 1;
    let (read, written) = launch.memory.take_touched();
    total.0.unique_load_sectors = read;
    total.0.unique_store_sectors = written;
    total
}
