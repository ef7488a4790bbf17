//! Every form of `mbarrier` by what it answers: counts, phases, bytes to come, copies to land.

mod support;

use ptx_sim::FindingKind;
use support::{Buffer, Run, as_words, kernel, only, words};

const DECLARE: &str = ".shared .align 8 .b64 bar;\n.shared .align 16 .b8 place[16];\n.reg .b64 %s<9>;";

/// Runs one thread, in whose text `say REGISTER;` writes a 32-bit register, and `ask PREDICATE;` a predicate,
/// to the next word.
fn answers(text: &str, copied: &[u32]) -> Vec<u32> {
    let mut count = 0;
    let mut body = String::new();
    for line in text.split_inclusive(';') {
        let line = line.trim();
        let next = format!("[%p0+{}]", 4 * count);
        if let Some(register) = line.strip_prefix("say ") {
            body += &format!("st.global.u32 {next}, {register}\n");
            count += 1;
        } else if let Some(predicate) = line.strip_prefix("ask ") {
            body += &format!("selp.u32 %r30, 1, 0, {predicate}\nst.global.u32 {next}, %r30;\n");
            count += 1;
        } else {
            body += &format!("{line}\n");
        }
    }
    let run = Run { block: 1, ..Run::default() };
    let out = run.clean(&kernel(2, DECLARE, &body), &[Buffer::Unwritten(4 * count), words(copied.to_vec())]);
    as_words(&out[0])
}

#[test]
fn arrivals_are_counted_phase_by_phase() {
    let found = answers(
        "mbarrier.init.shared::cta.b64 [bar], 5;
         mbarrier.arrive.noComplete.shared.b64 %s0, [bar], 2;
         mbarrier.pending_count.b64 %r0, %s0; say %r0;
         mbarrier.arrive.shared.b64 %s1, [bar], 2;
         mbarrier.pending_count.b64 %r0, %s1; say %r0;
         mbarrier.test_wait.shared.b64 %q0, [bar], %s1; ask %q0;
         mbarrier.test_wait.parity.shared.b64 %q0, [bar], 0; ask %q0;
         mbarrier.test_wait.parity.shared.b64 %q0, [bar], 1; ask %q0;
         mbarrier.arrive.release.cta.shared.b64 %s2, [bar];
         mbarrier.pending_count.b64 %r0, %s2; say %r0;
         mbarrier.test_wait.shared.b64 %q0, [bar], %s0; ask %q0;
         mbarrier.try_wait.acquire.cta.shared.b64 %q0, [bar], %s2; ask %q0;
         mbarrier.test_wait.parity.shared.b64 %q0, [bar], 0; ask %q0;
         mbarrier.try_wait.parity.shared.b64 %q0, [bar], 1; ask %q0;
         mbarrier.arrive.shared.b64 %s3, [bar], 5;
         mbarrier.pending_count.b64 %r0, %s3; say %r0;
         mbarrier.try_wait.parity.shared::cta.b64 %q0, [bar], 1, 100; ask %q0;
         mbarrier.try_wait.shared::cta.b64 %q0, [bar], %s3, 100; ask %q0;",
        &[0],
    );
    assert_eq!(found, [5, 3, 0, 0, 1, 1, 1, 1, 1, 0, 5, 1, 1]);
}

#[test]
fn who_drops_out_is_not_waited_for_again() {
    let found = answers(
        "mbarrier.init.shared.b64 [bar], 4;
         mbarrier.arrive_drop.shared.b64 %s0, [bar];
         mbarrier.pending_count.b64 %r0, %s0; say %r0;
         mbarrier.arrive_drop.shared.b64 _, [bar], 1;
         mbarrier.arrive.shared.b64 _, [bar], 2;
         mbarrier.test_wait.parity.shared.b64 %q0, [bar], 0; ask %q0;
         mbarrier.arrive.shared.b64 %s1, [bar];
         mbarrier.pending_count.b64 %r0, %s1; say %r0;
         mbarrier.test_wait.shared.b64 %q0, [bar], %s1; ask %q0;
         mbarrier.arrive.shared.b64 %s1, [bar];
         mbarrier.test_wait.shared.b64 %q0, [bar], %s1; ask %q0;",
        &[0],
    );
    assert_eq!(found, [4, 1, 2, 0, 1]);
}

