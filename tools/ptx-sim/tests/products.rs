//! Every `mma` of the decoder against sums worked out here, with the layouts of fragments as the PTX ISA
//! documents them.

mod support;

use support::{Buffer, Random, Run, element, kernel, longs};

/// A type of elements.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    S8,
    U8,
    S4,
    U4,
    B1,
    E4m3,
    E5m2,
    F16,
    Bf16,
    Tf32,
    F32,
    F64,
    S32,
}

impl Kind {
    fn bits(self) -> usize {
        match self {
            Kind::B1 => 1,
            Kind::S4 | Kind::U4 => 4,
            Kind::S8 | Kind::U8 | Kind::E4m3 | Kind::E5m2 => 8,
            Kind::F16 | Kind::Bf16 => 16,
            Kind::Tf32 | Kind::F32 | Kind::S32 => 32,
            Kind::F64 => 64,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::S8 => "s8",
            Kind::U8 => "u8",
            Kind::S4 => "s4",
            Kind::U4 => "u4",
            Kind::B1 => "b1",
            Kind::E4m3 => "e4m3",
            Kind::E5m2 => "e5m2",
            Kind::F16 => "f16",
            Kind::Bf16 => "bf16",
            Kind::Tf32 => "tf32",
            Kind::F32 => "f32",
            Kind::F64 => "f64",
            Kind::S32 => "s32",
        }
    }

    /// Elements of a register.
    fn each(self) -> usize {
        if self == Kind::F64 { 1 } else { 32 / self.bits() }
    }

    /// A number of `exponent` and `mantissa` bits below its sign, with the usual bias and subnormals; no
    /// infinities.
    fn small_float(bits: u64, exponent: u32, mantissa: u32) -> f64 {
        let bias = (1 << (exponent - 1)) - 1;
        let (e, m) =
            ((bits >> mantissa & ((1 << exponent) - 1)) as i32, (bits & ((1 << mantissa) - 1)) as f64);
        let one = f64::from(1u32 << mantissa);
        let size = if e == 0 { m / one * 2f64.powi(1 - bias) } else { (1.0 + m / one) * 2f64.powi(e - bias) };
        if bits >> (exponent + mantissa) & 1 == 1 { -size } else { size }
    }

    fn value(self, bits: u64) -> f64 {
        match self {
            Kind::S8 => f64::from(bits as i8),
            Kind::S4 => f64::from((bits as i8) << 4 >> 4),
            Kind::U8 | Kind::U4 | Kind::B1 => bits as f64,
            Kind::S32 => f64::from(bits as i32),
            Kind::E4m3 if bits & 127 == 127 => f64::NAN,
            Kind::E4m3 => Self::small_float(bits, 4, 3),
            Kind::E5m2 if bits & 127 > 0x7C => f64::NAN,
            Kind::E5m2 if bits & 127 == 0x7C => {
                Self::small_float(0x40, 5, 2) * f64::INFINITY * if bits > 127 { -1.0 } else { 1.0 }
            }
            Kind::E5m2 => Self::small_float(bits, 5, 2),
            Kind::F16 => Self::small_float(bits, 5, 10),
            Kind::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
            Kind::Tf32 | Kind::F32 => f64::from(f32::from_bits(bits as u32)),
            Kind::F64 => f64::from_bits(bits),
        }
    }

    /// Random bits; of floats such that 256 products with a sum are exact in f32: eighths up to 4 in size.
    fn random(self, random: &mut Random) -> u64 {
        let eighths = (random.next() % 65) as f64 / 8.0 - 4.0;
        match self {
            Kind::F16 => u64::from(ptx_sim::f16_bits(eighths)),
            Kind::Bf16 => u64::from(ptx_sim::bf16_bits(eighths)),
            Kind::Tf32 | Kind::F32 => u64::from((eighths as f32).to_bits()),
            Kind::F64 => (eighths * 0.1).to_bits(),
            Kind::E4m3 | Kind::E5m2 => loop {
                let bits = random.next() & 255;
                let value = self.value(bits);
                if value.abs() <= 4.0 && (8.0 * value).fract() == 0.0 {
                    break bits;
                }
            },
            Kind::S32 if random.next().is_multiple_of(4) => {
                u64::from(i32::MAX as u32 - (random.next() % 100) as u32)
            }
            _ => random.next() & (u64::MAX >> (64 - self.bits())),
        }
    }
}

