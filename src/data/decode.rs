//! From JPEG and PNG files to square images of one size: what all data sets of image files share.
//!
//! PNG pixels are exact. JPEG leaves decoders some freedom: on 5,000 images of CIFAR-10 as JPEG these pixels differ from
//! libjpeg's (Pillow's) by 0.26 levels of 255 on average and by 5 at most.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::Result;
use image::{ImageFormat, ImageReader, Limits, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use super::augment::resize::resize;
use crate::usage;

/// Rows and columns an image may have at most.
const MAX_SIDE: u32 = 16_384;
/// Bytes that a file, its decoding, or its pixels padded to a square may take at most.
const MAX_BYTES: u64 = 256 << 20;

/// How an image that is not square becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Resized to the square, not keeping its aspect.
    Stretched,
    /// Padded to a square with zeros on both sides of its shorter dimension, then resized (SPEC 9).
    Padded,
}

/// A progress bar over `images` images.
pub fn loading_bar(images: usize) -> ProgressBar {
    let progress = ProgressBar::new(images as u64);
    if let Ok(style) = ProgressStyle::with_template("loading images {wide_bar} {pos}/{len} {eta}") {
        progress.set_style(style);
    }
    progress
}

/// Fills `[count, size, size, 3]` on all threads: `load(i, out)` makes image `i`. Each image has its own place, so the order
/// does not depend on the threads.
///
/// # Errors
/// The first error in order of the images, whichever thread meets one first; a usage error for a size of 0 and where the images do
/// not fit into memory.
pub fn decode_all(
    count: usize,
    size: usize,
    progress: &ProgressBar,
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
    // A long-tailed subset and the device have theirs besides.
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
        progress.inc(1);
        loaded.err()
    });
    match error {
        Some(error) => Err(error),
        None => Ok(images),
    }
}

/// Decodes a JPEG or PNG file into RGB, within bounds of size and memory; alpha is dropped.
///
/// # Errors
/// A usage error naming the file and what is wrong with it.
pub fn decode(path: &Path) -> Result<RgbImage> {
    let damaged = |problem: &dyn std::fmt::Display| {
        usage!("{}: not a readable JPEG or PNG image: {problem}; replace or remove it", path.display())
    };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(|error| {
        usage!("{}: cannot be read: {error}; make it readable or remove it", path.display())
    })?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged(&format_args!("over {} MiB", MAX_BYTES >> 20)));
    }
    let mut reader =
        ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|error| damaged(&error))?;
    match reader.format() {
        Some(ImageFormat::Jpeg) if !jpeg_is_complete(&bytes) => {
            return Err(damaged(&format_args!(
                "the JPEG data end at byte {} without end marker",
                bytes.len()
            )));
        }
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        _ => return Err(damaged(&"neither a JPEG nor a PNG signature at byte 0")),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    Ok(reader.decode().map_err(|error| damaged(&error))?.into_rgb8())
}

/// Decodes a file into `out`, `[size, size, 3]`, resized by Pillow's bilinear where it has another size.
///
/// # Errors
/// As [`decode`]; also for an image that is too large once it is padded to a square.
pub fn decode_square(path: &Path, size: usize, fit: Fit, out: &mut [u8]) -> Result<()> {
    let image = decode(path)?;
    let shape = [image.height() as usize, image.width() as usize];
    if fit == Fit::Padded && shape[0] != shape[1] {
        let side = shape[0].max(shape[1]);
        if 3 * (side as u64).pow(2) > MAX_BYTES {
            return Err(usage!(
                "{}: {}x{} pixels are over {} MiB when padded to a square; make the image smaller or remove it",
                path.display(),
                shape[1],
                shape[0],
                MAX_BYTES >> 20
            ));
        }
        resize_into(&pad_to_square(image.as_raw(), shape), [side, side], size, out);
    } else {
        resize_into(image.as_raw(), shape, size, out);
    }
    Ok(())
}

fn resize_into(pixels: &[u8], shape: [usize; 2], size: usize, out: &mut [u8]) {
    if shape == [size, size] {
        out.copy_from_slice(pixels);
    } else {
        out.copy_from_slice(&resize(pixels, shape, [size, size]));
    }
}

/// An image `[height, width, 3]` amid zeros, `[side, side, 3]` with side the larger of both. Half of the difference, rounded
/// down, comes first: rows above a wide image, columns to the left of a tall one.
fn pad_to_square(pixels: &[u8], [height, width]: [usize; 2]) -> Vec<u8> {
    let side = height.max(width);
    let (top, left) = ((side - height) / 2, (side - width) / 2);
    let mut padded = vec![0; side * side * 3];
    for (row, line) in pixels.chunks_exact(width * 3).enumerate() {
        padded[((top + row) * side + left) * 3..][..width * 3].copy_from_slice(line);
    }
    padded
}

/// Whether the markers of a JPEG file lead to its end-of-image marker. The decoder fills what a truncated file lacks with
/// grey and reports nothing, so that such a file would go unnoticed.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xd9;
    // After the start-of-image marker.
    let mut at = 2;
    while let Some(skip) = bytes.get(at..).and_then(next_marker) {
        at += skip;
        match bytes[at - 1] {
            END_OF_IMAGE => return true,
            // Start of image and TEM stand alone.
            0x01 | 0xd8 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
                // Entropy-coded data after a scan's header have no length: the next marker ends them.
                at += usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// Bytes up to and with the next marker; stuffed zeros, fill bytes and restart markers are none.
fn next_marker(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(2)
        .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0xd0..=0xd7))
        .map(|at| at + 2)
}
