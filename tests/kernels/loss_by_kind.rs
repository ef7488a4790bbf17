//! The losses and disambiguations of the methods, one block per row.

use std::sync::Arc;

use records::device::gpu::Precision;
use records::device::gpu::kernels::loss_by_kind::LossAndDisambiguate;
use records::device::gpu::launch::KernelOf;
use records::device::{Operation, Tensor};
use records::ops::confidence::Disambiguate;
use records::ops::control;
use records::ops::loss::{Loss, RowLoss, Term};
use records::pll::cavl::{self, ActivationValue};
use records::pll::corr::Consistency;
use records::pll::lw::settings::{LwLoss, LwSettings};
use records::pll::{LabelMethod, cc, exp, mse, proden};

use crate::pair::{Outcome, Pair, Random, Value};

const LOGITS: Tensor = Tensor(0);
const CONFIDENCE: Tensor = Tensor(1);
const INDEX: Tensor = Tensor(2);
const D_LOGITS: Tensor = Tensor(3);
const LOSS_ROWS: Tensor = Tensor(4);
const LOG_PRIOR: Tensor = Tensor(5);
const CANDIDATES: Tensor = Tensor(6);
const CONTROL: Tensor = Tensor(7);
const DENSE: Tensor = Tensor(8);

/// The one-view methods with these losses and disambiguations: PRODEN, CAVL, LW twice, CC.
fn methods() -> Vec<LabelMethod> {
    let lw = |loss| LwSettings { loss, beta: 2.0 }.method();
    vec![proden::method(), cavl::method(), lw(LwLoss::Sigmoid), lw(LwLoss::CrossEntropy), cc::method()]
}

/// Their losses, those of methods without a joint kernel, and CORR's loss for a mixed view.
fn losses() -> Vec<Arc<dyn RowLoss>> {
    let of_methods =
        methods().into_iter().chain([exp::method(), mse::method()]).map(|method| method.row_loss);
    of_methods.chain([Arc::new(Consistency) as Arc<dyn RowLoss>]).collect()
}

/// Whether a method's rows are one-hot, as CAVL's are.
fn is_one_hot(method: &LabelMethod) -> bool {
    method.disambiguation.downcast::<ActivationValue>().is_some()
}

/// Batch and classes: one warp, several, all eight with one class per thread and more, and odd ones.
const SHAPES: [[usize; 2]; 12] = [
    [1, 10],
    [65, 10],
    [3, 7],
    [17, 20],
    [5, 33],
    [9, 100],
    [2, 128],
    [3, 129],
    [7, 200],
    [2, 1000],
    [2, 1025],
    [1, 5000],
];

/// The value in rows that nothing writes.
const UNTOUCHED: f32 = -7.25;

/// A batch's tensors. Logits and their gradient hold two views and `spare` rows before and behind them.
struct Case {
    batch: usize,
    classes: usize,
    spare: usize,
    logits: Vec<f32>,
    confidence: Vec<f32>,
    index: Vec<i32>,
    log_prior: Vec<f32>,
    candidates: Vec<u8>,
    control: Vec<f32>,
    dense: Vec<f32>,
}

impl Case {
    fn new([batch, classes]: [usize; 2]) -> Self {
        let mut random = Random::new(&format!("loss by kind {batch} {classes}"));
        let (samples, spare) = (2 * batch + 5, 3);
        let index = random.distinct(batch, samples);
        let sets = random.uniform(samples * classes, 0.0, 1.0);
        let mut candidates: Vec<u8> = sets.iter().map(|u| u8::from(*u < 0.4)).collect();
        // Always at least one candidate and one other class.
        for (row, set) in candidates.chunks_mut(classes).enumerate() {
            (set[row % classes], set[(row + 1) % classes]) = (1, 0);
        }
        let weights = random.uniform(samples * classes, -0.2, 1.0);
        let mut confidence = vec![UNTOUCHED; samples * classes];
        for &row in &index {
            let at = row as usize * classes..(row as usize + 1) * classes;
            // LW's rows have weight outside the candidates too; a sixth of the classes has none.
            let weights = || weights[at.clone()].iter().map(|w| w.max(0.0));
            let total: f32 = weights().sum::<f32>() + 0.1;
            confidence[at.clone()].iter_mut().zip(weights()).for_each(|(c, w)| *c = w / total);
            confidence[row as usize * classes + row as usize % classes] += 0.1 / total;
        }
        let prior = random.uniform(classes, 0.01, 1.0);
        let total: f32 = prior.iter().sum();
        let mut block = random.uniform(control::LEN, 3.0, 4.0);
        (block[control::UPDATE], block[control::MIXUP]) = (1.0, 0.75);
        Self {
            batch,
            classes,
            spare,
            // Within -3..3, no probability comes nearer to 1 than 1/68 (seven classes).
            logits: random.uniform(2 * (batch + spare) * classes, -3.0, 3.0),
            confidence,
            index,
            log_prior: prior.iter().map(|p| (p / total + 1e-9).ln()).collect(),
            candidates,
            control: block,
            dense: random.uniform(batch * classes, -0.3, 1.0).into_iter().map(|c| c.max(0.0)).collect(),
        }
    }