/// Row and column of element `i` of a lane's part of a, b and c. PTX ISA, "Matrix Fragments for mma": with
/// groupID = lane >> 2 and threadID = lane % 4, elements of one register are neighbours along k; of two
/// registers of a the second holds the rows 8 further down, and of four the last two hold the columns after
/// those of all four threads; b's second register the rows after those of all four threads.
fn place(part: char, m: usize, each: usize, lane: usize, i: usize) -> (usize, usize) {
    let (group, thread, register, inside) = (lane >> 2, lane % 4, i / each, i % each);
    match part {
        'a' if m == 8 => (group, each * thread + inside),
        'a' => (group + 8 * (register % 2), each * thread + inside + 4 * each * (register / 2)),
        'b' => (each * thread + inside + 4 * each * register, group),
        _ => (group + 8 * (i / 2), 2 * thread + i % 2),
    }
}

/// A product: what follows `mma.sync.aligned.`, its shape and the types of a, b, and the sums.
struct Case {
    opcode: String,
    shape: [usize; 3],
    kinds: [Kind; 3],
}

/// Bits of a matrix, row by row.
type Bits = Vec<u64>;

impl Case {
    /// Elements, and registers of a lane for a, b and the sums.
    fn sizes(&self) -> [(usize, usize); 3] {
        let [m, n, k] = self.shape;
        let [a, b, c] = self.kinds.map(Kind::each);
        [(m * k / 32, m * k / 32 / a), (n * k / 32, n * k / 32 / b), (m * n / 32, m * n / 32 / c)]
    }

    /// The sums' bits that the interpreter finds for a b + c.
    fn run(&self, [a, b, c]: [&Bits; 3]) -> Bits {
        let [m, n, k] = self.shape;
        let matrices = [(a, k, 'a'), (b, n, 'b'), (c, n, 'c')];
        let sizes = self.sizes();
        let total: usize = sizes.iter().map(|(_, registers)| registers).sum();
        let mut input = Vec::new();
        for lane in 0..32 {
            for ((bits, columns, part), (kind, (elements, _))) in
                matrices.iter().zip(self.kinds.iter().zip(sizes))
            {
                let element = |i: usize| {
                    let (row, column) = place(*part, m, kind.each(), lane, i);
                    bits[row * columns + column]
                };
                let all: Vec<u64> = (0..elements).map(element).collect();
                let pack =
                    |part: &[u64]| part.iter().rev().fold(0, |word, bits| word << (kind.bits() % 64) | bits);
                input.extend(all.chunks(kind.each()).map(pack));
            }
        }
        let (mut lists, mut loads, mut at) = (Vec::new(), String::new(), 0);
        for (kind, (_, registers)) in self.kinds.iter().zip(sizes) {
            let (file, width) = match kind {
                Kind::F64 => ("e", "f64"),
                Kind::F32 => ("f", "f32"),
                _ => ("r", "b32"),
            };
            let names: Vec<_> = (at..at + registers).map(|number| format!("%{file}{number}")).collect();
            for (number, name) in names.iter().enumerate() {
                loads += &format!("ld.global.{width} {name}, [%d1+{}];\n", 8 * (at + number));
            }
            lists.push((names, width));
            at += registers;
        }
        let list = |at: usize| format!("{{{}}}", lists[at].0.join(", "));
        let (sums, width) = &lists[2];
        let stores: String = sums
            .iter()
            .enumerate()
            .map(|(at, name)| format!("st.global.{width} [%d2+{}], {name};\n", 8 * at))
            .collect();
        let body = format!(
            "{}{}{loads}mma.sync.aligned.{} {}, {}, {}, {};\nmov.u64 %d3, 0;\n{}{stores}",
            element("%d1", "%p0", "%t", 8 * total as u32),
            element("%d2", "%p1", "%t", 8 * sums.len() as u32),
            self.opcode,
            list(2),
            list(0),
            list(1),
            list(2),
            (0..sums.len()).map(|at| format!("st.global.u64 [%d2+{}], %d3;\n", 8 * at)).collect::<String>(),
        );
        let (out, report) =
            Run::default().run(&kernel(2, "", &body), &[longs(input), Buffer::Unwritten(256 * sums.len())]);
        support::assert_clean(&report);
        assert_eq!(report.counters.mma_flops, 2 * (m * n * k) as u64, "{}", self.opcode);
        let found = support::as_longs(&out[1]);
        let (each, bits) = (self.kinds[2].each(), self.kinds[2].bits());
        let mut result = vec![0; m * n];
        for lane in 0..32 {
            for i in 0..sizes[2].0 {
                let (row, column) = place('c', m, each, lane, i);
                let word = found[lane * sums.len() + i / each] >> (bits * (i % each) % 64);
                result[row * n + column] = word & (u64::MAX >> (64 - bits));
            }
        }
        result
    }

