//! The loss of CORR.

use anyhow::Result;

use super::pair;
use crate::device::gpu::kernels::loss_by_kind::{self, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::device::gpu::lower::Lowering;
use crate::ops::loss::{Loss, LossRow, RowLoss, negative};
use crate::ops::rows::Softmax;

/// sum_{k: c_k=0} -ln(|1-p_k|+eps) + sum_k c_k (ln c_k - ln p_k), eps = 1e-9.
#[derive(Clone, Copy, Debug)]
pub struct Consistency;

impl RowLoss for Consistency {
    /// dz_k = p_k (g_k - sum_j p_j g_j) + p_k C - c_k with g_k = `[c_k=0]` sign(1-p_k) / (|1-p_k|+eps), C =
    /// sum c.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64 {
        let Softmax { log_p, p } = softmax.of(row.logits);
        let c = row.target;
        let mut loss = 0.0;
        let (mut weighted, mut total) = (0.0f32, 0.0f32);
        for (((&c, &log_p), &p), g) in c.iter().zip(log_p).zip(p).zip(d_logits.iter_mut()) {
            *g = 0.0;
            if c == 0.0 {
                let (negative, slope) = negative(p);
                loss += negative;
                *g = slope;
                // 0 ln 0 = 0, but 0 times a NaN log-probability must stay visible.
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

    fn kernel(&self) -> KernelOf<LossRows> {
        loss_by_kind::LOSS_CONSISTENCY
    }

    fn lower(&self, of: &Loss, gpu: &mut Lowering<'_>) -> Result<()> {
        if !pair::lower_loss(of, gpu) {
            of.lower_rows(gpu);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Consistency;
    use crate::ops::loss::check;

    #[test]
    fn the_gradient_is_the_derivative() {
        check::assert_gradient(&Consistency);
    }

    #[test]
    fn a_saturated_wrong_class_gets_no_gradient_from_the_negative_term() {
        // p = (1, 0) exactly in f32; class 0 is wrong, class 1 the candidate.
        let (loss, d) = check::of(&Consistency, &[200.0, 0.0], &[0.0, 1.0], &[]);
        assert_eq!(d, [1.0, -1.0]);
        assert!((loss - (200.0 + 20.723_266)).abs() < 1e-3, "{loss}");
    }
}
