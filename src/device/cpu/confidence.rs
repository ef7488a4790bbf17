//! Renewing confidence rows (disambiguation) and their statistics.

use super::pair_loss::{EPSILON, argmax, log_softmax};
use crate::device::primitive::ConfidenceRule;

/// Renews the rows `index` of `confidence` `[N,K]`; see [`crate::device::Primitive::UpdateConfidence`]. The indices of a batch
/// are distinct, so the rows are independent.
pub(super) fn update(
    rule: ConfidenceRule,
    [batch, classes]: [usize; 2],
    logits: &[f32],
    log_prior: Option<&[f32]>,
    candidates: &[u8],
    index: &[i32],
    confidence: &mut [f32],
) {
    let (weak, strong) = logits.split_at(batch * classes);
    let mut scratch = vec![0.0; 3 * classes];
    let (log_p, views) = scratch.split_at_mut(classes);
    let (p_weak, p_strong) = views.split_at_mut(classes);
    for ((weak, strong), &sample) in weak.chunks_exact(classes).zip(strong.chunks_exact(classes)).zip(index) {
        log_softmax(weak, log_prior, log_p, p_weak);
        log_softmax(strong, log_prior, log_p, p_strong);
        let at = sample as usize * classes..(sample as usize + 1) * classes;
        let row = &mut confidence[at.clone()];
        match rule {
            ConfidenceRule::Corr => corr(row, p_weak, p_strong),
            ConfidenceRule::CorrDebiased => corr_debiased(row, &candidates[at], p_weak, p_strong),
        }
    }
}

/// r = sqrt(`[c>0]` p^w p^s); c <- r / (sum r + eps). A product that underflows drops its class for good (SPEC-LONG Q9).
fn corr(row: &mut [f32], p_weak: &[f32], p_strong: &[f32]) {
    for ((c, w), s) in row.iter_mut().zip(p_weak).zip(p_strong) {
        *c = if *c > 0.0 { (w * s).sqrt() } else { 0.0 };
    }
    normalise(row);
}

/// r = s q^w q^s; r <- r / (sum r + eps); c <- sqrt(r) / (sum sqrt(r) + eps). Masked by the candidate set, so a dropped
/// class can come back. Both eps act when all products are tiny.
fn corr_debiased(row: &mut [f32], candidates: &[u8], p_weak: &[f32], p_strong: &[f32]) {
    for (((c, &s), w), p) in row.iter_mut().zip(candidates).zip(p_weak).zip(p_strong) {
        *c = if s != 0 { w * p } else { 0.0 };
    }
    normalise(row);
    row.iter_mut().for_each(|c| *c = c.sqrt());
    normalise(row);
}

fn normalise(row: &mut [f32]) {
    let total = row.iter().sum::<f32>() + EPSILON;
    row.iter_mut().for_each(|c| *c /= total);
}

/// `[mean of the rows' maxima; fraction of rows whose first maximum is the true class]`.
pub(super) fn statistics([rows, classes]: [usize; 2], confidence: &[f32], labels: &[i32]) -> [f32; 2] {
    let (mut sum, mut correct) = (0.0f64, 0usize);
    for (row, &label) in confidence.chunks_exact(classes).zip(labels) {
        let best = argmax(row);
        sum += f64::from(row[best]);
        correct += usize::from(best as i32 == label);
    }
    [(sum / rows as f64) as f32, (correct as f64 / rows as f64) as f32]
}
