//! Colour operations: blends with a degenerate image, hue, grayscale.

/// Pillow's luma of a pixel.
pub fn luma(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((19_595 * r + 38_470 * g + 7_471 * b + 32_768) >> 16) as u8
}

/// blend(a, b, f) in f32 with two roundings: truncated for f in 0..=1, clipped first otherwise.
fn blend(a: u8, b: u8, factor: f32) -> u8 {
    if factor == 0.0 {
        return a;
    }
    if factor == 1.0 {
        return b;
    }
    let (a, b) = (f32::from(a), f32::from(b));
    // `as u8` truncates towards zero and clips to 0..=255, which covers both of Pillow's cases.
    (a + factor * (b - a)) as u8
}

/// Blends with black: factor 0 is black, 1 the image.
pub fn brightness(pixels: &mut [u8], factor: f32) {
    pixels.iter_mut().for_each(|value| *value = blend(0, *value, factor));
}

/// Blends with the image's mean luma.
pub fn contrast(pixels: &mut [u8], factor: f32) {
    let sum: u64 = pixels.chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum();
    let mean = (sum as f64 / (pixels.len() / 3) as f64 + 0.5) as u8;
    pixels.iter_mut().for_each(|value| *value = blend(mean, *value, factor));
}

/// Blends each pixel with its luma.
pub fn saturation(pixels: &mut [u8], factor: f32) {
    for pixel in pixels.chunks_exact_mut(3) {
        let gray = luma(pixel);
        pixel.iter_mut().for_each(|value| *value = blend(gray, *value, factor));
    }
}

/// Blends with the image smoothed by (1 1 1; 1 5 1; 1 1 1) / 13, where border pixels are kept. `before` is
/// scratch memory.
pub fn sharpness(pixels: &mut [u8], width: usize, factor: f32, before: &mut Vec<u8>) {
    let height = pixels.len() / (3 * width);
    before.clear();
    before.extend_from_slice(pixels);
    for row in 1..height.saturating_sub(1) {
        for at in (row * width + 1) * 3..(row * width + width).saturating_sub(1) * 3 {
            let line = |start: usize| {
                u32::from(before[start - 3]) + u32::from(before[start]) + u32::from(before[start + 3])
            };
            let sum = line(at - 3 * width) + line(at) + line(at + 3 * width) + 4 * u32::from(before[at]);
            pixels[at] = blend(((2 * sum + 13) / 26) as u8, before[at], factor);
        }
    }
}

/// Every channel becomes the luma.
pub fn grayscale(pixels: &mut [u8]) {
    for pixel in pixels.chunks_exact_mut(3) {
        let gray = luma(pixel);
        pixel.fill(gray);
    }
}

/// The shift of the uint8 hue for a hue factor in -0.5..=0.5: trunc(255 f) modulo 256.
pub fn hue_shift(factor: f64) -> u8 {
    ((factor * 255.0) as i32).rem_euclid(256) as u8
}

/// Converts to HSV in uint8, adds the shift to the hue modulo 256, and converts back. Lossy even for a shift
/// of 0, as in the reference.
pub fn hue(pixels: &mut [u8], shift: u8) {
    for pixel in pixels.chunks_exact_mut(3) {
        let [h, s, v] = to_hsv([pixel[0], pixel[1], pixel[2]]);
        pixel.copy_from_slice(&from_hsv([h.wrapping_add(shift), s, v]));
    }
}

fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    if max == min {
        return [0, 0, max];
    }
    let range = f32::from(max - min);
    let saturation = range / f32::from(max);
    let part = |value: u8| f32::from(max - value) / range;
    let (rc, gc, bc) = (part(r), part(g), part(b));
    let sector = if r == max {
        bc - gc
    } else if g == max {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = ((f64::from(sector) / 6.0 + 1.0) % 1.0) as f32;
    [(f64::from(hue) * 255.0) as u8, (f64::from(saturation) * 255.0) as u8, max]
}

