//! The pair loss, the disambiguation of its confidence rows, and their counters.

use std::sync::Arc;

use records::device::gpu::Precision;
use records::device::{Operation, Tensor};
use records::ops::confidence::Disambiguate;
use records::ops::control;
use records::ops::loss::{CrossEntropy, Loss, Term};
use records::ops::statistics::{
    ConfidenceStatistics, CountFiniteSteps, CountNotFinite, StepStatistics, counter,
};
use records::pll::corr::{Consistency, ViewProduct};

use crate::pair::{Outcome, Pair, Random, Value};

const LOGITS: Tensor = Tensor(0);
const CONFIDENCE: Tensor = Tensor(1);
const INDEX: Tensor = Tensor(2);
const D_LOGITS: Tensor = Tensor(3);
const LOSS_ROWS: Tensor = Tensor(4);
const LOG_PRIOR: Tensor = Tensor(5);
const CANDIDATES: Tensor = Tensor(6);
const CONTROL: Tensor = Tensor(7);

/// Batch and classes: every kernel's first and last number of classes, odd ones, and batches that are no
/// multiple of a block.
const SHAPES: [[usize; 2]; 14] = [
    [1, 10],
    [256, 10],
    [3, 7],
    [17, 20],
    [17, 32],
    [17, 33],
    [3, 64],
    [17, 100],
    [3, 128],
    [17, 200],
    [3, 256],
    [3, 257],
    [2, 1000],
    [1, 10_000],
];

/// The value in rows that belong to no sample of the batch.
const UNTOUCHED: f32 = -7.25;

/// A batch's tensors.
struct Case {
    batch: usize,
    classes: usize,
    logits: Vec<f32>,
    confidence: Vec<f32>,
    index: Vec<i32>,
    log_prior: Vec<f32>,
    candidates: Vec<u8>,
    update: f32,
}

impl Case {
    fn new([batch, classes]: [usize; 2]) -> Self {
        let mut random = Random::new(&format!("loss {batch} {classes}"));
        let samples = 2 * batch + 5;
        let index = random.distinct(batch, samples);
        let sets = random.uniform(samples * classes, 0.0, 1.0);
        let weights = random.uniform(samples * classes, 0.0, 1.0);
        let (mut candidates, mut confidence) = (vec![0; sets.len()], vec![UNTOUCHED; sets.len()]);
        for row in 0..samples {
            let at = row * classes..(row + 1) * classes;
            let set: Vec<u8> = sets[at.clone()]
                .iter()
                .enumerate()
                .map(|(k, u)| u8::from(k == row % classes || *u < 0.4))
                .collect();
            // A fifth of the candidates, but never the first, have lost their confidence.
            let kept = |k: usize| set[k] != 0 && (k == row % classes || weights[row * classes + k] > 0.2);
            let row_weights: Vec<f32> =
                (0..classes).map(|k| if kept(k) { 0.1 + weights[row * classes + k] } else { 0.0 }).collect();
            let total: f32 = row_weights.iter().sum();
            if index.contains(&(row as i32)) {
                row_weights.iter().zip(&mut confidence[at.clone()]).for_each(|(w, c)| *c = w / total);
            }
            candidates[at].copy_from_slice(&set);
        }
        // Within -3..3, no probability comes nearer to 1 than 1/68 (seven classes).
        let logits = random.uniform(2 * batch * classes, -3.0, 3.0);
        let prior = random.uniform(classes, 0.01, 1.0);
        let total: f32 = prior.iter().sum();
        let log_prior = prior.iter().map(|p| (p / total + 1e-9).ln()).collect();
        Self { batch, classes, logits, confidence, index, log_prior, candidates, update: 1.0 }
    }

    fn values(&self) -> Vec<Value> {
        let mut block = vec![0.0; control::LEN];
        block[control::UPDATE] = self.update;
        vec![
            Value::F32(self.logits.clone()),
            Value::F32(self.confidence.clone()),
            Value::I32(self.index.clone()),
            Value::Output(self.logits.len()),
            Value::Output(self.batch),
            Value::F32(self.log_prior.clone()),
            Value::U8(self.candidates.clone()),
            Value::F32(block),
        ]
    }

