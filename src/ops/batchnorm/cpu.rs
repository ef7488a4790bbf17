//! Batchnorm over rows of channels (NHWC: a row is a pixel), forward and backward.
//!
//! Few channels would give short loops, so coefficients are repeated over a *table* of whole rows that is at
//! least [`LEAST_TABLE`] values long. Sums are taken over *periods*, the least number of whole rows that fill
//! panels of [`LANES`] values: 16 periods are added in f32, these sums in f64 for a block, the blocks in order,
//! and last the rows of a period. The variance E`[x²]` - E`[x]`² then loses nothing that an f32 result could
//! show, and the bits depend on the shape alone.

use rayon::prelude::*;

use crate::device::cpu::rounding::Rounding;
use crate::device::cpu::vectorised::vectorised;

/// PyTorch's eps, added to the variance.
const EPSILON: f64 = 1e-5;
/// The weight of the new batch in the running statistics.
const MOMENTUM: f64 = 0.1;
/// Values that are summed side by side.
const LANES: usize = 32;
/// The least number of values in a table of coefficients.
const LEAST_TABLE: usize = 128;
/// Periods summed in f32 before they are added in f64.
const GROUP: usize = 16;
/// Values of a block, the unit of work of a thread, at least.
const BLOCK: usize = 1 << 14;

/// Values of neighbouring channels.
type Panel = [f32; LANES];

/// Partial sums, reused between calls.
#[derive(Default)]
pub(super) struct PartialSums {
    partial: Vec<f64>,
}

/// How the values of a tensor with some number of channels are divided.
#[derive(Clone, Copy)]
struct Division {
    channels: usize,
    /// Values of a period, a multiple of [`LANES`].
    period: usize,
    /// Values of a table, a multiple of the period.
    table: usize,
    /// Values of a block, a multiple of the table.
    block: usize,
}

impl Division {
    fn of(channels: usize) -> Self {
        let common = 1 << channels.trailing_zeros().min(LANES.trailing_zeros());
        let period = channels / common * LANES;
        let table = period * LEAST_TABLE.div_ceil(period);
        let group = GROUP * table;
        Self { channels, period, table, block: group * BLOCK.div_ceil(group) }
    }

    /// One value for each channel, repeated over a table.
    fn repeat(&self, of_channel: impl Fn(usize) -> f32) -> Vec<f32> {
        let row: Vec<f32> = (0..self.channels).map(of_channel).collect();
        row.repeat(self.table / self.channels)
    }

    /// Memory for the sums of all blocks of `len` values, zeroed.
    fn partial<'a>(&self, len: usize, sums: &'a mut PartialSums) -> &'a mut [f64] {
        sums.partial.clear();
        sums.partial.resize(len.div_ceil(self.block) * 2 * self.period, 0.0);
        &mut sums.partial
    }

    /// Adds up the partial sums of all blocks, in order, then those of the rows of a period: `[first sums;
    /// second sums]` of the channels.
    fn total(&self, partial: &[f64]) -> Vec<f64> {
        let mut wide = vec![0.0; 2 * self.period];
        for block in partial.chunks_exact(2 * self.period) {
            wide.iter_mut().zip(block).for_each(|(sum, part)| *sum += part);
        }
        let mut sums = vec![0.0; 2 * self.channels];
        for (sums, wide) in sums.chunks_exact_mut(self.channels).zip(wide.chunks_exact(self.period)) {
            for row in wide.chunks_exact(self.channels) {
                sums.iter_mut().zip(row).for_each(|(sum, part)| *sum += part);
            }
        }
        sums
    }
}

/// The panels of whole periods, and the values behind them.
fn panels(values: &[f32], period: usize) -> (&[Panel], &[f32]) {
    let (whole, rest) = values.split_at(values.len() / period * period);
    (whole.as_chunks().0, rest)
}

/// As [`panels`].
fn panels_mut(values: &mut [f32], period: usize) -> (&mut [Panel], &mut [f32]) {
    let (whole, rest) = values.split_at_mut(values.len() / period * period);
    (whole.as_chunks_mut().0, rest)
}

