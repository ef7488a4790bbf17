//! Normalised images without augmentation.

use rayon::prelude::*;

use crate::data::Normalisation;
use crate::data::augment::view::NormalisationTable;

/// x `[B,P,3]` = (u8/255 - mean) / std of the images from `first`; past the end the last image is repeated.
pub(super) fn normalise(pixels: usize, first: usize, images: &[u8], normalisation: &[f32], x: &mut [f32]) {
    let bytes = pixels * 3;
    let last = images.len() / bytes - 1;
    let table = NormalisationTable::new(constants(normalisation));
    x.par_chunks_exact_mut(bytes).enumerate().for_each(|(row, x)| {
        let image = (first + row).min(last);
        table.apply(&images[image * bytes..][..bytes], x);
    });
}

/// Mean and standard deviation of the channels from `[mean; standard deviation]`.
pub(in crate::ops) fn constants(normalisation: &[f32]) -> Normalisation {
    let part = |first: usize| std::array::from_fn(|channel| normalisation[first + channel]);
    Normalisation { mean: part(0), std: part(3) }
}