    fn loss(&self) -> Loss {
        Loss {
            row_loss: Arc::new(Consistency),
            term: Term::Plain,
            joint: None,
            batch: self.batch,
            classes: self.classes,
            views: 2,
            first: 0,
            logits: LOGITS,
            target: CONFIDENCE,
            candidates: CANDIDATES,
            index: Some(INDEX),
            d_logits: D_LOGITS,
            loss_rows: LOSS_ROWS,
        }
    }

    fn disambiguate(&self, rule: ViewProduct, log_prior: Option<Tensor>) -> Disambiguate {
        Disambiguate {
            disambiguation: Arc::new(rule),
            joint: None,
            batch: self.batch,
            classes: self.classes,
            logits: LOGITS,
            log_prior,
            candidates: CANDIDATES,
            index: INDEX,
            control: CONTROL,
            confidence: CONFIDENCE,
        }
    }

    /// The three possible disambiguations.
    fn disambiguations(&self) -> [Disambiguate; 3] {
        [
            self.disambiguate(ViewProduct::OverPositive, None),
            self.disambiguate(ViewProduct::OverCandidates, Some(LOG_PRIOR)),
            self.disambiguate(ViewProduct::OverCandidates, None),
        ]
    }

    /// Rows outside the batch keep their bits, and updated rows are 0 in the same places as on the CPU.
    fn check_rows(&self, what: &str, outcome: &Outcome) {
        let (cpu, kernels) = (&outcome.cpu[CONFIDENCE.0], &outcome.kernels[CONFIDENCE.0]);
        for (row, (ours, theirs)) in cpu.chunks(self.classes).zip(kernels.chunks(self.classes)).enumerate() {
            if !self.index.contains(&(row as i32)) {
                assert!(theirs.iter().all(|v| *v == UNTOUCHED), "{what}: row {row} is not in the batch");
            }
            let zeros = |values: &[f32]| values.iter().map(|v| *v == 0.0).collect::<Vec<_>>();
            assert_eq!(zeros(ours), zeros(theirs), "{what}: zeros of row {row}");
        }
    }
}

/// Updated rows: two exponentials, four roundings and a root per class, and each sum in another order than
/// the CPU's. The CPU adds K terms sequentially in f32, K/2 2^-24 relative at worst: 1.5e-5 for 500 classes;
/// the observed error for 10,000 is a tenth of the bound.
fn rows_tolerance(classes: usize) -> f64 {
    2e-6 + classes as f64 * 3e-9
}

/// 1 - p loses six bits if p is within 1/68 of 1, and the gradient's terms of size up to 68 cancel to about
/// 1: 68 * 2^-23 absolute. The same holds for the logarithm of 1 - p in the loss.
fn loss_tolerance(classes: usize) -> (f64, f64) {
    (5e-6 + classes as f64 * 3e-9, 1e-5)
}

fn check_loss(what: &str, classes: usize, outcome: &Outcome) {
    let (relative, absolute) = loss_tolerance(classes);
    outcome.assert_close(&format!("{what}: gradient"), D_LOGITS, relative, absolute);
    outcome.assert_close(&format!("{what}: loss"), LOSS_ROWS, relative, absolute);
}

#[test]
fn the_pair_loss_and_its_gradient() {
    let mut pair = Pair::new(Precision::F32);
    for shape in SHAPES {
        let case = Case::new(shape);
        let outcome = pair.run(&[case.loss()], &case.values());
        check_loss(&format!("{shape:?}"), case.classes, &outcome);
        outcome.assert_equal(&format!("{shape:?}: confidence"), CONFIDENCE);
    }
}

#[test]
fn disambiguated_confidence_rows() {
    let mut pair = Pair::new(Precision::F32);
    for shape in SHAPES {
        let case = Case::new(shape);
        let mut values = case.values();
        // Neither is an operand of a disambiguation.
        values[D_LOGITS.0] = Value::F32(vec![0.0]);
        values[LOSS_ROWS.0] = Value::F32(vec![0.0]);
        for (which, next) in case.disambiguations().into_iter().enumerate() {
            let what = format!("{shape:?}, disambiguation {which}");
            let outcome = pair.run(&[next], &values);
            outcome.assert_close(&what, CONFIDENCE, rows_tolerance(case.classes), 0.0);
            case.check_rows(&what, &outcome);
        }
    }
}

