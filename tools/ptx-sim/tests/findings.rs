//! One planted defect of each kind is found, where it is; without it the kernel is clean.

mod support;

use ptx_sim::{Finding, FindingKind, Report, Settings};
use support::{Buffer, Run, assert_clean, element, kernel, line_of, only, words};

/// Runs a body with and without its defect: the text between `<<` and `>>` is the defect, between `[[` and
/// `]]` the cure.
struct Planted<'a> {
    run: Run,
    pointers: usize,
    declarations: &'a str,
    body: &'a str,
}

fn keep(text: &str, open: &str, close: &str, inside: bool) -> String {
    let mut rest = text;
    let mut out = String::new();
    while let Some((before, after)) = rest.split_once(open) {
        let (part, after) = after.split_once(close).unwrap();
        out += before;
        if inside {
            out += part;
        }
        rest = after;
    }
    out + rest
}

impl Planted<'_> {
    fn text(&self, broken: bool) -> String {
        let body = keep(&keep(self.body, "<<", ">>", broken), "[[", "]]", !broken);
        kernel(self.pointers, self.declarations, &body)
    }

    /// The finding of the broken kernel, whose line must contain `at`.
    fn found(&self, kind: FindingKind, at: &str, buffers: impl Fn() -> Vec<Buffer>) -> Finding {
        let (_, clean) = self.run.run(&self.text(false), &buffers());
        assert_clean(&clean);
        let ptx = self.text(true);
        let (_, report): (_, Report) = self.run.run(&ptx, &buffers());
        only(&report, kind);
        // Either end of a race may be the later one, so it may be found at both.
        let line = line_of(&ptx, at);
        let list: Vec<_> = report.findings.iter().map(ToString::to_string).collect();
        let finding = report.findings.iter().find(|finding| finding.ptx_line == line);
        let finding =
            finding.unwrap_or_else(|| panic!("nothing at line {line}: {}", list.join("\n"))).clone();
        assert_eq!(finding.kernel, "k");
        assert!(!finding.message.contains('\n'));
        assert!(report.findings_total >= report.findings.len() as u64);
        finding
    }
}

fn planted<'a>(block: u32, grid: u32, pointers: usize, declarations: &'a str, body: &'a str) -> Planted<'a> {
    Planted { run: Run { block, grid, ..Run::default() }, pointers, declarations, body }
}

#[test]
fn out_of_bounds() {
    let body = "[[setp.ge.u32 %q1, %g, 100; @%q1 bra END;]]
                mul.wide.u32 %d1, %g, 4; add.s64 %d1, %p0, %d1;
                st.global.u32 [%d1], %g; // here
                END:";
    let finding = planted(64, 2, 1, "", body)
        .found(FindingKind::OutOfBounds, "// here", || vec![Buffer::Unwritten(400)]);
    assert_eq!((finding.block, finding.thread, finding.times), ([1, 0, 0], [36, 0, 0], 28));
    assert!(finding.message.contains("0 bytes past the end of \"buffer 0\" (400 bytes)"), "{finding}");
    assert_eq!(finding.address.unwrap() % 256, 400 % 256);
}

#[test]
fn addresses_that_are_nowhere() {
    for (address, body) in [
        ("0", "mov.u64 %d1, 0; [[add.s64 %d1, %d1, %p0;]]"),
        ("-1", "mov.u64 %d1, -16; [[mov.u64 %d1, %p0;]]"),
        ("before", "[[add.s64 %p0, %p0, 16;]] add.s64 %d1, %p0, -16;"),
    ] {
        let body = format!("{body}\nld.global.u32 %r1, [%d1]; // here\n");
        let finding =
            planted(32, 1, 1, "", &body).found(FindingKind::OutOfBounds, "// here", || vec![words(0..8)]);
        assert_eq!(finding.times, 32, "{address}");
    }
}

