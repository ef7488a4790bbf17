//! The disambiguation of CORR.

use anyhow::Result;

use super::{Consistency, pair};
use crate::device::gpu::lower::Lowering;
use crate::ops::confidence::{Disambiguate, Disambiguation, ViewPrediction};
use crate::ops::loss::Loss;
use crate::ops::rows::EPSILON;

/// The square root of the product p^w p^s of both views' probabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewProduct {
    /// r = sqrt(`[c>0]` p^w p^s); c <- r / (sum r + eps). A product that underflows drops its class for good
    /// (docs/spec.md, section 6).
    OverPositive,
    /// With a debias: r = s p^w p^s; r <- r / (sum r + eps); c <- sqrt(r) / (sum sqrt(r) + eps). The mask is
    /// the candidate set, so a dropped class can come back. Both eps matter when all products are tiny.
    OverCandidates,
}

impl Disambiguation for ViewProduct {
    fn views(&self) -> usize {
        2
    }

    fn row(&self, confidence: &mut [f32], candidates: &[u8], views: &[ViewPrediction]) {
        let products = views[0].softmax.p.iter().zip(&views[1].softmax.p);
        match self {
            ViewProduct::OverPositive => {
                for (c, (weak, strong)) in confidence.iter_mut().zip(products) {
                    *c = if *c > 0.0 { (weak * strong).sqrt() } else { 0.0 };
                }
            }
            ViewProduct::OverCandidates => {
                for ((c, &s), (weak, strong)) in confidence.iter_mut().zip(candidates).zip(products) {
                    *c = if s != 0 { weak * strong } else { 0.0 };
                }
                normalise(confidence);
                confidence.iter_mut().for_each(|c| *c = c.sqrt());
            }
        }
        normalise(confidence);
    }

    fn lower(&self, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<()> {
        pair::lower_disambiguation(of, *self, gpu);
        Ok(())
    }

    fn lower_behind(&self, loss: &Loss, of: &Disambiguate, gpu: &mut Lowering<'_>) -> Result<bool> {
        let fits = loss.row_loss.downcast::<Consistency>().is_some();
        if fits {
            pair::lower_both(loss, of, *self, gpu);
        }
        Ok(fits)
    }
}

fn normalise(row: &mut [f32]) {
    let total = row.iter().sum::<f32>() + EPSILON;
    row.iter_mut().for_each(|c| *c /= total);
}
