//! The training set on the device, and the augmented views of a step.
//!
//! Where the device works beside the host, the augmentation parameters of the next epoch (4 MB of CIFAR-10) are
//! drawn and copied to the device while an epoch trains; between the two, they are moved there alone.

use std::ops::Range;

use anyhow::Result;

use super::next_epoch::{Drawing, Drawn, Which};
use super::step::{StepInputs, StepSettings};
use crate::autograd::Tape;
use crate::data::augment::parameters::VIEW_BYTES;
use crate::data::recipe::TrainingData;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::ops::augment::Augment;
use crate::ops::division;
use crate::ops::input::SelectBatch;
use crate::pll::recorder::ViewSource;

/// The training set on the device, with the buffers that are uploaded once per epoch.
pub struct ResidentData {
    samples: usize,
    /// Height and width of the source images.
    pub source: [usize; 2],
    /// u8 `[N,H,W,3]`.
    pub images: Buffer,
    /// u8 `[N, 2, bytes of the parameters of a view]`, weak view first.
    parameters: Buffer,
    /// i32 `[N]`, the epoch's order of the samples.
    order: Buffer,
    /// f32 `[6]`, mean then standard deviation.
    normalisation: Buffer,
    /// i32 `[1]`, the step of the epoch.
    pub step: Buffer,
    /// The parameters of the next epoch; `None` where host and device take turns.
    next_parameters: Option<Buffer>,
    /// The epoch that was begun last.
    epoch: Option<Which>,
    next: Next,
}

/// What there is of the next epoch.
enum Next {
    Nothing,
    Drawing(Drawing),
    /// The parameters are on the device; the order is small.
    Uploaded(Which, Vec<i32>),
}

impl ResidentData {
    /// Uploads the training images.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn new(data: &TrainingData, device: &mut dyn Device) -> Result<Self> {
        let samples = data.train.len();
        let (parameters, works_aside) = (samples * 2 * VIEW_BYTES, !device.in_main_memory());
        let mut allocate = |element, len, label| device.allocate(element, len, label);
        let resident = Self {
            samples,
            source: [data.train.height, data.train.width],
            images: allocate(Element::U8, data.train.images.len(), "the training images")?,
            parameters: allocate(Element::U8, parameters, "the augmentation parameters")?,
            order: allocate(Element::I32, samples, "the order of the samples")?,
            normalisation: allocate(Element::F32, 6, "the normalisation")?,
            step: allocate(Element::I32, 1, "the step counter")?,
            next_parameters: match works_aside {
                true => Some(allocate(Element::U8, parameters, "the next epoch's augmentation parameters")?),
                false => None,
            },
            epoch: None,
            next: Next::Nothing,
        };
        device.write_u8(resident.images, &data.train.images)?;
        device.write_f32(resident.normalisation, &data.train_normalisation.flat())?;
        Ok(resident)
    }

    /// Uploads the order of an epoch's samples and the augmentation parameters of their views of `size` x
    /// `size`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn begin_epoch(
        &mut self,
        (seed, epoch): (u64, u32),
        size: usize,
        device: &mut dyn Device,
    ) -> Result<()> {
        let which = Which { seed, epoch, samples: self.samples, source: self.source, size };
        let next = std::mem::replace(&mut self.next, Next::Nothing);
        let order = match (next, self.next_parameters) {
            (Next::Uploaded(next, order), Some(parameters)) if next == which => {
                device.copy_u8(parameters, self.parameters)?;
                order
            }
            (next, _) => {
                let Drawn { order, parameters } = next.drawn(which).unwrap_or_else(|| which.draw());
                device.write_u8(self.parameters, bytemuck::cast_slice(&parameters))?;
                order
            }
        };
        // This waits for the copy: from now on, the next epoch's parameters may be written.
        device.write_i32(self.order, &order)?;
        self.epoch = Some(which);
        device.write_i32(self.step, &[0])
    }

    /// Begins to draw what the next epoch needs, if the device works meanwhile.
    pub fn draw_next(&mut self) {
        if let (Next::Nothing, Some(epoch), Some(_)) = (&self.next, self.epoch, self.next_parameters) {
            self.next = Drawing::begin(epoch.next()).map_or(Next::Nothing, Next::Drawing);
        }
    }

    /// Uploads what has been drawn for the next epoch, while the device works.
    ///
    /// # Errors
    /// If the device fails.
    pub fn upload_next(&mut self, device: &mut dyn Device) -> Result<()> {
        let (Next::Drawing(_), Some(buffer)) = (&self.next, self.next_parameters) else { return Ok(()) };
        let Next::Drawing(drawing) = std::mem::replace(&mut self.next, Next::Nothing) else { return Ok(()) };
        let which = drawing.which();
        if let Some(Drawn { order, parameters }) = drawing.wait() {
            device.write_aside(buffer, bytemuck::cast_slice(&parameters))?;
            self.next = Next::Uploaded(which, order);
        }
        Ok(())
    }

    /// Goes on with the epoch after `steps` of its steps.
    ///
    /// # Errors
    /// If the device fails.
    pub fn skip_to(&self, steps: usize, device: &mut dyn Device) -> Result<()> {
        device.write_i32(self.step, &[steps as i32])
    }

    /// The inputs of a step: its samples in the epoch's order, and their augmented views.
    pub fn inputs(&self, settings: StepSettings) -> impl StepInputs {
        Augmented { data: self, settings, index: None }
    }
}

