//! How a method records its step: it asks for views and forward passes, and the recorder records them on
//! demand.

use std::ops::Range;

use anyhow::{Result, bail};

use super::debias::ClassPriorSource;
use crate::autograd::Tape;
use crate::device::{Device, Tensor};
use crate::nn::{Outputs, Parameters, Pass};
use crate::ops::division;

/// The source of a step's views.
pub trait ViewSource {
    /// Records the views `views` (0 weak, 1 strong) of the batch, one after another, as the first of `images`
    /// images of a new tensor.
    ///
    /// # Errors
    /// If the device has not enough memory, or there are no such views.
    fn record(
        &mut self,
        views: Range<usize>,
        images: usize,
        tape: &mut Tape,
        device: &mut dyn Device,
    ) -> Result<Tensor>;

    /// The same of the samples `own` of the batch alone, without further images, if the source can tell them
    /// apart.
    ///
    /// # Errors
    /// As [`ViewSource::record`].
    fn record_own(
        &mut self,
        _views: Range<usize>,
        _own: Range<usize>,
        _tape: &mut Tape,
        _device: &mut dyn Device,
    ) -> Result<Option<Tensor>> {
        Ok(None)
    }
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

    /// Records a forward pass in training mode with other `parameters` of the same network; it is not
    /// differentiated.
    ///
    /// # Errors
    /// If the network is bound to its parameters.
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
    /// Classes K.
    pub classes: usize,
    /// f32 `[N,K]`.
    pub confidence: Tensor,
    /// u8 `[N,K]`.
    pub candidates: Tensor,
    /// The samples of the step, i32 `[B]`.
    pub index: Tensor,
    /// The step's control block, f32 ([`control`](crate::ops::control)).
    pub control: Tensor,
}

/// A step while a method records it.
pub struct StepRecorder<'a> {
    /// The tape that the step is recorded on.
    pub tape: &'a mut Tape,
    /// The device that the step will run on.
    pub device: &'a mut dyn Device,
    /// Samples B of the step.
    pub batch: usize,
    /// Values per image.
    pub image_len: usize,
    /// The tensors of the confidence store and the control block.
    pub rows: StepRows,
    debias: &'a ClassPriorSource,
    views: &'a mut dyn ViewSource,
    network: &'a mut dyn Forward,
    forwards: usize,
    images: usize,
    /// Views of this process's own samples.
    own_views: Vec<Tensor>,
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
        let (forwards, images, own_views) = (0, 0, Vec::new());
        Self { tape, device, batch, image_len, rows, debias, views, network, forwards, images, own_views }
    }

    /// Views that nothing reads but forward passes: where several processes share the batch, of the own
    /// samples alone. Otherwise as [`StepRecorder::views_together`], or [`StepRecorder::view`].
    ///
    /// # Errors
    /// As [`ViewSource::record`].
    pub fn views_to_forward(&mut self, views: Range<usize>) -> Result<Tensor> {
        let share = self.tape.share();
        if share.is_divided() {
            let own = share.of(self.batch);
            if let Some(x) = self.views.record_own(views.clone(), own, self.tape, self.device)? {
                self.own_views.push(x);
                return Ok(x);
            }
        }
        let images = views.len() * self.batch;
        self.views.record(views, images, self.tape, self.device)
    }

    /// The first `count` views of each sample in one tensor `[R, size, size, 3]`, B images per view. With
    /// `room_for_mixed`, as many images follow for mixed views: everything in one forward pass is one batch
    /// for batchnorm.
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

    /// Records a forward pass over all images of `x`.
    ///
    /// # Errors
    /// As [`Forward::record`].
    pub fn forward(&mut self, x: Tensor) -> Result<Outputs> {
        self.pass(x, None)
    }

    /// Records a forward pass over the first images of `x`, which zeros follow; the device decides in
    /// `count`, i32 `[1]`, how many there are.
    ///
    /// # Errors
    /// As [`Forward::record`].
    pub fn forward_first(&mut self, x: Tensor, count: Tensor) -> Result<Outputs> {
        self.pass(x, Some(count))
    }

    /// Records a forward pass over all images of `x` with other parameters of the same network. Batchnorm
    /// uses the batch's statistics, and there is no gradient. The pass does not count as one of
    /// [`StepRecorder::forwards`].
    ///
    /// # Errors
    /// As [`Forward::record_with`].
    pub fn forward_with(&mut self, parameters: &Parameters, x: Tensor) -> Result<Outputs> {
        let (x, [own, images]) = self.own(x);
        let outputs = self.network.record_with(parameters, own, x, self.tape)?;
        Ok(self.of_all(images, outputs))
    }

    fn pass(&mut self, x: Tensor, count: Option<Tensor>) -> Result<Outputs> {
        let (x, [own, images]) = self.own(x);
        let count = count.map(|count| division::own_count(self.tape, images, count));
        let pass = Pass { number: self.forwards, count };
        self.forwards += 1;
        self.images += images;
        let outputs = self.network.record(pass, own, x, self.tape, self.device)?;
        Ok(self.of_all(images, outputs))
    }

    /// The images that go through the network here, which are those of the own samples where several processes
    /// share the batch; how many they are, and how many all processes have.
    fn own(&mut self, x: Tensor) -> (Tensor, [usize; 2]) {
        let given = self.tape.len_of(x) / self.image_len;
        if self.own_views.contains(&x) {
            return (x, [given, given / self.tape.share().of(self.batch).len() * self.batch]);
        }
        let own = division::own_rows(self.tape, [given / self.batch, self.batch], x);
        (own, [self.tape.len_of(own) / self.image_len, given])
    }

    /// The results for all images, from those for the own ones: what follows is of the whole batch.
    fn of_all(&mut self, images: usize, outputs: Outputs) -> Outputs {
        let Outputs { features, logits, classifier, projection } = outputs;
        let mut gather = |rows| division::gather_rows(self.tape, [images / self.batch, self.batch], rows);
        let [features, logits] = [features, logits].map(&mut gather);
        Outputs { features, logits, classifier, projection: projection.map(gather) }
    }

    /// Records the debias on the first `rows` rows of a forward pass; returns the log-prior that
    /// disambiguation reads, if there is one. A method calls it once, with the output of the weak and strong
    /// views.
    pub fn log_prior(&mut self, rows: usize, outputs: &Outputs) -> Option<Tensor> {
        self.debias.record_training(self.tape, rows, outputs)
    }

    /// Forward passes recorded so far.
    pub fn forwards(&self) -> usize {
        self.forwards
    }

    /// Images in these passes, including padding.
    pub fn images(&self) -> usize {
        self.images
    }
}

/// A tensor of the last step that a replay writes to its output.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// Its name in the output.
    pub name: &'static str,
    /// f32 or i32.
    pub tensor: Tensor,
    /// Its shape in the output.
    pub shape: Vec<usize>,
}

/// The tensors of a recorded step.
#[derive(Clone, Debug)]
pub struct RecordedStep {
    /// Logits of each forward pass, f32 `[R,K]`, with their gradients; at least one. The first B rows of the
    /// first are the weak views. The engine checks that the first three are finite.
    pub logits: Vec<(Tensor, Tensor)>,
    /// Further tensors that the loss depends on, with their gradients.
    pub seeds: Vec<(Tensor, Tensor)>,
    /// f32 `[B]`; their mean is the loss.
    pub loss_rows: Tensor,
    /// Names of the logits in a replay's output, B rows each.
    pub names: Vec<&'static str>,
    /// Further tensors in a replay's output.
    pub exposed: Vec<Exposed>,
}
