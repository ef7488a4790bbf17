//! What SoLar (NeurIPS 2022) does beside its Sinkhorn: predictions masked by the candidates, the choice of reliable samples, and
//! the loss over chosen and other samples (SPEC 7).

use std::cmp::Ordering;

use super::loss::{argmax, cross_entropy, log_softmax};

/// M = softmax(z) s; see [`crate::device::Primitive::MaskedSoftmax`].
pub(super) fn masked_softmax(
    classes: usize,
    logits: &[f32],
    candidates: &[u8],
    index: &[i32],
    out: &mut [f32],
) {
    let mut log_p = vec![0.0; classes];
    for ((logits, out), &sample) in logits.chunks_exact(classes).zip(out.chunks_exact_mut(classes)).zip(index)
    {
        log_softmax(logits, None, &mut log_p, out);
        let candidates = &candidates[sample as usize * classes..][..classes];
        out.iter_mut().zip(candidates).filter(|(_, s)| **s == 0).for_each(|(p, _)| *p = 0.0);
    }
}

/// counts += rows by their first maximum.
pub(super) fn count_largest(classes: usize, x: &[f32], counts: &mut [f32]) {
    x.chunks_exact(classes).for_each(|row| counts[argmax(row)] += 1.0);
}

/// What the choice is made from; see [`crate::device::Primitive::ChooseSamples`].
pub(super) struct Choice<'a> {
    pub classes: usize,
    pub threshold: f32,
    pub rho: f32,
    pub logits: &'a [f32],
    pub refined: &'a [f32],
    pub class_prior: &'a [f32],
    /// This step's permutation of the batch.
    pub permutation: &'a [i32],
}

/// Where the choice is written.
pub(super) struct Chosen<'a> {
    pub chosen: &'a mut [i32],
    pub rows: &'a mut [i32],
    pub partners: &'a mut [i32],
    pub count: &'a mut [i32],
}

/// Chooses; with `choice` absent, nothing is chosen.
pub(super) fn choose(choice: Option<&Choice<'_>>, out: Chosen<'_>) {
    let Chosen { chosen, rows, partners, count } = out;
    chosen.fill(0);
    if let Some(choice) = choice {
        mark(choice, chosen);
    }
    let list: Vec<i32> =
        (0i32..).zip(chosen.iter()).filter(|(_, chosen)| **chosen != 0).map(|(b, _)| b).collect();
    count[0] = list.len() as i32;
    rows.fill(-1);
    partners.fill(-1);
    rows[..list.len()].copy_from_slice(&list);
    let order = choice.map_or(&[][..], |choice| choice.permutation);
    let drawn = order.iter().filter_map(|&number| list.get(number as usize));
    partners.iter_mut().zip(drawn).for_each(|(partner, &row)| *partner = row);
}

/// Sets `chosen` to 1 for the chosen rows.
fn mark(choice: &Choice<'_>, chosen: &mut [i32]) {
    let Choice { classes, threshold, rho, logits, refined, class_prior, .. } = *choice;
    let batch = chosen.len();
    let (mut log_p, mut p) = (vec![0.0; classes], vec![0.0; classes]);
    let mut members: Vec<Vec<(f32, usize)>> = vec![Vec::new(); classes];
    for (b, (z, q)) in logits.chunks_exact(classes).zip(refined.chunks_exact(classes)).enumerate() {
        log_softmax(z, None, &mut log_p, &mut p);
        let sum = |values: &[f32]| q.iter().zip(values).map(|(&q, &v)| f64::from(q * v)).sum::<f64>() as f32;
        // A NaN comes last, as infinity does: sorting needs a total order.
        members[argmax(q)].push(((-sum(&log_p)).min(f32::INFINITY), b));
        chosen[b] = i32::from(sum(&p) > threshold);
    }
    for (members, &prior) in members.iter_mut().zip(class_prior) {
        // Both products in f32, as the reference rounds them; a NaN or a negative number is no count.
        let wanted = (batch as f32 * prior * rho).ceil() as usize;
        members.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
        members.iter().take(wanted.max(1)).for_each(|&(_, b)| chosen[b] = 1);
    }
}

/// The operands of [`loss`]; see [`crate::device::Primitive::SolarLoss`].
pub(super) struct Operands<'a> {
    pub classes: usize,
    pub eta: f32,
    pub weak: &'a [f32],
    pub strong: &'a [f32],
    pub refined: &'a [f32],
    /// Mixed logits and their targets.
    pub mixed: Option<[&'a [f32]; 2]>,
    pub confidence: &'a [f32],
    pub index: &'a [i32],
    pub chosen: &'a [i32],
    pub count: usize,
}

/// The gradients and losses that [`loss`] writes.
pub(super) struct Results<'a> {
    pub d_weak: &'a mut [f32],
    pub d_strong: &'a mut [f32],
    pub d_mixed: Option<&'a mut [f32]>,
    pub loss_rows: &'a mut [f32],
}

