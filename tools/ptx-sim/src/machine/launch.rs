//! One launch: what it asks for, whether a GPU would accept it, and what comes of it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use super::Machine;
use crate::error::{Error, Result};
use crate::exec::{self, Heap, LaunchState, Waits};
use crate::isa::{HostFunction, Kernel, Program};
use crate::watch::{Counters, Finding, Findings, Group, MOST_TAG, Shadow, Signals, Subject, Watch};

/// What CUDA gives kernels for `malloc` by default.
const HEAP: u64 = 8 << 20;
/// Bytes that cooperative groups use of a grid, and some more.
const WORKSPACE: usize = 256;
const MOST_THREADS: u64 = 1024;
const MOST_BLOCK: [u32; 3] = [1024, 1024, 64];
const MOST_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];

/// One launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Every block runs at the same time as every other, so that they may wait for each other.
    pub cooperative: bool,
    /// The parameters, packed at natural alignment.
    pub arguments: &'a [u8],
}

/// What a launch did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// What it cost.
    pub counters: Counters,
    /// What is wrong, up to the number of the settings: one for each instruction and kind.
    pub findings: Vec<Finding>,
    /// How often something was wrong, lane by lane.
    pub findings_total: u64,
    /// What the kernel printed, up to 1 MiB.
    pub printed: String,
}

/// A launch that was found to be possible.
#[derive(Clone, Copy)]
pub(super) struct Prepared<'a> {
    pub kernel: &'a Kernel,
    program: &'a Program,
    pub launch: Launch<'a>,
    /// Where the grid's barrier lies; 0 if there is none.
    workspace: u64,
    /// Numbers of the blocks to run, if not all.
    blocks: Option<&'a [u64]>,
}

/// A launch as one of several.
#[derive(Clone, Copy)]
pub(super) struct Role<'a> {
    /// Which launch it is, for histories.
    pub tag: u64,
    pub group: Option<(&'a Group, usize)>,
    pub signals: &'a Signals,
}

impl Machine {
    /// Runs a kernel.
    ///
    /// # Errors No such kernel, or a launch that no GPU would accept. What the kernel itself does wrong is in
    /// the report.
    pub fn launch(&mut self, program: &Program, kernel: &str, launch: &Launch<'_>) -> Result<Report> {
        let prepared = self.prepare(program, kernel, launch, 0)?;
        Ok(self.run_alone(&prepared))
    }

    /// Runs some blocks of a kernel's grid and leaves out the others, which costs what the chosen ones cost,
    /// however large the grid. The report counts those blocks alone, and names what is wrong within them and
    /// between them: races with the blocks left out are not seen, and what those would have written stays as
    /// it was.
    ///
    /// # Errors As [`Machine::launch`]; a block that the grid does not have or that is named twice, or none;
    /// a cooperative launch, whose blocks wait for each other.
    pub fn launch_blocks(
        &mut self,
        program: &Program,
        kernel: &str,
        launch: &Launch<'_>,
        blocks: &[[u32; 3]],
    ) -> Result<Report> {
        let numbers = chosen(launch, blocks).map_err(|error| of_kernel(kernel, &error))?;
        let prepared = self.prepare(program, kernel, launch, 0)?;
        Ok(self.run_alone(&Prepared { blocks: Some(&numbers), ..prepared }))
    }

    fn run_alone(&mut self, prepared: &Prepared<'_>) -> Report {
        let tag = self.take_tags(1);
        self.run(prepared, Role { tag, group: None, signals: &Signals::default() })
    }

    /// Tags of that many launches, one after the other: the first one.
    pub(super) fn take_tags(&mut self, count: u64) -> u64 {
        let used = self.launches % MOST_TAG;
        if used + count > MOST_TAG {
            self.launches += MOST_TAG - used;
        }
        if self.launches > 0 && self.launches.is_multiple_of(MOST_TAG) {
            self.shadows.iter_mut().for_each(|shadow| shadow.histories.forget());
        }
        self.launches += count;
        (self.launches - count) % MOST_TAG + 1
    }