#[test]
fn shared_local_and_parameters_out_of_bounds() {
    let body = "mov.u32 %r1, buffer; shl.b32 %r2, %t, 2; add.u32 %r1, %r1, %r2;
                <<add.u32 %r1, %r1, 4;>>
                st.shared.u32 [%r1], 1; // here\n";
    let finding = planted(32, 1, 0, ".shared .align 4 .b8 buffer[128];", body).found(
        FindingKind::OutOfBounds,
        "// here",
        Vec::new,
    );
    assert_eq!((finding.thread, finding.times), ([31, 0, 0], 1));
    let body = "<<add.u32 %r2, %t, 1;>> [[mov.u32 %r2, 1;]] mul.wide.u32 %d1, %r2, 4; mov.u64 %d2, depot; add.u64 %d2, %d2, %d1;
                st.local.u32 [%d2], 1; // here\n";
    let finding = planted(32, 1, 0, ".local .align 4 .b8 depot[64];", body).found(
        FindingKind::OutOfBounds,
        "// here",
        Vec::new,
    );
    assert_eq!((finding.thread, finding.times), ([15, 0, 0], 17));
    let body = "mov.b64 %d1, p0; <<add.u64 %d1, %d1, 8;>>
                ld.param.u64 %d2, [%d1]; // here\n";
    planted(32, 1, 1, "", body).found(FindingKind::OutOfBounds, "// here", || vec![words(0..8)]);
}

/// From one shared array into the next, by every kind of access.
#[test]
fn neighbours_in_shared_memory() {
    const TWO: &str = ".shared .align 16 .b8 first[128];\n.shared .align 16 .b8 second[128];";
    let start = "mov.u32 %r1, first; mov.u32 %r2, second; shl.b32 %r3, %t, 2; add.u32 %r1, %r1, %r3; add.u32 %r2, %r2, %r3;
                 st.shared.u32 [%r1], %t; st.shared.u32 [%r2], %t; bar.sync 0;\n";
    let accesses = [
        "ld.shared.u32 %r4, [%r1];",
        "st.shared.u32 [%r1], 1;",
        "ld.shared.u8 %r4, [%r1];",
        "atom.shared.add.u32 %r4, [%r1], 1;",
        "cvt.u64.u32 %d1, %r1; cvta.shared.u64 %d1, %d1; ld.u32 %r4, [%d1];",
    ];
    for access in accesses {
        let body = format!("{start}<<add.u32 %r1, %r1, 64;>>\n{access} // here\n");
        let finding = planted(32, 1, 0, TWO, &body).found(FindingKind::OutOfBounds, "// here", Vec::new);
        assert_eq!((finding.thread, finding.times), ([16, 0, 0], 16), "{access}");
        assert!(finding.message.contains("shared memory at 0 bytes past the end of \"first\""), "{finding}");
    }
    let copy = "mov.u32 %r1, first; <<add.u32 %r1, %r1, 64;>> shl.b32 %r3, %t, 4; add.u32 %r1, %r1, %r3;
                cvt.u64.u32 %d1, %r3; add.s64 %d1, %p0, %d1;
                cp.async.cg.shared.global [%r1], [%d1], 16; // here
                cp.async.wait_all;";
    let finding =
        planted(8, 1, 1, TWO, copy).found(FindingKind::OutOfBounds, "// here", || vec![words(0..32)]);
    assert_eq!((finding.thread, finding.times), ([4, 0, 0], 4));
    // The dynamic part is a neighbour too, and the bytes that alignment leaves free are nobody's.
    let dynamic = "mov.u32 %r1, first; <<add.u32 %r1, %r1, 128;>> st.shared.u32 [%r1], 1; // here\n";
    let mut planted_here = planted(1, 1, 0, ".shared .align 16 .b8 first[128];", dynamic);
    planted_here.run.shared = 256;
    planted_here.found(FindingKind::OutOfBounds, "// here", Vec::new);
    let between = "mov.u32 %r1, first; <<add.u32 %r1, %r1, 1;>> st.shared.u8 [%r1+5], 1; // here\n";
    let odd = ".shared .align 16 .b8 first[6];\n.shared .align 16 .b8 second[16];";
    let odd = planted(1, 1, 0, odd, &format!("mov.u32 %r2, second; {between}")).found(
        FindingKind::OutOfBounds,
        "// here",
        Vec::new,
    );
    assert!(odd.message.contains("0 bytes past the end of \"first\""), "{odd}");
}

