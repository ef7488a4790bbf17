//! The random choices of a view, drawn on the host from one keyed stream with the distributions of SPEC 4.

use bytemuck::{Pod, Zeroable};

use super::operation::{OPERATIONS, OperationParameters};
use super::resize::Crop;
use super::{colour, cutout_rectangle};
use crate::random::philox::{Purpose, Stream};

/// The two views of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Crop, flip, colour jitter, grayscale.
    Weak,
    /// Crop, flip, three RandAugment operations, cutout.
    Strong,
}

/// The random choices of a view, reduced to integers and blend factors. Devices read these bytes as they are.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct ViewParameters {
    /// Top, left, height, width of the crop in the source.
    pub crop: [i32; 4],
    /// 1 if the columns are mirrored.
    pub flip: i32,
    /// 1 if the colours are jittered.
    pub jitter: i32,
    /// The order of the jitter's parts: 0 brightness, 1 contrast, 2 saturation, 3 hue.
    pub jitter_order: [i32; 4],
    /// Brightness, contrast and saturation factors.
    pub jitter_factors: [f32; 3],
    /// Added to the uint8 hue.
    pub hue_shift: i32,
    /// 1 if the view becomes grey.
    pub grayscale: i32,
    /// The RandAugment operations, in order.
    pub operations: [OperationParameters; 3],
    /// Columns x0..=x1 and rows y0..=y1 of the cutout as `[x0, y0, x1, y1]`; x1 < x0 if there is none.
    pub cutout: [i32; 4],
}

/// Bytes of one view's parameters.
pub const VIEW_BYTES: usize = size_of::<ViewParameters>();

impl ViewParameters {
    /// A view that only resizes the whole image.
    pub fn plain(height: usize, width: usize) -> Self {
        Self {
            crop: [0, 0, height as i32, width as i32],
            flip: 0,
            jitter: 0,
            jitter_order: [0, 1, 2, 3],
            jitter_factors: [1.0; 3],
            hue_shift: 0,
            grayscale: 0,
            operations: [OperationParameters::IDENTITY; 3],
            cutout: [0, 0, -1, -1],
        }
    }

    /// The view of `sample` in `epoch` of a run with `seed`: a function of these alone.
    pub fn of_sample(
        seed: u64,
        epoch: u32,
        sample: u32,
        view: View,
        source: [usize; 2],
        size: usize,
    ) -> Self {
        let mut stream = Stream::new(seed, Purpose::Augmentation, epoch, sample, view as u32);
        Self::draw(&mut stream, view, source, size)
    }

    /// Draws a view of size x size from a source of `[height, width]`.
    pub fn draw(stream: &mut Stream, view: View, [height, width]: [usize; 2], size: usize) -> Self {
        let mut parameters = Self::plain(height, width);
        let crop = random_crop(stream, height, width);
        parameters.crop = [crop.top as i32, crop.left as i32, crop.height as i32, crop.width as i32];
        parameters.flip = i32::from(stream.unit() < 0.5);
        match view {
            View::Weak => {
                parameters.jitter = i32::from(stream.unit() < 0.8);
                let order = stream.permutation(4);
                parameters.jitter_order = std::array::from_fn(|i| order[i] as i32);
                parameters.jitter_factors = std::array::from_fn(|_| stream.uniform(0.6, 1.4) as f32);
                parameters.hue_shift = i32::from(colour::hue_shift(stream.uniform(-0.1, 0.1)));
                parameters.grayscale = i32::from(stream.unit() < 0.2);
            }
            View::Strong => {
                let choices: [usize; 3] =
                    std::array::from_fn(|_| stream.below(OPERATIONS.len() as u32) as usize);
                for (slot, choice) in parameters.operations.iter_mut().zip(choices) {
                    let (operation, _, range) = OPERATIONS[choice];
                    let [low, high] = range.unwrap_or([0.0, 1.0]);
                    *slot = OperationParameters::new(operation, stream.uniform(low, high), [size, size]);
                }
                let side = size as f64;
                let cut = 0.5 * stream.unit() * side;
                // The reference draws the centre from (1, W], since its library is given only one bound (SPEC
                // 4).
                let centre = [0, 1].map(|_| side + (1.0 - side) * stream.unit());
                if let Some(rectangle) = cutout_rectangle(cut, centre, [size, size]) {
                    parameters.cutout = rectangle;
                }
            }
        }
        parameters
    }
}

