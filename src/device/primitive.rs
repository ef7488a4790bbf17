//! The primitives: everything a device must be able to run, as plain data.
//!
//! Matrices are row-major; images and activations are NHWC; convolution weights are `[Cout, kh, kw, Cin]`. A primitive
//! states its operands ([`Primitive::operands`], which the memory planner uses) and its cost ([`Primitive::flops`],
//! [`Primitive::least_bytes`]). The CPU twin of each is in `cpu/`, in the file named for its family.

use super::{Buffer, ConvolutionShape};

/// A tensor of a tape, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tensor(pub usize);

/// What a primitive does to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// Reads what was there and leaves something new: accumulation, state.
    Update,
}

/// Positions in the step's control block of f32 values, device memory that the host writes once an epoch.
pub mod control {
    pub use crate::device::gpu::kernels::control::{
        CONTROL_LEN as LEN, ETA, LEARNING_RATE, MIXUP, RHO, UPDATE,
    };
}

/// Positions in the counters a training plan sums over an epoch, f32.
pub mod counter {
    pub use crate::device::gpu::kernels::counter::{CORRECT, LAST_LOSS, LOSS, WATCHED};

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

/// How much of a batch is there where the device decides it: the first `count[0]` images, `rows_each` rows each. What lies
/// behind is zero in activations and gradients, and stays zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied {
    /// i32 `[1]`.
    pub count: Tensor,
    pub rows_each: usize,
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
    /// index`[b]` = order`[step * batch + b]`: the samples of this step. `step` i32 `[1]`.
    SelectBatch { batch: usize, order: Tensor, step: Tensor, index: Tensor },
    /// step += 1, back to 0 at `modulus`.
    AdvanceStep { step: Tensor, modulus: Option<usize> },
    /// Views of this step's samples, augmented and normalised: `images` u8 `[N,H,W,3]`, `parameters` u8 [N, 2, bytes of
    /// ViewParameters], index i32 `[B]` -> the first V B rows of `views` `[R,S,S,3]`, the samples' view `first` (0 weak, 1
    /// strong) in the first B, V = `count`. `normalisation` f32 `[6]`, mean then standard deviation.
    Augment {
        batch: usize,
        first: usize,
        count: usize,
        source: [usize; 2],
        size: usize,
        images: Tensor,
        parameters: Tensor,
        index: Tensor,
        normalisation: Tensor,
        views: Tensor,
    },
    /// Un-augmented images first..first+batch, first = step * batch, of `images` u8 `[N,H,W,3]`, normalised into
    /// x f32 `[B,H,W,3]`; past the end the last image is repeated.
    NormaliseImages {
        batch: usize,
        pixels: usize,
        images: Tensor,
        step: Tensor,
        normalisation: Tensor,
        x: Tensor,
    },
    /// Rows of `rows` `[B,K]` copied into `store` `[M,K]` from row step * B.
    StoreRows { batch: usize, columns: usize, rows: Tensor, step: Tensor, store: Tensor },

    /// out `[R,len]` = w x + (1 - w) x', row by row: w and each row's partner x' are this step's, from `weights` f32 `[steps]` and
    /// `permutations` i32 `[steps,B]`, of 0..B each. The R rows are groups of B (weak views, strong views), which share both.
    /// With `index` i32 `[B]`, R is B and x is a store `[N,len]` whose rows `index` are mixed: confidences. `out` has the type of x.
    /// Without `out`, x is `[2R,len]` and the mixed rows are written behind those they were mixed from.
    Mixup {
        batch: usize,
        rows: usize,
        len: usize,
        weights: Tensor,
        permutations: Tensor,
        step: Tensor,
        index: Option<Tensor>,
        x: Tensor,
        out: Option<Tensor>,
    },
    /// Mixup of rows that the device chose: out`[i]` = w x`[rows[i]]` + (1 - w) x`[partners[i]]` for i < count, 0 behind. w is this
    /// step's, from `weights` f32 `[steps]`; `rows` and `partners` i32 `[B]`, `count` i32 `[1]`; x and `out` `[B,len]`.
    MixupChosen {
        batch: usize,
        len: usize,
        weights: Tensor,
        step: Tensor,
        rows: Tensor,
        partners: Tensor,
        count: Tensor,
        x: Tensor,
        out: Tensor,
    },

