//! The loss over chosen and other samples.

use anyhow::Result;

use super::ETA;
use crate::device::cpu::Call;
use crate::device::gpu::kernels::solar::{SOLAR_LOSS, SolarLoss as Parameters};
use crate::device::gpu::lower::Lowering;
use crate::device::{Operand, Operation, Tensor};
use crate::ops::loss::{CrossEntropy, LossRow, RowLoss};
use crate::ops::rows::{Softmax, row_threads};

/// The loss of SoLar (docs/spec.md, section 7, step 6). With A the chosen rows, U the others, H(q, z) = -sum
/// q ln softmax(z) and eta from `control`, it is eta (mean_A H(Q, z^w) + mean_A H(Q, z^s) + mean over the
/// first |A| mixed rows of H(Q', z')) + (1 - eta) mean_U H(c, z^w), where an empty mean is 0. If A is empty
/// it is mean H(c, z^w). Logits, their gradients, Q and Q' are `[B,K]`; c is the rows `index` of
/// `confidence`. The sum of `loss_rows` `[B]`, divided by B, is the loss.
#[derive(Clone, Debug, PartialEq)]
pub struct SolarLoss {
    /// Samples B.
    pub batch: usize,
    /// Classes K.
    pub classes: usize,
    /// z^w, f32 `[B,K]`.
    pub weak: Tensor,
    /// z^s, f32 `[B,K]`.
    pub strong: Tensor,
    /// Q, f32 `[B,K]`.
    pub pseudo_labels: Tensor,
    /// The mixed rows, if views are mixed.
    pub mixed: Option<MixedLoss>,
    /// The store of confidence rows c, f32 `[N,K]`.
    pub confidence: Tensor,
    /// The samples of the step, i32 `[B]`.
    pub index: Tensor,
    /// i32 `[B]`: 1 for a chosen row, else 0.
    pub chosen: Tensor,
    /// i32 `[1]`: how many are chosen.
    pub count: Tensor,
    /// The step's control block, f32, with eta at [`ETA`].
    pub control: Tensor,
    /// Gradient of z^w, f32 `[B,K]`.
    pub d_weak: Tensor,
    /// Gradient of z^s, f32 `[B,K]`.
    pub d_strong: Tensor,
    /// f32 `[B]`.
    pub loss_rows: Tensor,
}

/// The mixed rows of [`SolarLoss`]: z', Q' and the gradient of z'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixedLoss {
    /// z', f32 `[B,K]`.
    pub logits: Tensor,
    /// Q', f32 `[B,K]`.
    pub target: Tensor,
    /// Gradient of z', f32 `[B,K]`.
    pub d_logits: Tensor,
}

impl Operation for SolarLoss {
    fn name(&self) -> &'static str {
        "solar loss"
    }

    fn operands(&self) -> Vec<Operand> {
        let mut operands = vec![
            Operand::read(self.weak),
            Operand::read(self.strong),
            Operand::read(self.pseudo_labels),
            Operand::read(self.confidence).touching(self.batch * self.classes),
            Operand::read(self.index),
            Operand::read(self.chosen),
            Operand::read(self.count),
            Operand::read(self.control),
        ];
        if let Some(MixedLoss { logits, target, d_logits }) = self.mixed {
            operands.extend([Operand::read(logits), Operand::read(target), Operand::write(d_logits)]);
        }
        operands.extend([self.d_weak, self.d_strong, self.loss_rows].map(Operand::write));
        operands
    }

    fn flops(&self) -> f64 {
        (self.batch * self.classes) as f64 * if self.mixed.is_some() { 30.0 } else { 20.0 }
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        let (logits, target) = (
            cpu.optional(self.mixed.map(|mixed| mixed.logits))?,
            cpu.optional(self.mixed.map(|mixed| mixed.target))?,
        );
        let operands = LossOperands {
            classes: self.classes,
            eta: cpu.f32(self.control)?[ETA],
            weak: &cpu.f32(self.weak)?,
            strong: &cpu.f32(self.strong)?,
            pseudo_labels: &cpu.f32(self.pseudo_labels)?,
            mixed: logits.as_deref().zip(target.as_deref()).map(|(logits, target)| [logits, target]),
            confidence: &cpu.f32(self.confidence)?,
            index: &cpu.i32(self.index)?,
            chosen: &cpu.i32(self.chosen)?,
            count: cpu.i32(self.count)?[0] as usize,
        };
        let mut d_mixed = self.mixed.map(|mixed| cpu.f32_mut(mixed.d_logits)).transpose()?;
        let results = LossOutputs {
            d_weak: &mut cpu.f32_mut(self.d_weak)?,
            d_strong: &mut cpu.f32_mut(self.d_strong)?,
            d_mixed: d_mixed.as_deref_mut(),
            loss_rows: &mut cpu.f32_mut(self.loss_rows)?,
        };
        loss(&operands, results);
        Ok(())
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        let mixed = self.mixed;
        let parameters = Parameters {
            classes: self.classes,
            weak: gpu.address(self.weak),
            strong: gpu.address(self.strong),
            pseudo_labels: gpu.address(self.pseudo_labels),
            mixed: gpu.optional(mixed.map(|mixed| mixed.logits)),
            mixed_target: gpu.optional(mixed.map(|mixed| mixed.target)),
            confidence: gpu.address(self.confidence),
            index: gpu.address(self.index),
            chosen: gpu.address(self.chosen),
            count: gpu.address(self.count),
            control: gpu.address(self.control),
            d_weak: gpu.address(self.d_weak),
            d_strong: gpu.address(self.d_strong),
            d_mixed: gpu.optional(mixed.map(|mixed| mixed.d_logits)),
            loss_rows: gpu.address(self.loss_rows),
        };
        gpu.launch(SOLAR_LOSS.linear(self.batch, row_threads(self.classes), parameters));
        Ok(())
    }
}