/// RandomResizedCrop: up to ten tries of area U(0.2,1) and aspect exp U(ln 3/4, ln 4/3), else the central
/// crop.
fn random_crop(stream: &mut Stream, height: usize, width: usize) -> Crop {
    let area = (height * width) as f64;
    for _ in 0..10 {
        let target = area * stream.uniform(0.2, 1.0);
        let aspect = stream.uniform((3.0f64 / 4.0).ln(), (4.0f64 / 3.0).ln()).exp();
        let w = (target * aspect).sqrt().round_ties_even() as usize;
        let h = (target / aspect).sqrt().round_ties_even() as usize;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = stream.below((height - h) as u32 + 1) as usize;
            let left = stream.below((width - w) as u32 + 1) as usize;
            return Crop { top, left, height: h, width: w };
        }
    }
    let ratio = width as f64 / height as f64;
    let (w, h) = if ratio < 3.0 / 4.0 {
        (width, ((width as f64 / 0.75).round_ties_even() as usize).clamp(1, height))
    } else if ratio > 4.0 / 3.0 {
        (((height as f64 * 4.0 / 3.0).round_ties_even() as usize).clamp(1, width), height)
    } else {
        (width, height)
    };
    Crop { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Frequencies over 4,000 samples: within five standard deviations of what SPEC 4 says.
    #[test]
    fn draws_have_the_reference_distributions() {
        let n = 4000u32;
        let weak: Vec<_> =
            (0..n).map(|i| ViewParameters::of_sample(1, 0, i, View::Weak, [32, 32], 32)).collect();
        let strong: Vec<_> =
            (0..n).map(|i| ViewParameters::of_sample(1, 0, i, View::Strong, [32, 32], 32)).collect();
        let near = |what: &str, count: usize, total: usize, p: f64| {
            let gap = (count as f64 / total as f64 - p).abs();
            assert!(gap < 5.0 * (p * (1.0 - p) / total as f64).sqrt(), "{what}: {count} of {total}");
        };
        let total = n as usize;
        near("weak flips", weak.iter().filter(|p| p.flip == 1).count(), total, 0.5);
        near("strong flips", strong.iter().filter(|p| p.flip == 1).count(), total, 0.5);
        near("jitter", weak.iter().filter(|p| p.jitter == 1).count(), total, 0.8);
        near("grayscale", weak.iter().filter(|p| p.grayscale == 1).count(), total, 0.2);
        near("hue first", weak.iter().filter(|p| p.jitter_order[0] == 3).count(), total, 0.25);
        let equalize = strong
            .iter()
            .flat_map(|p| p.operations)
            .filter(|o| o.kind == ImageOperation::Equalize as i32)
            .count();
        near("equalize", equalize, 3 * total, 1.0 / 14.0);
        // Above 3/4 an area fits only some aspects, so the accepted mean lies below that of U(0.2, 1): 0.538
        // without rounding to pixels, a little more with it (sides up to 32.5 count as 32); the spread over n
        // draws is 0.2 / sqrt(n) = 0.003.
        let area = weak.iter().map(|p| f64::from(p.crop[2] * p.crop[3]) / 1024.0).sum::<f64>() / f64::from(n);
        assert!((0.535..0.575).contains(&area), "{area}");
        assert!(weak.iter().all(|p| p.jitter_factors.iter().all(|f| (0.6..=1.4).contains(f))));
        assert!(strong.iter().all(|p| p.jitter == 0 && p.grayscale == 0));
        assert!(weak.iter().all(|p| p.cutout[2] < 0 && p.operations == [OperationParameters::IDENTITY; 3]));
        assert!(strong.iter().any(|p| p.cutout[2] - p.cutout[0] > 12));
    }

    use super::super::ImageOperation;

    /// Choices measured in pixels grow with the view; all others are drawn alike.
    #[test]
    fn cutouts_and_translations_scale_with_the_size() {
        let (mut translations, mut cutouts) = (0, 0);
        for sample in 0..400 {
            let of = |size| ViewParameters::of_sample(2, 0, sample, View::Strong, [128, 128], size);
            let (small, large) = (of(32), of(128));
            assert_eq!((small.crop, small.flip), (large.crop, large.flip));
            for (a, b) in small.operations.iter().zip(&large.operations) {
                assert_eq!((a.kind, a.factor), (b.kind, b.factor));
                if a.kind == ImageOperation::TranslateX as i32 {
                    // Whole pixels, each rounded from a shift four times as long.
                    let near = |a: i32, b: i32| (4 * a - b).abs() <= 6;
                    assert!(
                        near(a.integers[0], b.integers[0]) && near(a.integers[1], b.integers[1]),
                        "{b:?}"
                    );
                    translations += usize::from(b.integers[0].abs() > 16 || b.integers[1].abs() > 16);
                }
            }
            let [x0, y0, x1, y1] = large.cutout;
            let width = |[x0, _, x1, _]: [i32; 4]| x1 - x0;
            assert!(x0 >= 0 && y0 >= 0 && x1 <= 128 && y1 <= 128 && width(large.cutout) <= 65);
            assert!((4 * width(small.cutout) - width(large.cutout)).abs() <= 8, "{:?}", large.cutout);
            cutouts += usize::from(width(large.cutout) > 33);
        }
        assert!(translations > 20 && cutouts > 20, "{translations} {cutouts}");
    }

    proptest! {
        #[test]
        fn crops_lie_inside_any_source(seed: u64, height in 1usize..200, width in 1usize..200, size in 1usize..130) {
            for view in [View::Weak, View::Strong] {
                let p = ViewParameters::of_sample(seed, 3, 5, view, [height, width], size);
                let [top, left, h, w] = p.crop;
                prop_assert!(top >= 0 && left >= 0 && h >= 1 && w >= 1);
                prop_assert!((top + h) as usize <= height && (left + w) as usize <= width);
                prop_assert_eq!(p, ViewParameters::of_sample(seed, 3, 5, view, [height, width], size));
            }
        }
    }
}
