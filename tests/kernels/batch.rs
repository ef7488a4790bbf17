//! The input of a step: copies and products whose bits must be the CPU's. bf16 and f16 results are the CPU's f32
//! values, rounded once.

use records::device::gpu::Precision;
use records::device::{Element, Tensor};
use records::operations;
use records::ops::input::{AdvanceStep, NormaliseImages, SelectBatch, StoreRows};
use records::ops::mixup::{AppendMixup, Draws, Mixup};

use super::pair::{Outcome, PRECISIONS, Pair, Random, Value, rounded_as};

/// Asserts equal bits, after the single rounding of bf16 activations.
fn assert_rounded(pair: &Pair, outcome: &mut Outcome, what: &str, tensor: Tensor) {
    outcome.cpu[tensor.0].iter_mut().for_each(|v| *v = rounded_as(pair.precision, *v));
    outcome.assert_equal(what, tensor);
}

/// The samples of three steps, made visible by copying the selected rows (a mixup with weight 1).
#[test]
fn batches_follow_the_order() {
    let mut pair = Pair::new(Precision::F32);
    for (batch, samples) in [(1, 5), (7, 29), (300, 1000)] {
        let mut random = Random::new("order");
        let columns = 3;
        let values = [
            Value::I32(random.distinct(samples, samples)),
            Value::I32(vec![0]),
            Value::I32(vec![0; batch]),
            Value::F32(random.normal(samples * columns, 1.0)),
            Value::F32(vec![1.0; 3]),
            Value::I32((0..3).flat_map(|_| random.distinct(batch, batch)).collect()),
            Value::F32(vec![0.0; 4 * batch * columns]),
            Value::Output(batch * columns),
        ];
        let [order, step, index, x, weights, permutations, store, rows] = std::array::from_fn(Tensor);
        let draws = Draws { weights, permutations, step };
        let one_step = operations![
            SelectBatch { batch, order, step, index },
            Mixup { batch, rows: batch, len: columns, draws, index: Some(index), x, out: rows },
            StoreRows { batch, columns, rows, step, store },
            AdvanceStep { step, modulus: None },
        ];
        let outcome = pair.run_each(&vec![one_step; 3].concat(), &values);
        outcome.assert_equal(&format!("{batch} of {samples}"), store);
        assert!(outcome.cpu[store.0][..3 * batch * columns].iter().all(|&v| v != 0.0));
    }
}

#[test]
fn images_are_normalised_and_the_last_repeated() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        // 3 pixels per image: no whole vectors; 20: whole vectors of four values only; 64: of eight.
        for (batch, pixels, count, first) in
            [(5, 3, 11, 0), (4, 20, 10, 2), (7, 64, 16, 2), (3, 21, 2, 5), (600, 8, 700, 1)]
        {
            let mut random = Random::new("images");
            let values = [
                Value::U8(random.below(count * pixels * 3, 256).into_iter().map(|v| v as u8).collect()),
                Value::I32(vec![first]),
                Value::F32(vec![0.5071, 0.4867, 0.4408, 0.2675, 0.2565, 0.2761]),
                Value::ActivationOutput(batch * pixels * 3),
            ];
            let [images, step, normalisation, x] = std::array::from_fn(Tensor);
            let normalise = NormaliseImages { batch, pixels, images, step, normalisation, x };
            let mut outcome = pair.run(&[normalise], &values);
            let what = format!("{batch} images of {pixels} pixels, {precision:?}");
            assert_rounded(&pair, &mut outcome, &what, x);
        }
    }
}

/// Every value of every channel, in both stored types.
#[test]
fn every_value_is_normalised() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for normalisation in
            [[0.4914, 0.4822, 0.4465, 0.247, 0.243, 0.261], [0.2554, 0.2243, 0.2070, 0.2414, 0.2207, 0.2104]]
        {
            let values = [
                Value::U8((0..=255).flat_map(|v| [v; 3]).collect()),
                Value::I32(vec![0]),
                Value::F32(normalisation.to_vec()),
                Value::ActivationOutput(256 * 3),
            ];
            let [images, step, normalisation, x] = std::array::from_fn(Tensor);
            let (batch, pixels) = (1, 256);
            let normalise = NormaliseImages { batch, pixels, images, step, normalisation, x };
            let mut outcome = pair.run(&[normalise], &values);
            assert_rounded(&pair, &mut outcome, "every value", x);
        }
    }
}