/// Where arrays lie apart here, banks are those of a GPU all the same, and so are sizes.
#[test]
fn gaps_change_no_counter() {
    // 100 bytes, 128-byte alignment none: words of both arrays share banks as they would side by side.
    let two = ".shared .align 4 .b8 first[100];\n.shared .align 4 .b8 second[100];";
    let one = ".shared .align 4 .b8 first[200];";
    let body = |second: &str| {
        format!(
            "mov.u32 %r1, first; mov.u32 %r2, {second}; and.b32 %r3, %t, 1; setp.eq.u32 %q1, %r3, 0; selp.b32 %r1, %r1, %r2, %q1;
             shr.u32 %r3, %t, 1; shl.b32 %r3, %r3, 2; add.u32 %r1, %r1, %r3; st.shared.u32 [%r1], %t;
             mov.u32 %r4, %total_smem_size; mov.u32 %r5, %dynamic_smem_size;
             {}st.global.v2.u32 [%d1], {{%r4, %r5}};",
            element("%d1", "%p0", "%t", 8)
        )
    };
    let run = |declarations: &str, second: &str| {
        let run = Run { shared: 48, ..Run::default() };
        let (out, report) = run.run(&kernel(1, declarations, &body(second)), &[Buffer::Unwritten(256)]);
        assert_clean(&report);
        (support::as_words(&out[0])[..2].to_vec(), report.counters)
    };
    let (apart, together) = (run(two, "second"), run(one, "first+100"));
    assert_eq!(apart, together);
    assert_eq!(apart.0, [208 + 48, 48]);
}

#[test]
fn misaligned() {
    let body = "mul.wide.u32 %d1, %t, 16; add.s64 %d1, %p0, %d1; <<add.s64 %d1, %d1, 4;>>
                ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d1]; // here\n";
    let finding =
        planted(16, 1, 1, "", body).found(FindingKind::Misaligned, "// here", || vec![words(0..128)]);
    assert_eq!(finding.times, 16);
}

#[test]
fn uninitialised_bytes() {
    // Of each word one byte is missing.
    let body =
        "mul.wide.u32 %d1, %t, 4; add.s64 %d1, %p0, %d1; st.global.u16 [%d1], 5; st.global.u8 [%d1+2], 5;
                [[st.global.u8 [%d1+3], 5;]]
                ld.global.u8 %r1, [%d1+2]; ld.global.u32 %r1, [%d1]; // here\n";
    let finding = planted(32, 1, 1, "", body)
        .found(FindingKind::Uninitialised, "// here", || vec![Buffer::Unwritten(128)]);
    assert_eq!((finding.times, finding.thread), (32, [0, 0, 0]));
    let body = "mov.u32 %r1, buffer; shl.b32 %r2, %t, 2; add.u32 %r1, %r1, %r2; setp.lt.u32 %q1, %t, 31;
                <<@%q1>> st.shared.u32 [%r1], 1; ld.shared.u32 %r3, [%r1]; // here\n";
    let finding = planted(32, 1, 0, ".shared .align 4 .b8 buffer[128];", body).found(
        FindingKind::Uninitialised,
        "// here",
        Vec::new,
    );
    assert_eq!((finding.thread, finding.address), ([31, 0, 0], Some(124)));
    assert!(finding.message.contains("\"buffer\" byte 124"), "{finding}");
    let body = "[[st.local.u32 [depot+4], 1;]] ld.local.u32 %r1, [depot+4]; // here\n";
    planted(32, 1, 0, ".local .align 4 .b8 depot[64];", body).found(
        FindingKind::Uninitialised,
        "// here",
        Vec::new,
    );
    let body = "[[st.global.u32 [%p0], 0;]] red.global.add.u32 [%p0], 1; // here\n";
    planted(1, 1, 1, "", body).found(FindingKind::Uninitialised, "// here", || vec![Buffer::Unwritten(4)]);
}

