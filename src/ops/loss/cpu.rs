//! Losses row by row, rows on all threads.

use anyhow::Result;
use rayon::prelude::*;

use super::{Loss, LossRow, Term};
use crate::device::cpu::Call;
use crate::ops::control::MIXUP;
use crate::ops::rows::{EPSILON, Softmax};

/// -ln(|1-p|+eps), which pushes a class down, and its derivative with respect to p. A wrong class at p = 1
/// exactly gets no gradient, as the reference's |x| has none at 0.
pub fn negative(p: f32) -> (f64, f32) {
    let rest = 1.0 - p;
    let distance = rest.abs() + EPSILON;
    (-f64::from(distance.ln()), if rest == 0.0 { 0.0 } else { rest.signum() / distance })
}

/// See [`Loss`].
pub(super) fn run(of: &Loss, cpu: &Call<'_>) -> Result<()> {
    let Loss { batch, classes, views, first, .. } = *of;
    let factor = match of.term {
        Term::Plain => 1.0,
        Term::Mixed { control } => cpu.f32(control)?[MIXUP],
    };
    let here = first * classes..(first + views * batch) * classes;
    let mut d_logits = cpu.f32_mut(of.d_logits)?;
    let d_logits = &mut d_logits[here.clone()];
    if factor == 0.0 {
        d_logits.fill(0.0);
        return Ok(());
    }
    let logits = cpu.f32(of.logits)?;
    let target = cpu.optional(of.row_loss.reads_target().then_some(of.target))?;
    let candidates = of.row_loss.reads_candidates().then(|| cpu.u8(of.candidates)).transpose()?;
    let index = of.index.map(|index| cpu.i32(index)).transpose()?;
    // Threads share the slices, not the guards of the memory.
    let (target, candidates, index) = (target.as_deref(), candidates.as_deref(), index.as_deref());
    let scale = factor / batch as f32;
    let mut losses = vec![0.0; views * batch];
    logits[here]
        .par_chunks_exact(classes)
        .zip(d_logits.par_chunks_exact_mut(classes))
        .zip(&mut losses)
        .enumerate()
        .with_min_len(64)
        .for_each_init(
            || Softmax::new(classes),
            |softmax, (row, ((logits, d_logits), loss))| {
                let sample = index.map_or(row % batch, |index| index[row % batch] as usize);
                let at = sample * classes..(sample + 1) * classes;
                let row = LossRow {
                    logits,
                    target: target.map_or(&[], |target| &target[at.clone()]),
                    candidates: candidates.map_or(&[], |candidates| &candidates[at]),
                };
                *loss = of.row_loss.row(&row, softmax, scale, d_logits);
            },
        );
    for (b, loss) in cpu.f32_mut(of.loss_rows)?.iter_mut().enumerate() {
        let sum = (0..views).map(|view| losses[view * batch + b]).sum::<f64>() as f32;
        *loss = match of.term {
            Term::Plain => sum,
            Term::Mixed { .. } => *loss + factor * sum,
        };
    }
    Ok(())
}
