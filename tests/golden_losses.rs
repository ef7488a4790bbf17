//! Losses, gradients, confidence rows and the mean feature of one step of every method against the reference;
//! and its metrics.

mod support;

use records::autograd::Tape;
use records::device::cpu::CpuDevice;
use records::device::{Buffer, Device, Element};
use records::nn::Outputs;
use records::ops::statistics::{StepStatistics, counter};
use records::pll::debias::Oracle;
use records::pll::method::EpochControl;
use records::pll::mixup::MixupBuffers;
use records::pll::{ClassPrior, ClassPriorSource, ConfidenceStore, LabelMethod, Start, corr, proden};
use records::train::evaluate;
use records::train::step::StepState;
use records::train::tensor_file::{TensorFile, Values};
use support::{assert_close, golden};

/// f32 against PyTorch's f32: sums of up to 100 terms and the ln of values near 1.
const TOLERANCE: f64 = 1e-5;

/// A golden case: a method on the logits, features and rows of a file.
struct Case<'a> {
    tag: &'static str,
    method: LabelMethod,
    /// Names of the features that enter the mean feature, and the mean before.
    records: Option<(&'static str, &'a [f32])>,
    /// Whether the file's `prior` is subtracted.
    oracle: bool,
    mixup: bool,
}

fn upload(device: &mut CpuDevice, values: &[f32]) -> Buffer {
    let buffer = device.allocate(Element::F32, values.len(), "case").unwrap();
    device.write_f32(buffer, values).unwrap();
    buffer
}

fn upload_integers(device: &mut CpuDevice, values: &[i64]) -> Buffer {
    let buffer = device.allocate(Element::I32, values.len(), "case").unwrap();
    device.write_i32(buffer, &values.iter().map(|&i| i as i32).collect::<Vec<_>>()).unwrap();
    buffer
}

/// The tensors `name.w` and, for two views, `name.s` behind it.
fn views(file: &TensorFile, views: usize, name: &str, suffix: &str) -> Vec<f32> {
    ["w", "s"][..views]
        .iter()
        .flat_map(|view| file.f32(&format!("{name}.{view}{suffix}")).unwrap().1.to_vec())
        .collect()
}

impl Case<'_> {
    fn debias(&self, file: &TensorFile, classes: usize, device: &mut CpuDevice) -> ClassPriorSource {
        match self.records {
            Some((_, mean)) => {
                let m: f64 = file.metadata["m"].parse().unwrap();
                let prior = ClassPrior::new(512, classes, m as f32, device).unwrap();
                device.write_f32(prior.mean_feature, mean).unwrap();
                ClassPriorSource::Records(prior)
            }
            None if self.oracle => {
                ClassPriorSource::Oracle(Oracle::new(file.f32("prior").unwrap().1, true, device).unwrap())
            }
            None => ClassPriorSource::None,
        }
    }
}

/// The results of one step.
struct Outcome {
    loss: f32,
    /// Gradients of all logits, view by view.
    gradient: Vec<f32>,
    /// All rows of the store.
    confidence: Vec<f32>,
    mean_feature: Option<Vec<f32>>,
}

