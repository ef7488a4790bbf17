//! State spaces, vectors, atomics, asynchronous copies.

mod support;

use ptx_sim::{FindingKind, Launch, Machine, Program, Settings};
use support::{Buffer, HEAD, Run, as_longs, as_words, assert_clean, element, kernel, longs, only, words};

#[test]
fn widths_and_vectors() {
    let body = format!(
        "{}ld.global.u8 %r0, [%d1]; ld.global.s8 %r1, [%d1+1]; ld.global.u16 %h2, [%d1+2]; ld.global.s16 %r3, [%d1+2];
         ld.global.v2.u32 {{%r4, %r5}}, [%d1+8]; ld.global.v4.b16 {{%h6, %h7, _, %h9}}, [%d1+8];
         ld.global.nc.L1::no_allocate.L2::128B.v4.f32 {{%f1, %f2, %f3, %f4}}, [%d1]; ld.volatile.global.b64 %d3, [%d1+8];
         ld.global.s32 %d4, [%d1]; ld.global.u8 %h10, [%d1+1];
         {}
         st.global.u32 [%d2], %r0; st.global.u32 [%d2+4], %r1; cvt.u32.u16 %r2, %h2; st.global.u32 [%d2+8], %r2;
         st.global.u32 [%d2+12], %r3; st.global.v2.u32 [%d2+16], {{%r5, %r4}}; cvt.u32.u16 %r9, %h9;
         st.global.v4.u16 [%d2+24], {{%h6, %h7, %h9, 5}}; st.global.v4.f32 [%d2+32], {{%f4, %f3, %f2, %f1}};
         st.global.b64 [%d2+48], %d3; st.global.u64 [%d2+56], %d4; st.global.u8 [%d2+64], %r1; st.global.u8 [%d2+65], %h10;
         st.global.u16 [%d2+66], 513; st.global.u32 [%d2+68], %d3; st.global.v2.b64 [%d2+80], {{%d4, %d3}};
         st.global.u64 [%d2+72], 0;",
        element("%d1", "%p0", "%t", 16),
        element("%d2", "%p1", "%t", 96),
    );
    let input: Vec<u8> = (0..512u32).map(|at| (at * 37 + 11) as u8).collect();
    let out = Run::default()
        .clean(&kernel(2, "", &body), &[Buffer::Bytes(input.clone()), Buffer::Unwritten(32 * 96)]);
    for lane in 0..32 {
        let i = &input[16 * lane..];
        let o = &out[1][96 * lane..];
        let half = |at: usize| u16::from_le_bytes([i[at], i[at + 1]]);
        let word = |at: usize| &o[at..at + 4];
        assert_eq!(word(0), u32::from(i[0]).to_le_bytes());
        assert_eq!(word(4), i32::from(i[1] as i8).to_le_bytes());
        assert_eq!(word(8), u32::from(half(2)).to_le_bytes());
        assert_eq!(word(12), i32::from(half(2) as i16).to_le_bytes());
        assert_eq!(o[16..20], i[12..16]);
        assert_eq!(o[20..24], i[8..12]);
        assert_eq!(o[24..28], i[8..12]);
        assert_eq!(o[28..30], i[14..16]);
        assert_eq!(o[30..32], [5, 0]);
        assert_eq!(o[32..36], i[12..16]);
        assert_eq!(o[44..48], i[0..4]);
        assert_eq!(o[48..56], i[8..16]);
        let extended = i64::from(i32::from_le_bytes(i[0..4].try_into().unwrap()));
        assert_eq!(o[56..64], extended.to_le_bytes());
        assert_eq!(o[64..68], [i[1], i[1], 1, 2]);
        assert_eq!(o[68..72], i[8..12]);
        assert_eq!(o[88..96], i[8..16]);
    }
}

