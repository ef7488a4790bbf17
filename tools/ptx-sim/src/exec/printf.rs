//! What `printf` makes of a format and the packed arguments of `vprintf`.

/// The arguments as the kernel packed them, each aligned to its size.
pub struct Arguments<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Arguments<'a> {
    /// At the first of them.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next one, of 4 or 8 bytes; 0 where there is none.
    fn next(&mut self, size: usize) -> u64 {
        let start = self.at.next_multiple_of(size);
        self.at = start + size;
        let mut value = [0; 8];
        if let Some(bytes) = self.bytes.get(start..start + size) {
            value[..size].copy_from_slice(bytes);
        }
        u64::from_le_bytes(value)
    }
}

/// One `%...` of a format.
#[derive(Default)]
struct Field {
    left: bool,
    plus: bool,
    blank: bool,
    zeros: bool,
    alternate: bool,
    width: usize,
    precision: Option<usize>,
    /// Bytes of an integer.
    size: usize,
}

/// The widest field: what a mistake in a kernel can ask for must not fill the memory.
const WIDEST: usize = 4096;

/// The text that a format gives. `string` reads what a `%s` points to.
pub fn format(
    format: &[u8],
    arguments: &mut Arguments<'_>,
    mut string: impl FnMut(u64) -> Vec<u8>,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = format;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let Some((field, kind, after)) = field(rest, arguments) else {
            out.push(b'%');
            continue;
        };
        rest = after;
        let (sign, body) = match kind {
            b'%' => (String::new(), b"%".to_vec()),
            b'c' => (String::new(), vec![arguments.next(4) as u8]),
            b's' => {
                let mut text = string(arguments.next(8));
                text.truncate(field.precision.unwrap_or(usize::MAX));
                (String::new(), text)
            }
            b'd' | b'i' => signed(&field, arguments),
            b'u' | b'o' | b'x' | b'X' => unsigned(&field, kind, arguments),
            b'p' => (String::new(), format!("{:#x}", arguments.next(8)).into_bytes()),
            _ => real(&field, kind, f64::from_bits(arguments.next(8))),
        };
        pad(&field, kind, &sign, &body, &mut out);
    }
    out
}

/// Flags, width, precision and length up to the letter that says the kind.
fn field<'f>(mut rest: &'f [u8], arguments: &mut Arguments<'_>) -> Option<(Field, u8, &'f [u8])> {
    let mut field = Field { size: 4, ..Field::default() };
    let take = |rest: &mut &'f [u8]| -> Option<u8> {
        let (first, after) = rest.split_first()?;
        *rest = after;
        Some(*first)
    };
    let mut byte = take(&mut rest)?;
    loop {
        match byte {
            b'-' => field.left = true,
            b'+' => field.plus = true,
            b' ' => field.blank = true,
            b'0' => field.zeros = true,
            b'#' => field.alternate = true,
            _ => break,
        }
        byte = take(&mut rest)?;
    }
    let mut number = |byte: &mut u8, rest: &mut &'f [u8]| -> Option<i64> {
        if *byte == b'*' {
            *byte = take(rest)?;
            return Some(i64::from(arguments.next(4) as i32));
        }
        let mut value = 0i64;
        while byte.is_ascii_digit() {
            value = (value * 10 + i64::from(*byte - b'0')).min(WIDEST as i64);
            *byte = take(rest)?;
        }
        Some(value)
    };
    let width = number(&mut byte, &mut rest)?;
    field.left |= width < 0;
    field.width = (width.unsigned_abs() as usize).min(WIDEST);
    if byte == b'.' {
        byte = *rest.first()?;
        rest = &rest[1..];
        field.precision =
            usize::try_from(number(&mut byte, &mut rest)?).ok().map(|digits| digits.min(WIDEST));
    }
    let mut longs = 0;
    while matches!(byte, b'l' | b'h' | b'z' | b'j' | b't' | b'L') {
        longs += u32::from(byte != b'h');
        (byte, rest) = (*rest.first()?, &rest[1..]);
    }
    if longs > 0 {
        field.size = 8;
    }
    let known = b"%csdiuoxXpfFeEgGaA".contains(&byte);
    known.then_some((field, byte, rest))
}

fn digits_of(field: &Field, mut digits: String) -> Vec<u8> {
    if let Some(least) = field.precision {
        if least == 0 && digits == "0" {
            digits.clear();
        }
        digits.insert_str(0, &"0".repeat(least.saturating_sub(digits.len())));
    }
    digits.into_bytes()
}

fn sign_of(field: &Field, negative: bool) -> String {
    match (negative, field.plus, field.blank) {
        (true, _, _) => "-".into(),
        (_, true, _) => "+".into(),
        (_, _, true) => " ".into(),
        _ => String::new(),
    }
}

fn signed(field: &Field, arguments: &mut Arguments<'_>) -> (String, Vec<u8>) {
    let bits = arguments.next(field.size);
    let value = if field.size == 8 { bits as i64 } else { i64::from(bits as i32) };
    (sign_of(field, value < 0), digits_of(field, value.unsigned_abs().to_string()))
}