#[test]
fn loss_and_disambiguation_in_one_launch() {
    let mut pair = Pair::new(Precision::F32);
    for shape in SHAPES {
        for update in [1.0, 0.0] {
            let case = Case { update, ..Case::new(shape) };
            for (which, next) in case.disambiguations().into_iter().enumerate() {
                let what = format!("{shape:?}, disambiguation {which}, flag {update}");
                let outcome = pair.run_recorded(&records::operations![case.loss(), next], &case.values());
                check_loss(&what, case.classes, &outcome);
                outcome.assert_close(&what, CONFIDENCE, rows_tolerance(case.classes), 0.0);
                case.check_rows(&what, &outcome);
                if update == 0.0 {
                    outcome.assert_equal(&what, CONFIDENCE);
                    assert_eq!(outcome.kernels[CONFIDENCE.0], case.confidence, "{what}");
                }
            }
        }
    }
}

/// Neighbouring operations on the same rows become one launch, others two.
#[test]
fn only_a_loss_and_the_disambiguation_of_its_rows_are_joined() {
    let case = Case::new([3, 10]);
    for next in case.disambiguations() {
        let launches = |operations: &[Arc<dyn Operation>]| crate::pair::launches(operations, 9);
        assert_eq!(launches(&records::operations![case.loss(), next.clone()]), 1);
        assert_eq!(launches(&records::operations![next.clone(), case.loss()]), 2);
        let other = Loss { logits: Tensor(8), ..case.loss() };
        assert_eq!(launches(&records::operations![other, next.clone()]), 2);
        let other = Loss { row_loss: Arc::new(CrossEntropy), ..case.loss() };
        assert_eq!(launches(&records::operations![other, next]), 2);
    }
}

/// Changes a sample's weak logits, strong logits and confidence row.
type Kind<'a> = &'a dyn Fn(&mut [f32], &mut [f32], &mut [f32]);

/// Saturated, huge, infinite and NaN logits, and confidence rows of zeros, one kind per sample.
fn extreme(classes: usize) -> Case {
    let kinds: [Kind<'_>; 15] = [
        // Class 0 saturated in both views: once correct, once wrong.
        &|w, s, c| (w[0], s[0], c[0]) = (90.0, 90.0, 1.0),
        &|w, s, c| (w[0], s[0], c[0]) = (90.0, 90.0, 0.0),
        // Wrong with p = 1 where the others are not 0: their gradient would be 1 / eps.
        &|w, s, c| (w[0], s[0], c[0]) = (26.0, 26.0, 0.0),
        // Contradictory views: all products underflow or nearly so.
        &|w, s, _| (w[0], s[1]) = (104.0, 104.0),
        &|w, s, _| (w[0], s[1]) = (60.0, 60.0),
        &|w, s, _| (w[2], s[2]) = (1e30, 1e30),
        &|w, _, _| w[2] = -1e30,
        &|w, _, _| w[3] = f32::INFINITY,
        &|_, s, _| s[3] = f32::NEG_INFINITY,
        &|w, _, _| w.fill(f32::NEG_INFINITY),
        &|w, _, _| w[classes - 1] = f32::NAN,
        &|_, s, _| s[0] = f32::NAN,
        &|w, s, _| (w.fill(5.0), s.fill(-5.0)).0,
        &|_, _, c| c.fill(0.0),
        &|_, _, c| c[1] = f32::NAN,
    ];
    let mut case = Case::new([kinds.len(), classes]);
    let half = kinds.len() * classes;
    for (b, kind) in kinds.iter().enumerate() {
        let (weak, strong) = case.logits.split_at_mut(half);
        let at = b * classes..(b + 1) * classes;
        let row = case.index[b] as usize * classes..(case.index[b] as usize + 1) * classes;
        kind(&mut weak[at.clone()], &mut strong[at], &mut case.confidence[row]);
    }
    case
}