#[test]
fn spaces_and_generic_addresses() {
    let ptx = format!(
        "{HEAD}
         .global .align 4 .u32 counter;
         .global .align 8 .u64 pointer = generic(table);
         .global .align 4 .b8 table[16] = {{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}};
         .const .align 4 .f32 constants[3] = {{0f3F800000, 2.5, 0f40400000}};
         .shared .align 8 .b8 buffer[256];
         .extern .shared .align 16 .b8 dynamic[];
         .visible .entry k(.param .u64 p0, .param .u64 p1) {{
           .local .align 8 .b8 depot[32]; .reg .b64 %SP, %SPL, %d<30>; .reg .b32 %r<30>; .reg .f32 %f<4>; .reg .pred %q<4>;
           mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL;
           ld.param.u64 %d1, [p0]; cvta.to.global.u64 %d1, %d1; mov.u32 %r1, %tid.x;
           mul.wide.u32 %d2, %r1, 64; add.s64 %d1, %d1, %d2;
           // Local memory, directly and by generic address.
           st.local.u32 [%SPL+8], %r1; add.u64 %d3, %SP, 8; ld.u32 %r2, [%d3]; st.global.u32 [%d1], %r2;
           // Shared memory of both kinds.
           mov.u64 %d4, buffer; mul.wide.u32 %d5, %r1, 4; add.s64 %d6, %d4, %d5; st.shared.u32 [%d6], %r1;
           mov.u32 %r3, dynamic; shl.b32 %r4, %r1, 2; add.s32 %r5, %r3, %r4; mul.lo.u32 %r6, %r1, 5; st.shared.u32 [%r5+128], %r6;
           bar.sync 0;
           cvta.shared.u64 %d7, %d6; ld.u32 %r7, [%d7]; st.global.u32 [%d1+4], %r7;
           ld.shared.u32 %r8, [%r5+128]; st.global.u32 [%d1+8], %r8; ld.shared.u32 %r9, [buffer+12]; st.global.u32 [%d1+12], %r9;
           // Variables of the module.
           ld.const.f32 %f1, [constants+4]; st.global.f32 [%d1+16], %f1;
           ld.global.u64 %d8, [pointer]; ld.u32 %r10, [%d8+8]; st.global.u32 [%d1+20], %r10;
           mov.u64 %d9, table; ld.global.u32 %r11, [%d9+12]; st.global.u32 [%d1+24], %r11;
           atom.global.add.u32 %r12, [counter], 1; st.global.u32 [%d1+28], %r12;
           // What a generic address is.
           isspacep.shared %q1, %d7; isspacep.global %q2, %d1; isspacep.local %q3, %d7; selp.u32 %r13, 1, 0, %q1;
           @%q2 add.u32 %r13, %r13, 2; @%q3 add.u32 %r13, %r13, 4; st.global.u32 [%d1+32], %r13;
           // A generic address of a parameter.
           mov.b64 %d10, p1; cvta.param.u64 %d11, %d10; ld.u64 %d12, [%d11]; st.global.u64 [%d1+40], %d12;
           ret;
         }}"
    );
    let program = Program::parse(&ptx).unwrap();
    let mut machine = Machine::new(Settings::default());
    let out = machine.allocate(2048, "out");
    let arguments: Vec<u8> = out.to_le_bytes().into_iter().chain(77u64.to_le_bytes()).collect();
    let launch = Launch {
        grid: [1; 3],
        block: [32, 1, 1],
        shared_bytes: 256,
        cooperative: false,
        arguments: &arguments,
    };
    let report = machine.launch(&program, "k", &launch).unwrap();
    assert_clean(&report);
    let mut bytes = vec![0; 2048];
    machine.read(out, &mut bytes).unwrap();
    let found = as_words(&bytes);
    for lane in 0..32u32 {
        let row = &found[16 * lane as usize..];
        assert_eq!(row[..9], [lane, lane, 5 * lane, 3, 2.5f32.to_bits(), 3, 0, lane, 3], "lane {lane}");
        assert_eq!(row[10..12], [77, 0]);
    }
    let counter = machine.global(&program, "counter").unwrap();
    let mut value = [0; 4];
    machine.read(counter, &mut value).unwrap();
    assert_eq!(u32::from_le_bytes(value), 32);
    // The module's memory stays from launch to launch.
    machine.launch(&program, "k", &launch).unwrap();
    machine.read(counter, &mut value).unwrap();
    assert_eq!(u32::from_le_bytes(value), 64);
}

