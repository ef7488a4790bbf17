//! Contact sheets: an image beside weak and strong views of it.

use anyhow::Result;
use image::{Rgb, RgbImage, imageops};

use super::parameters::{View, ViewParameters};
use super::view::{Scratch, augment};
use crate::data::progress::{self, Unit};
use crate::{memory, usage};

/// Pixels between pictures.
const MARGIN: u32 = 4;

/// Pixels of the largest sheet.
const MOST_PIXELS: u64 = 100_000_000;

/// Width and height in pixels of a sheet with `rows` rows of cells.
///
/// # Errors
/// A usage error if the sheet would be too large, or does not fit into memory.
fn sheet_size(rows: u32, cell: u32, size: usize) -> Result<[u32; 2]> {
    let side = |cells: u32| u64::from(cells) * u64::from(cell) + u64::from(MARGIN);
    let (width, height) = (side(1 + 2 * rows), side(rows));
    if width * height > MOST_PIXELS {
        return Err(usage!(
            "--grid {rows}: a sheet of views of {size} pixels has {width}x{height}; at most {} megapixels are drawn, so take \
             a smaller --grid or --size",
            MOST_PIXELS / 1_000_000
        ));
    }
    // The sheet, and its PNG.
    memory::ensure_room(6 * width * height, "the sheet", "take a smaller --grid or --size")?;
    Ok([width as u32, height as u32])
}

/// A sheet of `rows` rows: the image resized, `rows` weak views, `rows` strong views, each size x size,
/// enlarged so that small views can be seen.
///
/// # Errors
/// A usage error for a sheet that is too large.
pub fn contact_sheet(image: &RgbImage, rows: u32, size: usize, seed: u64) -> Result<RgbImage> {
    let source = [image.height() as usize, image.width() as usize];
    let zoom = (96 / size as u32).max(1);
    let cell = size as u32 * zoom + MARGIN;
    let columns = 1 + 2 * rows;
    let [width, height] = sheet_size(rows, cell, size)?;
    let mut sheet = RgbImage::from_pixel(width, height, Rgb([255, 255, 255]));
    let progress = progress::begin("", u64::from(rows), Unit::Items);
    let mut scratch = Scratch::default();
    let mut pixels = vec![0; size * size * 3];
    for row in 0..rows {
        for column in 0..columns {
            let sample = row * rows + (column.max(1) - 1) % rows;
            let parameters = match column {
                0 => ViewParameters::plain(source[0], source[1]),
                c if c <= rows => ViewParameters::of_sample(seed, 0, sample, View::Weak, source, size),
                _ => ViewParameters::of_sample(seed, 0, sample, View::Strong, source, size),
            };
            augment(image.as_raw(), source, &parameters, size, &mut scratch, &mut pixels);
            let Some(view) = RgbImage::from_raw(size as u32, size as u32, pixels.clone()) else { continue };
            let view = imageops::resize(
                &view,
                size as u32 * zoom,
                size as u32 * zoom,
                imageops::FilterType::Nearest,
            );
            imageops::replace(
                &mut sheet,
                &view,
                i64::from(MARGIN + column * cell),
                i64::from(MARGIN + row * cell),
            );
        }
        progress.advance(1);
    }
    Ok(sheet)
}
