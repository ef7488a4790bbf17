//! The leveraged weighted loss with either of the two losses of a label.

use crate::device::gpu::kernels::loss_by_kind::{self, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::ops::loss::{LossRow, RowLoss, negative};
use crate::ops::rows::Softmax;

/// With the sigmoid loss psi(z) = 1 / (1 + e^z): sum_{k in s} c_k psi(z_k) + beta sum_{k not in s} c_k
/// psi(-z_k).
#[derive(Clone, Copy, Debug)]
pub struct LeveragedSigmoid {
    /// Weight of the non-candidates' losses.
    pub beta: f32,
}

/// With cross-entropy: sum_{k in s} -c_k ln p_k + beta sum_{k not in s} -c_k ln(|1-p_k|+eps).
#[derive(Clone, Copy, Debug)]
pub struct LeveragedCrossEntropy {
    /// Weight of the non-candidates' losses.
    pub beta: f32,
}

impl RowLoss for LeveragedSigmoid {
    /// psi' = -psi(z) psi(-z).
    fn row(&self, row: &LossRow<'_>, _: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64 {
        let beta = self.beta;
        let mut loss = 0.0;
        let rows = row.target.iter().zip(row.candidates);
        for ((&z, (&c, &s)), d) in row.logits.iter().zip(rows).zip(d_logits) {
            let sigmoid = 1.0 / (1.0 + (-z).exp());
            let other = 1.0 / (1.0 + z.exp());
            let (value, slope) = if s != 0 { (c * other, -c) } else { (beta * c * sigmoid, beta * c) };
            loss += f64::from(value);
            *d = scale * slope * sigmoid * other;
        }
        loss
    }

    fn reads_candidates(&self) -> bool {
        true
    }

    fn kernel(&self) -> KernelOf<LossRows> {
        loss_by_kind::LOSS_LEVERAGED_SIGMOID
    }

    fn constant(&self) -> f32 {
        self.beta
    }
}

impl RowLoss for LeveragedCrossEntropy {
    /// dz_k = p_k (g_k - sum_j p_j g_j) + p_k C - `[k in s]` c_k with g_k = `[k not in s]` beta c_k
    /// sign(1-p_k) / (|1-p_k|+eps), C = sum of c over s.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64 {
        let beta = self.beta;
        let Softmax { log_p, p } = softmax.of(row.logits);
        let mut loss = 0.0;
        let (mut weighted, mut total) = (0.0f32, 0.0f32);
        let rows = row.target.iter().zip(row.candidates);
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

    fn reads_candidates(&self) -> bool {
        true
    }

    fn kernel(&self) -> KernelOf<LossRows> {
        loss_by_kind::LOSS_LEVERAGED_CROSS_ENTROPY
    }

    fn constant(&self) -> f32 {
        self.beta
    }
}

#[cfg(test)]
mod tests {
    use super::{LeveragedCrossEntropy, LeveragedSigmoid};
    use crate::ops::loss::check;

    #[test]
    fn values_and_gradients() {
        let sigmoid = LeveragedSigmoid { beta: 2.0 };
        check::assert_value(&sigmoid, 0.25 / 2.0 + 0.75 / 3.0 + 2.0 * 5.0 / 6.0);
        check::assert_gradient(&sigmoid);
        let cross_entropy = LeveragedCrossEntropy { beta: 2.0 };
        let inside = -0.25 * 0.125f64.ln() - 0.75 * 0.25f64.ln();
        check::assert_value(&cross_entropy, inside - 2.0 * 0.375f64.ln());
        check::assert_gradient(&cross_entropy);
    }
}
