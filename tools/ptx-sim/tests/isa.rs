//! Instructions beyond plain arithmetic, against values worked out here.

mod support;

use ptx_sim::{FindingKind, Launch, Machine, Program, Settings};
use support::{Buffer, Random, Run, as_words, element, kernel, only, words};

/// A matrix as bytes, and its elements as numbers.
type Matrix = (Vec<u8>, Vec<f64>);

fn matrix(kind: &str, count: usize, random: &mut Random) -> Matrix {
    let mut bytes = Vec::new();
    let values = (0..count)
        .map(|_| {
            let small = (random.next() % 17) as i32 - 8;
            match kind {
                "f16" => bytes.extend(ptx_sim::f16_bits(f64::from(small)).to_le_bytes()),
                "bf16" => bytes.extend(ptx_sim::bf16_bits(f64::from(small)).to_le_bytes()),
                "s8" => bytes.push(small as i8 as u8),
                "u8" => bytes.push((small + 8) as u8),
                "f64" => bytes.extend(f64::from(small).to_le_bytes()),
                _ => bytes.extend((small as f32).to_le_bytes()),
            }
            f64::from(if kind == "u8" { small + 8 } else { small })
        })
        .collect();
    (bytes, values)
}

fn registers(prefix: &str, first: usize, count: usize) -> String {
    let list: Vec<_> = (first..first + count).map(|at| format!("%{prefix}{at}")).collect();
    format!("{{{}}}", list.join(", "))
}

/// Loads, multiplies and stores one product; the sums as numbers, row by row.
fn wmma(
    shape: [usize; 3],
    kind: &str,
    sum: &str,
    layouts: [&str; 2],
    counts: [usize; 3],
) -> (Vec<f64>, Vec<f64>) {
    let [m, n, k] = shape;
    let mut random = Random((m * 7 + n * 3 + k) as u64);
    let (a_bytes, a) = matrix(kind, m * k, &mut random);
    let (b_bytes, b) = matrix(kind, k * n, &mut random);
    let stride = |layout: &str, rows: usize, columns: usize| if layout == "row" { columns } else { rows };
    let (file, sums) = if kind == "f64" { ("e", "e") } else { ("r", if sum == "f32" { "f" } else { "r" }) };
    let [first, second, last] = counts;
    let zero = match sum {
        "f64" => "mov.f64 %e{}, 0d0000000000000000;\n",
        "f32" => "mov.f32 %f{}, 0f00000000;\n",
        _ => "mov.b32 %r{}, 0;\n",
    };
    let zeros: String = (20..20 + last).map(|at| zero.replace("{}", &at.to_string())).collect();
    let types = if kind == "f16" { format!("{sum}.{sum}") } else { format!("{sum}.{kind}.{kind}.{sum}") };
    let name = format!("m{m}n{n}k{k}");
    let [la, lb] = layouts;
    let body = format!(
        "wmma.load.a.sync.aligned.{la}.{name}.global.{kind} {}, [%p0], {};\n\
         wmma.load.b.sync.aligned.{lb}.{name}.global.{kind} {}, [%p1], {};\n{zeros}\
         wmma.mma.sync.aligned.{la}.{lb}.{name}.{types} {}, {}, {}, {};\n\
         wmma.store.d.sync.aligned.row.{name}.global.{sum} [%p2], {}, {n};\n",
        registers(file, 0, first),
        stride(la, m, k),
        registers(file, 10, second),
        stride(lb, k, n),
        registers(sums, 20, last),
        registers(file, 0, first),
        registers(file, 10, second),
        registers(sums, 20, last),
        registers(sums, 20, last),
    );
    let size = match sum {
        "f64" => 8,
        "f16" => 2,
        _ => 4,
    };
    let buffers = [Buffer::Bytes(a_bytes), Buffer::Bytes(b_bytes), Buffer::Unwritten(m * n * size)];
    let out = Run::default().clean(&kernel(3, "", &body), &buffers).remove(2);
    let found = out
        .chunks_exact(size)
        .map(|bytes| match sum {
            "f64" => f64::from_le_bytes(bytes.try_into().unwrap()),
            "s32" => f64::from(i32::from_le_bytes(bytes.try_into().unwrap())),
            "f32" => f64::from(f32::from_le_bytes(bytes.try_into().unwrap())),
            _ => half(u16::from_le_bytes(bytes.try_into().unwrap())),
        })
        .collect();
    let at = |list: &[f64], layout: &str, rows: usize, columns: usize, row: usize, column: usize| {
        if layout == "row" { list[row * columns + column] } else { list[column * rows + row] }
    };
    let wanted = (0..m * n)
        .map(|place| {
            let term = |depth| at(&a, la, m, k, place / n, depth) * at(&b, lb, k, n, depth, place % n);
            (0..k).map(term).sum()
        })
        .collect();
    (found, wanted)
}

