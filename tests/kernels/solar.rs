//! SoLar's masked predictions, counts, choice of samples and loss; and steps of the whole method as one
//! recorded plan.

use records::device::cpu::CpuDevice;
use records::device::gpu::Precision;
use records::device::{Device, Tensor};
use records::ops::control;
use records::ops::statistics::counter;
use records::pll::Learner;
use records::pll::method::EpochControl;
use records::pll::solar::operations::{
    ChooseSamples, CountArgmax, ETA, MaskedSoftmax, MixedLoss, RHO, SolarLoss,
};
use records::pll::solar::settings::{PriorFrom, SolarSettings};
use records::settings::Settings;

use crate::pair::{PRECISIONS, Pair, Random, Value, rounded_as};
use crate::solar_steps::SolarSteps;

/// NaN, infinite and saturating logits and rows of zeros, in the first rows.
fn spoil(logits: &mut [f32], classes: usize) {
    let mut rows = logits.chunks_mut(classes);
    rows.next().unwrap()[classes - 1] = f32::NAN;
    rows.next().unwrap()[0] = f32::INFINITY;
    rows.next().unwrap()[1] = 90.0;
    rows.next().unwrap()[2] = f32::NEG_INFINITY;
    rows.next().unwrap().fill(f32::NEG_INFINITY);
}

/// Two roundings and the exponential of a rounded argument per class; the sum's order differs from the CPU's,
/// which adds K terms sequentially in f32: K/2 2^-24 relative at worst.
#[test]
fn masked_predictions() {
    let mut pair = Pair::new(Precision::F32);
    for [batch, classes] in [[5, 7], [33, 10], [17, 20], [9, 100], [6, 129], [7, 200], [5, 1025]] {
        let mut random = Random::new(&format!("masked softmax {batch} {classes}"));
        let samples = batch + 4;
        let logits = random.normal(batch * classes, 3.0);
        let mut spoiled = logits.clone();
        spoil(&mut spoiled, classes);
        let candidates: Vec<u8> = random.below(samples * classes, 2).iter().map(|&s| s as u8).collect();
        let index = random.distinct(batch, samples);
        for (what, logits) in [("ordinary", logits), ("spoiled", spoiled)] {
            let values = [
                Value::F32(logits),
                Value::U8(candidates.clone()),
                Value::I32(index.clone()),
                Value::Output(batch * classes),
            ];
            let [logits, candidates, index, out] = std::array::from_fn(Tensor);
            let outcome =
                pair.run(&[MaskedSoftmax { batch, classes, logits, candidates, index, out }], &values);
            let what = format!("{batch} x {classes}, {what}");
            outcome.assert_close(&what, out, 2e-6 + classes as f64 * 3e-9, 1e-12);
            let zeros = |values: &[f32]| values.iter().map(|v| *v == 0.0).collect::<Vec<_>>();
            assert_eq!(zeros(&outcome.cpu[out.0]), zeros(&outcome.kernels[out.0]), "{what}");
        }
    }
}

/// Whole numbers, so exact. Few values, so that most rows have ties; NaN where it matters and where it does
/// not.
#[test]
fn counts_by_largest_class() {
    let mut pair = Pair::new(Precision::F32);
    for [rows, classes] in [[1, 10], [31, 7], [33, 33], [257, 10], [100, 100], [70, 200], [20, 1000], [40, 1]]
    {
        let mut random = Random::new(&format!("count {rows} {classes}"));
        let mut x: Vec<f32> = random.below(rows * classes, 4).iter().map(|&v| v as f32).collect();
        for (row, x) in x.chunks_mut(classes).enumerate() {
            match row % 5 {
                1 => x[0] = f32::NAN,
                2 => x[classes - 1] = f32::NAN,
                3 => x.fill(f32::NEG_INFINITY),
                _ => {}
            }
        }
        let before: Vec<f32> = random.below(classes, 1000).iter().map(|&v| v as f32).collect();
        let count = CountArgmax { rows, classes, x: Tensor(0), counts: Tensor(1) };
        let values = [Value::F32(x), Value::F32(before.clone())];
        let outcome = pair.run(&[count.clone(), count], &values);
        outcome.assert_equal(&format!("{rows} x {classes}"), Tensor(1));
        let counted: f32 = outcome.kernels[1].iter().zip(&before).map(|(after, before)| after - before).sum();
        assert_eq!(counted, 2.0 * rows as f32);
    }
}

