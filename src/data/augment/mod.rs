//! Augmentation of uint8 RGB images, bit for bit as Pillow and torchvision compute it (SPEC 4).
//!
//! | file | what |
//! |---|---|
//! | [`resize`] | antialiased bilinear resizing and resized crops |
//! | [`colour`] | blends, hue, grayscale |
//! | [`histogram`] | autocontrast, equalize, posterize, solarize: tables of 256 values |
//! | [`affine`] | rotation, shear, translation, nearest neighbour |
//! | [`operation`] | the operations by name |
//! | [`parameters`] | all random choices of a view, drawn on the host |
//! | [`view`] | making a view from its parameters |
//! | [`sheet`] | contact sheets for people |
//!
//! Images are row-major `[height, width, 3]`.

pub mod affine;
pub mod colour;
pub mod histogram;
pub mod operation;
pub mod parameters;
pub mod resize;
pub mod sheet;
pub mod view;

pub use operation::ImageOperation;
pub use parameters::{View, ViewParameters};

/// Paints the rectangle of columns x0..=x1 and rows y0..=y1 inside the image with the reference's colour.
pub fn cutout(pixels: &mut [u8], width: usize, [x0, y0, x1, y1]: [i32; 4]) {
    let height = pixels.len() / (3 * width);
    let clip = |value: i32, size: usize| value.clamp(0, size as i32) as usize;
    let (left, right) = (clip(x0, width), clip(x1.saturating_add(1), width));
    for row in clip(y0, height)..clip(y1.saturating_add(1), height) {
        if left < right {
            let row = &mut pixels[row * width * 3..][left * 3..right * 3];
            row.chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&[125, 123, 114]));
        }
    }
}

/// The inclusive rectangle `[x0, y0, x1, y1]` of a cutout of `size` about a centre; `None` if the size is not
/// above 0.
pub fn cutout_rectangle(size: f64, [x, y]: [f64; 2], [width, height]: [usize; 2]) -> Option<[i32; 4]> {
    if size <= 0.0 {
        return None;
    }
    let start = |centre: f64| (centre - size / 2.0).max(0.0) as i32;
    let (x0, y0) = (start(x), start(y));
    let end = |start: i32, bound: usize| (bound as f64).min(f64::from(start) + size) as i32;
    Some([x0, y0, end(x0, width), end(y0, height)])
}

/// Mirrors the columns.
pub fn flip(pixels: &mut [u8], width: usize) {
    for row in pixels.chunks_exact_mut(3 * width) {
        for column in 0..width / 2 {
            for channel in 0..3 {
                row.swap(3 * column + channel, 3 * (width - 1 - column) + channel);
            }
        }
    }
}