/// Runs one step of a case; `update` says whether it disambiguates.
fn run_case(file: &TensorFile, case: &Case<'_>, update: bool) -> Outcome {
    let mut device = CpuDevice::new(2).unwrap();
    let (shape, candidates) = file.u8("candidates").unwrap();
    let (samples, classes) = (shape[0], shape[1]);
    let index = file.i64("index").unwrap().1;
    let batch = index.len();
    let store =
        ConfidenceStore::new(classes, candidates, &vec![0; samples], Start::Uniform, &mut device).unwrap();
    device.write_f32(store.confidence, file.f32("confidence").unwrap().1).unwrap();
    let state = StepState::new(&mut device).unwrap();
    let number = |key: &str| file.metadata[key].parse::<f64>().unwrap();
    let alpha = number("mixup_alpha");
    state.set(&mut device, EpochControl { update, alpha, ..EpochControl::default() }).unwrap();

    let shown = case.method.views;
    let mut logits = views(file, shown, "logits", "");
    if case.mixup {
        logits.extend(views(file, shown, "logits", "_mix"));
    }
    let logits = upload(&mut device, &logits);
    let classifier = [file.f32("fc.weight").unwrap().1, file.f32("fc.bias").unwrap().1].concat();
    let classifier = upload(&mut device, &classifier);
    let features = case.records.map(|(name, _)| upload(&mut device, &views(file, shown, name, "")));
    let index_buffer = upload_integers(&mut device, index);
    let debias = case.debias(file, classes, &mut device);

    let mut tape = Tape::new(Element::F32);
    let [logits, classifier, index_tensor] =
        [logits, classifier, index_buffer].map(|buffer| tape.persistent(buffer));
    let rows = store.rows(&mut tape, index_tensor, state.control);
    let features = features.map_or(logits, |buffer| tape.persistent(buffer));
    let outputs = Outputs { features, logits, classifier, projection: None };
    let log_prior = debias.record_training(&mut tape, shown * batch, &outputs);
    let target = case.mixup.then(|| {
        let step = device.allocate(Element::I32, 1, "step").unwrap();
        let mixup = MixupBuffers::new(1, batch, step, &mut device).unwrap();
        device.write_f32(mixup.weights, &[number("mixup_lambda") as f32]).unwrap();
        let permutation: Vec<i32> = file.i64("mix.perm").unwrap().1.iter().map(|&i| i as i32).collect();
        device.write_i32(mixup.permutations, &permutation).unwrap();
        mixup.record_rows(&mut tape, rows)
    });
    let recorded = case.method.record(&mut tape, batch, logits, rows, log_prior, target);
    let (d_logits, loss_rows) = (recorded.d_logits, recorded.loss_rows);
    let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
    let index_in = index_tensor;
    tape.push(StepStatistics { batch, classes, logits, labels, index: index_in, loss_rows, counters });
    tape.keep(d_logits);
    let plan = tape.finish(&mut device).unwrap();
    device.replay(&plan).unwrap();

    Outcome {
        loss: device.read_f32(state.counters).unwrap()[counter::LAST_LOSS],
        gradient: device.read_f32(plan.buffer(d_logits)).unwrap(),
        confidence: device.read_f32(store.confidence).unwrap(),
        mean_feature: debias.estimate().map(|prior| device.read_f32(prior.mean_feature).unwrap()),
    }
}

fn check_case(path: &str, file: &TensorFile, case: &Case<'_>, update: bool) {
    let Outcome { loss, gradient, confidence, mean_feature } = run_case(file, case, update);
    let (samples, classes) = {
        let (shape, _) = file.u8("candidates").unwrap();
        (shape[0], shape[1])
    };
    let index = file.i64("index").unwrap().1;
    let tag = format!("{}.update{}", case.tag, u8::from(update));
    let check = |what: &str, got: &[f32]| {
        let want = file.f32(&format!("{tag}.{what}")).unwrap().1;
        assert_close(&format!("{path}: {tag}.{what}"), got, want, TOLERANCE);
    };
    check("loss", &[loss]);
    let names = match (case.method.views, case.mixup) {
        (1, _) => &["grad.w"][..],
        (_, false) => &["grad.w", "grad.s"],
        (_, true) => &["grad.w", "grad.s", "grad.w_mix", "grad.s_mix"],
    };
    let len = index.len() * classes;
    assert_eq!(gradient.len(), names.len() * len);
    for (name, rows) in names.iter().zip(gradient.chunks_exact(len)) {
        check(name, rows);
    }
    let rows: Vec<f32> =
        index.iter().flat_map(|&i| &confidence[i as usize * classes..][..classes]).copied().collect();
    check("confidence", &rows);
    let want = file.f32(&format!("{tag}.confidence")).unwrap().1;
    let zeros_agree = rows.iter().zip(want).all(|(got, want)| (*got == 0.0) == (*want == 0.0));
    assert!(zeros_agree, "{path}: {tag}: a zero confidence decides later losses and must be zero in both");
    if let Some(mean_feature) = mean_feature {
        check("feat_mean", &mean_feature);
    }
    let untouched = (0..samples).filter(|i| !index.contains(&(*i as i64)));
    let before = file.f32("confidence").unwrap().1;
    for row in untouched {
        assert_eq!(confidence[row * classes..][..classes], before[row * classes..][..classes], "row {row}");
    }
}

