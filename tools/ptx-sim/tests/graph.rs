//! Launches that nothing orders: each defect is found whatever their order, and its cure is clean.

mod support;

use ptx_sim::{FindingKind, GraphLaunch, Launch, Machine, Program, Report, Settings};
use support::{HEAD, Random, assert_clean, only};

/// A kernel `name` of one pointer, which is in %p, with %g the number of the thread in the grid.
fn kernel(name: &str, body: &str) -> String {
    format!(
        ".visible .entry {name}(.param .u64 data) {{\n.reg .b32 %r<20>;\n.reg .b64 %d<20>;\n.reg .b16 %h<8>;\n\
         .reg .pred %q<8>;\n.reg .b64 %p;\n.reg .b32 %t, %g;\nmov.u32 %t, %tid.x;\nmov.u32 %r19, %ctaid.x;\n\
         mov.u32 %r18, %ntid.x;\nmad.lo.s32 %g, %r19, %r18, %t;\nld.param.u64 %p, [data];\n\
         cvta.to.global.u64 %p, %p;\nmul.wide.u32 %d0, %g, 4;\nadd.s64 %d0, %p, %d0;\n{body}\nret;\n}}\n"
    )
}

/// Two blocks of 32 threads; 64 words of data, written by the host before if `filled`.
struct Graph<'a> {
    kernels: &'a [(&'a str, &'a str)],
    /// Kernels by name, and what each launch comes after.
    launches: &'a [(&'a str, &'a [usize])],
    filled: bool,
}

impl Graph<'_> {
    fn run(&self, seed: u64, threads: usize) -> (Vec<u32>, Vec<Report>) {
        let text: String = self.kernels.iter().map(|(name, body)| kernel(name, body)).collect();
        let program = Program::parse(&format!("{HEAD}{text}")).unwrap();
        let mut machine = Machine::new(Settings { warp_seed: seed, threads, ..Settings::default() });
        let data = machine.allocate(1024, "data");
        if self.filled {
            machine.fill(data, 1024, 0).unwrap();
        }
        let arguments = data.to_le_bytes();
        let launch = Launch {
            grid: [2, 1, 1],
            block: [32, 1, 1],
            shared_bytes: 0,
            cooperative: false,
            arguments: &arguments,
        };
        let launches: Vec<_> = (self.launches.iter())
            .map(|(kernel, after)| GraphLaunch { program: &program, kernel, launch, after })
            .collect();
        let reports = machine.launch_graph(&launches).unwrap();
        let mut bytes = vec![0; 1024];
        machine.read(data, &mut bytes).unwrap();
        (support::as_words(&bytes), reports)
    }

    /// Findings of this kind alone, or none, in any order of launches and warps.
    fn check(&self, kind: Option<FindingKind>) {
        for seed in 0..6 {
            for threads in [1, 2] {
                let mut all = Report::default();
                for report in self.run(seed, threads).1 {
                    all.findings_total += report.findings_total;
                    all.findings.extend(report.findings);
                }
                match kind {
                    Some(kind) => drop(only(&all, kind).clone()),
                    None => assert_clean(&all),
                }
            }
        }
    }

    fn clean(&self) {
        self.check(None);
    }

    fn races(&self) {
        self.check(Some(RACE));
    }
}

const RACE: FindingKind = FindingKind::LaunchRace;
const TENS: (&str, &str) = ("tens", "mul.lo.u32 %r1, %g, 10;\nst.global.u32 [%d0], %r1;");
const ONES: (&str, &str) = ("ones", "add.u32 %r1, %g, 1;\nst.global.u32 [%d0], %r1;");
/// Reads the first 64 words and writes the next 64.
const COPY: (&str, &str) = ("copy", "ld.global.u32 %r1, [%d0];\nst.global.u32 [%d0+256], %r1;");

#[test]
fn two_launches_that_write_one_buffer() {
    let kernels = &[TENS, ONES];
    let graph = |launches| Graph { kernels, launches, filled: false };
    graph(&[("tens", &[]), ("ones", &[])]).races();
    graph(&[("tens", &[]), ("ones", &[0])]).clean();
    // The same values do no harm.
    graph(&[("tens", &[]), ("tens", &[])]).clean();
}