/// An f16 that is a normal number or zero.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f64::from(bits & 1023));
    let size = if exponent == 0 {
        fraction * 2f64.powi(-24)
    } else {
        (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15)
    };
    if bits >> 15 == 1 { -size } else { size }
}

#[test]
fn wmma_of_every_shape_type_and_layout() {
    let sixteen = [[16, 16, 16], [32, 8, 16], [8, 32, 16]];
    for layouts in [["row", "row"], ["row", "col"], ["col", "row"], ["col", "col"]] {
        let check = |shape, kind, sum, counts| {
            let (found, wanted) = wmma(shape, kind, sum, layouts, counts);
            assert_eq!(found, wanted, "{shape:?} {kind} {sum} {layouts:?}");
        };
        for (index, shape) in sixteen.into_iter().enumerate() {
            check(shape, "f16", "f32", [8, 8, 8]);
            check(shape, "f16", "f16", [8, 8, 4]);
            check(shape, "bf16", "f32", [[4, 4, 8], [8, 2, 8], [2, 8, 8]][index]);
            check(shape, "s8", "s32", [[2, 2, 8], [4, 1, 8], [1, 4, 8]][index]);
            check(shape, "u8", "s32", [[2, 2, 8], [4, 1, 8], [1, 4, 8]][index]);
        }
        check([16, 16, 8], "tf32", "f32", [4, 4, 8]);
        check([8, 8, 4], "f64", "f64", [1, 1, 2]);
    }
}

/// Warps hand shared memory over through an mbarrier, twice.
const HAND_OVER: &str = "\
setp.ne.u32 %q1, %t, 0;
@%q1 bra READY;
mbarrier.init.shared.b64 [bar], 64;
READY: bar.sync 0;
mul.lo.u32 %r1, %t, 4;
mov.u32 %r2, s;
add.u32 %r3, %r2, %r1;
st.shared.u32 [%r3], %t;
mbarrier.arrive.shared.b64 %d1, [bar];
WAIT: mbarrier.test_wait.shared.b64 %q2, [bar], %d1;
@!%q2 bra WAIT;
sub.u32 %r4, 252, %r1;
add.u32 %r4, %r4, %r2;
ld.shared.u32 %r5, [%r4];
mbarrier.pending_count.b64 %r6, %d1;
";

#[test]
fn mbarriers_hand_over() {
    let end = format!("{}st.global.u32 [%d2], %r5;", element("%d2", "%p0", "%t", 4));
    let ptx =
        kernel(1, ".shared .align 8 .b64 bar;\n.shared .align 4 .b8 s[256];", &format!("{HAND_OVER}{end}"));
    for seed in [0, 1, 5] {
        let run = Run {
            block: 64,
            settings: Settings { warp_seed: seed, ..Settings::default() },
            ..Run::default()
        };
        let out = as_words(&run.clean(&ptx, &[Buffer::Unwritten(256)])[0]);
        assert_eq!(out, (0..64).map(|t| 63 - t).collect::<Vec<u32>>());
    }
}