/// Adds the sums of two terms of each value of a period to `sums`. `add(column, at, first, second)` adds those of
/// panel `at` of all `count`, which is panel `column` of its period.
#[inline(always)]
fn sum_panels(count: usize, sums: &mut [f64], mut add: impl FnMut(usize, usize, &mut Panel, &mut Panel)) {
    let sums = sums.as_chunks_mut::<LANES>().0;
    let columns = sums.len() / 2;
    let (first, second) = sums.split_at_mut(columns);
    let [mut of_first, mut of_second] = [(); 2].map(|()| vec![[0.0f32; LANES]; columns]);
    for start in (0..count).step_by(GROUP * columns) {
        let end = (start + GROUP * columns).min(count);
        if columns <= 2 {
            // The sums stay in registers.
            for column in 0..columns {
                let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
                for at in (start + column..end).step_by(columns) {
                    add(column, at, &mut a, &mut b);
                }
                (of_first[column], of_second[column]) = (a, b);
            }
        } else {
            // In the order of memory: column by column would be slow from main memory.
            of_first.fill([0.0; LANES]);
            of_second.fill([0.0; LANES]);
            for period in (start..end).step_by(columns) {
                for (column, (a, b)) in of_first.iter_mut().zip(&mut of_second).enumerate() {
                    add(column, period + column, a, b);
                }
            }
        }
        for (sums, group) in [(&mut *first, &of_first), (&mut *second, &of_second)] {
            for (sum, &part) in sums.as_flattened_mut().iter_mut().zip(group.as_flattened()) {
                *sum += f64::from(part);
            }
        }
    }
}

vectorised! {
    /// Adds the sums of the values of a block and of their squares to `sums`, `[2, period]`.
    fn sum_squares(x: &[f32], sums: &mut [f64]) {
        let period = sums.len() / 2;
        let (x, rest) = panels(x, period);
        sum_panels(x.len(), sums, |_, at, first, second| {
            let x = &x[at];
            for lane in 0..LANES {
                first[lane] += x[lane];
                second[lane] += x[lane] * x[lane];
            }
        });
        let (first, second) = sums.split_at_mut(period);
        for ((first, second), &value) in first.iter_mut().zip(second).zip(rest) {
            *first += f64::from(value);
            *second += f64::from(value * value);
        }
    }
}

/// Writes `batch` = `[mean; 1/sqrt(var + eps)]` of x `[rows, channels]` and updates `running` = `[mean; var]`
/// as PyTorch does, with the unbiased variance, n / (n - 1) times the batch's.
pub(super) fn statistics(
    shape: [usize; 2],
    x: &[f32],
    running: &mut [f32],
    batch: &mut [f32],
    workspace: &mut PartialSums,
) {
    statistics_of(shape, &sums(shape[1], x, workspace), running, batch);
}

/// `[sum x; sum x²]` of the rows of x, by channel.
pub(super) fn sums(channels: usize, x: &[f32], workspace: &mut PartialSums) -> Vec<f64> {
    let division = Division::of(channels);
    let partial = division.partial(x.len(), workspace);
    partial
        .par_chunks_exact_mut(2 * division.period)
        .zip(x.par_chunks(division.block))
        .for_each(|(sums, x)| sum_squares(x, sums));
    division.total(partial)
}

/// [`statistics`] from the sums of so many rows.
pub(super) fn statistics_of(
    [rows, channels]: [usize; 2],
    sums: &[f64],
    running: &mut [f32],
    batch: &mut [f32],
) {
    let n = rows as f64;
    let (running_mean, running_var) = running.split_at_mut(channels);
    let (mean, inverse_std) = batch.split_at_mut(channels);
    for channel in 0..channels {
        let average = sums[channel] / n;
        let variance = (sums[channels + channel] / n - average * average).max(0.0);
        mean[channel] = average as f32;
        inverse_std[channel] = (1.0 / (variance + EPSILON).sqrt()) as f32;
        let unbiased = variance * n / (n - 1.0).max(1.0);
        let blend = |old: f32, new: f64| ((1.0 - MOMENTUM) * f64::from(old) + MOMENTUM * new) as f32;
        running_mean[channel] = blend(running_mean[channel], average);
        running_var[channel] = blend(running_var[channel], unbiased);
    }
}

/// `[mean; 1/sqrt(var + eps)]` from running `[mean; var]`.
pub(super) fn running_statistics(channels: usize, running: &[f32]) -> Vec<f32> {
    let (mean, var) = running.split_at(channels);
    let inverse = var.iter().map(|&var| (1.0 / (f64::from(var) + EPSILON).sqrt()) as f32);
    mean.iter().copied().chain(inverse).collect()
}

