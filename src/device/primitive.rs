//! The primitives: everything a device must be able to run, as plain data.
//!
//! Matrices are row-major; images and activations are NHWC; convolution weights are `[Cout, kh, kw, Cin]`. A primitive
//! states its operands and its cost. The CPU twin of each is in `cpu/`, in the file named for its family.

use anyhow::Result;

use super::cpu::Call;
use super::gpu::lower::Lowering;
use super::{Access, Buffer, Operand, Operation, Tensor};

/// Positions in the step's control block of f32 values, device memory that the host writes once an epoch.
pub mod control {
    /// Learning rate of the epoch.
    pub const LEARNING_RATE: usize = 0;
    /// 1 where confidences are updated (epoch >= upd_start), else 0.
    pub const UPDATE: usize = 1;
    /// Weight of the mixed views' loss: alpha where confidences are updated, else 0.
    pub const MIXUP: usize = 2;
    /// SoLar's eta: weight of the losses of the chosen samples. 0: none are chosen.
    pub const ETA: usize = 3;
    /// SoLar's rho: share of a class's expected samples that is chosen.
    pub const RHO: usize = 4;
    /// Length of the block.
    pub const LEN: usize = 5;
}

/// Positions in the counters a training plan sums over an epoch, f32.
pub mod counter {
    /// Loss of the last step.
    pub const LAST_LOSS: usize = 0;
    /// Sum of the losses of the steps.
    pub const LOSS: usize = 1;
    /// Rows whose weak view's largest logit is the true class.
    pub const CORRECT: usize = 2;
    /// From here on [`Primitive::CountFiniteSteps`](super::Primitive::CountFiniteSteps) watches: n after n steps that were all finite,
    /// -n where step n (from 1) was the first that was not.
    pub const WATCHED: usize = 3;
    /// Logits of a step's forwards: one joint forward, or up to three of SoLar's.
    pub const LOGITS: [usize; 3] = [3, 4, 5];
    /// Losses of the samples.
    pub const LOSS_ROWS: usize = 6;
    /// Running statistics of the batchnorms.
    pub const RUNNING: usize = 7;
    /// What is watched.
    pub const WATCHED_NAMES: [&str; 5] = ["logits", "logits", "logits", "losses", "running statistics"];
    /// Length of the block.
    pub const LEN: usize = 8;
}

/// How confidence rows are renewed from the logits z of a sample's views, less the log-prior where there is one; p is their
/// softmax, s the candidate row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfidenceRule {
    /// CORR, two views: masked by the current confidence; c <- sqrt(p^w p^s) / (sum + eps).
    Corr,
    /// CORR with a debias, two views: masked by the candidate set; r = s p^w p^s / (sum + eps); c <- sqrt(r) / (sum + eps).
    CorrDebiased,
    /// PRODEN: c <- `[c>0]` p / sum, which is the softmax of z over the classes of positive confidence.
    Positive,
    /// SoLar, CC: c <- s p / sum, the softmax of z over the candidates.
    Candidates,
    /// LW: the softmax of z over the candidates, and beside it that over the other classes.
    Leveraged,
    /// CAVL: one-hot at the first candidate of largest class activation value |z - 1| z.
    ActivationValue,
}

impl ConfidenceRule {
    /// Views of a sample that it reads.
    pub fn views(self) -> usize {
        match self {
            ConfidenceRule::Corr | ConfidenceRule::CorrDebiased => 2,
            _ => 1,
        }
    }
}

/// The loss of one view with logits z, p = softmax(z), against a target row c and a candidate row s (SPEC 6).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LossKind {
    /// CORR: sum_{k: c_k=0} -ln(|1-p_k|+eps) + sum_k c_k (ln c_k - ln p_k), eps = 1e-9.
    Consistency,
    /// PRODEN, CAVL: -sum_k c_k ln p_k.
    CrossEntropy,
    /// LW with the sigmoid loss psi(z) = 1 / (1 + e^z): sum_{k in s} c_k psi(z_k) + beta sum_{k not in s} c_k psi(-z_k).
    LeveragedSigmoid { beta: f32 },
    /// LW with cross-entropy: sum_{k in s} -c_k ln p_k + beta sum_{k not in s} -c_k ln(|1-p_k|+eps).
    LeveragedCrossEntropy { beta: f32 },
    /// CC: -ln sum_{k in s} p_k; reads no target.
    CandidateSum,
}

