//! Contact sheets: an image beside weak and strong views of it.

use anyhow::Result;
use image::{Rgb, RgbImage, imageops};

use super::parameters::{View, ViewParameters};
use super::view::{Scratch, augment};

/// Pixels between pictures.
const MARGIN: u32 = 4;

/// A sheet of `rows` rows: the image resized, `rows` weak views, `rows` strong views, each size x size, enlarged so that small
/// views can be seen.
///
/// # Errors
/// None that a caller with an image of at least one pixel can cause.
pub fn contact_sheet(image: &RgbImage, rows: u32, size: usize, seed: u64) -> Result<RgbImage> {
    let source = [image.height() as usize, image.width() as usize];
    let zoom = (96 / size as u32).max(1);
    let cell = size as u32 * zoom + MARGIN;
    let columns = 1 + 2 * rows;
    let mut sheet = RgbImage::from_pixel(columns * cell + MARGIN, rows * cell + MARGIN, Rgb([255, 255, 255]));
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
    }
    Ok(sheet)
}
