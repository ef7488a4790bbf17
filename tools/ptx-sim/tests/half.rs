//! Arithmetic, comparisons and conversions of f16, to the bit, against integers: every f16 is a whole number
//! of 2^-24, so that a product, and a product with something added, is a whole number of 2^-48, and is
//! rounded here from that.

mod support;

use support::{Buffer, Random, Run, as_words, execute, kernel, words};

const INFINITY: u64 = 0x7C00;
const NAN: u64 = 0x7FFF;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Nearest,
    Zero,
    Down,
    Up,
}

/// The value of a half; exact in an f64.
fn real(bits: u64) -> f64 {
    let (exponent, mantissa) = (bits >> 10 & 31, bits & 1023);
    let size = match exponent {
        0 => mantissa as f64 * 2f64.powi(-24),
        31 if mantissa != 0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1024 + mantissa) as f64 * 2f64.powi(exponent as i32 - 25),
    };
    if bits & 0x8000 != 0 { -size } else { size }
}

/// A half that is not negative in units of 2^-48; what follows the greatest counts as the next power of two.
fn units(bits: u64) -> i128 {
    let (exponent, mantissa) = (bits >> 10, i128::from(bits & 1023));
    (if exponent == 0 { mantissa } else { (1024 + mantissa) << (exponent - 1) }) << 24
}

/// So many units of 2^-48 as a half, and a little more or less than that if `rest` says so (then never a
/// tie).
fn rounded(value: i128, rest: i32, negative_zero: bool, mode: Mode) -> u64 {
    let negative = value < 0 || value == 0 && (rest < 0 || rest == 0 && negative_zero);
    let (size, rest) = if negative { (-value, -rest) } else { (value, rest) };
    let sign = if negative { 0x8000 } else { 0 };
    // What lies a little below a half lies between that and the one before.
    let (mut low, mut high) = (0, INFINITY);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if units(middle) < size || units(middle) == size && rest >= 0 { low = middle } else { high = middle }
    }
    if units(low) == size && rest == 0 {
        return sign | low;
    }
    let twice = 2 * size - units(low) - units(high);
    let up = match mode {
        Mode::Nearest => twice > 0 || twice == 0 && (rest > 0 || rest == 0 && low % 2 == 1),
        Mode::Zero => false,
        Mode::Down => negative,
        Mode::Up => !negative,
    };
    sign | if up || size >= units(INFINITY) && mode == Mode::Nearest { high } else { low }
}

/// `a b + c` rounded once.
fn fused(a: u64, b: u64, c: u64) -> u64 {
    let near = real(a).mul_add(real(b), real(c));
    if near.is_nan() {
        return NAN;
    }
    if near.is_infinite() {
        return INFINITY | if near < 0.0 { 0x8000 } else { 0 };
    }
    let whole = |bits: u64| {
        let size = units(bits & 0x7FFF);
        if bits & 0x8000 != 0 { -size } else { size }
    };
    rounded((whole(a) >> 24) * (whole(b) >> 24) + whole(c), 0, near.is_sign_negative(), Mode::Nearest)
}

const ONE: u64 = 0x3C00;

fn add(a: u64, b: u64) -> u64 {
    fused(a, ONE, b)
}

fn sub(a: u64, b: u64) -> u64 {
    // The sign of a NaN does not matter.
    fused(a, ONE, b ^ 0x8000)
}

fn mul(a: u64, b: u64) -> u64 {
    // -0 added leaves the sign of a zero product alone.
    fused(a, b, 0x8000)
}

fn is_nan(a: u64) -> bool {
    a & 0x7FFF > INFINITY
}

fn flush(a: u64) -> u64 {
    if a & INFINITY == 0 { a & 0x8000 } else { a }
}

/// To [0, 1], NaN to 0.
fn saturated(a: u64) -> u64 {
    if is_nan(a) || a & 0x8000 != 0 { 0 } else { a.min(ONE) }
}

fn relu(a: u64) -> u64 {
    if !is_nan(a) && a & 0x8000 != 0 { 0 } else { a }
}

/// The order of numbers, -0 below 0.
fn rank(a: u64) -> i64 {
    if a & 0x8000 != 0 { -1 - (a & 0x7FFF) as i64 } else { a as i64 }
}

