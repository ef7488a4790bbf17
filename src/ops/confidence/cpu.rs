//! Disambiguation row by row.

use anyhow::Result;

use super::{Disambiguate, ViewPrediction};
use crate::device::cpu::Call;
use crate::ops::control::UPDATE;
use crate::ops::rows::Softmax;

/// See [`Disambiguate`]. The indices of a batch are distinct, so the rows are independent.
pub(super) fn run(of: &Disambiguate, cpu: &Call<'_>) -> Result<()> {
    if cpu.f32(of.control)?[UPDATE] == 0.0 {
        return Ok(());
    }
    let Disambiguate { batch, classes, .. } = *of;
    let (logits, log_prior) = (cpu.f32(of.logits)?, cpu.optional(of.log_prior)?);
    let (candidates, index) = (cpu.u8(of.candidates)?, cpu.i32(of.index)?);
    let mut confidence = cpu.f32_mut(of.confidence)?;
    let room = ViewPrediction { logits: vec![0.0; classes], softmax: Softmax::new(classes) };
    let mut views = vec![room; of.disambiguation.views()];
    for (b, &sample) in index.iter().enumerate() {
        for (number, ViewPrediction { logits: z, softmax }) in views.iter_mut().enumerate() {
            z.copy_from_slice(&logits[(number * batch + b) * classes..][..classes]);
            if let Some(log_prior) = &log_prior {
                z.iter_mut().zip(log_prior.iter()).for_each(|(z, shift)| *z -= shift);
            }
            softmax.of(z);
        }
        let at = sample as usize * classes..(sample as usize + 1) * classes;
        of.disambiguation.row(&mut confidence[at.clone()], &candidates[at], &views);
    }
    Ok(())
}

/// Writes the softmax over the classes that are `inside`, from log-probabilities over all classes.
/// Subtracting the largest of these classes keeps the sum from underflowing. Classes outside keep their
/// values.
pub fn partial_softmax(row: &mut [f32], log_p: &[f32], inside: impl Fn(usize) -> bool) {
    let most = (0..row.len()).filter(|&k| inside(k)).map(|k| log_p[k]).fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for k in (0..row.len()).filter(|&k| inside(k)) {
        row[k] = (log_p[k] - most).exp();
        sum += row[k];
    }
    (0..row.len()).filter(|&k| inside(k)).for_each(|k| row[k] /= sum);
}