#[test]
fn shared_races() {
    let declarations = ".shared .align 4 .b8 buffer[512];";
    let read_after_write =
        "mov.u32 %r1, buffer; shl.b32 %r2, %t, 2; add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %t;
         [[bar.sync 0;]]
         xor.b32 %r4, %r2, 128; add.u32 %r4, %r1, %r4; // other warp
         ld.shared.u32 %r5, [%r4]; // here\n";
    for seed in [0, 1, 2, 3] {
        let mut planted = planted(128, 1, 0, declarations, read_after_write);
        planted.run.settings.warp_seed = seed;
        let ptx = planted.text(true);
        let (_, report) = planted.run.run(&ptx, &[]);
        // With some orders a warp also reads what nobody wrote yet.
        assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::SharedRace), "seed {seed}");
        assert_clean(&planted.run.run(&planted.text(false), &[]).1);
    }
    let write_after_read =
        "mov.u32 %r1, buffer; shl.b32 %r2, %t, 2; add.u32 %r3, %r1, %r2; st.shared.u32 [%r3], %t;
         bar.sync 0;
         xor.b32 %r4, %r2, 128; add.u32 %r4, %r1, %r4; ld.shared.u32 %r5, [%r4];
         [[bar.sync 0;]]
         st.shared.u32 [%r3], %r5; // here\n";
    let finding = planted(128, 1, 0, declarations, write_after_read).found(
        FindingKind::SharedRace,
        "// here",
        Vec::new,
    );
    assert!(finding.message.contains("which warp 0 read"), "{finding}");
    assert_eq!(finding.thread, [32, 0, 0]);
    // The same bytes only: neighbours in one word are no race.
    let bytes = "mov.u32 %r1, buffer; add.u32 %r3, %r1, %t; mul.lo.u32 %r4, %t, 4; shr.u32 %r5, %t, 5; and.b32 %r4, %r4, 124;
         add.u32 %r4, %r4, %r5; add.u32 %r4, %r1, %r4; <<mov.u32 %r4, %r1;>>
         st.shared.u8 [%r4], %t; // here\n";
    planted(128, 1, 0, declarations, bytes).found(FindingKind::SharedRace, "// here", Vec::new);
    // Two lanes of one store.
    let lanes = "mov.u32 %r1, buffer; and.b32 %r2, %t, 15; shl.b32 %r3, %r2, 2; add.u32 %r1, %r1, %r3; <<mov.u32 %r2, %t;>>
         st.shared.u32 [%r1], %r2; // here\n";
    let finding = planted(32, 1, 0, declarations, lanes).found(FindingKind::SharedRace, "// here", Vec::new);
    assert_eq!((finding.times, finding.thread), (16, [16, 0, 0]));
    // Atomics among themselves are no race, with a plain store they are.
    let atomics = "setp.eq.u32 %q1, %t, 0; @%q1 st.shared.u32 [buffer], 0; bar.sync 0; atom.shared.add.u32 %r1, [buffer], 1;
         [[bar.sync 0;]]
         setp.eq.u32 %q2, %t, 127; @%q2 st.shared.u32 [buffer], 1; // here\n";
    planted(128, 1, 0, declarations, atomics).found(FindingKind::SharedRace, "// here", Vec::new);
}

#[test]
fn barriers_for_some_warps() {
    // Producer and consumer with named barriers: one arrives, the other waits.
    let body = "setp.lt.u32 %q1, %t, 32; @%q1 bra PRODUCER;
         <<bra SKIP;>> bar.sync 1, 64; SKIP: sub.u32 %r2, %t, 32; shl.b32 %r2, %r2, 2; mov.u32 %r1, buffer; add.u32 %r1, %r1, %r2;
         ld.shared.u32 %r3, [%r1]; // here
         bra DONE;
         PRODUCER: shl.b32 %r2, %t, 2; mov.u32 %r1, buffer; add.u32 %r1, %r1, %r2; st.shared.u32 [%r1], %t;
         bar.arrive 1, 64;
         DONE:";
    let finding = planted(64, 1, 0, ".shared .align 4 .b8 buffer[128];", body).found(
        FindingKind::SharedRace,
        "// here",
        Vec::new,
    );
    assert_eq!(finding.thread, [32, 0, 0]);
}

