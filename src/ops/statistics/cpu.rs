//! Counting on the CPU.

use super::counter;
use crate::ops::rows::argmax;

/// Adds a step to the counters; see [`counter`].
pub(super) fn count_step(
    [batch, classes]: [usize; 2],
    logits: &[f32],
    labels: &[i32],
    index: &[i32],
    loss_rows: &[f32],
    counters: &mut [f32],
) {
    let sum: f64 = loss_rows.iter().map(|&row| f64::from(row)).sum();
    let loss = (sum / batch as f64) as f32;
    let hit = |(logits, &sample): (&[f32], &i32)| argmax(logits) as i32 == labels[sample as usize];
    let correct = logits.chunks_exact(classes).zip(index).filter(|&row| hit(row)).count();
    counters[counter::LAST_LOSS] = loss;
    counters[counter::LOSS] += loss;
    counters[counter::CORRECT] += correct as f32;
}

/// Counts a step if its values are all finite, or marks the first that is not; see
/// [`super::CountFiniteSteps`].
pub(super) fn count_finite_step(finite: bool, steps: &mut f32) {
    if *steps >= 0.0 {
        *steps = if finite { *steps + 1.0 } else { -(*steps + 1.0) };
    }
}

/// `[mean of the rows' maxima; fraction of rows whose argmax is the true class]`, over `candidates` alone if
/// given.
pub(super) fn confidence(
    [rows, classes]: [usize; 2],
    confidence: &[f32],
    candidates: Option<&[u8]>,
    labels: &[i32],
) -> [f32; 2] {
    let (mut sum, mut correct) = (0.0f64, 0usize);
    for (n, (row, &label)) in confidence.chunks_exact(classes).zip(labels).enumerate() {
        let (value, best) =
            match candidates {
                None => {
                    let best = argmax(row);
                    (row[best], best)
                }
                Some(sets) => {
                    let inside =
                        row.iter().zip(&sets[n * classes..]).enumerate().filter(|(_, (_, s))| **s != 0);
                    inside.fold((f32::NEG_INFINITY, usize::MAX), |best, (k, (&value, _))| {
                        if value > best.0 { (value, k) } else { best }
                    })
                }
            };
        sum += f64::from(value);
        correct += usize::from(best as i32 == label && best < classes);
    }
    [(sum / rows as f64) as f32, (correct as f64 / rows as f64) as f32]
}
