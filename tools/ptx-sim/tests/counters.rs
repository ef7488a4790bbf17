//! Counters of kernels small enough to count by hand, and that they do not depend on how a launch is run.

mod support;

use ptx_sim::{Counters, Settings};
use support::{Buffer, Run, element, kernel, words};

fn count(run: &Run, ptx: &str, buffers: &[Buffer]) -> Counters {
    let (_, report) = run.run(ptx, buffers);
    report.counters
}

#[test]
fn classes_of_instructions() {
    let body = "add.u32 %r1, %t, 1; mul.f32 %f1, %f2, %f2; fma.rn.f32 %f1, %f1, %f1, %f1; add.f64 %e1, %e2, %e2; ex2.approx.f32 %f3, %f1;
         cvt.rn.f32.u32 %f4, %r1; shfl.sync.bfly.b32 %r2, %r1, 1, 31, -1; bar.sync 0; atom.global.add.u32 %r3, [%p0], 1;
         setp.lt.u32 %q1, %t, 8; @%q1 add.u32 %r1, %r1, 1; st.shared.u32 [buffer], 1; ld.shared.u32 %r4, [buffer];
         st.local.u32 [depot], 1; ld.local.u32 %r4, [depot]; st.global.u32 [%p0+32], 1; ld.global.u32 %r5, [%p0+32];";
    let declarations = ".shared .align 4 .b8 buffer[4]; .local .align 4 .b8 depot[8];";
    let counters = count(&Run::default(), &kernel(1, declarations, body), &[words([0; 16])]);
    // The frame of the test's kernel: 3 moves, a mad, a parameter load, cvta, ret.
    let wanted = Counters {
        launches: 1,
        blocks: 1,
        threads: 32,
        thread_instructions: 24 * 32 - 24,
        integer: 1 + 1 + 1 + 1,
        float: 2,
        double: 1,
        special: 1,
        conversion: 1,
        moves: 4,
        control: 1,
        global_loads: 1,
        global_stores: 1,
        shared_loads: 1,
        shared_stores: 1,
        local: 2,
        parameter: 1,
        atomics: 1,
        barriers: 1,
        exchanges: 1,
        f32_flops: 32 + 64,
        load_sectors: 1,
        load_sectors_least: 1,
        store_sectors: 2,
        store_sectors_least: 2,
        unique_load_sectors: 1,
        unique_store_sectors: 2,
        shared_wavefronts: 2,
        barriers_completed: 1,
        local_bytes: 2 * 4 * 32,
        atomic_lanes: 32,
        ..Counters::default()
    };
    assert_eq!(counters, wanted);
    assert_eq!(counters.instructions(), 17 + 7);
}

/// Loads one element of `bytes` bytes at `stride` a lane from global memory.
fn sectors(bytes: u32, stride: u32, offset: u32) -> (u64, u64, u64) {
    let load = match bytes {
        1 => "ld.global.u8 %r1",
        4 => "ld.global.u32 %r1",
        8 => "ld.global.v2.u32 {%r1, %r2}",
        _ => "ld.global.v4.u32 {%r1, %r2, %r3, %r4}",
    };
    let body = format!("{}{load}, [%d1+{offset}];", element("%d1", "%p0", "%t", stride));
    let counters = count(&Run::default(), &kernel(1, "", &body), &[words(0..2048)]);
    (counters.load_sectors, counters.load_sectors_least, counters.unique_load_sectors)
}

#[test]
fn sectors_of_global_loads() {
    assert_eq!(sectors(4, 4, 0), (4, 4, 4));
    assert_eq!(sectors(4, 4, 16), (5, 4, 5), "not aligned to a sector");
    assert_eq!(sectors(4, 8, 0), (8, 4, 8), "every other word");
    assert_eq!(sectors(4, 32, 0), (32, 4, 32), "a sector a lane");
    assert_eq!(sectors(4, 0, 0), (1, 1, 1), "all the same");
    assert_eq!(sectors(1, 1, 0), (1, 1, 1));
    assert_eq!(sectors(16, 16, 0), (16, 16, 16));
    assert_eq!(sectors(8, 64, 0), (32, 8, 32));
}

