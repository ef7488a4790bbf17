//! The layers that networks are built from; each finds its parameters by name.

use super::{Mode, Parameters, Pass};
use crate::autograd::Tape;
use crate::device::{Buffer, Tensor};
use crate::ops::batchnorm::{Epilogue, ValidRows, batchnorm, batchnorm_inference};
use crate::ops::convolution::{ConvolutionShape, convolution};
use crate::ops::linear::linear;
use crate::ops::pooling::average_pool;

/// A network being recorded for one batch size.
pub struct Layers<'a> {
    /// The tape that the layers are appended to.
    pub tape: &'a mut Tape,
    /// Where the layers find their parameters, by state_dict name.
    pub parameters: &'a Parameters,
    /// Which statistics batchnorm uses, and which pass this is.
    pub mode: Mode,
    /// Images B.
    pub batch: usize,
}

/// An activation `[batch, size, size, channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    /// Its values, of the tape's activation type.
    pub tensor: Tensor,
    /// Height and width.
    pub size: usize,
    /// Channels of a pixel.
    pub channels: usize,
}

impl Layers<'_> {
    /// The arena for the gradients of this forward pass.
    fn gradients(&self) -> Buffer {
        match self.mode {
            Mode::Training(pass) => self.parameters.gradients_of(pass.number),
            Mode::Evaluation => self.parameters.gradients,
        }
    }

    /// The `len` values that begin with the parameter `name`, f32.
    ///
    /// # Panics
    /// If the network has no such parameter.
    pub fn parameter(&mut self, name: &str, len: usize) -> Tensor {
        let p = self.parameters;
        self.tape.parameter(p.part(p.values, name, len), p.part(self.gradients(), name, len))
    }

    /// A convolution's weights in the form it reads: the rounded copy if there is one.
    fn weights(&mut self, name: &str, len: usize) -> Tensor {
        let p = self.parameters;
        let values = p.part(p.copy.unwrap_or(p.values), name, len);
        self.tape.parameter(values, p.part(self.gradients(), name, len))
    }

    /// The convolution `name` of x.
    pub fn convolution(
        &mut self,
        name: &str,
        x: Activation,
        [out_channels, kernel, stride]: [usize; 3],
    ) -> Activation {
        let (batch, height, in_channels) = (self.batch, x.size, x.channels);
        let shape =
            ConvolutionShape { batch, height, width: height, in_channels, out_channels, kernel, stride };
        let w = self.weights(&format!("{name}.weight"), shape.weight_len());
        let tensor = convolution(self.tape, shape, x.tensor, w);
        Activation { tensor, size: shape.out_height(), channels: out_channels }
    }

    /// The batchnorm `name` of x, with its epilogue.
    pub fn batchnorm(&mut self, name: &str, x: Activation, epilogue: Epilogue) -> Activation {
        let affine = self.parameter(&format!("{name}.weight"), 2 * x.channels);
        let running = self.tape.persistent(self.parameters.running_part(name));
        let positions = x.size * x.size;
        let rows = [self.batch * positions, x.channels];
        let tensor = match self.mode {
            Mode::Training(Pass { count, .. }) => {
                let valid = count.map(|count| ValidRows { count, rows_each: positions });
                batchnorm(self.tape, rows, x.tensor, [affine, running], epilogue, valid)
            }
            Mode::Evaluation => batchnorm_inference(self.tape, rows, x.tensor, [affine, running], epilogue),
        };
        Activation { tensor, ..x }
    }

    /// The mean over the positions: `[batch, channels]`.
    pub fn average_pool(&mut self, x: Activation) -> Tensor {
        average_pool(self.tape, [self.batch, x.size * x.size, x.channels], x.tensor)
    }

    /// The fully connected layer `name` of x `[batch, inputs]`: its result, and its parameters.
    pub fn linear(&mut self, name: &str, x: Tensor, [outputs, inputs]: [usize; 2]) -> (Tensor, Tensor) {
        let parameters = self.parameter(&format!("{name}.weight"), outputs * (inputs + 1));
        (linear(self.tape, [self.batch, inputs, outputs], x, parameters), parameters)
    }
}
