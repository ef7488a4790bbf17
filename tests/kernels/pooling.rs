//! Global average pooling and its gradient. Both devices add the positions in the same order in f32, so the
//! bits are the same; bf16 and f16 only round what is stored.

use records::device::Tensor;
use records::ops::pooling::{AveragePool, AveragePoolGradient};

use crate::pair::{PRECISIONS, Pair, Random, Value, rounded_as};

const SHAPES: [[usize; 3]; 8] = [
    [1, 16, 8],
    [7, 1, 24],
    [3, 49, 40],
    [5, 4, 520],
    [33, 16, 64],
    [2, 9, 2048],
    // 16 x 16 positions for an image of 128 x 128, and 5 x 5 for one of 36 x 36.
    [2, 256, 72],
    [3, 25, 2048],
];

#[test]
fn forward() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for [images, positions, channels] in SHAPES {
            let what = format!("{precision:?} {images} x {positions} x {channels}");
            let mut random = Random::new(&format!("pooling {what}"));
            let values = [
                Value::Activations(random.normal(images * positions * channels, 1.0)),
                Value::Output(images * channels),
            ];
            let operation = AveragePool { shape: [images, positions, channels], x: Tensor(0), y: Tensor(1) };
            pair.run(&[operation], &values).assert_equal(&what, Tensor(1));
        }
    }
}

#[test]
fn gradient() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for [images, positions, channels] in SHAPES {
            let what = format!("{precision:?} {images} x {positions} x {channels}");
            let mut random = Random::new(&format!("pooling gradient {what}"));
            let values = [
                Value::F32(random.normal(images * channels, 1.0)),
                Value::ActivationOutput(images * positions * channels),
            ];
            let operation =
                AveragePoolGradient { shape: [images, positions, channels], dy: Tensor(0), dx: Tensor(1) };
            let mut outcome = pair.run(&[operation], &values);
            outcome.cpu[1].iter_mut().for_each(|v| *v = rounded_as(precision, *v));
            outcome.assert_equal(&what, Tensor(1));
        }
    }
}
