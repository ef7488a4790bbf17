//! What is known of the kernels without running them: `kernels/facts.txt` and `kernels/budgets.txt`, which
//! tests write and check with the compiler, the disassembler and the interpreter. They are part of the
//! program, so that no compiler is needed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use anyhow::{Context as _, Result, ensure};

use crate::device::gpu::launch::Kernel;
use crate::usage;

/// The architectures that facts are kept for; a GPU of another has those of the next below it.
pub const ARCHITECTURES: [u32; 3] = [80, 86, 90];

/// A count of a launch: so many in each warp, and so many an item of what the kernel's loops run over
/// ([`Work::items`](crate::device::gpu::work::Work::items)).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    /// In each warp.
    pub warp: f64,
    /// An item.
    pub item: f64,
}

/// A loop in machine code: the one with the products, else the one with most loads, else all of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loop {
    /// Instructions.
    pub all: u32,
    /// HMMA: products of the tensor cores.
    pub hmma: u32,
    /// Those of them that are summed in f16.
    pub short: u32,
    /// LDSM: matrix loads from shared memory.
    pub ldsm: u32,
    /// LDGSTS: asynchronous copies to shared memory.
    pub ldgsts: u32,
    /// Those of them that go through the L1 cache.
    pub cached: u32,
    /// LDG: loads to registers.
    pub ldg: u32,
}

/// What is counted of a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    /// PTX instructions without moves, which machine code has not.
    pub instructions: Count,
    /// Loads from global memory.
    pub loads: Count,
    /// Passes through shared memory.
    pub wavefronts: Count,
    /// The main loop on each of [`ARCHITECTURES`].
    pub loops: [Loop; ARCHITECTURES.len()],
}

/// What is known of a kernel on one architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Registers of a thread.
    pub registers: u32,
    /// Static shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// See [`Counted::instructions`].
    pub instructions: Count,
    /// See [`Counted::loads`].
    pub loads: Count,
    /// See [`Counted::wavefronts`].
    pub wavefronts: Count,
    /// The main loop.
    pub main_loop: Loop,
}

/// The head of facts.txt.
const HEAD: &str = "\
What predictions of a kernel's time are made from, by the disassembler and the interpreter; RECORDS_UPDATE_COSTS=1 cargo test --test
kernels_facts writes it anew. Instructions (PTX, without moves), global loads and passes through shared memory: in each warp, and for an
item (a step of a product and warp, else a FLOP, else a byte). Main loop in machine code: all/HMMA/of them summed in f16/LDSM/LDGSTS/of
them cached/LDG.
";

/// Kernels by file and name, in order.
pub type Table = BTreeMap<(String, String), Counted>;

/// The text of facts.txt.
pub fn write(table: &Table) -> String {
    let mut text = HEAD.to_string();
    let _ = writeln!(
        text,
        "{:<58}{:>11}{:>13}{:>11}{:>13}{:>11}{:>13}{:>21}{:>21}{:>21}",
        "kernel",
        "instr/warp",
        "/item",
        "loads/warp",
        "/item",
        "passes/warp",
        "/item",
        "sm_80",
        "sm_86",
        "sm_90a"
    );
    for ((file, kernel), counted) in table {
        let _ = write!(text, "{:<58}", format!("{file} {kernel}"));
        for Count { warp, item } in [counted.instructions, counted.loads, counted.wavefronts] {
            let _ = write!(text, "{:>11}{:>13}", format!("{warp:.1}"), format!("{item:.4e}"));
        }
        for Loop { all, hmma, short, ldsm, ldgsts, cached, ldg } in counted.loops {
            let _ = write!(text, "{:>21}", format!("{all}/{hmma}/{short}/{ldsm}/{ldgsts}/{cached}/{ldg}"));
        }
        text.push('\n');
    }
    text
}

