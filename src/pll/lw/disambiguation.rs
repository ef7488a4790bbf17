//! The weights of LW.

use anyhow::Result;

use crate::device::gpu::kernels::loss_by_kind;
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::{Disambiguate, Disambiguation, ViewPrediction, partial_softmax};

/// c <- the softmax of z over the candidates, and separately that over the other classes.
#[derive(Clone, Copy, Debug)]
pub struct TwoSoftmaxes;

impl Disambiguation for TwoSoftmaxes {
    fn row(&self, confidence: &mut [f32], candidates: &[u8], views: &[ViewPrediction]) {
        let log_p = &views[0].softmax.log_p;
        partial_softmax(confidence, log_p, |k| candidates[k] != 0);
        partial_softmax(confidence, log_p, |k| candidates[k] == 0);
    }

    fn lower(&self, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<()> {
        of.lower_rows(loss_by_kind::DISAMBIGUATE_LEVERAGED, gpu);
        Ok(())
    }
}