fn min(a: u64, b: u64) -> u64 {
    match (is_nan(a), is_nan(b)) {
        (true, true) => NAN,
        (true, false) => b,
        (false, true) => a,
        _ if rank(a) < rank(b) => a,
        _ => b,
    }
}

fn max(a: u64, b: u64) -> u64 {
    match (is_nan(a), is_nan(b)) {
        (true, true) => NAN,
        (true, false) => b,
        (false, true) => a,
        _ if rank(a) > rank(b) => a,
        _ => b,
    }
}

/// Every pair of the edges with a third, and random ones.
fn inputs() -> Vec<[u64; 3]> {
    let edges = [
        0, 1, 2, 0x3FF, 0x400, 0x401, 0x1400, 0x2C00, 0x3800, 0x3BFF, 0x3C00, 0x3C01, 0x4000, 0x5BFF, 0x7800,
        0x7BFE, 0x7BFF, INFINITY, 0x7C01, 0x7E00, NAN,
    ];
    let edges: Vec<u64> = edges.iter().flat_map(|edge| [*edge, edge | 0x8000]).collect();
    let mut random = Random(3);
    let mut all = Vec::new();
    for a in &edges {
        for b in &edges {
            all.push([*a, *b, edges[random.next() as usize % edges.len()]]);
        }
    }
    while all.len() < 8192 {
        let values = [random.next(), random.next(), random.next()].map(|bits| bits & 0xFFFF);
        // Sums that cancel, and values of the same size.
        all.push(match all.len() % 4 {
            0 => values,
            1 => [values[0], ONE, values[0] ^ 0x8000 ^ (values[1] & 1)],
            2 => values.map(|bits| bits & 0x83FF | 0x3800),
            _ => [
                values[0] & 0x83FF | 0x3800,
                values[1] & 0x8FFF,
                mul(values[0] & 0x83FF | 0x3800, values[1] & 0x8FFF) ^ 0x8000,
            ],
        });
    }
    all
}

type Row = (&'static str, &'static str, fn(u64, u64, u64) -> u64);

fn check(rows: &[Row], inputs: &[[u64; 3]]) {
    for (instruction, kinds, reference) in rows {
        for ([a, b, c], found) in inputs.iter().zip(execute(instruction, kinds, inputs)) {
            let wanted = reference(*a, *b, *c);
            assert_eq!(found, wanted, "{instruction} of {a:#x} {b:#x} {c:#x}: {found:#x}, not {wanted:#x}");
        }
    }
}

#[test]
fn the_reference_rounds_as_it_should() {
    assert_eq!(rounded(units(0x3C00) + 1, 0, false, Mode::Up), 0x3C01);
    assert_eq!(
        rounded(units(0x7BFF) + (units(INFINITY) - units(0x7BFF)) / 2 - 1, 0, false, Mode::Nearest),
        0x7BFF
    );
    assert_eq!(
        rounded(units(0x7BFF) + (units(INFINITY) - units(0x7BFF)) / 2, 0, false, Mode::Nearest),
        INFINITY
    );
    assert_eq!(rounded(-(1 << 23), 0, false, Mode::Nearest), 0x8000);
    assert_eq!(rounded(-(1 << 23), -1, false, Mode::Nearest), 0x8001);
    assert_eq!(rounded(3 << 23, 0, false, Mode::Nearest), 2);
    assert_eq!(rounded(1 << 100, 0, false, Mode::Zero), 0x7BFF);
}