#[test]
fn copies_read_too_early() {
    let declarations = ".shared .align 16 .b8 buffer[1024];";
    let pending = "mov.u32 %r1, buffer; shl.b32 %r2, %t, 4; add.u32 %r3, %r1, %r2; mul.wide.u32 %d1, %t, 16; add.s64 %d1, %p0, %d1;
         cp.async.cg.shared.global [%r3], [%d1], 16; cp.async.commit_group;
         [[cp.async.wait_group 0;]] <<cp.async.wait_group 1;>> bar.sync 0;
         xor.b32 %r4, %r3, 16; ld.shared.u32 %r5, [%r4]; // here\n";
    let buffers = || vec![words(0..256)];
    planted(64, 1, 1, declarations, pending).found(FindingKind::PendingCopy, "// here", buffers);
    // Waited for, but other warps' copies are only there after the barrier.
    let race = "mov.u32 %r1, buffer; shl.b32 %r2, %t, 4; add.u32 %r3, %r1, %r2; mul.wide.u32 %d1, %t, 16; add.s64 %d1, %p0, %d1;
         cp.async.cg.shared.global [%r3], [%d1], 16; cp.async.wait_all; [[bar.sync 0;]]
         xor.b32 %r4, %r2, 512; add.u32 %r4, %r1, %r4; setp.lt.u32 %q1, %t, 32; @%q1 bra END;
         ld.shared.u32 %r5, [%r4]; // here
         END:";
    planted(64, 1, 1, declarations, race).found(FindingKind::SharedRace, "// here", buffers);
    // The next copy into a buffer that another warp may still read.
    let refill = "mov.u32 %r1, buffer; shl.b32 %r2, %t, 4; add.u32 %r3, %r1, %r2; mul.wide.u32 %d1, %t, 16; add.s64 %d1, %p0, %d1;
         cp.async.cg.shared.global [%r3], [%d1], 16; cp.async.wait_all; bar.sync 0;
         xor.b32 %r4, %r2, 512; add.u32 %r4, %r1, %r4; ld.shared.u32 %r5, [%r4]; [[bar.sync 0;]]
         cp.async.cg.shared.global [%r3], [%d1], 16; // here
         cp.async.wait_all;";
    planted(64, 1, 1, declarations, refill).found(FindingKind::SharedRace, "// here", buffers);
}

#[test]
fn races_on_global_memory_within_a_block() {
    let body = "mul.wide.u32 %d1, %t, 4; add.s64 %d1, %p0, %d1; st.global.u32 [%d1], %t; [[bar.sync 0;]]
         xor.b32 %r1, %t, 32; mul.wide.u32 %d2, %r1, 4; add.s64 %d2, %p0, %d2; setp.lt.u32 %q1, %t, 32; @%q1 bra END;
         ld.global.u32 %r2, [%d2]; // here
         END:";
    let finding = planted(64, 1, 1, "", body)
        .found(FindingKind::GlobalRace, "// here", || vec![Buffer::Unwritten(256)]);
    assert_eq!((finding.thread, finding.times), ([32, 0, 0], 32));
    assert!(finding.message.contains("warp 1 reads \"buffer 0\" at byte 0, which warp 0 wrote"), "{finding}");
}

