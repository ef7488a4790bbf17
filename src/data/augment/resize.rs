//! Pillow's bilinear resize with antialiasing: a horizontal pass to uint8, then a vertical one, with weights
//! in 22-bit fixed point.

/// Fraction bits of the weights.
const PRECISION: u32 = 22;

/// The windows and weights of one axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// First input position of each output, and the number of weights.
    windows: Vec<(usize, usize)>,
    /// Weights of all windows, one after another.
    weights: Vec<i32>,
}

impl Axis {
    /// Weights from `input` to `output` positions: triangle of half-width max(1, input/output), normalised in
    /// f64, rounded half away from zero.
    pub fn new(input: usize, output: usize) -> Self {
        let scale = input as f64 / output as f64;
        let support = scale.max(1.0);
        let (mut windows, mut weights) = (Vec::with_capacity(output), Vec::new());
        let mut window = Vec::new();
        for position in 0..output {
            let centre = (position as f64 + 0.5) * scale;
            let low = (centre - support + 0.5).max(0.0) as usize;
            let high = ((centre + support + 0.5) as usize).min(input);
            window.clear();
            window.extend((low..high).map(|k| {
                let distance = (k as f64 - centre + 0.5) * (1.0 / support);
                (1.0 - distance.abs()).max(0.0)
            }));
            let total: f64 = window.iter().sum();
            windows.push((low, window.len()));
            weights.extend(
                window.iter().map(|weight| (0.5 + weight / total * f64::from(1 << PRECISION)) as i32),
            );
        }
        Self { windows, weights }
    }

    /// The windows with their weights, by output position.
    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.windows.iter().map(move |&(first, count)| {
            let (weights, next) = rest.split_at(count);
            rest = next;
            (first, weights)
        })
    }
}

/// Rounds a sum to the nearest integer and clips it to a byte.
fn round(sum: i32) -> u8 {
    ((sum + (1 << (PRECISION - 1))) >> PRECISION).clamp(0, 255) as u8
}

/// A crop, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crop {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

/// Resizes the crop of an image of `source_width` columns to out_height x out_width. `axes` are (horizontal,
/// vertical); a pass whose size does not change is skipped. `between` is scratch memory.
pub fn resize_crop(
    source: &[u8],
    source_width: usize,
    crop: Crop,
    [out_height, out_width]: [usize; 2],
    axes: (&Axis, &Axis),
    between: &mut Vec<u8>,
    out: &mut [u8],
) {
    let row_of = |row: usize| &source[((crop.top + row) * source_width + crop.left) * 3..][..crop.width * 3];
    between.clear();
    between.resize(crop.height * out_width * 3, 0);
    for (row, line) in between.chunks_exact_mut(out_width * 3).enumerate() {
        let source = row_of(row);
        if crop.width == out_width {
            line.copy_from_slice(source);
            continue;
        }
        for ((first, weights), pixel) in axes.0.iter().zip(line.chunks_exact_mut(3)) {
            let mut sums = [0i32; 3];
            for (weight, source) in weights.iter().zip(source[first * 3..].chunks_exact(3)) {
                sums.iter_mut().zip(source).for_each(|(sum, &value)| *sum += weight * i32::from(value));
            }
            pixel.iter_mut().zip(sums).for_each(|(value, sum)| *value = round(sum));
        }
    }
    if crop.height == out_height {
        out.copy_from_slice(between);
        return;
    }
    let line_len = out_width * 3;
    let mut sums = vec![0i32; line_len];
    for ((first, weights), line) in axes.1.iter().zip(out.chunks_exact_mut(line_len)) {
        sums.fill(0);
        for (weight, source) in weights.iter().zip(between[first * line_len..].chunks_exact(line_len)) {
            sums.iter_mut().zip(source).for_each(|(sum, &value)| *sum += weight * i32::from(value));
        }
        line.iter_mut().zip(&sums).for_each(|(value, &sum)| *value = round(sum));
    }
}

/// Resizes a whole image `[height, width, 3]`.
pub fn resize(source: &[u8], [height, width]: [usize; 2], [out_height, out_width]: [usize; 2]) -> Vec<u8> {
    let mut out = vec![0; out_height * out_width * 3];
    let axes = (Axis::new(width, out_width), Axis::new(height, out_height));
    let crop = Crop { top: 0, left: 0, height, width };
    resize_crop(source, width, crop, [out_height, out_width], (&axes.0, &axes.1), &mut Vec::new(), &mut out);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Weight of input `k` at output `x` as the kernel works it out, in 32-bit integers: n_k = 2M - |(2k + 1)
    /// S - (2x + 1) L| over the sum of the window's, M = max(L, S). Zero outside the window.
    fn integer_weights(input: usize, output: usize, x: usize) -> (usize, Vec<i32>) {
        let (input, output, x) = (input as i32, output as i32, x as i32);
        let reach = 2 * input.max(output);
        let centre = (2 * x + 1) * input;
        let below = centre - reach - output;
        let first = if below < 0 { 0 } else { below / (2 * output) + 1 };
        let end = ((centre + reach + output - 1) / (2 * output)).min(input);
        let share = |k: i32| (reach - ((2 * k + 1) * output - centre).abs()) as u32;
        let total: u32 = (first..end).map(share).sum();
        let weight = |k: i32| {
            let dividend = share(k) << 12;
            let (high, rest) = (dividend / (2 * total), dividend % (2 * total));
            ((high << 11) + ((rest << 11) + total) / (2 * total)) as i32
        };
        (first as usize, (first..end).map(weight).collect())
    }

    /// Every weight of every axis from up to 256 to up to 160 positions: the kernel's integers give the f64
    /// definition's fixed-point values, and what is outside their window has the weight 0.
    #[test]
    fn integer_weights_are_the_definitions() {
        for (input, output) in
            (1..=256usize).flat_map(|input| (1..=160usize).map(move |output| (input, output)))
        {
            let taps = (2 * input.max(output)).div_ceil(output);
            for (x, (first, weights)) in Axis::new(input, output).iter().enumerate() {
                let (start, integers) = integer_weights(input, output, x);
                assert!(integers.len() <= taps, "{input} to {output}: {} taps", integers.len());
                for k in first.min(start)..(first + weights.len()).max(start + integers.len()) {
                    let at = |first: usize, weights: &[i32]| {
                        k.checked_sub(first).and_then(|i| weights.get(i).copied()).unwrap_or(0)
                    };
                    assert_eq!(at(start, &integers), at(first, weights), "{input} to {output}: {k} at {x}");
                }
            }
        }
    }
}
