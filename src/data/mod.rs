//! Data: sources of images, the long-tailed subset, candidate sets and augmentation.

pub mod archive;
pub mod augment;
pub mod candidates;
pub mod decode;
#[cfg(feature = "fetch")]
pub mod fetch;
pub mod fingerprint;
pub mod image_path;
pub mod left_out;
pub mod listed;
pub mod longtail;
pub mod lookalike;
pub mod progress;
#[allow(missing_docs, reason = "fields and variants carry the names of their flags and words")]
pub mod recipe;
pub mod registry;
pub mod several;
pub mod source;
pub mod statistics;
pub mod superclasses;
pub mod table;

/// The most classes of a data set, since labels are bytes.
pub const MAX_CLASSES: usize = 256;

/// Decoded images with their true classes: `u8` where all are known, `Option<u8>` where some may be unknown.
#[derive(Clone, Debug, Default)]
pub struct ImageSet<Label = u8> {
    /// uint8 RGB, `[len, height, width, 3]` row-major.
    pub images: Vec<u8>,
    /// True class of each image, `[len]`.
    pub labels: Vec<Label>,
    /// Rows of every image.
    pub height: usize,
    /// Columns of every image.
    pub width: usize,
}

impl<Label> ImageSet<Label> {
    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The bytes of image `i`, `[height, width, 3]`.
    pub fn image(&self, i: usize) -> &[u8] {
        let bytes = self.height * self.width * 3;
        &self.images[i * bytes..(i + 1) * bytes]
    }
}

/// Mean and standard deviation of each channel, in units of 0..1, for `(u8/255 - mean) / std`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalisation {
    /// Of red, green and blue.
    pub mean: [f32; 3],
    /// Of red, green and blue.
    pub std: [f32; 3],
}

impl Normalisation {
    /// Mean, then standard deviation, the format for devices.
    pub fn flat(&self) -> [f32; 6] {
        let ([m0, m1, m2], [s0, s1, s2]) = (self.mean, self.std);
        [m0, m1, m2, s0, s1, s2]
    }
}

/// CIFAR-10, training views.
pub const CIFAR10: Normalisation =
    Normalisation { mean: [0.4914, 0.4822, 0.4465], std: [0.247, 0.243, 0.261] };
/// CIFAR-100, training views; also the test images of CIFAR-10, as in the reference (SPEC 12).
pub const CIFAR100: Normalisation =
    Normalisation { mean: [0.5071, 0.4867, 0.4408], std: [0.2675, 0.2565, 0.2761] };
