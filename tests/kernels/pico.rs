//! PiCO's operations: kernels against the CPU, the CPU against the definitions in f64, and gradients against
//! differences.

use records::device::gpu::Precision;
use records::device::{Operation, Tensor};
use records::ops::control;
use records::ops::elementwise::{Relu, ReluGradient};
use records::pll::pico::contrast::Contrast;
use records::pll::pico::encoder::MoveAverage;
use records::pll::pico::projection::{NormaliseRows, NormaliseRowsGradient};
use records::pll::pico::prototypes::{MovePrototypes, PseudoLabels};

use crate::pair::{Outcome, PRECISIONS, Pair, Random, Value, rounded_as};

const COLUMNS: [usize; 6] = [1, 5, 32, 33, 128, 256];

/// |values - expected| <= `tolerance` times the root mean square of the expected values.
fn assert_near(what: &str, values: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(values.len(), expected.len(), "{what}");
    let scale = (expected.iter().map(|v| v * v).sum::<f64>() / expected.len() as f64).sqrt();
    for (i, (&value, &expected)) in values.iter().zip(expected).enumerate() {
        let off = (f64::from(value) - expected).abs();
        assert!(off <= tolerance * scale, "{what}: element {i} is {value}, not {expected}");
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Rows divided by their lengths, in f64.
fn directions(values: &[f32], columns: usize) -> Vec<f64> {
    let direction = |row: &[f32]| {
        let row = wide(row);
        let norm = product(&row, &row).sqrt().max(1e-12);
        row.into_iter().map(move |v| v / norm).collect::<Vec<_>>()
    };
    values.chunks_exact(columns).flat_map(direction).collect()
}

/// Rows of length 1 in f32.
fn unit_rows(random: &mut Random, rows: usize, columns: usize) -> Vec<f32> {
    directions(&random.normal(rows * columns, 1.0), columns).iter().map(|&v| v as f32).collect()
}

/// The bits of the CPU; a NaN stays NaN, and 0 has no gradient.
#[test]
fn rectification() {
    let mut pair = Pair::new(Precision::F32);
    for len in [1, 31, 256, 1000] {
        let mut random = Random::new(&format!("relu {len}"));
        let mut x = random.normal(len, 1.0);
        x[len / 2] = 0.0;
        if len > 3 {
            (x[0], x[1]) = (f32::NAN, -0.0);
        }
        let [x_tensor, y, dy, dx] = std::array::from_fn(Tensor);
        let operations = records::operations![Relu { len, x: x_tensor, y }, ReluGradient { len, y, dy, dx },];
        let values = [
            Value::F32(x.clone()),
            Value::Output(len),
            Value::F32(random.normal(len, 1.0)),
            Value::Output(len),
        ];
        let outcome = pair.run_each(&operations, &values);
        outcome.assert_equal("y", y);
        outcome.assert_equal("dx", dx);
        for (i, &x) in x.iter().enumerate() {
            let (y, dx) = (outcome.cpu[1][i], outcome.cpu[3][i]);
            assert!(x.is_nan() == y.is_nan() && !(x > 0.0 && y != x) && !(x <= 0.0 && y != 0.0));
            assert_eq!(dx, if x > 0.0 { outcome.cpu[2][i] } else { 0.0 });
        }
    }
}

/// The norm is a sum of D squares in another order, the rest one division per element: D/8 2^-24 at most. The
/// gradient is also compared with differences of the definition in f64.
#[test]
fn directions_and_their_gradient() {
    let mut pair = Pair::new(Precision::F32);
    for columns in COLUMNS {
        let rows = 11;
        let mut random = Random::new(&format!("directions {columns}"));
        let mut x = random.normal(rows * columns, 2.0);
        x[..columns].fill(0.0);
        let weights = random.normal(rows * columns, 1.0);
        let [x_tensor, y, dy, dx] = std::array::from_fn(Tensor);
        let operations = records::operations![
            NormaliseRows { rows, columns, x: x_tensor, y },
            NormaliseRowsGradient { rows, columns, x: x_tensor, dy, dx },
        ];
        let len = rows * columns;
        let mut values =
            vec![Value::F32(x.clone()), Value::Output(len), Value::F32(weights.clone()), Value::Output(len)];
        let outcome = pair.run_each(&operations, &values);
        outcome.assert_close(&format!("{columns}: y"), y, 4e-6, 0.0);
        assert_near("y", &outcome.cpu[y.0], &directions(&x, columns), 4e-6);

        // A row of length 0 has the gradient of x / 1e-12, compared with which all others vanish.
        x[..columns].copy_from_slice(&random.normal(columns, 1.0));
        // No row is so short that a step of the differences reverses it.
        x.iter_mut().for_each(|x| *x += 0.1f32.copysign(*x));
        values[0] = Value::F32(x.clone());
        let outcome = pair.run_each(&operations, &values);
        outcome.assert_close(&format!("{columns}: dx"), dx, 1e-5, 1e-5);
        let sum = |x: &[f32]| product(&directions(x, columns), &wide(&weights));
        for i in (0..len).step_by(len.div_ceil(40)) {
            let moved = |by: f32| {
                let mut moved = x.clone();
                moved[i] += by;
                (f64::from(moved[i]), sum(&moved))
            };
            let ((above, high), (below, low)) = (moved(1e-3), moved(-1e-3));
            let difference = (high - low) / (above - below);
            let found = f64::from(outcome.cpu[dx.0][i]);
            assert!(
                (found - difference).abs() < 1e-4 * (1.0 + difference.abs()),
                "{columns} {i}: {found} {difference}"
            );
        }
    }
}

/// Each product and sum is rounded separately, so the bits are the same; the copy is the average, rounded.
#[test]
fn moving_averages() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for len in [1, 255, 256, 1025] {
            let mut random = Random::new(&format!("moving average {len}"));
            let copy = (precision != Precision::F32).then_some(Tensor(2));
            let average = MoveAverage { len, momentum: 0.9, values: Tensor(0), average: Tensor(1), copy };
            let before = random.normal(len, 1.0);
            let mut values = vec![Value::F32(random.normal(len, 1.0)), Value::F32(before.clone())];
            values.extend(copy.map(|_| Value::ActivationOutput(len)));
            let outcome = pair.run(&[average], &values);
            outcome.assert_equal("average", Tensor(1));
            for ((&average, &v), &a) in outcome.cpu[1].iter().zip(&outcome.cpu[0]).zip(&before) {
                // Two products and a sum, 2^-24 each of their size.
                let share = f64::from(0.9f32);
                let (a, v) = (share * f64::from(a), (1.0 - share) * f64::from(v));
                let off = (f64::from(average) - (a + v)).abs();
                assert!(off <= 4.0 * 2f64.powi(-24) * (a.abs() + v.abs()), "{average}, not {}", a + v);
            }
            if copy.is_some() {
                let rounded: Vec<f32> = outcome.cpu[1].iter().map(|&v| rounded_as(precision, v)).collect();
                assert_eq!(outcome.kernels[2], rounded);
            }
        }
    }
}

