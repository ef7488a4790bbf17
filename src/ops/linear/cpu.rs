//! The fully connected layer. It is small compared with a convolution, so these are plain loops in f32 with
//! sums in eight lanes.

use rayon::prelude::*;

/// The dot product, summed in eight lanes that are added in a fixed order.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a_rest, b_rest) = (a.chunks_exact(8).remainder(), b.chunks_exact(8).remainder());
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lanes.iter().sum::<f32>() + rest
}

/// y `[R,K]` = x `[R,D]` W^T + b, parameters = `[W; b]`.
pub(super) fn forward([inputs, outputs]: [usize; 2], x: &[f32], parameters: &[f32], y: &mut [f32]) {
    let (w, b) = parameters.split_at(inputs * outputs);
    y.par_chunks_exact_mut(outputs).zip(x.par_chunks_exact(inputs)).for_each(|(y, x)| {
        for ((y, w), b) in y.iter_mut().zip(w.chunks_exact(inputs)).zip(b) {
            *y = dot(x, w) + b;
        }
    });
}

/// dx `[R,D]` = dy `[R,K]` W.
pub(super) fn input_gradient([inputs, outputs]: [usize; 2], dy: &[f32], parameters: &[f32], dx: &mut [f32]) {
    dx.par_chunks_exact_mut(inputs).zip(dy.par_chunks_exact(outputs)).for_each(|(dx, dy)| {
        dx.fill(0.0);
        for (&dy, w) in dy.iter().zip(parameters.chunks_exact(inputs)) {
            dx.iter_mut().zip(w).for_each(|(dx, w)| *dx += dy * w);
        }
    });
}

/// d_parameters = `[dy^T x; column sums of dy]`; rows are added in order.
pub(super) fn parameter_gradient(
    [inputs, outputs]: [usize; 2],
    x: &[f32],
    dy: &[f32],
    d_parameters: &mut [f32],
) {
    let (dw, db) = d_parameters.split_at_mut(inputs * outputs);
    dw.par_chunks_exact_mut(inputs).zip(db.par_iter_mut()).enumerate().for_each(|(k, (dw, db))| {
        dw.fill(0.0);
        *db = 0.0;
        for (x, dy) in x.chunks_exact(inputs).zip(dy.chunks_exact(outputs)) {
            dw.iter_mut().zip(x).for_each(|(dw, x)| *dw += dy[k] * x);
            *db += dy[k];
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forward_and_gradients_of_a_small_case() {
        // W = [[1,2],[3,4],[5,6]], b = [0.5, -0.5, 1]
        let parameters = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 0.5, -0.5, 1.0];
        let x = [1.0, -1.0, 2.0, 0.0];
        let mut y = [0.0; 6];
        forward([2, 3], &x, &parameters, &mut y);
        assert_eq!(y, [-0.5, -1.5, 0.0, 2.5, 5.5, 11.0]);
        let dy = [1.0, 0.0, 2.0, -1.0, 1.0, 0.0];
        let mut dx = [9.0; 4];
        input_gradient([2, 3], &dy, &parameters, &mut dx);
        assert_eq!(dx, [11.0, 14.0, 2.0, 2.0]);
        let mut d = [9.0; 9];
        parameter_gradient([2, 3], &x, &dy, &mut d);
        assert_eq!(d, [-1.0, -1.0, 2.0, 0.0, 2.0, -2.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn dot_covers_the_remainder() {
        let a: Vec<f32> = (0..19).map(|i| i as f32).collect();
        assert_eq!(dot(&a, &a), (0..19).map(|i| (i * i) as f32).sum::<f32>());
    }
}
