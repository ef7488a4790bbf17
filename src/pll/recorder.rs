//! What a method records its step with: it asks for views and forwards, and the recorder records them where
//! and when they are asked for.

use std::ops::Range;

use anyhow::{Result, bail};

use super::debias::ClassPriorSource;
use crate::autograd::Tape;
use crate::device::{Device, Tensor};
use crate::nn::{Outputs, Parameters, Pass};

/// Where the views of a step come from.
pub trait ViewSource {
    /// Records the views `views` (0 weak, 1 strong) of the batch, one behind the other, as the first of
    /// `images` images of a new tensor.
    ///
    /// # Errors
    /// When the device has not enough memory, and where there are no such views.
    fn record(
        &mut self,
        views: Range<usize>,
        images: usize,
        tape: &mut Tape,
        device: &mut dyn Device,
    ) -> Result<Tensor>;
}

/// A network in training.
pub trait Forward {
    /// Records a forward pass of `images` images.
    ///
    /// # Errors
    /// When the device has not enough memory for the gradients of one more pass.
    fn record(
        &mut self,
        pass: Pass,
        images: usize,
        x: Tensor,
        tape: &mut Tape,
        device: &mut dyn Device,
    ) -> Result<Outputs>;

    /// Records a forward pass, in training mode, with other `parameters` of the same network, which nothing
    /// differentiates.
    ///
    /// # Errors
    /// Where the network is bound to its parameters.
    fn record_with(
        &mut self,
        _parameters: &Parameters,
        _images: usize,
        _x: Tensor,
        _tape: &mut Tape,
    ) -> Result<Outputs> {
        bail!("this network takes no other parameters")
    }
}

/// The confidence store and the control block on a tape.
#[derive(Clone, Copy)]
pub struct StepRows {
    pub classes: usize,
    /// f32 `[N,K]`.
    pub confidence: Tensor,
    /// u8 `[N,K]`.
    pub candidates: Tensor,
    /// The samples of the step, i32 `[B]`.
    pub index: Tensor,
    /// See [`crate::ops::control`].
    pub control: Tensor,
}

/// A step that is being recorded, in the hands of a method.
pub struct StepRecorder<'a> {
    pub tape: &'a mut Tape,
    pub device: &'a mut dyn Device,
    /// Samples B of the step.
    pub batch: usize,
    /// Values of an image.
    pub image_len: usize,
    pub rows: StepRows,
    debias: &'a ClassPriorSource,
    views: &'a mut dyn ViewSource,
    network: &'a mut dyn Forward,
    forwards: usize,
    images: usize,
}

impl<'a> StepRecorder<'a> {
    /// A recorder on `tape` for `batch` samples whose images have `image_len` values.
    pub fn new(
        [batch, image_len]: [usize; 2],
        rows: StepRows,
        debias: &'a ClassPriorSource,
        views: &'a mut dyn ViewSource,
        network: &'a mut dyn Forward,
        tape: &'a mut Tape,
        device: &'a mut dyn Device,
    ) -> Self {
        Self { tape, device, batch, image_len, rows, debias, views, network, forwards: 0, images: 0 }
    }

    /// The first `count` views of each sample in one tensor `[R, size, size, 3]`, view after view of B
    /// images, with as many images behind them for mixed views where there is `room_for_mixed`: what one
    /// forward takes is one batch for batchnorm.
    ///
    /// # Errors
    /// As [`ViewSource::record`].
    pub fn views_together(&mut self, count: usize, room_for_mixed: bool) -> Result<Tensor> {
        let shown = count * self.batch;
        let images = if room_for_mixed { 2 * shown } else { shown };
        self.views.record(0..count, images, self.tape, self.device)
    }

    /// One view of each sample, 0 weak or 1 strong, `[B, size, size, 3]`.
    ///
    /// # Errors
    /// As [`ViewSource::record`].
    pub fn view(&mut self, number: usize) -> Result<Tensor> {
        self.views.record(number..number + 1, self.batch, self.tape, self.device)
    }

    /// A forward pass over all images of `x`.
    ///
    /// # Errors
    /// As [`Forward::record`].
    pub fn forward(&mut self, x: Tensor) -> Result<Outputs> {
        self.pass(x, None)
    }

    /// A forward pass over the first images of `x`, zeros lying behind; the device decides in `count`, i32
    /// `[1]`, how many there are.
    ///
    /// # Errors
    /// As [`Forward::record`].
    pub fn forward_first(&mut self, x: Tensor, count: Tensor) -> Result<Outputs> {
        self.pass(x, Some(count))
    }

    /// A forward pass over all images of `x` with other parameters of the same network: batchnorm takes the
    /// batch's statistics, no gradient comes back. It is not counted among the forwards.
    ///
    /// # Errors
    /// As [`Forward::record_with`].
    pub fn forward_with(&mut self, parameters: &Parameters, x: Tensor) -> Result<Outputs> {
        let images = self.tape.len_of(x) / self.image_len;
        self.network.record_with(parameters, images, x, self.tape)
    }

    fn pass(&mut self, x: Tensor, count: Option<Tensor>) -> Result<Outputs> {
        let images = self.tape.len_of(x) / self.image_len;
        let pass = Pass { number: self.forwards, count };
        self.forwards += 1;
        self.images += images;
        self.network.record(pass, images, x, self.tape, self.device)
    }

    /// Records what the debias does on the first `rows` rows of a forward; returns the log-prior that
    /// disambiguation reads, if there is one. A method calls it once, on what the weak and strong views gave.
    pub fn log_prior(&mut self, rows: usize, outputs: &Outputs) -> Option<Tensor> {
        self.debias.record_training(self.tape, rows, outputs)
    }

    /// Forward passes so far.
    pub fn forwards(&self) -> usize {
        self.forwards
    }

    /// Images in them.
    pub fn images(&self) -> usize {
        self.images
    }
}

/// A tensor of the last step that a replay shows.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// Its name in the output.
    pub name: &'static str,
    /// f32 or i32.
    pub tensor: Tensor,
    pub shape: Vec<usize>,
}

/// What a method has recorded.
#[derive(Clone, Debug)]
pub struct RecordedStep {
    /// Logits of each forward, f32 `[R,K]`, with their gradients; at least one. The first B rows of the first are
    /// those of the weak views. Of the first three it is watched whether they are finite.
    pub logits: Vec<(Tensor, Tensor)>,
    /// Further tensors that the loss reads, with their gradients.
    pub seeds: Vec<(Tensor, Tensor)>,
    /// f32 `[B]`; their mean is the loss.
    pub loss_rows: Tensor,
    /// What a replay calls the logits, B rows after B rows.
    pub names: Vec<&'static str>,
    /// What else a replay shows.
    pub exposed: Vec<Exposed>,
}