    /// Refuses what cannot be launched, and loads the program. `nth`: how many launches with a grid's barrier
    /// run before it in the same graph.
    pub(super) fn prepare<'a>(
        &mut self,
        program: &'a Program,
        kernel: &str,
        launch: &Launch<'a>,
        nth: usize,
    ) -> Result<Prepared<'a>> {
        let Some(found) = program.kernel(kernel) else {
            let names: Vec<_> = program.kernels().collect();
            return Err(Error::new(format!("no kernel {kernel}; there are: {}", names.join(", "))));
        };
        let found = found.as_ref().map_err(Error::clone)?;
        self.check(found, launch).map_err(|error| of_kernel(kernel, &error))?;
        self.load(program)?;
        if self.heap.is_none() && found.calls(HostFunction::Allocate) {
            self.heap = Some(self.try_allocate(HEAP as usize, "the device's heap")?);
        }
        let workspace = if launch.cooperative { self.workspace_for(found, nth)? } else { 0 };
        Ok(Prepared { kernel: found, program, launch: *launch, workspace, blocks: None })
    }

    /// A fresh workspace for the grid's barrier, if the kernel needs one.
    fn workspace_for(&mut self, kernel: &Kernel, nth: usize) -> Result<u64> {
        if !kernel.needs_workspace() {
            return Ok(0);
        }
        while self.workspaces.len() <= nth {
            let new = self.try_allocate(WORKSPACE, "the grid's workspace")?;
            self.workspaces.push(new);
        }
        self.fill(self.workspaces[nth], WORKSPACE, 0)?;
        Ok(self.workspaces[nth])
    }

    /// Refuses a launch that no GPU would accept.
    fn check(&self, kernel: &Kernel, launch: &Launch<'_>) -> Result<()> {
        let wrong = |message: String| Err(Error::new(message));
        let Launch { grid, block, .. } = *launch;
        let threads: u64 = block.iter().map(|size| u64::from(*size)).product();
        if threads == 0 || grid.contains(&0) {
            return wrong("an empty grid or block".into());
        }
        if block[0] > MOST_BLOCK[0] || block[1] > MOST_BLOCK[1] || block[2] > MOST_BLOCK[2] {
            return wrong(format!("a block of {block:?}; the most is 1024, 1024, 64"));
        }
        if threads > MOST_THREADS {
            return wrong(format!("{threads} threads in a block; the most is {MOST_THREADS}"));
        }
        if let Some(most) = kernel.most_threads.filter(|most| threads > *most) {
            return wrong(format!("{threads} threads in a block; its launch bounds say {most}"));
        }
        if let Some(shape) = kernel.required_threads.filter(|shape| *shape != block.map(u64::from)) {
            return wrong(format!("a block of {block:?}; the kernel requires {shape:?}"));
        }
        if grid[0] > MOST_GRID[0] || grid[1] > MOST_GRID[1] || grid[2] > MOST_GRID[2] {
            return wrong(format!("a grid of {grid:?}; the most is 2147483647, 65535, 65535"));
        }
        let shared = kernel.shared_layout(launch.shared_bytes).bytes;
        let most = self.settings.most_shared;
        if shared > most {
            return wrong(format!("{shared} bytes of shared memory; the most is {most}"));
        }
        if launch.arguments.len() != kernel.parameter_bytes as usize {
            let (given, wanted) = (launch.arguments.len(), kernel.parameter_bytes);
            return wrong(format!("{given} bytes of parameters; the kernel has {wanted}"));
        }
        let blocks: u64 = grid.iter().map(|size| u64::from(*size)).product();
        if launch.cooperative && blocks > 4096 {
            return wrong(format!("{blocks} blocks at the same time; no GPU holds more than 4096"));
        }
        Ok(())
    }

    /// Runs a launch that is possible.
    pub(super) fn run(&mut self, prepared: &Prepared<'_>, role: Role<'_>) -> Report {
        let Prepared { kernel, program, launch, workspace, blocks } = *prepared;
        let shared = kernel.shared_layout(launch.shared_bytes);
        let (threads, cooperative) = (self.settings.threads.clamp(1, 256), launch.cooperative);
        let subject = Subject {
            kernel,
            memory: &self.memory,
            shadows: &self.shadows,
            grid: launch.grid,
            block: launch.block,
            shared,
            tag: role.tag,
            signals: role.signals,
            group: role.group,
        };
        let state = LaunchState {
            kernel,
            memory: &self.memory,
            params: launch.arguments,
            grid: launch.grid,
            chosen: blocks,
            block: launch.block,
            shared,
            cooperative,
            seed: self.settings.warp_seed,
            variables: self.modules.get(&program.id).map_or(&[], |list| list.as_slice()),
            alone: threads == 1 || cooperative || kernel.needs_order(),
            fast: exec::fast(),
            atomics: Mutex::new(()),
            workspace,
            heap: Heap { base: self.heap.unwrap_or(0), bytes: HEAP, used: self.heap_used.into() },
            budget: AtomicU64::new(self.settings.max_instructions.min(u64::MAX / 4)),
            next: AtomicU64::new(0),
            waits: Waits::default(),
            stop: AtomicBool::new(false),
        };
        let parts = exec::run(&state, threads, || Watch::new(&subject));
        self.heap_used = state.heap.used.into_inner();
        report(parts, &self.shadows, self.settings.max_findings)
    }
}

fn of_kernel(kernel: &str, error: &Error) -> Error {
    Error::new(format!("launch of {kernel}: {error}"))
}

/// The numbers of blocks in the grid.
fn chosen(launch: &Launch<'_>, blocks: &[[u32; 3]]) -> Result<Vec<u64>> {
    if launch.cooperative {
        return Err(Error::new(
            "the blocks of a cooperative launch wait for each other: all of them must run",
        ));
    }
    if blocks.is_empty() {
        return Err(Error::new("no block to run"));
    }
    let [width, height, _] = launch.grid.map(u64::from);
    let mut numbers = Vec::with_capacity(blocks.len());
    for block in blocks {
        if block.iter().zip(launch.grid).any(|(at, size)| *at >= size) {
            return Err(Error::new(format!("block {block:?}; the grid is {:?}", launch.grid)));
        }
        let [x, y, z] = block.map(u64::from);
        numbers.push(x + width * (y + height * z));
    }
    numbers.sort_unstable();
    match numbers.windows(2).any(|pair| pair[0] == pair[1]) {
        true => Err(Error::new("a block that is named twice")),
        false => Ok(numbers),
    }
}

/// What the host threads of a launch found, put together.
fn report(parts: Vec<(Watch<'_>, Vec<u8>)>, shadows: &[Shadow], most: usize) -> Report {
    let (mut counters, mut findings, mut printed) = (Counters::default(), Findings::default(), vec![]);
    for (watch, text) in parts {
        let (cost, found) = watch.finish();
        counters += &cost;
        findings.merge(found);
        printed.extend(text);
    }
    counters.launches = 1;
    for (read, stored) in shadows.iter().map(|shadow| shadow.sectors.take()) {
        counters.unique_load_sectors += read;
        counters.unique_store_sectors += stored;
    }
    let findings_total = findings.total;
    Report {
        counters,
        findings: findings.into_list(most),
        findings_total,
        printed: String::from_utf8_lossy(&printed).into_owned(),
    }
}
