//! Affine transforms with nearest-neighbour sampling and black outside, in the two ways of Pillow: 16.16
//! fixed point for shear and rotation, floating point for pure translation.

/// An affine map from output to input pixels, with coefficients computed on the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Affine {
    /// (x, y) in 16.16 fixed point.
    Fixed {
        /// Of the first output pixel.
        start: [i32; 2],
        /// Step per column.
        column: [i32; 2],
        /// Step per row.
        row: [i32; 2],
    },
    /// Whole pixels to add: the result of the floating-point path if both steps are 1.
    Shift {
        /// To the column.
        x: i32,
        /// To the row.
        y: i32,
    },
}

/// 16.16 fixed point, as Pillow rounds.
fn fixed(value: f64) -> i32 {
    (value * 65_536.0 + 0.5).floor() as i32
}

impl Affine {
    /// Input (a x' + b y' + c, d x' + e y' + f) at pixel centres x' = x + 0.5, y' = y + 0.5.
    fn fixed([a, b, c, d, e, f]: [f64; 6]) -> Self {
        Affine::Fixed {
            start: [fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5)],
            column: [fixed(a), fixed(d)],
            row: [fixed(b), fixed(e)],
        }
    }

    /// Counter-clockwise rotation by `degrees` about the centre; `None` for a whole turn, which copies.
    pub fn rotate(degrees: f64, [width, height]: [usize; 2]) -> Option<Self> {
        let turned = degrees.rem_euclid(360.0);
        if turned == 0.0 {
            return None;
        }
        let angle = -turned.to_radians();
        let round = |value: f64| {
            // Fifteen decimals, half to even on the decimal expansion, as Python's round does.
            format!("{value:.15}").parse::<f64>().unwrap_or(value)
        };
        let (cos, sin, minus_sin) = (round(angle.cos()), round(angle.sin()), round(-angle.sin()));
        let (x, y) = (width as f64 / 2.0, height as f64 / 2.0);
        let c = cos * -x + sin * -y + x;
        let f = minus_sin * -x + cos * -y + y;
        Some(Self::fixed([cos, sin, c, minus_sin, cos, f]))
    }

    /// x' + v y'.
    pub fn shear_x(value: f64) -> Self {
        if value == 0.0 {
            Affine::Shift { x: 0, y: 0 }
        } else {
            Self::fixed([1.0, value, 0.0, 0.0, 1.0, 0.0])
        }
    }

    /// y' + v x'.
    pub fn shear_y(value: f64) -> Self {
        if value == 0.0 {
            Affine::Shift { x: 0, y: 0 }
        } else {
            Self::fixed([1.0, 0.0, 0.0, value, 1.0, 0.0])
        }
    }

    /// Content moves by (-x, -y) pixels: input position trunc(x + 0.5 + column), outside below 0.
    pub fn translate([x, y]: [f64; 2]) -> Self {
        let whole = |shift: f64| (shift + 0.5).floor().clamp(-1e9, 1e9) as i32;
        Affine::Shift { x: whole(x), y: whole(y) }
    }

    /// Transforms an image in place. `before` is scratch.
    pub fn apply(&self, pixels: &mut [u8], width: usize, before: &mut Vec<u8>) {
        let height = pixels.len() / (3 * width);
        before.clear();
        before.extend_from_slice(pixels);
        let inside = |x: i32, y: i32| (0..width as i32).contains(&x) && (0..height as i32).contains(&y);
        for (row, line) in pixels.chunks_exact_mut(3 * width).enumerate() {
            for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
                let (r, c) = (row as i32, column as i32);
                let (x, y) = match *self {
                    Affine::Shift { x, y } => (c.saturating_add(x), r.saturating_add(y)),
                    Affine::Fixed { start, column, row } => {
                        let at = |axis: usize| {
                            let along = column[axis].wrapping_mul(c).wrapping_add(row[axis].wrapping_mul(r));
                            start[axis].wrapping_add(along) >> 16
                        };
                        (at(0), at(1))
                    }
                };
                if inside(x, y) {
                    let from = (y as usize * width + x as usize) * 3;
                    pixel.copy_from_slice(&before[from..from + 3]);
                } else {
                    pixel.fill(0);
                }
            }
        }
    }
}
