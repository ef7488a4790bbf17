//! Launches of `augment.cu`: one block per view.

use anyhow::{Result, ensure};

use super::Augment;
use crate::data::augment::parameters::VIEW_BYTES;
use crate::device::gpu::kernels::augment::{
    self as kernels, NORMALISATION_LEN, SHARED_RESERVED, THREADS, VIEW_WORDS,
};
use crate::device::gpu::launch::Launch;
use crate::device::gpu::lower::Lowering;
use crate::device::operation::by_type;

// The kernel reads the parameters of a view with the same layout.
const _: () = assert!(VIEW_BYTES == 4 * VIEW_WORDS);

/// The normalisation tables of three channels, which one half of shared memory must hold.
const TABLE_BYTES: usize = NORMALISATION_LEN * 4;

/// The shape of the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LaunchShape {
    /// Threads per block.
    threads: usize,
    /// The most inputs of an axis that contribute to one output of the resize.
    taps: usize,
    /// Bytes of each of the two halves of shared memory, which hold an image, the tables or the resize
    /// weights.
    half: usize,
}

impl LaunchShape {
    fn new([height, width]: [usize; 2], size: usize) -> Self {
        let taps = (2 * height.max(width).max(size)).div_ceil(size);
        let weights = 2 * size * (1 + taps) * 4;
        let half = (3 * size * size).max(TABLE_BYTES).max(weights).next_multiple_of(16);
        // About eight pixels per thread, and at least four warps, three of which build the tables of the
        // channels.
        let threads = (size * size / 8).next_multiple_of(32).clamp(128, THREADS);
        Self { threads, taps, half }
    }

    fn shared_bytes(self) -> usize {
        2 * self.half
    }
}

/// The largest view size that fits `shared` bytes of shared memory.
fn largest_size(source: [usize; 2], shared: usize) -> usize {
    let fits = |size: &usize| LaunchShape::new(source, *size).shared_bytes() + SHARED_RESERVED <= shared;
    (1..=512).rev().find(fits).unwrap_or(0)
}

/// Lowers the augmentation.
pub(super) fn lower(lowering: &mut Lowering<'_>, operation: &Augment) -> Result<()> {
    let &Augment { batch, first, count, source, size, images, parameters, index, normalisation, views } =
        operation;
    ensure!(count > 0 && first + count <= 2, "{count} views from {first}: there are two");
    let samples = lowering.len(images) / (source[0] * source[1] * 3);
    ensure!(
        lowering.len(parameters) == samples * 2 * VIEW_BYTES,
        "not one set of parameters per sample and view"
    );
    let cut = LaunchShape::new(source, size);
    let shared = lowering.gpu().shared_bytes;
    if cut.shared_bytes() + SHARED_RESERVED > shared {
        return Err(crate::usage!(
            "views of {size}x{size}: augmentation keeps a view in the {} KB of shared memory that a block \
             of {} has, which is enough up to {}; take a smaller --image-size or --device cpu",
            shared / 1024,
            lowering.gpu().name,
            largest_size(source, shared)
        ));
    }
    // Within these limits the quotients of the resize weights fit 32 bits.
    let longest = source[0].max(source[1]).max(size);
    if longest > 1 << 12 || 2 * longest * longest / size >= 1 << 20 {
        return Err(crate::usage!(
            "images of {}x{} for views of {size}x{size}: too large for the augmentation kernel; make the \
             images smaller or take --device cpu",
            source[1],
            source[0]
        ));
    }
    let kernels = [kernels::AUGMENT_BF16, kernels::AUGMENT_F16, kernels::AUGMENT_F32];
    let kernel = by_type(lowering.element(views), kernels)?;
    let parameters = kernels::Augment {
        batch,
        first,
        height: source[0],
        width: source[1],
        size,
        taps: cut.taps,
        half: cut.half,
        images: lowering.address(images),
        parameters: lowering.address(parameters),
        index: lowering.address(index),
        normalisation: lowering.address(normalisation),
        views: lowering.address(views),
    };
    let launch = kernel.linear(count * batch, cut.threads, parameters);
    lowering.launch(Launch { shared_bytes: cut.shared_bytes() as u32, ..launch });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared memory per block of an RTX 3090.
    const SHARED: usize = 99 * 1024;

    #[test]
    fn views_up_to_128_fit_an_rtx_3090() {
        for size in [8, 32, 40, 48, 64, 96, 128] {
            for source in [[32, 32], [96, 128], [256, 256]] {
                let cut = LaunchShape::new(source, size);
                assert!(cut.shared_bytes() + SHARED_RESERVED <= SHARED, "{source:?} to {size}");
                assert!((128..=1024).contains(&cut.threads) && cut.threads.is_multiple_of(32));
            }
        }
        assert_eq!(LaunchShape::new([32, 32], 32), LaunchShape { threads: 128, taps: 2, half: 3072 });
        assert_eq!(largest_size([256, 256], SHARED), 129);
    }
}
