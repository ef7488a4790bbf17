//! The tensors of a case that its steps read: candidate sets, sample indices and views.

use std::ops::Range;

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Tensor};
use crate::pll::recorder::ViewSource;
use crate::settings;
use crate::train::step::StepInputs;
use crate::train::tensor_file::TensorFile;
use crate::usage;

/// Checks a tensor's shape; `None` allows any length.
pub(super) fn expect_shape(name: &str, shape: &[usize], wanted: &[Option<usize>]) -> Result<()> {
    let fits = shape.len() == wanted.len()
        && shape.iter().zip(wanted).all(|(have, want)| want.is_none_or(|w| w == *have));
    let describe =
        || wanted.iter().map(|w| w.map_or("any".into(), |w| w.to_string())).collect::<Vec<_>>().join(", ");
    if fits { Ok(()) } else { Err(usage!("tensor '{name}': shape {shape:?}; must be [{}]", describe())) }
}

/// Checks that a tensor's values are 0 to 1, with a margin for f32 sums that were rounded up.
pub(super) fn expect_shares(name: &str, values: &[f32]) -> Result<()> {
    match values.iter().find(|value| !(0.0..=1.001).contains(*value)) {
        None => Ok(()),
        Some(&bad) => Err(usage!("tensor '{name}': {}; must be 0 to 1", settings::number(f64::from(bad)))),
    }
}

/// The candidate sets of a case.
pub(super) struct CandidateRows<'a> {
    pub(super) samples: usize,
    pub(super) classes: usize,
    /// `[N,K]`.
    pub(super) rows: &'a [u8],
}

impl<'a> CandidateRows<'a> {
    /// Reads and checks the candidate sets of `input`.
    ///
    /// # Errors
    /// A usage error that names the row or value at fault.
    pub(super) fn of(input: &'a TensorFile) -> Result<Self> {
        let (shape, rows) = input.u8("candidates")?;
        expect_shape("candidates", shape, &[None, None])?;
        let [samples, classes] = [shape[0], shape[1]];
        if samples == 0 || classes == 0 || i32::try_from(samples).is_err() {
            return Err(usage!(
                "tensor 'candidates': shape {shape:?}; must have 1 to 2147483647 rows of classes"
            ));
        }
        if let Some(other) = rows.iter().find(|&&value| value > 1) {
            return Err(usage!(
                "tensor 'candidates': {other}; must be 1 for a candidate and 0 for another class"
            ));
        }
        if let Some(row) = rows.chunks_exact(classes).position(|row| row.iter().all(|&s| s == 0)) {
            return Err(usage!("tensor 'candidates': row {row} has no candidate; every sample needs one"));
        }
        Ok(Self { samples, classes, rows })
    }
}

/// The steps of a case.
pub(super) struct Batches<'a> {
    file: &'a TensorFile,
    shape: &'a [usize],
    pub(super) steps: usize,
    pub(super) batch: usize,
    /// Height and width of the views.
    pub(super) size: usize,
    /// The samples of each step, `[S,B]`.
    index: Vec<i32>,
}

/// Names of a batch's views, by number.
const VIEWS: [&str; 2] = ["batch.weak", "batch.strong"];

impl<'a> Batches<'a> {
    /// Reads and checks the steps of `input`, whose candidate sets have `samples` rows.
    ///
    /// # Errors
    /// A usage error that names the tensor at fault.
    pub(super) fn of(input: &'a TensorFile, samples: usize) -> Result<Self> {
        let (shape, _) = input.f32(VIEWS[0])?;
        expect_shape(VIEWS[0], shape, &[None, None, Some(3), None, None])?;
        let [steps, batch, height, width] = [shape[0], shape[1], shape[3], shape[4]];
        if height != width || steps == 0 || batch == 0 || height == 0 {
            return Err(usage!(
                "tensor 'batch.weak': shape {shape:?}; must be [steps, batch, 3, size, size], none 0"
            ));
        }
        let index = batch_index(input, steps, batch, samples)?;
        Ok(Self { file: input, shape, steps, batch, size: height, index })
    }

    /// Length of one view of a batch.
    fn view_len(&self) -> usize {
        self.batch * 3 * self.size * self.size
    }

    /// The values of view `number` in all steps.
    fn view(&self, number: usize) -> Result<&'a [f32]> {
        let (shape, values) = self.file.f32(VIEWS[number])?;
        expect_shape(VIEWS[number], shape, &self.shape.iter().map(|&n| Some(n)).collect::<Vec<_>>())?;
        Ok(values)
    }

    /// Allocates a step's inputs on `device`.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub(super) fn on_device(&self, device: &mut dyn Device) -> Result<GivenInputs<'_>> {
        let index = device.allocate(Element::I32, self.batch, "the index")?;
        Ok(GivenInputs { batches: self, index, views: Vec::new() })
    }
}

/// Reads and checks the samples of each step.
fn batch_index(input: &TensorFile, steps: usize, batch: usize, samples: usize) -> Result<Vec<i32>> {
    let (index_shape, index) = input.i64("batch.index")?;
    expect_shape("batch.index", index_shape, &[Some(steps), Some(batch)])?;
    if let Some(bad) = index.iter().find(|&&i| i < 0 || i as usize >= samples) {
        return Err(usage!(
            "tensor 'batch.index': {bad} is not a row of 'candidates' (0 to {})",
            samples - 1
        ));
    }
    for row in index.chunks_exact(batch) {
        let mut sorted = row.to_vec();
        sorted.sort_unstable();
        if let Some(two) = sorted.windows(2).find(|two| two[0] == two[1]) {
            return Err(usage!("tensor 'batch.index': {} occurs twice in one step", two[0]));
        }
    }
    Ok(index.iter().map(|&i| i as i32).collect())
}

/// The samples and views of a step, uploaded from the case.
pub(super) struct GivenInputs<'a> {
    batches: &'a Batches<'a>,
    index: Buffer,
    /// The values of a view in all steps, and the buffer for those of one step.
    views: Vec<(&'a [f32], Buffer)>,
}

impl GivenInputs<'_> {
    /// Uploads the samples and views of step `step`.
    pub(super) fn upload(&self, step: usize, device: &mut dyn Device) -> Result<()> {
        let Batches { batch, size, ref index, .. } = *self.batches;
        let len = self.batches.view_len();
        for &(values, buffer) in &self.views {
            device.write_f32(buffer, &channels_last(&values[step * len..][..len], size * size))?;
        }
        device.write_i32(self.index, &index[step * batch..][..batch])
    }
}

impl StepInputs for GivenInputs<'_> {
    fn index(&mut self, tape: &mut Tape) -> Tensor {
        tape.persistent(self.index)
    }
}

impl ViewSource for GivenInputs<'_> {
    fn record(
        &mut self,
        of: Range<usize>,
        images: usize,
        tape: &mut Tape,
        device: &mut dyn Device,
    ) -> Result<Tensor> {
        let len = self.batches.view_len();
        let room = images * len / self.batches.batch;
        let buffer = device.allocate(device.activations(), room, "the views")?;
        for (place, number) in of.enumerate() {
            self.views.push((self.batches.view(number)?, buffer.part(place * len, len)));
        }
        Ok(tape.persistent(buffer))
    }
}

/// `[B,3,H,W]` to `[B,H,W,3]`.
fn channels_last(images: &[f32], pixels: usize) -> Vec<f32> {
    let of_image = |image: &[f32]| {
        (0..pixels).flat_map(|p| [image[p], image[pixels + p], image[2 * pixels + p]]).collect::<Vec<f32>>()
    };
    images.chunks_exact(3 * pixels).flat_map(of_image).collect()
}