#[test]
fn a_phase_waits_for_bytes_too() {
    let found = answers(
        "mbarrier.init.shared.b64 [bar], 1;
         mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [bar], 64;
         mbarrier.arrive.shared.b64 %s0, [bar];
         mbarrier.test_wait.shared.b64 %q0, [bar], %s0; ask %q0;
         mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [bar], 48;
         mbarrier.test_wait.shared.b64 %q0, [bar], %s0; ask %q0;
         mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [bar], 16;
         mbarrier.test_wait.shared.b64 %q0, [bar], %s0; ask %q0;
         mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 %s1, [bar], 32;
         mbarrier.pending_count.b64 %r0, %s1; say %r0;
         mbarrier.test_wait.parity.shared.b64 %q0, [bar], 1; ask %q0;
         mbarrier.complete_tx.shared::cta.b64 [bar], 32;
         mbarrier.test_wait.parity.shared.b64 %q0, [bar], 1; ask %q0;",
        &[0],
    );
    assert_eq!(found, [0, 0, 1, 1, 0, 1]);
}

/// `noinc` counts as an arrival that the barrier was made for; without it the copies bring their own.
#[test]
fn a_phase_waits_for_copies() {
    for (count, form) in [(1, "arrive"), (2, "arrive.noinc")] {
        let found = answers(
            &format!(
                "mbarrier.init.shared.b64 [bar], {count};
                 mov.u32 %r1, place;
                 cp.async.ca.shared.global [%r1], [%p1], 16;
                 cp.async.mbarrier.{form}.shared.b64 [bar];
                 mbarrier.test_wait.parity.shared.b64 %q0, [bar], 0; ask %q0;
                 mbarrier.arrive.shared.b64 %s0, [bar];
                 mbarrier.test_wait.shared.b64 %q0, [bar], %s0; ask %q0;
                 ld.shared.u32 %r2, [%r1+8]; say %r2;"
            ),
            &[7, 8, 9, 10],
        );
        assert_eq!(found, [0, 1, 9], "{form}");
    }
}

#[test]
fn a_barrier_ends_and_its_place_is_memory_again() {
    let found = answers(
        "mbarrier.init.shared.b64 [bar], 1;
         mbarrier.arrive.shared.b64 _, [bar];
         mbarrier.inval.shared.b64 [bar];
         st.shared.u32 [bar], 12; ld.shared.u32 %r0, [bar]; say %r0;
         mbarrier.init.shared.b64 [bar], 3;
         mbarrier.arrive.shared.b64 %s0, [bar];
         mbarrier.pending_count.b64 %r0, %s0; say %r0;
         mbarrier.test_wait.parity.shared.b64 %q0, [bar], 0; ask %q0;",
        &[0],
    );
    assert_eq!(found, [12, 3, 0]);
    let one = Run { block: 1, ..Run::default() };
    let wrong = |body: &str, message: &str| {
        let (_, report) = one.run(&kernel(0, DECLARE, body), &[]);
        let found = &only(&report, FindingKind::InvalidAccess).message;
        assert!(found.contains(message), "{found}");
    };
    let init = "mbarrier.init.shared.b64 [bar], 2;\n";
    let gone = format!("{init}mbarrier.inval.shared.b64 [bar];\nmbarrier.arrive.shared.b64 _, [bar];");
    wrong(&gone, "after mbarrier.inval");
    wrong(
        &format!("{init}mbarrier.arrive.noComplete.shared.b64 %s0, [bar], 2;"),
        "may not complete the phase",
    );
    wrong("mbarrier.init.shared.b64 [bar], 0;", "a count of 0");
}

/// A generic address does as well as one of shared memory.
#[test]
fn generic_addresses() {
    let found = answers(
        "mov.u64 %d1, bar; cvta.shared.u64 %d1, %d1;
         mbarrier.init.b64 [%d1], 1;
         mbarrier.arrive.b64 %s0, [%d1];
         mbarrier.test_wait.b64 %q0, [%d1], %s0; ask %q0;
         mbarrier.test_wait.parity.b64 %q0, [%d1], 1; ask %q0;",
        &[0],
    );
    assert_eq!(found, [1, 0]);
}