/// NaN appears exactly where the CPU has NaN, and saturation gives the same results. Products of tiny
/// probabilities keep few bits in a denormal number: 2^-24 of the row's size.
#[test]
fn extreme_logits() {
    let mut pair = Pair::new(Precision::F32);
    for classes in [7, 33, 100, 200, 257] {
        let case = extreme(classes);
        for (which, next) in case.disambiguations().into_iter().enumerate() {
            let what = format!("{classes} classes, disambiguation {which}");
            let outcome = pair.run_recorded(&records::operations![case.loss(), next], &case.values());
            let nans = |values: &[f32]| values.iter().filter(|v| v.is_nan()).count();
            assert!(nans(&outcome.cpu[LOSS_ROWS.0]) >= 5 && nans(&outcome.cpu[CONFIDENCE.0]) >= 4 * classes);
            check_loss(&what, classes, &outcome);
            outcome.assert_close(&what, CONFIDENCE, rows_tolerance(classes), 6e-8);
        }
    }
}

/// The counts are exact; losses are summed in f64 in another order and rounded once: one unit in the last
/// place.
#[test]
fn counters_of_a_step() {
    let mut pair = Pair::new(Precision::F32);
    for [batch, classes] in [[1, 10], [3, 7], [17, 33], [256, 10], [100, 100], [33, 200], [3, 257], [70, 1]] {
        let mut random = Random::new(&format!("counters {batch} {classes}"));
        let samples = batch + 3;
        // Few values, so that most rows have ties.
        let mut logits: Vec<f32> =
            random.below(2 * batch * classes, 5).iter().map(|&value| value as f32 - 2.0).collect();
        for (b, row) in logits.chunks_mut(classes).enumerate().take(batch) {
            match b % 7 {
                1 => row[0] = f32::NAN,
                2 => row[classes - 1] = f32::NAN,
                3 => row.fill(f32::NEG_INFINITY),
                4 => row.fill(f32::NAN),
                5 => row[classes / 2] = f32::INFINITY,
                _ => {}
            }
        }
        // Half of the labels are the argmax, so that there is something to count.
        let index = random.distinct(batch, samples);
        let mut labels: Vec<i32> = random.below(samples, classes as u32).iter().map(|&k| k as i32).collect();
        for (b, &sample) in index.iter().enumerate().step_by(2) {
            let row = &logits[b * classes..(b + 1) * classes];
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            labels[sample as usize] = row.iter().position(|v| *v == largest).unwrap_or(0) as i32;
        }
        let operation = StepStatistics {
            batch,
            classes,
            logits: Tensor(0),
            labels: Tensor(1),
            index: Tensor(2),
            loss_rows: Tensor(3),
            counters: Tensor(4),
        };
        let loss_rows = random.uniform(batch, 0.0, 20.0);
        for spoiled in [false, true] {
            let mut loss_rows = loss_rows.clone();
            if spoiled {
                loss_rows[batch / 2] = f32::NAN;
            }
            let values = [
                Value::F32(logits.clone()),
                Value::I32(labels.clone()),
                Value::I32(index.clone()),
                Value::F32(loss_rows),
                Value::F32(vec![-1.0, 3.5, 7.0]),
            ];
            let outcome = pair.run(std::slice::from_ref(&operation), &values);
            let what = format!("{batch} x {classes}, spoiled {spoiled}");
            outcome.assert_close(&what, Tensor(4), f64::from(f32::EPSILON), 0.0);
            let (cpu, kernels) = (&outcome.cpu[4], &outcome.kernels[4]);
            assert_eq!(cpu[counter::CORRECT], kernels[counter::CORRECT], "{what}");
            assert_eq!(cpu[counter::LAST_LOSS].is_nan(), spoiled);
        }
    }
}

/// Every position and every kind of non-finite value is detected; the first such step stays marked.
#[test]
fn steps_are_finite_up_to_the_first_that_is_not() {
    let mut pair = Pair::new(Precision::F32);
    for len in [1, 33, 1024, 1025, 9601] {
        let mut random = Random::new(&format!("finite {len}"));
        let mut fine = random.normal(len, 1.0);
        fine[0] = f32::MAX;
        fine[len / 2] = f32::MIN_POSITIVE / 4.0;
        let mut cases = vec![fine.clone()];
        for (at, value) in
            [(0, f32::NAN), (len - 1, f32::INFINITY), (len / 3, f32::NEG_INFINITY), (len / 2, -f32::NAN)]
        {
            let mut spoiled = fine.clone();
            spoiled[at] = value;
            cases.push(spoiled);
        }
        for (number, values) in cases.into_iter().enumerate() {
            for before in [0.0, 41.0, -7.0] {
                let slot = counter::RUNNING;
                let mut counters = vec![-1.5; counter::LEN];
                counters[slot] = before;
                let operation = CountFiniteSteps { len, slot, values: Tensor(0), counters: Tensor(1) };
                let outcome =
                    pair.run(&[operation], &[Value::F32(values.clone()), Value::F32(counters.clone())]);
                let what = format!("{len} values, case {number}, {before} before");
                outcome.assert_equal(&what, Tensor(1));
                counters[slot] = match (before < 0.0, number) {
                    (true, _) => before,
                    (false, 0) => before + 1.0,
                    (false, _) => -(before + 1.0),
                };
                assert_eq!(outcome.cpu[1], counters, "{what}");
            }
        }
    }
}