impl LossKind {
    /// Whether it reads the candidate row.
    pub fn reads_candidates(self) -> bool {
        !matches!(self, LossKind::Consistency | LossKind::CrossEntropy)
    }
}

/// Constants of [`Primitive::Sinkhorn`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SinkhornSettings {
    /// lambda: predictions are raised to this power.
    pub power: f32,
    /// Most rounds of one attempt.
    pub rounds: usize,
    /// The error is looked at after every so many rounds.
    pub check_every: usize,
    /// Rounds end where the error is below.
    pub tolerance: f32,
    /// What the relaxed attempt takes for predictions of 0.
    pub relaxation: f32,
}

impl Default for SinkhornSettings {
    /// SoLar's.
    fn default() -> Self {
        Self { power: 3.0, rounds: 50, check_every: 10, tolerance: 0.1, relaxation: 1e-5 }
    }
}

/// Positions in what [`Primitive::Sinkhorn`] tells of itself, f32.
pub mod outcome {
    /// Rounds made, those of a failed attempt counted.
    pub const ROUNDS: usize = 0;
    /// 1 where the relaxed attempt gave the result, else 0.
    pub const RELAXED: usize = 1;
    /// Length of the block.
    pub const LEN: usize = 2;
}

/// The mixed rows of [`Primitive::SolarLoss`]: z', Q' and the gradient of z'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MixedLoss {
    pub logits: Tensor,
    pub target: Tensor,
    pub d_logits: Tensor,
}

/// One operation of a device.
#[derive(Clone, Debug, PartialEq)]
pub enum Primitive {
    /// A loss of SPEC 6 over `views` views of B samples: view v of sample b has row first + v B + b of `logits` `[R,K]`. The
    /// target of sample b is row index`[b]` of a store `target` `[N,K]`, or row b of `target` `[B,K]` without `index`;
    /// `candidates` u8 `[N,K]` are rows `index` likewise, null where the kind does not read them.
    ///
    /// The same rows of `d_logits` `[R,K]` = the gradient of the mean over B; `loss_rows` `[B]` = each sample's sum over its views.
    /// With `control`, both are multiplied by control`[MIXUP]`, the loss is added to what `loss_rows` holds, and a weight of 0
    /// gives 0 whatever the logits are.
    Loss {
        kind: LossKind,
        batch: usize,
        classes: usize,
        views: usize,
        first: usize,
        logits: Tensor,
        target: Tensor,
        candidates: Option<Tensor>,
        index: Option<Tensor>,
        control: Option<Tensor>,
        d_logits: Tensor,
        loss_rows: Tensor,
    },
    /// counters += the step's mean loss and its correct weak-view predictions; see [`counter`].
    StepStatistics {
        batch: usize,
        classes: usize,
        logits: Tensor,
        labels: Tensor,
        index: Tensor,
        loss_rows: Tensor,
        counters: Tensor,
    },
    /// Whether all of `values` f32 `[len]` are finite: counters`[slot]` = n >= 0 becomes n + 1 if they are, -(n + 1) if not; a negative
    /// one stays.
    CountFiniteSteps { len: usize, slot: usize, values: Tensor, counters: Tensor },
    /// F <- m F + (1 - m) mean over the first `rows` rows of features `[R,D]`.
    MeanFeature { rows: usize, inputs: usize, momentum: f32, features: Tensor, mean: Tensor },
    /// log_prior `[K]` = ln(softmax(W F + b) + eps), the class-prior estimate of RECORDS.
    ClassPrior { inputs: usize, classes: usize, mean: Tensor, parameters: Tensor, log_prior: Tensor },
    /// Renews the rows `index` of `confidence` by `rule` from the first rows of logits `[R,K]`, view after view of B, where
    /// control`[UPDATE]` is not 0. `candidates` u8 `[N,K]`; `log_prior` `[K]` is subtracted from the logits.
    UpdateConfidence {
        rule: ConfidenceRule,
        batch: usize,
        classes: usize,
        logits: Tensor,
        log_prior: Option<Tensor>,
        candidates: Tensor,
        index: Tensor,
        control: Tensor,
        confidence: Tensor,
    },
    /// out `[2]` = [mean of the rows' maxima of confidence `[N,K]`; fraction of rows whose first maximum is the true class]; over the
    /// candidates u8 `[N,K]` alone where they are given, no NaN being larger than anything then.
    ConfidenceStatistics {
        rows: usize,
        classes: usize,
        confidence: Tensor,
        candidates: Option<Tensor>,
        labels: Tensor,
        out: Tensor,
    },