#[test]
fn misused_mbarriers_are_found() {
    let declare = ".shared .align 8 .b64 bar;";
    let never =
        kernel(0, declare, "st.shared.b64 [bar], 0;\nbar.sync 0;\nmbarrier.arrive.shared.b64 %d1, [bar];");
    let one = Run { block: 1, ..Run::default() };
    let (_, report) = one.run(&never, &[]);
    assert!(only(&report, FindingKind::InvalidAccess).message.contains("without mbarrier.init"));
    let many = "mbarrier.init.shared.b64 [bar], 2;\nmbarrier.arrive.shared.b64 %d1, [bar], 3;";
    let (_, report) = one.run(&kernel(0, declare, many), &[]);
    assert!(
        only(&report, FindingKind::InvalidAccess).message.contains("3 arrivals where the phase waits for 2")
    );
    let waits = "mbarrier.init.shared.b64 [bar], 2;\nmbarrier.arrive.shared.b64 %d1, [bar];\n\
                 W: mbarrier.try_wait.parity.shared.b64 %q1, [bar], 0;\n@!%q1 bra W;";
    let (_, report) = one.run(&kernel(0, declare, waits), &[]);
    only(&report, FindingKind::NeverEnds);
}

#[test]
fn bits_bytes_and_halves() {
    let cases = [
        ("fns.b32 %r2, 0x000000B0, 4, 2;", 5),
        ("fns.b32 %r2, 0x000000B0, 6, -1;", 5),
        ("bmsk.clamp.b32 %r2, 4, 8;", 0xFF0),
        ("szext.clamp.s32 %r2, 0xFF, 8;", u32::MAX),
        ("vabsdiff4.u32.u32.u32 %r2, %r0, %r1, %r3;", 0x7E02_0304),
        ("vabsdiff4.u32.u32.u32.add %r2, %r0, %r1, %r4;", 0x7E + 2 + 3 + 4 + 5),
        ("vadd2.s32.s32.s32.sat %r2, %r5, %r5, %r3;", 0x7FFF_8000),
        ("vmax4.s32.s32.s32 %r2, %r0, %r1, %r3;", 0x7F04_0608),
        ("vadd.u32.u32.u32 %r2, %r0.b0, %r1.b3;", 4 + 0x7F),
        ("vset4.u32.u32.lt %r2, %r1, %r0, %r3;", 0x0000_0000),
        ("add.s16x2 %r2, %r6, %r6;", 0xFFFE_0000),
        ("cvt.rn.satfinite.e4m3x2.f32 %h1, 0f3FC00000, 0fC4800000;\ncvt.u32.u16 %r2, %h1;", 0x3CFE),
        ("mov.b16 %h1, 0x3CFE;\ncvt.rn.f16x2.e4m3x2 %r2, %h1;", 0x3E00_DF00),
        ("mov.b32 %r7, 0x3C004000; mov.b32 %r8, 0x3C003C00; set.eq.f16x2.f16x2 %r2, %r7, %r8;", 0x3C00_0000),
    ];
    for (line, wanted) in cases {
        let body = format!(
            "mov.b32 %r0, 0x01020304;\nmov.b32 %r1, 0x7F040608;\nmov.b32 %r3, 0;\nmov.b32 %r4, 5;\n\
             mov.b32 %r5, 0x7FFF8000;\nmov.b32 %r6, 0xFFFF8000;\n{line}\nst.global.u32 [%p0], %r2;"
        );
        let one = Run { block: 1, ..Run::default() };
        let out = as_words(&one.clean(&kernel(1, "", &body), &[Buffer::Unwritten(4)])[0]);
        assert_eq!(out[0], wanted, "{line}: {:#x}", out[0]);
    }
}

