//! Loading many images of any shape as squares of one size.

use std::path::Path;

use anyhow::Result;
use rayon::prelude::*;

use super::{MAX_BYTES, decode_named, shown};
use crate::data::augment::resize::resize;
use crate::data::progress::{self, Unit, WorkProgress};
use crate::files::read_whole;
use crate::usage;

/// How to make an image square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Resize it to the square without keeping its aspect ratio.
    Stretched,
    /// Pad it to a square with zeros on both sides of its shorter dimension, then resize it (SPEC 9).
    Padded,
}

/// The progress of loading `images` images.
pub fn loading(images: usize) -> Box<dyn WorkProgress> {
    progress::begin("loading images", images as u64, Unit::Items)
}

/// Fills `[count, size, size, 3]` on all threads: `load(i, out)` writes image `i`. Each image has its own
/// place, so the result does not depend on the threads.
///
/// # Errors
/// The first error in the order of the images, whichever thread has one first; a usage error for a size of 0,
/// or if the images do not fit into memory.
pub fn decode_all(
    count: usize,
    size: usize,
    progress: &dyn WorkProgress,
    load: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
) -> Result<Vec<u8>> {
    if size == 0 {
        return Err(usage!("image size 0: give at least 1 pixel"));
    }
    let too_large = || {
        usage!("{count} images of {size}x{size} pixels do not fit into memory; choose a smaller image size")
    };
    let image_len = size.checked_mul(size).and_then(|pixels| pixels.checked_mul(3)).ok_or_else(too_large)?;
    let total = image_len.checked_mul(count).ok_or_else(too_large)?;
    // Twice: the long-tailed subset and the device need copies.
    crate::memory::ensure_room(
        crate::memory::product(&[total, 2]),
        &format!("{count} images of {size}x{size} pixels, twice"),
        "take a smaller --image-size",
    )?;
    let mut images = Vec::new();
    images.try_reserve_exact(total).map_err(|_| too_large())?;
    images.resize(total, 0);
    let error = images.par_chunks_exact_mut(image_len).enumerate().find_map_first(|(i, out)| {
        let loaded = load(i, out);
        progress.advance(1);
        loaded.err()
    });
    match error {
        Some(error) => Err(error),
        None => Ok(images),
    }
}

/// Decodes a file into `out`, `[size, size, 3]`, resized by Pillow's bilinear filter if it has another size.
/// Returns whether the image was turned or mirrored to be upright.
///
/// # Errors
/// As [`decode`](super::decode); also if an image padded to a square would be too large.
pub fn decode_square(path: &Path, size: usize, fit: Fit, out: &mut [u8]) -> Result<bool> {
    square_of(path, &read_whole(path, MAX_BYTES)?, size, fit, out)
}

/// As [`decode_square`], from the bytes of the file `path`.
///
/// # Errors
/// As [`decode_square`].
pub(super) fn square_of(path: &Path, bytes: &[u8], size: usize, fit: Fit, out: &mut [u8]) -> Result<bool> {
    let (image, is_turned) = decode_named(path, bytes)?;
    let shape = [image.height() as usize, image.width() as usize];
    if fit == Fit::Padded && shape[0] != shape[1] {
        let side = shape[0].max(shape[1]);
        // The image and the square are in memory at the same time.
        if 3 * ((side as u64).pow(2) + (shape[0] * shape[1]) as u64) > MAX_BYTES {
            return Err(usage!(
                "{}: {}x{} pixels are over {} MiB when padded to a square; make the image smaller or remove it",
                shown(path),
                shape[1],
                shape[0],
                MAX_BYTES >> 20
            ));
        }
        resize_into(&pad_to_square(image.as_raw(), shape), [side, side], size, out);
    } else {
        resize_into(image.as_raw(), shape, size, out);
    }
    Ok(is_turned)
}

fn resize_into(pixels: &[u8], shape: [usize; 2], size: usize, out: &mut [u8]) {
    if shape == [size, size] {
        out.copy_from_slice(pixels);
    } else {
        out.copy_from_slice(&resize(pixels, shape, [size, size]));
    }
}

/// An image `[height, width, 3]` padded with zeros to `[side, side, 3]`, where side is the larger of both.
/// Half of the padding, rounded down, is above a wide image or left of a tall one.
fn pad_to_square(pixels: &[u8], [height, width]: [usize; 2]) -> Vec<u8> {
    let side = height.max(width);
    let (top, left) = ((side - height) / 2, (side - width) / 2);
    let mut padded = vec![0; side * side * 3];
    for (row, line) in pixels.chunks_exact(width * 3).enumerate() {
        padded[((top + row) * side + left) * 3..][..width * 3].copy_from_slice(line);
    }
    padded
}
