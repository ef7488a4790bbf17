//! The losses of SPEC 6 with their gradients, and the counters of a training step.

use rayon::prelude::*;

use crate::device::primitive::LossKind;

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

/// What one view of one sample is compared with.
struct Target<'a> {
    /// Confidence row c; empty where the kind reads none.
    confidence: &'a [f32],
    /// Candidate row s; empty where the kind reads none.
    candidates: &'a [u8],
}

/// Room for a row's log-softmax and softmax.
struct Scratch<'a> {
    log_p: &'a mut [f32],
    p: &'a mut [f32],
}

/// The loss of one view; writes its gradient times `scale`.
fn view_loss(
    kind: LossKind,
    logits: &[f32],
    target: &Target<'_>,
    scale: f32,
    scratch: Scratch<'_>,
    d_logits: &mut [f32],
) -> f64 {
    let Scratch { log_p, p } = scratch;
    let Target { confidence, candidates } = *target;
    match kind {
        LossKind::LeveragedSigmoid { beta } => {
            return leveraged_sigmoid(logits, target, beta, scale, d_logits);
        }
        _ => log_softmax(logits, None, log_p, p),
    }
    match kind {
        LossKind::Consistency => consistency(confidence, log_p, p, scale, d_logits),
        LossKind::CrossEntropy => cross_entropy(confidence, log_p, p, scale, d_logits),
        LossKind::LeveragedSigmoid { .. } => unreachable!("it reads no softmax"),
        LossKind::LeveragedCrossEntropy { beta } => {
            leveraged_cross_entropy(target, beta, log_p, p, scale, d_logits)
        }
        LossKind::CandidateSum => candidate_sum(candidates, log_p, p, scale, d_logits),
    }
}

/// sum_{c=0} -ln(|1-p|+eps) + KL(c||p), and
/// dz_k = (p_k (g_k - sum_j p_j g_j) + p_k C - c_k) / B with g_k = `[c_k=0]` sign(1-p_k) / (|1-p_k|+eps), C = sum c.
fn consistency(c: &[f32], log_p: &[f32], p: &[f32], scale: f32, d_logits: &mut [f32]) -> f64 {
    let mut loss = 0.0;
    let (mut weighted, mut total) = (0.0f32, 0.0f32);
    for (((&c, &log_p), &p), g) in c.iter().zip(log_p).zip(p).zip(d_logits.iter_mut()) {
        *g = 0.0;
        if c == 0.0 {
            let (negative, slope) = negative(p);
            loss += negative;
            *g = slope;
            // 0 ln 0 = 0, but 0 times a NaN log-probability must show.
            loss += f64::from(c * log_p);
        } else {
            loss += f64::from(c * c.ln() - c * log_p);
        }
        weighted += p * *g;
        total += c;
    }
    for ((d, &p), &c) in d_logits.iter_mut().zip(p).zip(c) {
        *d = scale * (p * (*d - weighted) + p * total - c);
    }
    loss
}

/// -ln(|1-p|+eps) and its derivative by p. A wrong class at p = 1 exactly gets no gradient, as |x| has none at 0 in the
/// reference.
fn negative(p: f32) -> (f64, f32) {
    let rest = 1.0 - p;
    let distance = rest.abs() + EPSILON;
    (-f64::from(distance.ln()), if rest == 0.0 { 0.0 } else { rest.signum() / distance })
}

/// -sum c ln p, and dz_k = (p_k C - c_k) / B.
pub(super) fn cross_entropy(c: &[f32], log_p: &[f32], p: &[f32], scale: f32, d_logits: &mut [f32]) -> f64 {
    let total: f32 = c.iter().sum();
    for ((d, &p), &c) in d_logits.iter_mut().zip(p).zip(c) {
        *d = scale * (p * total - c);
    }
    c.iter().zip(log_p).map(|(c, log_p)| -f64::from(c * log_p)).sum()
}

/// sum_{k in s} c_k psi(z_k) + beta sum_{k not in s} c_k psi(-z_k), psi(z) = 1 / (1 + e^z), psi' = -psi(z) psi(-z).
fn leveraged_sigmoid(
    logits: &[f32],
    target: &Target<'_>,
    beta: f32,
    scale: f32,
    d_logits: &mut [f32],
) -> f64 {
    let mut loss = 0.0;
    let rows = target.confidence.iter().zip(target.candidates);
    for ((&z, (&c, &s)), d) in logits.iter().zip(rows).zip(d_logits) {
        let sigmoid = 1.0 / (1.0 + (-z).exp());
        let other = 1.0 / (1.0 + z.exp());
        let (value, slope) = if s != 0 { (c * other, -c) } else { (beta * c * sigmoid, beta * c) };
        loss += f64::from(value);
        *d = scale * slope * sigmoid * other;
    }
    loss
}