    /// M `[B,K]` = softmax(z) s of logits `[B,K]` and the rows `index` of `candidates` u8 `[N,K]`: SoLar's predictions.
    MaskedSoftmax {
        batch: usize,
        classes: usize,
        logits: Tensor,
        candidates: Tensor,
        index: Tensor,
        out: Tensor,
    },
    /// counts `[K]` += for each class the rows of x `[R,K]` whose first maximum it is.
    CountLargest { rows: usize, classes: usize, x: Tensor, counts: Tensor },
    /// SoLar's choice of samples (SPEC 7, step 5) from weak logits `[B,K]`, pseudo-labels `refined` Q `[B,K]` and the class
    /// prior r `[K]`: for each class j the max(1, min(ceil(B r_j rho), n_j)) of least -sum Q ln p among the n_j rows whose first
    /// maximum of Q is j, the earlier row where equal, a NaN last; and each row with sum Q p > `threshold`. None where control`[ETA]`
    /// is 0.
    ///
    /// `chosen` i32 `[B]`: 1 for a chosen row, else 0. `rows` i32 `[B]`: the chosen rows ascending, -1 behind; `count` i32 `[1]`:
    /// how many. `partners` i32 `[B]`: rows in another order, -1 behind: with n chosen, those of the numbers of this step's
    /// permutation (of `permutations` i32 `[steps,B]`) below n, in its order.
    ChooseSamples {
        batch: usize,
        classes: usize,
        threshold: f32,
        logits: Tensor,
        refined: Tensor,
        class_prior: Tensor,
        control: Tensor,
        permutations: Tensor,
        step: Tensor,
        chosen: Tensor,
        rows: Tensor,
        partners: Tensor,
        count: Tensor,
    },
    /// The loss of SoLar (SPEC 7, step 6). With A the chosen rows, U the others, H(q, z) = -sum q ln softmax(z), eta from `control`:
    /// eta (mean_A H(Q, z^w) + mean_A H(Q, z^s) + mean over the first |A| mixed rows of H(Q', z')) + (1 - eta) mean_U H(c, z^w),
    /// a mean over nothing being 0; and mean H(c, z^w) where A is empty. Logits, their gradients and Q, Q' are `[B,K]`, c the rows
    /// `index` of `confidence`. `loss_rows` `[B]`: their sum over B is the loss.
    SolarLoss {
        batch: usize,
        classes: usize,
        weak: Tensor,
        strong: Tensor,
        refined: Tensor,
        mixed: Option<MixedLoss>,
        confidence: Tensor,
        index: Tensor,
        chosen: Tensor,
        count: Tensor,
        control: Tensor,
        d_weak: Tensor,
        d_strong: Tensor,
        loss_rows: Tensor,
    },

    /// The label refinery of SoLar (SPEC 7): `refined` `[B,K]` = pseudo-labels of `predictions` M `[B,K]` whose class frequencies over
    /// P = [`queue` `[L,K]`; M] follow `class_prior` r `[K]`. The queue takes part once it is full, which is when its last row is
    /// not all zero: read on the device, so that the shapes and the launch stay the same throughout a run.
    ///
    /// Of n rows with A = P^power: b = 1/n; then rounds of a = r / (A^T b), b = (1/n) / (A a); the result is n a_k A_jk b_j. After
    /// every `check_every`-th round the error is sum a + sum b (at first 1e6); no round is begun below `tolerance`. A NaN error, or a
    /// result that is not finite, starts the one relaxed attempt: zeros of P become `relaxation`, and the result is 0 there.
    /// Vectors are f32: overflow is what makes an infeasible problem show. `outcome` f32, see [`outcome`].
    ///
    /// `barrier` i32 `[2]` belongs to devices that meet at a barrier within the primitive: zero before the first run, never
    /// touched by others.
    Sinkhorn {
        batch: usize,
        queue_rows: usize,
        classes: usize,
        settings: SinkhornSettings,
        predictions: Tensor,
        queue: Option<Tensor>,
        class_prior: Tensor,
        barrier: Tensor,
        refined: Tensor,
        outcome: Tensor,
    },
}