/// The operation over tensors 0 to 8, in the order of its fields.
fn labelling([batch, classes, columns]: [usize; 3], debiased: bool) -> PseudoLabels {
    PseudoLabels {
        batch,
        classes,
        columns,
        logits: Tensor(0),
        log_prior: debiased.then_some(Tensor(1)),
        candidates: Tensor(2),
        index: Tensor(3),
        embeddings: Tensor(4),
        prototypes: Tensor(5),
        control: Tensor(6),
        labels: Tensor(7),
        confidence: Tensor(8),
    }
}

/// Labels and nearest candidates depend on comparisons of values that are never within rounding of each other
/// here, so labels and rows have the same bits. They match the definition in f64; a row without an update
/// stays.
#[test]
fn labels_and_confidence_rows() {
    let mut pair = Pair::new(Precision::F32);
    for ([batch, classes, columns], debiased, update) in [
        ([9, 10, 128], false, true),
        ([8, 100, 128], true, true),
        ([3, 33, 256], true, false),
        ([17, 5, 7], false, true),
    ] {
        let mut random = Random::new(&format!("labels {batch} {classes}"));
        let (samples, phi) = (batch + 4, 0.85_f32);
        let mut logits = random.normal(batch * classes, 3.0);
        logits[..classes].fill(f32::NAN);
        let log_prior = random.normal(classes, 2.0);
        let mut candidates: Vec<u8> = random.below(samples * classes, 2).iter().map(|&s| s as u8).collect();
        candidates.iter_mut().step_by(classes).for_each(|first| *first = 1);
        let index = random.distinct(batch, samples);
        let embeddings = unit_rows(&mut random, batch, columns);
        let prototypes = unit_rows(&mut random, classes, columns);
        let mut block = vec![0.0; control::LEN];
        (block[control::UPDATE], block[control::OWN]) = (f32::from(u8::from(update)), phi);
        let confidence = random.uniform(samples * classes, 0.0, 1.0);
        let values = [
            Value::F32(logits.clone()),
            Value::F32(log_prior.clone()),
            Value::U8(candidates.clone()),
            Value::I32(index.clone()),
            Value::F32(embeddings.clone()),
            Value::F32(prototypes.clone()),
            Value::F32(block),
            Value::Output(batch),
            Value::F32(confidence.clone()),
        ];
        let outcome = pair.run(&[labelling([batch, classes, columns], debiased)], &values);
        outcome.assert_equal("labels", Tensor(7));
        outcome.assert_equal("confidence", Tensor(8));

        let mut expected = wide(&confidence);
        for (b, &sample) in index.iter().enumerate() {
            let row = sample as usize * classes;
            let inside = || (0..classes).filter(|k| candidates[row + k] != 0);
            let logit = |k: usize| {
                f64::from(logits[b * classes + k]) - if debiased { f64::from(log_prior[k]) } else { 0.0 }
            };
            let label = inside().max_by(|&i, &j| logit(i).total_cmp(&logit(j))).unwrap();
            assert_eq!(outcome.cpu[7][b], if b == 0 { -1.0 } else { label as f32 }, "label of {b}");
            let q = wide(&embeddings[b * columns..][..columns]);
            let score = |k: usize| product(&q, &wide(&prototypes[k * columns..][..columns]));
            let nearest = inside().max_by(|&i, &j| score(i).total_cmp(&score(j))).unwrap();
            for k in (0..classes).filter(|_| update) {
                let hit = if k == nearest { 1.0 - f64::from(phi) } else { 0.0 };
                expected[row + k] = f64::from(phi) * expected[row + k] + hit;
            }
        }
        assert_near("confidence", &outcome.cpu[8], &expected, 1e-6);
    }
}

