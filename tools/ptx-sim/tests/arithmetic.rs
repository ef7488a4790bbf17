//! Every arithmetic instruction against a computation in Rust, over random and awkward values.

mod support;

use support::{Random, execute};

/// Values at the edges of integers and floats.
fn inputs() -> Vec<[u64; 3]> {
    let edges: Vec<u64> = [
        0u64,
        1,
        2,
        7,
        31,
        32,
        33,
        63,
        64,
        0x7F,
        0x80,
        0xFF,
        0x7FFF,
        0x8000,
        0xFFFF,
        0x7FFF_FFFF,
        0x8000_0000,
        0xFFFF_FFFF,
        0x7FFF_FFFF_FFFF_FFFF,
        0x8000_0000_0000_0000,
        u64::MAX,
    ]
    .into_iter()
    .chain(
        [
            0.0f32,
            -0.0,
            1.0,
            -1.5,
            f32::MAX,
            f32::MIN_POSITIVE,
            1e-40,
            -1e-45,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
        ]
        .map(|x| u64::from(x.to_bits())),
    )
    .chain([0.0f64, -0.0, 1.0, -1.5, f64::MAX, 5e-324, f64::INFINITY, f64::NAN, 0.1].map(f64::to_bits))
    .collect();
    let mut random = Random(1);
    (0..2048)
        .map(|round| {
            std::array::from_fn(|_| {
                let bits = random.next();
                match round % 4 {
                    // Floats of moderate size, so that sums and products do not all overflow.
                    0 => {
                        let small = |x: u64| (x % 2000) as f32 / 64.0 - 15.0;
                        u64::from(small(bits).to_bits()) | u64::from(small(bits >> 20).to_bits()) << 32
                    }
                    1 => edges[bits as usize % edges.len()],
                    2 => ((bits >> 12) as f64 / 1e15 - 2.0).to_bits(),
                    _ => bits,
                }
            })
        })
        .collect()
}

type Reference = fn(u64, u64, u64) -> u64;

/// Equal, or both NaN where the result is a float of so many bits.
fn check(rows: &[(&str, &str, Reference)], float: u32) {
    let inputs = inputs();
    for (instruction, kinds, reference) in rows {
        let results = execute(instruction, kinds, &inputs);
        for ([a, b, c], found) in inputs.iter().zip(results) {
            let cut = |at: usize, value: u64| match kinds.as_bytes().get(at) {
                Some(b'w') => value & 0xFFFF_FFFF,
                Some(b'h') => value & 0xFFFF,
                Some(b'p') => value & 1,
                _ => value,
            };
            let (a, b, c) = (cut(1, *a), cut(2, *b), cut(3, *c));
            let wanted = cut(0, reference(a, b, c));
            let nan = |x: u64| match float {
                32 => f32::from_bits(x as u32).is_nan(),
                64 => f64::from_bits(x).is_nan(),
                16 => x & 0x7C00 == 0x7C00 && x & 0x3FF != 0,
                17 => x & 0x7F80 == 0x7F80 && x & 0x7F != 0,
                _ => false,
            };
            assert!(
                found == wanted || nan(found) && nan(wanted),
                "{instruction} of {a:#x} {b:#x} {c:#x}: {found:#x}, not {wanted:#x}"
            );
        }
    }
}

fn f(x: u64) -> f32 {
    f32::from_bits(x as u32)
}

fn u(x: f32) -> u64 {
    u64::from(x.to_bits())
}

fn e(x: u64) -> f64 {
    f64::from_bits(x)
}