/// `[scale; shift]` with scale = g / std and shift = b - mean scale, repeated over a table. In f32, as PyTorch
/// computes it: the five-step trajectory of the golden data is chaotic enough to show the difference.
fn scale_and_shift(division: Division, affine: &[f32], statistics: &[f32]) -> [Vec<f32>; 2] {
    let channels = division.channels;
    let scale = |c: usize| affine[c] * statistics[channels + c];
    [division.repeat(scale), division.repeat(|c| affine[channels + c] - statistics[c] * scale(c))]
}

vectorised! {
    /// y = max(x scale + shift, floor); a NaN stays NaN: `f32::max` would turn it into the floor, and a
    /// diverged run would look healthy.
    fn normalise(x: &[f32], scale: &[f32], shift: &[f32], floor: f32, y: &mut [f32], rounding: Rounding) {
        for (y, x) in y.chunks_mut(scale.len()).zip(x.chunks(scale.len())) {
            for (((y, &x), &scale), &shift) in y.iter_mut().zip(x).zip(scale).zip(shift) {
                let value = x * scale + shift;
                *y = if value < floor { floor } else { value };
            }
            rounding.apply_inlined(y);
        }
    }
}

vectorised! {
    /// y = max(x scale + shift + residual, floor); a NaN stays NaN.
    fn normalise_and_add(
        x: &[f32],
        scale: &[f32],
        shift: &[f32],
        residual: &[f32],
        floor: f32,
        y: &mut [f32],
        rounding: Rounding,
    ) {
        let table = scale.len();
        for ((y, x), residual) in y.chunks_mut(table).zip(x.chunks(table)).zip(residual.chunks(table)) {
            let terms = x.iter().zip(residual).zip(scale.iter().zip(shift));
            for (y, ((&x, &residual), (&scale, &shift))) in y.iter_mut().zip(terms) {
                let value = x * scale + shift + residual;
                *y = if value < floor { floor } else { value };
            }
            rounding.apply_inlined(y);
        }
    }
}

/// y = x scale + shift (+ residual), then ReLU if asked, then rounded; scale = g / std, shift = b - mean
/// scale.
pub(super) fn apply(
    channels: usize,
    x: &[f32],
    [affine, statistics]: [&[f32]; 2],
    residual: Option<&[f32]>,
    relu: bool,
    (y, rounding): (&mut [f32], Rounding),
) {
    let division = Division::of(channels);
    let [scale, shift] = scale_and_shift(division, affine, statistics);
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    let block = division.block;
    let blocks = y.par_chunks_mut(block).zip(x.par_chunks(block));
    match residual {
        None => blocks.for_each(|(y, x)| normalise(x, &scale, &shift, floor, y, rounding)),
        Some(residual) => blocks.zip(residual.par_chunks(block)).for_each(|((y, x), residual)| {
            normalise_and_add(x, &scale, &shift, residual, floor, y, rounding)
        }),
    }
}

/// Bit i of byte j says whether value i of vector j of y is positive; a vector has `vector` values, at most 8.
pub(super) fn positive_bits(vector: usize, y: &[f32], bits: &mut [u8]) {
    const BYTES: usize = 1 << 12;
    let bits_of = |values: &[f32]| {
        values.iter().enumerate().fold(0, |bits, (at, &value)| bits | u8::from(value > 0.0) << at)
    };
    bits.par_chunks_mut(BYTES).zip(y.par_chunks(BYTES * vector)).for_each(|(bits, y)| {
        bits.iter_mut().zip(y.chunks_exact(vector)).for_each(|(bits, values)| *bits = bits_of(values));
    });
}

/// Where the gradient finds what the ReLU let through.
pub(super) enum Mask<'a> {
    /// There was no ReLU.
    None,
    /// The ReLU's input was x scale + shift, which is computed again: less traffic than reading y.
    FromX,
    /// From y, the result of the forward pass; dy is masked in place.
    FromY(&'a [f32]),
}

/// value, or 0 unless `by` is positive (also for NaN).
#[inline(always)]
fn where_positive(by: f32, value: f32) -> f32 {
    if by > 0.0 { value } else { 0.0 }
}

