//! What feeds a step: augmented views, and plain normalised images for evaluation.

use anyhow::Result;
use rayon::prelude::*;

/// Reused between calls.
#[derive(Default)]
pub(super) struct Workspace {}

/// Shapes of [`augment`].
pub(super) struct Views {
    /// Samples B; there are 2B views.
    pub batch: usize,
    /// Height and width of the source images.
    pub source: [usize; 2],
    /// Height and width of a view.
    pub size: usize,
}

/// Weak then strong views of the samples `index`; see [`crate::device::Primitive::Augment`].
pub(super) fn augment(
    _shape: &Views,
    _images: &[u8],
    _parameters: &[u8],
    _index: &[i32],
    _normalisation: &[f32],
    _views: &mut [f32],
    _workspace: &mut Workspace,
) -> Result<()> {
    anyhow::bail!("waiting for the merge of data::augment")
}

/// x [B,P,3] = (u8/255 - mean) / std of images first.., the last image repeated past the end.
pub(super) fn normalise(pixels: usize, first: usize, images: &[u8], normalisation: &[f32], x: &mut [f32]) {
    let bytes = pixels * 3;
    let last = images.len() / bytes - 1;
    let table = table(normalisation);
    x.par_chunks_exact_mut(bytes).enumerate().for_each(|(row, x)| {
        let image = (first + row).min(last);
        let source = &images[image * bytes..(image + 1) * bytes];
        for (x, pixel) in x.chunks_exact_mut(3).zip(source.chunks_exact(3)) {
            for channel in 0..3 {
                x[channel] = table[channel][usize::from(pixel[channel])];
            }
        }
    });
}

/// The 256 normalised values of each channel, each rounded three times as the reference does.
fn table(normalisation: &[f32]) -> [[f32; 256]; 3] {
    std::array::from_fn(|channel| {
        std::array::from_fn(|value| {
            (value as f32 / 255.0 - normalisation[channel]) / normalisation[3 + channel]
        })
    })
}
