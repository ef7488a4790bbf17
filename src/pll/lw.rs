//! LW (Wen et al., "Leveraged weighted loss for partial label learning", ICML 2021; SPEC 6): one view,
//! sum_{k in s} c_k psi(z_k) + beta sum_{k not in s} c_k psi(-z_k), the weights c being two softmaxes of z, one over the candidates
//! and one over the other classes. They are refreshed by every step from its own logits, for the next epoch; the authors' code
//! makes a second forward after the step for them.

use super::method::{LabelMethod, Start};
use crate::device::primitive::{ConfidenceRule, LossKind};

/// LW with the given loss: [`LossKind::LeveragedSigmoid`] or [`LossKind::LeveragedCrossEntropy`].
pub fn method(loss: LossKind) -> LabelMethod {
    LabelMethod {
        views: 1,
        loss,
        rule: ConfidenceRule::Leveraged,
        debiased_rule: ConfidenceRule::Leveraged,
        reads_debias: true,
        start: Start::UniformInsideAndOutside,
    }
}