/// For a row of logits and pseudo-labels, in f64: class, loss, and agreement sum Q p.
fn judged(z: &[f32], q: &[f32]) -> (usize, f64, f64) {
    let most = z.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let lifted = || z.iter().map(|&z| f64::from(z) - f64::from(most));
    let log_sum = lifted().map(f64::exp).sum::<f64>().ln();
    let loss = lifted().zip(q).map(|(z, &q)| f64::from(q) * (log_sum - z)).sum();
    let agreement = lifted().zip(q).map(|(z, &q)| f64::from(q) * (z - log_sum).exp()).sum();
    let class = q.iter().enumerate().fold(0, |best, (k, &v)| if v > q[best] { k } else { best });
    (class, loss, agreement)
}

/// Logits and pseudo-labels whose order does not depend on a last bit: any two rows of a class either have
/// equal bits, or their losses differ by at least 1e-5. Every fifth row repeats the one three before it.
fn distinguishable(random: &mut Random, batch: usize, classes: usize) -> (Vec<f32>, Vec<f32>) {
    let (mut logits, mut pseudo_labels) = (Vec::<f32>::new(), Vec::<f32>::new());
    let mut kept: Vec<(usize, f64)> = Vec::new();
    while kept.len() < batch {
        let b = kept.len();
        if b % 5 == 4 {
            let from = (b - 3) * classes..(b - 2) * classes;
            logits.extend_from_within(from.clone());
            pseudo_labels.extend_from_within(from);
            kept.push(kept[b - 3]);
            continue;
        }
        let z = random.normal(classes, 1.5);
        let weights = random.uniform(classes, 0.0, 1.0);
        let total: f32 = weights.iter().map(|w| w.powi(3)).sum();
        let q: Vec<f32> = weights.iter().map(|w| w.powi(3) / total).collect();
        let (class, loss, _) = judged(&z, &q);
        if kept.iter().all(|&(of, other)| of != class || (other - loss).abs() > 1e-5 * loss) {
            logits.extend(z);
            pseudo_labels.extend(q);
            kept.push((class, loss));
        }
    }
    (logits, pseudo_labels)
}

/// A threshold in the middle of the widest gap among the upper half of the agreements.
fn threshold(logits: &[f32], pseudo_labels: &[f32], classes: usize) -> f32 {
    let rows = logits.chunks(classes).zip(pseudo_labels.chunks(classes));
    let mut agreements: Vec<f64> = rows.map(|(z, q)| judged(z, q).2).collect();
    agreements.sort_by(f64::total_cmp);
    let gaps = agreements[agreements.len() / 2..].windows(2).map(|pair| (pair[1] - pair[0], pair));
    let (gap, pair) = gaps.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap();
    assert!(gap > 1e-4, "agreements within {gap}");
    ((pair[0] + pair[1]) / 2.0) as f32
}

const CHOSEN: Tensor = Tensor(6);
const ROWS: Tensor = Tensor(7);
const PARTNERS: Tensor = Tensor(8);
const COUNT: Tensor = Tensor(9);
const TOTAL: Tensor = Tensor(10);