    fn random(&self, random: &mut Random) -> [Bits; 3] {
        let [m, n, k] = self.shape;
        let sizes = [m * k, k * n, m * n];
        [0, 1, 2].map(|at| (0..sizes[at]).map(|_| self.kinds[at].random(random)).collect())
    }

    /// Runs random matrices and compares every sum, given its start and its terms in the order of k.
    fn check(&self, wanted: impl Fn(u64, &[(u64, u64)]) -> u64) {
        let [_, n, k] = self.shape;
        let mut random = Random(self.opcode.bytes().map(u64::from).sum());
        for round in 0..4 {
            let [a, b, c] = self.random(&mut random);
            for (at, found) in self.run([&a, &b, &c]).into_iter().enumerate() {
                let terms: Vec<_> =
                    (0..k).map(|depth| (a[at / n * k + depth], b[depth * n + at % n])).collect();
                let wanted = wanted(c[at], &terms);
                assert_eq!(
                    found, wanted,
                    "{} round {round} sum {at}: {found:#x}, not {wanted:#x}",
                    self.opcode
                );
            }
        }
    }
}

fn case(shape: [usize; 3], kinds: [Kind; 3], more: &str) -> Case {
    let [m, n, k] = shape;
    let [a, b, c] = kinds.map(Kind::name);
    Case { opcode: format!("m{m}n{n}k{k}.row.col{more}.{c}.{a}.{b}.{c}"), shape, kinds }
}

#[test]
fn integers() {
    use Kind::{S4, S8, S32, U4, U8};
    let bytes = [[8, 8, 16], [16, 8, 16], [16, 8, 32]];
    let nibbles = [[8, 8, 32], [16, 8, 32], [16, 8, 64]];
    for (shapes, signed, unsigned) in [(bytes, S8, U8), (nibbles, S4, U4)] {
        for shape in shapes {
            for (a, b) in [(signed, signed), (signed, unsigned), (unsigned, signed), (unsigned, unsigned)] {
                let sum = |start: u64, terms: &[(u64, u64)]| {
                    terms
                        .iter()
                        .fold(i64::from(start as i32), |sum, (x, y)| sum + (a.value(*x) * b.value(*y)) as i64)
                };
                case(shape, [a, b, S32], "").check(|start, terms| u64::from(sum(start, terms) as u32));
                case(shape, [a, b, S32], ".satfinite").check(|start, terms| {
                    u64::from(sum(start, terms).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as u32)
                });
            }
        }
    }
}

#[test]
fn single_bits() {
    for shape in [[8, 8, 128], [16, 8, 128], [16, 8, 256]] {
        for (operation, count) in [("xor", (|x, y| x ^ y) as fn(u64, u64) -> u64), ("and", |x, y| x & y)] {
            let [m, n, k] = shape;
            let opcode = format!("m{m}n{n}k{k}.row.col.s32.b1.b1.s32.{operation}.popc");
            let case = Case { opcode, shape, kinds: [Kind::B1, Kind::B1, Kind::S32] };
            case.check(|start, terms| {
                let ones: u64 = terms.iter().map(|(x, y)| count(*x, *y)).sum();
                (start + ones) & 0xFFFF_FFFF
            });
        }
    }
}

#[test]
fn doubles() {
    for shape in [[8, 8, 4], [16, 8, 4], [16, 8, 8], [16, 8, 16]] {
        case(shape, [Kind::F64; 3], "").check(|start, terms| {
            let sum = terms.iter().fold(f64::from_bits(start), |sum, (x, y)| {
                f64::from_bits(*x).mul_add(f64::from_bits(*y), sum)
            });
            sum.to_bits()
        });
    }
}

/// Sums that f32 holds exactly; those of f16 are rounded once, at the end.
#[test]
fn exact_floats() {
    use Kind::{Bf16, E4m3, E5m2, F16, F32, Tf32};
    let mut cases = Vec::new();
    for sum in [F16, F32] {
        for shape in [[16, 8, 16], [16, 8, 32]] {
            for (a, b) in [(E4m3, E4m3), (E4m3, E5m2), (E5m2, E4m3), (E5m2, E5m2)] {
                cases.push(case(shape, [a, b, sum], ""));
            }
        }
        for shape in [[16, 8, 8], [16, 8, 16]] {
            cases.push(case(shape, [F16, F16, sum], ""));
        }
    }
    for shape in [[16, 8, 8], [16, 8, 16]] {
        cases.push(case(shape, [Bf16, Bf16, F32], ""));
    }
    for shape in [[16, 8, 4], [16, 8, 8]] {
        cases.push(case(shape, [Tf32, Tf32, F32], ""));
    }
    for case in cases {
        let [a, b, c] = case.kinds;
        case.check(|start, terms| {
            let sum = terms.iter().fold(c.value(start), |sum, (x, y)| sum + a.value(*x) * b.value(*y));
            if c == F16 { u64::from(ptx_sim::f16_bits(sum)) } else { u64::from((sum as f32).to_bits()) }
        });
    }
}

