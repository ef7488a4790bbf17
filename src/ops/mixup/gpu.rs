//! Launches of `batch.cu`: a block per row, or several where rows are long.

use anyhow::{Result, ensure};

use super::{AppendMixup, Draws, Mixup, MixupChosen};
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Tensor};

const THREADS: usize = 256;

/// A launch over rows of `len` of the type `element`: a block per row, or several where rows are long.
fn by_rows(
    names: [&'static str; 2],
    element: Element,
    rows: usize,
    len: usize,
    arguments: Arguments,
) -> Launch {
    let (name, vector) = match element {
        Element::Bf16 => (names[0], 8),
        _ => (names[1], 4),
    };
    // A thread has one vector of a row, or one value where rows are no whole vectors; four in rows too long
    // for a block.
    let units = if len.is_multiple_of(vector) { len / vector } else { len };
    let threads = units.next_multiple_of(32).min(THREADS);
    let mut launch = Launch::linear(Kernel { file: "batch.cu", name }, rows, threads, arguments);
    launch.grid[1] = units.div_ceil(4 * threads) as u32;
    launch
}

/// Lowers a mixup.
pub(super) fn mixup(lowering: &mut Lowering<'_>, operation: &Mixup) -> Result<()> {
    let &Mixup { batch, rows, len, draws, index, x, out } = operation;
    ensure!(index.is_none() || rows == batch, "a mixup of indexed rows is one group");
    ensure!(lowering.element(out) == lowering.element(x), "a mixup keeps the type of its rows");
    launch(lowering, [batch, rows, len], draws, index, x, lowering.address(out))
}

/// Lowers a mixup into the rows behind those that are mixed.
pub(super) fn append(lowering: &mut Lowering<'_>, operation: &AppendMixup) -> Result<()> {
    let &AppendMixup { batch, rows, len, draws, x } = operation;
    ensure!(lowering.len(x) == 2 * rows * len, "no room for mixed rows behind those given");
    let out = lowering.address(x) + (rows * len * lowering.element(x).bytes()) as u64;
    launch(lowering, [batch, rows, len], draws, None, x, out)
}

/// Launches the mixup of x into the rows at the address `out`.
fn launch(
    lowering: &mut Lowering<'_>,
    [batch, rows, len]: [usize; 3],
    Draws { weights, permutations, step }: Draws,
    index: Option<Tensor>,
    x: Tensor,
    out: u64,
) -> Result<()> {
    let (steps, element) = (lowering.len(weights), lowering.element(x));
    ensure!(
        steps > 0 && lowering.len(permutations) == steps * batch,
        "a mixup needs a weight and a permutation of the batch for every step"
    );
    let arguments = Arguments::new()
        .pointer(lowering.address(weights))
        .pointer(lowering.address(permutations))
        .pointer(lowering.address(step))
        .pointer(lowering.optional(index))
        .pointer(lowering.address(x))
        .pointer(out)
        .counts(&[batch, len, steps]);
    lowering.launch(by_rows(["mixup_bf16", "mixup_f32"], element, rows, len, arguments));
    Ok(())
}

/// Lowers a mixup of chosen rows.
pub(super) fn chosen(lowering: &mut Lowering<'_>, operation: &MixupChosen) -> Result<()> {
    let &MixupChosen { batch, len, weights, step, rows, partners, count, x, out } = operation;
    let (steps, element) = (lowering.len(weights), lowering.element(x));
    ensure!(steps > 0, "a mixup needs a weight for every step");
    ensure!(lowering.element(out) == element, "a mixup keeps the type of its rows");
    let arguments = Arguments::new()
        .pointer(lowering.address(weights))
        .pointer(lowering.address(step))
        .pointer(lowering.address(rows))
        .pointer(lowering.address(partners))
        .pointer(lowering.address(count))
        .pointer(lowering.address(x))
        .pointer(lowering.address(out))
        .counts(&[len, steps]);
    let names = ["mixup_chosen_bf16", "mixup_chosen_f32"];
    lowering.launch(by_rows(names, element, batch, len, arguments));
    Ok(())
}