/// Runs the choice at step 1 of 2 and asserts that it equals the CPU's; returns the flags of the chosen rows.
fn choose(
    pair: &mut Pair,
    what: &str,
    threshold: f32,
    [logits, pseudo_labels]: [&[f32]; 2],
    class_prior: &[f32],
    [eta, rho]: [f32; 2],
) -> Vec<f32> {
    let (batch, classes) = (logits.len() / class_prior.len(), class_prior.len());
    let mut random = Random::new(&format!("permutations {what}"));
    let mut block = random.uniform(control::LEN, 3.0, 4.0);
    (block[ETA], block[RHO]) = (eta, rho);
    let permutations = [random.distinct(batch, batch), random.distinct(batch, batch)].concat();
    let values = [
        Value::F32(logits.to_vec()),
        Value::F32(pseudo_labels.to_vec()),
        Value::F32(class_prior.to_vec()),
        Value::F32(block),
        Value::I32(permutations),
        Value::I32(vec![1]),
        Value::IntegerOutput(batch),
        Value::IntegerOutput(batch),
        Value::IntegerOutput(batch),
        Value::IntegerOutput(1),
        Value::I32(vec![5]),
    ];
    let [logits, pseudo_labels, class_prior, control, permutations, step] = std::array::from_fn(Tensor);
    let (chosen, rows, partners, count) = (CHOSEN, ROWS, PARTNERS, COUNT);
    let choice = ChooseSamples {
        batch,
        classes,
        threshold,
        logits,
        pseudo_labels,
        class_prior,
        control,
        permutations,
        step,
        chosen,
        rows,
        partners,
        count,
        total: TOTAL,
    };
    let outcome = pair.run(&[choice], &values);
    let outputs =
        [("flags", CHOSEN), ("rows", ROWS), ("partners", PARTNERS), ("count", COUNT), ("total", TOTAL)];
    for (name, tensor) in outputs {
        outcome.assert_equal(&format!("{what}: {name}"), tensor);
    }
    assert_eq!(outcome.kernels[TOTAL.0][0], 5.0 + outcome.kernels[COUNT.0][0], "{what}");
    outcome.kernels[CHOSEN.0].clone()
}

/// Batches from one row to more rows than the block has threads.
#[test]
fn samples_are_chosen() {
    let mut pair = Pair::new(Precision::F32);
    // Shapes in which a share or the threshold chooses more than the best of each class.
    let mut more = [0; 2];
    for [batch, classes] in [[9, 3], [33, 7], [64, 10], [100, 20], [97, 100], [40, 200], [1100, 10]] {
        let mut random = Random::new(&format!("choice {batch} {classes}"));
        let (logits, pseudo_labels) = distinguishable(&mut random, batch, classes);
        let limit = threshold(&logits, &pseudo_labels, classes);
        let weights = random.uniform(classes, 0.1, 1.0);
        let total: f32 = weights.iter().sum();
        let mut class_prior: Vec<f32> = weights.iter().map(|w| w / total).collect();
        let rows = [&logits[..], &pseudo_labels];
        let mut seen = Vec::new();
        for (name, limit, scalars) in [
            ("nothing is chosen", limit, [0.0, 0.4]),
            ("share", 2.0, [0.9, 0.4]),
            ("share and threshold", limit, [0.9, 0.2]),
            ("one of each class", 2.0, [0.9, 0.0]),
            ("everything", 2.0, [0.9, 1e9]),
        ] {
            let what = format!("{batch} x {classes}, {name}");
            let chosen = choose(&mut pair, &what, limit, rows, &class_prior, scalars);
            seen.push(chosen.iter().sum::<f32>());
        }
        assert!(seen[0] == 0.0 && seen[3] <= classes as f32 && seen[4] == batch as f32, "{seen:?}");
        assert!(seen[1] >= seen[3] && seen[2] >= seen[3], "{seen:?}");
        more[0] += usize::from(seen[1] > seen[3]);
        more[1] += usize::from(seen[2] > seen[3]);
        // Numbers that select nothing, and one that selects everything.
        (class_prior[0], class_prior[1], class_prior[2]) = (f32::NAN, -1.0, f32::INFINITY);
        choose(&mut pair, &format!("{batch} x {classes}, odd prior"), 2.0, rows, &class_prior, [0.9, 0.4]);
    }
    assert!(more.iter().all(|&shapes| shapes >= 3), "{more:?}");
}

