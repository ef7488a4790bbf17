//! `ldmatrix` and `stmatrix`. The layouts are written down here as the PTX ISA gives them; `products.rs` has
//! those of `mma`.

mod support;

use support::{Buffer, Run, as_words, element, kernel};

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