/// If products are equal, as with prototypes that are still 0, the first candidate is the nearest on both
/// devices.
#[test]
fn equal_prototypes_go_to_the_first_candidate() {
    let (batch, classes, columns) = (2, 4, 8);
    let mut block = vec![0.0; control::LEN];
    (block[control::UPDATE], block[control::OWN]) = (1.0, 0.5);
    let values = [
        Value::F32(vec![1.0; batch * classes]),
        Value::U8(vec![0, 1, 1, 0, 1, 0, 1, 1]),
        Value::I32(vec![0, 1]),
        Value::F32(vec![0.5; batch * columns]),
        Value::F32(vec![0.0; classes * columns]),
        Value::F32(block),
        Value::Output(batch),
        Value::F32(vec![0.0, 0.5, 0.5, 0.0, 0.25, 0.0, 0.25, 0.5]),
    ];
    let [logits, candidates, index, embeddings, prototypes, control, labels, confidence] =
        std::array::from_fn(Tensor);
    let operation = PseudoLabels {
        batch,
        classes,
        columns,
        logits,
        log_prior: None,
        candidates,
        index,
        embeddings,
        prototypes,
        control,
        labels,
        confidence,
    };
    let outcome = Pair::new(Precision::F32).run(&[operation], &values);
    for results in [&outcome.cpu, &outcome.kernels] {
        assert_eq!(results[6], [1.0, 0.0]);
        assert_eq!(results[7], [0.0, 0.75, 0.25, 0.0, 0.625, 0.0, 0.125, 0.25]);
    }
}