/// Losses that are NaN or infinite come last, in the order of their rows.
#[test]
fn rows_without_a_loss_come_last() {
    let mut pair = Pair::new(Precision::F32);
    let (batch, classes) = (60, 4);
    let mut random = Random::new("choice of NaN");
    let (mut logits, mut pseudo_labels) = distinguishable(&mut random, batch, classes);
    for (b, z) in logits.chunks_mut(classes).enumerate() {
        match b % 6 {
            1 => z[b % 4] = f32::NAN,
            3 => z[b % 4] = f32::NEG_INFINITY,
            5 => z[b % 4] = f32::INFINITY,
            _ => {}
        }
    }
    pseudo_labels[7 * classes] = f32::NAN;
    pseudo_labels[13 * classes + 2] = f32::NAN;
    let mut seen = Vec::new();
    for rho in [0.0, 0.3, 0.8, 1.2] {
        let what = format!("NaN, rho {rho}");
        let chosen = choose(&mut pair, &what, 2.0, [&logits, &pseudo_labels], &[0.25; 4], [0.5, rho]);
        let spoiled = chosen.iter().enumerate().filter(|(b, c)| b % 2 == 1 && **c != 0.0).count();
        seen.push((chosen.iter().sum::<f32>(), spoiled));
    }
    assert!(seen[0].1 == 0 && seen[3].1 > 10, "{seen:?}");
}

/// Rows of weights of which about a third are 0 and that sum to nearly 1.
fn weight_rows(random: &mut Random, count: usize, classes: usize) -> Vec<f32> {
    let weights = random.uniform(count * classes, -0.5, 1.0);
    let sum = |row: &[f32]| 1e-3 + row.iter().map(|w| w.max(0.0)).sum::<f32>();
    weights.chunks(classes).flat_map(|r| r.iter().map(|w| w.max(0.0) / sum(r)).collect::<Vec<_>>()).collect()
}

/// The loss over tensors 0 to 13.
fn solar_loss([batch, classes]: [usize; 2], mixes: bool) -> SolarLoss {
    let mixed = MixedLoss { logits: Tensor(3), target: Tensor(4), d_logits: Tensor(5) };
    SolarLoss {
        batch,
        classes,
        weak: Tensor(0),
        strong: Tensor(1),
        pseudo_labels: Tensor(2),
        mixed: mixes.then_some(mixed),
        confidence: Tensor(6),
        index: Tensor(7),
        chosen: Tensor(8),
        count: Tensor(9),
        control: Tensor(10),
        d_weak: Tensor(11),
        d_strong: Tensor(12),
        loss_rows: Tensor(13),
    }
}

/// A probability has the error of two roundings, an exponential and a sum in another order than the CPU's, as
/// elsewhere. Where p sum q and q cancel, that error remains in the gradient: relative to q, which is at most
/// about four times the root mean square of the gradients.
#[test]
fn the_loss_over_chosen_and_other_samples() {
    let mut pair = Pair::new(Precision::F32);
    for [batch, classes] in [[6, 7], [33, 10], [17, 20], [9, 100], [6, 129], [7, 200], [5, 1025]] {
        let mut random = Random::new(&format!("solar loss {batch} {classes}"));
        let samples = batch + 4;
        let len = batch * classes;
        let [pseudo_labels, target, confidence] =
            [batch, batch, samples].map(|count| weight_rows(&mut random, count, classes));
        let logits: [Vec<f32>; 3] = std::array::from_fn(|_| random.normal(len, 2.0));
        let half: Vec<i32> = (0..batch as i32).map(|b| i32::from(b % 2 == 0)).collect();
        let index = random.distinct(batch, samples);
        for chosen in [vec![0; batch], half, vec![1; batch]] {
            for eta in [0.9, 1.0, 0.25] {
                for (mixes, spoiled) in [(true, false), (false, false), (true, true)] {
                    let found: i32 = chosen.iter().sum();
                    let what = format!("{batch} x {classes}, {found} chosen, eta {eta}, {mixes}, {spoiled}");
                    let mut block = random.uniform(control::LEN, 3.0, 4.0);
                    block[ETA] = eta;
                    let [mut weak, strong, mut z] = logits.clone();
                    if spoiled {
                        spoil(&mut weak, classes);
                        // Rows behind the chosen ones are never read.
                        z[found as usize * classes..].fill(f32::NAN);
                    }
                    let values = [
                        Value::F32(weak),
                        Value::F32(strong),
                        Value::F32(pseudo_labels.clone()),
                        Value::F32(z),
                        Value::F32(target.clone()),
                        if mixes { Value::Output(len) } else { Value::F32(vec![0.0]) },
                        Value::F32(confidence.clone()),
                        Value::I32(index.clone()),
                        Value::I32(chosen.clone()),
                        Value::I32(vec![found]),
                        Value::F32(block),
                        Value::Output(len),
                        Value::Output(len),
                        Value::Output(batch),
                    ];
                    let outcome = pair.run(&[solar_loss([batch, classes], mixes)], &values);
                    let relative = 4e-6 + classes as f64 * 3e-9;
                    let mut names = vec![("weak", 11), ("strong", 12), ("losses", 13)];
                    if mixes {
                        names.push(("mixed", 5));
                    }
                    for (name, tensor) in names {
                        let absolute = 4.0 * relative;
                        outcome.assert_close(&format!("{what}: {name}"), Tensor(tensor), relative, absolute);
                        let written = &outcome.kernels[tensor];
                        assert!(spoiled || written.iter().all(|v| v.is_finite()), "{what}: {name}");
                    }
                    let nans = outcome.kernels[13].iter().filter(|v| v.is_nan()).count();
                    assert!(if spoiled { nans > 1 } else { nans == 0 }, "{what}: {nans}");
                }
            }
        }
    }
}