/// Adds the terms dy (x - mean) and dy of the values behind the last whole period.
fn add_rest(dy: &[f32], x: &[f32], mean: &[f32], sums: &mut [f64]) {
    let (products, of_dy) = sums.split_at_mut(sums.len() / 2);
    let sums = products.iter_mut().zip(of_dy);
    for ((((product, sum), &dy), &x), &mean) in sums.zip(dy).zip(x).zip(mean) {
        *product += f64::from(dy * (x - mean));
        *sum += f64::from(dy);
    }
}

vectorised! {
    /// Adds the sums of dy (x - mean) and dy of a block to `sums`, `[2, period]`.
    fn sum_gradient(dy: &[f32], x: &[f32], mean: &[f32], sums: &mut [f64]) {
        let period = sums.len() / 2;
        let ((dy, last_dy), (x, last_x)) = (panels(dy, period), panels(x, period));
        let means = mean.as_chunks::<LANES>().0;
        sum_panels(x.len(), sums, |column, at, products, of_dy| {
            let (dy, x, mean) = (&dy[at], &x[at], &means[column]);
            for lane in 0..LANES {
                products[lane] += dy[lane] * (x[lane] - mean[lane]);
            }
            for lane in 0..LANES {
                of_dy[lane] += dy[lane];
            }
        });
        add_rest(last_dy, last_x, mean, sums);
    }
}

vectorised! {
    /// The same of dy where x scale + shift is positive.
    fn sum_masked_from_x(
        dy: &[f32],
        x: &[f32],
        scale: &[f32],
        shift: &[f32],
        mean: &[f32],
        sums: &mut [f64],
    ) {
        let period = sums.len() / 2;
        let ((dy, last_dy), (x, last_x)) = (panels(dy, period), panels(x, period));
        let [scales, shifts, means] = [scale, shift, mean].map(|values| values.as_chunks::<LANES>().0);
        sum_panels(x.len(), sums, |column, at, products, of_dy| {
            let (dy, x, mean) = (&dy[at], &x[at], &means[column]);
            let (scale, shift) = (&scales[column], &shifts[column]);
            for lane in 0..LANES {
                let dy = where_positive(x[lane] * scale[lane] + shift[lane], dy[lane]);
                products[lane] += dy * (x[lane] - mean[lane]);
                of_dy[lane] += dy;
            }
        });
        let passed = last_x.iter().zip(last_dy).zip(scale.iter().zip(shift));
        let masked: Vec<f32> =
            passed.map(|((x, &dy), (scale, shift))| where_positive(x * scale + shift, dy)).collect();
        add_rest(&masked, last_x, mean, sums);
    }
}

vectorised! {
    /// Masks dy in place where y is not positive, then as [`sum_gradient`].
    fn mask_and_sum(dy: &mut [f32], x: &[f32], y: &[f32], mean: &[f32], sums: &mut [f64]) {
        let period = sums.len() / 2;
        let ((dy, last_dy), (x, last_x)) = (panels_mut(dy, period), panels(x, period));
        let (y, last_y) = panels(y, period);
        let means = mean.as_chunks::<LANES>().0;
        sum_panels(x.len(), sums, |column, at, products, of_dy| {
            let (dy, x, y, mean) = (&mut dy[at], &x[at], &y[at], &means[column]);
            let mut masked = [0.0; LANES];
            for lane in 0..LANES {
                masked[lane] = where_positive(y[lane], dy[lane]);
            }
            *dy = masked;
            for lane in 0..LANES {
                products[lane] += masked[lane] * (x[lane] - mean[lane]);
            }
            for lane in 0..LANES {
                of_dy[lane] += masked[lane];
            }
        });
        last_dy.iter_mut().zip(last_y).for_each(|(dy, &y)| *dy = where_positive(y, *dy));
        add_rest(last_dy, last_x, mean, sums);
    }
}

/// The sums d_affine = `[sum dy xhat; sum dy]` over dy where the ReLU let it through.
pub(super) fn sum(
    channels: usize,
    x: &[f32],
    given: [&[f32]; 2],
    mask: &Mask<'_>,
    dy: &mut [f32],
    d_affine: &mut [f32],
    workspace: &mut PartialSums,
) {
    write_gradient_sums(
        channels,
        &gradient_sums(channels, x, given, mask, dy, workspace),
        given[1],
        d_affine,
    );
}