#[test]
fn sectors_once_over_a_launch() {
    // Eight blocks read the same kilobyte twice and write one word each.
    let body = format!(
        "{}ld.global.u32 %r1, [%d1]; ld.global.u32 %r2, [%d1]; add.u32 %r1, %r1, %r2; setp.eq.u32 %q1, %t, 0;
         mul.wide.u32 %d2, %r39, 4; add.s64 %d2, %p1, %d2; @%q1 st.global.u32 [%d2], %r1;",
        element("%d1", "%p0", "%t", 4)
    );
    let run = Run { grid: 8, block: 256, ..Run::default() };
    let counters = count(&run, &kernel(2, "", &body), &[words(0..256), Buffer::Unwritten(32)]);
    assert_eq!((counters.load_sectors, counters.unique_load_sectors), (8 * 2 * 32, 32));
    assert_eq!((counters.store_sectors, counters.unique_store_sectors), (8, 1));
}

/// Wavefronts and conflicts of a shared access of a vector of words at a stride in words.
fn wavefronts(vector: u32, stride: u32) -> (u64, u64) {
    let list = ["", "%t", "{%t, %t}", "", "{%t, %t, %t, %t}"][vector as usize];
    let kind = ["", "u32", "v2.u32", "", "v4.u32"][vector as usize];
    let body = format!(
        "mov.u32 %r1, buffer; mad.lo.u32 %r1, %t, {}, %r1; st.shared.{kind} [%r1], {list};",
        4 * stride
    );
    let ptx = kernel(0, ".shared .align 16 .b8 buffer[8192];", &body);
    let counters = count(&Run::default(), &ptx, &[]);
    (counters.shared_wavefronts, counters.bank_conflicts)
}

#[test]
fn bank_conflicts() {
    assert_eq!(wavefronts(1, 1), (1, 0));
    assert_eq!(wavefronts(1, 2), (2, 1));
    assert_eq!(wavefronts(1, 3), (1, 0), "odd strides are free");
    assert_eq!(wavefronts(1, 8), (8, 7));
    assert_eq!(wavefronts(1, 32), (32, 31));
    assert_eq!(wavefronts(1, 33), (1, 0), "padded");
    assert_eq!(wavefronts(1, 0), (1, 0), "one word for all");
    assert_eq!(wavefronts(2, 2), (2, 0), "half-warps");
    assert_eq!(wavefronts(4, 4), (4, 0), "quarter-warps");
    assert_eq!(wavefronts(4, 8), (8, 4));
    assert_eq!(wavefronts(2, 4), (4, 2));
}

#[test]
fn conflicts_of_matrix_rows() {
    // Eight rows of 16 bytes: free in one stretch, all in one bank group at 128 bytes a row, free again with
    // padding.
    for (pitch, passes) in [(16, 1), (32, 2), (128, 8), (144, 1)] {
        let body = format!(
            "mov.u32 %r1, buffer; mad.lo.u32 %r2, %t, {pitch}, %r1; st.shared.v4.u32 [%r2], {{0, 0, 0, 0}}; bar.sync 0;
             ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r3, %r4, %r5, %r6}}, [%r2];"
        );
        let ptx = kernel(0, ".shared .align 16 .b8 buffer[8192];", &body);
        let store = count(&Run::default(), &ptx.replace("ldmatrix", "// ldmatrix"), &[]);
        let both = count(&Run::default(), &ptx, &[]);
        assert_eq!(both.shared_wavefronts - store.shared_wavefronts, 4 * passes, "pitch {pitch}");
        assert_eq!(both.bank_conflicts - store.bank_conflicts, 4 * (passes - 1), "pitch {pitch}");
    }
}

