//! Checks for tests of a [`RowLoss`]: its value against one worked out by hand, and its gradient against the
//! derivative.

use super::{LossRow, RowLoss};
use crate::ops::rows::Softmax;

/// Loss and gradient of a row.
pub(crate) fn of(loss: &dyn RowLoss, logits: &[f32], target: &[f32], candidates: &[u8]) -> (f64, Vec<f32>) {
    let mut d = vec![0.0; logits.len()];
    let value =
        loss.row(&LossRow { logits, target, candidates }, &mut Softmax::new(logits.len()), 1.0, &mut d);
    (value, d)
}

/// At z = (ln 1, ln 2, ln 5), so p = (1, 2, 5) / 8 and sigmoid(z) = (1/2, 2/3, 5/6), with c = (1/4, 3/4, 1)
/// and the first two classes as candidates.
pub(crate) fn assert_value(loss: &dyn RowLoss, expected: f64) {
    let z = [1.0f32, 2.0, 5.0].map(f32::ln);
    let (value, _) = of(loss, &z, &[0.25, 0.75, 1.0], &[1, 1, 0]);
    assert!((value - expected).abs() < 1e-6, "{loss:?}: {value}, by hand {expected}");
}

/// Central differences over 2h. Their error is h^2/6 times the third derivative plus 2^-24 / h from rounding,
/// both below 1e-4 at h = 1e-2 for losses of a few units.
pub(crate) fn assert_gradient(loss: &dyn RowLoss) {
    let z = [0.3f32, -1.2, 0.9, 1.7, -0.4];
    let (c, s) = ([0.5f32, 0.3, 0.2, 0.0, 0.4], [1, 1, 1, 0, 0]);
    let (_, d) = of(loss, &z, &c, &s);
    for k in 0..z.len() {
        let h = 1e-2f32;
        let at = |step: f32| {
            let mut z = z;
            z[k] += step;
            of(loss, &z, &c, &s).0
        };
        let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
        assert!((slope - f64::from(d[k])).abs() < 2e-4, "{loss:?} class {k}: {slope} and {}", d[k]);
    }
}