/// Mixed rows, and zeros behind them, in the CPU's bits; bf16 is rounded once.
#[test]
fn chosen_rows_are_mixed() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for (batch, len) in [(4, 3072), (5, 27), (3, 20), (1, 8), (2, 9000), (7, 100)] {
            for found in [0, batch / 2, batch] {
                let mut random = Random::new(&format!("mixup of chosen {batch} {len} {found}"));
                let behind = |mut list: Vec<i32>| {
                    list.truncate(found);
                    list.resize(batch, -1);
                    Value::I32(list)
                };
                let rows = behind(random.distinct(batch, batch));
                let partners = behind(random.distinct(batch, batch));
                let values = [
                    Value::F32(random.uniform(3, 0.5, 1.0)),
                    Value::I32(vec![1]),
                    rows,
                    partners,
                    Value::I32(vec![found as i32]),
                    Value::Activations(random.normal(batch * len, 1.0)),
                    Value::ActivationOutput(batch * len),
                ];
                let [weights, step, rows, partners, count, x, out] = std::array::from_fn(Tensor);
                let mixup = records::ops::mixup::MixupChosen {
                    batch,
                    len,
                    weights,
                    step,
                    rows,
                    partners,
                    count,
                    x,
                    out,
                };
                let mut outcome = pair.run(&[mixup], &values);
                let what = format!("{found} of {batch} rows of {len}, {precision:?}");
                outcome.cpu[out.0].iter_mut().for_each(|v| *v = rounded_as(precision, *v));
                outcome.assert_equal(&what, out);
                let zeros = outcome.kernels[out.0].iter().filter(|v| **v == 0.0).count();
                assert_eq!(zeros, (batch - found) * len, "{what}");
            }
        }
    }
}

const BATCH: usize = 24;
const CLASSES: usize = 10;
const SAMPLES: usize = 60;
const LEN: usize = 48;
const STEPS: usize = 9;

/// The results of a step.
#[derive(Debug)]
struct Step {
    chosen: Vec<i32>,
    loss: f32,
    weights: Vec<f32>,
    confidence: Vec<f32>,
    queue: Vec<f32>,
    counts: Vec<f32>,
    sinkhorn: Vec<f32>,
}

