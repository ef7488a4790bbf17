//! Recording the network on a tape.

use super::architecture::ConvolutionLayer;
use super::{Architecture, Parameters};
use crate::autograd::{Add, Tape};
use crate::device::{Buffer, Tensor};
use crate::ops::batchnorm::{Epilogue, ValidRows, batchnorm, batchnorm_inference};
use crate::ops::convolution::{ConvolutionShape, convolution};
use crate::ops::linear::linear;
use crate::ops::pooling::average_pool;
use crate::optim::sgd::Sgd;

/// How batchnorm behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Batch statistics, running statistics updated, differentiable.
    Training(Pass),
    /// Running statistics.
    Evaluation,
}

/// One of the forwards of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// From 0; the gradients of each have memory of their own ([`Parameters::gradients_of`]).
    pub number: usize,
    /// How many images are there, i32 `[1]`, where the device decides it: the first ones, and zeros behind.
    pub count: Option<Tensor>,
}

/// What a forward pass gives.
pub struct Outputs {
    /// Pooled features `[batch, features]`.
    pub features: Tensor,
    /// Logits `[batch, classes]`.
    pub logits: Tensor,
    /// The classifier's parameters `[W (classes x features); b]`.
    pub classifier: Tensor,
}

/// A network being recorded for one batch size.
struct Recorder<'a> {
    tape: &'a mut Tape,
    parameters: &'a Parameters,
    mode: Mode,
    batch: usize,
}

/// An activation `[batch, size, size, channels]`.
#[derive(Clone, Copy)]
struct Activation {
    tensor: Tensor,
    size: usize,
}

impl Recorder<'_> {
    /// Where this forward's gradients go.
    fn gradients(&self) -> Buffer {
        match self.mode {
            Mode::Training(pass) => self.parameters.gradients_of(pass.number),
            Mode::Evaluation => self.parameters.gradients,
        }
    }

    fn parameter(&mut self, name: &str, len: usize) -> Tensor {
        let p = self.parameters;
        self.tape.parameter(p.part(p.values, name, len), p.part(self.gradients(), name, len))
    }

    /// A convolution's weights as it reads them: the rounded copy where there is one.
    fn weights(&mut self, name: &str, len: usize) -> Tensor {
        let p = self.parameters;
        let values = p.part(p.copy.unwrap_or(p.values), name, len);
        self.tape.parameter(values, p.part(self.gradients(), name, len))
    }

    /// Convolution, batchnorm, then what is asked for: a residual to add, a ReLU.
    fn layer(
        &mut self,
        layer: &ConvolutionLayer,
        x: Activation,
        residual: Option<Tensor>,
        relu: bool,
    ) -> Activation {
        let shape = ConvolutionShape {
            batch: self.batch,
            height: x.size,
            width: x.size,
            in_channels: layer.in_channels,
            out_channels: layer.out_channels,
            kernel: layer.kernel,
            stride: layer.stride,
        };
        let weight_len = layer.out_channels * layer.kernel * layer.kernel * layer.in_channels;
        let w = self.weights(&format!("{}.weight", layer.convolution), weight_len);
        let affine = self.parameter(&format!("{}.weight", layer.batchnorm), 2 * layer.out_channels);
        let running = self.tape.persistent(self.parameters.running_part(&layer.batchnorm));
        let size = shape.out_height();
        let rows = [self.batch * size * size, layer.out_channels];
        let (tape, epilogue) = (&mut *self.tape, Epilogue { residual, relu });
        let y = convolution(tape, shape, x.tensor, w);
        let tensor = match self.mode {
            Mode::Training(Pass { count, .. }) => {
                let valid = count.map(|count| ValidRows { count, rows_each: size * size });
                batchnorm(tape, rows, y, [affine, running], epilogue, valid)
            }
            Mode::Evaluation => batchnorm_inference(tape, rows, y, [affine, running], epilogue),
        };
        Activation { tensor, size }
    }
}

/// Records the forward pass of `batch` normalised images x `[batch, size, size, 3]`.
pub fn record(
    tape: &mut Tape,
    architecture: &Architecture,
    parameters: &Parameters,
    mode: Mode,
    [batch, size]: [usize; 2],
    x: Tensor,
) -> Outputs {
    let mut recorder = Recorder { tape, parameters, mode, batch };
    let mut x = recorder.layer(&architecture.stem, Activation { tensor: x, size }, None, true);
    for block in &architecture.blocks {
        let (last, before) = block.convolutions.split_last().expect("a block has convolutions");
        let inner = before.iter().fold(x, |x, layer| recorder.layer(layer, x, None, true));
        // Next to where it is added, so that it is kept no longer than it must be. All other uses of x are recorded before
        // the last batchnorm: backward, what comes through an identity reaches x first, and the convolutions add to it.
        let shortcut = match &block.shortcut {
            None => x.tensor,
            Some(layer) => recorder.layer(layer, x, None, false).tensor,
        };
        x = recorder.layer(last, inner, Some(shortcut), true);
    }
    let features = architecture.features;
    let classes = architecture.classes;
    let pooled = average_pool(recorder.tape, [batch, x.size * x.size, features], x.tensor);
    let classifier = recorder.parameter("fc.weight", classes * (features + 1));
    let logits = linear(recorder.tape, [batch, features, classes], pooled, classifier);
    Outputs { features: pooled, logits, classifier }
}

/// Appends SGD on every parameter, with the sum of the gradients of all forwards.
pub fn record_sgd(
    tape: &mut Tape,
    parameters: &Parameters,
    control: Tensor,
    momentum: f32,
    weight_decay: f32,
) {
    let gradients = tape.persistent(parameters.gradients);
    for &further in &parameters.further_gradients {
        let x = tape.persistent(further);
        tape.push(Add { len: parameters.len(), x, into: gradients });
    }
    let velocity = tape.persistent(parameters.velocity);
    let values = tape.persistent(parameters.values);
    let copy = parameters.copy.map(|buffer| tape.persistent(buffer));
    let len = parameters.len();
    tape.push(Sgd { len, momentum, weight_decay, control, gradients, velocity, parameters: values, copy });
}