#[test]
fn rows_are_stored_at_their_step() {
    let mut pair = Pair::new(Precision::F32);
    for (batch, columns, rows_of_store, at) in
        [(3, 10, 12, 0), (5, 100, 21, 3), (64, 20, 200, 1), (1, 1, 4, 3)]
    {
        let mut random = Random::new("rows");
        let values = [
            Value::F32(random.normal(batch * columns, 1.0)),
            Value::I32(vec![at]),
            Value::F32(random.normal(rows_of_store * columns, 1.0)),
        ];
        let [rows, step, store] = std::array::from_fn(Tensor);
        let outcome = pair.run(&[StoreRows { batch, columns, rows, step, store }], &values);
        outcome.assert_equal(&format!("{batch} rows of {columns}"), store);
    }
}

/// A step that wraps around, as the position in a ring does, made visible by what is stored there.
#[test]
fn steps_begin_anew_at_their_modulus() {
    let mut pair = Pair::new(Precision::F32);
    for (modulus, start) in [(1, 0), (3, 0), (4, 2), (2, 5)] {
        let [rows, step, store] = std::array::from_fn(Tensor);
        let advance = AdvanceStep { step, modulus: Some(modulus) };
        let steps = operations![advance, StoreRows { batch: 1, columns: 1, rows, step, store }];
        for count in 1..7 {
            let values = [Value::F32(vec![1.0]), Value::I32(vec![start]), Value::F32(vec![0.0; modulus])];
            let outcome = pair.run_each(&vec![steps.clone(); count].concat(), &values);
            let what = format!("{count} steps of {modulus} from {start}");
            outcome.assert_equal(&what, store);
            outcome.assert_equal(&what, step);
        }
    }
}

/// Mixed views behind the views they are mixed from, in one buffer.
#[test]
fn views_are_mixed_in_place() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for (views, batch, len) in [(1, 4, 192), (2, 5, 27), (2, 3, 20), (2, 2, 9000)] {
            let mut random = Random::new(&format!("mixup in place {batch} {len}"));
            let (rows, steps) = (views * batch, 3);
            let values = [
                Value::F32(random.uniform(steps, 0.5, 1.0)),
                Value::I32((0..steps).flat_map(|_| random.distinct(batch, batch)).collect()),
                Value::I32(vec![1]),
                Value::Activations(random.normal(2 * rows * len, 1.0)),
            ];
            let [weights, permutations, step, x] = std::array::from_fn(Tensor);
            let mixup = AppendMixup { batch, rows, len, draws: Draws { weights, permutations, step }, x };
            let mut outcome = pair.run(&[mixup], &values);
            assert_rounded(&pair, &mut outcome, &format!("{rows} rows of {len}, {precision:?}"), x);
            let Value::Activations(before) = &values[x.0] else { unreachable!() };
            assert_ne!(outcome.kernels[x.0][rows * len..], before[rows * len..]);
        }
    }
}

/// Images of two views that share weight and permutation.
#[test]
fn views_are_mixed() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for (batch, len) in [(4, 3072), (5, 27), (3, 20), (1, 8), (2, 9000)] {
            let mut random = Random::new("mixup");
            let (rows, steps) = (2 * batch, 3);
            let values = [
                Value::F32(random.uniform(steps, 0.5, 1.0)),
                Value::I32((0..steps).flat_map(|_| random.distinct(batch, batch)).collect()),
                Value::I32(vec![1]),
                Value::Activations(random.normal(rows * len, 1.0)),
                Value::ActivationOutput(rows * len),
            ];
            let [weights, permutations, step, x, out] = std::array::from_fn(Tensor);
            let draws = Draws { weights, permutations, step };
            let mixup = Mixup { batch, rows, len, draws, index: None, x, out };
            let mut outcome = pair.run(&[mixup], &values);
            assert_rounded(&pair, &mut outcome, &format!("{rows} rows of {len}, {precision:?}"), out);
        }
    }
}

