//! Matrix fragments against plain products. The layouts are written down here as the PTX ISA gives them.

mod support;

use support::{Buffer, Random, Run, as_words, element, kernel, words};

fn bf16(x: f32) -> u32 {
    x.to_bits() >> 16
}

/// Small numbers that bf16, f16 and tf32 hold exactly, so that every sum is exact too.
fn small(random: &mut Random) -> f32 {
    (random.next() % 33) as f32 - 16.0
}

fn f16(x: f32) -> u32 {
    u32::from(ptx_sim::f16_bits(f64::from(x)))
}

struct Shape {
    opcode: &'static str,
    depth: usize,
    pack: fn(f32) -> u32,
    /// Elements of a register.
    each: usize,
    half_sum: bool,
}

#[test]
fn products_of_every_shape() {
    let shapes = [
        Shape {
            opcode: "m16n8k16.row.col.f32.bf16.bf16.f32",
            depth: 16,
            pack: bf16,
            each: 2,
            half_sum: false,
        },
        Shape { opcode: "m16n8k16.row.col.f32.f16.f16.f32", depth: 16, pack: f16, each: 2, half_sum: false },
        Shape { opcode: "m16n8k16.row.col.f16.f16.f16.f16", depth: 16, pack: f16, each: 2, half_sum: true },
        Shape { opcode: "m16n8k8.row.col.f32.bf16.bf16.f32", depth: 8, pack: bf16, each: 2, half_sum: false },
        Shape {
            opcode: "m16n8k8.row.col.f32.tf32.tf32.f32",
            depth: 8,
            pack: f32::to_bits,
            each: 1,
            half_sum: false,
        },
        Shape {
            opcode: "m16n8k4.row.col.f32.tf32.tf32.f32",
            depth: 4,
            pack: f32::to_bits,
            each: 1,
            half_sum: false,
        },
    ];
    for shape in shapes {
        let mut random = Random(5);
        let a: Vec<Vec<f32>> =
            (0..16).map(|_| (0..shape.depth).map(|_| small(&mut random)).collect()).collect();
        let b: Vec<Vec<f32>> =
            (0..shape.depth).map(|_| (0..8).map(|_| small(&mut random)).collect()).collect();
        let c: Vec<Vec<f32>> = (0..16).map(|_| (0..8).map(|_| small(&mut random)).collect()).collect();
        // PTX ISA: groupID = lane >> 2, threadID_in_group = lane % 4. Element i of a 16-bit A: row groupID (+8 for i in
        // 2,3,6,7), column 2 threadID + (i & 1) (+8 for i >= 4). B: row 2 threadID + (i & 1) (+8 for i >= 2), column
        // groupID. tf32 A: row groupID (+8 for odd i), column threadID (+4 for i >= 2). B: row threadID (+4 for i = 1).
        let (a_count, b_count) = (16 * shape.depth / 32, 8 * shape.depth / 32);
        let mut input = Vec::new();
        for lane in 0..32usize {
            let (group, thread) = (lane >> 2, lane % 4);
            let mut registers = Vec::new();
            let pack = |values: Vec<f32>, registers: &mut Vec<u32>| {
                for part in values.chunks(shape.each) {
                    registers.push(
                        part.iter().enumerate().fold(0, |word, (at, x)| word | (shape.pack)(*x) << (16 * at)),
                    );
                }
            };
            let a_element = |i: usize| {
                if shape.each == 2 {
                    let row = group + if i & 2 != 0 { 8 } else { 0 };
                    a[row][2 * thread + (i & 1) + if i >= 4 { 8 } else { 0 }]
                } else {
                    a[group + if i & 1 != 0 { 8 } else { 0 }][thread + if i >= 2 { 4 } else { 0 }]
                }
            };
            let b_element = |i: usize| {
                if shape.each == 2 {
                    b[2 * thread + (i & 1) + if i >= 2 { 8 } else { 0 }][group]
                } else {
                    b[thread + if i >= 1 { 4 } else { 0 }][group]
                }
            };
            pack((0..a_count).map(a_element).collect(), &mut registers);
            pack((0..b_count).map(b_element).collect(), &mut registers);
            let sums: Vec<f32> =
                (0..4).map(|i| c[group + if i >= 2 { 8 } else { 0 }][2 * thread + (i & 1)]).collect();
            if shape.half_sum {
                registers.extend(sums.chunks(2).map(|pair| f16(pair[0]) | f16(pair[1]) << 16));
            } else {
                registers.extend(sums.iter().map(|x| x.to_bits()));
            }
            registers.resize(12, 0);
            input.extend(registers);
        }
        let (a_registers, b_registers) = (a_count / shape.each, b_count / shape.each);
        let sums = if shape.half_sum { 2 } else { 4 };
        let list = |from: usize, count: usize| {
            let names: Vec<_> = (from..from + count).map(|at| format!("%r{at}")).collect();
            format!("{{{}}}", names.join(", "))
        };
        let loads: String = (0..12).map(|at| format!("ld.global.u32 %r{at}, [%d1+{}];\n", 4 * at)).collect();
        let stores: String =
            (0..sums).map(|at| format!("st.global.u32 [%d2+{}], %r{};\n", 4 * at, 20 + at)).collect();
        let body = format!(
            "{}{}{loads}mma.sync.aligned.{} {}, {}, {}, {};\n{stores}",
            element("%d1", "%p0", "%t", 48),
            element("%d2", "%p1", "%t", 4 * sums as u32),
            shape.opcode,
            list(20, sums),
            list(0, a_registers),
            list(a_registers, b_registers),
            list(a_registers + b_registers, sums),
        );
        let out = Run::default().run(&kernel(2, "", &body), &[words(input), Buffer::Unwritten(128 * sums)]);
        assert_eq!(out.1.findings_total, 0);
        assert_eq!(out.1.counters.mma_flops, 2 * 16 * 8 * shape.depth as u64);
        let found = as_words(&out.0[1]);
        for lane in 0..32usize {
            for i in 0..4 {
                let (row, column) = ((lane >> 2) + if i >= 2 { 8 } else { 0 }, 2 * (lane % 4) + (i & 1));
                let wanted = c[row][column] + (0..shape.depth).map(|k| a[row][k] * b[k][column]).sum::<f32>();
                if shape.half_sum {
                    let word = found[2 * lane + i / 2];
                    assert_eq!(word >> (16 * (i & 1)) & 0xFFFF, f16(wanted), "{}", shape.opcode);
                } else {
                    assert_eq!(f32::from_bits(found[4 * lane + i]), wanted, "{}", shape.opcode);
                }
            }
        }
    }
}