#[test]
fn atomics_of_every_kind() {
    // Operation, type, start, operand (of lane), end, and the old value that lane 3 sees.
    type Row = (&'static str, u32, u64, &'static str, u64, u64);
    let rows: [Row; 17] = [
        ("add.u32", 4, 5, "%t", 5 + 496, 5 + 3),
        ("add.u64", 8, 1 << 40, "%d5", (1 << 40) + 496, (1 << 40) + 3),
        ("add.f32", 4, 1f32.to_bits() as u64, "%f5", 497f32.to_bits() as u64, 4f32.to_bits() as u64),
        ("add.f64", 8, 1f64.to_bits(), "%e5", 497f64.to_bits(), 4f64.to_bits()),
        ("min.u32", 4, 10, "%t", 0, 0),
        ("max.u32", 4, 10, "%t", 31, 10),
        ("min.s32", 4, 10, "%r6", -31i32 as u32 as u64, -2i32 as u32 as u64),
        ("max.s32", 4, -40i32 as u32 as u64, "%r6", 0, 0),
        ("min.s64", 8, 10, "%d6", -31i64 as u64, -2i64 as u64),
        ("and.b32", 4, 0xFF, "%t", 0, 0),
        ("or.b32", 4, 0x100, "%t", 0x11F, 0x103),
        ("xor.b64", 8, 0, "%d5", 0, 3),
        ("exch.b32", 4, 99, "%t", 31, 2),
        ("inc.u32", 4, 3, "4", 0, 1),
        ("dec.u32", 4, 2, "7", 2, 7),
        ("add.s32", 4, 0, "%r6", -496i32 as u32 as u64, -3i32 as u32 as u64),
        ("exch.b64", 8, 9, "%d5", 31, 2),
    ];
    for (operation, width, start, operand, end, third) in rows {
        for space in ["global", "shared"] {
            let (kind, old, file) =
                (operation.split('.').nth(1).unwrap(), if width == 8 { "%d0" } else { "%r0" }, 8 * width);
            let old = match kind {
                "f32" => "%f0",
                "f64" => "%e0",
                _ => old,
            };
            let (place, load) = if space == "shared" {
                (
                    "[buffer]",
                    format!(
                        "ld.global.b{file} %x, [%p0]; setp.eq.u32 %q1, %t, 0; @%q1 st.shared.b{file} [buffer], %x; bar.warp.sync -1;"
                    ),
                )
            } else {
                ("[%p0]", String::new())
            };
            let store = if space == "shared" {
                format!("bar.warp.sync -1; ld.shared.b{file} %x, [buffer]; @%q1 st.global.b{file} [%p0], %x;")
            } else {
                String::new()
            };
            let body = format!(
                "cvt.u64.u32 %d5, %t; neg.s32 %r6, %t; cvt.s64.s32 %d6, %r6; cvt.rn.f32.u32 %f5, %t; cvt.rn.f64.u32 %e5, %t;
                 {load} atom.{space}.{operation} {old}, {place}, {operand}; {} st.global.b{file} [%d9], {old}; {store}",
                element("%d9", "%p1", "%t", width)
            );
            let declarations = format!(".reg .b{file} %x; .shared .align 8 .b8 buffer[8];");
            let first = Buffer::Bytes(start.to_le_bytes()[..width as usize].to_vec());
            let out = Run::default()
                .clean(&kernel(2, &declarations, &body), &[first, Buffer::Unwritten(32 * width as usize)]);
            let value =
                |bytes: &[u8]| if width == 8 { as_longs(bytes)[0] } else { u64::from(as_words(bytes)[0]) };
            assert_eq!(value(&out[0]), end, "{operation} {space}");
            assert_eq!(
                value(&out[1][3 * width as usize..]),
                third,
                "{operation} {space}: old value of lane 3"
            );
        }
    }
    // Compare and swap: only the lane that finds its own number moves on.
    let body = "add.u32 %r1, %t, 1; atom.global.cas.b32 %r0, [%p0], %t, %r1; red.global.add.u32 [%p0+4], 2;
                atom.acq_rel.gpu.global.add.u32 %r3, [%p0+4], 0;";
    let out = Run::default().clean(&kernel(1, "", body), &[words([0, 1])]);
    assert_eq!(as_words(&out[0]), [32, 65]);
}

#[test]
fn blocks_add_up() {
    for threads in [1, 2, 4] {
        let settings = Settings { threads, ..Settings::default() };
        let run = Run { settings, grid: 64, block: 96, ..Run::default() };
        let out = run.clean(
            &kernel(1, "", "red.global.add.u32 [%p0], %g; atom.global.add.u64 %d1, [%p0+8], 1;"),
            &[longs([0, 0])],
        );
        let n = 64 * 96u64;
        assert_eq!(as_longs(&out[0]), [(n * (n - 1) / 2) & 0xFFFF_FFFF, n]);
    }
}

const COPY: &str = "mov.u32 %r1, buffer; shl.b32 %r2, %t, 4; add.u32 %r3, %r1, %r2; mul.wide.u32 %d1, %t, 16; add.s64 %d1, %p0, %d1;
                    mul.wide.u32 %d2, %t, 4; add.s64 %d2, %p1, %d2;";
const COPY_BUFFER: &str = ".shared .align 16 .b8 buffer[2048];";

#[test]
fn groups_of_copies_arrive_when_waited_for() {
    let body = format!(
        "{COPY}
         cp.async.cg.shared.global [%r3], [%d1], 16; cp.async.commit_group;
         cp.async.ca.shared.global.L2::128B [%r3+512], [%d1], 8; cp.async.commit_group;
         cp.async.ca.shared.global [%r3+1024], [%d1+4], 4; cp.async.commit_group;
         cp.async.wait_group 2; ld.shared.u32 %r10, [%r3+12];
         cp.async.wait_group 1; ld.shared.u32 %r11, [%r3+516];
         cp.async.wait_all; ld.shared.u32 %r12, [%r3+1024];
         add.u32 %r10, %r10, %r11; add.u32 %r10, %r10, %r12; st.global.u32 [%d2], %r10;"
    );
    let out = Run::default().clean(
        &kernel(2, COPY_BUFFER, &body),
        &[words((0..128).map(|at| 1 << (at % 31))), Buffer::Unwritten(128)],
    );
    for (lane, found) in as_words(&out[1]).into_iter().enumerate() {
        let at = |place: usize| 1u32 << ((4 * lane + place) % 31);
        assert_eq!(found, at(3).wrapping_add(at(1)).wrapping_add(at(1)), "lane {lane}");
    }
}

