//! `records augment`: one operation on an image, or a contact sheet of views.

use std::io::Cursor;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use image::{ImageFormat, RgbImage};

use super::output;
use crate::data::augment::operation::{OPERATIONS, OperationParameters};
use crate::data::augment::resize::{Axis, Crop, resize_crop};
use crate::data::augment::sheet::contact_sheet;
use crate::data::augment::{ImageOperation, colour, cutout, cutout_rectangle, flip};
use crate::data::decode::decode;
use crate::files::write_atomically;
use crate::settings::{number, quoted_where_odd};
use crate::usage;

/// Arguments of `records augment`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "Operations with a value: brightness color contrast sharpness (factor), posterize (bits), rotate \
                        (degrees), shear-x shear-y translate-x translate-y (share of the size), solarize (threshold), \
                        jitter-brightness jitter-contrast jitter-saturation (factor), hue (-0.5 to 0.5), cutout \
                        (size,cx,cy), resized-crop (top,left,height,width). Without: autocontrast equalize identity \
                        grayscale hflip."
)]
pub struct AugmentArguments {
    /// An image file
    image: PathBuf,
    /// Apply one operation
    #[arg(long, value_name = "NAME", conflicts_with = "grid")]
    op: Option<String>,
    /// The operation's value, in its own unit; several numbers separated by commas where it takes several
    #[arg(long, value_name = "V", allow_hyphen_values = true)]
    value: Option<String>,
    /// Draw a contact sheet of N rows: the image, then N weak and N strong views (1 to 32; the sheet has at
    /// most 100 megapixels)
    #[arg(long, value_name = "N")]
    grid: Option<u32>,
    /// Seed of the contact sheet's views
    #[arg(long, default_value_t = 123)]
    seed: u64,
    /// Rows and columns of a view or of a resized crop, pixels (1 to 1024)
    #[arg(long, default_value_t = 32)]
    size: usize,
    /// Where to write the PNG
    #[arg(short, long, value_name = "OUT.png")]
    output: PathBuf,
}

/// The numbers of --value, as many as the operation takes.
fn numbers<const N: usize>(name: &str, value: Option<&str>) -> Result<[f64; N]> {
    let Some(text) = value else {
        let what = if N == 1 { "a number".into() } else { format!("{N} numbers separated by commas") };
        return Err(usage!("--op {name}: needs --value with {what}"));
    };
    let parsed: Vec<f64> = text.split(',').filter_map(|part| part.trim().parse().ok()).collect();
    let wanted = if N == 1 {
        "must be a finite number".into()
    } else {
        format!("must be {N} finite numbers, comma-separated")
    };
    let given = <[f64; N]>::try_from(parsed).ok().filter(|list| list.iter().all(|v| v.is_finite()));
    given
        .filter(|_| text.split(',').count() == N)
        .ok_or_else(|| usage!("--value {}: {wanted} for {name}", quoted_where_odd(text)))
}

/// The largest factor of a blend: up to here results stay finite in f32.
const FACTOR: f64 = 1e30;

/// The largest absolute value for which an operation's arithmetic is right on an image of `side` rows or
/// columns.
fn most(operation: ImageOperation, side: usize) -> f64 {
    match operation {
        ImageOperation::Posterize => 8.0,
        // Positions are 16.16 fixed point; the farthest is side + value * side.
        ImageOperation::ShearX | ImageOperation::ShearY => (32_767.0 / side as f64 - 1.0).floor(),
        _ => FACTOR,
    }
}

/// `value`, if it lies between `-most` and `most`.
fn within(name: &str, value: f64, most: f64) -> Result<f64> {
    if value.abs() <= most {
        return Ok(value);
    }
    let (value, most) = (number(value), number(most));
    Err(usage!("--value {value}: must be -{most} to {most} for {name}"))
}

/// The crop top,left,height,width of an image of `width` x `height`, resized to `size` x `size`.
fn resized_crop(
    pixels: &[u8],
    [width, height]: [usize; 2],
    value: Option<&str>,
    size: usize,
) -> Result<Vec<u8>> {
    let frame: [f64; 4] = numbers("resized-crop", value)?;
    let whole = frame.iter().all(|v| *v >= 0.0 && v.fract() == 0.0);
    // In f64 these sums cannot overflow.
    let inside = frame[0] + frame[2] <= height as f64 && frame[1] + frame[3] <= width as f64;
    if !whole || !inside || frame[2] == 0.0 || frame[3] == 0.0 {
        let shown = quoted_where_odd(value.unwrap_or_default());
        return Err(usage!(
            "--value {shown}: must be top,left,height,width inside the {width}x{height} image"
        ));
    }
    let [top, left, h, w] = frame.map(|v| v as usize);
    let axes = (Axis::new(w, size), Axis::new(h, size));
    let crop = Crop { top, left, height: h, width: w };
    let mut out = vec![0; size * size * 3];
    resize_crop(pixels, width, crop, [size, size], (&axes.0, &axes.1), &mut Vec::new(), &mut out);
    Ok(out)
}

