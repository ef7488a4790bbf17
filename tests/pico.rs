//! PiCO's projection and a whole step of it against their definitions in f64, on the CPU.

use std::collections::BTreeMap;

use records::autograd::Tape;
use records::device::cpu::CpuDevice;
use records::device::{Device, Element, Tensor};
use records::nn::layers::Layers;
use records::nn::{Mode, Network, NetworkLayout, Outputs, Parameters, Pass, StateDict};
use records::pll::method::StageEpoch;
use records::pll::pico::phi;
use records::pll::pico::projection::Projected;
use records::pll::pico::settings::PicoSettings;
use records::random::philox::{Purpose, Stream};
use records::train::replay::replay;
use records::train::tensor_file::{TensorFile, Values};

const BATCH: usize = 5;
const CLASSES: usize = 4;
const SAMPLES: usize = 9;
const COLUMNS: usize = 12;
const TEMPERATURE: f64 = 0.1;
const WEIGHT: f64 = 0.7;

/// Its features are its input.
#[derive(Debug)]
struct Flat;

const FEATURES: usize = 6;

impl Network for Flat {
    fn name(&self) -> &str {
        "flat"
    }

    fn layout(&self) -> NetworkLayout {
        let mut layout = NetworkLayout::default();
        layout.linear("fc", [CLASSES, FEATURES]);
        layout
    }

    fn features(&self) -> usize {
        FEATURES
    }

    fn classes(&self) -> usize {
        CLASSES
    }

    fn channel_multiple(&self) -> usize {
        1
    }

    fn record(
        &self,
        tape: &mut Tape,
        parameters: &Parameters,
        mode: Mode,
        [batch, _]: [usize; 2],
        x: Tensor,
    ) -> Outputs {
        let mut layers = Layers { tape, parameters, mode, batch };
        let (logits, classifier) = layers.linear("fc", x, [CLASSES, FEATURES]);
        Outputs { features: x, logits, classifier, projection: None }
    }
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&v| f64::from(v)).collect()
}

fn product(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn direction(mut row: Vec<f64>) -> Vec<f64> {
    let norm = product(&row, &row).sqrt().max(1e-12);
    row.iter_mut().for_each(|v| *v /= norm);
    row
}

/// W x + b.
fn affine(x: &[f64], w: &[f32], b: &[f32]) -> Vec<f64> {
    w.chunks(x.len()).zip(b).map(|(w, &b)| product(&wide(w), x) + f64::from(b)).collect()
}

fn assert_near(what: &str, values: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(values.len(), expected.len(), "{what}");
    for (i, (&value, &expected)) in values.iter().zip(expected).enumerate() {
        let off = (f64::from(value) - expected).abs();
        assert!(off <= tolerance, "{what}: element {i} is {value}, not {expected}");
    }
}

/// Linear, ReLU, Linear, normalisation; nothing in evaluation.
#[test]
fn a_network_s_features_are_projected_in_training() {
    let mut device = CpuDevice::new(1).unwrap();
    let network = Projected { network: Box::new(Flat), columns: COLUMNS };
    let parameters = Parameters::new(&network, 3, &mut device).unwrap();
    let mut stream = Stream::new(1, Purpose::Initialisation, 0, 0, 0);
    let features: Vec<f32> = (0..BATCH * FEATURES).map(|_| 3.0 * stream.normal() as f32).collect();
    let input = device.allocate(Element::F32, features.len(), "a test").unwrap();
    device.write_f32(input, &features).unwrap();
    let mut tape = Tape::new(Element::F32);
    let x = tape.persistent(input);
    let mode = Mode::Training(Pass::default());
    let projection = network.record(&mut tape, &parameters, mode, [BATCH, 1], x).projection.unwrap();
    assert!(network.record(&mut tape, &parameters, Mode::Evaluation, [BATCH, 1], x).projection.is_none());
    tape.keep(projection);
    let plan = tape.finish(&mut device).unwrap();
    device.replay(&plan).unwrap();
    let found = device.read_f32(plan.buffer(projection)).unwrap();

    let named = parameters.export(parameters.values, &mut device).unwrap();
    let layer = |x: &[f64], name: &str| {
        affine(x, &named[&format!("{name}.weight")].1, &named[&format!("{name}.bias")].1)
    };
    let project = |x: &[f32]| {
        let hidden: Vec<f64> = layer(&wide(x), "projection.0").into_iter().map(|v| v.max(0.0)).collect();
        direction(layer(&hidden, "projection.2"))
    };
    let expected: Vec<f64> = features.chunks(FEATURES).flat_map(project).collect();
    assert_near("projection", &found, &expected, 1e-6);
}

/// 0.95 in the first two epochs, then a straight line that would reach 0.8 one epoch after the last.
#[test]
fn the_confidence_s_momentum_falls() {
    let settings = PicoSettings::default();
    let at = |epoch| phi(&settings, StageEpoch { stage: 0, epoch, epochs: 10 });
    for (epoch, expected) in [(0, 0.95), (1, 0.95), (2, 0.935), (9, 0.83)] {
        assert!((at(epoch) - expected).abs() < 1e-12, "{epoch}: {}", at(epoch));
    }
}

/// A step of ResNet-18 of width 4, with three batches in the queue.
fn case(update: bool, debias: &str) -> TensorFile {
    let mut stream = Stream::new(7, Purpose::Initialisation, 0, 0, 0);
    let mut case = TensorFile::default();
    for name in ["batch.weak", "batch.strong"] {
        let values = (0..BATCH * 3 * 64).map(|_| stream.normal() as f32).collect();
        case.tensors.insert(name.into(), (vec![1, BATCH, 3, 8, 8], Values::F32(values)));
    }
    let index = [4, 0, 8, 3, 6];
    case.tensors.insert("batch.index".into(), (vec![1, BATCH], Values::I64(index.to_vec())));
    let candidates = (0..SAMPLES * CLASSES).map(|i| u8::from(i % 3 == 0 || i % 4 == 1)).collect();
    case.tensors.insert("candidates".into(), (vec![SAMPLES, CLASSES], Values::U8(candidates)));
    for (key, value) in [
        ("method", "pico".into()),
        ("debias", debias.to_string()),
        ("width", "4".into()),
        ("lr", "0.05".into()),
        ("moco_queue", (3 * BATCH).to_string()),
        ("low_dim", COLUMNS.to_string()),
        ("temperature", TEMPERATURE.to_string()),
        ("loss_weight", WEIGHT.to_string()),
        ("moco_m", "0.9".into()),
        ("proto_m", "0.8".into()),
        ("phi", "0.85".into()),
        ("update", update.to_string()),
    ] {
        case.metadata.insert(key.into(), value);
    }
    case
}

fn run(case: &TensorFile) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    replay(case, &mut CpuDevice::new(1).unwrap()).unwrap_or_else(|error| panic!("{error:#}")).state_dict()
}

