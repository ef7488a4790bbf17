//! Launches of which only some blocks run, and buffers of full size.

mod support;

use ptx_sim::{FindingKind, Launch, Machine, Program, Report, Settings};
use support::{assert_clean, element, kernel, only};

/// Each thread copies a word.
fn copy() -> Program {
    let body = format!(
        "{}{}ld.global.u32 %r1, [%d1]; st.global.u32 [%d2], %r1;",
        element("%d1", "%p0", "%g", 4),
        element("%d2", "%p1", "%g", 4)
    );
    Program::parse(&kernel(2, "", &body)).unwrap()
}

fn launch(grid: [u32; 3], arguments: &[u8]) -> Launch<'_> {
    Launch { grid, block: [256, 1, 1], shared_bytes: 0, cooperative: false, arguments }
}

/// Pages of memory that this process has at the moment.
#[cfg(target_os = "linux")]
fn pages() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// 4 GiB from and to: what a few blocks touch is what it costs, and what they count is what as many blocks of
/// a small launch do.
#[test]
#[cfg(target_os = "linux")]
fn a_few_blocks_of_a_full_size_launch() {
    const WORDS: usize = 1 << 30;
    let (program, mut machine, before) = (copy(), Machine::new(Settings::default()), pages());
    let (from, to) = (machine.allocate(4 * WORDS, "from"), machine.allocate(4 * WORDS, "to"));
    let arguments = [from.to_le_bytes(), to.to_le_bytes()].concat();
    let grid = [1 << 20, 4, 1];
    // %g has no part of y: blocks of one column use the same words.
    let blocks = [[0, 0, 0], [5, 1, 0], [(1 << 20) - 1, 3, 0], [1 << 18, 2, 0]];
    for (at, block) in blocks.iter().enumerate() {
        machine.fill(from + 1024 * u64::from(block[0]), 1024, at as u8 + 1).unwrap();
    }
    let sampled = machine.launch_blocks(&program, "k", &launch(grid, &arguments), &blocks).unwrap();
    assert_clean(&sampled);
    let mut word = [0; 4];
    machine.read(to + 1024 * 5 + 8, &mut word).unwrap();
    assert_eq!(word, [2; 4]);
    assert_eq!(machine.uninitialised(to + 1024, 1024), 1024);
    // Launches beyond those that can be told apart, so that everything is forgotten once.
    for _ in 0..300 {
        assert_clean(&machine.launch_blocks(&program, "k", &launch(grid, &arguments), &blocks[..1]).unwrap());
    }
    let grown = pages().saturating_sub(before) * 4 / 1024;
    assert!(grown < 64, "{grown} MiB");

    let (from, to) = (machine.allocate(4096, "small"), machine.allocate(4096, "small too"));
    machine.fill(from, 4096, 7).unwrap();
    let arguments = [from.to_le_bytes(), to.to_le_bytes()].concat();
    let whole = machine.launch(&program, "k", &launch([4, 1, 1], &arguments)).unwrap();
    assert_eq!(sampled.counters, whole.counters);
    assert_eq!(sampled.counters.blocks, 4);
}

fn run(blocks: &[[u32; 3]], threads: usize) -> Report {
    // Block x writes its number to word x / 2: neighbours race.
    let body = format!("shr.u32 %r1, %r39, 1; {}st.global.u32 [%d1], %r39;", element("%d1", "%p0", "%r1", 4));
    let program = Program::parse(&kernel(1, "", &body)).unwrap();
    let mut machine = Machine::new(Settings { threads, ..Settings::default() });
    let arguments = machine.allocate(4096, "out").to_le_bytes();
    machine.launch_blocks(&program, "k", &launch([8, 1, 1], &arguments), blocks).unwrap()
}

#[test]
fn only_blocks_that_run_race() {
    for threads in [1, 2] {
        assert_clean(&run(&[[0, 0, 0], [2, 0, 0], [7, 0, 0]], threads));
        let report = run(&[[5, 0, 0], [2, 0, 0], [4, 0, 0]], threads);
        let finding = only(&report, FindingKind::BlockRace);
        assert!([[4, 0, 0], [5, 0, 0]].contains(&finding.block));
        assert_eq!(report.counters.threads, 3 * 256);
    }
}

#[test]
fn blocks_that_cannot_run() {
    let (program, mut machine) = (copy(), Machine::new(Settings::default()));
    let arguments = [0; 16];
    let one = launch([8, 2, 1], &arguments);
    let mut error = |launch: &Launch<'_>, blocks: &[[u32; 3]]| {
        machine.launch_blocks(&program, "k", launch, blocks).unwrap_err().to_string()
    };
    assert_eq!(error(&one, &[[0, 2, 0]]), "launch of k: block [0, 2, 0]; the grid is [8, 2, 1]");
    assert_eq!(error(&one, &[[1, 1, 0], [1, 1, 0]]), "launch of k: a block that is named twice");
    assert_eq!(error(&one, &[]), "launch of k: no block to run");
    let all = Launch { cooperative: true, ..one };
    assert!(error(&all, &[[0, 0, 0]]).contains("cooperative"));
}
