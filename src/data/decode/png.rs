//! PNG: rows of any depth and colour type become RGB, with the same pixels as by Pillow's `convert("RGB")`.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use png::{
    BitDepth, ColorType, DecodeOptions, Info, InterlaceInfo, Limits, Reader, Transformations,
    expand_interlaced_row,
};

use super::orientation::{self, Orientation};
use super::{Decoded, MAX_BYTES, Problem, check_size, pixel_buffer};

/// The first bytes of a PNG file.
pub const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes that decoding takes besides the file, the pixels and two rows: the window and tables for inflating.
const WORKING_BYTES: u64 = 1 << 20;

/// Decodes a file's image; for an animation, its first or its default image.
///
/// # Errors
/// What is wrong with the file, or not supported.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Problem> {
    // The crate is not known to panic on any input; if it does, the error still names the file.
    catch_unwind(AssertUnwindSafe(|| decode_rows(bytes)))
        .unwrap_or_else(|_| Err("the PNG decoder failed on it".into()))
}

fn decode_rows(bytes: &[u8]) -> Result<Decoded, Problem> {
    let problem = |error: png::DecodingError| error.to_string();
    let mut reader = open(bytes)?;
    let (width, height) = reader.info().size();
    let stride = 3 * width as usize;
    let mut pixels = pixel_buffer(width as usize, height as usize)?;
    let (colours, _) = reader.output_color_type();
    let mut row = vec![0; reader.output_line_size(width).ok_or("a row is too long")?];
    let mut rgb = vec![0; stride];
    let mut line = 0;
    while let Some(place) = reader.read_row(&mut row).map_err(problem)? {
        match place {
            InterlaceInfo::Null(_) => {
                rgb_of_row(&row, colours, &mut pixels[line * stride..][..stride]);
                line += 1;
            }
            // A row of an interlaced pass has fewer pixels; only these are taken from `rgb`.
            InterlaceInfo::Adam7(pass) => {
                rgb_of_row(&row, colours, &mut rgb);
                expand_interlaced_row(&mut pixels, stride, &rgb, &pass, 24);
            }
        }
    }
    // Read on to the end chunk, checking all checksums.
    reader.finish().map_err(problem)?;
    let orientation = orientation_of(reader.info());
    check_size(width, height, bytes.len() as u64 + WORKING_BYTES, orientation)?;
    Ok(Decoded { width, height, pixels, orientation })
}

/// Reads up to the pixels, checking all checksums, and refuses files that cannot be decoded.
fn open(bytes: &[u8]) -> Result<Reader<Cursor<&[u8]>>, Problem> {
    let mut options = DecodeOptions::default();
    options.set_ignore_checksums(false);
    options.set_skip_ancillary_crc_failures(false);
    // A colour profile is not applied, so it need not be unpacked.
    options.set_ignore_iccp_chunk(true);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let info = decoder.read_header_info().map_err(|error| error.to_string())?;
    check_header(info, bytes.len())?;
    // Rows and metadata may take the memory that pixels and file leave.
    let taken = 3 * u64::from(info.width) * u64::from(info.height) + bytes.len() as u64;
    decoder.set_limits(Limits { bytes: MAX_BYTES.saturating_sub(taken) as usize });
    decoder.read_info().map_err(|error| error.to_string())
}

/// Refuses sizes beyond the limits or for which the file has too few bytes, and 16-bit grey.
fn check_header(info: &Info, file_bytes: usize) -> Result<(), Problem> {
    /// Deflate expands a byte to at most this many.
    const LARGEST_RATIO: u64 = 1032;
    let (width, height) = info.size();
    check_size(width, height, file_bytes as u64 + WORKING_BYTES, Orientation::default())?;
    let bits = info.bits_per_pixel() as u64 * u64::from(width) * u64::from(height);
    if bits / 8 > LARGEST_RATIO * file_bytes as u64 {
        return Err(format!("cut short: {file_bytes} bytes are too few for {width}x{height} pixels"));
    }
    if info.color_type == ColorType::Grayscale && info.bit_depth == BitDepth::Sixteen {
        return Err(
            "16-bit grey, which programs turn into 8 bits in different ways; save it with 8 bits".into()
        );
    }
    Ok(())
}

/// Drops alpha, and copies grey to all three colours.
fn rgb_of_row(row: &[u8], colours: ColorType, rgb: &mut [u8]) {
    let rgb = rgb.as_chunks_mut::<3>().0;
    match colours {
        ColorType::Grayscale => rgb.iter_mut().zip(row).for_each(|(rgb, &grey)| *rgb = [grey; 3]),
        ColorType::GrayscaleAlpha => {
            rgb.iter_mut().zip(row.as_chunks::<2>().0).for_each(|(rgb, &[grey, _])| *rgb = [grey; 3]);
        }
        ColorType::Rgba => {
            rgb.iter_mut().zip(row.as_chunks::<4>().0).for_each(|(rgb, &[r, g, b, _])| *rgb = [r, g, b]);
        }
        // The decoder has expanded palettes.
        ColorType::Rgb | ColorType::Indexed => {
            rgb.iter_mut().zip(row.as_chunks::<3>().0).for_each(|(rgb, pixel)| *rgb = *pixel);
        }
    }
}

/// The orientation in the EXIF chunk, in the EXIF text that older programs write, or in XMP.
fn orientation_of(info: &Info) -> Orientation {
    let text = |keyword: &str| -> Option<String> {
        let plain = info.uncompressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword);
        let packed = || info.compressed_latin1_text.iter().find(|chunk| chunk.keyword == keyword);
        let unicode = || info.utf8_text.iter().find(|chunk| chunk.keyword == keyword);
        // Unpacking stops at the crate's limit of 2 MiB, since few bytes can expand to very long text.
        let unpacked = || {
            let mut chunk = packed()?.clone();
            chunk.decompress_text().ok()?;
            chunk.get_text().ok()
        };
        let unpacked_unicode = || {
            let mut chunk = unicode()?.clone();
            chunk.decompress_text().ok()?;
            chunk.get_text().ok()
        };
        plain.map(|chunk| chunk.text.clone()).or_else(unpacked).or_else(unpacked_unicode)
    };
    let exif = match &info.exif_metadata {
        Some(exif) => exif.to_vec(),
        None => text("Raw profile type exif").and_then(|text| bytes_of_profile(&text)).unwrap_or_default(),
    };
    let xmp = text("XML:com.adobe.xmp").unwrap_or_default();
    orientation::of_metadata(&exif, xmp.as_bytes())
}

/// The bytes of a "raw profile": an empty line, its name, its length, then lines of hexadecimal digits.
fn bytes_of_profile(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .splitn(4, '\n')
        .nth(3)?
        .chars()
        .filter(|c| !c.is_ascii_whitespace())
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()?;
    Some(digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}
