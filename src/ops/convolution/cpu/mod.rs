//! Convolution on the CPU: implicit products over NHWC, without an im2col buffer.
//!
//! `direct.rs` and `weight.rs` multiply a block of pixels, copied with the zeros around it, by packed weights
//! or by the output's gradient, in the register tiles of `tile/`. `winograd/` does 3x3 convolutions of
//! stride 1 with fewer multiplications. A data gradient of stride 2 is four dense problems, one for
//! each parity of row and column, so no zeros are multiplied.
//!
//! Results do not depend on the number of threads: each output value is one sum in a fixed order, and the
//! partial sums of the weight gradient are cut and added by shape alone. So is the choice between the
//! algorithms. AVX2 and AVX-512 give the same bits.
//!
//! In bf16, the operands hold bf16 in f32. Direct sums take products of bf16 in pairs (`pairs.rs`,
//! `weight_pairs.rs`), with the same bits at every level: all forward passes, and the gradients that Winograd's
//! algorithm does not serve. That stays in f32, where it is faster than products of bf16 can be.

mod blocks;
mod direct;
mod factors;
mod filter;
mod lanes;
mod pairs;
mod scratch;
mod slices;
mod tile;
mod weight;
mod weight_pairs;
mod winograd;

use super::ConvolutionShape;
use crate::device::cpu::instructions::{PairSums, Simd};
use crate::device::cpu::rounding::Rounding;
use direct::{Geometry, Problem, Tap};
use filter::Filter;
use pairs::Pair;
pub use scratch::Workspace;

/// How products are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Products {
    /// The level of vector instructions.
    pub simd: Simd,
    /// What the activations that are written are rounded to. With bf16, the operands hold bf16, and direct
    /// sums take products of bf16.
    pub rounding: Rounding,
}

/// Products of f32.
impl From<Simd> for Products {
    fn from(simd: Simd) -> Self {
        Self { simd, rounding: Rounding::None }
    }
}

impl Products {
    /// How pairs of bf16 are summed, if the operands are bf16.
    fn pairs(self) -> Option<PairSums> {
        (self.rounding == Rounding::Bf16).then(|| PairSums::of(self.simd))
    }
}

/// y `[N,OH,OW,Cout]` = convolution of x `[N,H,W,Cin]` with w `[Cout,kh,kw,Cin]`.
pub fn forward(
    products: impl Into<Products>,
    shape: &ConvolutionShape,
    x: &[f32],
    w: &[f32],
    y: &mut [f32],
    workspace: &mut Workspace,
) {
    assert_eq!((x.len(), w.len(), y.len()), (shape.input_len(), shape.weight_len(), shape.output_len()));
    let (products, geometry) = (products.into(), geometry(shape));
    let filter = Filter::forward(w, shape.kernel * shape.kernel, shape.in_channels);
    if let Some(size) = winograd::size_of_forward(shape, products) {
        return winograd::run((products, size), &geometry, filter, x, (y, false), workspace);
    }
    solve(products, &geometry, &[problem(shape)], filter, x, (y, false), workspace);
}

/// Solves the problems directly.
fn solve(
    products: Products,
    geometry: &Geometry,
    problems: &[Problem],
    filter: Filter<'_>,
    source: &[f32],
    target: (&mut [f32], bool),
    workspace: &mut Workspace,
) {
    let Products { simd, rounding } = products;
    match products.pairs() {
        Some(sums) => {
            direct::run::<Pair>(sums, geometry, problems, filter, source, target, rounding, workspace);
        }
        None => direct::run::<f32>(simd, geometry, problems, filter, source, target, rounding, workspace),
    }
}

/// Source and target of the forward pass.
fn geometry(shape: &ConvolutionShape) -> Geometry {
    Geometry {
        batch: shape.batch,
        source: [shape.height, shape.width, shape.in_channels],
        target: [shape.out_height(), shape.out_width(), shape.out_channels],
        stride: shape.stride,
        step: 1,
    }
}