#[test]
fn a_launch_that_reads_what_another_writes() {
    let kernels = &[TENS, COPY];
    let graph = |launches| Graph { kernels, launches, filled: true };
    graph(&[("tens", &[]), ("copy", &[])]).races();
    graph(&[("copy", &[]), ("tens", &[])]).races();
    graph(&[("tens", &[]), ("copy", &[0])]).clean();
    graph(&[("copy", &[]), ("tens", &[0])]).clean();
    let (_, reports) = graph(&[("tens", &[]), ("copy", &[])]).run(0, 1);
    let message = &only(&reports[1], FindingKind::LaunchRace).message;
    let wanted = "block [0, 0, 0] of launch 1 reads \"data\" at byte 0, which block [0, 0, 0] of launch 0 (tens) wrote, and \
                  nothing orders the two launches";
    assert_eq!(message, wanted);
}

#[test]
fn a_launch_that_reads_what_only_an_unordered_one_has_written() {
    let kernels = &[TENS, ONES, COPY];
    let graph = |launches| Graph { kernels, launches, filled: false };
    let unordered = graph(&[("tens", &[]), ("copy", &[])]);
    for seed in 0..6 {
        let (_, reports) = unordered.run(seed, 1);
        let mut kinds: Vec<_> =
            reports.iter().flat_map(|report| &report.findings).map(|it| it.kind).collect();
        kinds.sort_unstable();
        assert_eq!(kinds, [FindingKind::Uninitialised, FindingKind::LaunchRace], "seed {seed}");
    }
    graph(&[("tens", &[]), ("copy", &[0])]).clean();
    // What comes before the reader has written all: a race, but nothing uninitialised.
    graph(&[("tens", &[]), ("copy", &[0]), ("ones", &[0])]).races();
}

#[test]
fn launches_that_use_different_parts() {
    let halves = &[
        ("low", "cvt.u16.u32 %h1, %g;\nst.global.u16 [%d0], %h1;"),
        ("high", "cvt.u16.u32 %h1, %g;\nst.global.u16 [%d0+2], %h1;"),
        ("bytes", "st.global.u8 [%d0+1], %g;"),
    ];
    let graph = |launches| Graph { kernels: halves, launches, filled: false };
    graph(&[("low", &[]), ("high", &[])]).clean();
    graph(&[("high", &[]), ("bytes", &[])]).clean();
    graph(&[("low", &[]), ("high", &[]), ("bytes", &[1])]).races();
}

#[test]
fn launches_that_count_together() {
    let kernels = &[
        ("count", "red.global.add.u32 [%p], 1;"),
        ("block", "red.relaxed.cta.global.add.u32 [%d0], 1;"),
        ("far", "red.global.add.u32 [%d0], 1;"),
        ("plain", "ld.global.u32 %r1, [%d0];\nadd.u32 %r1, %r1, 1;\nst.global.u32 [%d0], %r1;"),
        ("look", "ld.relaxed.gpu.global.u32 %r1, [%p];"),
    ];
    let graph = |launches| Graph { kernels, launches, filled: true };
    let counts = graph(&[("count", &[]), ("count", &[]), ("look", &[])]);
    counts.clean();
    assert_eq!(counts.run(3, 2).0[0], 128);
    graph(&[("block", &[]), ("far", &[])]).races();
    graph(&[("far", &[]), ("far", &[])]).clean();
    graph(&[("plain", &[]), ("far", &[])]).races();
    graph(&[("plain", &[]), ("far", &[0])]).clean();
}

#[test]
fn launches_that_join() {
    let kernels = &[
        TENS,
        ("upper", "add.u32 %r1, %g, 1;\nst.global.u32 [%d0+256], %r1;"),
        (
            "join",
            "ld.global.u32 %r1, [%d0];\nld.global.u32 %r2, [%d0+256];\nadd.u32 %r1, %r1, %r2;\nst.global.u32 [%d0+512], %r1;",
        ),
        ("through", "ld.global.u32 %r1, [%d0+512];\nst.global.u32 [%d0+768], %r1;"),
    ];
    let graph = |launches| Graph { kernels, launches, filled: true };
    let joined = graph(&[("tens", &[]), ("upper", &[]), ("join", &[0, 1]), ("through", &[2])]);
    joined.clean();
    for seed in 0..6 {
        let values = joined.run(seed, 2).0;
        assert!((0..64).all(|at| values[192 + at] == 11 * at as u32 + 1));
    }
    graph(&[("tens", &[]), ("upper", &[]), ("join", &[0])]).races();
    graph(&[("tens", &[]), ("upper", &[]), ("join", &[1])]).races();
}

