//! The choice of reliable samples.

use std::cmp::Ordering;

use anyhow::{Result, ensure};

use super::{ETA, RHO, launch_one_block};
use crate::device::cpu::Call;
use crate::device::gpu::kernels::solar::{CHOOSE_SAMPLES, ChooseSamples as Parameters};
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
use crate::ops::rows::{Softmax, argmax};

/// SoLar's choice of samples (docs/spec.md, section 7, step 5) from weak logits `[B,K]`, pseudo-labels Q
/// `[B,K]` and the class prior r `[K]`. For each class j it takes max(1, min(ceil(B r_j rho), n_j)) of the
/// n_j rows whose argmax of Q is j: those with the least -sum Q ln p, of equals the earlier row, NaN last. It
/// also takes each row with sum Q p > `threshold`. If control`[ETA]` is 0 it takes none.
#[derive(Clone, Debug, PartialEq)]
pub struct ChooseSamples {
    /// Samples B.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// tau: the agreement sum Q p above which a row is chosen whatever its loss.
    pub threshold: f32,
    /// Logits of the weak views, f32 `[B,K]`.
    pub logits: Tensor,
    /// Q, f32 `[B,K]`.
    pub pseudo_labels: Tensor,
    /// r, f32 `[K]`.
    pub class_prior: Tensor,
    /// The step's control block, f32, with eta at [`ETA`] and rho at [`RHO`].
    pub control: Tensor,
    /// Permutations of the batch for the steps of an epoch, i32 `[steps,B]`.
    pub permutations: Tensor,
    /// The step of the epoch, i32 `[1]`.
    pub step: Tensor,
    /// i32 `[B]`: 1 for a chosen row, else 0.
    pub chosen: Tensor,
    /// i32 `[B]`: the chosen rows in ascending order, then -1.
    pub rows: Tensor,
    /// i32 `[B]`: the chosen rows in another order, then -1: with n chosen rows, entries of this step's
    /// permutation below n, in its order, index them.
    pub partners: Tensor,
    /// Number of chosen rows, i32 `[1]`.
    pub count: Tensor,
    /// i32 `[1]`: that number is added to it.
    pub total: Tensor,
}

impl Operation for ChooseSamples {
    fn name(&self) -> &'static str {
        "choose samples"
    }

    fn operands(&self) -> Vec<Operand> {
        vec![
            Operand::read(self.logits),
            Operand::read(self.pseudo_labels),
            Operand::read(self.class_prior),
            Operand::read(self.control),
            Operand::read(self.permutations).touching(self.batch),
            Operand::read(self.step),
            Operand::write(self.chosen),
            Operand::write(self.rows),
            Operand::write(self.partners),
            Operand::write(self.count),
            Operand::update(self.total),
        ]
    }

    /// A row's loss, then its rank among the rows of its class.
    fn flops(&self) -> f64 {
        10.0 * (self.batch * self.classes) as f64 + (self.batch * self.batch) as f64
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (now, control) = (cpu.i32(self.step)?[0] as usize, cpu.f32(self.control)?);
        let permutations = cpu.i32(self.permutations)?;
        let batch = self.batch;
        ensure!((now + 1) * batch <= permutations.len(), "step past the end of the permutations");
        let choice = ChoiceInputs {
            classes: self.classes,
            threshold: self.threshold,
            rho: control[RHO],
            logits: &cpu.f32(self.logits)?,
            pseudo_labels: &cpu.f32(self.pseudo_labels)?,
            class_prior: &cpu.f32(self.class_prior)?,
            permutation: &permutations[now * batch..][..batch],
        };
        let out = ChoiceOutputs {
            chosen: &mut cpu.i32_mut(self.chosen)?,
            rows: &mut cpu.i32_mut(self.rows)?,
            partners: &mut cpu.i32_mut(self.partners)?,
            count: &mut cpu.i32_mut(self.count)?,
        };
        let count = choose((control[ETA] != 0.0).then_some(&choice), out);
        cpu.i32_mut(self.total)?[0] += count;
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let steps = gpu.len(self.permutations) / self.batch;
        ensure!(steps > 0, "choose samples: needs a permutation of the batch for every step");
        let parameters = Parameters {
            batch: self.batch,
            classes: self.classes,
            steps,
            threshold: self.threshold,
            logits: gpu.address(self.logits),
            pseudo_labels: gpu.address(self.pseudo_labels),
            class_prior: gpu.address(self.class_prior),
            control: gpu.address(self.control),
            permutations: gpu.address(self.permutations),
            step: gpu.address(self.step),
            chosen: gpu.address(self.chosen),
            rows: gpu.address(self.rows),
            partners: gpu.address(self.partners),
            count: gpu.address(self.count),
            total: gpu.address(self.total),
        };
        let bytes = self.batch * (size_of::<f32>() + size_of::<i32>());
        launch_one_block(gpu, CHOOSE_SAMPLES, bytes, parameters)
    }
}

/// The inputs of the choice.
struct ChoiceInputs<'a> {
    classes: usize,
    threshold: f32,
    rho: f32,
    logits: &'a [f32],
    pseudo_labels: &'a [f32],
    class_prior: &'a [f32],
    /// This step's permutation of the batch.
    permutation: &'a [i32],
}