#[test]
fn every_method_matches_the_reference() {
    for (path, file) in golden("losses_") {
        // The second case starts from F = 0.1 mean of the first features.
        let mean: Vec<f32> = {
            let (w, s) = (file.f32("feat.w").unwrap().1, file.f32("feat.s").unwrap().1);
            let rows = w.len() / 512;
            (0..512)
                .map(|d| {
                    let sum: f64 =
                        (0..rows).map(|r| f64::from(w[r * 512 + d]) + f64::from(s[r * 512 + d])).sum();
                    (0.1 * sum / (2 * rows) as f64) as f32
                })
                .collect()
        };
        let zero = vec![0.0; 512];
        let plain = |tag, method| Case { tag, method, records: None, oracle: false, mixup: false };
        let cases = [
            plain("corr", corr::method()),
            Case { records: Some(("feat", &zero)), ..plain("records.first", corr::method()) },
            Case { records: Some(("feat2", &mean)), ..plain("records.second", corr::method()) },
            Case { records: Some(("feat", &zero)), mixup: true, ..plain("records_mixup", corr::method()) },
            plain("proden", proden::method()),
            Case { records: Some(("feat", &zero)), ..plain("proden_records", proden::method()) },
            Case { oracle: true, ..plain("proden_prior", proden::method()) },
        ];
        for case in &cases {
            for update in [false, true] {
                check_case(&path, &file, case, update);
            }
        }
    }
}

/// Accuracies are counts: equal to the last bit of f32.
#[test]
fn metrics_match_the_reference() {
    for (path, file) in golden("metrics") {
        let mut cases = 0;
        for case in ["K10_s101", "K10_s102", "K100_s101", "K100_s102"] {
            let Ok((_, logits)) = file.f32(&format!("{case}.logits")) else { continue };
            let integers = |name: &str| match &file.tensors[&format!("{case}.{name}")].1 {
                Values::I32(values) => values.clone(),
                other => panic!("{other:?}"),
            };
            let labels: Vec<u8> = integers("labels").iter().map(|&l| l as u8).collect();
            let counts: Vec<usize> = integers("train_counts").iter().map(|&n| n as usize).collect();
            let got = evaluate::metrics(logits, &labels, counts.len(), Some(&counts));
            let close = |what: &str, got: &[f64]| {
                let got: Vec<f32> = got.iter().map(|&v| v as f32).collect();
                assert_close(
                    &format!("{path}: {case}.{what}"),
                    &got,
                    file.f32(&format!("{case}.{what}")).unwrap().1,
                    1e-6,
                );
            };
            close("top1_top5", &[got.top1, got.top5.unwrap()]);
            close("many_med_few", &[got.many, got.medium, got.few].map(Option::unwrap));
            cases += 1;
        }
        assert!(cases > 0, "{path} holds no case");
    }
}

/// Learning rates of all 800 and 1000 epochs.
#[test]
fn schedules_match_the_reference() {
    use records::train::schedule::Schedule;
    for (path, file) in golden("profiles_rng_schedules") {
        assert!(file.metadata.contains_key("lr.cosine"), "{path}");
        let cosine = Schedule::Cosine { epochs: 800, decay: 0.1 };
        let step = Schedule::Step { milestones: vec![700, 800, 900], decay: 0.1 };
        for (name, schedule, rate) in [("lr.cosine", cosine, 0.01), ("lr.step", step, 0.02)] {
            let want = file.f64(name).unwrap().1;
            for (epoch, want) in want.iter().enumerate() {
                let got = schedule.rate(rate, epoch);
                assert!((got / want - 1.0).abs() < 1e-12, "{path}: {name} epoch {epoch}: {got} {want}");
            }
        }
    }
}