#[test]
fn races_between_blocks() {
    let body = "mov.u32 %r1, %g; <<mov.u32 %r1, %t;>> mul.wide.u32 %d1, %r1, 4; add.s64 %d1, %p0, %d1;
         st.global.u32 [%d1], %g; // here\n";
    let finding =
        planted(32, 4, 1, "", body).found(FindingKind::BlockRace, "// here", || vec![Buffer::Unwritten(512)]);
    assert_eq!((finding.block, finding.times), ([1, 0, 0], 96));
    assert!(
        finding
            .message
            .contains("block [1, 0, 0] writes \"buffer 0\" at byte 0, which block [0, 0, 0] wrote")
    );
    // Read by others: a stencil in place.
    let body = "add.u32 %r1, %g, <<1>>[[0]]; mul.wide.u32 %d2, %r1, 4; add.s64 %d2, %p0, %d2; ld.global.u32 %r2, [%d2]; bar.warp.sync -1;
         mul.wide.u32 %d1, %g, 4; add.s64 %d1, %p0, %d1; st.global.u32 [%d1], %r2; // here\n";
    planted(32, 4, 1, "", body).found(FindingKind::BlockRace, "// here", || vec![words(0..129)]);
    // Atomics may meet, a plain read of what they count may not.
    let body = "red.global.add.u32 [%p0], 1; <<bar.warp.sync -1; ld.global.u32 %r1, [%p0]; // here>>\n";
    planted(32, 4, 1, "", body).found(FindingKind::BlockRace, "// here", || vec![words([0])]);
}

/// Each block writes a partial result and counts itself; the last one adds all up.
const LAST_BLOCK: &str = "setp.ne.u32 %q1, %t, 0; @%q1 bra WAIT;
     mul.wide.u32 %d1, %r39, 4; add.s64 %d1, %p0, %d1; st.global.u32 [%d1], %r39; [[membar.gl;]]
     atom.global.add.u32 %r1, [%p1], 1; st.shared.u32 [ticket], %r1;
     WAIT: bar.sync 0; ld.shared.u32 %r2, [ticket]; mov.u32 %r3, %nctaid.x; sub.u32 %r3, %r3, 1;
     setp.ne.u32 %q2, %r2, %r3; @%q2 bra END; setp.gt.u32 %q3, %t, %r3; @%q3 bra END;
     mul.wide.u32 %d2, %t, 4; add.s64 %d2, %p0, %d2;
     ld.global.u32 %r4, [%d2]; // here
     red.global.add.u32 [%p1+4], %r4;
     END:";

#[test]
fn the_last_block_may_read_what_the_others_published() {
    for (threads, seed) in [(1, 0), (1, 7), (2, 0), (2, 7)] {
        let mut planted = planted(64, 32, 2, ".shared .align 4 .b8 ticket[4];", LAST_BLOCK);
        planted.run.settings = Settings { threads, warp_seed: seed, ..Settings::default() };
        let buffers = || vec![Buffer::Unwritten(128), words([0, 0])];
        let finding = planted.found(FindingKind::BlockRace, "// here", buffers);
        assert!(finding.message.contains("reads \"buffer 0\""));
        let out = planted.run.clean(&planted.text(false), &buffers());
        assert_eq!(support::as_words(&out[1]), [32, 496]);
    }
}

/// Waits for all blocks: the counter behind %p1 reaches a multiple of their number.
fn grid_barrier(name: &str) -> String {
    format!(
        "bar.sync 0; setp.ne.u32 %q1, %t, 0; @%q1 bra MEET{name};
         add.u32 %r20, %r20, %r3; membar.gl; atom.global.add.u32 %r1, [%p1], 1;
         SPIN{name}: ld.acquire.gpu.global.u32 %r2, [%p1]; setp.lt.u32 %q2, %r2, %r20; @%q2 bra SPIN{name};
         MEET{name}: bar.sync 0;\n"
    )
}

/// Three times: each block reads its neighbour's value and, after all have, writes it down as its own.
fn rotation() -> String {
    format!(
        "mul.wide.u32 %d1, %g, 4; add.s64 %d1, %p0, %d1; st.global.u32 [%d1], %g; mov.u32 %r20, 0; mov.u32 %r21, 0; mov.u32 %r3, %nctaid.x;
         ROUND: {}
         add.u32 %r5, %r39, 1; rem.u32 %r5, %r5, %r3; mad.lo.u32 %r5, %r5, %r38, %t; mul.wide.u32 %d2, %r5, 4; add.s64 %d2, %p0, %d2;
         ld.global.u32 %r6, [%d2]; [[{}]]
         st.global.u32 [%d1], %r6; // here
         add.u32 %r21, %r21, 1; setp.lt.u32 %q3, %r21, 3; @%q3 bra ROUND;",
        grid_barrier("A"),
        grid_barrier("B")
    )
}