/// The operands of [`loss`].
struct LossOperands<'a> {
    classes: usize,
    eta: f32,
    weak: &'a [f32],
    strong: &'a [f32],
    pseudo_labels: &'a [f32],
    /// Mixed logits and their targets.
    mixed: Option<[&'a [f32]; 2]>,
    confidence: &'a [f32],
    index: &'a [i32],
    chosen: &'a [i32],
    count: usize,
}

/// The gradients and losses that [`loss`] writes.
struct LossOutputs<'a> {
    d_weak: &'a mut [f32],
    d_strong: &'a mut [f32],
    d_mixed: Option<&'a mut [f32]>,
    loss_rows: &'a mut [f32],
}

/// The loss of a batch of B rows; `loss_rows` sum to B times it.
fn loss(operands: &LossOperands<'_>, results: LossOutputs<'_>) {
    let LossOperands { classes, eta, weak, strong, pseudo_labels, mixed, confidence, index, chosen, count } =
        *operands;
    let LossOutputs { d_weak, d_strong, mut d_mixed, loss_rows } = results;
    let batch = index.len();
    // Weights of a chosen and of another row; a batch without chosen rows learns from all rows equally.
    let inside = if count == 0 { 0.0 } else { eta / count as f32 };
    let outside = if count == 0 { 1.0 / batch as f32 } else { (1.0 - eta) / (batch - count).max(1) as f32 };
    let mut softmax = Softmax::new(classes);
    let mut term = |weight: f32, logits: &[f32], target: &[f32], d_logits: &mut [f32]| {
        let row = LossRow { logits, target, candidates: &[] };
        f64::from(weight) * CrossEntropy.row(&row, &mut softmax, weight, d_logits)
    };
    d_strong.fill(0.0);
    if let Some(d_mixed) = &mut d_mixed {
        d_mixed.fill(0.0);
    }
    for (b, loss) in loss_rows.iter_mut().enumerate() {
        let at = b * classes..(b + 1) * classes;
        let mut sum = if chosen[b] != 0 {
            let q = &pseudo_labels[at.clone()];
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

    #[test]
    fn without_chosen_rows_every_row_counts_alike() {
        let (mut d_weak, mut d_strong, mut rows) = ([9.0; 4], [9.0; 4], [9.0; 2]);
        let operands = LossOperands {
            classes: 2,
            eta: 0.9,
            weak: &[0.0; 4],
            strong: &[0.0; 4],
            pseudo_labels: &[0.0; 4],
            mixed: None,
            confidence: &[1.0, 0.0, 0.0, 1.0],
            index: &[1, 0],
            chosen: &[0, 0],
            count: 0,
        };
        let results =
            LossOutputs { d_weak: &mut d_weak, d_strong: &mut d_strong, d_mixed: None, loss_rows: &mut rows };
        loss(&operands, results);
        // p = 1/2: the gradient is (p - c) / B, the loss ln 2 for each row.
        assert_eq!(d_weak, [0.25, -0.25, -0.25, 0.25]);
        assert_eq!(d_strong, [0.0; 4]);
        assert!(rows.iter().all(|row| (row - 2f32.ln()).abs() < 1e-6));
    }
}
