//! Operations that map each channel's value through a table.

type Table = [u8; 256];

fn map(pixels: &mut [u8], channel: usize, table: &Table) {
    pixels.iter_mut().skip(channel).step_by(3).for_each(|value| *value = table[usize::from(*value)]);
}

fn histogram(pixels: &[u8], channel: usize) -> [u32; 256] {
    let mut counts = [0; 256];
    pixels.iter().skip(channel).step_by(3).for_each(|&value| counts[usize::from(value)] += 1);
    counts
}

/// Stretches each channel's used range to 0..=255: v -> clip(trunc(v g - low g)), g = 255 / (high - low) in
/// f64.
pub fn autocontrast(pixels: &mut [u8]) {
    for channel in 0..3 {
        let counts = histogram(pixels, channel);
        let used = |&level: &usize| counts[level] > 0;
        let (Some(low), Some(high)) = ((0..256).find(used), (0..256).rfind(used)) else { continue };
        if high <= low {
            continue;
        }
        let gain = 255.0 / (high - low) as f64;
        let offset = -(low as f64) * gain;
        let table: Table = std::array::from_fn(|value| (value as f64 * gain + offset) as u8);
        map(pixels, channel, &table);
    }
}

/// Equalises each channel's histogram with Pillow's integer steps; unchanged with fewer than two used levels
/// or a step of 0.
pub fn equalize(pixels: &mut [u8]) {
    for channel in 0..3 {
        let counts = histogram(pixels, channel);
        let Some(last) = counts.iter().rev().find(|&&count| count > 0) else { continue };
        let step = (counts.iter().sum::<u32>() - last) / 255;
        if counts.iter().filter(|&&count| count > 0).count() <= 1 || step == 0 {
            continue;
        }
        let mut position = step / 2;
        let table: Table = std::array::from_fn(|level| {
            let value = (position / step).min(255) as u8;
            position += counts[level];
            value
        });
        map(pixels, channel, &table);
    }
}

/// Keeps the top `bits` bits, 1..=8.
pub fn posterize(pixels: &mut [u8], bits: u32) {
    let mask = !0u8 << (8 - bits.clamp(1, 8));
    pixels.iter_mut().for_each(|value| *value &= mask);
}

/// Inverts values of at least `threshold`: v < t ? v : 255 - v. An integer threshold is the ceiling of a real
/// one.
pub fn solarize(pixels: &mut [u8], threshold: i32) {
    pixels.iter_mut().filter(|value| i32::from(**value) >= threshold).for_each(|value| *value = 255 - *value);
}