#[test]
fn no_reader_is_forgotten() {
    // Four launches of two blocks read a word; the writer does not come after one of them, whichever that is.
    let kernels = &[TENS, ("read", "ld.global.u32 %r1, [%p];")];
    let after = |readers: &[usize]| {
        let mut launches: Vec<(&str, &[usize])> = vec![("read", &[]); 4];
        launches.push(("tens", readers));
        Graph { kernels, launches: &launches, filled: true }.check(if readers.len() == 4 {
            None
        } else {
            Some(RACE)
        });
    };
    after(&[0, 1, 2, 3]);
    after(&[1, 2, 3]);
    after(&[0, 2, 3]);
    after(&[0, 1, 3]);
    after(&[0, 1, 2]);
}

/// Each block publishes a value in slot %g / 32 of its launch and counts; who counts last reads all of them.
fn last_one(offset: u32, fence: &str) -> String {
    format!(
        "setp.ne.u32 %q1, %t, 0;\n@%q1 bra END;\nmul.wide.u32 %d1, %r19, 4;\nadd.s64 %d1, %p, %d1;\n\
         add.u32 %r1, %r19, 7;\nst.global.u32 [%d1+{offset}], %r1;\n{fence}\natom.global.add.u32 %r2, [%p], 1;\n\
         setp.ne.u32 %q2, %r2, 3;\n@%q2 bra END;\n{fence}\nld.global.u32 %r3, [%p+256];\nld.global.u32 %r4, [%p+260];\n\
         ld.global.u32 %r5, [%p+512];\nld.global.u32 %r6, [%p+516];\nEND:"
    )
}

#[test]
fn what_is_truly_published_orders_launches() {
    let fenced = [last_one(256, "membar.gl;"), last_one(512, "membar.gl;")];
    let kernels = &[("first", fenced[0].as_str()), ("second", fenced[1].as_str())];
    let launches: &[(&str, &[usize])] = &[("first", &[]), ("second", &[])];
    Graph { kernels, launches, filled: true }.clean();
    for fence in ["", "membar.cta;"] {
        let bare = [last_one(256, fence), last_one(512, fence)];
        let kernels = &[("first", bare[0].as_str()), ("second", bare[1].as_str())];
        let (_, reports) = Graph { kernels, launches, filled: true }.run(0, 1);
        assert!(reports[1].findings.iter().any(|finding| finding.kind == FindingKind::LaunchRace), "{fence}");
    }
}

#[test]
fn the_read_only_cache_sees_no_other_launch() {
    let kernels = &[TENS, ("cached", "ld.global.nc.u32 %r1, [%d0];\nst.global.u32 [%d0+256], %r1;")];
    let graph = |launches| Graph { kernels, launches, filled: true };
    graph(&[("tens", &[]), ("cached", &[])]).races();
    graph(&[("tens", &[]), ("cached", &[0])]).clean();
}

#[test]
fn values_follow_the_seed_alone() {
    let graph = Graph { kernels: &[TENS, ONES], launches: &[("tens", &[]), ("ones", &[])], filled: true };
    let mut seen = Vec::new();
    for seed in 0..8 {
        let (values, _) = graph.run(seed, 1);
        assert_eq!(values, graph.run(seed, 1).0);
        assert_eq!(values, graph.run(seed, 2).0);
        seen.push(values[2]);
    }
    assert_eq!(seen[0], 3, "seed 0 keeps the order of the list");
    assert!(seen.contains(&20), "some seed turns it round");
}

