//! CC (Feng et al., "Provably consistent partial-label learning", NeurIPS 2020; docs/spec.md, section 6): one
//! view, -ln sum_{k in s} p_k.
//!
//! The loss reads no confidence row, so a debias acts at test only. The rows hold what the loss implies, s p
//! / sum, only for the statistics on disambiguation.

use anyhow::Result;

use super::label_method::LabelMethod;
use super::registry::MethodEntry;
use crate::device::gpu::kernels::loss_by_kind::{self, LossRows};
use crate::device::gpu::launch::KernelOf;
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::{Disambiguate, Disambiguation, ViewPrediction, partial_softmax};
use crate::ops::loss::{LossRow, RowLoss};
use crate::ops::rows::Softmax;

/// CC for the registry.
pub static ENTRY: MethodEntry = MethodEntry {
    no_mixup: Some("its loss reads candidate sets, which cannot be mixed as soft labels can"),
    ..MethodEntry::new("cc", "CC", "Classifier-consistent loss of the candidate set's probability", |_| {
        Box::new(method())
    })
};

/// CC.
pub fn method() -> LabelMethod {
    LabelMethod {
        joint: Some(loss_by_kind::CANDIDATE_SUM_DISAMBIGUATE),
        reads_debias: false,
        ..LabelMethod::new(CandidateSum, CandidateSoftmax)
    }
}

/// -ln sum_{k in s} p_k.
#[derive(Clone, Copy, Debug)]
pub struct CandidateSum;

impl RowLoss for CandidateSum {
    /// dz_k = p_k - `[k in s]` p_k / sum_s p.
    fn row(&self, row: &LossRow<'_>, softmax: &mut Softmax, scale: f32, d_logits: &mut [f32]) -> f64 {
        let Softmax { log_p, p } = softmax.of(row.logits);
        let inside = || log_p.iter().zip(row.candidates).filter(|&(_, &s)| s != 0).map(|(&log_p, _)| log_p);
        let most = inside().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = most + inside().map(|log_p| (log_p - most).exp()).sum::<f32>().ln();
        for (((d, &log_p), &p), &s) in d_logits.iter_mut().zip(log_p).zip(p).zip(row.candidates) {
            *d = scale * (p - if s != 0 { (log_p - log_sum).exp() } else { 0.0 });
        }
        -f64::from(log_sum)
    }

    fn reads_target(&self) -> bool {
        false
    }

    fn reads_candidates(&self) -> bool {
        true
    }

    fn kernel(&self) -> KernelOf<LossRows> {
        loss_by_kind::LOSS_CANDIDATE_SUM
    }
}

/// c <- s p / sum, the softmax of z over the candidates.
#[derive(Clone, Copy, Debug)]
pub struct CandidateSoftmax;

impl Disambiguation for CandidateSoftmax {
    fn row(&self, confidence: &mut [f32], candidates: &[u8], views: &[ViewPrediction]) {
        confidence.fill(0.0);
        partial_softmax(confidence, &views[0].softmax.log_p, |k| candidates[k] != 0);
    }

    fn lower(&self, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<()> {
        of.lower_rows(loss_by_kind::DISAMBIGUATE_CANDIDATES, gpu);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::CandidateSum;
    use crate::ops::loss::check;

    #[test]
    fn value_and_gradient() {
        check::assert_value(&CandidateSum, -0.375f64.ln());
        check::assert_gradient(&CandidateSum);
    }
}
