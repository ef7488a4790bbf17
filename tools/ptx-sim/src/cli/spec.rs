//! Arguments of a kernel as words: buffers `type:length:fill`, scalars `type=value`, and `@K` for an earlier
//! buffer.

use std::path::PathBuf;

use super::file;

/// The formats that a buffer or scalar can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    Bf16,
    F32,
    F64,
}

const FORMATS: [(&str, Format); 12] = [
    ("u8", Format::U8),
    ("i8", Format::I8),
    ("u16", Format::U16),
    ("i16", Format::I16),
    ("u32", Format::U32),
    ("i32", Format::I32),
    ("u64", Format::U64),
    ("i64", Format::I64),
    ("f16", Format::F16),
    ("bf16", Format::Bf16),
    ("f32", Format::F32),
    ("f64", Format::F64),
];

/// What a buffer holds at first.
#[derive(Clone, Debug, PartialEq)]
pub enum Fill {
    Random,
    Value(Vec<u8>),
    Uninitialised,
    Iota,
    File(PathBuf),
}

/// One argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Spec {
    Buffer {
        format: Format,
        length: usize,
        fill: Fill,
    },
    Scalar(Vec<u8>),
    /// The address of an earlier argument's buffer, plus bytes.
    Address(usize, u64),
}

fn format(word: &str, whole: &str) -> Result<Format, String> {
    FORMATS.iter().find(|(name, _)| *name == word).map(|(_, format)| *format).ok_or_else(|| {
        let names: Vec<_> = FORMATS.iter().map(|(name, _)| *name).collect();
        format!("--arg {whole}: no type {word:?}; the types are {}", names.join(", "))
    })
}

impl Format {
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 | Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// A number in this format.
    fn parse(self, word: &str) -> Option<Vec<u8>> {
        let integer = || -> Option<i128> {
            match word.strip_prefix("0x") {
                Some(hex) => i128::from_str_radix(hex, 16).ok(),
                None => word.parse().ok(),
            }
        };
        let real = || word.parse::<f64>().ok();
        Some(match self {
            Self::U8 => u8::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            Self::I8 => i8::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            Self::U16 => u16::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            Self::I16 => i16::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            Self::U32 => u32::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            Self::I32 => i32::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            Self::U64 => u64::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            Self::I64 => i64::try_from(integer()?).ok()?.to_le_bytes().to_vec(),
            _ => self.real(real()?),
        })
    }

    /// A real number in this format, or the integer below it.
    fn real(self, value: f64) -> Vec<u8> {
        match self {
            Self::F16 => ptx_sim::f16_bits(value).to_le_bytes().to_vec(),
            Self::Bf16 => ptx_sim::bf16_bits(value).to_le_bytes().to_vec(),
            Self::F32 => (value as f32).to_le_bytes().to_vec(),
            Self::F64 => value.to_le_bytes().to_vec(),
            _ => (value as i64).to_le_bytes()[..self.bytes()].to_vec(),
        }
    }

    fn is_real(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// The bytes of a buffer of `length` elements; None leaves it uninitialised.
    pub fn contents(self, length: usize, fill: &Fill, seed: u64) -> Result<Option<Vec<u8>>, String> {
        let size = length * self.bytes();
        let mut contents = Vec::new();
        if !matches!(fill, Fill::Uninitialised | Fill::File(_)) {
            contents
                .try_reserve_exact(size)
                .map_err(|_| format!("no memory for a buffer of {size} bytes"))?;
        }
        match fill {
            Fill::Uninitialised => return Ok(None),
            Fill::Value(bytes) => (0..length).for_each(|_| contents.extend_from_slice(bytes)),
            Fill::Iota => (0..length).for_each(|at| contents.extend(self.real(at as f64))),
            Fill::Random => {
                let mut state = seed ^ 0x9E37_79B9_7F4A_7C15;
                for _ in 0..length {
                    state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                    let mut x = state;
                    x = (x ^ x >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                    x = (x ^ x >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
                    let bits = x ^ x >> 31;
                    if self.is_real() {
                        contents.extend(self.real((bits >> 11) as f64 / (1u64 << 52) as f64 - 1.0));
                    } else {
                        contents.extend_from_slice(&bits.to_le_bytes()[..self.bytes()]);
                    }
                }
            }
            Fill::File(path) => {
                contents = file::read(path, size as u64)?;
                if contents.len() != size {
                    return Err(format!(
                        "{}: {} bytes where the buffer has {size}; give a length that fits",
                        path.display(),
                        contents.len()
                    ));
                }
            }
        }
        Ok(Some(contents))
    }
}

/// Parses one `--arg`; `index` is its place, counted from 0.
pub fn parse(text: &str, index: usize) -> Result<Spec, String> {
    const HELP: &str = "a buffer is type:length:fill, a scalar type=value, an earlier buffer @K";
    if let Some(rest) = text.strip_prefix('@') {
        let (number, offset) = rest.split_once('+').unwrap_or((rest, "0"));
        let wrong = || format!("--arg {text}: @K names an earlier buffer, K from 0 to {}", index.max(1) - 1);
        let number: usize = number.parse().map_err(|_| wrong())?;
        let offset: u64 = offset.parse().map_err(|_| wrong())?;
        if number >= index {
            return Err(wrong());
        }
        return Ok(Spec::Address(number, offset));
    }
    let colon = text.find(':').unwrap_or(usize::MAX);
    let equals = text.find('=').unwrap_or(usize::MAX);
    if equals < colon {
        let (kind, value) = (&text[..equals], &text[equals + 1..]);
        if kind == "hex" {
            let digits: Option<Vec<u8>> = (0..value.len())
                .step_by(2)
                .map(|at| value.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect();
            return digits
                .map(Spec::Scalar)
                .ok_or_else(|| format!("--arg {text}: hex= takes an even number of hexadecimal digits"));
        }
        let format = format(kind, text)?;
        return format
            .parse(value)
            .map(Spec::Scalar)
            .ok_or_else(|| format!("--arg {text}: {value:?} is not a {kind}"));
    }
    let mut parts = text.splitn(3, ':');
    let (Some(kind), Some(length), Some(fill)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(format!("--arg {text}: {HELP}"));
    };
    let format = format(kind, text)?;
    let length: usize = length
        .parse()
        .ok()
        .filter(|length| *length <= 1 << 32)
        .ok_or_else(|| format!("--arg {text}: {length:?} is not a length in elements"))?;
    let fill = fill_of(text, (kind, &format), fill)?;
    Ok(Spec::Buffer { format, length, fill })
}

/// What a buffer holds at first.
fn fill_of(text: &str, (kind, format): (&str, &Format), fill: &str) -> Result<Fill, String> {
    Ok(match fill {
        "random" => Fill::Random,
        "zeros" => Fill::Value(format.real(0.0)),
        "ones" => Fill::Value(format.real(1.0)),
        "uninitialised" => Fill::Uninitialised,
        "iota" => Fill::Iota,
        other => {
            if let Some(path) = other.strip_prefix("file=") {
                Fill::File(path.into())
            } else if let Some(value) = other.strip_prefix("value=") {
                let bytes = format.parse(value);
                Fill::Value(bytes.ok_or_else(|| format!("--arg {text}: {value:?} is not a {kind}"))?)
            } else {
                return Err(format!(
                    "--arg {text}: no fill {other:?}; the fills are random, zeros, ones, uninitialised, \
                     iota, file=PATH, value=NUMBER"
                ));
            }
        }
    })
}
