//! Where findings are gathered, with all that their messages name.

use std::ops::Range;

use super::finding::{Finding, FindingKind, Findings, SourceLine};
use super::group::Group;
use super::shadow::Shadow;
use super::signals::Signals;
use crate::isa::{Kernel, SharedLabel, SharedLayout};
use crate::memory::Memory;
use crate::monitor::Position;

/// The launch that is watched.
pub struct Subject<'a> {
    pub kernel: &'a Kernel,
    pub memory: &'a Memory,
    /// Of each allocation, in the same order.
    pub shadows: &'a [Shadow],
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    pub shared: SharedLayout,
    /// Which launch this is, for histories.
    pub tag: u64,
    /// What blocks publish to each other.
    pub signals: &'a Signals,
    /// The group of launches that it belongs to, and which of them it is in the order in which they run.
    pub group: Option<(&'a Group, usize)>,
}

impl Subject<'_> {
    /// A block's place in the grid.
    pub fn block_of(&self, number: u64) -> [u32; 3] {
        place_in(self.grid, number)
    }

    /// The parts of shared memory: where each starts and ends, and its name.
    fn shared_parts(&self) -> impl Iterator<Item = (usize, usize, String)> {
        let label = |SharedLabel { offset, bytes, name }: &SharedLabel| {
            (*offset as usize, (offset + bytes) as usize, format!("{name:?}"))
        };
        let SharedLayout { dynamic, dynamic_bytes, end, .. } = self.shared;
        let last = (dynamic as usize, end as usize, "the dynamic part".to_string());
        self.kernel.shared_labels.iter().map(label).chain((dynamic_bytes > 0).then_some(last))
    }

    /// Bytes of shared memory that belong to nothing, and are there only so that running over the end of a
    /// part is seen.
    pub fn shared_gaps(&self) -> Vec<Range<usize>> {
        let (mut gaps, mut end) = (Vec::new(), 0);
        for (start, next, _) in self.shared_parts() {
            if end < start {
                gaps.push(end..start);
            }
            end = end.max(next);
        }
        gaps
    }

    /// What lies at an offset in shared memory, for messages.
    pub fn shared_name(&self, offset: usize) -> String {
        let mut before = None;
        for (start, end, name) in self.shared_parts() {
            if (start..end).contains(&offset) {
                return format!("{name} byte {}", offset - start);
            }
            if start <= offset {
                before = Some(format!("{} bytes past the end of {name}", offset - end));
            }
        }
        before.unwrap_or_else(|| format!("byte {offset}, where nothing lies"))
    }
}

/// The three coordinates of a number that counts x first.
pub fn place_in(size: [u32; 3], number: u64) -> [u32; 3] {
    let [x, y, _] = size.map(u64::from);
    [(number % x) as u32, (number / x % y) as u32, (number / (x * y)) as u32]
}

/// What one host thread found.
pub struct Report<'a> {
    pub subject: &'a Subject<'a>,
    pub findings: Findings,
}

impl Report<'_> {
    /// Notes a finding of a lane.
    #[cold]
    pub fn note(
        &mut self,
        at: Position,
        lane: u32,
        kind: FindingKind,
        address: Option<u64>,
        message: impl FnOnce() -> String,
    ) {
        let Subject { kernel, block, .. } = self.subject;
        self.findings.add(kind, at.pc, at.block, || {
            let step = kernel.steps.get(at.pc as usize);
            Finding {
                kernel: kernel.name.clone(),
                kind,
                source: step.and_then(|step| step.source).map(|(file, line)| SourceLine {
                    file: kernel.files.get(&file).cloned().unwrap_or_default(),
                    line,
                }),
                ptx_line: step.map_or(0, |step| step.line),
                block: self.subject.block_of(at.block),
                thread: place_in(*block, u64::from(at.warp * 32 + lane)),
                address,
                message: message(),
                times: 0,
            }
        });
    }
}