/// sum_{k in s} -c_k ln p_k + beta sum_{k not in s} -c_k ln(|1-p_k|+eps), and dz_k = (p_k (g_k - sum_j p_j g_j) + p_k C - `[k in s]`
/// c_k) / B with g_k = `[k not in s]` beta c_k sign(1-p_k) / (|1-p_k|+eps), C = sum of c over s.
fn leveraged_cross_entropy(
    target: &Target<'_>,
    beta: f32,
    log_p: &[f32],
    p: &[f32],
    scale: f32,
    d_logits: &mut [f32],
) -> f64 {
    let mut loss = 0.0;
    let (mut weighted, mut total) = (0.0f32, 0.0f32);
    let rows = target.confidence.iter().zip(target.candidates);
    for (((&log_p, &p), (&c, &s)), g) in log_p.iter().zip(p).zip(rows.clone()).zip(d_logits.iter_mut()) {
        if s != 0 {
            loss -= f64::from(c * log_p);
            total += c;
            *g = 0.0;
        } else {
            let (negative, slope) = negative(p);
            loss += f64::from(beta * c) * negative;
            *g = beta * c * slope;
        }
        weighted += p * *g;
    }
    for ((d, &p), (&c, &s)) in d_logits.iter_mut().zip(p).zip(rows) {
        *d = scale * (p * (*d - weighted) + p * total - if s != 0 { c } else { 0.0 });
    }
    loss
}

/// -ln sum_{k in s} p_k, and dz_k = (p_k - `[k in s]` p_k / sum_s p) / B.
fn candidate_sum(candidates: &[u8], log_p: &[f32], p: &[f32], scale: f32, d_logits: &mut [f32]) -> f64 {
    let inside = || log_p.iter().zip(candidates).filter(|&(_, &s)| s != 0).map(|(&log_p, _)| log_p);
    let most = inside().fold(f32::NEG_INFINITY, f32::max);
    let log_sum = most + inside().map(|log_p| (log_p - most).exp()).sum::<f32>().ln();
    for (((d, &log_p), &p), &s) in d_logits.iter_mut().zip(log_p).zip(p).zip(candidates) {
        *d = scale * (p - if s != 0 { (log_p - log_sum).exp() } else { 0.0 });
    }
    -f64::from(log_sum)
}

/// Shapes and constants of [`run`].
pub(super) struct Shape {
    pub kind: LossKind,
    pub batch: usize,
    pub classes: usize,
    pub views: usize,
    pub first: usize,
    /// What loss and gradient are multiplied by; with one, the loss is added.
    pub weight: Option<f32>,
}

/// The rows of [`run`].
pub(super) struct Rows<'a> {
    pub logits: &'a [f32],
    pub target: &'a [f32],
    pub candidates: Option<&'a [u8]>,
    pub index: Option<&'a [i32]>,
}

