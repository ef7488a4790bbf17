//! Shuffles, votes, matches, reductions and special registers.

mod support;

use support::{Buffer, Run, as_words, element, kernel};

fn out(body: &str) -> Vec<u32> {
    let body = format!("{body}\n{}st.global.u32 [%d30], %r0;", element("%d30", "%p0", "%t", 4));
    as_words(&Run::default().clean(&kernel(1, "", &body), &[Buffer::Unwritten(128)])[0])
}

/// Lane and predicate of a shuffle as the PTX manual's pseudocode gives them.
fn source(mode: &str, lane: i32, b: i32, c: i32) -> (i32, bool) {
    let (b, clamp, segment) = (b & 31, c & 31, c >> 8 & 31);
    let most = lane & segment | clamp & !segment;
    let least = lane & segment;
    let (from, ok) = match mode {
        "up" => (lane - b, lane - b >= most),
        "down" => (lane + b, lane + b <= most),
        "bfly" => (lane ^ b, lane ^ b <= most),
        _ => (least | b & !segment, (least | b & !segment) <= most),
    };
    (if ok { from } else { lane }, ok)
}

#[test]
fn shuffles_in_every_mode() {
    for mode in ["up", "down", "bfly", "idx"] {
        for (b, c) in
            [(1, 31), (1, 0), (5, 31), (16, 31), (3, 0x181F), (2, 0x1C1F), (7, 0x1800), (9, 0x100F), (40, 31)]
        {
            for sync in [true, false] {
                let name = if sync { "shfl.sync" } else { "shfl" };
                let members = if sync { ", -1" } else { "" };
                let found = out(&format!(
                    "mul.lo.u32 %r1, %t, 3; {name}.{mode}.b32 %r2|%q1, %r1, {b}, {c}{members}; selp.u32 %r3, 1000, 0, %q1;
                     add.u32 %r0, %r2, %r3;"
                ));
                for (lane, found) in found.into_iter().enumerate() {
                    let (from, ok) = source(mode, lane as i32, b, c);
                    assert_eq!(
                        found,
                        3 * from as u32 + 1000 * u32::from(ok),
                        "{mode} {b} {c:#x} lane {lane}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_lane_may_choose_its_own_source() {
    let found =
        out("mul.lo.u32 %r1, %t, 7; xor.b32 %r2, %t, 21; shfl.sync.idx.b32 %r0, %r1, %r2, 31, 0xffffffff;");
    assert_eq!(found, (0..32).map(|lane| 7 * (lane ^ 21)).collect::<Vec<u32>>());
}

#[test]
fn votes() {
    let found = out(
        "setp.lt.u32 %q1, %t, 5; vote.sync.ballot.b32 %r0, %q1, -1; vote.sync.any.pred %q2, %q1, -1;
         vote.sync.all.pred %q3, %q1, -1; vote.sync.uni.pred %q4, !%q3, -1; vote.sync.all.pred %q5, !%q3, -1;
         @%q2 add.u32 %r0, %r0, 100; @%q3 add.u32 %r0, %r0, 1000; @%q4 add.u32 %r0, %r0, 10000; @%q5 add.u32 %r0, %r0, 100000;",
    );
    assert_eq!(found, [110_100 + 31; 32]);
    // In a branch only its lanes vote.
    let found = out("mov.u32 %r0, 0; setp.lt.u32 %q1, %t, 5; @%q1 bra A; bra B;
         A: setp.ne.u32 %q2, %t, 1; vote.sync.ballot.b32 %r0, %q2, 31; B:");
    assert_eq!(found[..6], [0x1D, 0x1D, 0x1D, 0x1D, 0x1D, 0]);
}

#[test]
fn matches_and_reductions() {
    let found = out("rem.u32 %r1, %t, 3; match.any.sync.b32 %r0, %r1, -1;");
    for (lane, found) in found.into_iter().enumerate() {
        assert_eq!(
            found,
            (0..32).filter(|other| other % 3 == lane % 3).map(|other| 1u32 << other).sum::<u32>()
        );
    }
    let found =
        out("mov.u32 %r1, 4; match.all.sync.b32 %r0|%q1, %r1, -1; match.all.sync.b32 %r2|%q2, %t, -1;
         @%q1 add.u32 %r0, %r0, 1; @%q2 add.u32 %r0, %r0, 7; add.u32 %r0, %r0, %r2;");
    assert_eq!(found, [0; 32]);
    for (operation, wanted) in
        [("add.s32", 496u32), ("min.u32", 0), ("max.u32", 31), ("or.b32", 31), ("and.b32", 0), ("xor.b32", 0)]
    {
        let found = out(&format!("redux.sync.{operation} %r0, %t, 0xffffffff;"));
        assert_eq!(found, [wanted; 32], "{operation}");
    }
    let found = out("sub.s32 %r1, %t, 9; redux.sync.min.s32 %r0, %r1, -1;");
    assert_eq!(found, [-9i32 as u32; 32]);
    let found = out("elect.sync %r0|%q1, -1; @%q1 add.u32 %r0, %r0, 5;");
    assert_eq!(found[..3], [5, 0, 0]);
}

#[test]
fn special_registers() {
    let body = format!(
        "mov.u32 %r1, %tid.y; mov.u32 %r2, %ntid.y; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %nctaid.x; mov.u32 %r5, %laneid;
         mov.u32 %r6, %warpid; mov.u32 %r7, %lanemask_lt; popc.b32 %r7, %r7; mov.u32 %r8, %lanemask_ge; popc.b32 %r8, %r8;
         mad.lo.u32 %r0, %r1, 10, %r2; mad.lo.u32 %r0, %r0, 10, %r3; mad.lo.u32 %r0, %r0, 10, %r4;
         mad.lo.u32 %r0, %r0, 100, %r5; mad.lo.u32 %r0, %r0, 10, %r6;
         add.u32 %r9, %r7, %r8; setp.ne.u32 %q1, %r9, 32; @%q1 trap;
         mov.u64 %d3, %clock64; mov.u32 %r10, %clock; setp.gt.u64 %q2, %d3, 100000; @%q2 trap;
         {} st.global.u32 [%d1], %r0;",
        element("%d1", "%p0", "%g", 4)
    );
    let found = as_words(
        &Run { block: 64, grid: 2, ..Run::default() }.clean(&kernel(1, "", &body), &[Buffer::Unwritten(512)])
            [0],
    );
    for (thread, found) in found.into_iter().enumerate() {
        let (block, lane, warp) = (thread / 64, thread % 32, thread % 64 / 32);
        assert_eq!(found as usize, ((((10 + block) * 10) + 2) * 100 + lane) * 10 + warp);
    }
}
