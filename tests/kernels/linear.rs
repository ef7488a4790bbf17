//! The fully connected layer and its gradients, f32 at every precision.

use records::device::Tensor;
use records::device::gpu::Precision;
use records::ops::linear::{Linear, LinearGradient};

use crate::pair::{Pair, Random, Value};

/// Rows, inputs, outputs: odd ones, the data sets' numbers of classes, enough rows that the parameters'
/// gradient is split into parts, and the features of bottleneck networks.
const SHAPES: [[usize; 3]; 11] = [
    [1, 1, 2],
    [3, 5, 2],
    [33, 31, 33],
    [37, 64, 10],
    [65, 40, 20],
    [50, 129, 100],
    [34, 72, 200],
    [300, 16, 7],
    [517, 33, 3],
    [6, 2048, 100],
    [130, 2048, 10],
];

/// Two roundings of a result by each device.
const LAST: f64 = 4.0 / (1 << 24) as f64;

/// Sums of `terms` products of size 1 in f32, in a different order on each device. Partial sums are up to the
/// root of the terms, and each is rounded once: a random walk of 2^-24 x 0.3 x terms in total, relative to a
/// result of the root of the terms. Five standard deviations for each of two devices are 2^-24 x 3 x root; 8
/// x root is allowed. Of two hundred thousand sums some are several times the root of the terms, and the last
/// additions on either side round by their size: [`LAST`] of the value.
fn tolerance(terms: usize) -> f64 {
    (terms as f64).sqrt() / f64::from(1 << 21)
}

#[test]
fn forward() {
    let mut pair = Pair::new(Precision::F32);
    for [rows, inputs, outputs] in SHAPES {
        let what = format!("{rows} x {inputs} x {outputs}");
        let mut random = Random::new(&format!("linear {what}"));
        let values = [
            Value::F32(random.normal(rows * inputs, 1.0)),
            Value::F32(random.normal(outputs * (inputs + 1), 1.0)),
            Value::Output(rows * outputs),
        ];
        let [x, parameters, y] = [0, 1, 2].map(Tensor);
        let layer = Linear { rows, inputs, outputs, x, parameters, y };
        let outcome = pair.run(&[layer], &values);
        outcome.assert_close(&what, y, LAST, tolerance(inputs + 1));
    }
}

#[test]
fn gradients() {
    let mut pair = Pair::new(Precision::F32);
    for [rows, inputs, outputs] in SHAPES {
        let what = format!("{rows} x {inputs} x {outputs}");
        let mut random = Random::new(&format!("linear gradient {what}"));
        let values = [
            Value::F32(random.normal(rows * inputs, 1.0)),
            Value::F32(random.normal(outputs * (inputs + 1), 1.0)),
            Value::F32(random.normal(rows * outputs, 1.0)),
            Value::Output(outputs * (inputs + 1)),
            Value::Output(rows * inputs),
        ];
        let [x, parameters, dy, d_parameters, dx] = [0, 1, 2, 3, 4].map(Tensor);
        let gradient = LinearGradient { rows, inputs, outputs, x, parameters, dy, d_parameters, dx };
        let outcome = pair.run(&[gradient], &values);
        outcome.assert_close(&format!("{what}: parameters"), d_parameters, LAST, tolerance(rows));
        outcome.assert_close(&format!("{what}: input"), dx, LAST, tolerance(outputs));
    }
}
