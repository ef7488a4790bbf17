//! Launches of `linear.cu`: tiles of 32 x 32. The parameters' gradient is split over rows if it has few
//! tiles.

use anyhow::{Result, ensure};

use super::{Linear, LinearGradient};
use crate::device::gpu::kernels::linear::{self as kernels, THREADS, TILE};
use crate::device::gpu::launch::{KernelOf, Launch, Parameters};
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};

/// Fewest rows per part of the parameters' gradient: shorter parts cost `linear_sum` more than they save.
const LEAST_PART: usize = 4 * TILE;

/// A launch of tiles over `columns` x `rows` of the result; `parts` is the depth of the grid.
fn tiles<P: Parameters>(
    kernel: KernelOf<P>,
    [columns, rows]: [usize; 2],
    parts: usize,
    parameters: P,
) -> Launch {
    let grid = [columns.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, parts as u32];
    Launch { grid, ..kernel.linear(1, THREADS, parameters) }
}

/// # Errors
/// For a layer without a row, an input or an output.
fn check(shape: [usize; 3]) -> Result<()> {
    ensure!(shape.iter().all(|&extent| extent > 0), "an empty fully connected layer: {shape:?}");
    Ok(())
}

/// Lowers the layer.
pub(super) fn forward(lowering: &mut Lowering<'_>, operation: &Linear) -> Result<()> {
    let &Linear { rows, inputs, outputs, x, parameters, y } = operation;
    check([rows, inputs, outputs])?;
    let [x, parameters, y] = [x, parameters, y].map(|tensor| lowering.address(tensor));
    let given = kernels::Linear { rows, inputs, outputs, x, parameters, y };
    lowering.launch(tiles(kernels::LINEAR, [outputs, rows], 1, given));
    Ok(())
}

/// Lowers its gradients: of the input, then of the parameters.
pub(super) fn gradient(lowering: &mut Lowering<'_>, operation: &LinearGradient) -> Result<()> {
    let &LinearGradient { rows, inputs, outputs, x, parameters, dy, d_parameters, dx } = operation;
    check([rows, inputs, outputs])?;
    let flops = 2.0 * (rows * inputs * outputs) as f64;
    let [x_span, dy_span, dx_span] = [x, dy, dx].map(|tensor| lowering.span(tensor));
    // The weights without the biases behind them.
    let weights = Span::new(lowering.address(parameters), inputs * outputs * 4);
    let work = Work::of(flops).reading([dy_span, weights]).writing([dx_span]);
    let [x, parameters, dy, dx] = [x, parameters, dy, dx].map(|tensor| lowering.address(tensor));
    let given = kernels::LinearInputGradient { rows, inputs, outputs, dy, parameters, dx };
    lowering.launch(tiles(kernels::LINEAR_INPUT_GRADIENT, [inputs, rows], 1, given).doing(work));

    let across = (inputs + 1).div_ceil(TILE) * outputs.div_ceil(TILE);
    let parts = (2 * lowering.gpu().multiprocessors / across).clamp(1, rows.div_ceil(LEAST_PART));
    let part_rows = rows.div_ceil(parts).next_multiple_of(TILE);
    let parts = rows.div_ceil(part_rows);
    let len = outputs * (inputs + 1);
    let result = lowering.address(d_parameters);
    let sums = if parts == 1 { result } else { lowering.workspace(parts * len * 4) };
    let given = kernels::LinearParameterGradient { rows, inputs, outputs, part_rows, x, dy, to: sums };
    let partials = Span::new(sums, parts * len * 4);
    let work = Work::of(flops).reading([x_span, dy_span]).writing([partials]);
    let launch = tiles(kernels::LINEAR_PARAMETER_GRADIENT, [inputs + 1, outputs], parts, given);
    lowering.launch(launch.doing(work));
    if parts > 1 {
        let given = kernels::LinearSum { len, parts, partials: sums, to: result };
        let work = Work::of((parts * len) as f64).reading([partials]).writing([Span::new(result, len * 4)]);
        lowering.launch(kernels::LINEAR_SUM.linear(len.div_ceil(THREADS), THREADS, given).doing(work));
    }
    Ok(())
}