#[test]
fn arithmetic() {
    check(
        &[
            ("add.f16 {d}, {a}, {b};", "hhh", |a, b, _| add(a, b)),
            ("add.rn.f16 {d}, {a}, {b};", "hhh", |a, b, _| add(a, b)),
            ("add.sat.f16 {d}, {a}, {b};", "hhh", |a, b, _| saturated(add(a, b))),
            ("add.ftz.f16 {d}, {a}, {b};", "hhh", |a, b, _| flush(add(flush(a), flush(b)))),
            ("sub.f16 {d}, {a}, {b};", "hhh", |a, b, _| sub(a, b)),
            ("sub.rn.ftz.sat.f16 {d}, {a}, {b};", "hhh", |a, b, _| saturated(flush(sub(flush(a), flush(b))))),
            ("mul.f16 {d}, {a}, {b};", "hhh", |a, b, _| mul(a, b)),
            ("mul.sat.f16 {d}, {a}, {b};", "hhh", |a, b, _| saturated(mul(a, b))),
            ("mul.ftz.f16 {d}, {a}, {b};", "hhh", |a, b, _| flush(mul(flush(a), flush(b)))),
            ("fma.rn.f16 {d}, {a}, {b}, {c};", "hhhh", fused),
            ("fma.rn.sat.f16 {d}, {a}, {b}, {c};", "hhhh", |a, b, c| saturated(fused(a, b, c))),
            ("fma.rn.ftz.f16 {d}, {a}, {b}, {c};", "hhhh", |a, b, c| {
                flush(fused(flush(a), flush(b), flush(c)))
            }),
            ("fma.rn.relu.f16 {d}, {a}, {b}, {c};", "hhhh", |a, b, c| relu(fused(a, b, c))),
            ("min.f16 {d}, {a}, {b};", "hhh", |a, b, _| min(a, b)),
            ("max.f16 {d}, {a}, {b};", "hhh", |a, b, _| max(a, b)),
            ("min.ftz.f16 {d}, {a}, {b};", "hhh", |a, b, _| min(flush(a), flush(b))),
            (
                "max.NaN.f16 {d}, {a}, {b};",
                "hhh",
                |a, b, _| if is_nan(a) || is_nan(b) { NAN } else { max(a, b) },
            ),
            (
                "min.NaN.f16 {d}, {a}, {b};",
                "hhh",
                |a, b, _| if is_nan(a) || is_nan(b) { NAN } else { min(a, b) },
            ),
            ("neg.f16 {d}, {a};", "hh", |a, _, _| a ^ 0x8000),
            ("abs.f16 {d}, {a};", "hh", |a, _, _| a & 0x7FFF),
        ],
        &inputs(),
    );
}

/// Applies a function of halves to both halves of pairs.
fn both(a: u64, b: u64, c: u64, f: impl Fn(u64, u64, u64) -> u64) -> u64 {
    let part = |shift: u32| f(a >> shift & 0xFFFF, b >> shift & 0xFFFF, c >> shift & 0xFFFF) << shift;
    part(0) | part(16)
}

/// Pairs of one input and another.
fn pairs() -> Vec<[u64; 3]> {
    let all = inputs();
    all.iter().zip(all.iter().rev()).map(|(low, high)| [0, 1, 2].map(|at| low[at] | high[at] << 16)).collect()
}

#[test]
fn arithmetic_of_pairs() {
    check(
        &[
            ("add.f16x2 {d}, {a}, {b};", "www", |a, b, c| both(a, b, c, |a, b, _| add(a, b))),
            ("sub.f16x2 {d}, {a}, {b};", "www", |a, b, c| both(a, b, c, |a, b, _| sub(a, b))),
            ("mul.f16x2 {d}, {a}, {b};", "www", |a, b, c| both(a, b, c, |a, b, _| mul(a, b))),
            ("mul.rn.sat.f16x2 {d}, {a}, {b};", "www", |a, b, c| {
                both(a, b, c, |a, b, _| saturated(mul(a, b)))
            }),
            ("fma.rn.f16x2 {d}, {a}, {b}, {c};", "wwww", |a, b, c| both(a, b, c, fused)),
            ("fma.rn.relu.f16x2 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                both(a, b, c, |a, b, c| relu(fused(a, b, c)))
            }),
            ("fma.rn.ftz.sat.f16x2 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                both(a, b, c, |a, b, c| saturated(flush(fused(flush(a), flush(b), flush(c)))))
            }),
            ("min.f16x2 {d}, {a}, {b};", "www", |a, b, c| both(a, b, c, |a, b, _| min(a, b))),
            ("max.f16x2 {d}, {a}, {b};", "www", |a, b, c| both(a, b, c, |a, b, _| max(a, b))),
            ("neg.f16x2 {d}, {a};", "ww", |a, _, _| a ^ 0x8000_8000),
        ],
        &pairs(),
    );
}

