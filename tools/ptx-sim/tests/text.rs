//! Text that is wrong: one line that says where and what, never a panic.

mod support;

use proptest::prelude::*;
use ptx_sim::{Launch, Machine, Program, Settings};
use support::{HEAD, kernel, line_of};

fn error(ptx: &str) -> String {
    let error = match Program::parse(ptx) {
        Err(error) => error,
        Ok(program) => {
            let wrong = program.kernels().find_map(|name| program.unsupported(name));
            wrong.unwrap_or_else(|| panic!("nothing is wrong with {ptx}")).clone()
        }
    };
    let error = error.to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

#[test]
fn unknown_instructions_and_modifiers_are_named() {
    for (line, wanted) in [
        ("wgmma.fence.sync.aligned;", "wgmma.fence.sync.aligned"),
        ("ld.global.L2::cache_hint.u32 %r1, [%p0], %d1;", "ld.global"),
        ("ld.global.sideways.u32 %r1, [%p0];", "modifier .sideways"),
        ("add.rx.f32 %f1, %f1, %f1;", "add.rx.f32"),
        ("add.u32 %r1, %r2;", "operands"),
        ("add.u32 %d1, %r2, %r3;", "%d1"),
        ("add.u32 %r1, %unknown, %r3;", "%unknown"),
        ("bra NOWHERE;", "NOWHERE"),
        ("cp.async.bulk.commit_group;", "cp.async.bulk"),
        (
            "mma.sync.aligned.m16n8k24.row.col.f32.f16.f16.f32 {%r1,%r2,%r3,%r4},{%r1,%r2,%r3,%r4},{%r1,%r2},{%r1,%r2,%r3,%r4};",
            "mma",
        ),
        ("call (%r1), printf, (%r2);", "printf"),
        ("ld.shared.u32 %r1, [p0];", "p0"),
        ("ld.global.v3.u32 {%r1, %r2, %r3}, [%p0];", "ld.global.v3"),
        ("setp.sideways.u32 %q1, %r1, %r2;", "sideways"),
        ("@%r1 add.u32 %r1, %r1, %r1;", "%r1"),
        ("mov.u32 %r1, 0x;", "0x"),
        ("barrier.cluster.arrive;", "barrier.cluster.arrive"),
        ("atom.global.add.b32 %r1, [%p0], 1;", "atom"),
    ] {
        let ptx = kernel(1, "", &format!("{line} // here"));
        let error = error(&ptx);
        assert!(error.contains(wanted), "{line}: {error}");
        assert!(error.contains(&format!("line {}", line_of(&ptx, "// here"))), "{line}: {error}");
    }
    let wrong = kernel(1, "", "wgmma.fence.sync.aligned;");
    assert!(error(&wrong).contains("kernel k"));
}

#[test]
fn broken_modules() {
    for (text, wanted) in [
        (".version 7.0\n.target sm_80\n.address_size 32\n", "64-bit"),
        ("hello", "hello"),
        (".visible .entry k(", "parameter"),
        (".visible .entry k() { ret;", "never ends"),
        (".visible .entry k() { L: L: ret; }", "twice"),
        (".visible .entry k() { ret; } .visible .entry k() { ret; }", "twice"),
        (".global .b8 x[99999999999];", "longer"),
        (".global .align 3 .b8 x[4];", "alignment"),
        (".global .b8 x[];", "length"),
        ("/* open", "never ends"),
        (".visible .entry k() { .reg .b32 %r<99999999999>; ret; }", "too many"),
        (".func f() { call f; ret; } .visible .entry k() { call f; ret; }", "recursion"),
    ] {
        let error = error(text);
        assert!(error.contains(wanted), "{text}: {error}");
    }
}

#[test]
fn launches_that_no_gpu_takes() {
    let ptx = format!(
        "{HEAD}.shared .b8 s[1000]; .visible .entry k(.param .u32 a) .maxntid 128, 1, 1 {{ .reg .b32 %r<2>; ld.shared.u8 %r1, [s]; ret; }}"
    );
    let program = Program::parse(&ptx).unwrap();
    let mut machine = Machine::new(Settings::default());
    let good =
        Launch { grid: [1; 3], block: [32, 1, 1], shared_bytes: 0, cooperative: false, arguments: &[0; 4] };
    machine.launch(&program, "k", &good).unwrap();
    for (launch, wanted) in [
        (Launch { block: [129, 1, 1], ..good }, "launch bounds say 128"),
        (Launch { block: [32, 32, 2], ..good }, "2048 threads"),
        (Launch { block: [1, 1, 65], ..good }, "the most is 1024, 1024, 64"),
        (Launch { block: [0, 1, 1], ..good }, "empty"),
        (Launch { grid: [1, 70_000, 1], ..good }, "grid"),
        (Launch { shared_bytes: 232_448, ..good }, "shared memory; the most is 232448"),
        (Launch { arguments: &[0; 8], ..good }, "8 bytes of parameters; the kernel has 4"),
        (Launch { grid: [5000, 1, 1], cooperative: true, ..good }, "same time"),
    ] {
        let error = machine.launch(&program, "k", &launch).unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("launch of k"), "{error}");
    }
    let error = machine.launch(&program, "nothing", &good).unwrap_err().to_string();
    assert!(error.contains("there are: k"), "{error}");
}

