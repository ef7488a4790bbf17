//! Convex combinations of rows.

use rayon::prelude::*;

/// out `[R,len]` = weight x + (1 - weight) x', where `permutation` `[B]` names the partner x' within the
/// row's group of B. With `index`, it names the rows of x. In f32: 1 - weight, both products and the sum are
/// rounded in this order.
pub(super) fn mixup(
    len: usize,
    weight: f32,
    permutation: &[i32],
    index: Option<&[i32]>,
    x: &[f32],
    out: &mut [f32],
) {
    let (batch, rest) = (permutation.len(), 1.0 - weight);
    let named = |row: usize| &x[index.map_or(row, |index| index[row] as usize) * len..][..len];
    out.par_chunks_exact_mut(len).enumerate().for_each(|(row, out)| {
        let partner = row / batch * batch + permutation[row % batch] as usize;
        for ((out, own), other) in out.iter_mut().zip(named(row)).zip(named(partner)) {
            *out = weight * own + rest * other;
        }
    });
}

/// out`[i]` = weight x`[rows[i]]` + (1 - weight) x`[partners[i]]` for the first `count` rows, rounded as in
/// [`mixup`]; 0 behind them.
pub(super) fn mixup_chosen(
    len: usize,
    weight: f32,
    [rows, partners]: [&[i32]; 2],
    count: usize,
    x: &[f32],
    out: &mut [f32],
) {
    let rest = 1.0 - weight;
    out.par_chunks_exact_mut(len).enumerate().for_each(|(i, out)| {
        if i >= count {
            out.fill(0.0);
            return;
        }
        let row = |row: i32| &x[row as usize * len..][..len];
        for ((out, own), other) in out.iter_mut().zip(row(rows[i])).zip(row(partners[i])) {
            *out = weight * own + rest * other;
        }
    });
}