/// The state after two steps, as the case for a third.
fn continued(update: bool, debias: &str) -> TensorFile {
    let mut next = case(update, debias);
    for _ in 0..2 {
        let state = run(&next);
        next.extend(state);
    }
    next
}

/// The loss of anchors `q` over q, `keys` and the queue.
fn contrast(q: &[f64], keys: &[f64], queue: &[f64], [own, queued]: [&[f32]; 2], update: bool) -> f64 {
    let all = [q, keys, queue].concat();
    let labels = [own, own, queued].concat();
    let of_anchor = |i: usize| {
        let s =
            |j: usize| product(&all[i * COLUMNS..][..COLUMNS], &all[j * COLUMNS..][..COLUMNS]) / TEMPERATURE;
        let held: Vec<usize> = match update {
            true => (0..labels.len()).filter(|&j| j != i).collect(),
            false => (0..labels.len()).filter(|&j| j == i + BATCH || j >= 2 * BATCH).collect(),
        };
        let positive = |j: &usize| if update { labels[*j] == labels[i] } else { *j == i + BATCH };
        let log_sum = held.iter().map(|&j| s(j).exp()).sum::<f64>().ln();
        let positives: Vec<f64> = held.iter().copied().filter(positive).map(s).collect();
        log_sum - positives.iter().sum::<f64>() / positives.len() as f64
    };
    (0..BATCH).map(of_anchor).sum::<f64>() / BATCH as f64
}

/// RECORDS' log-prior ln(softmax(W F + b) + eps) of a mean feature F.
fn log_prior(mean_feature: &[f64], state: &StateDict) -> Vec<f64> {
    let z = affine(mean_feature, &state["fc.weight"].1, &state["fc.bias"].1);
    let sum: f64 = z.iter().map(|z| z.exp()).sum();
    z.iter().map(|z| (z.exp() / sum + 1e-9).ln()).collect()
}

