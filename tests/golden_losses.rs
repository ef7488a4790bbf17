//! Losses, gradients, confidence rows and the mean feature of one step against the reference; and its metrics.

mod support;

use records::autograd::Tape;
use records::device::cpu::CpuDevice;
use records::device::primitive::counter;
use records::device::{Device, Element, Primitive};
use records::nn::resnet::Outputs;
use records::pll::{ClassPrior, ConfidenceStore, corr};
use records::train::evaluate;
use records::train::step::StepState;
use records::train::tensor_file::{TensorFile, Values};
use support::{assert_close, golden};

/// f32 against PyTorch's f32: sums of up to 100 terms and the ln of values near 1.
const TOLERANCE: f64 = 1e-5;

/// One step of a golden case; `features` are the tensors to take the mean of, `mean` the mean feature before.
fn check_case(path: &str, file: &TensorFile, tag: &str, update: bool, debias: Option<(&str, Vec<f32>)>) {
    let mut device = CpuDevice::new(2).unwrap();
    let (shape, candidates) = file.u8("candidates").unwrap();
    let classes = shape[1];
    let index: Vec<i32> = file.i64("index").unwrap().1.iter().map(|&i| i as i32).collect();
    let batch = index.len();
    let store = ConfidenceStore::new(classes, candidates, &vec![0; shape[0]], &mut device).unwrap();
    device.write_f32(store.confidence, file.f32("confidence").unwrap().1).unwrap();
    let state = StepState::new(&mut device).unwrap();
    state.set(&mut device, 0.0, update).unwrap();

    let mut upload = |values: Vec<f32>| {
        let buffer = device.allocate(Element::F32, values.len(), "case").unwrap();
        device.write_f32(buffer, &values).unwrap();
        buffer
    };
    let two = |a: &str, b: &str| [file.f32(a).unwrap().1, file.f32(b).unwrap().1].concat();
    let logits = upload(two("logits.w", "logits.s"));
    let classifier = upload(two("fc.weight", "fc.bias"));
    let features = debias.as_ref().map(|(name, _)| upload(two(&format!("{name}.w"), &format!("{name}.s"))));
    let index_buffer = device.allocate(Element::I32, batch, "index").unwrap();
    device.write_i32(index_buffer, &index).unwrap();

    let mut tape = Tape::new(Element::F32);
    let [logits, classifier, index_tensor, confidence, candidates] =
        [logits, classifier, index_buffer, store.confidence, store.candidates].map(|b| tape.persistent(b));
    let rows = corr::Rows { confidence, candidates, index: index_tensor };
    let control = tape.persistent(state.control);
    let (d_logits, loss_rows) = corr::record_loss(&mut tape, &store, batch, logits, rows);
    let prior = debias.map(|(_, mean)| {
        let prior = ClassPrior::new(512, classes, file.metadata["m"].parse().unwrap(), &mut device).unwrap();
        device.write_f32(prior.mean_feature, &mean).unwrap();
        prior
    });
    let log_prior = prior.as_ref().map(|prior| {
        let outputs = Outputs { features: tape.persistent(features.unwrap()), logits, classifier };
        prior.record(&mut tape, 2 * batch, &outputs)
    });
    corr::record_update(&mut tape, &store, batch, logits, log_prior, rows, control);
    let (labels, counters) = (tape.persistent(store.labels), tape.persistent(state.counters));
    tape.push(Primitive::StepStatistics {
        batch,
        classes,
        logits,
        labels,
        index: index_tensor,
        loss_rows,
        counters,
    });
    tape.keep(d_logits);
    let plan = tape.finish(&mut device).unwrap();
    device.replay(&plan).unwrap();

    let tag = format!("{tag}.update{}", u8::from(update));
    let check = |what: &str, got: &[f32]| {
        let want = file.f32(&format!("{tag}.{what}")).unwrap().1;
        assert_close(&format!("{path}: {tag}.{what}"), got, want, TOLERANCE);
    };
    check("loss", &[device.read_f32(state.counters).unwrap()[counter::LAST_LOSS]]);
    let gradient = device.read_f32(plan.buffer(d_logits)).unwrap();
    check("grad.w", &gradient[..batch * classes]);
    check("grad.s", &gradient[batch * classes..]);
    let confidence = device.read_f32(store.confidence).unwrap();
    let rows: Vec<f32> =
        index.iter().flat_map(|&i| &confidence[i as usize * classes..][..classes]).copied().collect();
    check("confidence", &rows);
    let want = file.f32(&format!("{tag}.confidence")).unwrap().1;
    let zeros_agree = rows.iter().zip(want).all(|(got, want)| (*got == 0.0) == (*want == 0.0));
    assert!(zeros_agree, "{path}: {tag}: a zero confidence decides later losses and must be zero in both");
    if let Some(prior) = prior {
        check("feat_mean", &device.read_f32(prior.mean_feature).unwrap());
    }
    let untouched = (0..shape[0]).filter(|i| !index.contains(&(*i as i32)));
    let before = file.f32("confidence").unwrap().1;
    for row in untouched {
        assert_eq!(confidence[row * classes..][..classes], before[row * classes..][..classes], "row {row}");
    }
}

#[test]
fn corr_and_records_match_the_reference() {
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
        for update in [false, true] {
            check_case(&path, &file, "corr", update, None);
            check_case(&path, &file, "records.first", update, Some(("feat", vec![0.0; 512])));
            check_case(&path, &file, "records.second", update, Some(("feat2", mean.clone())));
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
            close("top1_top5", &[got.top1, got.top5]);
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