/// Before the norm the bits are the same; the norm is a sum of D squares in another order.
#[test]
fn prototypes_follow_in_the_order_of_the_batch() {
    let mut pair = Pair::new(Precision::F32);
    for ([batch, classes], columns) in [[9, 3], [40, 10], [7, 100]].into_iter().zip([128, 33, 256]) {
        let mut random = Random::new(&format!("prototypes {batch} {classes}"));
        let embeddings = unit_rows(&mut random, batch, columns);
        let mut labels: Vec<f32> = random.below(batch, classes as u32).iter().map(|&k| k as f32).collect();
        labels[batch / 2] = -1.0;
        let mut prototypes = unit_rows(&mut random, classes, columns);
        prototypes[..columns].fill(0.0);
        let values =
            [Value::F32(embeddings.clone()), Value::F32(labels.clone()), Value::F32(prototypes.clone())];
        let operation = MovePrototypes {
            batch,
            classes,
            columns,
            momentum: 0.9,
            embeddings: Tensor(0),
            labels: Tensor(1),
            prototypes: Tensor(2),
        };
        let outcome = pair.run(&[operation.clone(), operation], &values);
        // 0.9 m + 0.1 q cancels: up to twenty updates of a row, each with an error of 2^-24 of the rows'
        // size.
        outcome.assert_close("prototypes", Tensor(2), 1e-5, 2e-6);

        let mut moved = wide(&prototypes);
        for _ in 0..2 {
            for (q, &label) in embeddings.chunks(columns).zip(&labels).filter(|(_, label)| **label >= 0.0) {
                let row = &mut moved[label as usize * columns..][..columns];
                row.iter_mut().zip(q).for_each(|(m, &q)| *m = 0.9 * *m + 0.1 * f64::from(q));
            }
            for row in moved.chunks_mut(columns) {
                let norm = product(row, row).sqrt().max(1e-12);
                row.iter_mut().for_each(|m| *m /= norm);
            }
        }
        assert_near("prototypes", &outcome.cpu[2], &moved, 2e-6);
    }
}

/// Operands of a contrastive loss, and its definition.
struct Case {
    batch: usize,
    columns: usize,
    labelled: bool,
    temperature: f64,
    weight: f64,
    embeddings: Vec<f32>,
    keys: Vec<f32>,
    labels: Vec<f32>,
    queue: Vec<f32>,
    queue_labels: Vec<f32>,
}

impl Case {
    fn new([batch, columns, queue_rows, classes]: [usize; 4], labelled: bool, temperature: f64) -> Self {
        let classes = classes as u32;
        let mut random = Random::new(&format!("contrast {batch} {columns} {queue_rows} {labelled}"));
        let [embeddings, keys] = [(); 2].map(|()| unit_rows(&mut random, batch, columns));
        let queue = unit_rows(&mut random, queue_rows, columns);
        let labels: Vec<f32> = random.below(batch, classes).iter().map(|&k| k as f32).collect();
        let queue_labels = random.below(queue_rows, classes + 1).iter().map(|&k| k as f32 - 1.0).collect();
        Self {
            batch,
            columns,
            labelled,
            temperature,
            weight: 0.5,
            embeddings,
            keys,
            labels,
            queue,
            queue_labels,
        }
    }

    /// The loss of every anchor, with embeddings `q`.
    fn losses(&self, q: &[f64]) -> Vec<f64> {
        let (batch, columns) = (self.batch, self.columns);
        let all: Vec<f64> = q.iter().copied().chain(wide(&self.keys)).chain(wide(&self.queue)).collect();
        let labels: Vec<f32> = [&self.labels[..], &self.labels, &self.queue_labels].concat();
        let of_anchor = |i: usize| {
            let (mut sum, mut positives) = (0.0, Vec::new());
            for (j, z) in all.chunks(columns).enumerate() {
                let s = product(&all[i * columns..][..columns], z) / self.temperature;
                let (held, positive) = match self.labelled {
                    true => (j != i, labels[j] == labels[i]),
                    false => (j == batch + i || j >= 2 * batch, j == batch + i),
                };
                if held {
                    sum += s.exp();
                    positives.extend(positive.then_some(s));
                }
            }
            let terms = positives.iter().map(|s| s - f64::ln(sum));
            -terms.sum::<f64>() / positives.len() as f64
        };
        (0..batch).map(of_anchor).collect()
    }

