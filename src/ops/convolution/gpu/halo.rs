//! Tiles of whole rows of images, of which the kernels of `kernels/convolution_halo.cuh` and
//! `kernels/convolution_weight_gradient_halo.cuh` copy each pixel once for all nine taps of a 3x3
//! convolution, with those around them.

use crate::device::gpu::kernels::convolution::SLICE;
use crate::device::gpu::kernels::convolution_halo::{HALO_NARROW, HALO_NARROW_ROW, HALO_PIXEL, HALO_WIDEST};
use crate::device::gpu::kernels::convolution_weight_gradient_halo::WINDOW_UNITS;
use crate::ops::convolution::ConvolutionShape;

/// A tile of points with the pixels around them. The kernels' `Halo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Halo {
    /// Bytes of shared memory for a slice of their channels.
    pub bytes: usize,
    /// Pixels that a block copies of a slice, those outside of the image included.
    pub pixels: usize,
    /// Pixels that the blocks of all points copy, those outside left out.
    pub copied: usize,
}

impl Halo {
    /// For tiles of so many points of a shape, if they are whole rows of images that the kernels take.
    pub fn of(shape: &ConvolutionShape, points: usize) -> Option<Self> {
        let ConvolutionShape { batch, height, width, .. } = *shape;
        let area = height * width;
        let row_bytes = row_bytes(shape)?;
        let bytes = |rows: usize| rows * row_bytes + HALO_PIXEL;
        if points.is_multiple_of(area) {
            let rows = points / width + points / area + 1;
            Some(Self { bytes: bytes(rows), pixels: points, copied: batch * area })
        } else if area.is_multiple_of(points) {
            // Neighbouring tiles share two rows.
            let copied = batch * (height + 2 * (area / points - 1)) * width;
            Some(Self { bytes: bytes(points / width + 2), pixels: points + 2 * width, copied })
        } else {
            None
        }
    }
}

/// Bytes of a row of pixels with its slice of channels, if the kernels take images of that width.
fn row_bytes(&ConvolutionShape { width, kernel, stride, .. }: &ConvolutionShape) -> Option<usize> {
    let widths = HALO_NARROW..=HALO_WIDEST;
    let taken = (kernel, stride) == (3, 1) && widths.contains(&width) && width.is_power_of_two();
    taken.then(|| if width == HALO_NARROW { HALO_NARROW_ROW } else { (width + 1) * HALO_PIXEL })
}

/// Bytes of shared memory for the pixels of x of a weight gradient with so many stages, if a step's are whole
/// rows of images that the kernels take. The kernels' `Window`.
pub fn window_bytes(shape: &ConvolutionShape, stages: usize) -> Option<usize> {
    let (row_bytes, area) = (row_bytes(shape)?, shape.height * shape.width);
    let units = WINDOW_UNITS + stages - 1;
    let whole = SLICE.is_multiple_of(area) || area.is_multiple_of(SLICE);
    whole.then(|| (units * SLICE / shape.width + 1) * row_bytes + HALO_PIXEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn halo(batch: usize, [height, width]: [usize; 2]) -> Option<Halo> {
        let (in_channels, out_channels) = (8, 8);
        Halo::of(
            &ConvolutionShape { batch, height, width, in_channels, out_channels, kernel: 3, stride: 1 },
            128,
        )
    }

    /// Four rows of a large image and one above and below; whole small images; nothing that leaves a row cut.
    #[test]
    fn tiles_are_whole_rows() {
        let large = Halo { bytes: 6 * 33 * 80 + 80, pixels: 192, copied: 5 * (32 + 14) * 32 };
        assert_eq!(halo(5, [32, 32]), Some(large));
        let small = Halo { bytes: 41 * 448 + 80, pixels: 128, copied: 5 * 16 };
        assert_eq!(halo(5, [4, 4]), Some(small));
        for size in [[8, 8], [16, 16], [8, 16], [16, 8], [12, 32], [1, 4]] {
            assert!(halo(2, size).is_some(), "{size:?}");
        }
        for size in [[7, 5], [64, 64], [6, 4], [6, 16], [2, 2], [14, 14]] {
            assert_eq!(halo(2, size), None, "{size:?}");
        }
    }

    /// A window of five units of a row, of eight rows, and none where 32 pixels are no whole rows or images.
    #[test]
    fn windows_are_whole_rows() {
        let bytes = |[height, width]: [usize; 2], stride| {
            let (in_channels, out_channels) = (8, 8);
            let kernel = 3;
            let shape =
                ConvolutionShape { batch: 1, height, width, in_channels, out_channels, kernel, stride };
            window_bytes(&shape, 3)
        };
        assert_eq!(bytes([12, 32], 1), Some(6 * 33 * 80 + 80));
        assert_eq!(bytes([4, 4], 1), Some(41 * 448 + 80));
        assert!(bytes([6, 16], 1).is_some() && bytes([2, 4], 1).is_some());
        for (size, stride) in [([7, 5], 1), ([64, 64], 1), ([6, 4], 1), ([3, 16], 1), ([16, 16], 2)] {
            assert_eq!(bytes(size, stride), None, "{size:?}");
        }
    }
}
