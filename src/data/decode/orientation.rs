//! The orientation that cameras write beside the pixels (EXIF tag 274), applied as by Pillow's
//! `exif_transpose`.

/// EXIF's values 1 to 8: which edges of the scene the first row and the first column of the file show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Orientation(u8);

impl Orientation {
    /// Values other than 2 to 8 leave the image as it is.
    fn new(value: u64) -> Self {
        Self(if (2..=8).contains(&value) { value as u8 } else { 1 })
    }

    /// Whether rows become columns; this needs a second copy of the pixels.
    pub fn swaps_sides(self) -> bool {
        self.0 >= 5
    }

    /// Whether [`Orientation::apply`] changes anything.
    pub fn is_turned(self) -> bool {
        self.0 >= 2
    }

    /// Turns `[height, width, 3]` pixels upright.
    pub fn apply(self, pixels: Vec<u8>, [height, width]: [usize; 2]) -> Vec<u8> {
        let mut pixels = pixels;
        let flip_columns = |pixels: &mut Vec<u8>| {
            for row in pixels.chunks_exact_mut(3 * width) {
                row.as_chunks_mut::<3>().0.reverse();
            }
        };
        match self.0 {
            2 => flip_columns(&mut pixels),
            3 => pixels.as_chunks_mut::<3>().0.reverse(),
            4 => {
                pixels.as_chunks_mut::<3>().0.reverse();
                flip_columns(&mut pixels);
            }
            // The transposed image has `width` rows of `height` pixels; if rows or columns run backwards,
            // each pixel is read from the other end.
            5..=8 => {
                let source = pixels.as_chunks::<3>().0;
                let (last_row, last_column) = (height - 1, width - 1);
                let (up, left) = (matches!(self.0, 6 | 7), matches!(self.0, 7 | 8));
                let mut upright = Vec::with_capacity(pixels.len());
                for column in 0..width {
                    let column = if left { last_column - column } else { column };
                    for row in 0..height {
                        let row = if up { last_row - row } else { row };
                        upright.extend_from_slice(&source[row * width + column]);
                    }
                }
                return upright;
            }
            _ => {}
        }
        pixels
    }
}

/// The orientation according to EXIF (a TIFF header and its first directory), or else XMP. Malformed metadata
/// are ignored.
pub fn of_metadata(exif: &[u8], xmp: &[u8]) -> Orientation {
    of_exif(exif).or_else(|| of_xmp(xmp)).map_or(Orientation(1), Orientation::new)
}

/// The value of tag 274 in the first directory, which has entries of 12 bytes: tag, type, count, then the
/// value or its position.
fn of_exif(bytes: &[u8]) -> Option<u64> {
    const ORIENTATION: u64 = 274;
    // Some programs write JPEG's prefix twice, or before a PNG chunk.
    let bytes = bytes.strip_prefix(b"Exif\0\0").unwrap_or(bytes);
    let little = match bytes.get(..4)? {
        b"II*\0" | b"II\0*" => true,
        b"MM\0*" | b"MM*\0" => false,
        _ => return None,
    };
    // An integer of `size` bytes at `at`.
    let integer = |at: usize, size: usize| -> Option<u64> {
        let bytes = bytes.get(at..at.checked_add(size)?)?;
        let push = |value: u64, &byte: &u8| value << 8 | u64::from(byte);
        Some(if little { bytes.iter().rev().fold(0, push) } else { bytes.iter().fold(0, push) })
    };
    let directory = usize::try_from(integer(4, 4)?).ok()?;
    let entries = integer(directory, 2)? as usize;
    let mut found = None;
    for entry in (0..entries).map(|i| directory + 2 + 12 * i) {
        let (Some(tag), Some(kind), Some(count), Some(_)) =
            (integer(entry, 2), integer(entry + 2, 2), integer(entry + 4, 4), integer(entry + 8, 4))
        else {
            break;
        };
        // Integers of 16 or 32 bits, with a sign (6, 8, 9) or without (3, 4).
        let size = match kind {
            6 => 1,
            3 | 8 => 2,
            4 | 9 => 4,
            _ => continue,
        };
        if tag != ORIENTATION || count == 0 {
            continue;
        }
        let stored_here = count.saturating_mul(size) <= 4;
        let at = if stored_here { Some(entry + 8) } else { integer(entry + 8, 4).map(|at| at as usize) };
        // A later entry of the same tag replaces an earlier one.
        found = at.and_then(|at| integer(at, size as usize)).or(found);
    }
    found
}

/// The digit after `tiff:Orientation`, as an attribute or an element.
fn of_xmp(bytes: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"tiff:Orientation";
    bytes.windows(NAME.len() + 3).filter(|window| window.starts_with(NAME)).find_map(|window| {
        match window[NAME.len()..] {
            [b'=', b'"', digit @ b'0'..=b'9'] | [b'>', digit @ b'0'..=b'9', _] => {
                Some(u64::from(digit - b'0'))
            }
            _ => None,
        }
    })
}