fn unsigned(field: &Field, kind: u8, arguments: &mut Arguments<'_>) -> (String, Vec<u8>) {
    let value = arguments.next(field.size);
    let (prefix, digits) = match kind {
        b'o' => ("0", format!("{value:o}")),
        b'x' => ("0x", format!("{value:x}")),
        b'X' => ("0X", format!("{value:X}")),
        _ => ("", value.to_string()),
    };
    let prefix = if field.alternate && value != 0 { prefix } else { "" };
    (prefix.into(), digits_of(field, digits))
}

/// `1.5e+03` from digits and an exponent.
fn scientific(value: f64, precision: usize) -> String {
    let text = format!("{value:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(rest) => ('-', rest),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// `%g`: as many significant digits as the precision says, without trailing zeros.
fn shortest(field: &Field, value: f64) -> String {
    let digits = field.precision.unwrap_or(6).max(1);
    let rounded = scientific(value, digits - 1);
    let exponent: i64 = rounded.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let plain = exponent >= -4 && exponent < digits as i64;
    let text =
        if plain { format!("{value:.*}", (digits as i64 - 1 - exponent).max(0) as usize) } else { rounded };
    if field.alternate {
        return text;
    }
    let (number, tail) = match text.find('e') {
        Some(at) => text.split_at(at),
        None => (text.as_str(), ""),
    };
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number}{tail}")
}

/// `%a`, without rounding.
fn hexadecimal(value: f64) -> String {
    let bits = value.to_bits();
    let (exponent, fraction) = ((bits >> 52 & 0x7FF) as i64, bits & ((1 << 52) - 1));
    if value == 0.0 {
        return "0x0p+0".into();
    }
    let (lead, exponent) = if exponent == 0 { (0, -1022) } else { (1, exponent - 1023) };
    let digits = format!("{fraction:013x}");
    let digits = digits.trim_end_matches('0');
    let dot = if digits.is_empty() { "" } else { "." };
    format!("0x{lead}{dot}{digits}p{exponent:+}")
}

fn real(field: &Field, kind: u8, value: f64) -> (String, Vec<u8>) {
    let sign = sign_of(field, value.is_sign_negative());
    let size = value.abs();
    let text = if value.is_nan() {
        "nan".to_string()
    } else if value.is_infinite() {
        "inf".into()
    } else {
        match kind.to_ascii_lowercase() {
            b'f' => format!("{size:.*}", field.precision.unwrap_or(6)),
            b'e' => scientific(size, field.precision.unwrap_or(6)),
            b'g' => shortest(field, size),
            _ => hexadecimal(size),
        }
    };
    (sign, if kind.is_ascii_uppercase() { text.to_ascii_uppercase() } else { text }.into_bytes())
}

fn pad(field: &Field, kind: u8, sign: &str, body: &[u8], out: &mut Vec<u8>) {
    let missing = field.width.saturating_sub(sign.len() + body.len());
    let integer = matches!(kind, b'd' | b'i' | b'u' | b'o' | b'x' | b'X');
    let numeric = integer || b"fFeEgGaA".contains(&kind) && body.last().is_some_and(u8::is_ascii_digit);
    let zeros = field.zeros && !field.left && numeric && !(integer && field.precision.is_some());
    if !field.left && !zeros {
        out.resize(out.len() + missing, b' ');
    }
    out.extend_from_slice(sign.as_bytes());
    if zeros {
        out.resize(out.len() + missing, b'0');
    }
    out.extend_from_slice(body);
    if field.left {
        out.resize(out.len() + missing, b' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(pattern: &str, packed: &[u8]) -> String {
        let out = format(pattern.as_bytes(), &mut Arguments::new(packed), |_| b"word".to_vec());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_as_c_prints_them() {
        let five = (-5i32).to_le_bytes();
        assert_eq!(text("%d|", &five), "-5|");
        assert_eq!(text("[%5d]", &five), "[   -5]");
        assert_eq!(text("[%-5d]", &five), "[-5   ]");
        assert_eq!(text("[%05d]", &five), "[-0005]");
        assert_eq!(text("[%.3d]", &five), "[-005]");
        assert_eq!(text("%x %%", &255u32.to_le_bytes()), "ff %");
        assert_eq!(text("%#X", &255u32.to_le_bytes()), "0XFF");
        assert_eq!(text("%lld", &i64::MIN.to_le_bytes()), "-9223372036854775808");
        assert_eq!(text("%c%s", &[b'a', 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]), "aword");
        assert_eq!(text("%+d %", &7i32.to_le_bytes()), "+7 %");
    }

    #[test]
    fn reals_as_c_prints_them() {
        let print = |pattern: &str, value: f64| text(pattern, &value.to_le_bytes());
        assert_eq!(print("%f", 1.5), "1.500000");
        assert_eq!(print("%8.2f|", -2.51249), "   -2.51|");
        assert_eq!(print("%e", 12345.678), "1.234568e+04");
        assert_eq!(print("%g", 0.0001), "0.0001");
        assert_eq!(print("%g", 1e-5), "1e-05");
        assert_eq!(print("%g", 1234567.0), "1.23457e+06");
        assert_eq!(print("%g", 100000.0), "100000");
        assert_eq!(print("%G", f64::INFINITY), "INF");
        assert_eq!(print("%05.1f", -2.25), "-02.2");
        assert_eq!(print("%a", 1.5), "0x1.8p+0");
        assert_eq!(print("%.0f", 2.5), "2");
    }
}
