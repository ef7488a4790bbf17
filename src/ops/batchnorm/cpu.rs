//! Batchnorm over rows of channels (NHWC: a row is a pixel), forward and backward.
//!
//! Statistics: 16 rows are summed in f32, these sums in f64 per block of rows, and the blocks in order. The
//! variance E`[x²]` - E`[x]`² then loses nothing that an f32 result could show, and the bits do not depend on
//! the number of threads.

use rayon::prelude::*;

/// PyTorch's eps, added to the variance.
const EPSILON: f64 = 1e-5;
/// The weight of the new batch in the running statistics.
const MOMENTUM: f64 = 0.1;
/// Rows per block, the unit of work of a thread.
const BLOCK: usize = 512;
/// Rows summed in f32 before they are added in f64.
const GROUP: usize = 16;

/// Partial sums, reused between calls.
#[derive(Default)]
pub(super) struct PartialSums {
    partial: Vec<f64>,
}

impl PartialSums {
    fn partial(&mut self, blocks: usize, channels: usize) -> &mut [f64] {
        let len = blocks * 2 * channels;
        if self.partial.len() < len {
            self.partial.resize(len, 0.0);
        }
        &mut self.partial[..len]
    }
}

/// Adds up the 2C partial sums of all blocks, in order; returns `[first sums; second sums]`.
fn total(partial: &[f64], channels: usize) -> Vec<f64> {
    let mut sums = vec![0.0; 2 * channels];
    for block in partial.chunks_exact(2 * channels) {
        sums.iter_mut().zip(block).for_each(|(sum, part)| *sum += part);
    }
    sums
}

/// Sums two terms per channel over the rows of a block: `terms(row, first sums, second sums)` adds those of
/// one row in f32.
fn sum_block(
    rows: usize,
    channels: usize,
    out: &mut [f64],
    mut terms: impl FnMut(usize, &mut [f32], &mut [f32]),
) {
    out.fill(0.0);
    let mut group = vec![0.0f32; 2 * channels];
    for start in (0..rows).step_by(GROUP) {
        group.fill(0.0);
        let (first, second) = group.split_at_mut(channels);
        for row in start..(start + GROUP).min(rows) {
            terms(row, first, second);
        }
        out.iter_mut().zip(&group).for_each(|(sum, &part)| *sum += f64::from(part));
    }
}

