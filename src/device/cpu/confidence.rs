//! Renewing confidence rows (disambiguation) and their statistics.

use super::loss::{EPSILON, argmax, log_softmax};
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
    let mut scratch = vec![0.0; 3 * classes];
    let (log_p, views) = scratch.split_at_mut(classes);
    let (p_weak, p_strong) = views.split_at_mut(classes);
    let view = |view: usize, b: usize| &logits[(view * batch + b) * classes..][..classes];
    for (b, &sample) in index.iter().enumerate() {
        let at = sample as usize * classes..(sample as usize + 1) * classes;
        let (row, candidates) = (&mut confidence[at.clone()], &candidates[at]);
        log_softmax(view(0, b), log_prior, log_p, p_weak);
        if rule.views() == 2 {
            log_softmax(view(1, b), log_prior, log_p, p_strong);
        }
        match rule {
            ConfidenceRule::Corr => corr(row, p_weak, p_strong),
            ConfidenceRule::CorrDebiased => corr_debiased(row, candidates, p_weak, p_strong),
            ConfidenceRule::Positive => {
                let positive: Vec<bool> = row.iter().map(|&c| c > 0.0).collect();
                partial_softmax(row, log_p, |k| positive[k]);
            }
            ConfidenceRule::Candidates => {
                row.fill(0.0);
                partial_softmax(row, log_p, |k| candidates[k] != 0);
            }
            ConfidenceRule::Leveraged => {
                partial_softmax(row, log_p, |k| candidates[k] != 0);
                partial_softmax(row, log_p, |k| candidates[k] == 0);
            }
            ConfidenceRule::ActivationValue => {
                let z = |k: usize| view(0, b)[k] - log_prior.map_or(0.0, |prior| prior[k]);
                let value = |k: usize| (z(k) - 1.0).abs() * z(k);
                let inside = (0..classes).filter(|&k| candidates[k] != 0);
                let best = inside.reduce(|best, k| if value(k) > value(best) { k } else { best });
                row.fill(0.0);
                best.into_iter().for_each(|k| row[k] = 1.0);
            }
        }
    }
}

/// c = the softmax over the classes that are `inside`, from log-probabilities over all: taking their own largest out first, no sum
/// underflows. Classes outside keep their c.
fn partial_softmax(row: &mut [f32], log_p: &[f32], inside: impl Fn(usize) -> bool) {
    let most = (0..row.len()).filter(|&k| inside(k)).map(|k| log_p[k]).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for k in (0..row.len()).filter(|&k| inside(k)) {
        row[k] = (log_p[k] - most).exp();
        sum += row[k];
    }
    (0..row.len()).filter(|&k| inside(k)).for_each(|k| row[k] /= sum);
}

/// r = sqrt(`[c>0]` p^w p^s); c <- r / (sum r + eps). A product that underflows drops its class for good (SPEC 6).
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

/// `[mean of the rows' maxima; fraction of rows whose first maximum is the true class]`, of `candidates` alone where given.
pub(super) fn statistics(
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