/// The problem of the forward pass.
fn problem(shape: &ConvolutionShape) -> Problem {
    let (kernel, padding) = (shape.kernel, shape.padding() as isize);
    let offset = |tap: usize| tap as isize - padding;
    let taps = (0..kernel * kernel)
        .map(|tap| Tap { row: offset(tap / kernel), column: offset(tap % kernel), weight: tap })
        .collect();
    Problem { first: [0, 0], taps }
}

/// The problems of a data gradient: dx`[i]` receives dy`[o]` through tap k where i = o stride + k - padding.
/// For i = parity + stride g this is o = g + (parity + padding - k) / stride, if the division is exact.
fn gradient_problems(shape: &ConvolutionShape) -> Vec<Problem> {
    let (kernel, stride, padding) = (shape.kernel, shape.stride, shape.padding() as isize);
    let offset = |parity: usize, tap: usize| {
        let distance = parity as isize + padding - tap as isize;
        (distance.rem_euclid(stride as isize) == 0).then(|| distance.div_euclid(stride as isize))
    };
    let problem = |row_parity: usize, column_parity: usize| {
        // Offsets fall as taps rise.
        let taps = (0..kernel * kernel).rev().filter_map(|tap| {
            let row = offset(row_parity, tap / kernel)?;
            let column = offset(column_parity, tap % kernel)?;
            Some(Tap { row, column, weight: tap })
        });
        Problem { first: [row_parity, column_parity], taps: taps.collect() }
    };
    (0..stride * stride).map(|parity| problem(parity / stride, parity % stride)).collect()
}

/// Source and target of a data gradient.
fn gradient_geometry(shape: &ConvolutionShape) -> Geometry {
    Geometry {
        batch: shape.batch,
        source: [shape.out_height(), shape.out_width(), shape.out_channels],
        target: [shape.height, shape.width, shape.in_channels],
        stride: 1,
        step: shape.stride,
    }
}

/// dx `[N,H,W,Cin]` = (or += if `accumulate`) the data gradient of dy `[N,OH,OW,Cout]`.
pub fn backward_data(
    products: impl Into<Products>,
    shape: &ConvolutionShape,
    dy: &[f32],
    w: &[f32],
    (dx, accumulate): (&mut [f32], bool),
    workspace: &mut Workspace,
) {
    assert_eq!((dx.len(), w.len(), dy.len()), (shape.input_len(), shape.weight_len(), shape.output_len()));
    let (products, geometry) = (products.into(), gradient_geometry(shape));
    let filter = Filter::gradient(w, shape.kernel * shape.kernel, shape.in_channels);
    if let Some(size) = winograd::size_of_data_gradient(shape) {
        // The source pixel before the target pixel is reached by the last tap.
        let filter = filter.reversed();
        return winograd::run((products, size), &geometry, filter, dy, (dx, accumulate), workspace);
    }
    solve(products, &geometry, &gradient_problems(shape), filter, dy, (dx, accumulate), workspace);
}

/// dw `[Cout,kh,kw,Cin]` = the weight gradient.
pub fn backward_weight(
    products: impl Into<Products>,
    shape: &ConvolutionShape,
    x: &[f32],
    dy: &[f32],
    dw: &mut [f32],
    workspace: &mut Workspace,
) {
    assert_eq!((x.len(), dw.len(), dy.len()), (shape.input_len(), shape.weight_len(), shape.output_len()));
    let products = products.into();
    if winograd::serves_weight_gradient(shape) {
        return winograd::weight_gradient(products.simd, shape, x, dy, dw, workspace);
    }
    match products.pairs() {
        Some(sums) => weight_pairs::run(sums, shape, x, dy, dw, workspace),
        None => weight::run(products.simd, shape, x, dy, dw, workspace),
    }
}

#[cfg(test)]
mod tests;
