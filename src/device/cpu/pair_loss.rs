//! The pair loss of CORR and its gradient (SPEC 6), and the counters of a training step.

use rayon::prelude::*;

/// Guards the logarithm and the divisions, as in the reference.
pub(super) const EPSILON: f32 = 1e-9;

/// `log_p` = log-softmax of z - shift (shift optional), `p` = its exponential.
pub(super) fn log_softmax(logits: &[f32], shift: Option<&[f32]>, log_p: &mut [f32], p: &mut [f32]) {
    log_p.copy_from_slice(logits);
    if let Some(shift) = shift {
        log_p.iter_mut().zip(shift).for_each(|(z, shift)| *z -= shift);
    }
    let max = log_p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for (z, p) in log_p.iter_mut().zip(p.iter_mut()) {
        *z -= max;
        *p = z.exp();
        sum += *p;
    }
    let log_sum = sum.ln();
    log_p.iter_mut().for_each(|z| *z -= log_sum);
    p.iter_mut().for_each(|p| *p /= sum);
}

/// One view of one sample against its confidence row c: returns sum_{c=0} -ln(|1-p|+eps) + KL(c||p), and writes
/// dz_k = (p_k (g_k - sum_j p_j g_j) + p_k C - c_k) / B with g_k = `[c_k=0]` sign(1-p_k) / (|1-p_k|+eps), C = sum c.
fn view_loss(
    logits: &[f32],
    c: &[f32],
    scale: f32,
    log_p: &mut [f32],
    p: &mut [f32],
    d_logits: &mut [f32],
) -> f64 {
    log_softmax(logits, None, log_p, p);
    let mut loss = 0.0;
    let (mut weighted, mut total) = (0.0f32, 0.0f32);
    for (((&c, &log_p), &p), g) in c.iter().zip(&*log_p).zip(&*p).zip(d_logits.iter_mut()) {
        *g = 0.0;
        if c == 0.0 {
            let rest = 1.0 - p;
            loss -= f64::from((rest.abs() + EPSILON).ln());
            // A wrong class at p = 1 exactly gets no gradient, as |x| has none at 0 in the reference.
            if rest != 0.0 {
                *g = rest.signum() / (rest.abs() + EPSILON);
            }
            // 0 ln 0 = 0, but 0 times a NaN log-probability must show.
            loss += f64::from(c * log_p);
        } else {
            loss += f64::from(c * c.ln() - c * log_p);
        }
        weighted += p * *g;
        total += c;
    }
    for ((d, &p), &c) in d_logits.iter_mut().zip(&*p).zip(c) {
        *d = scale * (p * (*d - weighted) + p * total - c);
    }
    loss
}

/// The loss and gradient of a batch; see [`crate::device::Primitive::PairLoss`].
pub(super) fn run(
    [batch, classes]: [usize; 2],
    logits: &[f32],
    confidence: &[f32],
    index: &[i32],
    d_logits: &mut [f32],
    loss_rows: &mut [f32],
) {
    let scale = 1.0 / batch as f32;
    let (weak, strong) = logits.split_at(batch * classes);
    let (d_weak, d_strong) = d_logits.split_at_mut(batch * classes);
    let views = weak.par_chunks_exact(classes).zip(strong.par_chunks_exact(classes));
    let gradients = d_weak.par_chunks_exact_mut(classes).zip(d_strong.par_chunks_exact_mut(classes));
    views.zip(gradients).zip(index.par_iter()).zip(loss_rows).with_min_len(64).for_each_init(
        || vec![0.0; 2 * classes],
        |scratch, ((((weak, strong), (d_weak, d_strong)), &sample), loss)| {
            let (log_p, p) = scratch.split_at_mut(classes);
            let row = &confidence[sample as usize * classes..][..classes];
            *loss = (view_loss(weak, row, scale, log_p, p, d_weak)
                + view_loss(strong, row, scale, log_p, p, d_strong)) as f32;
        },
    );
}

/// The first position of the largest value.
pub(super) fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, &value)| if value > values[best] { i } else { best })
}

/// Adds a step to the counters; see [`crate::device::primitive::counter`].
pub(super) fn statistics(
    [batch, classes]: [usize; 2],
    logits: &[f32],
    labels: &[i32],
    index: &[i32],
    loss_rows: &[f32],
    counters: &mut [f32],
) {
    use crate::device::primitive::counter;
    let sum: f64 = loss_rows.iter().map(|&row| f64::from(row)).sum();
    let loss = (sum / batch as f64) as f32;
    let hit = |(logits, &sample): (&[f32], &i32)| argmax(logits) as i32 == labels[sample as usize];
    let correct = logits.chunks_exact(classes).zip(index).filter(|&row| hit(row)).count();
    counters[counter::LAST_LOSS] = loss;
    counters[counter::LOSS] += loss;
    counters[counter::CORRECT] += correct as f32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saturated_wrong_class_gets_no_gradient_from_the_negative_term() {
        // p = (1, 0) exactly in f32; class 0 is wrong, class 1 the candidate.
        let (mut log_p, mut p, mut d) = ([0.0; 2], [0.0; 2], [0.0; 2]);
        let loss = view_loss(&[200.0, 0.0], &[0.0, 1.0], 1.0, &mut log_p, &mut p, &mut d);
        assert_eq!(d, [1.0, -1.0]);
        assert!((loss - (200.0 + 20.723_266)).abs() < 1e-3, "{loss}");
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 0);
    }
}
