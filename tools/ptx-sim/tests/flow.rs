//! Divergence and reconvergence, calls, scopes.

mod support;

use support::{Buffer, HEAD, Run, as_words, element, kernel};

fn out(body: &str) -> Vec<u32> {
    let body = format!("{body}\n{}st.global.u32 [%d30], %r0;", element("%d30", "%p0", "%t", 4));
    as_words(&Run::default().clean(&kernel(1, "", &body), &[Buffer::Unwritten(128)])[0])
}

fn expect(body: &str, reference: impl Fn(u32) -> u32) {
    assert_eq!(out(body), (0..32).map(reference).collect::<Vec<_>>());
}

#[test]
fn nested_conditions_meet_again() {
    // activemask after each join shows that all lanes are back together.
    expect(
        "mov.u32 %r0, 0;
         and.b32 %r1, %t, 1; setp.eq.u32 %q1, %r1, 0;
         @%q1 bra EVEN;
         and.b32 %r2, %t, 2; setp.eq.u32 %q2, %r2, 0;
         @%q2 bra ODD0;
         add.u32 %r0, %r0, 3;
         bra JOIN1;
         ODD0: add.u32 %r0, %r0, 1;
         JOIN1: activemask.b32 %r3; add.u32 %r0, %r0, 100;
         bra JOIN;
         EVEN: activemask.b32 %r3; add.u32 %r0, %r0, 50;
         JOIN: activemask.b32 %r4; popc.b32 %r4, %r4; popc.b32 %r3, %r3;
         mad.lo.u32 %r0, %r4, 1000, %r0; mad.lo.u32 %r0, %r3, 100000, %r0;",
        |lane| {
            1_632_000
                + if lane % 2 == 0 {
                    50
                } else if lane & 2 == 0 {
                    101
                } else {
                    103
                }
        },
    );
}

#[test]
fn loops_of_different_lengths() {
    expect(
        "mov.u32 %r0, 0; mov.u32 %r1, 0;
         LOOP: setp.ge.u32 %q1, %r1, %t; @%q1 bra DONE;
         add.u32 %r0, %r0, %r1; add.u32 %r1, %r1, 1;
         bra.uni LOOP;
         DONE: activemask.b32 %r2; popc.b32 %r2, %r2; mad.lo.u32 %r0, %r2, 1000, %r0;",
        |lane| 32_000 + lane * lane.saturating_sub(1) / 2,
    );
}

#[test]
fn leaving_a_loop_from_inside_and_skipping_rounds() {
    expect(
        "mov.u32 %r0, 0; mov.u32 %r1, 0;
         LOOP:
         add.u32 %r1, %r1, 1;
         setp.gt.u32 %q1, %r1, 40; @%q1 bra DONE;
         rem.u32 %r2, %r1, 3; setp.eq.u32 %q2, %r2, 0; @%q2 bra LOOP;
         add.u32 %r0, %r0, %r1;
         setp.le.u32 %q3, %r0, %t; @%q3 bra LOOP;
         DONE:",
        |lane| {
            let mut sum = 0;
            for round in 1..=40 {
                if round % 3 == 0 {
                    continue;
                }
                sum += round;
                if sum > lane {
                    break;
                }
            }
            sum
        },
    );
}

#[test]
fn lanes_that_exit_early() {
    let ptx = kernel(
        1,
        "",
        &format!(
            "and.b32 %r1, %t, 3; setp.eq.u32 %q1, %r1, 1; {}
             st.global.u32 [%d30], 7;
             @%q1 exit;
             setp.lt.u32 %q2, %t, 8; @%q2 bra LOW;
             activemask.b32 %r2; st.global.u32 [%d30], %r2; ret;
             LOW: activemask.b32 %r2; st.global.u32 [%d30], %r2;",
            element("%d30", "%p0", "%t", 4)
        ),
    );
    let found = as_words(&Run::default().clean(&ptx, &[Buffer::Unwritten(128)])[0]);
    for (lane, found) in found.into_iter().enumerate() {
        let wanted = if lane % 4 == 1 {
            7
        } else if lane < 8 {
            0xDD
        } else {
            0xDDDD_DD00
        };
        assert_eq!(found, wanted, "lane {lane}");
    }
}