#[test]
fn matrices_move_between_rows_and_fragments() {
    for count in [1, 2, 4] {
        for transposed in [false, true] {
            let trans = if transposed { ".trans" } else { "" };
            let list = |from: usize| {
                let names: Vec<_> = (from..from + count).map(|at| format!("%r{at}")).collect();
                format!("{{{}}}", names.join(", "))
            };
            let stores: String =
                (0..count).map(|at| format!("st.global.u32 [%d2+{}], %r{};\n", 4 * at, 10 + at)).collect();
            // Lane l writes row l of 8 halves, 100 l + column; the matrices' rows are taken in another order.
            let halves: String = (0..8)
                .map(|column| {
                    format!("mad.lo.u32 %r3, %t, 100, {column}; cvt.u16.u32 %h1, %r3; st.shared.u16 [%r2+{}], %h1;\n", 2 * column)
                })
                .collect();
            let body = format!(
                "mov.u32 %r1, buffer; mad.lo.u32 %r2, %t, 16, %r1;\n{halves}bar.sync 0;
                 xor.b32 %r4, %t, 5; mad.lo.u32 %r5, %r4, 16, %r1;
                 ldmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 {}, [%r5];
                 bar.sync 0;
                 stmatrix.sync.aligned.m8n8.x{count}{trans}.shared.b16 [%r5+512], {};
                 bar.sync 0;
                 {}{stores}setp.ge.u32 %q1, %t, {}; @%q1 exit; ld.shared.u32 %r6, [%r2+512]; ld.shared.u32 %r7, [%r2+524];
                 setp.ne.u32 %q2, %r6, 0; ld.shared.u32 %r8, [%r2]; ld.shared.u32 %r9, [%r2+12];
                 setp.ne.u32 %q2, %r6, %r8; @%q2 trap; setp.ne.u32 %q2, %r7, %r9; @%q2 trap;",
                list(10),
                list(10),
                element("%d2", "%p0", "%t", 4 * count as u32),
                8 * count
            );
            let ptx = kernel(1, ".shared .align 16 .b8 buffer[1024];", &body);
            let out = Run::default().clean(&ptx, &[Buffer::Unwritten(128 * count)]);
            let found = as_words(&out[0]);
            for lane in 0..32 {
                for matrix in 0..count {
                    let at = |row: usize, column: usize| (100 * ((8 * matrix + row) ^ 5) + column) as u32;
                    let (g, t) = (lane / 4, lane % 4);
                    let wanted = if transposed {
                        at(2 * t, g) | at(2 * t + 1, g) << 16
                    } else {
                        at(g, 2 * t) | at(g, 2 * t + 1) << 16
                    };
                    assert_eq!(found[count * lane + matrix], wanted, "x{count}{trans} lane {lane}");
                }
            }
        }
    }
}