/// Confidence rows of a batch, selected from the store by index: f32 whatever the activations are.
#[test]
fn confidence_rows_are_mixed() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for (batch, classes, samples) in [(7, 10, 20), (5, 20, 5), (33, 100, 40), (3, 200, 9), (4, 7, 8)] {
            let mut random = Random::new("confidence rows");
            let values = [
                Value::F32(random.uniform(2, 0.5, 1.0)),
                Value::I32((0..2).flat_map(|_| random.distinct(batch, batch)).collect()),
                Value::I32(vec![1]),
                Value::I32(random.distinct(batch, samples)),
                Value::F32(
                    random.uniform(samples * classes, -0.5, 1.0).into_iter().map(|v| v.max(0.0)).collect(),
                ),
                Value::Output(batch * classes),
            ];
            let [weights, permutations, step, index, x, out] = std::array::from_fn(Tensor);
            let (rows, len, index) = (batch, classes, Some(index));
            let draws = Draws { weights, permutations, step };
            let mixup = Mixup { batch, rows, len, draws, index, x, out };
            let outcome = pair.run(&[mixup], &values);
            outcome.assert_equal(&format!("{batch} rows of {classes}, {precision:?}"), out);
        }
    }
}

/// The CPU refuses a step beyond the uploaded ones; kernels read the last step's data and store nothing.
#[test]
fn steps_beyond_the_end_stay_inside() {
    let mut pair = Pair::new(Precision::F32);
    let (batch, len, steps) = (2, 4, 3);
    for (at, read) in [(3, 2), (i32::MAX, 2), (-1, 0), (i32::MIN, 0)] {
        let device = &mut *pair.kernels;
        let mut upload_i32 = |values: &[i32]| {
            let buffer = device.allocate(Element::I32, values.len(), "a test operand").unwrap();
            device.write_i32(buffer, values).unwrap();
            buffer
        };
        // Seven samples: three steps of two, and one left over.
        let (order, step) = (upload_i32(&[6, 5, 4, 3, 2, 1, 0]), upload_i32(&[at]));
        let (index, permutations) = (upload_i32(&[9, 9]), upload_i32(&[0, 1, 1, 0, 0, 1]));
        let mut upload = |values: &[f32]| {
            let buffer = device.allocate(Element::F32, values.len(), "a test operand").unwrap();
            device.write_f32(buffer, values).unwrap();
            buffer
        };
        let x: Vec<f32> = (0..7 * len).map(|v| v as f32).collect();
        let (x_buffer, weights) = (upload(&x), upload(&[1.0; 3]));
        let (out, store) = (upload(&[9.0; 8]), upload(&[7.0; 24]));
        let buffers = [order, step, index, permutations, x_buffer, weights, out, store];
        let [order, step, index, permutations, x, weights, out, store] = std::array::from_fn(Tensor);
        let (rows, columns) = (batch, len);
        let draws = Draws { weights, permutations, step };
        for operation in operations![
            SelectBatch { batch, order, step, index },
            Mixup { batch, rows, len, draws, index: Some(index), x, out },
            StoreRows { batch, columns, rows: out, step, store },
        ] {
            device.execute(&*operation, &buffers).unwrap();
        }
        let first = 6 - 2 * read;
        let expected: Vec<f32> =
            [first, first - 1].iter().flat_map(|&s| (0..len).map(move |i| (s * len + i) as f32)).collect();
        assert_eq!(device.read_f32(buffers[out.0]).unwrap(), expected, "step {at} of {steps}");
        assert_eq!(device.read_f32(buffers[store.0]).unwrap(), [7.0; 24], "step {at} of {steps}");
    }
}