/// The loss and gradient of a batch; see [`crate::device::Primitive::Loss`].
pub(super) fn run(shape: &Shape, rows: &Rows<'_>, d_logits: &mut [f32], loss_rows: &mut [f32]) {
    let Shape { kind, batch, classes, views, first, weight } = *shape;
    let here = first * classes..(first + views * batch) * classes;
    let (logits, d_logits) = (&rows.logits[here.clone()], &mut d_logits[here]);
    let factor = weight.unwrap_or(1.0);
    if factor == 0.0 {
        d_logits.fill(0.0);
        return;
    }
    let scale = factor / batch as f32;
    let mut losses = vec![0.0; views * batch];
    logits
        .par_chunks_exact(classes)
        .zip(d_logits.par_chunks_exact_mut(classes))
        .zip(&mut losses)
        .enumerate()
        .with_min_len(64)
        .for_each_init(
            || vec![0.0; 2 * classes],
            |scratch, (row, ((logits, d_logits), loss))| {
                let sample = rows.index.map_or(row % batch, |index| index[row % batch] as usize);
                let at = sample * classes..(sample + 1) * classes;
                let target = Target {
                    confidence: rows.target.get(at.clone()).unwrap_or(&[]),
                    candidates: rows.candidates.map_or(&[], |candidates| &candidates[at]),
                };
                let (log_p, p) = scratch.split_at_mut(classes);
                *loss = view_loss(kind, logits, &target, scale, Scratch { log_p, p }, d_logits);
            },
        );
    for (b, loss) in loss_rows.iter_mut().enumerate() {
        let sum = (0..views).map(|view| losses[view * batch + b]).sum::<f64>() as f32;
        *loss = if weight.is_some() { *loss + factor * sum } else { sum };
    }
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

/// Counts a step whose values are all finite, or marks the first that is not; see
/// [`crate::device::Primitive::CountFiniteSteps`].
pub(super) fn count_finite_step(finite: bool, steps: &mut f32) {
    if *steps >= 0.0 {
        *steps = if finite { *steps + 1.0 } else { -(*steps + 1.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loss and gradient of one view.
    fn of(kind: LossKind, logits: &[f32], confidence: &[f32], candidates: &[u8]) -> (f64, Vec<f32>) {
        let mut rows = vec![0.0; 3 * logits.len()];
        let (log_p, rest) = rows.split_at_mut(logits.len());
        let (p, d) = rest.split_at_mut(logits.len());
        let target = Target { confidence, candidates };
        let loss = view_loss(kind, logits, &target, 1.0, Scratch { log_p, p }, d);
        (loss, d.to_vec())
    }

    #[test]
    fn a_saturated_wrong_class_gets_no_gradient_from_the_negative_term() {
        // p = (1, 0) exactly in f32; class 0 is wrong, class 1 the candidate.
        let (loss, d) = of(LossKind::Consistency, &[200.0, 0.0], &[0.0, 1.0], &[]);
        assert_eq!(d, [1.0, -1.0]);
        assert!((loss - (200.0 + 20.723_266)).abs() < 1e-3, "{loss}");
    }

    /// By the formulas of SPEC 6 at z = (ln 1, ln 2, ln 5), so p = (1, 2, 5) / 8 and sigmoid(z) = (1/2, 2/3, 5/6).
    #[test]
    fn losses_by_hand() {
        let z = [1.0f32, 2.0, 5.0].map(f32::ln);
        let (c, s) = ([0.25, 0.75, 1.0], [1, 1, 0]);
        let [p0, p1, p2] = [0.125f64, 0.25, 0.625];
        let expected = [
            (LossKind::CrossEntropy, -0.25 * p0.ln() - 0.75 * p1.ln() - p2.ln()),
            (LossKind::LeveragedSigmoid { beta: 2.0 }, 0.25 / 2.0 + 0.75 / 3.0 + 2.0 * 5.0 / 6.0),
            (
                LossKind::LeveragedCrossEntropy { beta: 2.0 },
                -0.25 * p0.ln() - 0.75 * p1.ln() - 2.0 * (1.0 - p2).ln(),
            ),
            (LossKind::CandidateSum, -(p0 + p1).ln()),
        ];
        for (kind, expected) in expected {
            let (loss, _) = of(kind, &z, &c, &s);
            assert!((loss - expected).abs() < 1e-6, "{kind:?}: {loss}, by hand {expected}");
        }
    }

    /// Central differences over 2h: their own error is h^2/6 of the third derivative and 2^-24 / h of rounding, both below
    /// 1e-4 at h = 1e-2 for losses of a few units.
    #[test]
    fn gradients_are_the_derivatives_of_the_losses() {
        let z = [0.3f32, -1.2, 0.9, 1.7, -0.4];
        let (c, s) = ([0.5f32, 0.3, 0.2, 0.0, 0.4], [1, 1, 1, 0, 0]);
        for kind in [
            LossKind::Consistency,
            LossKind::CrossEntropy,
            LossKind::LeveragedSigmoid { beta: 2.0 },
            LossKind::LeveragedCrossEntropy { beta: 2.0 },
            LossKind::CandidateSum,
        ] {
            let (_, d) = of(kind, &z, &c, &s);
            for k in 0..z.len() {
                let h = 1e-2f32;
                let at = |step: f32| {
                    let mut z = z;
                    z[k] += step;
                    of(kind, &z, &c, &s).0
                };
                let slope = (at(h) - at(-h)) / f64::from(2.0 * h);
                assert!((slope - f64::from(d[k])).abs() < 2e-4, "{kind:?} class {k}: {slope} and {}", d[k]);
            }
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 0);
    }
}
