//! The label refinery of SoLar against the reference: pseudo-labels, rounds made, the relaxed attempt; and
//! its queue.

mod support;

use records::device::cpu::CpuDevice;
use records::device::{Device, Element, Tensor};
use records::pll::solar::operations::{Sinkhorn, SinkhornSettings, outcome};
use support::{assert_close, golden, hash_unit};

/// f32 against PyTorch's f32 over fifty rounds: the error of a round does not grow, because each round starts
/// from A again.
const TOLERANCE: f64 = 1e-4;

/// Refines `predictions` `[n,K]`, behind `queue` if that is not empty; returns the pseudo-labels and the
/// outcome.
fn refine(queue: &[f32], predictions: &[f32], class_prior: &[f32], threads: usize) -> (Vec<f32>, Vec<f32>) {
    let mut device = CpuDevice::new(threads).unwrap();
    let classes = class_prior.len();
    let mut buffers: Vec<_> = [queue, predictions, class_prior]
        .iter()
        .map(|values| {
            let buffer = device.allocate(Element::F32, values.len(), "case").unwrap();
            device.write_f32(buffer, values).unwrap();
            buffer
        })
        .collect();
    buffers.push(device.allocate(Element::I32, 2, "barrier").unwrap());
    buffers.push(device.allocate(Element::F32, predictions.len(), "result").unwrap());
    buffers.push(device.allocate(Element::F32, outcome::LEN, "outcome").unwrap());
    let operation = Sinkhorn {
        batch: predictions.len() / classes,
        queue_rows: queue.len() / classes,
        classes,
        settings: SinkhornSettings::default(),
        queue: (!queue.is_empty()).then_some(Tensor(0)),
        predictions: Tensor(1),
        class_prior: Tensor(2),
        barrier: Tensor(3),
        pseudo_labels: Tensor(4),
        outcome: Tensor(5),
    };
    device.execute(&operation, &buffers).unwrap();
    (device.read_f32(buffers[4]).unwrap(), device.read_f32(buffers[5]).unwrap())
}

#[test]
fn pseudo_labels_match_the_reference() {
    for (path, file) in golden("sinkhorn_") {
        let cases: Vec<&str> = file.tensors.keys().filter_map(|name| name.strip_suffix(".pred")).collect();
        assert!(cases.contains(&"relaxed"), "{path}");
        for case in cases {
            let tensor = |name: &str| file.f32(&format!("{case}.{name}")).unwrap().1;
            let (pseudo_labels, outcome) = refine(&[], tensor("pred"), tensor("r"), 2);
            assert_close(&format!("{path}: {case}"), &pseudo_labels, tensor("out"), TOLERANCE);
            let zero = |values: &[f32]| values.iter().map(|&v| v == 0.0).collect::<Vec<_>>();
            assert_eq!(
                zero(&pseudo_labels),
                zero(tensor("out")),
                "{path}: {case}: which pseudo-labels are 0"
            );
            let rounds =
                ["rounds", "rounds_total"].iter().find_map(|key| file.metadata.get(&format!("{case}.{key}")));
            let relaxed = file.metadata[&format!("{case}.relaxed")] == "True";
            assert_eq!(
                outcome[outcome::ROUNDS],
                rounds.unwrap().parse::<f32>().unwrap(),
                "{path}: {case}: rounds"
            );
            assert_eq!(outcome[outcome::RELAXED] != 0.0, relaxed, "{path}: {case}: relaxed");
        }
    }
}

/// Rows p s of random probabilities and candidate sets that hold class `row % classes` and about half of the
/// others.
fn masked_rows(rows: usize, classes: usize, salt: u32) -> Vec<f32> {
    let unit = |row: usize, k: usize, salt: u32| hash_unit(row as u32, k as u32, salt) + 0.5;
    (0..rows)
        .flat_map(|row| {
            let weights: Vec<f64> = (0..classes).map(|k| (4.0 * unit(row, k, salt)).exp()).collect();
            let total: f64 = weights.iter().sum();
            let kept = |k: usize| k == row % classes || unit(row, k, salt + 1) < 0.5;
            (0..classes).map(|k| if kept(k) { (weights[k] / total) as f32 } else { 0.0 }).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn a_queue_takes_part_once_its_last_row_is_filled() {
    let classes = 7;
    let prior: Vec<f32> = (1..=classes).map(|k| 2.0 * k as f32 / (classes * (classes + 1)) as f32).collect();
    let (mut queue, batch) = (masked_rows(600, classes, 1), masked_rows(33, classes, 3));
    let (alone, _) = refine(&[], &batch, &prior, 1);
    let (together, _) = refine(&[], &[queue.clone(), batch.clone()].concat(), &prior, 1);
    let last = &together[600 * classes..];
    assert_ne!(alone, last, "the queue must matter for this test");
    for threads in [1, 3] {
        assert_eq!(refine(&queue, &batch, &prior, threads).0, last, "full queue, {threads} threads");
    }
    // Rows sum to 1, because a round ends with the scaling of the rows.
    for row in last.chunks_exact(classes) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    queue[599 * classes..].fill(0.0);
    assert_eq!(refine(&queue, &batch, &prior, 1).0, alone, "a queue that is not full");
}

/// A class of positive prior without support triggers the reference's relaxed attempt. A NaN prediction stays
/// visible, after one relaxed attempt.
#[test]
fn infeasible_problems_are_relaxed_once() {
    let classes = 5;
    let prior = vec![0.2; classes];
    let mut batch = masked_rows(40, classes, 5);
    batch.iter_mut().skip(4).step_by(classes).for_each(|value| *value = 0.0);
    let (pseudo_labels, outcome) = refine(&[], &batch, &prior, 1);
    assert_eq!(outcome, [60.0, 1.0]);
    assert!(pseudo_labels.iter().zip(&batch).all(|(r, p)| r.is_finite() && (*p != 0.0 || *r == 0.0)));

    batch[7] = f32::NAN;
    let (pseudo_labels, outcome) = refine(&[], &batch, &prior, 1);
    assert_eq!(outcome, [20.0, 1.0]);
    assert!(pseudo_labels.iter().any(|value| value.is_nan()));
}
