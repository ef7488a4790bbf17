//! MSE (Feng et al., "Learning with multiple complementary labels", ICML 2020): one view, the squared error
//! of p against a label, turned into an unbiased estimate over candidate sets with the complementary labels.
//!
//! With l(p, y) = sum_k (`[k = y]` - p_k)^2 = 1 - 2 p_y + P, P = sum p^2, and c candidates of K classes, the
//! estimate is sum_{y in s} l(p, y) - (c - 1) / (K - c) sum_{y not in s} l(p, y), which is
//!
//!   1 + P - 2 A + 2 (c - 1) / (K - c) (1 - A),    A = sum_{k in s} p_k.
//!
//! For one candidate it is the squared error itself. A set of all classes has no complementary label and
//! carries no information: its loss is 0. As with CC, the loss reads no confidence row.

use super::cc::CandidateSoftmax;
use super::label_method::LabelMethod;
use super::registry::MethodEntry;
use crate::device::gpu::kernels::loss_by_kind::{self, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::ops::loss::{LossRow, RowLoss};
use crate::ops::rows::Softmax;

/// MSE for the registry.
pub static ENTRY: MethodEntry = MethodEntry {
    no_mixup: Some("its loss reads candidate sets, which cannot be mixed as soft labels can"),
    ..MethodEntry::new("mse", "MSE", "Squared error, estimated from complementary labels", |_| {
        Box::new(method())
    })
};

/// MSE.
pub fn method() -> LabelMethod {
    LabelMethod { reads_debias: false, ..LabelMethod::new(SquaredError, CandidateSoftmax) }
}

/// 1 + P - 2 A + 2 (c - 1) / (K - c) (1 - A).
#[derive(Clone, Copy, Debug)]
pub struct SquaredError;

impl RowLoss for SquaredError {
    /// dz_k = 2 p_k (p_k - P) - (2 + w) p_k (`[k in s]` - A) with w = 2 (c - 1) / (K - c); 1 - A is the sum
    /// over the other classes.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64 {
        let p = &softmax.of(row.logits).p;
        let candidates = row.candidates.iter().filter(|&&s| s != 0).count();
        let others = row.candidates.len() - candidates;
        if others == 0 {
            // 0 for a finite row; a row that is not finite stays visible.
            let nothing = 0.0 * p.iter().sum::<f32>();
            d_logits.fill(nothing);
            return f64::from(nothing);
        }
        let of = |member| p.iter().zip(row.candidates).filter(move |&(_, &s)| (s != 0) == member);
        let [inside, outside] = [true, false].map(|member| of(member).map(|(&p, _)| p).sum::<f32>());
        let squares: f32 = p.iter().map(|p| p * p).sum();
        let weight = 2.0 * (candidates as f32 - 1.0) / others as f32;
        for ((d, &p), &s) in d_logits.iter_mut().zip(p).zip(row.candidates) {
            let slope = if s != 0 { -outside } else { inside };
            *d = scale * p * (2.0 * (p - squares) + (2.0 + weight) * slope);
        }
        f64::from(1.0 + squares - 2.0 * inside + weight * outside)
    }

    fn reads_target(&self) -> bool {
        false
    }

    fn reads_candidates(&self) -> bool {
        true
    }

    fn kernel(&self) -> KernelOf<LossRows> {
        loss_by_kind::LOSS_SQUARED_ERROR
    }
}

#[cfg(test)]
mod tests {
    use super::SquaredError;
    use crate::ops::loss::check;

    /// P = 30/64, A = 3/8, c = 2 of 3: 1 + 30/64 - 3/4 + 2 * 5/8.
    #[test]
    fn value_and_gradient() {
        check::assert_value(&SquaredError, 1.0 + 30.0 / 64.0 - 0.75 + 1.25);
        check::assert_gradient(&SquaredError);
    }

    #[test]
    fn one_candidate_gives_the_squared_error_and_all_give_nothing() {
        let z = [0.2f32, -0.4, 1.1];
        let p = z.map(|z| f64::from(z).exp());
        let p = p.map(|e| e / p.iter().sum::<f64>());
        let expected: f64 = (0..3).map(|k| (f64::from(u8::from(k == 1)) - p[k]).powi(2)).sum();
        let (value, _) = check::of(&SquaredError, &z, &[0.0; 3], &[0, 1, 0]);
        assert!((value - expected).abs() < 1e-6, "{value}, {expected}");
        assert_eq!(check::of(&SquaredError, &z, &[0.0; 3], &[1, 1, 1]), (0.0, vec![0.0; 3]));
    }
}