/// The loss of a batch of B rows; `loss_rows` sum to B times it.
pub(super) fn loss(operands: &Operands<'_>, results: Results<'_>) {
    let Operands { classes, eta, weak, strong, refined, mixed, confidence, index, chosen, count } = *operands;
    let Results { d_weak, d_strong, mut d_mixed, loss_rows } = results;
    let batch = index.len();
    // Weights of a chosen and of another row; a batch without chosen rows learns from all alike.
    let inside = if count == 0 { 0.0 } else { eta / count as f32 };
    let outside = if count == 0 { 1.0 / batch as f32 } else { (1.0 - eta) / (batch - count).max(1) as f32 };
    let (mut log_p, mut p) = (vec![0.0; classes], vec![0.0; classes]);
    let mut term = |weight: f32, logits: &[f32], target: &[f32], d_logits: &mut [f32]| {
        log_softmax(logits, None, &mut log_p, &mut p);
        f64::from(weight) * cross_entropy(target, &log_p, &p, weight, d_logits)
    };
    d_strong.fill(0.0);
    if let Some(d_mixed) = &mut d_mixed {
        d_mixed.fill(0.0);
    }
    for (b, loss) in loss_rows.iter_mut().enumerate() {
        let at = b * classes..(b + 1) * classes;
        let mut sum = if chosen[b] != 0 {
            let q = &refined[at.clone()];
            term(inside, &weak[at.clone()], q, &mut d_weak[at.clone()])
                + term(inside, &strong[at.clone()], q, &mut d_strong[at.clone()])
        } else {
            let c = &confidence[index[b] as usize * classes..][..classes];
            term(outside, &weak[at.clone()], c, &mut d_weak[at.clone()])
        };
        if let (Some([logits, target]), Some(d_mixed)) = (mixed, &mut d_mixed)
            && b < count
        {
            sum += term(inside, &logits[at.clone()], &target[at.clone()], &mut d_mixed[at]);
        }
        *loss = (sum * batch as f64) as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen_of(
        refined: &[f32],
        logits: &[f32],
        prior: [f32; 2],
        rho: f32,
        threshold: f32,
    ) -> [Vec<i32>; 4] {
        let batch = refined.len() / 2;
        let permutation: Vec<i32> = (0..batch as i32).rev().collect();
        let choice = Choice {
            classes: 2,
            threshold,
            rho,
            logits,
            refined,
            class_prior: &prior,
            permutation: &permutation,
        };
        let mut out = [vec![9; batch], vec![9; batch], vec![9; batch], vec![9; 1]];
        let [chosen, rows, partners, count] = &mut out;
        choose(Some(&choice), Chosen { chosen, rows, partners, count });
        out
    }

    /// Rows 0, 1, 2 are of class 0 with equal losses, row 3 of class 1. B r_0 rho = 4 * 0.5 * 0.5 = 1 gives class 0 one row, the
    /// first of equals; class 1 with r = 0 still one.
    #[test]
    fn each_class_gives_its_share_and_at_least_one() {
        let refined = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let [chosen, rows, partners, count] = chosen_of(&refined, &[0.0; 8], [0.5, 0.0], 0.5, 2.0);
        assert_eq!(chosen, [1, 0, 0, 1]);
        assert_eq!(rows, [0, 3, -1, -1]);
        // Of the permutation 3 2 1 0 the numbers below 2, in its order, are 1 0: rows 3, 0.
        assert_eq!(partners, [3, 0, -1, -1]);
        assert_eq!(count, [2]);
    }

    #[test]
    fn a_confident_row_is_chosen_whatever_its_rank() {
        let refined = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        // Row 2 has p = 1 / (1 + e^-9) > 0.99 and the least loss; row 1 p > 0.99 too; row 0 one half.
        let logits = [0.0, 0.0, 8.0, 0.0, 9.0, 0.0];
        let [chosen, ..] = chosen_of(&refined, &logits, [0.1, 0.1], 0.1, 0.99);
        assert_eq!(chosen, [0, 1, 1]);
        let [chosen, ..] = chosen_of(&refined, &logits, [0.1, 0.1], 0.1, 0.9999);
        assert_eq!(chosen, [0, 0, 1]);
    }

    /// Every third of 60 rows of one class has a NaN loss; sorting by a comparison that is no order may panic.
    #[test]
    fn rows_of_nan_come_last() {
        let refined = [1.0, 0.0].repeat(60);
        let logits: Vec<f32> = (0..60).flat_map(|b| [0.0, if b % 3 == 0 { f32::NAN } else { 0.0 }]).collect();
        let [chosen, rows, ..] = chosen_of(&refined, &logits, [0.5, 0.5], 1.0, 2.0);
        assert_eq!(chosen.iter().sum::<i32>(), 30);
        assert!(rows[..30].iter().all(|b| b % 3 != 0), "{rows:?}");
        // With room for 50, the first ten of the NaN rows follow the 40 others.
        let [chosen, ..] = chosen_of(&refined, &logits, [0.82, 0.0], 1.0, 2.0);
        let expected: Vec<i32> = (0..60).map(|b| i32::from(b % 3 != 0 || b < 30)).collect();
        assert_eq!(chosen, expected);
    }

    #[test]
    fn without_chosen_rows_every_row_counts_alike() {
        let (mut d_weak, mut d_strong, mut rows) = ([9.0; 4], [9.0; 4], [9.0; 2]);
        let operands = Operands {
            classes: 2,
            eta: 0.9,
            weak: &[0.0; 4],
            strong: &[0.0; 4],
            refined: &[0.0; 4],
            mixed: None,
            confidence: &[1.0, 0.0, 0.0, 1.0],
            index: &[1, 0],
            chosen: &[0, 0],
            count: 0,
        };
        let results =
            Results { d_weak: &mut d_weak, d_strong: &mut d_strong, d_mixed: None, loss_rows: &mut rows };
        loss(&operands, results);
        // p = 1/2: the gradient (p - c) / B, the loss ln 2 a row.
        assert_eq!(d_weak, [0.25, -0.25, -0.25, 0.25]);
        assert_eq!(d_strong, [0.0; 4]);
        assert!(rows.iter().all(|row| (row - 2f32.ln()).abs() < 1e-6));
    }
}