/// The results of a third step for its logits, embeddings and keys, with and without RECORDS, and before
/// disambiguation starts.
#[test]
fn a_step_is_what_the_definition_says() {
    for (update, debias) in [(true, "none"), (true, "records"), (false, "none")] {
        let case = continued(update, debias);
        let (before, after) = (case.state_dict(), run(&case));
        let (old, new) = (|name: &str| wide(&before[name].1), |name: &str| wide(&after[name].1));
        let Values::U8(candidates) = &case.tensors["candidates"].1 else { panic!() };
        let (logits, q, keys) = (new("logits.weak"), new("embeddings"), new("keys"));

        let prior = match debias {
            "none" => vec![0.0; CLASSES],
            _ => log_prior(&new("feat_mean"), &before),
        };
        let (mut confidence, mut prototypes) = (old("confidence"), old("prototypes"));
        let (mut labels, mut cross_entropy) = (Vec::new(), 0.0);
        for (b, sample) in [4, 0, 8, 3, 6].into_iter().enumerate() {
            let z = &logits[b * CLASSES..][..CLASSES];
            let row = sample * CLASSES..(sample + 1) * CLASSES;
            let largest = |value: &dyn Fn(usize) -> f64| {
                let inside = (0..CLASSES).filter(|k| candidates[row.start + k] != 0);
                inside.max_by(|&i, &j| value(i).total_cmp(&value(j))).unwrap()
            };
            labels.push(largest(&|k| z[k] - prior[k]) as f32);
            let of_batch = &q[b * COLUMNS..][..COLUMNS];
            let nearest = largest(&|k| product(of_batch, &prototypes[k * COLUMNS..][..COLUMNS]));
            let c = &mut confidence[row.clone()];
            if update {
                c.iter_mut().for_each(|c| *c *= 0.85);
                c[nearest] += 0.15;
            }
            let log_sum = z.iter().map(|z| z.exp()).sum::<f64>().ln();
            cross_entropy += c.iter().zip(z).map(|(c, z)| c * (log_sum - z)).sum::<f64>() / BATCH as f64;
        }
        assert_eq!(after["pseudo_labels"].1, labels, "{update} {debias}");
        assert_near("confidence", &after["confidence"].1, &confidence, 1e-6);
        let (queue, queued) = (old("key_queue"), &before["key_queue_labels"].1);
        let loss = cross_entropy + WEIGHT * contrast(&q, &keys, &queue, [&labels, queued], update);
        assert_near("loss", &after["loss"].1, &[loss], 1e-5 * loss);

        for (q, &label) in q.chunks(COLUMNS).zip(&labels) {
            let row = &mut prototypes[label as usize * COLUMNS..][..COLUMNS];
            row.iter_mut().zip(q).for_each(|(m, q)| *m = 0.8 * *m + 0.2 * q);
        }
        let prototypes: Vec<f64> =
            prototypes.chunks(COLUMNS).flat_map(|row| direction(row.to_vec())).collect();
        assert_near("prototypes", &after["prototypes"].1, &prototypes, 1e-6);

        check_queue_and_encoder(&before, &after, &labels);
    }
}

/// The queue and the momentum encoder after a third step with these pseudo-labels.
fn check_queue_and_encoder(before: &StateDict, after: &StateDict, labels: &[f32]) {
    let old = |name: &str| wide(&before[name].1);
    // Two blocks were written before; this is the third, after which the ring starts again.
    assert_eq!((old("key_queue_position"), wide(&after["key_queue_position"].1)), (vec![2.0], vec![0.0]));
    let cut = 2 * BATCH;
    assert_eq!(after["key_queue"].1, [&before["key_queue"].1[..cut * COLUMNS], &after["keys"].1].concat());
    assert_eq!(after["key_queue_labels"].1, [&before["key_queue_labels"].1[..cut], labels].concat());

    // The projection is at the end of the arena, in the order of its names.
    let names = ["projection.0.weight", "projection.0.bias", "projection.2.weight", "projection.2.bias"];
    let followed: Vec<f64> = names.iter().flat_map(|name| old(name)).collect();
    let encoder = old("key_encoder");
    let first = encoder.len() - followed.len();
    let moved: Vec<f64> = encoder[first..].iter().zip(&followed).map(|(k, v)| 0.9 * k + 0.1 * v).collect();
    assert!(encoder[first..] != followed, "the encoder lags behind");
    assert_near("key encoder", &after["key_encoder"].1[first..], &moved, 1e-6);
}

/// For all parameters together: along the gradient the loss rises with the slope of the gradient's length. A
/// momentum of 1 makes the keys constant. A network this small has ReLUs that change sides within a step of
/// 5e-5, so only one of the two sides must match; the rounding of a sum in f32 is 4e-4 of the rise.
#[test]
fn the_gradient_is_the_loss_s() {
    for update in [true, false] {
        let mut case = continued(update, "none");
        case.metadata.insert("moco_m".into(), "1".into());
        case.metadata.insert("phi".into(), "1".into());
        let start = case.state_dict();
        let after = run(&case);
        let gradients: Vec<(&str, Vec<f64>)> = after
            .iter()
            .filter_map(|(name, (_, values))| Some((name.strip_prefix("grad.")?, wide(values))))
            .collect();
        let length = gradients.iter().map(|(_, g)| product(g, g)).sum::<f64>().sqrt();
        let projected = gradients.iter().filter(|(name, _)| name.starts_with("projection"));
        assert!(projected.map(|(_, g)| product(g, g)).sum::<f64>().sqrt() > 0.1 * length);
        let mut loss_at = |by: f64| {
            for (name, gradient) in &gradients {
                let (shape, values) = &start[*name];
                let moved =
                    values.iter().zip(gradient).map(|(&v, g)| (f64::from(v) + by * g / length) as f32);
                case.tensors.insert((*name).into(), (shape.clone(), Values::F32(moved.collect())));
            }
            f64::from(run(&case)["loss"].1[0])
        };
        let h = 5e-5;
        let [below, here, above] = [-h, 0.0, h].map(&mut loss_at);
        let off = [above - here, here - below].map(|rise| (rise / (h * length) - 1.0).abs());
        assert!(off[0].min(off[1]) < 2e-3, "{update}: off by {off:?}");
    }
}
