//! Cross-entropy against a row of weights.

use super::{LossRow, RowLoss};
use crate::device::gpu::kernels::loss_by_kind::{self, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::ops::rows::Softmax;

/// -sum_k c_k ln p_k.
#[derive(Clone, Copy, Debug)]
pub struct CrossEntropy;

impl RowLoss for CrossEntropy {
    /// dz_k = p_k C - c_k, C = sum c.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64 {
        let Softmax { log_p, p } = softmax.of(row.logits);
        let total: f32 = row.target.iter().sum();
        for ((d, &p), &c) in d_logits.iter_mut().zip(p).zip(row.target) {
            *d = scale * (p * total - c);
        }
        row.target.iter().zip(log_p).map(|(c, log_p)| -f64::from(c * log_p)).sum()
    }

    fn kernel(&self) -> KernelOf<LossRows> {
        loss_by_kind::LOSS_CROSS_ENTROPY
    }
}

#[cfg(test)]
mod tests {
    use super::CrossEntropy;
    use crate::ops::loss::check;

    #[test]
    fn value_and_gradient() {
        check::assert_value(&CrossEntropy, -0.25 * 0.125f64.ln() - 0.75 * 0.25f64.ln() - 0.625f64.ln());
        check::assert_gradient(&CrossEntropy);
    }
}
