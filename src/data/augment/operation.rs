//! The operations of RandAugment, by name and by parameters.

use std::str::FromStr;

use anyhow::Result;
use bytemuck::{Pod, Zeroable};

use super::affine::Affine;
use super::{colour, histogram};
use crate::usage;

/// An operation of the RandAugment list, in the reference's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ImageOperation {
    /// Stretches each channel to 0..255.
    Autocontrast,
    /// Blends with black.
    Brightness,
    /// Blends with the grey image.
    Color,
    /// Blends with the mean grey.
    Contrast,
    /// Flattens the histogram of each channel.
    Equalize,
    /// Leaves the image as it is.
    Identity,
    /// Keeps the upper bits of each byte.
    Posterize,
    /// Turns about the centre, by degrees.
    Rotate,
    /// Blends with the smoothed image.
    Sharpness,
    /// Shifts each row in proportion to its height.
    ShearX,
    /// Shifts each column in proportion to its distance.
    ShearY,
    /// Inverts the bytes from a threshold on.
    Solarize,
    /// Shifts along a row, by a share of the width.
    TranslateX,
    /// Shifts along a column, by a share of the height.
    TranslateY,
}

/// Every operation with its name and, if it takes a value, the range from which the reference draws it.
pub const OPERATIONS: [(ImageOperation, &str, Option<[f64; 2]>); 14] = [
    (ImageOperation::Autocontrast, "autocontrast", None),
    (ImageOperation::Brightness, "brightness", Some([0.05, 0.95])),
    (ImageOperation::Color, "color", Some([0.05, 0.95])),
    (ImageOperation::Contrast, "contrast", Some([0.05, 0.95])),
    (ImageOperation::Equalize, "equalize", None),
    (ImageOperation::Identity, "identity", None),
    (ImageOperation::Posterize, "posterize", Some([4.0, 8.0])),
    (ImageOperation::Rotate, "rotate", Some([-30.0, 30.0])),
    (ImageOperation::Sharpness, "sharpness", Some([0.05, 0.95])),
    (ImageOperation::ShearX, "shear-x", Some([-0.3, 0.3])),
    (ImageOperation::ShearY, "shear-y", Some([-0.3, 0.3])),
    (ImageOperation::Solarize, "solarize", Some([0.0, 256.0])),
    (ImageOperation::TranslateX, "translate-x", Some([-0.3, 0.3])),
    (ImageOperation::TranslateY, "translate-y", Some([-0.3, 0.3])),
];

impl FromStr for ImageOperation {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = OPERATIONS.iter().find(|(_, known, _)| *known == name);
        found.map(|(operation, ..)| *operation).ok_or_else(|| {
            let names: Vec<&str> = OPERATIONS.iter().map(|(_, name, _)| *name).collect();
            usage!("operation '{name}': must be one of {}", names.join(", "))
        })
    }
}

/// The parameters of an operation's integer arithmetic. Sines and divisions are computed on the host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable)]
pub struct OperationParameters {
    /// The operation's number in [`OPERATIONS`].
    pub kind: i32,
    /// The factor of a blend.
    pub factor: f32,
    /// Posterize: bits. Solarize: threshold. Translations: whole pixels (x, y). Rotation and shears: 16.16
    /// start, column step and row step, (x, y) each.
    pub integers: [i32; 6],
}

impl OperationParameters {
    /// The operation that leaves the image alone.
    pub const IDENTITY: Self = Self { kind: ImageOperation::Identity as i32, factor: 0.0, integers: [0; 6] };

    /// An operation of strength `value` (its unit is the operation's own, see [`OPERATIONS`]) on images of
    /// width x height.
    pub fn new(operation: ImageOperation, value: f64, [width, height]: [usize; 2]) -> Self {
        let mut parameters = Self { kind: operation as i32, ..Self::IDENTITY };
        let affine = match operation {
            ImageOperation::Brightness
            | ImageOperation::Color
            | ImageOperation::Contrast
            | ImageOperation::Sharpness => {
                parameters.factor = value as f32;
                return parameters;
            }
            ImageOperation::Posterize => {
                parameters.integers[0] = (value as i32).clamp(1, 8);
                return parameters;
            }
            ImageOperation::Solarize => {
                parameters.integers[0] = value.ceil() as i32;
                return parameters;
            }
            ImageOperation::Autocontrast | ImageOperation::Equalize | ImageOperation::Identity => {
                return parameters;
            }
            ImageOperation::Rotate => Affine::rotate(value, [width, height]),
            ImageOperation::ShearX => Some(Affine::shear_x(value)),
            ImageOperation::ShearY => Some(Affine::shear_y(value)),
            ImageOperation::TranslateX => Some(Affine::translate([value * width as f64, 0.0])),
            ImageOperation::TranslateY => Some(Affine::translate([0.0, value * height as f64])),
        };
        match affine {
            None => Self::IDENTITY,
            Some(Affine::Shift { x, y }) => {
                parameters.kind = ImageOperation::TranslateX as i32;
                parameters.integers = [x, y, 0, 0, 0, 0];
                parameters
            }
            Some(Affine::Fixed { start, column, row }) => {
                parameters.kind = ImageOperation::Rotate as i32;
                parameters.integers = [start[0], start[1], column[0], column[1], row[0], row[1]];
                parameters
            }
        }
    }

    /// Applies the operation in place. `before` is scratch memory. The number of no operation leaves the
    /// image alone.
    pub fn apply(&self, pixels: &mut [u8], width: usize, before: &mut Vec<u8>) {
        let Some((operation, ..)) = usize::try_from(self.kind).ok().and_then(|kind| OPERATIONS.get(kind))
        else {
            return;
        };
        let [i0, i1, i2, i3, i4, i5] = self.integers;
        match operation {
            ImageOperation::Autocontrast => histogram::autocontrast(pixels),
            ImageOperation::Brightness => colour::brightness(pixels, self.factor),
            ImageOperation::Color => colour::saturation(pixels, self.factor),
            ImageOperation::Contrast => colour::contrast(pixels, self.factor),
            ImageOperation::Equalize => histogram::equalize(pixels),
            ImageOperation::Identity => {}
            ImageOperation::Posterize => histogram::posterize(pixels, i0.max(1) as u32),
            ImageOperation::Sharpness => colour::sharpness(pixels, width, self.factor, before),
            ImageOperation::Solarize => histogram::solarize(pixels, i0),
            ImageOperation::Rotate | ImageOperation::ShearX | ImageOperation::ShearY => {
                Affine::Fixed { start: [i0, i1], column: [i2, i3], row: [i4, i5] }
                    .apply(pixels, width, before);
            }
            ImageOperation::TranslateX | ImageOperation::TranslateY => {
                Affine::Shift { x: i0, y: i1 }.apply(pixels, width, before)
            }
        }
    }
}
