//! EXP (Feng et al., "Learning with multiple complementary labels", ICML 2020): one view, e^(-A) with the
//! probability A = sum_{k in s} p_k of the candidate set, a bounded upper bound of the risk.
//!
//! The loss reads no confidence row, so a debias acts at test only. As with CC, the rows hold what the loss
//! implies, s p / sum, only for the statistics on disambiguation.

use super::cc::CandidateSoftmax;
use super::label_method::LabelMethod;
use super::registry::MethodEntry;
use crate::device::gpu::kernels::loss_by_kind::{self, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::ops::loss::{LossRow, RowLoss};
use crate::ops::rows::Softmax;

/// EXP for the registry.
pub static ENTRY: MethodEntry = MethodEntry {
    no_mixup: Some("its loss reads candidate sets, which cannot be mixed as soft labels can"),
    ..MethodEntry::new("exp", "EXP", "Exponential loss of the candidate set's probability", |_| {
        Box::new(method())
    })
};

/// EXP.
pub fn method() -> LabelMethod {
    LabelMethod { reads_debias: false, ..LabelMethod::new(Exponential, CandidateSoftmax) }
}

/// e^(-A), A = sum_{k in s} p_k.
#[derive(Clone, Copy, Debug)]
pub struct Exponential;

impl RowLoss for Exponential {
    /// dz_k = -e^(-A) p_k (`[k in s]` - A), where 1 - A is the sum over the other classes.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64 {
        let p = &softmax.of(row.logits).p;
        let of = |member| p.iter().zip(row.candidates).filter(move |&(_, &s)| (s != 0) == member);
        let [inside, outside] = [true, false].map(|member| of(member).map(|(&p, _)| p).sum::<f32>());
        let loss = (-inside).exp();
        for ((d, &p), &s) in d_logits.iter_mut().zip(p).zip(row.candidates) {
            *d = scale * loss * p * if s != 0 { -outside } else { inside };
        }
        f64::from(loss)
    }

    fn reads_target(&self) -> bool {
        false
    }

    fn reads_candidates(&self) -> bool {
        true
    }

    fn kernel(&self) -> KernelOf<LossRows> {
        loss_by_kind::LOSS_EXPONENTIAL
    }
}

#[cfg(test)]
mod tests {
    use super::Exponential;
    use crate::ops::loss::check;

    #[test]
    fn value_and_gradient() {
        check::assert_value(&Exponential, (-0.375f64).exp());
        check::assert_gradient(&Exponential);
    }
}