#[test]
fn grid_barriers_order_blocks() {
    for seed in [0, 5] {
        let body = rotation();
        let mut planted = planted(64, 6, 2, "", &body);
        planted.run.cooperative = true;
        planted.run.settings.warp_seed = seed;
        let finding = planted
            .found(FindingKind::BlockRace, "// here", || vec![Buffer::Unwritten(4 * 64 * 6), words([0])]);
        assert!(finding.message.contains("writes \"buffer 0\""), "{finding}");
        let out = planted.run.clean(&planted.text(false), &[Buffer::Unwritten(4 * 64 * 6), words([0])]);
        assert_eq!(support::as_words(&out[0])[..3], [192, 193, 194]);
    }
}

#[test]
fn divergent_barriers() {
    let body = "<<setp.lt.u32 %q1, %t, 40; @%q1 bra END;>> [[setp.lt.u32 %q1, %t, 0; @%q1 bra END;]]
         bar.sync 0; // here
         END: add.u32 %r1, %r1, 1;";
    let finding = planted(64, 1, 0, "", body).found(FindingKind::DivergentBarrier, "// here", Vec::new);
    assert_eq!(finding.thread, [40, 0, 0]);
    assert!(finding.message.contains("0xffffff00"), "{finding}");
    // Different barriers.
    let body = "shr.u32 %r1, %t, 5; [[mov.u32 %r1, 0;]]
         bar.sync %r1; // here\n";
    let finding = planted(64, 1, 0, "", body).found(FindingKind::DivergentBarrier, "// here", Vec::new);
    assert!(finding.message.contains("warp 0 at barrier 0, warp 1 at barrier 1"), "{finding}");
}

#[test]
fn warp_instructions_without_their_members() {
    let body = "mov.u32 %r2, 0; setp.lt.u32 %q1, %t, 16; @%q1 bra LOW; bra END;
         LOW: shfl.sync.bfly.b32 %r2, %t, 1, 31, <<-1>>[[0xffff]]; // here
         END: add.u32 %r3, %r2, 1;";
    let finding = planted(32, 1, 0, "", body).found(FindingKind::DivergentWarp, "// here", Vec::new);
    assert!(finding.message.contains("0x0000ffff"), "{finding}");
    let body = "setp.lt.u32 %q1, %t, 16; <<@%q1 bra LOW; bra END;>>
         LOW: bar.warp.sync -1; // here
         END: add.u32 %r3, %r2, 1;";
    planted(32, 1, 0, "", body).found(FindingKind::DivergentWarp, "// here", Vec::new);
    // Lanes that exited are not waited for.
    let body =
        "setp.lt.u32 %q1, %t, 16; @%q1 exit; shfl.sync.bfly.b32 %r2, %t, 1, 31, <<0xffff>>[[-1]]; // here\n";
    planted(32, 1, 0, "", body).found(FindingKind::DivergentWarp, "// here", Vec::new);
}

#[test]
fn waits_that_never_end() {
    // Nobody sets the flag.
    let body = "<<bra SPIN;>> atom.global.exch.b32 %r1, [%p0], 1;
         SPIN: ld.volatile.global.u32 %r2, [%p0]; // here
         setp.eq.u32 %q1, %r2, 0; @%q1 bra SPIN;";
    for cooperative in [false, true] {
        let mut planted = planted(32, 2, 1, "", body);
        planted.run.cooperative = cooperative;
        let ptx = planted.text(true);
        let (_, report) = planted.run.run(&ptx, &[words([0])]);
        let finding = only(&report, FindingKind::NeverEnds);
        let line = line_of(&ptx, "// here");
        assert!((line..line + 2).contains(&finding.ptx_line), "{finding}");
        assert_clean(&planted.run.run(&planted.text(false), &[words([0])]).1);
    }
    // A loop without memory runs into the budget.
    let body = "mov.u32 %r1, 0; L: add.u32 %r1, %r1, <<0>>[[1]]; setp.lt.u32 %q1, %r1, 100; @%q1 bra L;";
    let mut planted = planted(32, 1, 0, "", body);
    planted.run.settings.max_instructions = 100_000;
    let (_, report) = planted.run.run(&planted.text(true), &[]);
    assert!(only(&report, FindingKind::NeverEnds).message.contains("budget"));
    assert!(report.counters.instructions() < 110_000);
    assert_clean(&planted.run.run(&planted.text(false), &[]).1);
    // A block that waits for a later one, in a launch that does not promise it runs.
    let body = "setp.ne.u32 %q1, %r39, 0; @%q1 bra SET; SPIN: ld.acquire.gpu.global.u32 %r2, [%p0]; setp.eq.u32 %q2, %r2, 0; @%q2 bra SPIN;
         bra END; SET: st.release.gpu.global.u32 [%p0], 1; END:";
    let run = |cooperative| Run { grid: 2, cooperative, ..Run::default() };
    let ptx = kernel(1, "", body);
    let (_, report) = run(false).run(&ptx, &[words([0])]);
    assert!(only(&report, FindingKind::NeverEnds).message.contains("not cooperative"));
    assert_clean(&run(true).run(&ptx, &[words([0])]).1);
}

