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
    // `as u8` truncates towards zero and clips to 0..=255, which is both of Pillow's cases.
    (a + factor * (b - a)) as u8
}

/// Towards black: factor 0 is black, 1 the image.
pub fn brightness(pixels: &mut [u8], factor: f32) {
    pixels.iter_mut().for_each(|value| *value = blend(0, *value, factor));
}

/// Towards the image's mean luma.
pub fn contrast(pixels: &mut [u8], factor: f32) {
    let sum: u64 = pixels.chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum();
    let mean = (sum as f64 / (pixels.len() / 3) as f64 + 0.5) as u8;
    pixels.iter_mut().for_each(|value| *value = blend(mean, *value, factor));
}

/// Towards each pixel's luma.
pub fn saturation(pixels: &mut [u8], factor: f32) {
    for pixel in pixels.chunks_exact_mut(3) {
        let gray = luma(pixel);
        pixel.iter_mut().for_each(|value| *value = blend(gray, *value, factor));
    }
}

/// Towards a 3x3 smoothing (1 1 1; 1 5 1; 1 1 1) / 13, border pixels kept. `before` is scratch.
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

/// To HSV in uint8, hue += shift modulo 256, and back. Lossy even for a shift of 0, as in the reference.
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