#[test]
fn graphs_that_cannot_be() {
    let program = Program::parse(&format!("{HEAD}{}", kernel("k", ""))).unwrap();
    let mut machine = Machine::new(Settings::default());
    let arguments = [0; 8];
    let launch =
        Launch { grid: [1; 3], block: [1; 3], shared_bytes: 0, cooperative: false, arguments: &arguments };
    let one = |after| GraphLaunch { program: &program, kernel: "k", launch, after };
    let mut error = |launches: &[GraphLaunch<'_>]| machine.launch_graph(launches).unwrap_err().to_string();
    assert!(error(&[one(&[]), one(&[1])]).contains("launch 1 (k) after launch 1"));
    assert!(error(&[one(&[2]), one(&[])]).contains("launch 0 (k) after launch 2"));
    assert!(error(&vec![one(&[]); 256]).contains("a graph of 256 launches; the most is 255"));
    // More launches than can be told apart, in graphs that can be.
    for _ in 0..5 {
        machine.launch_graph(&vec![one(&[]); 200]).unwrap();
    }
}

/// How a launch of a random graph uses a word.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Read,
    Write,
    Add,
}

/// Whether two launches may use a word in these ways with nothing between.
fn compatible(a: Way, b: Way) -> bool {
    a == b && a != Way::Write
}

/// Random graphs of up to nine launches, each of which uses a few of four words: there is a finding exactly
/// if two that no path connects use one word in ways that conflict.
#[test]
fn random_graphs_race_exactly_where_no_path_orders() {
    let (mut random, mut racy) = (Random(8), 0);
    for round in 0..400 {
        let count = 2 + random.next() as usize % 8;
        let (mut text, mut uses, mut after) = (HEAD.to_string(), Vec::new(), Vec::new());
        for launch in 0..count {
            let mut used = Vec::new();
            let mut body = String::new();
            for _ in 0..1 + random.next() % 2 {
                let (word, way) =
                    (random.next() % 4, [Way::Read, Way::Write, Way::Add][random.next() as usize % 3]);
                let place = format!("[%p+{}]", 4 * word);
                // What a launch writes is there for the first time.
                body += &match way {
                    Way::Read => format!("ld.global.u32 %r1, {place};\n"),
                    Way::Write => format!("st.global.u32 {place}, {};\n", 1000 * (launch + 1)),
                    Way::Add => format!("red.global.add.u32 {place}, 1;\n"),
                };
                used.push((word, way));
            }
            text += &kernel(&format!("k{launch}"), &body);
            uses.push(used);
            after.push((0..launch).filter(|_| random.next().is_multiple_of(3)).collect::<Vec<_>>());
        }
        let mut before = vec![vec![false; count]; count];
        for launch in 0..count {
            for &earlier in &after[launch] {
                before[launch][earlier] = true;
                let more = before[earlier].clone();
                before[launch].iter_mut().zip(more).for_each(|(known, more)| *known |= more);
            }
        }
        let pairs = (0..count).flat_map(|b| (0..b).map(move |a| (a, b))).filter(|(a, b)| !before[*b][*a]);
        let wanted = pairs.into_iter().any(|(a, b)| {
            uses[a].iter().any(|x| uses[b].iter().any(|y| x.0 == y.0 && !compatible(x.1, y.1)))
        });
        racy += usize::from(wanted);
        let program = Program::parse(&text).unwrap();
        for seed in 0..3 {
            let mut machine = Machine::new(Settings { warp_seed: seed, ..Settings::default() });
            let data = machine.allocate(16, "data");
            machine.fill(data, 16, 0).unwrap();
            let arguments = data.to_le_bytes();
            let one = Launch {
                grid: [1; 3],
                block: [1; 3],
                shared_bytes: 0,
                cooperative: false,
                arguments: &arguments,
            };
            let names: Vec<String> = (0..count).map(|launch| format!("k{launch}")).collect();
            let launches: Vec<_> = (names.iter().zip(&after))
                .map(|(kernel, after)| GraphLaunch { program: &program, kernel, launch: one, after })
                .collect();
            let reports = machine.launch_graph(&launches).unwrap();
            let found: Vec<_> = reports.iter().flat_map(|report| &report.findings).collect();
            assert!(found.iter().all(|finding| finding.kind == RACE));
            assert_eq!(!found.is_empty(), wanted, "round {round} seed {seed}: {after:?}");
        }
    }
    assert!((50..350).contains(&racy), "{racy} of 400 race");
}
