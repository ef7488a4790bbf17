//! Launches of the mixup kernels of `batch.cu`.

use anyhow::{Result, ensure};

use super::{AppendMixup, Draws, Mixup, MixupChosen};
use crate::device::gpu::kernels::batch::{self as kernels, THREADS};
use crate::device::gpu::launch::{Address, KernelOf, Launch, Parameters};
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;
use crate::device::{Element, Tensor};

/// A launch over rows of `len` values of the type `element`: one block per row, or several if rows are long.
fn by_rows<P: Parameters>(
    kernels: [KernelOf<P>; 3],
    element: Element,
    rows: usize,
    len: usize,
    parameters: P,
) -> Result<Launch> {
    let (kernel, vector) = (by_type(element, kernels)?, 16 / element.bytes());
    // A thread handles one vector of a row, or one value if rows are not whole vectors; four if a row is too
    // long for a block.
    let units = if len.is_multiple_of(vector) { len / vector } else { len };
    let threads = units.next_multiple_of(32).min(THREADS);
    let mut launch = kernel.linear(rows, threads, parameters);
    launch.grid[1] = units.div_ceil(4 * threads) as u32;
    Ok(launch)
}

/// Lowers a mixup.
pub(super) fn mixup(lowering: &mut Lowering<'_>, operation: &Mixup) -> Result<()> {
    let &Mixup { batch, rows, len, draws, index, x, out } = operation;
    ensure!(index.is_none() || rows == batch, "a mixup of indexed rows is one group");
    ensure!(lowering.element(out) == lowering.element(x), "a mixup keeps the type of its rows");
    launch(lowering, [batch, rows, len], draws, index, x, lowering.address(out))
}

/// Lowers a mixup that appends its result to its input.
pub(super) fn append(lowering: &mut Lowering<'_>, operation: &AppendMixup) -> Result<()> {
    let &AppendMixup { batch, rows, len, draws, x } = operation;
    ensure!(lowering.len(x) == 2 * rows * len, "no room for mixed rows behind those given");
    let out = lowering.address(x).plus(rows * len * lowering.element(x).bytes());
    launch(lowering, [batch, rows, len], draws, None, x, out)
}

/// Launches the mixup of x into the rows at the address `out`.
fn launch(
    lowering: &mut Lowering<'_>,
    [batch, rows, len]: [usize; 3],
    Draws { weights, permutations, step }: Draws,
    index: Option<Tensor>,
    x: Tensor,
    out: Address,
) -> Result<()> {
    let (steps, element) = (lowering.len(weights), lowering.element(x));
    ensure!(
        steps > 0 && lowering.len(permutations) == steps * batch,
        "a mixup needs a weight and a permutation of the batch for every step"
    );
    let parameters = kernels::Mixup {
        batch,
        len,
        steps,
        weights: lowering.address(weights),
        permutations: lowering.address(permutations),
        step: lowering.address(step),
        index: lowering.optional(index),
        x: lowering.address(x),
        out,
    };
    let kernels = [kernels::MIXUP_BF16, kernels::MIXUP_F16, kernels::MIXUP_F32];
    lowering.launch(by_rows(kernels, element, rows, len, parameters)?);
    Ok(())
}

/// Lowers a mixup of chosen rows.
pub(super) fn chosen(lowering: &mut Lowering<'_>, operation: &MixupChosen) -> Result<()> {
    let &MixupChosen { batch, len, weights, step, rows, partners, count, x, out } = operation;
    let (steps, element) = (lowering.len(weights), lowering.element(x));
    ensure!(steps > 0, "a mixup needs a weight for every step");
    ensure!(lowering.element(out) == element, "a mixup keeps the type of its rows");
    let parameters = kernels::MixupChosen {
        len,
        steps,
        weights: lowering.address(weights),
        step: lowering.address(step),
        rows: lowering.address(rows),
        partners: lowering.address(partners),
        count: lowering.address(count),
        x: lowering.address(x),
        out: lowering.address(out),
    };
    let kernels = [kernels::MIXUP_CHOSEN_BF16, kernels::MIXUP_CHOSEN_F16, kernels::MIXUP_CHOSEN_F32];
    lowering.launch(by_rows(kernels, element, batch, len, parameters)?);
    Ok(())
}