#[test]
fn copies_read_fewer_bytes_and_fill_with_zeros() {
    let body = format!(
        "{COPY} and.b32 %r4, %t, 1; mul.lo.u32 %r4, %r4, 16; setp.eq.u32 %q1, %t, 3; selp.u32 %r4, 6, %r4, %q1;
         cp.async.cg.shared.global [%r3], [%d1], 16, %r4; cp.async.wait_all; ld.shared.u32 %r5, [%r3+4]; ld.shared.u32 %r6, [%r3+8];
         add.u32 %r5, %r5, %r6; st.global.u32 [%d2], %r5;"
    );
    let out = Run::default().clean(
        &kernel(2, COPY_BUFFER, &body),
        &[words((0..128).map(|_| 0x0101_0101)), Buffer::Unwritten(128)],
    );
    for (lane, found) in as_words(&out[1]).into_iter().enumerate() {
        let wanted = if lane == 3 {
            0x0101
        } else if lane % 2 == 1 {
            0x0202_0202
        } else {
            0
        };
        assert_eq!(found, wanted, "lane {lane}");
    }
    // A lane that reads nothing needs no address.
    let body = format!(
        "{COPY} setp.lt.u32 %q1, %t, 8; selp.u32 %r4, 16, 0, %q1; selp.b64 %d1, %d1, 0, %q1;
         cp.async.cg.shared.global [%r3], [%d1], 16, %r4; cp.async.wait_all; ld.shared.u32 %r5, [%r3]; st.global.u32 [%d2], %r5;"
    );
    let out = Run::default().clean(&kernel(2, COPY_BUFFER, &body), &[words(0..32), Buffer::Unwritten(128)]);
    assert_eq!(as_words(&out[1])[..10], [0, 4, 8, 12, 16, 20, 24, 28, 0, 0]);
}

#[test]
fn a_copy_not_waited_for_shows_the_old_bytes() {
    let body = format!(
        "{COPY} st.shared.u32 [%r3], 9; cp.async.ca.shared.global [%r3], [%d1], 4; cp.async.commit_group;
         cp.async.wait_group 1; ld.shared.u32 %r5, [%r3]; st.global.u32 [%d2], %r5; cp.async.wait_all;"
    );
    let (out, report) =
        Run::default().run(&kernel(2, COPY_BUFFER, &body), &[words(100..228), Buffer::Unwritten(128)]);
    only(&report, FindingKind::PendingCopy);
    assert_eq!(as_words(&out[1]), [9; 32]);
}

#[test]
fn the_host_sees_what_was_written() {
    let mut machine = Machine::new(Settings::default());
    let a = machine.allocate(100, "a");
    let b = machine.allocate(8, "b");
    assert_eq!((a % 256, b % 256), (0, 0));
    assert!(b >= a + 100 + 256);
    assert_eq!(machine.uninitialised(a, 100), 100);
    machine.write(a + 3, &[1, 2, 3, 4, 5]).unwrap();
    assert_eq!(machine.uninitialised(a, 100), 95);
    let mut out = [0; 10];
    machine.read(a, &mut out).unwrap();
    assert_eq!(out, [0xCD, 0xCD, 0xCD, 1, 2, 3, 4, 5, 0xCD, 0xCD]);
    machine.fill(a, 100, 7).unwrap();
    machine.forget(a + 5, 2).unwrap();
    machine.read(a, &mut out).unwrap();
    assert_eq!(out, [7, 7, 7, 7, 7, 0xCD, 0xCD, 7, 7, 7]);
    machine.copy(a + 4, b, 8).unwrap();
    let mut copied = [0; 8];
    machine.read(b, &mut copied).unwrap();
    assert_eq!((copied, machine.uninitialised(b, 8)), ([7, 0xCD, 0xCD, 7, 7, 7, 7, 7], 2));
    assert!(machine.copy(a + 4, b, 12).is_err(), "b has eight bytes");
    assert!(machine.copy(a + 2, b, 4).unwrap_err().to_string().contains("whole words"));
    let error = machine.write(a + 98, &[0; 4]).unwrap_err().to_string();
    assert!(error.contains("\"a\"") && !error.contains('\n'), "{error}");
    machine.free(a).unwrap();
    assert!(machine.free(a).is_err());
    assert!(machine.read(a, &mut out).unwrap_err().to_string().contains("freed"));
}