    fn values(&self) -> Vec<Value> {
        vec![
            Value::F32(self.logits.clone()),
            Value::F32(self.confidence.clone()),
            Value::I32(self.index.clone()),
            Value::F32(vec![UNTOUCHED; self.logits.len()]),
            Value::Output(self.batch),
            Value::F32(self.log_prior.clone()),
            Value::U8(self.candidates.clone()),
            Value::F32(self.control.clone()),
            Value::F32(self.dense.clone()),
        ]
    }

    /// The loss of one view, from the first row.
    fn loss(&self, row_loss: &Arc<dyn RowLoss>, joint: Option<KernelOf<LossAndDisambiguate>>) -> Loss {
        Loss {
            row_loss: row_loss.clone(),
            term: Term::Plain,
            joint,
            batch: self.batch,
            classes: self.classes,
            views: 1,
            first: 0,
            logits: LOGITS,
            target: CONFIDENCE,
            candidates: CANDIDATES,
            index: Some(INDEX),
            d_logits: D_LOGITS,
            loss_rows: LOSS_ROWS,
        }
    }

    fn disambiguate(&self, method: &LabelMethod, log_prior: Option<Tensor>) -> Disambiguate {
        Disambiguate {
            disambiguation: method.disambiguation.clone(),
            joint: method.joint,
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

    /// A method's loss and disambiguation as neighbours.
    fn both(&self, method: &LabelMethod, log_prior: Option<Tensor>) -> [Arc<dyn Operation>; 2] {
        let loss = self.loss(&method.row_loss, method.joint);
        records::operations![loss, self.disambiguate(method, log_prior)]
    }

    fn check_loss(&self, what: &str, outcome: &Outcome) {
        // 1 - p loses six bits if p is within 1/68 of 1, and terms of size up to 68 beta cancel to about 1:
        // 136 * 2^-23.
        let relative = 5e-6 + self.classes as f64 * 3e-9;
        outcome.assert_close(&format!("{what}: loss"), LOSS_ROWS, relative, 2e-5);
        // The scale of the tolerance is that of the written rows only.
        let written = |values: &Vec<Vec<f32>>| {
            let mut rows = values[D_LOGITS.0].clone();
            rows.retain(|d| *d != UNTOUCHED);
            vec![rows]
        };
        let gradient = Outcome { cpu: written(&outcome.cpu), kernels: written(&outcome.kernels) };
        gradient.assert_close(&format!("{what}: gradient"), Tensor(0), relative, 2e-5);
    }

    /// Two exponentials, a logarithm and three roundings per class, and each sum in another order than the
    /// CPU's, which adds K terms sequentially in f32: K/2 2^-24 relative at worst. A log-probability of size
    /// 16 is rounded to 2^-21, and with it the exponential. One-hot rows are exact; rows outside the batch
    /// keep their values.
    fn check_rows(&self, what: &str, method: &LabelMethod, outcome: &Outcome) {
        if is_one_hot(method) {
            outcome.assert_equal(what, CONFIDENCE);
        }
        outcome.assert_close(what, CONFIDENCE, 4e-6 + self.classes as f64 * 3e-9, 0.0);
        let (cpu, kernels) = (&outcome.cpu[CONFIDENCE.0], &outcome.kernels[CONFIDENCE.0]);
        for (row, (ours, theirs)) in cpu.chunks(self.classes).zip(kernels.chunks(self.classes)).enumerate() {
            let untouched = !self.index.contains(&(row as i32));
            assert_eq!(theirs.iter().all(|v| *v == UNTOUCHED), untouched, "{what}: row {row}");
            let zeros = |values: &[f32]| values.iter().map(|v| *v == 0.0).collect::<Vec<_>>();
            assert_eq!(zeros(ours), zeros(theirs), "{what}: zeros of row {row}");
        }
    }
}

/// Every loss over one view and two, from the first row and from a later one, against rows of the store and
/// of the batch.
#[test]
fn losses_and_their_gradients() {
    let mut pair = Pair::new(Precision::F32);
    for shape in SHAPES {
        let case = Case::new(shape);
        for row_loss in losses() {
            for (views, first) in [(1, 0), (2, 0), (1, case.spare), (2, 2 * case.spare)] {
                for is_dense in [false, true] {
                    // Candidates are rows of the store, so losses that read them use the store.
                    if is_dense && row_loss.reads_candidates() {
                        continue;
                    }
                    let mut loss = Loss { views, first, ..case.loss(&row_loss, None) };
                    if is_dense {
                        (loss.target, loss.index) = (DENSE, None);
                    }
                    let what = format!("{shape:?} {row_loss:?}, {views} from {first}, dense {is_dense}");
                    let outcome = pair.run(&[loss], &case.values());
                    case.check_loss(&what, &outcome);
                    let written = |values: &[f32]| values.iter().filter(|d| **d != UNTOUCHED).count();
                    let expected = views * case.batch * case.classes;
                    assert_eq!(written(&outcome.cpu[D_LOGITS.0]), expected, "{what}");
                    assert_eq!(written(&outcome.kernels[D_LOGITS.0]), expected, "{what}");
                    outcome.assert_equal(&format!("{what}: confidence"), CONFIDENCE);
                }
            }
        }
    }
}

/// With a weight, the loss is added to that of an earlier operation; a weight of 0 hides even NaN.
#[test]
fn weighted_losses_are_added() {
    let mut pair = Pair::new(Precision::F32);
    for shape in [[3, 7], [17, 20], [3, 200], [2, 1025]] {
        for row_loss in losses() {
            for weight in [0.75, 0.0] {
                let mut case = Case::new(shape);
                case.control[control::MIXUP] = weight;
                let behind = case.batch;
                if weight == 0.0 {
                    case.logits[(behind + 1) * case.classes - 1] = f32::NAN;
                    case.logits[behind * case.classes] = f32::INFINITY;
                }
                let plain = case.loss(&row_loss, None);
                let term = Term::Mixed { control: CONTROL };
                let mut mixed = Loss { first: behind, term, ..plain.clone() };
                if !row_loss.reads_candidates() {
                    (mixed.target, mixed.index) = (DENSE, None);
                }
                let what = format!("{shape:?} {row_loss:?}, weight {weight}");
                let outcome = pair.run(&[plain, mixed], &case.values());
                case.check_loss(&what, &outcome);
                let of_mixed = &outcome.kernels[D_LOGITS.0][behind * case.classes..][..behind * case.classes];
                assert_eq!(of_mixed.iter().all(|d| *d == 0.0), weight == 0.0, "{what}");
                assert!(outcome.kernels[LOSS_ROWS.0].iter().all(|loss| loss.is_finite()), "{what}");
            }
        }
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
        for method in methods() {
            for log_prior in [None, Some(LOG_PRIOR)] {
                let what = format!("{shape:?} {:?}, prior {}", method.disambiguation, log_prior.is_some());
                let outcome = pair.run(&[case.disambiguate(&method, log_prior)], &values);
                case.check_rows(&what, &method, &outcome);
            }
        }
    }
}

/// The loss reads the old rows. Without the update flag, no row changes.
#[test]
fn loss_and_disambiguation_in_one_launch() {
    let mut pair = Pair::new(Precision::F32);
    for shape in SHAPES {
        for update in [1.0, 0.0] {
            let mut case = Case::new(shape);
            case.control[control::UPDATE] = update;
            for method in methods() {
                for log_prior in [None, Some(LOG_PRIOR)] {
                    let what = format!("{shape:?} {:?} {log_prior:?}, flag {update}", method.joint);
                    let outcome = pair.run_recorded(&case.both(&method, log_prior), &case.values());
                    case.check_loss(&what, &outcome);
                    case.check_rows(&what, &method, &outcome);
                    assert_eq!(outcome.kernels[CONFIDENCE.0] == case.confidence, update == 0.0, "{what}");
                }
            }
        }
    }
}

/// Neighbouring operations of one method on the same rows become one launch; others two.
#[test]
fn only_a_loss_and_the_disambiguation_of_its_rows_are_joined() {
    let case = Case::new([3, 10]);
    let launches = |operations: &[Arc<dyn Operation>]| crate::pair::launches(operations, 10);
    let methods = methods();
    for one in &methods {
        for other in &methods {
            let expected = if one.joint == other.joint { 1 } else { 2 };
            let (loss, next) =
                (case.loss(&one.row_loss, one.joint), case.disambiguate(other, Some(LOG_PRIOR)));
            let behind = records::operations![loss.clone(), next.clone()];
            assert_eq!(launches(&behind), expected, "{:?} {:?}", one.joint, other.joint);
            assert_eq!(launches(&records::operations![next, loss]), 2);
        }
    }
    for method in &methods {
        let apart = |change: fn(&mut Loss)| {
            let mut loss = case.loss(&method.row_loss, method.joint);
            change(&mut loss);
            launches(&records::operations![loss, case.disambiguate(method, None)])
        };
        let row_loss = &method.row_loss;
        assert_eq!(apart(|_| ()), 1);
        assert_eq!(apart(|loss| loss.joint = None), 2);
        assert_eq!(apart(|loss| loss.logits = Tensor(9)), 2);
        assert_eq!(apart(|loss| loss.target = Tensor(9)), 1 + usize::from(row_loss.reads_target()));
        assert_eq!(apart(|loss| loss.candidates = Tensor(9)), 1 + usize::from(row_loss.reads_candidates()));
        assert_eq!(apart(|loss| loss.views = 2), 2);
        assert_eq!(apart(|loss| loss.term = Term::Mixed { control: CONTROL }), 2);
    }
}

/// Changes a sample's logits, confidence row and candidate row.
type Change<'a> = &'a dyn Fn(&mut [f32], &mut [f32], &mut [u8]);

/// Saturated, huge, infinite and NaN logits, rows of zeros, empty and full candidate sets: NaN appears
/// exactly where the CPU has NaN. Probabilities below 2^-126 keep few bits: 2^-24 of the row's size.
#[test]
fn extreme_rows() {
    let mut pair = Pair::new(Precision::F32);
    let nan = f32::NAN;
    for classes in [7, 33, 200, 1025] {
        let changes: [Change<'_>; 18] = [
            &|z, _, s| (z[0], s[0]) = (90.0, 1),
            &|z, c, s| (z[0], c[0], s[0]) = (90.0, 0.0, 0),
            &|z, c, s| (z[0], c[0], s[0]) = (26.0, 0.5, 0),
            &|z, _, _| z[2] = 1e30,
            &|z, _, _| z[2] = -1e30,
            &|z, _, _| z[3] = f32::INFINITY,
            &|z, _, s| (z[3], s[3]) = (f32::NEG_INFINITY, 1),
            &|z, _, s| (z[3], s[3]) = (f32::NEG_INFINITY, 0),
            &|z, _, _| z.fill(f32::NEG_INFINITY),
            &|z, _, s| (z[classes - 1], s[classes - 1]) = (nan, 1),
            &|z, _, s| (z[classes - 1], s[classes - 1]) = (nan, 0),
            &|z, _, s| (z[0], s[0]) = (nan, 1),
            &|z, _, _| z.fill(5.0),
            &|_, c, _| c.fill(0.0),
            &|_, c, _| c[1] = nan,
            &|_, _, s| s.fill(0),
            &|_, _, s| s.fill(1),
            // All candidates far below the others.
            &|z, _, s| z.iter_mut().zip(s).for_each(|(z, s)| *z = if *s != 0 { *z - 200.0 } else { *z }),
        ];
        let mut case = Case::new([changes.len(), classes]);
        for (b, change) in changes.iter().enumerate() {
            let row = case.index[b] as usize * classes..(case.index[b] as usize + 1) * classes;
            let (confidence, candidates) = (&mut case.confidence[row.clone()], &mut case.candidates[row]);
            change(&mut case.logits[b * classes..(b + 1) * classes], confidence, candidates);
        }
        for method in methods() {
            let what = format!("{classes} classes, {:?}", method.joint);
            let outcome = pair.run_recorded(&case.both(&method, None), &case.values());
            let nans = |tensor: Tensor| outcome.cpu[tensor.0].iter().filter(|v| v.is_nan()).count();
            assert!(nans(LOSS_ROWS) >= 2, "{what}");
            // CAVL's choice has no NaN.
            assert!(is_one_hot(&method) || nans(CONFIDENCE) >= 4, "{what}");
            case.check_loss(&what, &outcome);
            outcome.assert_close(&what, CONFIDENCE, 2e-5 + classes as f64 * 3e-9, 6e-8);
        }
    }
}