#[test]
fn texts_as_ptxas_takes_them() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n# 1 \"a.cu\"\n\
        .visible.global.align 4.b8 a[4*4] = {1, 0, 0, 0, 2};\n\
        .global .align 8 .u64 b[2] = {generic(a)+4, a+4*1};\n.global .u8 low[1] = {0xFF(a)};\n\
        .visible .entry bad() { wgmma.fence.sync.aligned; ret; }\n\
        .visible .entry painted() { .reg.f32 %f<5>; tex.2d.v4.f32.f32 {%f1,%f2,%f3,%f4}, [b, {%f1, %f2}]; ret; }\n\
        .visible .entry k(.param.u64 out) { .reg.b32 r, w; .reg.b64%d<4>; ld.param.u64 %d1,[out]; ld.global.u64 %d2,[b+8];\n\
        ld.u32 r,[%d2]; mov.u32 w, WARP_SZ; add.u32 r, r, w; st.global.u32 [%d1], r; ret; }\n";
    let program = Program::parse(text).unwrap();
    assert!(program.unsupported("bad").unwrap().to_string().contains("wgmma"));
    assert!(
        program
            .unsupported("painted")
            .unwrap()
            .to_string()
            .contains("textures and surfaces are not supported")
    );
    assert_eq!(program.unsupported("k"), None);
    let mut machine = Machine::new(Settings::default());
    let out = machine.allocate(4, "out");
    let arguments = out.to_le_bytes();
    let launch =
        Launch { grid: [1; 3], block: [1; 3], shared_bytes: 0, cooperative: false, arguments: &arguments };
    assert!(machine.launch(&program, "bad", &launch).is_err());
    machine.launch(&program, "k", &launch).unwrap();
    let mut bytes = [0; 4];
    machine.read(out, &mut bytes).unwrap();
    assert_eq!(u32::from_le_bytes(bytes), 2 + 32);
}

#[test]
fn calls_through_pointers() {
    let text = ".version 7.0\n.target sm_80\n.address_size 64\n\
        .func (.param .b32 r) twice(.param .b32 a) { .reg .b32 %r<3>; ld.param.u32 %r1, [a]; add.u32 %r1, %r1, %r1; st.param.b32 [r], %r1; ret; }\n\
        .func (.param .b32 r) next(.param .b32 a) { .reg .b32 %r<3>; ld.param.u32 %r1, [a]; add.u32 %r1, %r1, 1; st.param.b32 [r], %r1; ret; }\n\
        .global .align 8 .u64 table[2] = {twice, next};\n\
        .visible .entry k(.param .u64 out) { .reg .b32 %r<6>; .reg .b64 %d<6>; ld.param.u64 %d1, [out]; mov.u32 %r1, %tid.x;\n\
        and.b32 %r2, %r1, 1; mul.wide.u32 %d2, %r2, 8; mov.u64 %d3, table; add.u64 %d3, %d3, %d2; ld.global.u64 %d4, [%d3];\n\
        { .param .b32 p; .param .b32 q; st.param.b32 [p], %r1; P: .callprototype (.param .b32 _) _ (.param .b32 _);\n\
        call (q), %d4, (p), P; ld.param.b32 %r3, [q]; }\n\
        mul.wide.u32 %d2, %r1, 4; add.u64 %d1, %d1, %d2; st.global.u32 [%d1], %r3; ret; }\n";
    let out = as_words(&Run::default().clean(text, &[Buffer::Unwritten(128)])[0]);
    assert_eq!(out, (0..32).map(|t| if t % 2 == 0 { 2 * t } else { t + 1 }).collect::<Vec<u32>>());
}

/// Sums of floats come out the same to the bit for any number of host threads.
#[test]
fn atomics_of_floats_keep_their_order() {
    let body = format!(
        "{}ld.global.f32 %f1, [%d1];\nred.global.add.f32 [%p1], %f1;",
        element("%d1", "%p0", "%g", 4)
    );
    let ptx = kernel(2, "", &body);
    let values: Vec<u32> =
        (0..64 * 32u32).map(|at| (1.0 / f64::from(at + 1)) as f32).map(f32::to_bits).collect();
    let sum = |threads| {
        let run = Run { grid: 64, settings: Settings { threads, ..Settings::default() }, ..Run::default() };
        as_words(&run.clean(&ptx, &[words(values.clone()), words([0])])[1])[0]
    };
    let wanted = values.iter().fold(0f32, |sum, bits| sum + f32::from_bits(*bits)).to_bits();
    for threads in [1, 2, 3, 8, 8, 8] {
        assert_eq!(sum(threads), wanted, "{threads} host threads");
    }
}

