//! A loaded data set: a training set, balanced or not, and a test set.

use super::fingerprint::{Outline, Sizes};
use super::left_out::LeftOut;
use super::recipe::Positions;
use super::{ImageSet, Normalisation};

/// A labelled data set as loaded from its files, before the long-tailed subset is drawn.
#[derive(Clone, Debug)]
pub struct LoadedData {
    /// Class names in order of class id, `[K]`.
    pub classes: Vec<String>,
    /// All training images in the order of the files.
    pub train: ImageSet,
    /// All test images.
    pub test: ImageSet,
    /// Normalisation of training views.
    pub train_normalisation: Normalisation,
    /// Normalisation of test images.
    pub test_normalisation: Normalisation,
    /// Where the training and the test images are in the data set.
    pub positions: [Positions; 2],
    /// Images that are found there but in neither set.
    pub left_out: Vec<LeftOut>,
    /// What else a user should know about the data, one line each.
    pub notes: Vec<String>,
}

impl LoadedData {
    /// Class names and sizes.
    pub fn outline(&self) -> Outline {
        let sizes =
            |set: &ImageSet| Sizes { images: set.len(), of_class: Some(set.class_sizes(self.classes.len())) };
        Outline { classes: self.classes.clone(), train: sizes(&self.train), test: Some(sizes(&self.test)) }
    }
}

impl ImageSet {
    /// Number of images of each class, `[classes]`. Labels are below `classes`.
    pub fn class_sizes(&self, classes: usize) -> Vec<usize> {
        let mut sizes = vec![0; classes];
        for &label in &self.labels {
            sizes[usize::from(label)] += 1;
        }
        sizes
    }

    /// The images at `positions`, in that order.
    pub fn select(&self, positions: &[i32]) -> Self {
        let mut images = Vec::with_capacity(positions.len() * self.height * self.width * 3);
        let mut labels = Vec::with_capacity(positions.len());
        for &position in positions {
            let i = usize::try_from(position).expect("positions in a set are not negative");
            images.extend_from_slice(self.image(i));
            labels.push(self.labels[i]);
        }
        Self { images, labels, height: self.height, width: self.width }
    }
}
