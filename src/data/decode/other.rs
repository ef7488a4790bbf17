//! WebP, BMP, TIFF and GIF by the decoders of the image crate: the first image of a file, as RGB, its alpha
//! dropped.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::codecs::{bmp::BmpDecoder, gif::GifDecoder, tiff::TiffDecoder, webp::WebPDecoder};
use image::{ColorType, DynamicImage, ImageDecoder, ImageResult, Limits};

use super::orientation::{Orientation, of_metadata};
use super::{Decoded, MAX_BYTES, MAX_SIDE, Problem, check_size};

/// A format that is read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Google's format; of an animation, the first frame.
    WebP,
    /// Windows bitmaps.
    Bmp,
    /// Of several pages, the first.
    Tiff,
    /// Of several frames, the first.
    Gif,
}

impl Format {
    /// The format of a file by its first bytes.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let begins = |signature: &[u8]| bytes.starts_with(signature);
        if begins(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else if begins(b"GIF87a") || begins(b"GIF89a") {
            Some(Self::Gif)
        } else if begins(b"II*\0") || begins(b"MM\0*") {
            Some(Self::Tiff)
        } else if begins(b"BM") {
            Some(Self::Bmp)
        } else {
            None
        }
    }
}

/// Decodes a file's first image.
///
/// # Errors
/// What is wrong with the file, or not supported.
pub fn decode(bytes: &[u8], format: Format) -> Result<Decoded, Problem> {
    // The decoders are not known to panic on any input; if one does, the error still names the file.
    let decoded = catch_unwind(AssertUnwindSafe(|| {
        let reader = Cursor::new(bytes);
        match format {
            Format::WebP => pixels(WebPDecoder::new(reader), bytes),
            Format::Bmp => pixels(BmpDecoder::new(reader), bytes),
            Format::Tiff => pixels(TiffDecoder::new(reader), bytes),
            Format::Gif => pixels(GifDecoder::new(reader), bytes),
        }
    }));
    decoded.unwrap_or_else(|_| Err("the decoder failed on it".into()))
}

fn pixels(decoder: ImageResult<impl ImageDecoder>, bytes: &[u8]) -> Result<Decoded, Problem> {
    let problem = |error: image::ImageError| error.to_string();
    let mut decoder = decoder.map_err(problem)?;
    let (width, height) = decoder.dimensions();
    // The decoder's own image beside the RGB that is made of it.
    let other = decoder.total_bytes().saturating_add(bytes.len() as u64);
    check_size(width, height, other, Orientation::default())?;
    refuse_wide(decoder.color_type())?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MAX_SIDE), Some(MAX_SIDE));
    limits.max_alloc = Some(MAX_BYTES);
    decoder.set_limits(limits).map_err(problem)?;
    // A TIFF file is itself what EXIF data are.
    let exif = match Format::of(bytes) {
        Some(Format::Tiff) => bytes.to_vec(),
        _ => decoder.exif_metadata().ok().flatten().unwrap_or_default(),
    };
    let xmp = decoder.xmp_metadata().ok().flatten().unwrap_or_default();
    let orientation = of_metadata(&exif, &xmp);
    check_size(width, height, other, orientation)?;
    let image = DynamicImage::from_decoder(decoder).map_err(problem)?;
    Ok(Decoded { width, height, pixels: image.into_rgb8().into_raw(), orientation })
}

/// Refuses more than 8 bits a channel.
fn refuse_wide(colours: ColorType) -> Result<(), Problem> {
    match colours {
        ColorType::L8 | ColorType::La8 | ColorType::Rgb8 | ColorType::Rgba8 => Ok(()),
        _ => {
            Err("more than 8 bits a channel, which programs turn into 8 in different ways; save it with 8"
                .into())
        }
    }
}