/// Counts are exact, sums in f64 on both sides: one unit in the last place.
#[test]
fn statistics_of_confidence_rows() {
    let mut pair = Pair::new(Precision::F32);
    for [rows, classes] in
        [[1, 10], [31, 7], [32, 33], [257, 10], [2100, 20], [600, 100], [300, 200], [40, 257], [90_000, 3]]
    {
        let mut random = Random::new(&format!("statistics {rows} {classes}"));
        let mut confidence: Vec<f32> =
            random.below(rows * classes, 9).iter().map(|&value| value as f32 / 7.0).collect();
        if rows > 31 {
            confidence[5 * classes + 1] = f32::NAN;
        }
        // Nothing is larger than a NaN at position 0: it appears in the sum, but not in the hits.
        let mut spoiled = confidence.clone();
        spoiled[rows / 2 * classes] = f32::NAN;
        // One label is unknown; the label of the spoiled row is its NaN's position.
        let mut labels: Vec<i32> = random.below(rows, classes as u32).iter().map(|&k| k as i32).collect();
        labels[rows / 3] = -1;
        labels[rows / 2] = 0;
        // The argmax is a candidate in some rows and not in others; every row has a candidate.
        let mut sets: Vec<u8> = random.below(rows * classes, 2).iter().map(|&bit| bit as u8).collect();
        sets.chunks_exact_mut(classes).enumerate().for_each(|(row, set)| set[row % classes] = 1);
        let cases = [
            ("whole", confidence.clone(), None),
            ("spoiled", spoiled.clone(), None),
            ("among candidates", confidence, Some(Tensor(3))),
            ("spoiled, among candidates", spoiled, Some(Tensor(3))),
        ];
        for (what, confidence, candidates) in cases {
            let what = format!("{rows} x {classes}, {what}");
            let (confidence, labels) = (Value::F32(confidence), Value::I32(labels.clone()));
            let values = [confidence, labels, Value::Output(2), Value::U8(sets.clone())];
            let operation = ConfidenceStatistics {
                rows,
                classes,
                confidence: Tensor(0),
                candidates,
                labels: Tensor(1),
                out: Tensor(2),
            };
            let outcome = pair.run(std::slice::from_ref(&operation), &values);
            outcome.assert_close(&what, Tensor(2), f64::from(f32::EPSILON), 0.0);
            assert_eq!(outcome.cpu[2][1], outcome.kernels[2][1], "{what}: hits");
        }
    }
}

/// Lengths below and above what one pass of all blocks reaches; every place a bad value can be.
#[test]
fn values_that_are_not_finite_are_counted() {
    let mut pair = Pair::new(Precision::F32);
    for len in [1, 31, 1024, 20_000, 300_001] {
        let mut random = Random::new(&format!("not finite {len}"));
        let mut values = random.normal(len, 1e30);
        for (at, bad) in [(0, f32::NAN), (len / 2, f32::INFINITY), (len - 1, f32::NEG_INFINITY)] {
            values[at] = bad;
        }
        let count =
            |len: usize, slot: usize| CountNotFinite { len, slot, values: Tensor(0), counts: Tensor(1) };
        let operands = [Value::F32(values), Value::I32(vec![0, 40, 0])];
        let outcome = pair.run(&[count(len, 1), count(len.div_ceil(3), 2)], &operands);
        outcome.assert_equal(&format!("counts of {len}"), Tensor(1));
        let expected = 40.0 + len.min(3) as f32;
        assert_eq!(outcome.kernels[1], [0.0, expected, 1.0], "{len}");
    }
}