    /// y = convolution of x `[N,H,W,Cin]` with w `[Cout,kh,kw,Cin]`.
    Convolution { shape: ConvolutionShape, x: Tensor, w: Tensor, y: Tensor },
    /// dx = (or +=) the gradient of [`Primitive::Convolution`] with respect to its input.
    ConvolutionDataGradient { shape: ConvolutionShape, dy: Tensor, w: Tensor, dx: Tensor, accumulate: bool },
    /// dw = the gradient of [`Primitive::Convolution`] with respect to its weights.
    ConvolutionWeightGradient { shape: ConvolutionShape, x: Tensor, dy: Tensor, dw: Tensor },

    /// Training batchnorm over `rows` of `channels`: y = g (x - mean) / sqrt(var + eps) + b (+ residual), then ReLU if asked.
    /// `affine` = `[g; b]`, `running` = `[mean; var]` updated with momentum 0.1 and the unbiased variance, `batch` =
    /// `[mean; 1/sqrt(var + eps)]` kept for the gradient. With `occupied`, statistics are those of the rows that are there, y is 0
    /// behind them, and without any row nothing is learnt: `running` stays, `batch` is 0.
    BatchNorm {
        rows: usize,
        channels: usize,
        x: Tensor,
        affine: Tensor,
        running: Tensor,
        batch: Tensor,
        residual: Option<Tensor>,
        relu: bool,
        occupied: Option<Occupied>,
        y: Tensor,
    },
    /// Batchnorm with the running statistics.
    BatchNormInference {
        rows: usize,
        channels: usize,
        x: Tensor,
        affine: Tensor,
        running: Tensor,
        residual: Option<Tensor>,
        relu: bool,
        y: Tensor,
    },
    /// Gradient of [`Primitive::BatchNorm`]: dx from dy masked where the ReLU gave 0, and d_affine = `[sum dy xhat; sum dy]`.
    /// With a `residual`, dy is masked *in place*, which makes it the residual's gradient as well; without one, what
    /// dy holds afterwards is not defined. With `occupied`, dy is 0 behind the rows that are there, and so is dx.
    BatchNormGradient {
        rows: usize,
        channels: usize,
        x: Tensor,
        y: Tensor,
        relu: bool,
        residual: bool,
        occupied: Option<Occupied>,
        affine: Tensor,
        batch: Tensor,
        dy: Tensor,
        d_affine: Tensor,
        dx: Tensor,
    },

    /// y `[N,C]` = mean over the positions of x `[N,P,C]`.
    AveragePool { images: usize, positions: usize, channels: usize, x: Tensor, y: Tensor },
    /// dx `[N,P,C]` = dy `[N,C]` / P.
    AveragePoolGradient { images: usize, positions: usize, channels: usize, dy: Tensor, dx: Tensor },

    /// y `[R,K]` = x `[R,D]` W^T + b; `parameters` = `[W (K x D); b (K)]`.
    Linear { rows: usize, inputs: usize, outputs: usize, x: Tensor, parameters: Tensor, y: Tensor },
    /// d_parameters = `[dy^T x; column sums of dy]`, dx = dy W.
    LinearGradient {
        rows: usize,
        inputs: usize,
        outputs: usize,
        x: Tensor,
        parameters: Tensor,
        dy: Tensor,
        d_parameters: Tensor,
        dx: Tensor,
    },

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

    /// into `[len]` += x `[len]`.
    Add { len: usize, x: Tensor, into: Tensor },
    /// `to` `[len]` = `from` `[len]`, rounded to the type of `to`.
    Convert { len: usize, from: Tensor, to: Tensor },

    /// SGD as PyTorch's: g += wd p; v = mu v + g; p -= lr v, lr from `control`. `copy` = the new p, rounded.
    Sgd {
        len: usize,
        momentum: f32,
        weight_decay: f32,
        control: Tensor,
        gradients: Tensor,
        velocity: Tensor,
        parameters: Tensor,
        copy: Option<Tensor>,
    },
}