#[test]
fn limits_of_ptxas_and_of_the_launch() {
    let big = kernel(0, ".shared .b8 s[49153];", "");
    let program = Program::parse(&big).unwrap();
    assert!(program.unsupported("k").unwrap().to_string().contains("49153 bytes of static shared memory"));
    let narrow = kernel(1, "", "add.u32 %r1, %h1, %r2;");
    let program = Program::parse(&narrow).unwrap();
    assert!(program.unsupported("k").unwrap().to_string().contains("a register of 32 bits"));
    let mut machine = Machine::new(Settings::default());
    assert!(machine.try_allocate(usize::MAX / 8, "all").unwrap_err().to_string().contains("no memory"));
}

/// What ptxas 13.5 says of each line: `None`, or it is refused, here with these words.
#[test]
fn integers_and_floats_are_not_mixed_up() {
    let integers = Some("the instruction takes integers here");
    let floats = Some("the instruction takes floating-point numbers here");
    let address = Some("a floating-point register as an address");
    let cases = [
        ("add.s32 %u1, %u2, %u3;", None),
        ("add.f32 %f1, %f2, %r3;", None),
        ("add.s32 %f1, %f2, %r3;", integers),
        ("add.s32 %r1, %r2, %f3;", integers),
        ("add.f32 %f1, %f2, %u3;", floats),
        ("add.f32 %f1, %f2, 1;", floats),
        ("add.u32 %u1, %u2, 0f3F800000;", integers),
        ("add.f64 %e1, %e2, 0f3F800000;", None),
        ("add.f16 %x1, %x2, %h3;", None),
        ("add.f16 %x1, %x2, %v3;", floats),
        ("fma.rn.f64 %e1, %e2, %d3, %e3;", None),
        ("ex2.approx.f32 %f1, %u1;", floats),
        ("and.b32 %u1, %f1, %u2;", None),
        ("mov.b32 %u1, %f2;", None),
        ("mov.u32 %u1, %f2;", integers),
        ("mov.f32 %f1, 1;", floats),
        ("mov.b32 %r1, 0f3F800000;", None),
        ("mul.wide.u16 %u1, %h2, %h3;", None),
        ("ld.shared.u32 %f1, [s];", integers),
        ("ld.shared.b32 %f1, [s];", None),
        ("st.shared.v2.u32 [s], {%u1, %f2};", integers),
        ("st.shared.f32 [s], %u1;", floats),
        ("ld.global.u32 %r1, [%f1];", address),
        ("atom.shared.add.f32 %f1, [s], %u2;", floats),
        ("red.shared.add.f32 [s], 0f3F800000;", None),
        ("setp.lt.u32 %q1, %f1, %u2;", integers),
        ("setp.lt.and.f32 %q1, %f1, %f2, %q2;", None),
        ("set.lt.f32.s32 %f1, %u1, %u2;", None),
        ("set.eq.u32.f32 %f1, %f1, %f2;", integers),
        ("selp.f32 %f1, %f2, %f3, %q1;", None),
        ("selp.f32 %f1, %u1, %f2, %q1;", floats),
        ("testp.finite.f32 %q1, %u1;", floats),
        ("cvt.rn.f32.u32 %f1, %u2;", None),
        ("cvt.rn.f32.u32 %f1, %f2;", integers),
        ("cvt.rn.f32.u32 %u1, %u2;", floats),
        ("cvt.rn.f16x2.f32 %r1, %f1, %f2;", None),
        ("cvt.f32.f16 %f1, %v1;", floats),
        ("shfl.sync.bfly.b32 %f1, %f2, 1, 31, -1;", None),
        ("ret %r1;", Some("1 operands where 0 belong")),
    ];
    let declare = ".reg .u32 %u<4>;\n.reg .f16 %x<4>;\n.reg .u16 %v<4>;\n.shared .align 16 .b8 s[64];";
    for (line, wanted) in cases {
        let program = Program::parse(&kernel(0, declare, line)).unwrap();
        let found = program.unsupported("k").map(ToString::to_string);
        match (wanted, &found) {
            (None, None) => {}
            (Some(words), Some(text)) if text.contains(words) => {}
            _ => panic!("{line}: {found:?}"),
        }
    }
}