#[test]
fn warps_that_wait_for_each_other_in_memory() {
    // Warp 0 spins on what warp 1 writes: turns let it happen.
    let body = "setp.lt.u32 %q1, %t, 32; @!%q1 bra SET; SPIN: ld.volatile.shared.u32 %r2, [flag]; setp.eq.u32 %q2, %r2, 0; @%q2 bra SPIN;
         bra END; SET: st.volatile.shared.u32 [flag], 1; END:";
    let first = "setp.eq.u32 %q3, %t, 0; @%q3 st.shared.u32 [flag], 0; bar.sync 0;";
    let ptx = kernel(0, ".shared .align 4 .b8 flag[4];", &format!("{first}\n{body}"));
    assert_clean(&Run { block: 64, ..Run::default() }.run(&ptx, &[]).1);
}

#[test]
fn traps() {
    let body = "setp.eq.u32 %q1, %g, 35; <<@%q1 trap; // here>>\n";
    let finding = planted(32, 2, 0, "", body).found(FindingKind::Trap, "// here", Vec::new);
    assert_eq!((finding.block, finding.thread), ([1, 0, 0], [3, 0, 0]));
}

#[test]
fn findings_name_the_source_line_and_are_limited() {
    let body: String = (0..30)
        .map(|at| format!(".loc 1 {} 5\nst.global.u32 [%p0+{}], 1;\n", 100 + at, 4096 * (at + 1)))
        .collect();
    let ptx = kernel(1, "", &body) + ".file 1 \"kernels/some.cu\"\n";
    let (_, report) = Run::default().run(&ptx, &[words([0])]);
    assert_eq!((report.findings.len(), report.findings_total), (20, 30 * 32));
    let source = report.findings[3].source.as_ref().unwrap();
    assert_eq!((source.file.as_str(), source.line), ("kernels/some.cu", 103));
    assert!(report.findings[3].to_string().contains("kernels/some.cu:103"));
    let run = Run { settings: Settings { max_findings: 2, ..Settings::default() }, ..Run::default() };
    assert_eq!(run.run(&ptx, &[words([0])]).1.findings.len(), 2);
}

#[test]
fn a_freed_buffer_is_named() {
    let ptx = kernel(1, "", &format!("{}ld.global.u32 %r1, [%d1];", element("%d1", "%p0", "%t", 4)));
    let program = ptx_sim::Program::parse(&ptx).unwrap();
    let mut machine = ptx_sim::Machine::new(Settings::default());
    let gone = machine.allocate(128, "gone");
    machine.fill(gone, 128, 0).unwrap();
    machine.free(gone).unwrap();
    let launch = ptx_sim::Launch {
        grid: [1; 3],
        block: [32, 1, 1],
        shared_bytes: 0,
        cooperative: false,
        arguments: &gone.to_le_bytes(),
    };
    let report = machine.launch(&program, "k", &launch).unwrap();
    assert!(only(&report, FindingKind::OutOfBounds).message.contains("\"gone\", which was freed"));
}
