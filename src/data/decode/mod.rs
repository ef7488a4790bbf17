//! From JPEG and PNG files to pixels, the same that Pillow's `exif_transpose(Image.open(file)).convert("RGB")` gives, or a refusal
//! that names the file. All images this program reads come through here.
//!
//! `jpeg` and `png` each decode one format, `orientation` turns images upright, `square` brings them to one size.

mod jpeg;
mod orientation;
mod png;
mod square;

use std::path::Path;

use anyhow::Result;
use image::RgbImage;

use self::orientation::Orientation;
pub use self::square::{Fit, decode_all, decode_square, loading};
use crate::files::read_whole;
use crate::text::printable;
use crate::usage;

/// Rows and columns an image may have at most.
const MAX_SIDE: u32 = 16_384;
/// Bytes that decoding an image may take at most: its file, what the decoder keeps, and the pixels with the copies made of them.
const MAX_BYTES: u64 = 256 << 20;

/// What is wrong with a file, without its name.
type Problem = String;

/// The image of a file before it is turned upright.
struct Decoded {
    width: u32,
    height: u32,
    /// `[height, width, 3]`.
    pixels: Vec<u8>,
    orientation: Orientation,
}

/// Decodes a JPEG or PNG file, whichever its first bytes say, into upright RGB, within bounds of size and memory; alpha is dropped.
///
/// # Errors
/// A usage error naming the file and what is wrong with it.
pub fn decode(path: &Path) -> Result<RgbImage> {
    let bytes = read_whole(path, MAX_BYTES)?;
    decode_bytes(&bytes).map_err(|problem| {
        usage!("{}: not a readable JPEG or PNG image: {problem}; replace or remove it", shown(path))
    })
}

/// As [`decode`] for the bytes of a file.
///
/// # Errors
/// What is wrong with them.
pub fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, Problem> {
    let Decoded { width, height, pixels, orientation } = if bytes.starts_with(jpeg::SIGNATURE) {
        jpeg::decode(bytes)
    } else if bytes.starts_with(png::SIGNATURE) {
        png::decode(bytes)
    } else {
        Err("neither a JPEG nor a PNG signature at byte 0".into())
    }?;
    let pixels = orientation.apply(pixels, [height as usize, width as usize]);
    let (width, height) = if orientation.swaps_sides() { (height, width) } else { (width, height) };
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| "its pixels do not fill its size".into())
}

/// A path fit for a terminal.
fn shown(path: &Path) -> String {
    printable(&path.display().to_string())
}

/// Refuses sides and memory beyond the bounds. `other_bytes` are those besides the pixels.
fn check_size(width: u32, height: u32, other_bytes: u64, orientation: Orientation) -> Result<(), Problem> {
    if width > MAX_SIDE || height > MAX_SIDE {
        return Err(format!("{width}x{height} pixels; the limit is {MAX_SIDE} a side"));
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