/// Applies one of [`OPERATIONS`], those that a strong view draws from.
fn apply_drawn(
    pixels: &mut [u8],
    [width, height]: [usize; 2],
    name: &str,
    value: Option<&str>,
) -> Result<()> {
    let operation: ImageOperation = name.parse().map_err(|_| {
        let names: Vec<&str> = OPERATIONS.iter().map(|(_, name, _)| *name).collect();
        usage!(
            "--op {}: must be one of {}, jitter-brightness, jitter-contrast, jitter-saturation, hue, grayscale, hflip, \
             cutout, resized-crop",
            quoted_where_odd(name),
            names.join(", ")
        )
    })?;
    let takes_value = OPERATIONS.iter().any(|(known, _, range)| *known == operation && range.is_some());
    let value = if takes_value { numbers::<1>(name, value)?[0] } else { 0.0 };
    let value = within(name, value, most(operation, width.max(height)))?;
    if operation == ImageOperation::Posterize && value < 0.0 {
        return Err(usage!("--value {}: must be 0 to 8 for posterize", number(value)));
    }
    OperationParameters::new(operation, value, [width, height]).apply(pixels, width, &mut Vec::new());
    Ok(())
}

/// Applies the operation `name`.
fn apply(image: &RgbImage, name: &str, value: Option<&str>, size: usize) -> Result<RgbImage> {
    let [width, height] = [image.width() as usize, image.height() as usize];
    let mut pixels = image.as_raw().clone();
    let one = || numbers::<1>(name, value).map(|[v]| v);
    let mut shape = (image.width(), image.height());
    match name {
        "hflip" => flip(&mut pixels, width),
        "grayscale" => colour::grayscale(&mut pixels),
        "jitter-brightness" => colour::brightness(&mut pixels, within(name, one()?, FACTOR)? as f32),
        "jitter-contrast" => colour::contrast(&mut pixels, within(name, one()?, FACTOR)? as f32),
        "jitter-saturation" => colour::saturation(&mut pixels, within(name, one()?, FACTOR)? as f32),
        "hue" => colour::hue(&mut pixels, colour::hue_shift(within(name, one()?, 0.5)?)),
        "cutout" => {
            let [cut, x, y] = numbers(name, value)?;
            if let Some(rectangle) = cutout_rectangle(cut, [x, y], [width, height]) {
                cutout(&mut pixels, width, rectangle);
            }
        }
        "resized-crop" => {
            pixels = resized_crop(&pixels, [width, height], value, size)?;
            shape = (size as u32, size as u32);
        }
        _ => apply_drawn(&mut pixels, [width, height], name, value)?,
    }
    RgbImage::from_raw(shape.0, shape.1, pixels).context("the operation changed the image's size")
}

/// Runs `records augment`.
///
/// # Errors
/// A usage error naming the file, the flag and what is allowed.
pub fn run(arguments: &AugmentArguments) -> Result<()> {
    let shown = arguments.output.display();
    if !arguments.output.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("png")) {
        return Err(usage!("--output {shown}: must end in .png"));
    }
    if !(1..=1024).contains(&arguments.size) {
        return Err(usage!("--size {}: must be 1 to 1024", arguments.size));
    }
    if let Some(rows) = arguments.grid.filter(|rows| !(1..=32).contains(rows)) {
        return Err(usage!("--grid {rows}: must be 1 to 32"));
    }
    if arguments.op.is_none() && arguments.grid.is_none() {
        return Err(usage!("nothing to do: name an operation with --op or draw a sheet with --grid 8"));
    }
    let image = decode(&arguments.image)?;
    let result = match (&arguments.op, arguments.grid) {
        (Some(name), _) => apply(&image, name, arguments.value.as_deref(), arguments.size)?,
        (None, rows) => contact_sheet(&image, rows.unwrap_or(8), arguments.size, arguments.seed)?,
    };
    let mut bytes = Cursor::new(Vec::new());
    result.write_to(&mut bytes, ImageFormat::Png).context("the picture cannot be encoded")?;
    write_atomically(&arguments.output, &bytes.into_inner())?;
    output::print(&format!("{shown}: {}x{} pixels\n", result.width(), result.height()))
}