    fn run(&self, pair: &mut Pair) -> Outcome {
        let mut block = vec![0.0; control::LEN];
        block[control::UPDATE] = f32::from(u8::from(self.labelled));
        let values = [
            Value::F32(self.embeddings.clone()),
            Value::F32(self.keys.clone()),
            Value::F32(self.labels.clone()),
            Value::F32(self.queue.clone()),
            Value::F32(self.queue_labels.clone()),
            Value::F32(block),
            Value::Output(self.batch * self.columns),
            Value::F32(vec![2.0; self.batch]),
        ];
        let [embeddings, keys, labels, queue, queue_labels, control, gradient, loss_rows] =
            std::array::from_fn(Tensor);
        let operation = Contrast {
            batch: self.batch,
            columns: self.columns,
            queue_rows: self.queue_labels.len(),
            temperature: self.temperature as f32,
            weight: self.weight as f32,
            embeddings,
            keys,
            labels,
            queue,
            queue_labels,
            control,
            gradient,
            loss_rows,
        };
        assert_eq!(operation.name(), "contrast");
        pair.run(&[operation], &values)
    }
}

const GRADIENT: Tensor = Tensor(6);
const LOSS_ROWS: Tensor = Tensor(7);

/// s = q.z / T is a sum of D products whose sizes add up to at most 1, each rounded by 2^-24: D/2 2^-24 / T
/// at worst, 1.1e-4 for D = 256 and T = 0.07, and about a tenth of that as the roundings have both signs. It
/// is the relative error of an exponential, and where one weight is nearly 1, the gradient is the ratio of
/// two of them. With T = 0.01 everything is seven times larger. A gradient's row is a sum of unit rows, each
/// times a weight less its share of the positives, over T: where the two nearly cancel, the remainder has an
/// error of 2^-24 of them, and so does the gradient of 1/T, however small it is.
#[test]
fn contrastive_losses_and_gradients() {
    let mut pair = Pair::new(Precision::F32);
    for (shape, labelled, temperature) in [
        ([6, 16, 20, 3], true, 0.07),
        ([6, 16, 20, 3], false, 0.07),
        ([5, 128, 40, 10], true, 0.07),
        ([5, 128, 40, 10], false, 0.5),
        ([3, 256, 9, 2], true, 0.01),
        ([1, 33, 1, 2], true, 0.07),
        ([1, 33, 1, 2], false, 0.07),
    ] {
        let what = format!("{shape:?} {labelled} {temperature}");
        let case = Case::new(shape, labelled, temperature);
        let outcome = case.run(&mut pair);
        let tolerance = 3e-5 * (0.07 / temperature).max(1.0);
        outcome.assert_close(&what, LOSS_ROWS, tolerance, tolerance);
        let of_gradient = &outcome.cpu[GRADIENT.0];
        let scale = product(&wide(of_gradient), &wide(of_gradient)) / of_gradient.len() as f64;
        let cancelled = 2f64.powi(-22) / temperature * case.weight / case.batch as f64 / scale.sqrt();
        let of_gradient = tolerance + cancelled;
        outcome.assert_close(&what, GRADIENT, tolerance, of_gradient);

        let q = wide(&case.embeddings);
        let expected: Vec<f64> = case.losses(&q).iter().map(|loss| 2.0 + case.weight * loss).collect();
        assert_near(&what, &outcome.cpu[LOSS_ROWS.0], &expected, tolerance);
        let mean = |q: &[f64]| case.weight * case.losses(q).iter().sum::<f64>() / case.batch as f64;
        let differences: Vec<f64> = (0..q.len())
            .map(|i| {
                let moved = |by: f64| {
                    let mut moved = q.clone();
                    moved[i] += by;
                    mean(&moved)
                };
                (moved(1e-5) - moved(-1e-5)) / 2e-5
            })
            .collect();
        assert_near(&what, &outcome.cpu[GRADIENT.0], &differences, 2.0 * of_gradient);
    }
}