/// The outputs of the choice.
struct ChoiceOutputs<'a> {
    chosen: &'a mut [i32],
    rows: &'a mut [i32],
    partners: &'a mut [i32],
    count: &'a mut [i32],
}

/// Writes the choice; without `choice`, nothing is chosen. Returns how many rows are.
fn choose(choice: Option<&ChoiceInputs<'_>>, out: ChoiceOutputs<'_>) -> i32 {
    let ChoiceOutputs { chosen, rows, partners, count } = out;
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
    count[0]
}

/// Sets `chosen` to 1 for the chosen rows.
fn mark(choice: &ChoiceInputs<'_>, chosen: &mut [i32]) {
    let ChoiceInputs { classes, threshold, rho, logits, pseudo_labels, class_prior, .. } = *choice;
    let batch = chosen.len();
    let mut softmax = Softmax::new(classes);
    let mut members: Vec<Vec<(f32, usize)>> = vec![Vec::new(); classes];
    for (b, (z, q)) in logits.chunks_exact(classes).zip(pseudo_labels.chunks_exact(classes)).enumerate() {
        let Softmax { log_p, p } = softmax.of(z);
        let sum = |values: &[f32]| q.iter().zip(values).map(|(&q, &v)| f64::from(q * v)).sum::<f64>() as f32;
        // A NaN becomes infinity and so comes last; sorting needs a total order.
        members[argmax(q)].push(((-sum(log_p)).min(f32::INFINITY), b));
        chosen[b] = i32::from(sum(p) > threshold);
    }
    for (members, &prior) in members.iter_mut().zip(class_prior) {
        // Both products in f32, as the reference rounds them; a NaN or a negative number becomes 0.
        let wanted = (batch as f32 * prior * rho).ceil() as usize;
        members.sort_by(|a, b| a.0.partial_cmp(&b.0).unwrap_or(Ordering::Equal));
        members.iter().take(wanted.max(1)).for_each(|&(_, b)| chosen[b] = 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen_of(
        pseudo_labels: &[f32],
        logits: &[f32],
        prior: [f32; 2],
        rho: f32,
        threshold: f32,
    ) -> [Vec<i32>; 4] {
        let batch = pseudo_labels.len() / 2;
        let permutation: Vec<i32> = (0..batch as i32).rev().collect();
        let choice = ChoiceInputs {
            classes: 2,
            threshold,
            rho,
            logits,
            pseudo_labels,
            class_prior: &prior,
            permutation: &permutation,
        };
        let mut out = [vec![9; batch], vec![9; batch], vec![9; batch], vec![9; 1]];
        let [chosen, rows, partners, count] = &mut out;
        choose(Some(&choice), ChoiceOutputs { chosen, rows, partners, count });
        out
    }

    /// Rows 0, 1, 2 are of class 0 with equal losses, row 3 of class 1. B r_0 rho = 4 * 0.5 * 0.5 = 1 gives
    /// class 0 one row, the first of equals; class 1 still gets one with r = 0.
    #[test]
    fn each_class_gives_its_share_and_at_least_one() {
        let pseudo_labels = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0];
        let [chosen, rows, partners, count] = chosen_of(&pseudo_labels, &[0.0; 8], [0.5, 0.0], 0.5, 2.0);
        assert_eq!(chosen, [1, 0, 0, 1]);
        assert_eq!(rows, [0, 3, -1, -1]);
        // Of the permutation 3 2 1 0 the numbers below 2, in its order, are 1 0: rows 3, 0.
        assert_eq!(partners, [3, 0, -1, -1]);
        assert_eq!(count, [2]);
    }

    #[test]
    fn a_confident_row_is_chosen_whatever_its_rank() {
        let pseudo_labels = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        // Row 2 has p = 1 / (1 + e^-9) > 0.99 and the least loss; row 1 p > 0.99 too; row 0 one half.
        let logits = [0.0, 0.0, 8.0, 0.0, 9.0, 0.0];
        let [chosen, ..] = chosen_of(&pseudo_labels, &logits, [0.1, 0.1], 0.1, 0.99);
        assert_eq!(chosen, [0, 1, 1]);
        let [chosen, ..] = chosen_of(&pseudo_labels, &logits, [0.1, 0.1], 0.1, 0.9999);
        assert_eq!(chosen, [0, 0, 1]);
    }

    /// Every third of 60 rows of one class has a NaN loss; sorting with an inconsistent comparison may panic.
    #[test]
    fn rows_of_nan_come_last() {
        let pseudo_labels = [1.0, 0.0].repeat(60);
        let logits: Vec<f32> = (0..60).flat_map(|b| [0.0, if b % 3 == 0 { f32::NAN } else { 0.0 }]).collect();
        let [chosen, rows, ..] = chosen_of(&pseudo_labels, &logits, [0.5, 0.5], 1.0, 2.0);
        assert_eq!(chosen.iter().sum::<i32>(), 30);
        assert!(rows[..30].iter().all(|b| b % 3 != 0), "{rows:?}");
        // With room for 50, the first ten of the NaN rows follow the 40 others.
        let [chosen, ..] = chosen_of(&pseudo_labels, &logits, [0.82, 0.0], 1.0, 2.0);
        let expected: Vec<i32> = (0..60).map(|b| i32::from(b % 3 != 0 || b < 30)).collect();
        assert_eq!(chosen, expected);
    }
}