#[test]
fn integers_of_32_bits() {
    check(
        &[
            ("add.s32 {d}, {a}, {b};", "www", |a, b, _| a + b),
            ("add.u32 {d}, {a}, -7;", "ww", |a, _, _| a.wrapping_sub(7)),
            ("add.sat.s32 {d}, {a}, {b};", "www", |a, b, _| {
                (i64::from(a as i32) + i64::from(b as i32)).clamp(-(1 << 31), (1 << 31) - 1) as u64
            }),
            ("sub.s32 {d}, {a}, {b};", "www", |a, b, _| a.wrapping_sub(b)),
            ("mul.lo.s32 {d}, {a}, {b};", "www", |a, b, _| a.wrapping_mul(b)),
            ("mul.hi.u32 {d}, {a}, {b};", "www", |a, b, _| (a * b) >> 32),
            ("mul.hi.s32 {d}, {a}, {b};", "www", |a, b, _| {
                ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u64
            }),
            ("mul.wide.u32 {d}, {a}, {b};", "dww", |a, b, _| a * b),
            ("mul.wide.s32 {d}, {a}, {b};", "dww", |a, b, _| {
                (i64::from(a as i32) * i64::from(b as i32)) as u64
            }),
            ("mad.lo.s32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
            ("mad.hi.u32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| ((a * b) >> 32) + c),
            ("mad.hi.s32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                ((i64::from(a as i32) * i64::from(b as i32)) >> 32).wrapping_add(c as i64) as u64
            }),
            ("mad.wide.u32 {d}, {a}, {b}, {c};", "dwwd", |a, b, c| (a * b).wrapping_add(c)),
            ("mad.wide.s32 {d}, {a}, {b}, {c};", "dwwd", |a, b, c| {
                ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)
            }),
            ("mul24.lo.u32 {d}, {a}, {b};", "www", |a, b, _| (a & 0xFF_FFFF) * (b & 0xFF_FFFF)),
            ("mul24.hi.u32 {d}, {a}, {b};", "www", |a, b, _| ((a & 0xFF_FFFF) * (b & 0xFF_FFFF)) >> 16),
            ("mul24.lo.s32 {d}, {a}, {b};", "www", |a, b, _| {
                (i64::from((a as i32) << 8 >> 8) * i64::from((b as i32) << 8 >> 8)) as u64
            }),
            ("sad.u32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| a.abs_diff(b) + c),
            ("sad.s32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                (i64::from(a as i32) - i64::from(b as i32)).unsigned_abs() + c
            }),
            ("div.u32 {d}, {a}, {b};", "www", |a, b, _| a.checked_div(b).unwrap_or(u64::MAX)),
            ("div.s32 {d}, {a}, {b};", "www", |a, b, _| {
                if b == 0 { u64::MAX } else { (i64::from(a as i32) / i64::from(b as i32)) as u64 }
            }),
            ("rem.u32 {d}, {a}, {b};", "www", |a, b, _| if b == 0 { a } else { a % b }),
            ("rem.s32 {d}, {a}, {b};", "www", |a, b, _| {
                if b == 0 { a } else { (i64::from(a as i32) % i64::from(b as i32)) as u64 }
            }),
            ("min.u32 {d}, {a}, {b};", "www", |a, b, _| a.min(b)),
            ("max.u32 {d}, {a}, {b};", "www", |a, b, _| a.max(b)),
            ("min.s32 {d}, {a}, {b};", "www", |a, b, _| (a as i32).min(b as i32) as u64),
            ("max.s32 {d}, {a}, {b};", "www", |a, b, _| (a as i32).max(b as i32) as u64),
            ("abs.s32 {d}, {a};", "ww", |a, _, _| u64::from((a as i32).unsigned_abs())),
            ("neg.s32 {d}, {a};", "ww", |a, _, _| a.wrapping_neg()),
        ],
        0,
    );
}

#[test]
fn integers_of_16_and_64_bits() {
    check(
        &[
            ("add.s16 {d}, {a}, {b};", "hhh", |a, b, _| a + b),
            ("sub.u16 {d}, {a}, {b};", "hhh", |a, b, _| a.wrapping_sub(b)),
            ("mul.lo.s16 {d}, {a}, {b};", "hhh", |a, b, _| a * b),
            ("mul.hi.s16 {d}, {a}, {b};", "hhh", |a, b, _| {
                ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u64
            }),
            ("mul.wide.u16 {d}, {a}, {b};", "whh", |a, b, _| a * b),
            ("mul.wide.s16 {d}, {a}, {b};", "whh", |a, b, _| {
                (i32::from(a as i16) * i32::from(b as i16)) as u64
            }),
            ("mad.lo.u16 {d}, {a}, {b}, {c};", "hhhh", |a, b, c| a * b + c),
            ("div.s16 {d}, {a}, {b};", "hhh", |a, b, _| {
                if b == 0 { u64::MAX } else { (i32::from(a as i16) / i32::from(b as i16)) as u64 }
            }),
            ("min.s16 {d}, {a}, {b};", "hhh", |a, b, _| (a as i16).min(b as i16) as u64),
            ("max.u16 {d}, {a}, {b};", "hhh", |a, b, _| a.max(b)),
            ("shr.s16 {d}, {a}, {b};", "hhw", |a, b, _| (i32::from(a as i16) >> b.min(31)) as u64),
            ("shl.b16 {d}, {a}, {b};", "hhw", |a, b, _| if b < 16 { a << b } else { 0 }),
            ("not.b16 {d}, {a};", "hh", |a, _, _| !a),
            ("mov.u16 {d}, -2;", "h", |_, _, _| 0xFFFE),
            ("add.s64 {d}, {a}, {b};", "ddd", |a, b, _| a.wrapping_add(b)),
            ("mul.lo.s64 {d}, {a}, {b};", "ddd", |a, b, _| a.wrapping_mul(b)),
            ("mul.hi.u64 {d}, {a}, {b};", "ddd", |a, b, _| ((u128::from(a) * u128::from(b)) >> 64) as u64),
            ("mul.hi.s64 {d}, {a}, {b};", "ddd", |a, b, _| {
                ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
            }),
            ("mad.lo.s64 {d}, {a}, {b}, {c};", "dddd", |a, b, c| a.wrapping_mul(b).wrapping_add(c)),
            ("div.u64 {d}, {a}, {b};", "ddd", |a, b, _| a.checked_div(b).unwrap_or(u64::MAX)),
            ("rem.s64 {d}, {a}, {b};", "ddd", |a, b, _| {
                if b == 0 { a } else { (i128::from(a as i64) % i128::from(b as i64)) as u64 }
            }),
            ("max.s64 {d}, {a}, {b};", "ddd", |a, b, _| (a as i64).max(b as i64) as u64),
            ("abs.s64 {d}, {a};", "dd", |a, _, _| (a as i64).unsigned_abs()),
            ("shr.s64 {d}, {a}, {b};", "ddw", |a, b, _| (i128::from(a as i64) >> b.min(64)) as u64),
            ("shl.b64 {d}, {a}, {b};", "ddw", |a, b, _| if b < 64 { a << b } else { 0 }),
        ],
        0,
    );
}