/// A module with most of what the parser knows.
fn sample() -> String {
    let mut text = String::from(
        ".version 7.0\n.target sm_80, debug\n.address_size 64\n.file 1 \"a.cu\"\n.global .align 4 .b8 t[8] = {1, 2, 3};\n\
         .const .f32 c = 0f3F800000;\n.extern .shared .align 16 .b8 dyn[];\n\
         .func (.param .b32 r) f(.param .b32 a) { .reg .b32 %r<3>; ld.param.u32 %r1, [a]; st.param.b32 [r], %r1; ret; }\n",
    );
    let body = ".loc 1 3 4\nmov.u32 %r1, dyn; ld.const.f32 %f1, [c]; T: .branchtargets A, B;\nbrx.idx %r2, T; A: add.s32 %r1, %r1, -4;\n\
         B: setp.lt.and.f32 %q1|%q2, %f1, 0d3FF0000000000000, !%q3; @!%q1 bra A; mov.b64 {%r3, _}, %d1; shfl.sync.up.b32 %r1|%q1, %r2, 1, 0, -1;\n\
         { .reg .b32 x; .param .b32 p; .param .b32 q; st.param.b32 [p+0], %r1; call.uni (q), f, (p); ld.param.b32 x, [q]; }\n\
         ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%p0+16]; cp.async.cg.shared.global [%r1], [%p0], 16, 8; cp.async.wait_group 0;\n\
         cvt.rn.bf16x2.f32 %r5, %f1, %f2; mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4},{%r1,%r2,%r3,%r4},{%r1,%r2},{%f1,%f2,%f3,%f4};\n\
         ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r1, %r2}, [%r3]; bar.red.popc.u32 %r1, 0, %q1; atom.global.cas.b32 %r1, [%p0], 1, 2;\n\
         exit;";
    text += kernel(2, ".local .align 8 .b8 depot[16];", body).strip_prefix(HEAD).unwrap();
    text + ".section .debug_str { $L: .b8 1, 2 }\n"
}

#[test]
fn the_sample_is_right() {
    let program = Program::parse(&sample()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(program.unsupported("k"), None);
}

/// Runs what parses.
fn try_out(text: &str) {
    let Ok(program) = Program::parse(text) else { return };
    let mut machine = Machine::new(Settings { max_instructions: 20_000, ..Settings::default() });
    let names: Vec<String> = program.kernels().map(String::from).collect();
    for name in names {
        let Some(description) = program.describe(&name) else { continue };
        let bytes = description.parameter_bytes as usize;
        let buffer = machine.allocate(64, "buffer");
        let mut arguments = buffer.to_le_bytes().repeat(bytes / 8 + 1);
        arguments.truncate(bytes);
        let launch = Launch {
            grid: [2, 1, 1],
            block: [48, 1, 1],
            shared_bytes: 64,
            cooperative: false,
            arguments: &arguments,
        };
        let _ = machine.launch(&program, &name, &launch);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_text_never_panics(edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..6, any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut text = sample().into_bytes();
        let words = [&b"%r1"[..], b"0", b"-1", b"{", b"}", b";", b".u64", b"99999999999999999999", b"[", b"%q1", b"bra", b"0xFFFFFFFFFFFFFFFF"];
        for (at, kind, other, byte) in edits {
            if text.is_empty() {
                break;
            }
            let at = at.index(text.len());
            match kind {
                0 => text[at] = byte,
                1 => { text.remove(at); }
                2 => text.insert(at, byte),
                3 => {
                    // A stretch moves.
                    let to = other.index(text.len());
                    let end = (at + usize::from(byte % 40)).min(text.len());
                    let part = text[at..end].to_vec();
                    text.splice(to..to, part);
                }
                4 => {
                    let word = words[usize::from(byte) % words.len()];
                    text.splice(at..at, word.iter().copied());
                }
                _ => text.truncate(at.max(1)),
            }
        }
        try_out(&String::from_utf8_lossy(&text));
    }

    /// Other digits: other registers, offsets, lengths and constants, which mostly still parse.
    #[test]
    fn other_numbers_never_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), b'0'..=b'9'), 1..12)) {
        let mut text = sample().into_bytes();
        let digits: Vec<usize> = (0..text.len()).filter(|at| text[*at].is_ascii_digit()).collect();
        for (at, digit) in edits {
            text[digits[at.index(digits.len())]] = digit;
        }
        try_out(&String::from_utf8_lossy(&text));
    }

    #[test]
    fn any_text_never_panics(text in "[ -~\\n]{0,200}") {
        let _ = Program::parse(&text);
    }
}