#[test]
fn comparisons() {
    type Test = (&'static str, fn(f64, f64) -> bool);
    const TESTS: [Test; 14] = [
        ("eq", |a, b| a == b),
        ("ne", |a, b| a.partial_cmp(&b).is_some_and(|order| order.is_ne())),
        ("lt", |a, b| a < b),
        ("le", |a, b| a <= b),
        ("gt", |a, b| a > b),
        ("ge", |a, b| a >= b),
        ("equ", |a, b| a == b || a.is_nan() || b.is_nan()),
        ("neu", |a, b| a != b),
        ("ltu", |a, b| a < b || a.is_nan() || b.is_nan()),
        ("leu", |a, b| a <= b || a.is_nan() || b.is_nan()),
        ("gtu", |a, b| a > b || a.is_nan() || b.is_nan()),
        ("geu", |a, b| a >= b || a.is_nan() || b.is_nan()),
        ("num", |a, b| !a.is_nan() && !b.is_nan()),
        ("nan", |a, b| a.is_nan() || b.is_nan()),
    ];
    let (inputs, pairs) = (inputs(), pairs());
    for (name, test) in TESTS {
        let of = |a: u64, b: u64| test(real(a & 0xFFFF), real(b & 0xFFFF));
        let flushed = |a: u64, b: u64| of(flush(a), flush(b));
        type Form<'a> = (String, &'a str, &'a dyn Fn(u64, u64, u64) -> u64);
        let forms: [Form; 8] = [
            (format!("setp.{name}.f16 {{d}}, {{a}}, {{b}};"), "phh", &|a, b, _| u64::from(of(a, b))),
            (format!("setp.{name}.f16 %q9|{{d}}, {{a}}, {{b}};"), "phh", &|a, b, _| u64::from(!of(a, b))),
            (format!("setp.{name}.ftz.f16 {{d}}, {{a}}, {{b}};"), "phh", &|a, b, _| u64::from(flushed(a, b))),
            (format!("setp.{name}.and.f16 {{d}}, {{a}}, {{b}}, {{c}};"), "phhp", &|a, b, c| {
                u64::from(of(a, b)) & c
            }),
            (format!("set.{name}.f16.f16 {{d}}, {{a}}, {{b}};"), "hhh", &|a, b, _| {
                if of(a, b) { ONE } else { 0 }
            }),
            (format!("set.{name}.u32.f16 {{d}}, {{a}}, {{b}};"), "whh", &|a, b, _| {
                if of(a, b) { 0xFFFF_FFFF } else { 0 }
            }),
            (format!("set.{name}.u16.f16 {{d}}, {{a}}, {{b}};"), "hhh", &|a, b, _| {
                if of(a, b) { 0xFFFF } else { 0 }
            }),
            (format!("set.{name}.ftz.s32.f16 {{d}}, {{a}}, {{b}};"), "whh", &|a, b, _| {
                if flushed(a, b) { 0xFFFF_FFFF } else { 0 }
            }),
        ];
        for (instruction, kinds, wanted) in forms {
            for ([a, b, c], found) in inputs.iter().zip(execute(&instruction, kinds, &inputs)) {
                assert_eq!(found, wanted(*a, *b, c & 1), "{instruction} {a:#x} {b:#x}");
            }
        }
        let forms: [Form; 3] = [
            (format!("setp.{name}.f16x2 {{d}}|%q9, {{a}}, {{b}};"), "pww", &|a, b, _| u64::from(of(a, b))),
            (format!("setp.{name}.f16x2 %q9|{{d}}, {{a}}, {{b}};"), "pww", &|a, b, _| {
                u64::from(of(a >> 16, b >> 16))
            }),
            (format!("set.{name}.f16x2.f16x2 {{d}}, {{a}}, {{b}};"), "www", &|a, b, _| {
                both(a, b, 0, |a, b, _| if of(a, b) { ONE } else { 0 })
            }),
        ];
        for (instruction, kinds, wanted) in forms {
            for ([a, b, _], found) in pairs.iter().zip(execute(&instruction, kinds, &pairs)) {
                assert_eq!(found, wanted(*a, *b, 0), "{instruction} {a:#x} {b:#x}");
            }
        }
    }
}

/// The half of an f32's bits.
fn of_single(bits: u64, mode: Mode) -> u64 {
    let value = f32::from_bits(bits as u32);
    if value.is_nan() {
        return NAN;
    }
    if value.is_infinite() {
        return INFINITY | if value < 0.0 { 0x8000 } else { 0 };
    }
    // Units of 2^-48, and whether anything is left below.
    let scaled = f64::from(value) * 2f64.powi(48);
    let whole = scaled.trunc();
    let rest = if scaled == whole { 0 } else { scaled.signum() as i32 };
    rounded((whole as i128).clamp(-(1 << 100), 1 << 100), rest, value.is_sign_negative(), mode)
}

/// Around every half and every middle between two, all f32 that are next to them; infinities and NaNs; what
/// is far too large or small.
fn singles() -> Vec<[u64; 3]> {
    let mut all = Vec::new();
    for bits in 0..INFINITY {
        let (here, next) =
            (real(bits) as f32, if bits + 1 == INFINITY { 65536.0 } else { real(bits + 1) as f32 });
        for value in [here, (here + next) / 2.0] {
            let near = [value, value.next_up(), value.next_down()].map(|x| x.abs().to_bits());
            all.extend(near.map(u64::from));
        }
    }
    let far =
        [f32::INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE, 1e-45, 65536.0, 65520.0, 65519.996, 131072.0];
    all.extend(far.map(|x| u64::from(x.to_bits())));
    let negative: Vec<u64> = all.iter().map(|bits| bits | 0x8000_0000).collect();
    all.extend(negative);
    all.resize(all.len().next_multiple_of(256), 0x7F80_0001);
    // The second one of a pair is another.
    (0..all.len()).map(|at| [all[at], all[(at + 77_777) % all.len()], 0]).collect()
}

#[test]
fn conversions_from_f32() {
    let all = singles();
    check(
        &[
            ("cvt.rn.f16.f32 {d}, {a};", "hw", |a, _, _| of_single(a, Mode::Nearest)),
            ("cvt.rz.f16.f32 {d}, {a};", "hw", |a, _, _| of_single(a, Mode::Zero)),
        ],
        &all,
    );
    // The rest of some of them, the last ones among these: the specials.
    let some: Vec<_> =
        all.iter().rev().step_by(9).copied().chain(all.iter().rev().take(256).copied()).collect();
    check(
        &[
            ("cvt.rm.f16.f32 {d}, {a};", "hw", |a, _, _| of_single(a, Mode::Down)),
            ("cvt.rp.f16.f32 {d}, {a};", "hw", |a, _, _| of_single(a, Mode::Up)),
            ("cvt.rn.sat.f16.f32 {d}, {a};", "hw", |a, _, _| saturated(of_single(a, Mode::Nearest))),
            ("cvt.rz.sat.f16.f32 {d}, {a};", "hw", |a, _, _| saturated(of_single(a, Mode::Zero))),
            ("cvt.rn.relu.f16.f32 {d}, {a};", "hw", |a, _, _| relu(of_single(a, Mode::Nearest))),
            ("cvt.rn.f16x2.f32 {d}, {a}, {b};", "www", |a, b, _| {
                of_single(a, Mode::Nearest) << 16 | of_single(b, Mode::Nearest)
            }),
            ("cvt.rz.f16x2.f32 {d}, {a}, {b};", "www", |a, b, _| {
                of_single(a, Mode::Zero) << 16 | of_single(b, Mode::Zero)
            }),
            ("cvt.rn.relu.f16x2.f32 {d}, {a}, {b};", "www", |a, b, _| {
                relu(of_single(a, Mode::Nearest)) << 16 | relu(of_single(b, Mode::Nearest))
            }),
        ],
        &some[..some.len() / 256 * 256],
    );
}

type OfOne = (&'static str, &'static str, fn(f64) -> u64);

/// Of every half. `nan`: what becomes of a NaN, if there is only one such result.
fn check_all(rows: &[OfOne], nan: Option<u64>) {
    let all: Vec<[u64; 3]> = (0..65536).map(|bits| [bits, 0, 0]).collect();
    for (instruction, kinds, wanted) in rows {
        for ([a, ..], found) in all.iter().zip(execute(instruction, kinds, &all)) {
            match (is_nan(*a), nan) {
                (true, Some(nan)) => assert_eq!(found, nan, "{instruction} of {a:#x}"),
                (true, None) if *kinds == "dh" => assert!(f64::from_bits(found).is_nan()),
                (true, None) => assert!(f32::from_bits(found as u32).is_nan()),
                _ => assert_eq!(found, wanted(real(*a)), "{instruction} of {a:#x}"),
            }
        }
    }
}

#[test]
fn conversions_of_every_half() {
    check_all(
        &[
            ("cvt.f32.f16 {d}, {a};", "wh", |x| u64::from((x as f32).to_bits())),
            ("cvt.f64.f16 {d}, {a};", "dh", f64::to_bits),
        ],
        None,
    );
    check_all(
        &[
            ("cvt.sat.f32.f16 {d}, {a};", "wh", |x| {
                u64::from((if x > 0.0 { x.min(1.0) } else { 0.0 } as f32).to_bits())
            }),
            ("cvt.rzi.s32.f16 {d}, {a};", "wh", |x| u64::from(x as i32 as u32)),
            ("cvt.rni.s32.f16 {d}, {a};", "wh", |x| u64::from(x.round_ties_even() as i32 as u32)),
            ("cvt.rmi.s32.f16 {d}, {a};", "wh", |x| u64::from(x.floor() as i32 as u32)),
            ("cvt.rpi.u32.f16 {d}, {a};", "wh", |x| u64::from(x.ceil() as u32)),
            ("cvt.rzi.u16.f16 {d}, {a};", "hh", |x| u64::from(x as u16)),
        ],
        Some(0),
    );
    check_all(
        &[("cvt.rni.f16.f16 {d}, {a};", "hh", |x| {
            let near = x.round_ties_even();
            rounded(
                (near.clamp(-65504.0, 65504.0) * 2f64.powi(48)) as i128,
                0,
                x.is_sign_negative(),
                Mode::Nearest,
            ) + u64::from(x.is_infinite())
        })],
        Some(NAN),
    );
}

#[test]
fn integers_and_doubles_to_half() {
    let mut random = Random(9);
    let mut inputs: Vec<[u64; 3]> = (0..4096).map(|at| [random.next() >> (at % 64), 0, 0]).collect();
    for (place, value) in (2040..2060).chain(65490..65540).enumerate() {
        inputs[place] = [value, 0, 0];
    }
    let whole = |value: i128, mode| rounded(value << 48, 0, false, mode);
    type Row<'a> = (&'a str, &'a str, &'a dyn Fn(u64) -> u64);
    let double = |bits: u64| {
        let value = f64::from_bits(bits);
        match value {
            value if value.is_nan() => NAN,
            value if value.abs() >= 65520.0 => INFINITY | if value < 0.0 { 0x8000 } else { 0 },
            value => {
                let scaled = value * 2f64.powi(48);
                let rest = if scaled == scaled.trunc() { 0 } else { scaled.signum() as i32 };
                rounded(scaled as i128, rest, value.is_sign_negative(), Mode::Nearest)
            }
        }
    };
    let rows: [Row; 5] = [
        ("cvt.rn.f16.s32 {d}, {a};", "hw", &|a| whole(i128::from(a as i32), Mode::Nearest)),
        ("cvt.rz.f16.u32 {d}, {a};", "hw", &|a| whole(i128::from(a as u32), Mode::Zero)),
        ("cvt.rn.f16.u16 {d}, {a};", "hh", &|a| whole(i128::from(a as u16), Mode::Nearest)),
        ("cvt.rn.f16.s64 {d}, {a};", "hd", &|a| whole(i128::from(a as i64), Mode::Nearest)),
        ("cvt.rn.f16.f64 {d}, {a};", "hd", &double),
    ];
    for (instruction, kinds, wanted) in rows {
        for ([a, ..], found) in inputs.iter().zip(execute(instruction, kinds, &inputs)) {
            assert_eq!(found, wanted(*a), "{instruction} of {a:#x}: {found:#x}");
        }
    }
}

