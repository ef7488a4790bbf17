//! How fast the interpreter is. `cargo test -p ptx-sim --release --test speed -- --ignored --nocapture`

mod support;

use std::time::Instant;

use ptx_sim::Settings;
use support::{Buffer, Run, assert_clean, element, kernel, words};

/// Runs a kernel a few times and prints the best rate.
fn rate(name: &str, run: &Run, ptx: &str, buffers: impl Fn() -> Vec<Buffer>) {
    let mut best = f64::INFINITY;
    let mut instructions = 0;
    for _ in 0..5 {
        let buffers = buffers();
        let start = Instant::now();
        let (_, report) = run.run(ptx, &buffers);
        best = best.min(start.elapsed().as_secs_f64());
        assert_clean(&report);
        instructions = report.counters.instructions();
    }
    println!("{name:<40} {:6.1} M warp instructions a second", instructions as f64 / best / 1e6);
}

#[test]
#[ignore = "prints timings"]
fn warp_instructions_a_second() {
    let alu = format!(
        "mov.u32 %r1, %g; mov.u32 %r2, 12345; mov.u32 %r4, 0; cvt.rn.f32.u32 %f1, %g;
         L: mad.lo.u32 %r1, %r1, 1664525, 1013904223; shr.u32 %r3, %r1, 7; xor.b32 %r2, %r2, %r3; and.b32 %r3, %r1, 0xff00ff;
         add.u32 %r2, %r2, %r3; fma.rn.f32 %f1, %f1, 0f3F7FBE77, 0f3F000000; mul.f32 %f2, %f1, %f1; add.f32 %f1, %f2, %f1;
         min.f32 %f1, %f1, 0f42C80000; shl.b32 %r3, %r2, 3; xor.b32 %r1, %r1, %r3; add.u32 %r4, %r4, 1;
         setp.lt.u32 %q1, %r4, 10000; @%q1 bra L; cvt.rzi.u32.f32 %r5, %f1; add.u32 %r1, %r1, %r5;
         {}st.global.u32 [%d1], %r1;",
        element("%d1", "%p0", "%g", 4)
    );
    for threads in [1, 2] {
        let settings = Settings { threads, ..Settings::default() };
        let run = Run { settings, grid: 16, block: 128, ..Run::default() };
        let name = format!("integer and f32, {threads} host threads");
        rate(&name, &run, &kernel(1, "", &alu), || vec![Buffer::Unwritten(4 * 128 * 16)]);
    }
    let copy = format!(
        "{}{}ld.global.u32 %r1, [%d1]; st.global.u32 [%d2], %r1;",
        element("%d1", "%p0", "%g", 4),
        element("%d2", "%p1", "%g", 4)
    );
    let count = 1 << 20;
    let run = Run { grid: count / 256, block: 256, ..Run::default() };
    rate("copy of 4 MB, 15 instructions a warp", &run, &kernel(2, "", &copy), || {
        vec![words(0..count), Buffer::Unwritten(4 * count as usize)]
    });
    let shared = "mov.u32 %r1, buffer; mad.lo.u32 %r1, %t, 4, %r1; st.shared.u32 [%r1], %t; mov.u32 %r4, 0; xor.b32 %r2, %r1, 64;
         L: bar.sync 0; ld.shared.u32 %r3, [%r1]; add.u32 %r3, %r3, 1; st.shared.u32 [%r1], %r3; add.u32 %r4, %r4, 1;
         setp.lt.u32 %q1, %r4, 2000; @%q1 bra L;";
    let run = Run { grid: 16, block: 128, ..Run::default() };
    rate(
        "shared memory and barriers",
        &run,
        &kernel(0, ".shared .align 4 .b8 buffer[1024];", shared),
        Vec::new,
    );
    let mma = "mov.u32 %r30, 0; mov.u32 %r1, 0x3f803f80; mov.u32 %r2, %r1; mov.u32 %r3, %r1; mov.u32 %r4, %r1; mov.u32 %r5, %r1; mov.u32 %r6, %r1;
         L: mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1, %f2, %f3, %f4}, {%r1, %r2, %r3, %r4}, {%r5, %r6}, {%f1, %f2, %f3, %f4};
         add.u32 %r30, %r30, 1; setp.lt.u32 %q1, %r30, 5000; @%q1 bra L;";
    rate("mma.m16n8k16, one in four", &run, &kernel(0, "", mma), Vec::new);
}