/// A kernel with everything that could depend on order: divergence, shared memory, barriers, atomics, local
/// memory.
const MIXED: &str = "mul.wide.u32 %d1, %g, 4; add.s64 %d1, %p0, %d1; ld.global.u32 %r1, [%d1]; mov.u32 %r2, buffer;
     mad.lo.u32 %r3, %t, 4, %r2; st.shared.u32 [%r3], %r1; bar.sync 0; xor.b32 %r4, %t, 37; mad.lo.u32 %r4, %r4, 4, %r2;
     ld.shared.u32 %r5, [%r4]; and.b32 %r6, %r5, 15;
     LOOP: setp.eq.u32 %q1, %r6, 0; @%q1 bra OUT; sub.u32 %r6, %r6, 1; mad.lo.u32 %r5, %r5, 5, %r6; bra LOOP;
     OUT: st.local.u32 [depot], %r5; bar.sync 0; ld.local.u32 %r5, [depot]; red.global.add.u32 [%p1], %r5;
     shfl.sync.down.b32 %r7, %r5, 3, 31, -1; add.u32 %r5, %r5, %r7; st.global.u32 [%d1], %r5;";

#[test]
fn nothing_depends_on_threads_or_seeds() {
    let ptx = kernel(2, ".shared .align 4 .b8 buffer[512]; .local .align 4 .b8 depot[8];", MIXED);
    let mut first = None;
    for (threads, warp_seed) in [(1, 0), (2, 0), (3, 0), (1, 1), (1, 2), (2, 3), (4, 4)] {
        let settings = Settings { threads, warp_seed, ..Settings::default() };
        let run = Run { settings, grid: 20, block: 128, ..Run::default() };
        let data = words((0..2560).map(|at: u32| at.wrapping_mul(2_654_435_761)));
        let (out, report) = run.run(&ptx, &[data, words([0])]);
        support::assert_clean(&report);
        let both = (out, report.counters);
        match &first {
            None => first = Some(both),
            Some(first) => assert!(*first == both, "{threads} threads, seed {warp_seed}"),
        }
    }
}

#[test]
fn counters_add_up_and_survive_json() {
    let ptx = kernel(2, ".shared .align 4 .b8 buffer[512]; .local .align 4 .b8 depot[8];", MIXED);
    let run = Run { grid: 2, block: 128, ..Run::default() };
    let one = count(&run, &ptx, &[words(0..256), words([0])]);
    let mut sum = one.clone();
    sum += one.clone();
    sum += &Counters::default();
    for ((name, once), (_, twice)) in one.entries().into_iter().zip(sum.entries()) {
        assert_eq!(2 * once, twice, "{name}");
    }
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Counters>(&text).unwrap(), one);
}

#[test]
fn the_roofline_names_what_limits() {
    let gpu = ptx_sim::Gpu::built_in("rtx3090").unwrap();
    let with = |change: fn(&mut Counters)| {
        let mut counters = Counters { launches: 1, blocks: 1000, ..Counters::default() };
        change(&mut counters);
        gpu.predict(&counters)
    };
    let dram = with(|c| c.unique_load_sectors = 29_250_000);
    assert_eq!(dram.limit, "DRAM");
    assert!((dram.seconds - 1e-3).abs() < 1e-9);
    assert_eq!(with(|c| c.mma_flops = 1 << 40).limit, "tensor cores");
    assert_eq!(with(|c| c.integer = 1 << 40).limit, "instruction issue");
    assert_eq!(with(|c| c.shared_wavefronts = 1 << 40).limit, "shared memory");
    // One block keeps one multiprocessor busy.
    let few = Counters { launches: 1, blocks: 1, integer: 4_000_000, ..Counters::default() };
    let seconds = gpu.predict(&few).seconds;
    assert!((seconds - 1e6 / gpu.clock_hz).abs() < 1e-9, "{seconds}");
}
