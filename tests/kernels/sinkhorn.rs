//! The label refinery of SoLar.

use records::device::Tensor;
use records::device::gpu::Precision;
use records::pll::solar::operations::{Sinkhorn, SinkhornSettings, outcome};

use crate::pair::{Outcome, Pair, Random, Value};

/// Sums in f32, where the CPU's are in f64: a term passes fewer than 100 additions, 6e-6 relative at worst
/// for either vector. Every round starts from A again, so fifty rounds are no worse than the last.
const TOLERANCE: f64 = 1e-5;

/// Rows p s: softmaxes of random logits, masked by a random set that holds class `row % classes` and part of
/// the others; for few rows all of the others, so that every class has support.
fn masked_rows(random: &mut Random, rows: usize, classes: usize) -> Vec<f32> {
    let logits = random.normal(rows * classes, 1.5);
    let sets = random.uniform(rows * classes, 0.0, 1.0);
    let part = if rows < 100 { 1.0 } else { 0.3 };
    let mut values = Vec::with_capacity(rows * classes);
    for row in 0..rows {
        let at = row * classes..(row + 1) * classes;
        let total: f32 = logits[at.clone()].iter().map(|z| z.exp()).sum();
        let kept = |k: usize| k == row % classes || sets[row * classes + k] < part;
        values.extend(
            (0..classes).map(|k| if kept(k) { logits[row * classes + k].exp() / total } else { 0.0 }),
        );
    }
    values
}

struct Case {
    classes: usize,
    settings: SinkhornSettings,
    queue: Vec<f32>,
    predictions: Vec<f32>,
    class_prior: Vec<f32>,
}

impl Case {
    fn new([batch, queue_rows, classes]: [usize; 3]) -> Self {
        let mut random = Random::new(&format!("sinkhorn {batch} {queue_rows} {classes}"));
        let weights = random.uniform(classes, 0.3, 1.0);
        let total: f32 = weights.iter().sum();
        Self {
            classes,
            settings: SinkhornSettings::default(),
            queue: masked_rows(&mut random, queue_rows, classes),
            predictions: masked_rows(&mut random, batch, classes),
            class_prior: weights.iter().map(|w| w / total).collect(),
        }
    }

    /// Runs it twice on the same barrier, as a replayed step does.
    fn run(&self, pair: &mut Pair) -> Outcome {
        let operation = Sinkhorn {
            batch: self.predictions.len() / self.classes,
            queue_rows: self.queue.len() / self.classes,
            classes: self.classes,
            settings: self.settings,
            predictions: Tensor(0),
            queue: (!self.queue.is_empty()).then_some(Tensor(1)),
            class_prior: Tensor(2),
            barrier: Tensor(3),
            pseudo_labels: Tensor(4),
            outcome: Tensor(5),
        };
        let values = [
            Value::F32(self.predictions.clone()),
            Value::F32(if self.queue.is_empty() { vec![0.0] } else { self.queue.clone() }),
            Value::F32(self.class_prior.clone()),
            Value::I32(vec![0; 2]),
            Value::Output(self.predictions.len()),
            Value::Output(outcome::LEN),
        ];
        pair.run(&[operation.clone(), operation], &values)
    }

    fn check(&self, what: &str, pair: &mut Pair, rounds: f32, relaxed: f32) -> Outcome {
        let result = self.run(pair);
        assert_eq!(result.cpu[5], [rounds, relaxed], "{what}: rounds and relaxation on the CPU");
        result.assert_equal(&format!("{what}: rounds and relaxation"), Tensor(5));
        result.assert_close(what, Tensor(4), TOLERANCE, 0.0);
        result
    }
}

#[test]
fn pseudo_labels_over_shapes() {
    let mut pair = Pair::new(Precision::F32);
    // The last does not fit into shared memory.
    for shape in [
        [200, 0, 10],
        [1, 0, 7],
        [3, 0, 33],
        [17, 0, 100],
        [256, 0, 20],
        [65, 0, 200],
        [40, 0, 257],
        [130, 0, 520],
    ] {
        Case::new(shape).check(&format!("{shape:?}"), &mut pair, 50.0, 0.0);
    }
}

#[test]
fn a_queue_takes_part_once_it_is_full() {
    let mut pair = Pair::new(Precision::F32);
    for shape in [[33, 300, 7], [17, 136, 20]] {
        let mut case = Case::new(shape);
        let full = case.check(&format!("{shape:?}"), &mut pair, 50.0, 0.0);
        let last = case.queue.len() - case.classes;
        case.queue[last..].fill(0.0);
        let alone = case.check(&format!("{shape:?}, not full"), &mut pair, 50.0, 0.0);
        assert_ne!(full.kernels[4], alone.kernels[4], "{shape:?}: the queue must matter for this test");
        case.queue[last + 3] = 1e-9;
        case.check(&format!("{shape:?}, barely full"), &mut pair, 50.0, 0.0);
    }
}

/// Stopping: SoLar's tolerance is never reached, a large one after ten rounds; a power without a shortcut;
/// other numbers of rounds.
#[test]
fn settings_are_followed() {
    let mut pair = Pair::new(Precision::F32);
    let mut case = Case::new([60, 0, 10]);
    case.settings.tolerance = 1e5;
    case.check("tolerance", &mut pair, 10.0, 0.0);
    case.settings = SinkhornSettings { power: 1.5, rounds: 7, check_every: 3, ..SinkhornSettings::default() };
    case.check("power and rounds", &mut pair, 7.0, 0.0);
}

/// A class without support, NaN in the predictions, and a result that overflows after the last check of the
/// error.
#[test]
fn failed_attempts_are_relaxed_once() {
    let mut pair = Pair::new(Precision::F32);
    for shape in [[200, 0, 10], [130, 0, 520]] {
        let mut case = Case::new(shape);
        let classes = case.classes;
        case.predictions.iter_mut().skip(4).step_by(classes).for_each(|value| *value = 0.0);
        let result = case.check(&format!("{shape:?}, no support"), &mut pair, 60.0, 1.0);
        assert!(result.kernels[4].iter().all(|value| value.is_finite()));

        case.settings.rounds = 9;
        case.check(&format!("{shape:?}, unseen by the error"), &mut pair, 18.0, 1.0);

        let mut case = Case::new(shape);
        case.predictions[11 * classes + 1] = f32::NAN;
        let result = case.check(&format!("{shape:?}, NaN"), &mut pair, 20.0, 1.0);
        assert!(result.kernels[4].iter().all(|value| value.is_nan()));
    }
}
