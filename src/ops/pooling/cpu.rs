//! Global average pooling over the positions of NHWC images.

use rayon::prelude::*;

/// y `[N,C]` = mean over the P positions of x `[N,P,C]`.
pub(super) fn forward(positions: usize, channels: usize, x: &[f32], y: &mut [f32]) {
    let scale = 1.0 / positions as f32;
    y.par_chunks_exact_mut(channels).zip(x.par_chunks_exact(positions * channels)).for_each(|(y, x)| {
        y.fill(0.0);
        for x in x.chunks_exact(channels) {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
        }
        y.iter_mut().for_each(|y| *y *= scale);
    });
}

/// dx `[N,P,C]` = dy `[N,C]` / P.
pub(super) fn gradient(positions: usize, channels: usize, dy: &[f32], dx: &mut [f32]) {
    let scale = 1.0 / positions as f32;
    dx.par_chunks_exact_mut(positions * channels).zip(dy.par_chunks_exact(channels)).for_each(|(dx, dy)| {
        for dx in dx.chunks_exact_mut(channels) {
            dx.iter_mut().zip(dy).for_each(|(dx, dy)| *dx = dy * scale);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_and_their_gradient() {
        let x = [1.0, 10.0, 3.0, 30.0, 5.0, 50.0, 7.0, 70.0];
        let mut y = [0.0; 4];
        forward(2, 2, &x, &mut y);
        assert_eq!(y, [2.0, 20.0, 6.0, 60.0]);
        let mut dx = [9.0; 8];
        gradient(2, 2, &y, &mut dx);
        assert_eq!(dx, [1.0, 10.0, 1.0, 10.0, 3.0, 30.0, 3.0, 30.0]);
    }
}
