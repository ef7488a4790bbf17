//! The class-prior estimate of RECORDS (ICLR 2023, section 4): softmax of the classifier applied to the moving mean feature.

use super::loss::EPSILON;
use crate::ops::linear::dot;

/// F <- m F + (1 - m) mean over the first `rows` rows of features `[rows, inputs]`.
pub(super) fn mean_feature([rows, inputs]: [usize; 2], momentum: f32, features: &[f32], mean: &mut [f32]) {
    let mut sums = vec![0.0f64; inputs];
    for row in features.chunks_exact(inputs).take(rows) {
        sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    for (mean, sum) in mean.iter_mut().zip(sums) {
        *mean = momentum * *mean + (1.0 - momentum) * (sum / rows as f64) as f32;
    }
}

/// log_prior `[K]` = ln(softmax(W F + b) + eps), parameters = `[W (K x D); b]`.
pub(super) fn log_class_prior(
    [inputs, classes]: [usize; 2],
    mean: &[f32],
    parameters: &[f32],
    log_prior: &mut [f32],
) {
    let (w, b) = parameters.split_at(inputs * classes);
    let logits: Vec<f32> = w.chunks_exact(inputs).zip(b).map(|(w, b)| dot(w, mean) + b).collect();
    let mut log_p = vec![0.0; classes];
    super::loss::log_softmax(&logits, None, &mut log_p, log_prior);
    log_prior.iter_mut().for_each(|p| *p = (*p + EPSILON).ln());
}