/// What `isfinite`, `isinf` and the like become: of f16 by way of f32, or by the bits.
#[test]
fn classes_of_numbers() {
    type Test = (&'static str, fn(f64, bool, bool) -> bool);
    // Value, whether it is normal, whether it is subnormal.
    let tests: [Test; 6] = [
        ("finite", |x, _, _| x.is_finite()),
        ("infinite", |x, _, _| x.is_infinite()),
        ("number", |x, _, _| !x.is_nan()),
        ("notanumber", |x, _, _| x.is_nan()),
        ("normal", |_, normal, _| normal),
        ("subnormal", |_, _, subnormal| subnormal),
    ];
    let mut random = Random(4);
    let mut singles: Vec<[u64; 3]> = (0..512).map(|_| [random.next() & 0xFFFF_FFFF, 0, 0]).collect();
    let edges =
        [0.0, 1e-45, f32::MIN_POSITIVE.next_down(), f32::MIN_POSITIVE, f32::MAX, f32::INFINITY, f32::NAN];
    for (place, x) in edges.into_iter().flat_map(|x| [x, -x]).enumerate() {
        singles[place] = [u64::from(x.to_bits()), 0, 0];
    }
    let mut doubles: Vec<[u64; 3]> = (0..512).map(|_| [random.next(), 0, 0]).collect();
    let edges =
        [0.0, 5e-324, f64::MIN_POSITIVE.next_down(), f64::MIN_POSITIVE, f64::MAX, f64::INFINITY, f64::NAN];
    for (place, x) in edges.into_iter().flat_map(|x| [x, -x]).enumerate() {
        doubles[place] = [x.to_bits(), 0, 0];
    }
    let halves: Vec<[u64; 3]> = (0..65536).map(|bits| [bits, 0, 0]).collect();
    for (name, test) in tests {
        let found = execute(&format!("testp.{name}.f32 {{d}}, {{a}};"), "pw", &singles);
        for ([a, ..], found) in singles.iter().zip(found) {
            let x = f32::from_bits(*a as u32);
            assert_eq!(
                found,
                u64::from(test(f64::from(x), x.is_normal(), x.is_subnormal())),
                "{name} {a:#x}"
            );
        }
        let found = execute(&format!("testp.{name}.f64 {{d}}, {{a}};"), "pd", &doubles);
        for ([a, ..], found) in doubles.iter().zip(found) {
            let x = f64::from_bits(*a);
            assert_eq!(found, u64::from(test(x, x.is_normal(), x.is_subnormal())), "{name} {a:#x}");
        }
        if !name.ends_with("normal") {
            let text = format!("{{ .reg .f32 x; cvt.f32.f16 x, {{a}}; testp.{name}.f32 {{d}}, x; }}");
            for ([a, ..], found) in halves.iter().zip(execute(&text, "ph", &halves)) {
                assert_eq!(found, u64::from(test(real(*a), false, false)), "{name} {a:#x}");
            }
        }
    }
    let text = "{ .reg .b16 x; and.b16 x, {a}, 0x7FFF; setp.lt.u16 {d}, x, 0x7C00; }";
    for ([a, ..], found) in halves.iter().zip(execute(text, "ph", &halves)) {
        assert_eq!(found, u64::from(real(*a).is_finite()), "{a:#x}");
    }
}

/// Halves keep their bits on the way through `cp.async` and `ldmatrix`: every one of a random tile, NaNs and
/// subnormals too.
#[test]
fn tiles_of_halves_arrive_as_they_are() {
    let mut random = Random(12);
    let tile: Vec<u32> = (0..128).map(|_| random.next() as u32).collect();
    let half = |row: usize, column: usize| tile[(8 * row + column) / 2] >> (16 * (column & 1)) & 0xFFFF;
    for transposed in [false, true] {
        let trans = if transposed { ".trans" } else { "" };
        let body = format!(
            "mov.u32 %r1, buffer; mul.lo.u32 %r2, %t, 16; add.u32 %r3, %r1, %r2; cvt.u64.u32 %d1, %r2; add.s64 %d1, %p0, %d1;
             cp.async.cg.shared.global [%r3], [%d1], 16; cp.async.commit_group; cp.async.wait_group 0; bar.warp.sync -1;
             ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%r4, %r5, %r6, %r7}}, [%r3];
             cvt.u64.u32 %d2, %r2; add.s64 %d2, %p1, %d2; st.global.v4.b32 [%d2], {{%r4, %r5, %r6, %r7}};"
        );
        let ptx = kernel(2, ".shared .align 16 .b8 buffer[512];", &body);
        let out = as_words(&Run::default().clean(&ptx, &[words(tile.clone()), Buffer::Unwritten(512)])[1]);
        for lane in 0..32 {
            for matrix in 0..4 {
                let (g, t) = (lane / 4, lane % 4);
                let at = |row: usize, column: usize| half(8 * matrix + row, column);
                let wanted = match transposed {
                    true => at(2 * t, g) | at(2 * t + 1, g) << 16,
                    false => at(g, 2 * t) | at(g, 2 * t + 1) << 16,
                };
                assert_eq!(out[4 * lane + matrix], wanted, "lane {lane} matrix {matrix}{trans}");
            }
        }
    }
}