impl Next {
    /// What was drawn, if it is for that epoch.
    fn drawn(self, which: Which) -> Option<Drawn> {
        match self {
            Self::Drawing(drawing) if drawing.which() == which => drawing.wait(),
            _ => None,
        }
    }
}

/// Views that are augmented when a method asks for them.
struct Augmented<'a> {
    data: &'a ResidentData,
    settings: StepSettings,
    index: Option<Tensor>,
}

impl StepInputs for Augmented<'_> {
    fn index(&mut self, tape: &mut Tape) -> Tensor {
        let batch = self.settings.batch;
        let data = self.data;
        *self.index.get_or_insert_with(|| {
            let (order, step) = (tape.persistent(data.order), tape.persistent(data.step));
            let index = tape.temporary(Element::I32, batch);
            tape.push(SelectBatch { batch, order, step, index });
            index
        })
    }
}

impl Augmented<'_> {
    /// Records the views `of` of the samples in `index` `[batch]` as the first of `rows` images.
    fn record_views(
        &self,
        of: Range<usize>,
        [batch, rows]: [usize; 2],
        index: Tensor,
        tape: &mut Tape,
    ) -> Tensor {
        let ResidentData { images, parameters, normalisation, source, .. } = *self.data;
        let [images, parameters, normalisation] =
            [images, parameters, normalisation].map(|buffer| tape.persistent(buffer));
        let views = tape.temporary(tape.activations(), rows * self.settings.image_len());
        tape.push(Augment {
            batch,
            first: of.start,
            count: of.len(),
            source,
            size: self.settings.size,
            images,
            parameters,
            index,
            normalisation,
            views,
        });
        views
    }
}

impl ViewSource for Augmented<'_> {
    fn record(
        &mut self,
        of: Range<usize>,
        rows: usize,
        tape: &mut Tape,
        _: &mut dyn Device,
    ) -> Result<Tensor> {
        let index = self.index(tape);
        Ok(self.record_views(of, [self.settings.batch, rows], index, tape))
    }

    fn record_own(
        &mut self,
        of: Range<usize>,
        own: Range<usize>,
        tape: &mut Tape,
        _: &mut dyn Device,
    ) -> Result<Option<Tensor>> {
        let whole = self.index(tape);
        let index = division::own_rows(tape, [1, self.settings.batch], whole);
        let rows = of.len() * own.len();
        Ok(Some(self.record_views(of, [own.len(), rows], index, tape)))
    }
}