impl Operation for Primitive {
    fn name(&self) -> &'static str {
        Primitive::name(self)
    }

    fn operands(&self) -> Vec<Operand> {
        let operand = |(tensor, access)| Operand { tensor, access, touched: None };
        self.accesses().into_iter().map(operand).collect()
    }

    fn flops(&self) -> f64 {
        self.arithmetic()
    }

    fn least_bytes(&self, buffers: &[Buffer]) -> f64 {
        self.least_traffic(buffers)
    }

    fn run(&self, cpu: &mut Call<'_>) -> Result<()> {
        cpu.run(self)
    }

    fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
        gpu.lower_primitive(self)
    }

    fn lower_with(&self, next: &dyn Operation, gpu: &mut Lowering<'_>) -> Result<bool> {
        next.downcast::<Primitive>().map_or(Ok(false), |next| gpu.lower_two_primitives(self, next))
    }
}

impl Primitive {
    /// A short name, for errors and profiles.
    pub fn name(&self) -> &'static str {
        use Primitive as P;
        match self {
            P::Loss { .. } => "loss",
            P::StepStatistics { .. } => "step statistics",
            P::CountFiniteSteps { .. } => "finite steps",
            P::MeanFeature { .. } => "mean feature",
            P::ClassPrior { .. } => "class prior",
            P::UpdateConfidence { .. } => "update confidence",
            P::ConfidenceStatistics { .. } => "confidence statistics",
            P::MaskedSoftmax { .. } => "masked softmax",
            P::CountLargest { .. } => "count largest",
            P::ChooseSamples { .. } => "choose samples",
            P::SolarLoss { .. } => "solar loss",
            P::Sinkhorn { .. } => "sinkhorn",
        }
    }

    /// The operands and what is done to each, in a fixed order.
    fn accesses(&self) -> Vec<(Tensor, Access)> {
        use Access::{Read, Update, Write};
        use Primitive as P;
        let mut list = Vec::with_capacity(9);
        let mut add = |tensor: Tensor, access: Access| list.push((tensor, access));
        match *self {
            P::Loss { logits, target, candidates, index, control, first, d_logits, loss_rows, .. } => {
                add(logits, Read);
                add(target, Read);
                [candidates, index, control].into_iter().flatten().for_each(|tensor| add(tensor, Read));
                add(d_logits, if first == 0 { Write } else { Update });
                add(loss_rows, if control.is_some() { Update } else { Write });
            }
            P::StepStatistics { logits, labels, index, loss_rows, counters, .. } => {
                add(logits, Read);
                add(labels, Read);
                add(index, Read);
                add(loss_rows, Read);
                add(counters, Update);
            }
            P::CountFiniteSteps { values, counters, .. } => {
                add(values, Read);
                add(counters, Update);
            }
            P::MeanFeature { features, mean, .. } => {
                add(features, Read);
                add(mean, Update);
            }
            P::ClassPrior { mean, parameters, log_prior, .. } => {
                add(mean, Read);
                add(parameters, Read);
                add(log_prior, Write);
            }
            P::UpdateConfidence { logits, log_prior, candidates, index, control, confidence, .. } => {
                add(logits, Read);
                log_prior.into_iter().for_each(|p| add(p, Read));
                add(candidates, Read);
                add(index, Read);
                add(control, Read);
                add(confidence, Update);
            }
            P::ConfidenceStatistics { confidence, candidates, labels, out, .. } => {
                add(confidence, Read);
                candidates.into_iter().for_each(|candidates| add(candidates, Read));
                add(labels, Read);
                add(out, Write);
            }
            P::MaskedSoftmax { logits, candidates, index, out, .. } => {
                add(logits, Read);
                add(candidates, Read);
                add(index, Read);
                add(out, Write);
            }
            P::CountLargest { x, counts, .. } => {
                add(x, Read);
                add(counts, Update);
            }
            P::ChooseSamples {
                logits,
                refined,
                class_prior,
                control,
                permutations,
                step,
                chosen,
                rows,
                partners,
                count,
                ..
            } => {
                let read = [logits, refined, class_prior, control, permutations, step];
                read.into_iter().for_each(|tensor| add(tensor, Read));
                [chosen, rows, partners, count].into_iter().for_each(|tensor| add(tensor, Write));
            }
            P::SolarLoss {
                weak,
                strong,
                refined,
                mixed,
                confidence,
                index,
                chosen,
                count,
                control,
                d_weak,
                d_strong,
                loss_rows,
                ..
            } => {
                let read = [weak, strong, refined, confidence, index, chosen, count, control];
                read.into_iter().for_each(|tensor| add(tensor, Read));
                if let Some(MixedLoss { logits, target, d_logits }) = mixed {
                    add(logits, Read);
                    add(target, Read);
                    add(d_logits, Write);
                }
                [d_weak, d_strong, loss_rows].into_iter().for_each(|tensor| add(tensor, Write));
            }
            P::Sinkhorn { predictions, queue, class_prior, barrier, refined, outcome, .. } => {
                add(predictions, Read);
                queue.into_iter().for_each(|q| add(q, Read));
                add(class_prior, Read);
                add(barrier, Update);
                add(refined, Write);
                add(outcome, Write);
            }
        }
        list
    }

    /// Floating-point operations: a multiply-add counts two. Matrix work is exact; of the rest, the arithmetic of the formula.
    /// Where the number of rounds depends on the data, the most there can be.
    fn arithmetic(&self) -> f64 {
        use Primitive as P;
        let count = |n: usize| n as f64;
        match *self {
            P::Loss { batch, classes, views, .. } => count(views * batch * classes) * 20.0,
            P::StepStatistics { batch, classes, .. } => count(batch * classes),
            P::CountFiniteSteps { len, .. } => count(len),
            P::MeanFeature { rows, inputs, .. } => count(rows * inputs),
            P::ClassPrior { inputs, classes, .. } => 2.0 * count(inputs * classes),
            P::UpdateConfidence { rule, batch, classes, .. } => count(rule.views() * batch * classes) * 10.0,
            P::MaskedSoftmax { batch, classes, .. } => count(batch * classes) * 5.0,
            P::CountLargest { rows, classes, .. } => count(rows * classes),
            // A row's loss, then its rank among the rows of its class.
            P::ChooseSamples { batch, classes, .. } => count(batch * classes) * 10.0 + count(batch * batch),
            P::SolarLoss { batch, classes, mixed, .. } => {
                count(batch * classes) * if mixed.is_some() { 30.0 } else { 20.0 }
            }
            P::ConfidenceStatistics { rows, classes, .. } => count(rows * classes),
            P::Sinkhorn { batch, queue_rows, classes, settings, .. } => {
                count((batch + queue_rows) * classes) * (4.0 * count(settings.rounds) + 5.0)
            }
        }
    }

    /// The least memory traffic: each operand's bytes once for reading and once for writing, of row-indexed stores only
    /// the rows of the batch.
    fn least_traffic(&self, buffers: &[Buffer]) -> f64 {
        use Primitive as P;
        let whole = |tensor: Tensor| (buffers[tensor.0].len * buffers[tensor.0].element.bytes()) as f64;
        let touched = |tensor: Tensor| match *self {
            P::Loss { batch, classes, target, index: Some(_), .. } if tensor == target => {
                (batch * classes * 4) as f64
            }
            P::Loss { batch, classes, candidates, .. } if Some(tensor) == candidates => {
                (batch * classes) as f64
            }
            // Written rows only.
            P::Loss { batch, classes, views, first, logits, d_logits, .. }
                if tensor == logits || tensor == d_logits =>
            {
                let bytes = (views * batch * classes * 4) as f64;
                if first > 0 && tensor == d_logits { bytes / 2.0 } else { bytes }
            }
            P::SolarLoss { batch, classes, confidence, .. } if tensor == confidence => {
                (batch * classes * 4) as f64
            }
            P::MaskedSoftmax { batch, classes, candidates, .. } if tensor == candidates => {
                (batch * classes) as f64
            }
            P::ChooseSamples { batch, permutations, .. } if tensor == permutations => (batch * 4) as f64,
            P::UpdateConfidence { batch, classes, confidence, .. } if tensor == confidence => {
                (batch * classes * 4) as f64
            }
            P::UpdateConfidence { batch, classes, candidates, .. } if tensor == candidates => {
                (batch * classes) as f64
            }
            _ => whole(tensor),
        };
        self.accesses()
            .into_iter()
            .map(|(tensor, access)| touched(tensor) * if access == Access::Update { 2.0 } else { 1.0 })
            .sum()
    }
}
