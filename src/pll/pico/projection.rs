//! Embeddings: two fully connected layers on a network's features, normalised to length 1.

use anyhow::Result;
use rayon::prelude::*;

use super::contrast::check_columns;
use crate::autograd::{Differentiable, Gradients, Tape};
use crate::device::cpu::Call;
use crate::device::gpu::kernels::pico::{self as kernels, LANE_COLUMNS, LEAST_NORM, THREADS, WARPS};
use crate::device::gpu::lower::Lowering;
use crate::device::{Element, Operand, Operation, Tensor};
use crate::nn::layers::Layers;
use crate::nn::{Mode, Network, NetworkLayout, Outputs, Parameters};
use crate::ops::elementwise::relu;
use crate::ops::linear::dot;

/// The most values of an embedding that the kernels support.
pub const MOST_COLUMNS: usize = 32 * LANE_COLUMNS;

/// A network whose F features are also projected in training: Linear(F, F), ReLU, Linear(F, `columns`), each
/// row divided by its length.
#[derive(Debug)]
pub struct Projected {
    /// The network whose features are projected.
    pub network: Box<dyn Network>,
    /// At most [`MOST_COLUMNS`].
    pub columns: usize,
}

/// State_dict names of the two layers.
const HIDDEN: &str = "projection.0";
const OUTPUT: &str = "projection.2";

impl Network for Projected {
    fn name(&self) -> &str {
        self.network.name()
    }

    fn layout(&self) -> NetworkLayout {
        let (mut layout, features) = (self.network.layout(), self.features());
        layout.linear(HIDDEN, [features, features]);
        layout.linear(OUTPUT, [self.columns, features]);
        layout
    }

    fn features(&self) -> usize {
        self.network.features()
    }

    fn classes(&self) -> usize {
        self.network.classes()
    }

    fn channel_multiple(&self) -> usize {
        self.network.channel_multiple()
    }

    fn record(
        &self,
        tape: &mut Tape,
        parameters: &Parameters,
        mode: Mode,
        shape: [usize; 2],
        x: Tensor,
    ) -> Outputs {
        let outputs = self.network.record(tape, parameters, mode, shape, x);
        if mode == Mode::Evaluation {
            return outputs;
        }
        let ([batch, _], features) = (shape, self.features());
        let mut layers = Layers { tape, parameters, mode, batch };
        let (hidden, _) = layers.linear(HIDDEN, outputs.features, [features, features]);
        let hidden = relu(layers.tape, hidden);
        let (projected, _) = layers.linear(OUTPUT, hidden, [self.columns, features]);
        Outputs { projection: Some(normalise_rows(layers.tape, [batch, self.columns], projected)), ..outputs }
    }
}

/// y `[R,D]` = x / max(|x|, 1e-12), row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct NormaliseRows {
    /// Rows R.
    pub rows: usize,
    /// Values D of a row, at most [`MOST_COLUMNS`].
    pub columns: usize,
    /// The input, f32 `[R,D]`.
    pub x: Tensor,
    /// The result, f32 `[R,D]`.
    pub y: Tensor,
}

/// Gradient of [`NormaliseRows`]: dx `[R,D]` = (dy - y (y dy)) / max(|x|, 1e-12), row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct NormaliseRowsGradient {
    /// Rows R.
    pub rows: usize,
    /// Values D of a row, at most [`MOST_COLUMNS`].
    pub columns: usize,
    /// The input of the forward pass, f32 `[R,D]`.
    pub x: Tensor,
    /// Gradient of y, f32 `[R,D]`.
    pub dy: Tensor,
    /// Gradient of x, f32 `[R,D]`.
    pub dx: Tensor,
}

/// Records the rows of x `[R,D]` divided by their lengths.
pub fn normalise_rows(tape: &mut Tape, [rows, columns]: [usize; 2], x: Tensor) -> Tensor {
    let y = tape.result(Element::F32, rows * columns);
    tape.record(NormaliseRows { rows, columns, x, y });
    y
}

fn norm(x: &[f32]) -> f32 {
    dot(x, x).sqrt().max(LEAST_NORM)
}

/// Divides a row by its length.
pub(super) fn direction(row: &mut [f32]) {
    let norm = norm(row);
    row.iter_mut().for_each(|value| *value /= norm);
}

impl Operation for NormaliseRows {
    fn name(&self) -> &'static str {
        "normalise rows"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::write(self.y)]
    }

    fn flops(&self) -> f64 {
        3.0 * (self.rows * self.columns) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, mut y) = (cpu.f32(self.x)?, cpu.f32_mut(self.y)?);
        let rows = y.par_chunks_exact_mut(self.columns).zip(x.par_chunks_exact(self.columns));
        rows.for_each(|(y, x)| {
            y.copy_from_slice(x);
            direction(y);
        });
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { rows, columns, .. } = *self;
        check_columns(columns)?;
        let [x, y] = [self.x, self.y].map(|tensor| gpu.address(tensor));
        let parameters = kernels::NormaliseRows { rows, columns, x, y };
        gpu.launch(kernels::NORMALISE_ROWS.linear(rows.div_ceil(WARPS), THREADS, parameters));
        Ok(())
    }
}

impl Differentiable for NormaliseRows {
    fn gradient(&self, gradients: &mut Gradients<'_>) {
        let Self { rows, columns, x, y } = *self;
        let Some(dy) = gradients.of(y).filter(|_| gradients.wants(x)) else { return };
        let dx = gradients.write(x);
        gradients.push(NormaliseRowsGradient { rows, columns, x, dy, dx });
    }
}

impl Operation for NormaliseRowsGradient {
    fn name(&self) -> &'static str {
        "normalise rows gradient"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![Operand::read(self.x), Operand::read(self.dy), Operand::write(self.dx)]
    }

    fn flops(&self) -> f64 {
        8.0 * (self.rows * self.columns) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (x, dy, mut dx) = (cpu.f32(self.x)?, cpu.f32(self.dy)?, cpu.f32_mut(self.dx)?);
        let columns = self.columns;
        let rows = x.par_chunks_exact(columns).zip(dy.par_chunks_exact(columns));
        dx.par_chunks_exact_mut(columns).zip(rows).for_each(|(dx, (x, dy))| {
            let norm = norm(x);
            let along = dot(x, dy) / norm;
            let values = x.iter().zip(dy).map(|(x, dy)| (dy - x / norm * along) / norm);
            dx.iter_mut().zip(values).for_each(|(dx, value)| *dx = value);
        });
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let Self { rows, columns, .. } = *self;
        check_columns(columns)?;
        let [x, dy, dx] = [self.x, self.dy, self.dx].map(|tensor| gpu.address(tensor));
        let parameters = kernels::NormaliseRowsGradient { rows, columns, x, dy, dx };
        gpu.launch(kernels::NORMALISE_ROWS_GRADIENT.linear(rows.div_ceil(WARPS), THREADS, parameters));
        Ok(())
    }
}