/// `[sum dy (x - mean); sum dy]` over dy where the ReLU let it through, by channel.
pub(super) fn gradient_sums(
    channels: usize,
    x: &[f32],
    [affine, batch]: [&[f32]; 2],
    mask: &Mask<'_>,
    dy: &mut [f32],
    workspace: &mut PartialSums,
) -> Vec<f64> {
    let division = Division::of(channels);
    let partial = division.partial(x.len(), workspace);
    let mean = division.repeat(|c| batch[c]);
    let block = division.block;
    let blocks = partial.par_chunks_exact_mut(2 * division.period).zip(x.par_chunks(block));
    match mask {
        Mask::None => {
            blocks.zip(dy.par_chunks(block)).for_each(|((sums, x), dy)| sum_gradient(dy, x, &mean, sums))
        }
        Mask::FromX => {
            let [scale, shift] = scale_and_shift(division, affine, batch);
            blocks
                .zip(dy.par_chunks(block))
                .for_each(|((sums, x), dy)| sum_masked_from_x(dy, x, &scale, &shift, &mean, sums));
        }
        Mask::FromY(y) => blocks
            .zip(dy.par_chunks_mut(block).zip(y.par_chunks(block)))
            .for_each(|((sums, x), (dy, y))| mask_and_sum(dy, x, y, &mean, sums)),
    }
    division.total(partial)
}

/// d_affine from these sums: xhat = (x - mean) / std, where the division by std is taken out of the sum.
pub(super) fn write_gradient_sums(channels: usize, sums: &[f64], batch: &[f32], d_affine: &mut [f32]) {
    for channel in 0..channels {
        d_affine[channel] = (sums[channel] * f64::from(batch[channels + channel])) as f32;
        d_affine[channels + channel] = sums[channels + channel] as f32;
    }
}

/// The coefficients of [`input_gradient`], each repeated over a table.
struct Coefficients {
    scale: Vec<f32>,
    slope: Vec<f32>,
    offset: Vec<f32>,
    mean: Vec<f32>,
}

vectorised! {
    /// dx = scale dy + slope (x - mean) + offset.
    fn combine(dy: &[f32], x: &[f32], of: &Coefficients, dx: &mut [f32], rounding: Rounding) {
        let Coefficients { scale, slope, offset, mean } = of;
        let table = scale.len();
        for ((dx, dy), x) in dx.chunks_mut(table).zip(dy.chunks(table)).zip(x.chunks(table)) {
            let of = scale.iter().zip(slope).zip(offset.iter().zip(mean));
            for (((dx, &dy), &x), ((&scale, &slope), (&offset, &mean))) in dx.iter_mut().zip(dy).zip(x).zip(of) {
                *dx = scale * dy + slope * (x - mean) + offset;
            }
            rounding.apply_inlined(dx);
        }
    }
}

vectorised! {
    /// The same with dy where x scale + shift is positive.
    fn mask_and_combine(
        dy: &[f32],
        x: &[f32],
        of: &Coefficients,
        shift: &[f32],
        dx: &mut [f32],
        rounding: Rounding,
    ) {
        let Coefficients { scale, slope, offset, mean } = of;
        let table = scale.len();
        for ((dx, dy), x) in dx.chunks_mut(table).zip(dy.chunks(table)).zip(x.chunks(table)) {
            let of = scale.iter().zip(shift).zip(slope).zip(offset.iter().zip(mean));
            for (((dx, &dy), &x), (((&scale, &shift), &slope), (&offset, &mean))) in
                dx.iter_mut().zip(dy).zip(x).zip(of)
            {
                let dy = where_positive(x * scale + shift, dy);
                *dx = scale * dy + slope * (x - mean) + offset;
            }
            rounding.apply_inlined(dx);
        }
    }
}