fn from_hsv([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let position = f64::from(h) * 6.0 / 255.0;
    let sector = position.floor();
    let fraction = (position - sector) as f32;
    let saturation = (f64::from(s) / 255.0) as f32;
    let value = f64::from(v);
    let level = |value: f64| value.round().clamp(0.0, 255.0) as u8;
    let p = level(value * (1.0 - f64::from(saturation)));
    let q = level(value * (1.0 - f64::from(saturation * fraction)));
    let t = level(value * (1.0 - f64::from(saturation) * (1.0 - f64::from(fraction))));
    match sector as u32 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

/// The kernels compute without f64: these tests show for every input that their formulas are the definitions
/// above.
#[cfg(test)]
mod tests {
    use super::*;

    fn f32_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        if max == min {
            return [0, 0, max];
        }
        let range = f32::from(max - min);
        let middle = (u32::from(r) + u32::from(g) + u32::from(b)) as i32 - i32::from(max) - i32::from(min);
        let c = (i32::from(max) - middle) as f32 / range;
        let sector = match () {
            () if r == max && b == min => 1.0 - c,
            () if r == max => c - 1.0,
            () if g == max && b == min => 1.0 + c,
            () if g == max => 3.0 - c,
            () if r == min => 3.0 + c,
            () => 5.0 - c,
        };
        let hue = if sector < 0.0 { sector / 6.0 + 1.0 } else { sector / 6.0 };
        [(hue * 255.0) as u8, (range / f32::from(max) * 255.0) as u8, max]
    }

    fn integer_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
        const UNIT: u32 = 255 * 85;
        let [h, s, wide] = [h, s, v].map(u32::from);
        let (sector, fraction) = (2 * h / 85, 2 * h % 85);
        let level = |share: u32| ((2 * wide * share + UNIT) / (2 * UNIT)) as u8;
        let p = ((2 * wide * (255 - s) + 255) / 510) as u8;
        let (q, t) = (level(UNIT - s * fraction), level(UNIT - s * (85 - fraction)));
        match sector {
            1 => [q, v, p],
            2 => [p, v, t],
            3 => [p, q, v],
            4 => [t, p, v],
            5 => [v, p, q],
            _ => [v, t, p],
        }
    }

    /// All 2^24 colours to HSV in f32, and all 2^24 triples back in integers.
    #[test]
    fn hue_needs_no_f64() {
        for [high, mid] in (0..=255).flat_map(|high| (0..=255).map(move |mid| [high, mid])) {
            for low in 0..=255 {
                let triple = [high, mid, low];
                assert_eq!(f32_hsv(triple), to_hsv(triple), "{triple:?} to HSV");
                if mid > 0 {
                    assert_eq!(integer_rgb(triple), from_hsv(triple), "{triple:?} from HSV");
                }
            }
        }
    }

    /// The mean luma in integers: all sums if they are few, and those about every rounding where they are
    /// many.
    #[test]
    fn mean_luma_needs_no_f64() {
        let definition = |sum: u64, count: u64| (sum as f64 / count as f64 + 0.5) as u8;
        let integer = |sum: u64, count: u64| ((2 * sum + count) / (2 * count)) as u8;
        for size in 1..=200u64 {
            let count = size * size;
            if size <= 40 {
                assert!((0..=255 * count).all(|sum| integer(sum, count) == definition(sum, count)), "{size}");
            }
            for level in 0..255 {
                let half = level * count + count / 2;
                for sum in half.saturating_sub(3)..=(half + 3).min(255 * count) {
                    assert_eq!(integer(sum, count), definition(sum, count), "{sum} over {count}");
                }
            }
        }
    }

    /// The cases of factor 0 and 1 are the formula's own.
    #[test]
    fn a_blend_has_no_special_cases() {
        for (a, b) in (0..=255u8).flat_map(|a| (0..=255u8).map(move |b| (a, b))) {
            for factor in [0.0f32, -0.0, 1.0] {
                let formula = (f32::from(a) + factor * (f32::from(b) - f32::from(a))) as u8;
                assert_eq!(formula, blend(a, b, factor));
            }
        }
    }
}
