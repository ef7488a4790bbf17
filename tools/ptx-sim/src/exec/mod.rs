//! Running a launch: blocks one after the other, or all at once for a cooperative launch; in a block, warps by turns.
//!
//! | file | what |
//! |---|---|
//! | `block` | a block: its shared memory, its warps, its barriers |
//! | `warp` | a warp: registers, divergence, one instruction at a time |
//! | `lanes` | arithmetic over 32 lanes |
//! | `float` | conversions, half types, approximate functions |
//! | `matrix` | mma, ldmatrix, stmatrix |
//! | `shared` | shared memory and who touched it since the last barrier |
//! | `access` | loads, stores, atomics, asynchronous copies |

mod access;
mod block;
mod float;
mod lanes;
mod matrix;
mod shared;
mod warp;

use crate::counters::Counters;
use crate::error::{Result, error};
use crate::finding::{Finding, FindingKind};
use crate::memory::Memory;
use crate::op::{CLASSES, Instruction};
use crate::program::{Kernel, Program};

use block::{Block, Progress};

/// Largest dynamic and static shared memory of a block, bytes: what sm_90 has.
const MOST_SHARED: usize = 227 << 10;

/// A launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub shared_bytes: u32,
    /// Whether all blocks are alive at once, for barriers over the grid.
    pub cooperative: bool,
    /// The parameters, each at its natural alignment.
    pub arguments: &'a [u8],
}

/// What everything in a launch shares.
pub(crate) struct Context<'a> {
    pub program: &'a Program,
    pub kernel: &'a Kernel,
    pub launch: Launch<'a>,
    pub memory: &'a mut Memory,
    pub counters: Counters,
    pub classes: [u64; CLASSES],
    pub findings: Vec<Finding>,
    pub findings_total: u64,
    pub most_findings: usize,
    pub variables_base: u64,
    /// Warp instructions that may still run.
    pub budget: u64,
    pub ticks: u64,
    /// Index of the allocation hit last.
    pub cached: usize,
}

impl Context<'_> {
    /// Notes a finding of a lane.
    #[cold]
    pub fn report(
        &mut self,
        kind: FindingKind,
        instruction: &Instruction,
        block: [u32; 3],
        thread: [u32; 3],
        detail: String,
    ) {
        self.findings_total += 1;
        // One line of a kernel that goes wrong in every thread is one finding with a count, not thousands.
        let known = |finding: &Finding| finding.kind == kind && finding.line == instruction.line;
        if self.findings.len() >= self.most_findings || self.findings.iter().any(known) {
            return;
        }
        let source = instruction.source.map(|(file, line)| {
            let name = self.program.files.get(&file).map_or("?", String::as_str);
            format!("{name}:{line}")
        });
        self.findings.push(Finding {
            kind,
            kernel: self.kernel.name.clone(),
            line: instruction.line,
            source,
            block,
            thread,
            detail,
        });
    }
}

/// Checks a launch's shape.
pub(crate) fn check(kernel: &Kernel, launch: &Launch<'_>) -> Result<()> {
    let name = &kernel.name;
    let threads: u64 = launch.block.iter().map(|&n| u64::from(n)).product();
    if threads == 0 || threads > 1024 {
        return Err(error!("{name}: a block of {threads} threads; must be 1 to 1024"));
    }
    let [x, y, z] = launch.grid;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65_535 || z > 65_535 {
        return Err(error!("{name}: a grid of {x} x {y} x {z}; must be 1 to 2147483647 x 65535 x 65535"));
    }
    let shared = kernel.dynamic_shared + launch.shared_bytes as usize;
    if shared > MOST_SHARED {
        return Err(error!("{name}: {shared} bytes of shared memory; at most {MOST_SHARED}"));
    }
    if launch.arguments.len() != kernel.parameter_bytes {
        return Err(error!(
            "{name}: {} bytes of arguments; the parameters take {}",
            launch.arguments.len(),
            kernel.parameter_bytes
        ));
    }
    Ok(())
}

fn coordinates(index: u64, [x, y, _]: [u32; 3]) -> [u32; 3] {
    let (x, y) = (u64::from(x), u64::from(y));
    [(index % x) as u32, (index / x % y) as u32, (index / x / y) as u32]
}

/// Runs all blocks.
pub(crate) fn run(context: &mut Context<'_>, seed: u64) {
    let grid = context.launch.grid;
    let blocks: u64 = grid.iter().map(|&n| u64::from(n)).product();
    context.memory.begin_launch(blocks as usize);
    if !context.launch.cooperative {
        for index in 0..blocks {
            let mut block = Block::new(context, index, coordinates(index, grid), seed);
            while block.turn(context) == Progress::Going {}
            block.finish(context);
            if context.budget == 0 {
                break;
            }
        }
    } else {
        let mut alive: Vec<Block> =
            (0..blocks).map(|index| Block::new(context, index, coordinates(index, grid), seed)).collect();
        while !alive.is_empty() && context.budget > 0 {
            let mut left = Vec::with_capacity(alive.len());
            for mut block in alive {
                match block.turn(context) {
                    Progress::Going => left.push(block),
                    Progress::Done => block.finish(context),
                }
            }
            alive = left;
        }
        for block in alive {
            block.finish(context);
        }
    }
    let classes = context.classes;
    context.counters.add_classes(&classes);
    context.counters.blocks += blocks;
    context.counters.threads += blocks * context.launch.block.iter().map(|&n| u64::from(n)).product::<u64>();
    (context.counters.unique_load_sectors, context.counters.unique_store_sectors) =
        context.memory.unique_sectors();
}
