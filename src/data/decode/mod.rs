//! Decoding JPEG, PNG, WebP, BMP, TIFF and GIF files into the pixels that Pillow's
//! `exif_transpose(Image.open(file)).convert("RGB")` gives, or a refusal that names the file. All images are
//! read here.
//!
//! `jpeg` and `png` decode one format each, `other` the rest, `orientation` turns images upright, `square`
//! resizes them to one size, `kept` keeps the squares for the next run, `unreadable` loads sets of
//! files and names all that are damaged.

mod jpeg;
mod kept;
mod orientation;
mod other;
mod png;
mod square;
mod unreadable;

use std::path::Path;

use anyhow::Result;
use image::RgbImage;

pub use self::kept::folder as image_cache;
use self::orientation::Orientation;
pub use self::square::{Fit, decode_all, decode_square, loading};
pub use self::unreadable::{LoadedFiles, Unreadable, check_readable, in_words, load_files, turned_in_words};
use crate::files::read_whole;
use crate::text::printable;
use crate::usage;

/// The most rows or columns of an image.
const MAX_SIDE: u32 = 16_384;
/// The most bytes that decoding an image may take: its file, the decoder's memory, and the pixels with their
/// copies.
const MAX_BYTES: u64 = 256 << 20;

/// What is wrong with a file, without its name.
type Problem = String;

/// A decoded image before it is turned upright.
struct Decoded {
    width: u32,
    height: u32,
    /// `[height, width, 3]`.
    pixels: Vec<u8>,
    orientation: Orientation,
}

/// Decodes an image file (its first bytes say which format it has) into upright RGB, within limits of size
/// and memory; alpha is dropped.
///
/// # Errors
/// A usage error that names the file and what is wrong with it.
pub fn decode(path: &Path) -> Result<RgbImage> {
    Ok(decode_named(path, &read_whole(path, MAX_BYTES)?)?.0)
}

/// As [`decode_upright`]; errors name the file `path`.
fn decode_named(path: &Path, bytes: &[u8]) -> Result<(RgbImage, bool)> {
    decode_upright(bytes)
        .map_err(|problem| usage!("{}: not a readable image: {problem}; replace or remove it", shown(path)))
}

/// As [`decode`], for the bytes of a file.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, Problem> {
    Ok(decode_upright(bytes)?.0)
}

/// The image in the bytes of a file, and whether it was turned or mirrored to be upright.
fn decode_upright(bytes: &[u8]) -> Result<(RgbImage, bool), Problem> {
    let Decoded { width, height, pixels, orientation } = if bytes.starts_with(jpeg::SIGNATURE) {
        jpeg::decode(bytes)
    } else if bytes.starts_with(png::SIGNATURE) {
        png::decode(bytes)
    } else if let Some(format) = other::Format::of(bytes) {
        other::decode(bytes, format)
    } else {
        Err("no signature of JPEG, PNG, WebP, BMP, TIFF or GIF at byte 0".into())
    }?;
    let pixels = orientation.apply(pixels, [height as usize, width as usize]);
    let (width, height) = if orientation.swaps_sides() { (height, width) } else { (width, height) };
    let image = RgbImage::from_raw(width, height, pixels).ok_or("its pixels do not fill its size")?;
    Ok((image, orientation.is_turned()))
}

/// The endings of the names of image files, in words.
pub const EXTENSIONS: &str = ".jpg, .jpeg, .png, .webp, .bmp, .tif, .tiff or .gif";

/// Whether the name ends in one of [`EXTENSIONS`], in any case.
pub fn has_image_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif"]
            .iter()
            .any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// A path, safe to print on a terminal.
fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// Refuses sides and memory beyond the limits. `other_bytes` are needed besides the pixels.
fn check_size(width: u32, height: u32, other_bytes: u64, orientation: Orientation) -> Result<(), Problem> {
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(format!("{width}x{height} pixels; the limit is {MAX_SIDE} on each side"));
    }
    let copies = if orientation.swaps_sides() { 2 } else { 1 };
    let bytes = 3 * copies * u64::from(width) * u64::from(height) + other_bytes;
    if bytes > MAX_BYTES {
        return Err(format!(
            "{width}x{height} pixels, which take {} MiB to decode; the limit is {} MiB",
            bytes.div_ceil(1 << 20),
            MAX_BYTES >> 20
        ));
    }
    Ok(())
}

/// Zeros for `[height, width, 3]` pixels.
fn pixel_buffer(width: usize, height: usize) -> Result<Vec<u8>, Problem> {
    let length = 3 * width * height;
    let mut pixels = Vec::new();
    pixels.try_reserve_exact(length).map_err(|_| format!("no memory for {width}x{height} pixels"))?;
    pixels.resize(length, 0);
    Ok(pixels)
}