/// Steps of SoLar on a linear network, with a queue that fills on the way. The inputs are the same for every
/// device.
fn steps_of_solar(device: &mut dyn Device) -> Vec<Step> {
    let mut random = Random::new("steps of SoLar");
    let prior_from = PriorFrom::Steps;
    let settings = SolarSettings { queue_length: 3, tau: 0.7, prior_from, ..Settings::default().of_method() };
    let mut candidates: Vec<u8> =
        random.uniform(SAMPLES * CLASSES, 0.0, 1.0).iter().map(|u| u8::from(*u < 0.6)).collect();
    candidates.chunks_mut(CLASSES).enumerate().for_each(|(row, set)| set[row % CLASSES] = 1);
    let on = SolarSteps::new(&settings, [BATCH, LEN, CLASSES, STEPS], &candidates, [0.9, 1e-3], device);
    let mixup = on.solar.mixup().unwrap();
    device.write_f32(on.values, &random.normal(CLASSES * (LEN + 1), 0.3)).unwrap();
    device.write_f32(mixup.weights, &random.uniform(STEPS, 0.5, 1.0)).unwrap();
    let permutations: Vec<i32> = (0..STEPS).flat_map(|_| random.distinct(BATCH, BATCH)).collect();
    device.write_i32(mixup.permutations, &permutations).unwrap();

    (0..STEPS)
        .map(|n| {
            device.write_f32(on.views[0], &random.normal(BATCH * LEN, 1.0)).unwrap();
            device.write_f32(on.views[1], &random.normal(BATCH * LEN, 1.0)).unwrap();
            device.write_i32(on.index, &random.distinct(BATCH, SAMPLES)).unwrap();
            // Nothing is chosen in the first step, and more and more in the others.
            let own = [[0.0, 0.2], [0.3, 0.3], [0.9, 0.6]][n.min(2)];
            let epoch = EpochControl { learning_rate: 0.05, update: true, alpha: 0.0, own };
            on.state.set(device, epoch).unwrap();
            device.replay(&on.plan).unwrap_or_else(|error| panic!("{error:#}"));
            Step {
                chosen: device.read_i32(on.exposed("chosen")).unwrap(),
                loss: device.read_f32(on.state.counters).unwrap()[counter::LAST_LOSS],
                weights: device.read_f32(on.values).unwrap(),
                confidence: device.read_f32(on.store.confidence).unwrap(),
                queue: on.solar.refinery.export_queue(device).unwrap(),
                counts: device.read_f32(on.solar.counts.unwrap()).unwrap(),
                sinkhorn: device.read_f32(on.exposed("sinkhorn")).unwrap(),
            }
        })
        .collect()
}

/// |a - b| <= 1e-4 of |b| and of the root mean square: each step adds a few roundings of sums of 48 products
/// to weights that the next one starts from, and fifty rounds of Sinkhorn amplify a difference of its
/// predictions threefold.
fn assert_near(what: &str, kernels: &[f32], cpu: &[f32]) {
    let scale = (cpu.iter().map(|v| v * v).sum::<f32>() / cpu.len() as f32).sqrt();
    for (at, (a, b)) in kernels.iter().zip(cpu).enumerate() {
        assert!((a - b).abs() <= 1e-4 * (b.abs() + scale), "{what}, element {at}: kernels {a}, cpu {b}");
    }
}

/// Sinkhorn with a queue that fills, the choice, mixed images and pseudo-labels, the loss, the
/// disambiguation, the sum of three gradients, and SGD: one plan, replayed.
#[test]
fn steps_of_the_whole_method() {
    let cpu = steps_of_solar(&mut CpuDevice::new(1).unwrap());
    let mut pair = Pair::new(Precision::F32);
    let kernels = steps_of_solar(&mut *pair.kernels);
    for (n, (kernels, cpu)) in kernels.iter().zip(&cpu).enumerate() {
        let what = |name: &str| format!("step {n}: {name}");
        assert_eq!(kernels.chosen, cpu.chosen, "{}", what("chosen"));
        assert_eq!(kernels.counts, cpu.counts, "{}", what("counts"));
        assert_eq!(kernels.sinkhorn, cpu.sinkhorn, "{}", what("rounds"));
        assert_near(&what("loss"), &[kernels.loss], &[cpu.loss]);
        assert_near(&what("weights"), &kernels.weights, &cpu.weights);
        assert_near(&what("confidence"), &kernels.confidence, &cpu.confidence);
        assert_near(&what("queue"), &kernels.queue, &cpu.queue);
    }
    let chosen: Vec<i32> = cpu.iter().map(|step| step.chosen.iter().sum()).collect();
    assert!(chosen[0] == 0 && chosen[1] > 0 && chosen[1..].iter().any(|n| *n < BATCH as i32), "{chosen:?}");
    let full = |step: &Step| step.queue[2 * BATCH * CLASSES..].iter().any(|v| *v != 0.0);
    assert!(!full(&cpu[1]) && full(&cpu[2]));
}