/// dx = g/std (dy - mean(dy) - xhat mean(dy xhat)) = a dy + b (x - mean) + c with one a, b and c per channel;
/// dy as [`sum`] left it; dx is rounded.
pub(super) fn input_gradient(
    [rows, channels]: [usize; 2],
    x: &[f32],
    [affine, batch]: [&[f32]; 2],
    mask: &Mask<'_>,
    dy: &[f32],
    d_affine: &[f32],
    (dx, rounding): (&mut [f32], Rounding),
) {
    let division = Division::of(channels);
    let n = rows as f64;
    let inverse_std = |c: usize| f64::from(batch[channels + c]);
    let factor = |c: usize| f64::from(affine[c]) * inverse_std(c);
    let coefficients = Coefficients {
        scale: division.repeat(|c| factor(c) as f32),
        slope: division.repeat(|c| (-factor(c) * inverse_std(c) * f64::from(d_affine[c]) / n) as f32),
        offset: division.repeat(|c| (-factor(c) * f64::from(d_affine[channels + c]) / n) as f32),
        mean: division.repeat(|c| batch[c]),
    };
    let block = division.block;
    let blocks = dx.par_chunks_mut(block).zip(dy.par_chunks(block).zip(x.par_chunks(block)));
    match mask {
        Mask::FromX => {
            let [_, shift] = scale_and_shift(division, affine, batch);
            blocks.for_each(|(dx, (dy, x))| mask_and_combine(dy, x, &coefficients, &shift, dx, rounding));
        }
        Mask::None | Mask::FromY(_) => {
            blocks.for_each(|(dx, (dy, x))| combine(dy, x, &coefficients, dx, rounding));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize, salt: u32) -> Vec<f32> {
        let noise =
            |i: usize| (i as u32).wrapping_mul(2_654_435_761).wrapping_add(salt.wrapping_mul(40_503)) >> 8;
        (0..len).map(|i| noise(i) as f32 / (1 << 24) as f32 * 4.0 - 1.0).collect()
    }

    /// f64 reference of training batchnorm with residual and ReLU: y, and the loss sum(y weight).
    fn reference(channels: usize, x: &[f32], affine: &[f32], residual: &[f32], relu: bool) -> Vec<f64> {
        let rows = x.len() / channels;
        let mut y = vec![0.0; x.len()];
        for c in 0..channels {
            let column: Vec<f64> = (0..rows).map(|r| f64::from(x[r * channels + c])).collect();
            let mean = column.iter().sum::<f64>() / rows as f64;
            let var = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64;
            for (r, value) in column.iter().enumerate() {
                let at = r * channels + c;
                let hat = (value - mean) / (var + EPSILON).sqrt();
                let value =
                    hat * f64::from(affine[c]) + f64::from(affine[channels + c]) + f64::from(residual[at]);
                y[at] = if relu { value.max(0.0) } else { value };
            }
        }
        y
    }

    /// A bit for each value, from the lowest on; 0 and NaN are not positive.
    #[test]
    fn bits_say_what_is_positive() {
        let y = [1.0, 0.0, f32::NAN, -1.0, f32::MIN_POSITIVE, -0.0, f32::INFINITY, 2.0];
        let (mut of_eight, mut of_four) = ([9; 1], [9; 2]);
        positive_bits(8, &y, &mut of_eight);
        positive_bits(4, &y, &mut of_four);
        assert_eq!((of_eight, of_four), ([0b1101_0001], [0b0001, 0b1101]));
        let (y, mut many) = (values(3 << 16, 1), vec![9; 3 << 13]);
        positive_bits(8, &y, &mut many);
        assert!(y.iter().enumerate().all(|(at, &y)| (many[at / 8] >> (at % 8) & 1 == 1) == (y > 0.0)));
    }

    /// Gradients against central differences of the f64 reference, within 1e-3 of values near 1: the error
    /// that f32 inputs and a step of 1e-2 leave. The residual's shift keeps away from the ReLU's kink.
    #[test]
    fn forward_and_gradient_match_the_definition() {
        for (rows, channels, relu) in
            [(7, 3, false), (33, 5, true), (1300, 2, true), (130, 16, true), (9, 130, false)]
        {
            let x = values(rows * channels, 1);
            let residual: Vec<f32> = values(rows * channels, 2)
                .iter()
                .zip(&x)
                .map(|(v, x)| if x + v > 0.8 { 6.0 + v } else { -6.0 + v })
                .collect();
            let affine = values(2 * channels, 3);
            let weight = values(rows * channels, 4);
            let mut workspace = PartialSums::default();
            let (mut running, mut batch) = (vec![0.0; 2 * channels], vec![0.0; 2 * channels]);
            statistics([rows, channels], &x, &mut running, &mut batch, &mut workspace);
            let mut y = vec![0.0; x.len()];
            apply(channels, &x, [&affine, &batch], Some(&residual), relu, (&mut y, Rounding::None));
            let expected = reference(channels, &x, &affine, &residual, relu);
            for (got, want) in y.iter().zip(&expected) {
                assert!((f64::from(*got) - want).abs() < 1e-5 * (1.0 + want.abs()), "{got} {want}");
            }

            let mut dy = weight.clone();
            let mut d_affine = vec![0.0; 2 * channels];
            let mask = if relu { Mask::FromY(&y) } else { Mask::None };
            let given = [&affine[..], &batch];
            sum(channels, &x, given, &mask, &mut dy, &mut d_affine, &mut workspace);
            let mut dx = vec![0.0; x.len()];
            input_gradient([rows, channels], &x, given, &mask, &dy, &d_affine, (&mut dx, Rounding::None));

            let loss = |x: &[f32], affine: &[f32]| -> f64 {
                let y = reference(channels, x, affine, &residual, relu);
                y.iter().zip(&weight).map(|(y, w)| y * f64::from(*w)).sum()
            };
            let slope = |values: &[f32], at: usize, loss: &dyn Fn(&[f32]) -> f64| {
                let (mut low, mut high) = (values.to_vec(), values.to_vec());
                low[at] -= 1e-2;
                high[at] += 1e-2;
                (loss(&high) - loss(&low)) / f64::from(high[at] - low[at])
            };
            for at in (0..x.len()).step_by(1 + x.len() / 11) {
                let want = slope(&x, at, &|x| loss(x, &affine));
                assert!((f64::from(dx[at]) - want).abs() < 1e-3, "dx[{at}] {} {want}", dx[at]);
            }
            for (at, got) in d_affine.iter().enumerate() {
                let want = slope(&affine, at, &|affine| loss(&x, affine));
                assert!((f64::from(*got) - want).abs() < 1e-3 * (1.0 + want.abs()), "{} {want}", *got);
            }
        }
    }

    /// The mask computed again from x is the mask of y, also where x is NaN or its result exactly 0.
    #[test]
    fn both_masks_give_the_same_bits() {
        for (rows, channels) in [(7, 3), (3000, 8), (700, 64), (40, 513)] {
            let mut x: Vec<f32> = values(rows * channels, 1).iter().map(|value| 2.0 * value - 2.0).collect();
            x[5] = f32::NAN;
            let mut affine = values(2 * channels, 3);
            (affine[0], affine[channels]) = (0.0, 0.0);
            let batch: Vec<f32> = values(2 * channels, 4).iter().map(|value| value + 1.5).collect();
            let mut y = vec![0.0; x.len()];
            apply(channels, &x, [&affine, &batch], None, true, (&mut y, Rounding::None));
            assert!(y.iter().any(|&y| y > 0.0) && y.contains(&0.0));
            let given = [&affine[..], &batch];
            let gradient = |mask: Mask<'_>| {
                let mut dy = values(x.len(), 5);
                let (mut d_affine, mut dx) = (vec![0.0; 2 * channels], vec![0.0; x.len()]);
                sum(channels, &x, given, &mask, &mut dy, &mut d_affine, &mut PartialSums::default());
                input_gradient([rows, channels], &x, given, &mask, &dy, &d_affine, (&mut dx, Rounding::None));
                d_affine.into_iter().chain(dx).map(f32::to_bits).collect::<Vec<u32>>()
            };
            assert_eq!(gradient(Mask::FromX), gradient(Mask::FromY(&y)), "{rows} {channels}");
        }
    }

    /// Partial sums of any number of threads are added in one order.
    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (rows, channels) = (9000, 24);
        let x = values(rows * channels, 1);
        let bits = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut running, mut batch) = (vec![0.0; 2 * channels], vec![0.0; 2 * channels]);
            pool.install(|| {
                statistics([rows, channels], &x, &mut running, &mut batch, &mut PartialSums::default());
            });
            running.into_iter().chain(batch).map(f32::to_bits).collect::<Vec<u32>>()
        };
        assert_eq!(bits(1), bits(3));
    }

    #[test]
    fn a_nan_is_not_hidden_by_the_relu() {
        let mut y = [0.0];
        apply(1, &[f32::NAN], [&[1.0, 0.0], &[0.0, 1.0]], None, true, (&mut y, Rounding::None));
        assert!(y[0].is_nan());
    }
}
