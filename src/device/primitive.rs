//! The primitives: everything a device must be able to run, as plain data.
//!
//! Matrices are row-major; images and activations are NHWC; convolution weights are `[Cout, kh, kw, Cin]`. A primitive
//! states its operands and its cost. The CPU twin of each is in `cpu/`, in the file named for its family.

use anyhow::Result;

use super::cpu::Call;
use super::gpu::lower::Lowering;
use super::{Access, Buffer, ConvolutionShape, Operand, Operation, Tensor};

pub use crate::ops::control;
pub use crate::ops::statistics::counter;

/// How much of a batch is there where the device decides it: the first `count[0]` images, `rows_each` rows each. What lies
/// behind is zero in activations and gradients, and stays zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupied {
    /// i32 `[1]`.
    pub count: Tensor,
    pub rows_each: usize,
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
            P::Linear { .. } => "linear",
            P::LinearGradient { .. } => "linear gradient",
            P::Add { .. } => "add",
            P::Convert { .. } => "convert",
            P::Sgd { .. } => "sgd",
        }
    }

    /// The operands and what is done to each, in a fixed order.
    fn accesses(&self) -> Vec<(Tensor, Access)> {
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
    fn arithmetic(&self) -> f64 {
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
            P::Linear { rows, inputs, outputs, .. } => 2.0 * count(rows * inputs * outputs),
            P::LinearGradient { rows, inputs, outputs, .. } => 4.0 * count(rows * inputs * outputs),
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
    fn least_traffic(&self, buffers: &[Buffer]) -> f64 {
        use Primitive as P;
        let whole = |tensor: Tensor| (buffers[tensor.0].len * buffers[tensor.0].element.bytes()) as f64;
        let touched = |tensor: Tensor| match *self {
            P::MixupChosen { weights, .. } if tensor == weights => 4.0,
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
        self.accesses()
            .into_iter()
            .map(|(tensor, access)| touched(tensor) * if access == Access::Update { 2.0 } else { 1.0 })
            .sum()
    }
}
