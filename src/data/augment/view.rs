//! Making a view from its parameters: crop and resize, flip, colours, operations, cutout; then normalisation.

use super::parameters::ViewParameters;
use super::resize::{Axis, Crop, resize_crop};
use super::{colour, cutout, flip};
use crate::data::Normalisation;

/// Memory and resize weights that are reused from view to view.
#[derive(Default)]
pub struct Scratch {
    /// Resize weights by (input, output) length, computed when first needed.
    axes: Vec<Vec<Option<Box<Axis>>>>,
    between: Vec<u8>,
    before: Vec<u8>,
    pixels: Vec<u8>,
}

impl Scratch {
    /// Computes the weights from `input` to `output`, if not done yet.
    fn prepare(&mut self, input: usize, output: usize) {
        if self.axes.len() <= input {
            self.axes.resize_with(input + 1, Vec::new);
        }
        let row = &mut self.axes[input];
        if row.len() <= output {
            row.resize_with(output + 1, || None);
        }
        row[output].get_or_insert_with(|| Box::new(Axis::new(input, output)));
    }
}

/// Makes a view `out` `[size, size, 3]` of an image `[height, width, 3]`. Parameters that name pixels outside
/// the image are clamped.
pub fn augment(
    image: &[u8],
    [height, width]: [usize; 2],
    parameters: &ViewParameters,
    size: usize,
    scratch: &mut Scratch,
    out: &mut [u8],
) {
    let [top, left, h, w] = parameters.crop.map(|value| value.max(0) as usize);
    let (top, left) = (top.min(height - 1), left.min(width - 1));
    let crop = Crop { top, left, height: h.clamp(1, height - top), width: w.clamp(1, width - left) };
    scratch.prepare(crop.width, size);
    scratch.prepare(crop.height, size);
    if let (Some(horizontal), Some(vertical)) =
        (&scratch.axes[crop.width][size], &scratch.axes[crop.height][size])
    {
        resize_crop(image, width, crop, [size, size], (horizontal, vertical), &mut scratch.between, out);
    }
    if parameters.flip != 0 {
        flip(out, size);
    }
    if parameters.jitter != 0 {
        let [brightness, contrast, saturation] = parameters.jitter_factors;
        for part in parameters.jitter_order {
            match part {
                0 => colour::brightness(out, brightness),
                1 => colour::contrast(out, contrast),
                2 => colour::saturation(out, saturation),
                _ => colour::hue(out, parameters.hue_shift as u8),
            }
        }
    }
    if parameters.grayscale != 0 {
        colour::grayscale(out);
    }
    for operation in &parameters.operations {
        operation.apply(out, size, &mut scratch.before);
    }
    cutout(out, size, parameters.cutout);
}

/// The 256 normalised values of each channel, each rounded three times as the reference does: (v/255 - mean)
/// / std.
pub struct NormalisationTable([[f32; 256]; 3]);

impl NormalisationTable {
    /// The table for the constants of a normalisation.
    pub fn new(Normalisation { mean, std }: Normalisation) -> Self {
        let value = |channel: usize, value: usize| (value as f32 / 255.0 - mean[channel]) / std[channel];
        Self(std::array::from_fn(|channel| std::array::from_fn(|v| value(channel, v))))
    }

    /// `out` `[pixels, 3]` from uint8 `[pixels, 3]`.
    pub fn apply(&self, pixels: &[u8], out: &mut [f32]) {
        for (out, pixel) in out.chunks_exact_mut(3).zip(pixels.chunks_exact(3)) {
            for channel in 0..3 {
                out[channel] = self.0[channel][usize::from(pixel[channel])];
            }
        }
    }
}

/// [`augment`], then normalised into `out` `[size, size, 3]`.
pub fn augment_normalised(
    image: &[u8],
    source: [usize; 2],
    parameters: &ViewParameters,
    size: usize,
    table: &NormalisationTable,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let mut pixels = std::mem::take(&mut scratch.pixels);
    pixels.resize(size * size * 3, 0);
    augment(image, source, parameters, size, scratch, &mut pixels);
    table.apply(&pixels, out);
    scratch.pixels = pixels;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::augment::View;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_view_of_any_image_is_made(seed: u64, height in 1usize..70, width in 1usize..70, size in 1usize..70) {
            let image: Vec<u8> = (0..height * width * 3).map(|i| (i * 37 % 251) as u8).collect();
            let mut scratch = Scratch::default();
            let mut out = vec![0; size * size * 3];
            for view in [View::Weak, View::Strong] {
                let parameters = ViewParameters::of_sample(seed, 0, 0, view, [height, width], size);
                augment(&image, [height, width], &parameters, size, &mut scratch, &mut out);
            }
        }
    }

    /// A view does not depend on views made earlier with the same scratch memory.
    #[test]
    fn scratch_leaves_no_trace() {
        let image: Vec<u8> = (0..32 * 32 * 3).map(|i| (i * 7 % 256) as u8).collect();
        let view = |sample, scratch: &mut Scratch| {
            let parameters = ViewParameters::of_sample(9, 1, sample, View::Strong, [32, 32], 32);
            let mut out = vec![0; 32 * 32 * 3];
            augment(&image, [32, 32], &parameters, 32, scratch, &mut out);
            out
        };
        let mut shared = Scratch::default();
        for sample in 0..50 {
            assert_eq!(view(sample, &mut shared), view(sample, &mut Scratch::default()), "sample {sample}");
        }
    }
}