#[test]
fn tables_of_targets() {
    expect(
        "rem.u32 %r1, %t, 5; mov.u32 %r0, 1;
         T: .branchtargets A, B, C, B, DONE;
         brx.idx %r1, T;
         A: mov.u32 %r0, 10; bra DONE;
         B: add.u32 %r0, %r0, 20; bra DONE;
         C: mov.u32 %r0, 30;
         DONE: activemask.b32 %r2; popc.b32 %r2, %r2; mad.lo.u32 %r0, %r2, 1000, %r0;",
        |lane| 32_000 + [10, 21, 30, 21, 1][lane as usize % 5],
    );
}

#[test]
fn predicated_instructions_leave_other_lanes_alone() {
    expect(
        "mov.u32 %r0, 5; setp.lt.u32 %q1, %t, 9; @%q1 mov.u32 %r0, 6; @!%q1 add.u32 %r0, %r0, 2;
         setp.gt.u32 %q2, %t, 100; @%q2 bra NEVER; bra OVER; NEVER: trap; OVER:",
        |lane| if lane < 9 { 6 } else { 7 },
    );
}

#[test]
fn scopes_hide_names_and_keep_labels() {
    expect(
        "mov.u32 %r0, %t;
         { .reg .b32 x; .reg .pred p; mov.u32 x, 0; setp.lt.u32 p, %t, 4; @p bra L; mov.u32 x, 100; L: add.u32 %r0, %r0, x; }
         { .reg .b32 x; .reg .pred p; mov.u32 x, 1; setp.lt.u32 p, %t, 2; @p bra L; mov.u32 x, 200; L: add.u32 %r0, %r0, x;
           { .reg .b64 x; mov.u64 x, 5; cvt.u32.u64 %r1, x; add.u32 %r0, %r0, %r1; } }",
        |lane| lane + if lane < 4 { 0 } else { 100 } + if lane < 2 { 1 } else { 200 } + 5,
    );
}

#[test]
fn calls_pass_parameters_and_return() {
    let ptx = format!(
        "{HEAD}
         .func (.param .b32 r) twice(.param .b32 a) {{
           .reg .b32 %r<4>; .reg .pred %p; ld.param.u32 %r1, [a]; setp.lt.u32 %p, %r1, 10;
           @%p bra SMALL; add.u32 %r2, %r1, %r1; st.param.b32 [r], %r2; ret;
           SMALL: st.param.b32 [r+0], 1; ret;
         }}
         .func (.param .b32 r) sum(.param .align 8 .b8 s[16], .param .b32 a) {{
           .reg .b32 %r<8>; .reg .b64 %d<2>;
           ld.param.u32 %r1, [s]; ld.param.u64 %d1, [s+8]; cvt.u32.u64 %r2, %d1; ld.param.u32 %r3, [a];
           {{ .param .b32 x; .param .b32 y; st.param.b32 [x], %r3; call.uni (y), twice, (x); ld.param.b32 %r4, [y]; }}
           add.u32 %r1, %r1, %r2; add.u32 %r1, %r1, %r4; st.param.b32 [r], %r1; ret;
         }}
         .visible .entry k(.param .u64 p0) {{
           .reg .b32 %r<8>; .reg .b64 %d<8>; .reg .pred %p<2>;
           ld.param.u64 %d1, [p0]; cvta.to.global.u64 %d1, %d1; mov.u32 %r1, %tid.x;
           mul.wide.u32 %d2, %r1, 4; add.s64 %d2, %d1, %d2;
           {{ // callseq 0, 0
             .reg .b32 temp_param_reg;
             .param .align 8 .b8 param0[16]; st.param.b32 [param0+0], 1000; st.param.b64 [param0+8], 20000;
             .param .b32 param1; st.param.b32 [param1+0], %r1; .param .b32 retval0;
             call.uni (retval0), sum, (param0, param1);
             ld.param.b32 %r2, [retval0+0];
           }} // callseq 0
           setp.lt.u32 %p1, %r1, 16;
           {{ .param .b32 a; .param .b32 b; st.param.b32 [a], %r2; st.param.b32 [b], %r2; @%p1 call (b), twice, (a); ld.param.b32 %r2, [b]; }}
           activemask.b32 %r3; popc.b32 %r3, %r3; mad.lo.u32 %r2, %r3, 1000000, %r2;
           st.global.u32 [%d2], %r2; ret;
         }}"
    );
    let found = as_words(&Run::default().clean(&ptx, &[Buffer::Unwritten(128)])[0]);
    for (lane, found) in found.into_iter().enumerate() {
        let once = 21_000 + if lane < 10 { 1 } else { 2 * lane as u32 };
        assert_eq!(found, 32_000_000 + if lane < 16 { 2 * once } else { once }, "lane {lane}");
    }
}