/// Every byte as an 8-bit float, times one.
#[test]
fn every_float_of_eight_bits() {
    for kind in [Kind::E4m3, Kind::E5m2] {
        let case = case([16, 8, 32], [kind, kind, Kind::F32], "");
        let one = if kind == Kind::E4m3 { 0x38 } else { 0x3C };
        // Row i of a is one byte throughout, for an infinity times zero is no number: b has one row of ones,
        // the others zero.
        for start in (0..256).step_by(16) {
            let a: Bits =
                (0..16 * 32).map(|at| if at % 32 == 5 { start + at as u64 / 32 } else { 0 }).collect();
            let b: Bits = (0..32 * 8).map(|at| if at / 8 == 5 { one } else { 0 }).collect();
            for (at, found) in case.run([&a, &b, &vec![0; 128]]).into_iter().enumerate() {
                let bits = start + at as u64 / 8;
                let (found, wanted) = (f64::from(f32::from_bits(found as u32)), kind.value(bits));
                assert!(
                    found == wanted || found.is_nan() && wanted.is_nan(),
                    "{} {bits:#x}: {found}",
                    kind.name()
                );
            }
        }
    }
}

/// Any finite halves, subnormals included: f32 sums are those of exact products added one by one in the order
/// of k, each addition rounded to nearest; f16 sums are the same rounded once more, so that each `mma` rounds
/// its sums to f16 once.
#[test]
fn halves_in_the_documented_order() {
    let mut random = Random(77);
    for sum in [Kind::F32, Kind::F16] {
        let case = case([16, 8, 16], [Kind::F16, Kind::F16, sum], "");
        let mut infinities = 0;
        for round in 0..16 {
            // The exponents of a round: tiny, middling, as large as they get.
            let half = |random: &mut Random| {
                let bits = random.next() & 0x83FF;
                bits | (match round % 4 {
                    0 => random.next() % 3,
                    1 => 12 + random.next() % 6,
                    2 => random.next() % 31,
                    _ => 27 + random.next() % 4,
                }) << 10
            };
            let a: Bits = (0..256).map(|_| half(&mut random)).collect();
            let b: Bits = (0..128).map(|_| half(&mut random)).collect();
            let c: Bits = (0..128)
                .map(|_| {
                    if sum == Kind::F16 {
                        half(&mut random)
                    } else {
                        u64::from((Kind::F16.value(half(&mut random)) as f32).to_bits())
                    }
                })
                .collect();
            for (at, found) in case.run([&a, &b, &c]).into_iter().enumerate() {
                let terms: Vec<_> = (0..16)
                    .map(|k| Kind::F16.value(a[at / 8 * 16 + k]) * Kind::F16.value(b[k * 8 + at % 8]))
                    .collect();
                let start = sum.value(c[at]);
                let ordered = terms.iter().fold(start as f32, |sum, term| sum + *term as f32);
                let wanted = match sum {
                    Kind::F16 => u64::from(ptx_sim::f16_bits(f64::from(ordered))),
                    _ => u64::from(ordered.to_bits()),
                };
                assert_eq!(found, wanted, "round {round} sum {at}");
                // And near the exact sum, as any hardware's result is: f64 holds it, or all of it that
                // matters.
                let exact = terms.iter().fold(start, |sum, term| sum + term);
                let size = terms.iter().fold(start.abs(), |sum, term| sum + term.abs());
                let found = sum.value(found);
                if sum == Kind::F16 && wanted & 0x7C00 == 0x7C00 {
                    infinities += 1;
                    assert!(exact.abs() > 65519.0);
                    continue;
                }
                let last = if sum == Kind::F16 { exact.abs() * 2f64.powi(-11) + 2f64.powi(-25) } else { 0.0 };
                assert!(
                    (found - exact).abs() <= 17.0 * 2f64.powi(-24) * size + 1.001 * last,
                    "round {round} sum {at}"
                );
            }
        }
        assert_eq!(infinities > 0, sum == Kind::F16, "sums beyond 65504 are infinite in f16");
    }
}
