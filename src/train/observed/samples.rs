//! A few training samples whose confidence is written down after every epoch: a fixed choice, the same for
//! the same data.

use std::io::Cursor;

use anyhow::Result;
use image::{ImageFormat, RgbImage};
use serde::{Deserialize, Serialize};

use crate::data::augment::resize::resize;
use crate::data::recipe::TrainingData;
use crate::device::Device;
use crate::pll::ConfidenceStore;
use crate::text::base64;

/// Samples at most.
const MOST: usize = 12;

/// Rows and columns of their pictures at most.
const PICTURE: usize = 64;

/// A sample and what is known of it from the beginning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackedSample {
    /// Its position in the training set.
    pub sample: usize,
    /// Its candidates, ascending.
    pub candidates: Vec<u8>,
    /// The true class, where it is known.
    pub truth: Option<u8>,
    /// Its image as PNG, in base64.
    pub png: String,
}

/// The first line of samples.jsonl.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrackedSamples {
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Training samples of each class, where all true classes are known.
    pub counts: Option<Vec<usize>>,
    /// The samples, in an order from frequent to rare classes where true classes are known.
    pub samples: Vec<TrackedSample>,
}

/// Any other line: the confidences after an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SampleRows {
    /// From 0.
    pub epoch: usize,
    /// For each sample the confidence of each of its candidates, to four decimals.
    pub confidence: Vec<Vec<f32>>,
}

impl TrackedSamples {
    /// Chooses samples with several candidates: the first one of each of up to twelve classes, from the most
    /// frequent to the rarest; where true classes are not all known, samples at even distances.
    ///
    /// # Errors
    /// If a picture cannot be made.
    pub fn choose(data: &TrainingData) -> Result<Self> {
        let counts = data.counts();
        let positions = match &counts {
            Some(counts) => one_of_each_class(data, counts),
            None => at_even_distances(data),
        };
        let sample = |&sample: &usize| {
            let candidates = candidates(data, sample);
            let truth = data.train.labels[sample];
            Ok(TrackedSample { sample, candidates, truth, png: picture(data, sample)? })
        };
        let samples = positions.iter().map(sample).collect::<Result<_>>()?;
        Ok(Self { classes: data.classes.clone(), counts, samples })
    }

    /// The confidences of the samples after `epoch`.
    ///
    /// # Errors
    /// If the device fails.
    pub fn rows(&self, epoch: usize, store: &ConfidenceStore, device: &mut dyn Device) -> Result<SampleRows> {
        let mut confidence = Vec::with_capacity(self.samples.len());
        for tracked in &self.samples {
            let row = store.confidence.part(tracked.sample * store.classes, store.classes);
            let row = device.read_f32(row)?;
            let rounded = |&class: &u8| (1e4 * row[usize::from(class)]).round() / 1e4;
            confidence.push(tracked.candidates.iter().map(rounded).collect());
        }
        Ok(SampleRows { epoch, confidence })
    }
}

fn candidates(data: &TrainingData, sample: usize) -> Vec<u8> {
    let classes = data.classes.len();
    let set = &data.candidates.rows[sample * classes..][..classes];
    (0u8..=255).zip(set).filter(|(_, is)| **is != 0).map(|(class, _)| class).collect()
}

fn is_ambiguous(data: &TrainingData, sample: usize) -> bool {
    let classes = data.classes.len();
    data.candidates.rows[sample * classes..][..classes].iter().filter(|&&is| is != 0).count() > 1
}

/// Positions `0..count`, `most` of them at even distances, the first and the last among them.
fn evenly(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|i| i * (count - 1) / (most - 1)).collect()
}

fn one_of_each_class(data: &TrainingData, counts: &[usize]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by_key(|&class| std::cmp::Reverse(counts[class]));
    let first = |class: usize| {
        let of_class = |label: &Option<u8>| label.map(usize::from) == Some(class);
        (0..data.train.len()).find(|&i| of_class(&data.train.labels[i]) && is_ambiguous(data, i))
    };
    evenly(order.len(), MOST).into_iter().filter_map(|at| first(order[at])).collect()
}

fn at_even_distances(data: &TrainingData) -> Vec<usize> {
    let ambiguous: Vec<usize> = (0..data.train.len()).filter(|&i| is_ambiguous(data, i)).collect();
    evenly(ambiguous.len(), MOST).into_iter().map(|at| ambiguous[at]).collect()
}

/// The image of a sample as PNG, smaller if it is large, in base64.
fn picture(data: &TrainingData, sample: usize) -> Result<String> {
    let (height, width) = (data.train.height, data.train.width);
    let side = height.min(PICTURE);
    let pixels = match side == height {
        true => data.train.image(sample).to_vec(),
        false => resize(data.train.image(sample), [height, width], [side, side]),
    };
    let mut png = Cursor::new(Vec::new());
    let image = RgbImage::from_raw(side as u32, side as u32, pixels);
    image
        .ok_or_else(|| anyhow::anyhow!("an image that is not square"))?
        .write_to(&mut png, ImageFormat::Png)?;
    Ok(base64(png.get_ref()))
}

#[cfg(test)]
mod tests {
    use super::evenly;

    #[test]
    fn the_first_and_the_last_are_among_them() {
        assert_eq!(evenly(3, 12), [0, 1, 2]);
        assert_eq!(evenly(100, 12), [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]);
        assert!(evenly(0, 12).is_empty());
    }
}