#[test]
fn bits() {
    check(
        &[
            ("and.b32 {d}, {a}, {b};", "www", |a, b, _| a & b),
            ("or.b64 {d}, {a}, {b};", "ddd", |a, b, _| a | b),
            ("xor.b32 {d}, {a}, {b};", "www", |a, b, _| a ^ b),
            ("not.b64 {d}, {a};", "dd", |a, _, _| !a),
            ("cnot.b32 {d}, {a};", "ww", |a, _, _| u64::from(a == 0)),
            ("shl.b32 {d}, {a}, {b};", "www", |a, b, _| if b < 32 { a << b } else { 0 }),
            ("shr.u32 {d}, {a}, {b};", "www", |a, b, _| if b < 32 { a >> b } else { 0 }),
            ("shr.s32 {d}, {a}, {b};", "www", |a, b, _| (i64::from(a as i32) >> b.min(32)) as u64),
            ("clz.b32 {d}, {a};", "ww", |a, _, _| u64::from((a as u32).leading_zeros())),
            ("clz.b64 {d}, {a};", "wd", |a, _, _| u64::from(a.leading_zeros())),
            ("popc.b64 {d}, {a};", "wd", |a, _, _| u64::from(a.count_ones())),
            ("brev.b32 {d}, {a};", "ww", |a, _, _| u64::from((a as u32).reverse_bits())),
            ("bfind.u32 {d}, {a};", "ww", |a, _, _| {
                (0..32).rev().find(|bit| a >> bit & 1 != 0).unwrap_or(u64::MAX)
            }),
            ("bfind.s32 {d}, {a};", "ww", |a, _, _| {
                let sign = a >> 31 & 1;
                (0..31).rev().find(|bit| a >> bit & 1 != sign).unwrap_or(u64::MAX)
            }),
            ("bfind.shiftamt.u32 {d}, {a};", "ww", |a, _, _| {
                (0..32).rev().find(|bit| a >> bit & 1 != 0).map_or(u64::MAX, |bit| 31 - bit)
            }),
            ("lop3.b32 {d}, {a}, {b}, {c}, 0xCA;", "wwww", |a, b, c| a & b | !a & c),
            ("lop3.b32 {d}, {a}, {b}, {c}, 0x96;", "wwww", |a, b, c| a ^ b ^ c),
            ("lop3.b32 {d}, {a}, {b}, {c}, 0x40;", "wwww", |a, b, c| a & b & !c),
            ("shf.l.wrap.b32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| ((b << 32 | a) << (c & 31)) >> 32),
            ("shf.r.wrap.b32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| (b << 32 | a) >> (c & 31)),
            ("shf.l.clamp.b32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                ((u128::from(b << 32 | a) << c.min(32)) >> 32) as u64
            }),
            ("shf.r.clamp.b32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| (b << 32 | a) >> c.min(32)),
            ("prmt.b32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                let all = b << 32 | a;
                (0..4).fold(0, |result, place| {
                    let choice = c >> (4 * place) & 15;
                    let byte = all >> (8 * (choice & 7)) & 255;
                    let byte = if choice & 8 == 0 { byte } else { 255 * (byte >> 7) };
                    result | byte << (8 * place)
                })
            }),
            ("bfe.u32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| field(a, b, c, 32, false)),
            ("bfe.s32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| field(a, b, c, 32, true)),
            ("bfe.u64 {d}, {a}, {b}, {c};", "ddww", |a, b, c| field(a, b, c, 64, false)),
            ("bfe.s64 {d}, {a}, {b}, {c};", "ddww", |a, b, c| field(a, b, c, 64, true)),
            ("bfe.u32 {d}, {a}, 5, 9;", "ww", |a, _, _| a >> 5 & 511),
            ("bfi.b32 {d}, {a}, {b}, 4, 8;", "www", |a, b, _| b & !0xFF0 | (a & 0xFF) << 4),
            ("bfi.b64 {d}, {a}, {b}, 32, 32;", "ddd", |a, b, _| b & 0xFFFF_FFFF | a << 32),
            ("bfi.b32 {d}, {a}, {b}, {c}, 40;", "wwww", |a, b, c| {
                let at = c & 255;
                if at >= 32 { b } else { b & ((1 << at) - 1) | a << at }
            }),
            ("dp4a.s32.s32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                (0..4).fold(c, |sum, at| {
                    sum.wrapping_add(
                        (i32::from((a >> (8 * at)) as i8) * i32::from((b >> (8 * at)) as i8)) as u64,
                    )
                })
            }),
            ("dp4a.u32.u32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                (0..4).fold(c, |sum, at| sum + (a >> (8 * at) & 255) * (b >> (8 * at) & 255))
            }),
            ("dp2a.lo.u32.u32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                c + (a & 0xFFFF) * (b & 255) + (a >> 16) * (b >> 8 & 255)
            }),
            ("dp2a.hi.s32.u32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                let low = i64::from(a as i16) * (b >> 16 & 255) as i64;
                let high = i64::from((a >> 16) as i16) * (b >> 24 & 255) as i64;
                (c as i64 + low + high) as u64
            }),
            ("selp.b32 {d}, {a}, {b}, {c};", "wwwp", |a, b, c| if c != 0 { a } else { b }),
            ("selp.b64 {d}, {a}, {b}, {c};", "dddp", |a, b, c| if c != 0 { a } else { b }),
            ("slct.u32.s32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| if c as i32 >= 0 { a } else { b }),
            ("mov.b64 {d}, {{a}, {b}};", "dww", |a, b, _| b << 32 | a),
            ("mov.b32 {d}, {{a}, {b}};", "whh", |a, b, _| b << 16 | a),
            ("{ .reg .b32 x; mov.b64 {x, {d}}, {a}; }", "wd", |a, _, _| a >> 32),
            ("mov.b32 {_, {d}}, {a};", "hw", |a, _, _| a >> 16),
        ],
        0,
    );
}

