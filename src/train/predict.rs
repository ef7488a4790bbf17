//! Class probabilities of any images by a trained network.

use std::path::Path;

use anyhow::Result;

use super::checkpoint::Checkpoint;
use super::evaluate::{Evaluation, ResidentImages, evaluation_batch};
use crate::data::decode::Fit;
use crate::data::{ImageSet, Normalisation, registry};
use crate::device::{Buffer, Device};
use crate::settings::Settings;
use crate::usage;

/// How a network wants its images.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ImageForm {
    /// Rows and columns.
    pub size: usize,
    /// How an image of another shape becomes a square.
    pub fit: Fit,
    /// That of the run's test images.
    pub normalisation: Normalisation,
}

impl ImageForm {
    /// The form of the test images of a run over `classes`.
    ///
    /// # Errors
    /// A usage error for an unknown data set.
    pub fn of(settings: &Settings, classes: &[String]) -> Result<Self> {
        let set = registry::named(&settings.dataset)?;
        Ok(Self { size: settings.image_size, fit: set.fit, normalisation: (set.normalisation)(classes) })
    }
}

/// The network of a checkpoint on a device, with a recorded pass over as many images as fit a batch.
pub struct Predictor {
    /// Names of the classes, `[K]`.
    pub classes: Vec<String>,
    /// The images that it takes.
    pub form: ImageForm,
    /// Images of a pass.
    pub batch: usize,
    images: Buffer,
    pass: Evaluation,
}

impl Predictor {
    /// Reads the network and the debias of `checkpoint`, which lies at `path`. A pass takes up to `most`
    /// images, at least 1.
    ///
    /// # Errors
    /// A usage error where the checkpoint does not fit its own settings; if the device has not enough memory.
    pub fn new(checkpoint: &Checkpoint, path: &Path, most: usize, device: &mut dyn Device) -> Result<Self> {
        let settings = checkpoint.settings(path)?;
        let classes = checkpoint.progress.classes.clone();
        let form = ImageForm::of(&settings, &classes)?;
        let model = checkpoint.model(&settings, path, device)?;
        let batch = evaluation_batch(device).min(most.max(1));
        let blank = ImageSet {
            images: vec![0; batch * form.size * form.size * 3],
            labels: vec![0; batch],
            height: form.size,
            width: form.size,
        };
        let resident = ResidentImages::new(&blank, form.normalisation, device)?;
        let pass = Evaluation::new(&model, resident, batch, device)?;
        Ok(Self { classes, form, batch, images: resident.images, pass })
    }

    /// Class probabilities `[n,K]`, in f64, of `images` u8 `[n,S,S,3]`: the softmax of the logits, less the
    /// log of the class prior if they are `debiased` and the run has a debias.
    ///
    /// # Errors
    /// A usage error for images of another size; if the device fails.
    pub fn probabilities(
        &self,
        images: &[u8],
        debiased: bool,
        device: &mut dyn Device,
    ) -> Result<Vec<Vec<f64>>> {
        let size = self.form.size;
        let image = size * size * 3;
        if !images.len().is_multiple_of(image) {
            return Err(usage!("{} bytes are no images of {size}x{size}", images.len()));
        }
        let mut found = Vec::with_capacity(images.len() / image);
        for some in images.chunks(self.batch * image) {
            let mut padded = some.to_vec();
            padded.resize(self.batch * image, 0);
            device.write_u8(self.images, &padded)?;
            let logits = self.logits(debiased, device)?;
            let rows = logits.chunks_exact(self.classes.len()).take(some.len() / image);
            found.extend(rows.map(softmax));
        }
        Ok(found)
    }

    fn logits(&self, debiased: bool, device: &mut dyn Device) -> Result<Vec<f32>> {
        if debiased { Ok(self.pass.run(device)?.0) } else { self.pass.logits(device) }
    }
}

/// The softmax of a row of logits.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|&z| f64::from(z - most).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|power| power / sum).collect()
}

/// The classes in the order of their probabilities, the first of equal ones first.
pub fn ranked(probabilities: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..probabilities.len()).collect();
    order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]));
    order
}

/// The class that the model gives each training image `[N]`, debiased as in a test.
///
/// # Errors
/// As [`Predictor::new`].
pub fn classes_of(
    checkpoint: &Checkpoint,
    path: &Path,
    images: &[u8],
    device: &mut dyn Device,
) -> Result<Vec<usize>> {
    let predictor = Predictor::new(checkpoint, path, usize::MAX, device)?;
    let rows = predictor.probabilities(images, true, device)?;
    Ok(rows.iter().map(|row| ranked(row)[0]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_and_ties_go_to_the_first_class() {
        let row = softmax(&[1000.0, 1000.0, -1000.0]);
        assert_eq!(row, [0.5, 0.5, 0.0]);
        assert_eq!(ranked(&row), [0, 1, 2]);
        let mut logits = vec![2.0, 1.0];
        crate::train::evaluate::debias(&mut logits, &[1.0, 0.0]);
        assert_eq!(softmax(&logits), [0.5, 0.5]);
    }
}