/// Writes `batch` = `[mean; 1/sqrt(var + eps)]` of x `[rows, channels]` and updates `running` = `[mean; var]`
/// as PyTorch does, with the unbiased variance, n / (n - 1) times the batch's.
pub(super) fn statistics(
    [rows, channels]: [usize; 2],
    x: &[f32],
    running: &mut [f32],
    batch: &mut [f32],
    workspace: &mut PartialSums,
) {
    let blocks = rows.div_ceil(BLOCK);
    let partial = workspace.partial(blocks, channels);
    partial.par_chunks_exact_mut(2 * channels).zip(x.par_chunks(BLOCK * channels)).for_each(|(out, x)| {
        sum_block(x.len() / channels, channels, out, |row, sums, squares| {
            let x = &x[row * channels..(row + 1) * channels];
            for ((sum, square), &value) in sums.iter_mut().zip(squares).zip(x) {
                *sum += value;
                *square += value * value;
            }
        });
    });
    let sums = total(partial, channels);
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

/// y = x scale + shift (+ residual), then ReLU if asked; scale = g / std, shift = b - mean scale.
pub(super) fn apply(
    channels: usize,
    x: &[f32],
    affine: &[f32],
    statistics: &[f32],
    residual: Option<&[f32]>,
    relu: bool,
    y: &mut [f32],
) {
    let scale: Vec<f32> = (0..channels).map(|c| affine[c] * statistics[channels + c]).collect();
    // In f32, as PyTorch computes it: the five-step trajectory of the golden data is chaotic enough to show
    // the difference.
    let shift: Vec<f32> = (0..channels).map(|c| affine[channels + c] - statistics[c] * scale[c]).collect();
    let floor = if relu { 0.0 } else { f32::NEG_INFINITY };
    // A NaN must stay NaN: f32::max would turn it into the floor, and a diverged run would look healthy.
    let clamp = |value: f32| if value < floor { floor } else { value };
    let block = BLOCK * channels;
    y.par_chunks_mut(block).enumerate().for_each(|(i, y)| {
        let x = &x[i * block..i * block + y.len()];
        match residual {
            None => {
                for (y, x) in y.chunks_exact_mut(channels).zip(x.chunks_exact(channels)) {
                    for (((y, &x), &scale), &shift) in y.iter_mut().zip(x).zip(&scale).zip(&shift) {
                        *y = clamp(x * scale + shift);
                    }
                }
            }
            Some(residual) => {
                let residual = &residual[i * block..i * block + y.len()];
                let rows = y.chunks_exact_mut(channels).zip(x.chunks_exact(channels));
                for ((y, x), r) in rows.zip(residual.chunks_exact(channels)) {
                    for ((((y, &x), &r), &scale), &shift) in
                        y.iter_mut().zip(x).zip(r).zip(&scale).zip(&shift)
                    {
                        *y = clamp(x * scale + shift + r);
                    }
                }
            }
        }
    });
}

/// Masks dy in place where y is not above 0, and sums: d_affine = `[sum dy xhat; sum dy]`.
pub(super) fn mask_and_sum(
    [rows, channels]: [usize; 2],
    x: &[f32],
    y: &[f32],
    batch: &[f32],
    dy: &mut [f32],
    d_affine: &mut [f32],
    workspace: &mut PartialSums,
) {
    let partial = workspace.partial(rows.div_ceil(BLOCK), channels);
    let block = BLOCK * channels;
    partial
        .par_chunks_exact_mut(2 * channels)
        .zip(dy.par_chunks_mut(block))
        .zip(x.par_chunks(block).zip(y.par_chunks(block)))
        .for_each(|((out, dy), (x, y))| {
            sum_block(dy.len() / channels, channels, out, |row, products, sums| {
                let range = row * channels..(row + 1) * channels;
                let (dy, x, y) = (&mut dy[range.clone()], &x[range.clone()], &y[range]);
                let sums = products.iter_mut().zip(sums).zip(batch);
                for ((((product, sum), &mean), dy), (&x, &y)) in sums.zip(dy).zip(x.iter().zip(y)) {
                    *dy = if y > 0.0 { *dy } else { 0.0 };
                    *product += *dy * (x - mean);
                    *sum += *dy;
                }
            });
        });
    finish_sums(partial, channels, batch, d_affine);
}

/// The sums of [`mask_and_sum`] without a ReLU.
pub(super) fn sum(
    [rows, channels]: [usize; 2],
    x: &[f32],
    batch: &[f32],
    dy: &[f32],
    d_affine: &mut [f32],
    workspace: &mut PartialSums,
) {
    let partial = workspace.partial(rows.div_ceil(BLOCK), channels);
    let block = BLOCK * channels;
    partial.par_chunks_exact_mut(2 * channels).zip(dy.par_chunks(block).zip(x.par_chunks(block))).for_each(
        |(out, (dy, x))| {
            sum_block(dy.len() / channels, channels, out, |row, products, sums| {
                let range = row * channels..(row + 1) * channels;
                let (dy, x) = (&dy[range.clone()], &x[range]);
                for ((((product, sum), &mean), &dy), &x) in
                    products.iter_mut().zip(sums).zip(batch).zip(dy).zip(x)
                {
                    *product += dy * (x - mean);
                    *sum += dy;
                }
            });
        },
    );
    finish_sums(partial, channels, batch, d_affine);
}

/// xhat = (x - mean) / std: the division by std is taken out of the sum.
fn finish_sums(partial: &[f64], channels: usize, batch: &[f32], d_affine: &mut [f32]) {
    let sums = total(partial, channels);
    for channel in 0..channels {
        d_affine[channel] = (sums[channel] * f64::from(batch[channels + channel])) as f32;
        d_affine[channels + channel] = sums[channels + channel] as f32;
    }
}

/// dx = g/std (dy - mean(dy) - xhat mean(dy xhat)) = a dy + b (x - mean) + c with one a, b and c per channel.
pub(super) fn input_gradient(
    [rows, channels]: [usize; 2],
    x: &[f32],
    affine: &[f32],
    batch: &[f32],
    dy: &[f32],
    d_affine: &[f32],
    dx: &mut [f32],
) {
    let n = rows as f64;
    let coefficients: Vec<[f32; 4]> = (0..channels)
        .map(|c| {
            let inverse_std = f64::from(batch[channels + c]);
            let scale = f64::from(affine[c]) * inverse_std;
            let slope = -scale * inverse_std * f64::from(d_affine[c]) / n;
            let offset = -scale * f64::from(d_affine[channels + c]) / n;
            [scale as f32, slope as f32, offset as f32, batch[c]]
        })
        .collect();
    let column = |i: usize| coefficients.iter().map(|four| four[i]).collect::<Vec<f32>>();
    let (scale, slope, offset, mean) = (column(0), column(1), column(2), column(3));
    let block = BLOCK * channels;
    dx.par_chunks_mut(block).zip(dy.par_chunks(block).zip(x.par_chunks(block))).for_each(|(dx, (dy, x))| {
        let rows = dx.chunks_exact_mut(channels).zip(dy.chunks_exact(channels)).zip(x.chunks_exact(channels));
        for ((dx, dy), x) in rows {
            let coefficients = scale.iter().zip(&slope).zip(offset.iter().zip(&mean));
            for (((dx, &dy), &x), ((scale, slope), (offset, mean))) in
                dx.iter_mut().zip(dy).zip(x).zip(coefficients)
            {
                *dx = scale * dy + slope * (x - mean) + offset;
            }
        }
    });
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

    /// Gradients against central differences of the f64 reference, within 1e-3 of values near 1: the error
    /// that f32 inputs and a step of 1e-2 leave. The residual's shift keeps away from the ReLU's kink.
    #[test]
    fn forward_and_gradient_match_the_definition() {
        for (rows, channels, relu) in [(7, 3, false), (33, 5, true), (1300, 2, true)] {
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
            apply(channels, &x, &affine, &batch, Some(&residual), relu, &mut y);
            let expected = reference(channels, &x, &affine, &residual, relu);
            for (got, want) in y.iter().zip(&expected) {
                assert!((f64::from(*got) - want).abs() < 1e-5 * (1.0 + want.abs()), "{got} {want}");
            }

            let mut dy = weight.clone();
            let mut d_affine = vec![0.0; 2 * channels];
            if relu {
                mask_and_sum([rows, channels], &x, &y, &batch, &mut dy, &mut d_affine, &mut workspace);
            } else {
                sum([rows, channels], &x, &batch, &dy, &mut d_affine, &mut workspace);
            }
            let mut dx = vec![0.0; x.len()];
            input_gradient([rows, channels], &x, &affine, &batch, &dy, &d_affine, &mut dx);

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

    #[test]
    fn a_nan_is_not_hidden_by_the_relu() {
        let mut y = [0.0];
        apply(1, &[f32::NAN], &[1.0, 0.0], &[0.0, 1.0], None, true, &mut y);
        assert!(y[0].is_nan());
    }
}