/// bfe, bit by bit as the PTX manual defines it.
fn field(a: u64, position: u64, length: u64, width: u64, signed: bool) -> u64 {
    let (position, length) = (position & 255, length & 255);
    let most = width - 1;
    let sign = if !signed || length == 0 { 0 } else { a >> (position + length - 1).min(most) & 1 };
    (0..width).fold(0, |result, at| {
        let bit = if at < length && position + at <= most { a >> (position + at) & 1 } else { sign };
        result | bit << at
    })
}

#[test]
fn carries() {
    check(
        &[
            ("{ .reg .b32 x; add.cc.u32 x, {a}, {b}; addc.u32 {d}, {c}, 0; }", "wwww", |a, b, c| {
                c + ((a + b) >> 32)
            }),
            ("{ .reg .b32 x; sub.cc.u32 x, {a}, {b}; subc.u32 {d}, {c}, 0; }", "wwww", |a, b, c| {
                c.wrapping_sub(u64::from(a < b))
            }),
            (
                "{ .reg .b32 x; mad.lo.cc.u32 x, {a}, {b}, {c}; madc.hi.u32 {d}, {a}, {b}, 0; }",
                "wwww",
                |a, b, c| ((a * b) >> 32) + ((((a * b) & 0xFFFF_FFFF) + c) >> 32),
            ),
            ("{ .reg .b64 x; add.cc.u64 x, {a}, {b}; addc.u64 {d}, {c}, 0; }", "dddd", |a, b, c| {
                c.wrapping_add(((u128::from(a) + u128::from(b)) >> 64) as u64)
            }),
        ],
        0,
    );
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

#[test]
fn floats_of_32_bits() {
    check(
        &[
            ("add.f32 {d}, {a}, {b};", "www", |a, b, _| u(f(a) + f(b))),
            ("sub.f32 {d}, {a}, {b};", "www", |a, b, _| u(f(a) - f(b))),
            ("mul.f32 {d}, {a}, {b};", "www", |a, b, _| u(f(a) * f(b))),
            ("mul.ftz.f32 {d}, {a}, {b};", "www", |a, b, _| u(flush(flush(f(a)) * flush(f(b))))),
            ("add.ftz.f32 {d}, {a}, {b};", "www", |a, b, _| u(flush(flush(f(a)) + flush(f(b))))),
            ("add.sat.f32 {d}, {a}, {b};", "www", |a, b, _| {
                let sum = f(a) + f(b);
                if sum.is_nan() { 0 } else { u(sum.clamp(0.0, 1.0).max(0.0) + 0.0) }
            }),
            ("fma.rn.f32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| u(f(a).mul_add(f(b), f(c)))),
            ("fma.rn.ftz.f32 {d}, {a}, {b}, {c};", "wwww", |a, b, c| {
                u(flush(flush(f(a)).mul_add(flush(f(b)), flush(f(c)))))
            }),
            ("div.rn.f32 {d}, {a}, {b};", "www", |a, b, _| u(f(a) / f(b))),
            ("rcp.rn.f32 {d}, {a};", "ww", |a, _, _| u(1.0 / f(a))),
            ("sqrt.rn.f32 {d}, {a};", "ww", |a, _, _| u(f(a).sqrt())),
            ("neg.f32 {d}, {a};", "ww", |a, _, _| a ^ 0x8000_0000),
            ("abs.f32 {d}, {a};", "ww", |a, _, _| a & 0x7FFF_FFFF),
            ("copysign.f32 {d}, {a}, {b};", "www", |a, b, _| u(f(b).copysign(f(a)))),
            ("min.f32 {d}, {a}, {b};", "www", |a, b, _| least(a, b, f(a), f(b))),
            ("max.f32 {d}, {a}, {b};", "www", |a, b, _| {
                least(a ^ 1 << 31, b ^ 1 << 31, -f(a), -f(b)) ^ 1 << 31
            }),
            ("ex2.approx.f32 {d}, {a};", "ww", |a, _, _| u(f(a).exp2())),
            ("tanh.approx.f32 {d}, {a};", "ww", |a, _, _| u(f(a).tanh())),
            ("testp.finite.f32 {d}, {a};", "pw", |a, _, _| u64::from(f(a).is_finite())),
            ("testp.subnormal.f32 {d}, {a};", "pw", |a, _, _| u64::from(f(a).is_subnormal())),
        ],
        32,
    );
}

/// The smaller, by the rules of PTX.
fn least(a_bits: u64, b_bits: u64, a: f32, b: f32) -> u64 {
    match (a.is_nan(), b.is_nan()) {
        (true, true) => 0x7FFF_FFFF,
        (true, false) => b_bits,
        (false, true) => a_bits,
        _ if a == b => {
            if a.is_sign_negative() {
                a_bits
            } else {
                b_bits
            }
        }
        _ => {
            if a < b {
                a_bits
            } else {
                b_bits
            }
        }
    }
}

/// Whether `x` is `exact` rounded down: not above it, and the next is. `exact` must hold the sum or product
/// exactly.
fn rounded_down(exact: f64) -> f32 {
    let near = exact as f32;
    if f64::from(near) > exact { near.next_down() } else { near }
}

#[test]
fn directed_rounding() {
    check(
        &[
            ("mul.rm.f32 {d}, {a}, {b};", "www", |a, b, _| {
                let exact = f64::from(f(a)) * f64::from(f(b));
                if exact == 0.0 { u(exact as f32) } else { u(rounded_down(exact)) }
            }),
            ("mul.rp.f32 {d}, {a}, {b};", "www", |a, b, _| {
                let exact = f64::from(f(a)) * f64::from(f(b));
                if exact == 0.0 { u(exact as f32) } else { u(-rounded_down(-exact)) }
            }),
            ("mul.rz.f32 {d}, {a}, {b};", "www", |a, b, _| {
                let exact = f64::from(f(a)) * f64::from(f(b));
                let down = rounded_down(exact.abs());
                u(if exact.is_sign_negative() { -down } else { down })
            }),
        ],
        32,
    );
    // Sums, by a property: the rounded value and its neighbour enclose the exact one.
    let inputs = inputs();
    let down = execute("fma.rm.f32 {d}, {a}, {b}, {c};", "wwww", &inputs);
    let near = execute("fma.rn.f32 {d}, {a}, {b}, {c};", "wwww", &inputs);
    let up = execute("fma.rp.f32 {d}, {a}, {b}, {c};", "wwww", &inputs);
    let zero = execute("fma.rz.f32 {d}, {a}, {b}, {c};", "wwww", &inputs);
    let mut apart = 0;
    for at in 0..inputs.len() {
        let [down, near, up, zero] = [down[at], near[at], up[at], zero[at]].map(f);
        if near.is_nan() {
            assert!(down.is_nan() && up.is_nan() && zero.is_nan());
            continue;
        }
        assert!(down <= near && near <= up && (near == down || near == up), "{down} {near} {up}");
        assert!(down == up || down.next_up() == up);
        assert!((zero == down || zero == up) && zero.abs() <= down.abs() && zero.abs() <= up.abs());
        apart += usize::from(down != up);
    }
    assert!(apart > 100, "{apart}");
}

#[test]
fn floats_of_64_bits() {
    check(
        &[
            ("add.f64 {d}, {a}, {b};", "ddd", |a, b, _| (e(a) + e(b)).to_bits()),
            ("sub.rn.f64 {d}, {a}, {b};", "ddd", |a, b, _| (e(a) - e(b)).to_bits()),
            ("mul.f64 {d}, {a}, {b};", "ddd", |a, b, _| (e(a) * e(b)).to_bits()),
            ("fma.rn.f64 {d}, {a}, {b}, {c};", "dddd", |a, b, c| e(a).mul_add(e(b), e(c)).to_bits()),
            ("div.rn.f64 {d}, {a}, {b};", "ddd", |a, b, _| (e(a) / e(b)).to_bits()),
            ("sqrt.rn.f64 {d}, {a};", "dd", |a, _, _| e(a).sqrt().to_bits()),
            ("rcp.rn.f64 {d}, {a};", "dd", |a, _, _| (1.0 / e(a)).to_bits()),
            ("neg.f64 {d}, {a};", "dd", |a, _, _| a ^ 1 << 63),
            ("abs.f64 {d}, {a};", "dd", |a, _, _| a & !(1 << 63)),
        ],
        64,
    );
}

fn bf(x: u64) -> f64 {
    f64::from(f32::from_bits((x as u32) << 16))
}

fn hf(x: u64) -> f64 {
    let (sign, exponent, mantissa) = (x >> 15 & 1, x >> 10 & 31, x & 1023);
    let value = match exponent {
        0 => mantissa as f64 * 2f64.powi(-24),
        31 if mantissa != 0 => f64::NAN,
        31 => f64::INFINITY,
        _ => (1024 + mantissa) as f64 * 2f64.powi(exponent as i32 - 25),
    };
    if sign == 1 { -value } else { value }
}

/// Brute force: the nearest of all values of a format, ties to the even one.
fn nearest(exact: f64, value: fn(u64) -> f64, infinity: u64) -> u64 {
    if exact.is_nan() {
        return 0x7FFF;
    }
    let sign = if exact.is_sign_negative() { 0x8000 } else { 0 };
    let x = exact.abs();
    // Positive values are in the order of their bits.
    let (mut low, mut high) = (0u64, infinity);
    while high - low > 1 {
        let middle = (low + high) / 2;
        if value(middle) <= x { low = middle } else { high = middle }
    }
    // Rounding to infinity starts half a step beyond the largest value.
    let above = if high == infinity { 2.0 * value(infinity - 1) - value(infinity - 2) } else { value(high) };
    let (down, up) = (x - value(low), above - x);
    let low_is_nearest = down < up || down == up && low % 2 == 0;
    sign | if x.is_infinite() || !low_is_nearest { high } else { low }
}

#[test]
fn sixteen_bit_floats() {
    check(
        &[
            ("add.f16 {d}, {a}, {b};", "hhh", |a, b, _| nearest(hf(a) + hf(b), hf, 0x7C00)),
            ("mul.f16 {d}, {a}, {b};", "hhh", |a, b, _| nearest(hf(a) * hf(b), hf, 0x7C00)),
            ("cvt.rn.f16.f32 {d}, {a};", "hw", |a, _, _| nearest(f64::from(f(a)), hf, 0x7C00)),
        ],
        16,
    );
    check(&[("cvt.f32.f16 {d}, {a};", "wh", |a, _, _| u(hf(a) as f32))], 32);
    check(
        &[
            ("mul.bf16 {d}, {a}, {b};", "hhh", |a, b, _| nearest(bf(a) * bf(b), bf, 0x7F80)),
            ("cvt.rn.bf16.f32 {d}, {a};", "hw", |a, _, _| nearest(f64::from(f(a)), bf, 0x7F80)),
            ("max.bf16 {d}, {a}, {b};", "hhh", |a, b, _| {
                if bf(a).is_nan() {
                    if bf(b).is_nan() { 0x7FFF } else { b }
                } else if bf(b).is_nan() || bf(a) > bf(b) || bf(a) == bf(b) && a & 0x8000 == 0 {
                    a
                } else {
                    b
                }
            }),
            ("cvt.rz.bf16.f32 {d}, {a};", "hw", |a, _, _| if f(a).is_nan() { 0x7FFF } else { a >> 16 }),
        ],
        17,
    );
    check(
        &[
            ("cvt.rn.bf16x2.f32 {d}, {a}, {b};", "www", |a, b, _| {
                nearest(f64::from(f(a)), bf, 0x7F80) << 16 | nearest(f64::from(f(b)), bf, 0x7F80)
            }),
            ("{ .reg .b32 x; and.b32 x, {a}, 0x3FFF3FFF; mul.rn.bf16x2 {d}, x, x; }", "ww", |a, _, _| {
                let part = |x: u64| nearest(bf(x & 0x3FFF) * bf(x & 0x3FFF), bf, 0x7F80);
                part(a >> 16) << 16 | part(a)
            }),
        ],
        0,
    );
    // One rounding of a b + c: an exact f64 would need more bits, so only values near each other.
    check(
        &[(
            "{ .reg .b16 x, y, z; and.b16 x, {a}, 0x00FF; or.b16 x, x, 0x3F00; and.b16 y, {b}, 0x00FF; or.b16 y, y, 0x3F00; \
             and.b16 z, {c}, 0x80FF; or.b16 z, z, 0x3F00; fma.rn.bf16 {d}, x, y, z; }",
            "hhhh",
            |a, b, c| {
                nearest(bf(a & 0xFF | 0x3F00) * bf(b & 0xFF | 0x3F00) + bf(c & 0x80FF | 0x3F00), bf, 0x7F80)
            },
        )],
        17,
    );
}

#[test]
fn comparisons() {
    check(
        &[
            ("setp.lt.s32 {d}, {a}, {b};", "pww", |a, b, _| u64::from((a as i32) < b as i32)),
            ("setp.ge.u32 {d}, {a}, {b};", "pww", |a, b, _| u64::from(a >= b)),
            ("setp.hi.u32 {d}, {a}, {b};", "pww", |a, b, _| u64::from(a > b)),
            ("setp.le.s16 {d}, {a}, {b};", "phh", |a, b, _| u64::from(a as i16 <= b as i16)),
            ("setp.gt.s64 {d}, {a}, {b};", "pdd", |a, b, _| u64::from(a as i64 > b as i64)),
            ("setp.eq.f32 {d}, {a}, {b};", "pww", |a, b, _| u64::from(f(a) == f(b))),
            ("setp.ne.f32 {d}, {a}, {b};", "pww", |a, b, _| u64::from(f(a) < f(b) || f(a) > f(b))),
            ("setp.neu.f32 {d}, {a}, {b};", "pww", |a, b, _| u64::from(f(a) != f(b))),
            ("setp.ltu.f32 {d}, {a}, {b};", "pww", |a, b, _| {
                u64::from(f(a) < f(b) || f(a).is_nan() || f(b).is_nan())
            }),
            ("setp.geu.f64 {d}, {a}, {b};", "pdd", |a, b, _| {
                u64::from(e(a) >= e(b) || e(a).is_nan() || e(b).is_nan())
            }),
            ("setp.nan.f32 {d}, {a}, {b};", "pww", |a, b, _| u64::from(f(a).is_nan() || f(b).is_nan())),
            ("setp.lt.and.s32 {d}, {a}, {b}, {c};", "pwwp", |a, b, c| u64::from((a as i32) < b as i32) & c),
            ("setp.lt.or.s32 {d}, {a}, {b}, !{c};", "pwwp", |a, b, c| {
                u64::from((a as i32) < b as i32) | (1 - c)
            }),
            ("setp.lt.xor.s32 %q9|{d}, {a}, {b}, {c};", "pwwp", |a, b, c| {
                u64::from(a as i32 >= b as i32) ^ c
            }),
            (
                "set.lt.u32.s32 {d}, {a}, {b};",
                "www",
                |a, b, _| {
                    if (a as i32) < b as i32 { 0xFFFF_FFFF } else { 0 }
                },
            ),
            ("set.gt.f32.f32 {d}, {a}, {b};", "www", |a, b, _| if f(a) > f(b) { u(1.0) } else { 0 }),
            ("{ .reg .pred x; and.pred x, {a}, {b}; not.pred {d}, x; }", "ppp", |a, b, _| 1 - (a & b)),
        ],
        0,
    );
}

#[test]
fn conversions() {
    check(
        &[
            ("cvt.u64.u32 {d}, {a};", "dw", |a, _, _| a),
            ("cvt.s64.s32 {d}, {a};", "dw", |a, _, _| i64::from(a as i32) as u64),
            ("cvt.u32.u64 {d}, {a};", "wd", |a, _, _| a),
            ("cvt.s32.s16 {d}, {a};", "wh", |a, _, _| i64::from(a as i16) as u64),
            ("cvt.u32.u8 {d}, {a};", "ww", |a, _, _| a & 255),
            ("cvt.s32.s8 {d}, {a};", "ww", |a, _, _| i64::from(a as i8) as u64),
            ("cvt.u16.u32 {d}, {a};", "hw", |a, _, _| a),
            ("cvt.s8.s32 {d}, {a};", "ww", |a, _, _| i64::from(a as i8) as u64),
            ("cvt.sat.u8.s32 {d}, {a};", "ww", |a, _, _| (a as i32).clamp(0, 255) as u64),
            ("cvt.sat.s16.s32 {d}, {a};", "hw", |a, _, _| (a as i32).clamp(-32768, 32767) as u64),
            ("cvt.sat.u32.s64 {d}, {a};", "wd", |a, _, _| (a as i64).clamp(0, 0xFFFF_FFFF) as u64),
            ("cvt.rzi.s32.f32 {d}, {a};", "ww", |a, _, _| i64::from(f(a) as i32) as u64),
            ("cvt.rni.s32.f32 {d}, {a};", "ww", |a, _, _| i64::from(f(a).round_ties_even() as i32) as u64),
            ("cvt.rmi.s32.f32 {d}, {a};", "ww", |a, _, _| i64::from(f(a).floor() as i32) as u64),
            ("cvt.rpi.s32.f32 {d}, {a};", "ww", |a, _, _| i64::from(f(a).ceil() as i32) as u64),
            ("cvt.rzi.u32.f32 {d}, {a};", "ww", |a, _, _| u64::from(f(a) as u32)),
            (
                "cvt.rzi.s64.f64 {d}, {a};",
                "dd",
                |a, _, _| {
                    if e(a).is_nan() { 1 << 63 } else { e(a) as i64 as u64 }
                },
            ),
            ("cvt.rzi.u64.f32 {d}, {a};", "dw", |a, _, _| if f(a).is_nan() { 1 << 63 } else { f(a) as u64 }),
            ("cvt.rzi.u8.f32 {d}, {a};", "ww", |a, _, _| u64::from(f(a) as u8)),
        ],
        0,
    );
    check(
        &[
            ("cvt.rn.f32.s32 {d}, {a};", "ww", |a, _, _| u(a as i32 as f32)),
            ("cvt.rn.f32.u32 {d}, {a};", "ww", |a, _, _| u(a as u32 as f32)),
            ("cvt.rn.f32.u64 {d}, {a};", "wd", |a, _, _| u(a as f32)),
            ("cvt.rn.f32.s64 {d}, {a};", "wd", |a, _, _| u(a as i64 as f32)),
            ("cvt.rz.f32.u32 {d}, {a};", "ww", |a, _, _| {
                let near = a as f32;
                u(if near as f64 > a as f64 { near.next_down() } else { near })
            }),
            ("cvt.rn.f32.u16 {d}, {a};", "wh", |a, _, _| u(a as f32)),
            ("cvt.rn.f32.u8 {d}, {a};", "ww", |a, _, _| u((a & 255) as f32)),
            ("cvt.rn.f32.f64 {d}, {a};", "wd", |a, _, _| u(e(a) as f32)),
            ("cvt.rni.f32.f32 {d}, {a};", "ww", |a, _, _| u(f(a).round_ties_even())),
            ("cvt.rmi.f32.f32 {d}, {a};", "ww", |a, _, _| u(f(a).floor())),
            ("cvt.sat.f32.f32 {d}, {a};", "ww", |a, _, _| {
                if f(a).is_nan() { 0 } else { u(f(a).clamp(0.0, 1.0) + 0.0) }
            }),
            ("cvt.rna.tf32.f32 {d}, {a};", "ww", |a, _, _| {
                if f(a).is_nan() || f(a).is_infinite() { a } else { (a + 0x1000) & !0x1FFF }
            }),
        ],
        32,
    );
    check(
        &[
            ("cvt.f64.f32 {d}, {a};", "dw", |a, _, _| f64::from(f(a)).to_bits()),
            ("cvt.rn.f64.s64 {d}, {a};", "dd", |a, _, _| (a as i64 as f64).to_bits()),
            ("cvt.rn.f64.u32 {d}, {a};", "dw", |a, _, _| (a as f64).to_bits()),
        ],
        64,
    );
}

#[test]
fn approximations_are_close() {
    let inputs = inputs();
    type Row = (&'static str, fn(f64) -> f64);
    let rows: [Row; 6] = [
        ("rsqrt.approx.f32", |x| 1.0 / x.sqrt()),
        ("lg2.approx.f32", f64::log2),
        ("sin.approx.f32", f64::sin),
        ("cos.approx.f32", f64::cos),
        ("rcp.approx.ftz.f32", |x| 1.0 / x),
        ("sqrt.approx.f32", f64::sqrt),
    ];
    for (name, reference) in rows {
        let found = execute(&format!("{name} {{d}}, {{a}};"), "ww", &inputs);
        for ([a, _, _], found) in inputs.iter().zip(found) {
            let x = f64::from(f(*a));
            if !(1e-3..1e3).contains(&x.abs()) {
                continue;
            }
            let (found, wanted) = (f64::from(f(found)), reference(x));
            // Half a unit of the last place of f32, with room for the library's functions.
            let near = (found - wanted).abs() <= 1e-6 * wanted.abs() + 1e-7;
            assert!(near || found.is_nan() && wanted.is_nan(), "{name} {x}: {found} {wanted}");
        }
    }
}
