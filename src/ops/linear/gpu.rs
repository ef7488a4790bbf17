//! The fully connected layer: tiles of 32 x 32; the parameters' gradient is split over rows where its tiles
//! are few.

use anyhow::{Result, ensure};

use super::{Linear, LinearGradient};
use crate::device::gpu::launch::{Arguments, Kernel, Launch};
use crate::device::gpu::lower::Lowering;

const TILE: usize = 32;
const THREADS: usize = 256;
/// Rows of a part of the parameters' gradient at least: shorter ones give linear_sum more to add than they
/// save.
const LEAST_PART: usize = 4 * TILE;

fn kernel(name: &'static str) -> Kernel {
    Kernel { file: "linear.cu", name }
}

/// A launch of tiles over `columns` x `rows` of the result, `parts` deep.
fn tiles(name: &'static str, [columns, rows]: [usize; 2], parts: usize, arguments: Arguments) -> Launch {
    let grid = [columns.div_ceil(TILE) as u32, rows.div_ceil(TILE) as u32, parts as u32];
    Launch { grid, ..Launch::linear(kernel(name), 1, THREADS, arguments) }
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
    let arguments = Arguments::new()
        .count(rows)
        .count(inputs)
        .count(outputs)
        .pointer(lowering.address(x))
        .pointer(lowering.address(parameters))
        .pointer(lowering.address(y));
    lowering.launch(tiles("linear", [outputs, rows], 1, arguments));
    Ok(())
}

/// Lowers its gradients: of the input, then of the parameters.
pub(super) fn gradient(lowering: &mut Lowering<'_>, operation: &LinearGradient) -> Result<()> {
    let &LinearGradient { rows, inputs, outputs, x, parameters, dy, d_parameters, dx } = operation;
    check([rows, inputs, outputs])?;
    let arguments = Arguments::new()
        .count(rows)
        .count(inputs)
        .count(outputs)
        .pointer(lowering.address(dy))
        .pointer(lowering.address(parameters))
        .pointer(lowering.address(dx));
    lowering.launch(tiles("linear_input_gradient", [inputs, rows], 1, arguments));

    let across = (inputs + 1).div_ceil(TILE) * outputs.div_ceil(TILE);
    let parts = (2 * lowering.gpu().multiprocessors / across).clamp(1, rows.div_ceil(LEAST_PART));
    let part_rows = rows.div_ceil(parts).next_multiple_of(TILE);
    let parts = rows.div_ceil(part_rows);
    let len = outputs * (inputs + 1);
    let result = lowering.address(d_parameters);
    let sums = if parts == 1 { result } else { lowering.workspace(parts * len * 4) };
    let arguments = Arguments::new()
        .count(rows)
        .count(inputs)
        .count(outputs)
        .count(part_rows)
        .pointer(lowering.address(x))
        .pointer(lowering.address(dy))
        .pointer(sums);
    lowering.launch(tiles("linear_parameter_gradient", [inputs + 1, outputs], parts, arguments));
    if parts > 1 {
        let arguments = Arguments::new().count(len).count(parts).pointer(sums).pointer(result);
        let blocks = len.div_ceil(THREADS);
        lowering.launch(Launch::linear(kernel("linear_sum"), blocks, THREADS, arguments));
    }
    Ok(())
}