/// The table in a text as [`write()`] makes it.
///
/// # Errors
/// Where it is no such text: with the line.
pub fn read(text: &str) -> Result<Table> {
    let mut table = Table::new();
    for line in text.lines().skip(HEAD.lines().count() + 1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(words.len() == 11, "facts.txt: {line}");
        let number = |at: usize| words[at].parse::<f64>().with_context(|| format!("facts.txt: {line}"));
        let count = |at: usize| Ok::<_, anyhow::Error>(Count { warp: number(at)?, item: number(at + 1)? });
        let mut loops = [Loop::default(); ARCHITECTURES.len()];
        for (place, word) in loops.iter_mut().zip(&words[8..]) {
            let parts: Result<Vec<u32>, _> = word.split('/').map(str::parse).collect();
            let parts = parts.with_context(|| format!("facts.txt: {line}"))?;
            let [all, hmma, short, ldsm, ldgsts, cached, ldg] = parts[..] else {
                anyhow::bail!("facts.txt: {line}");
            };
            *place = Loop { all, hmma, short, ldsm, ldgsts, cached, ldg };
        }
        let counted = Counted { instructions: count(2)?, loads: count(4)?, wavefronts: count(6)?, loops };
        table.insert((words[0].into(), words[1].into()), counted);
    }
    Ok(table)
}

/// The facts that are part of the program, with registers and static shared memory.
static ALL: LazyLock<BTreeMap<(String, String), [Facts; ARCHITECTURES.len()]>> = LazyLock::new(|| {
    let table =
        read(include_str!("../../../../kernels/facts.txt")).expect("facts.txt is as its test wrote it");
    let budgets = include_str!("../../../../kernels/budgets.txt").lines().skip(2);
    let rows = budgets.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let usage: BTreeMap<_, _> =
        rows.map(|words| ((words[0].to_string(), words[1].to_string()), words)).collect();
    table
        .into_iter()
        .filter_map(|(key, counted)| Some((key.clone(), facts(&counted, usage.get(&key)?)?)))
        .collect()
});

/// The facts of a kernel for each architecture, from its row of budgets.txt.
fn facts(counted: &Counted, budget: &[&str]) -> Option<[Facts; ARCHITECTURES.len()]> {
    let mut all = Vec::new();
    for (column, main_loop) in counted.loops.into_iter().enumerate() {
        // Behind file and kernel.
        let mut parts = budget.get(2 + column)?.split('/').map(str::parse::<u32>);
        let (registers, shared_bytes) = (parts.next()?.ok()?, parts.next()?.ok()?);
        let Counted { instructions, loads, wavefronts, .. } = *counted;
        all.push(Facts { registers, shared_bytes, instructions, loads, wavefronts, main_loop });
    }
    all.try_into().ok()
}

/// The facts of a kernel for compute capability `architecture` / 10.
///
/// # Errors
/// A usage error for a kernel that facts.txt has not, and an architecture that is older than all.
pub fn of(kernel: Kernel, architecture: u32) -> Result<&'static Facts> {
    let column = ARCHITECTURES
        .iter()
        .rposition(|&known| known <= architecture)
        .ok_or_else(|| usage!("compute-capability {architecture}: the kernels run on 80 (8.0) and newer"))?;
    let key = (kernel.source.name.to_string(), kernel.name.to_string());
    let all = ALL.get(&key).ok_or_else(|| {
        usage!(
            "the kernel {} of {} is not in kernels/facts.txt: RECORDS_UPDATE_COSTS=1 cargo test --test kernels_facts",
            kernel.name,
            kernel.source.name
        )
    })?;
    Ok(&all[column])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is written is read back; every row has its budget; a row that is cut short is refused.
    #[test]
    fn the_table_is_read_as_it_was_written() {
        let text = include_str!("../../../../kernels/facts.txt");
        let table = read(text).unwrap();
        assert_eq!(write(&table), text);
        assert_eq!(ALL.len(), table.len());
        let cut = text.rsplit_once(' ').unwrap().0;
        assert!(read(cut).unwrap_err().to_string().contains("facts.txt"));
    }
}