impl Primitive {
    /// A short name, for errors and profiles.
    pub fn name(&self) -> &'static str {
        use Primitive as P;
        match self {
            P::SelectBatch { .. } => "select batch",
            P::AdvanceStep { .. } => "advance step",
            P::Augment { .. } => "augment",
            P::NormaliseImages { .. } => "normalise images",
            P::StoreRows { .. } => "store rows",
            P::Mixup { .. } => "mixup",
            P::MixupChosen { .. } => "mixup of chosen rows",
            P::Convolution { .. } => "convolution",
            P::ConvolutionDataGradient { .. } => "convolution data gradient",
            P::ConvolutionWeightGradient { .. } => "convolution weight gradient",
            P::BatchNorm { .. } => "batchnorm",
            P::BatchNormInference { .. } => "batchnorm inference",
            P::BatchNormGradient { .. } => "batchnorm gradient",
            P::AveragePool { .. } => "average pool",
            P::AveragePoolGradient { .. } => "average pool gradient",
            P::Linear { .. } => "linear",
            P::LinearGradient { .. } => "linear gradient",
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
            P::Add { .. } => "add",
            P::Convert { .. } => "convert",
            P::Sgd { .. } => "sgd",
        }
    }

    /// The operands and what is done to each, in a fixed order.
    pub fn operands(&self) -> Vec<(Tensor, Access)> {
        use Access::{Read, Update, Write};
        use Primitive as P;
        let mut list = Vec::with_capacity(9);
        let mut add = |tensor: Tensor, access: Access| list.push((tensor, access));
        match *self {
            P::SelectBatch { order, step, index, .. } => {
                add(order, Read);
                add(step, Read);
                add(index, Write);
            }
            P::AdvanceStep { step, .. } => add(step, Update),
            P::Augment { images, parameters, index, normalisation, views, .. } => {
                add(images, Read);
                add(parameters, Read);
                add(index, Read);
                add(normalisation, Read);
                add(views, Write);
            }
            P::NormaliseImages { images, step, normalisation, x, .. } => {
                add(images, Read);
                add(step, Read);
                add(normalisation, Read);
                add(x, Write);
            }
            P::StoreRows { rows, step, store, .. } => {
                add(rows, Read);
                add(step, Read);
                add(store, Update);
            }
            P::Mixup { weights, permutations, step, index, x, out, .. } => {
                add(weights, Read);
                add(permutations, Read);
                add(step, Read);
                index.into_iter().for_each(|i| add(i, Read));
                add(x, if out.is_some() { Read } else { Update });
                out.into_iter().for_each(|out| add(out, Write));
            }
            P::MixupChosen { weights, step, rows, partners, count, x, out, .. } => {
                [weights, step, rows, partners, count, x].into_iter().for_each(|tensor| add(tensor, Read));
                add(out, Write);
            }
            P::Convolution { x, w, y, .. } => {
                add(x, Read);
                add(w, Read);
                add(y, Write);
            }
            P::ConvolutionDataGradient { dy, w, dx, accumulate, .. } => {
                add(dy, Read);
                add(w, Read);
                add(dx, if accumulate { Update } else { Write });
            }
            P::ConvolutionWeightGradient { x, dy, dw, .. } => {
                add(x, Read);
                add(dy, Read);
                add(dw, Write);
            }
            P::BatchNorm { x, affine, running, batch, residual, occupied, y, .. } => {
                occupied.into_iter().for_each(|part| add(part.count, Read));
                add(x, Read);
                add(affine, Read);
                add(running, Update);
                add(batch, Write);
                residual.into_iter().for_each(|r| add(r, Read));
                add(y, Write);
            }
            P::BatchNormInference { x, affine, running, residual, y, .. } => {
                add(x, Read);
                add(affine, Read);
                add(running, Read);
                residual.into_iter().for_each(|r| add(r, Read));
                add(y, Write);
            }
            P::BatchNormGradient { x, y, affine, batch, dy, d_affine, dx, relu, occupied, .. } => {
                occupied.into_iter().for_each(|part| add(part.count, Read));
                add(x, Read);
                if relu {
                    add(y, Read);
                }
                add(affine, Read);
                add(batch, Read);
                add(dy, if relu { Update } else { Read });
                add(d_affine, Write);
                add(dx, Write);
            }
            P::AveragePool { x, y, .. } => {
                add(x, Read);
                add(y, Write);
            }
            P::AveragePoolGradient { dy, dx, .. } => {
                add(dy, Read);
                add(dx, Write);
            }
            P::Linear { x, parameters, y, .. } => {
                add(x, Read);
                add(parameters, Read);
                add(y, Write);
            }
            P::LinearGradient { x, parameters, dy, d_parameters, dx, .. } => {
                add(x, Read);
                add(parameters, Read);
                add(dy, Read);
                add(d_parameters, Write);
                add(dx, Write);
            }
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
            P::Add { x, into, .. } => {
                add(x, Read);
                add(into, Update);
            }
            P::Convert { from, to, .. } => {
                add(from, Read);
                add(to, Write);
            }
            P::Sgd { control, gradients, velocity, parameters, copy, .. } => {
                add(control, Read);
                add(gradients, Read);
                add(velocity, Update);
                add(parameters, Update);
                copy.into_iter().for_each(|c| add(c, Write));
            }
        }
        list
    }

    /// Floating-point operations: a multiply-add counts two. Matrix work is exact; of the rest, the arithmetic of the formula.
    /// Where the number of rounds depends on the data, the most there can be.
    pub fn flops(&self) -> f64 {
        use Primitive as P;
        let count = |n: usize| n as f64;
        match *self {
            P::Convolution { shape, .. }
            | P::ConvolutionDataGradient { shape, .. }
            | P::ConvolutionWeightGradient { shape, .. } => shape.flops(),
            P::BatchNorm { rows, channels, residual, relu, .. } => {
                count(rows * channels)
                    * (5.0 + f64::from(u8::from(residual.is_some())) + f64::from(u8::from(relu)))
            }
            P::BatchNormInference { rows, channels, residual, relu, .. } => {
                count(rows * channels)
                    * (2.0 + f64::from(u8::from(residual.is_some())) + f64::from(u8::from(relu)))
            }
            P::BatchNormGradient { rows, channels, .. } => count(rows * channels) * 9.0,
            P::AveragePool { images, positions, channels, .. } => count(images * positions * channels),
            P::AveragePoolGradient { images, channels, .. } => count(images * channels),
            P::Linear { rows, inputs, outputs, .. } => 2.0 * count(rows * inputs * outputs),
            P::LinearGradient { rows, inputs, outputs, .. } => 4.0 * count(rows * inputs * outputs),
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
            P::Mixup { rows, len, .. } => 3.0 * count(rows * len),
            P::MixupChosen { batch, len, .. } => 3.0 * count(batch * len),
            P::Add { len, .. } => count(len),
            P::Sgd { len, .. } => count(len) * 6.0,
            P::SelectBatch { .. }
            | P::AdvanceStep { .. }
            | P::Convert { .. }
            | P::Augment { .. }
            | P::NormaliseImages { .. }
            | P::StoreRows { .. } => 0.0,
        }
    }

    /// The least memory traffic: each operand's bytes once for reading and once for writing, of row-indexed stores only
    /// the rows of the batch.
    pub fn least_bytes(&self, buffers: &[Buffer]) -> f64 {
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
            P::MixupChosen { weights, .. } if tensor == weights => 4.0,
            P::UpdateConfidence { batch, classes, confidence, .. } if tensor == confidence => {
                (batch * classes * 4) as f64
            }
            P::UpdateConfidence { batch, classes, candidates, .. } if tensor == candidates => {
                (batch * classes) as f64
            }
            P::Augment { batch, source, images, .. } if tensor == images => {
                (batch * source[0] * source[1] * 3) as f64
            }
            P::NormaliseImages { batch, pixels, images, .. } if tensor == images => {
                (batch * pixels * 3) as f64
            }
            P::SelectBatch { batch, order, .. } if tensor == order => (batch * 4) as f64,
            P::StoreRows { batch, columns, store, .. } if tensor == store => (batch * columns * 2) as f64,
            P::Mixup { rows, len, x, index: Some(_), .. } if tensor == x => (rows * len * 4) as f64,
            // The first half is read, the second written.
            P::Mixup { x, out: None, .. } if tensor == x => whole(x) / 2.0,
            P::Mixup { batch, permutations, .. } if tensor == permutations => (batch * 4) as f64,
            P::Mixup { weights, .. } if tensor == weights => 4.0,
            _ => whole(tensor),
        };
        self.operands()
            .into_iter()
            .map(|(tensor, access)| touched(tensor) * if access == Access::Update { 2.0 } else { 1.0 })
            .sum()
    }
}
