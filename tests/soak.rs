//! A soak: runs of all methods are killed, signalled, stopped by time and resumed at random moments, again and
//! again, and end with the bytes of runs that were never stopped. `RECORDS_SOAK=1000` sets the number of cycles,
//! `RECORDS_SOAK_SEED` the moments; `tools/soak` does both. `RECORDS_SOAK_PROGRAM` names another program than the one
//! built for the tests.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use records::random::philox::{Purpose, Stream};
use rustix::process::{Pid, Signal, kill_process};

/// Settings with which an epoch takes a few hundredths of a second.
const TINY: &[&str] = &[
    "train",
    "--preset=tiny",
    "--synthetic-test-per-class=1",
    "--synthetic-train-per-class=12",
    "--width=4",
    "--threads=1",
    "--device=cpu",
    "--exp-dir=runs",
    "--name=a",
    "--epochs=6",
];

/// Every method, and what has state of its own.
const RUNS: &[&[&str]] = &[
    &["--method=corr", "--debias=records", "--mixup=true"],
    &["--method=solar", "--debias=none", "--est-epochs=2", "--epochs=4"],
    &["--method=pico", "--moco-queue=64", "--optimizer=adamw", "--lr=0.001"],
    &["--method=proden", "--checkpoint-every=3"],
    &["--method=lw", "--eval-every=2"],
    &["--method=cavl", "--debias=none"],
    &["--method=cc", "--debias=none"],
    &["--method=mse", "--debias=oracle-post"],
    &["--method=exp", "--debias=none", "--schedule=step", "--lr-decay-epochs=2,4"],
    &[
        "--method=solar",
        "--debias=none",
        "--prior-from=steps",
        "--est-epochs=2",
        "--epochs=5",
        "--checkpoint-every=4",
    ],
    &["--method=corr", "--mixup=true", "--lr=0.01", "--alpha=2000", "--on-divergence=rollback"],
    // Evaluations of several batches, which signals end.
    &["--method=corr", "--debias=records", "--synthetic-test-per-class=120", "--epochs=3"],
    &[
        "--method=solar",
        "--debias=none",
        "--est-epochs=1",
        "--epochs=1",
        "--synthetic-train-per-class=120",
        "--synthetic-test-per-class=60",
    ],
];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a whole number"))
}

fn records(at: &Path, arguments: &[&str]) -> Command {
    let program = std::env::var_os("RECORDS_SOAK_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_records").into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(at).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// The bytes of files by their paths in a run's folder.
type Files = BTreeMap<PathBuf, Vec<u8>>;

/// Every file of a run, also those in folders in it, but those that say what happened and when.
fn results(run: &Path) -> Files {
    let mut found = BTreeMap::new();
    let mut folders = vec![run.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !["log.txt", "times.jsonl", "report.html"].iter().any(|name| path.ends_with(name)) {
                found.insert(path.strip_prefix(run).unwrap().into(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// What was done to runs.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    signals: usize,
    suspensions: usize,
    timeouts: usize,
    finished: usize,
}

impl Tally {
    fn cycles(&self) -> usize {
        self.kills + self.signals + self.suspensions + self.timeouts
    }
}

/// Does something to a run at a random moment of up to `longest`, and waits until it has ended.
fn disturb(mut child: Child, longest: Duration, random: &mut Stream, tally: &mut Tally) -> Option<i32> {
    std::thread::sleep(longest.mul_f64(random.unit()));
    let mut send = |signal: Signal| {
        // It may have ended meanwhile.
        if child.try_wait().unwrap().is_none() {
            let _ = kill_process(Pid::from_child(&child), signal);
        }
    };
    match (random.unit() * 10.0) as usize {
        0..5 => {
            tally.kills += 1;
            send(Signal::KILL);
        }
        choice @ 5..9 => {
            tally.signals += 1;
            send([Signal::TERM, Signal::INT, Signal::HUP, Signal::USR1][choice - 5]);
        }
        _ => {
            tally.suspensions += 1;
            send(Signal::STOP);
            std::thread::sleep(Duration::from_millis(20));
            send(Signal::CONT);
            std::thread::sleep(longest.mul_f64(random.unit() / 4.0));
            send(Signal::KILL);
        }
    }
    let output = child.wait_with_output().unwrap();
    let code = output.status.code();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(code, None | Some(0 | 129 | 130 | 138 | 143)), "{code:?}: {said}");
    code
}

#[test]
fn whatever_happens_to_runs_they_end_the_same() {
    let (wanted, seed) = (number("RECORDS_SOAK", 50) as usize, number("RECORDS_SOAK_SEED", 1));
    let scratch = tempfile::tempdir().unwrap();
    let mut random = Stream::new(seed, Purpose::Shuffle, u32::MAX, 0, 0);
    let mut tally = Tally::default();
    let mut wholes: Vec<Option<(Files, Duration)>> = RUNS.iter().map(|_| None).collect();
    let mut number = 0;
    while tally.cycles() < wanted {
        let (which, more) = (number % RUNS.len(), RUNS[number % RUNS.len()]);
        let start = [TINY, more].concat();
        let (whole, took) = wholes[which].get_or_insert_with(|| {
            let at = scratch.path().join(format!("whole-{which}"));
            fs::create_dir(&at).unwrap();
            let started = Instant::now();
            let output = records(&at, &start).output().unwrap();
            assert!(output.status.success(), "{more:?}: {}", String::from_utf8_lossy(&output.stderr));
            (results(&at.join("runs/a")), started.elapsed())
        });
        let at = scratch.path().join(number.to_string());
        fs::create_dir(&at).unwrap();
        let auto = [&start[..], &["--resume=auto"]].concat();
        loop {
            let mut arguments = auto.clone();
            let code = if random.unit() < 0.2 {
                tally.timeouts += 1;
                arguments.push("--max-minutes=0.0005");
                let output = records(&at, &arguments).output().unwrap();
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(matches!(output.status.code(), Some(0 | 3)), "{said}");
                output.status.code()
            } else {
                disturb(records(&at, &arguments).spawn().unwrap(), *took, &mut random, &mut tally)
            };
            if code == Some(0) {
                break;
            }
        }
        tally.finished += 1;
        let found = results(&at.join("runs/a"));
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            whole.keys().collect::<Vec<_>>(),
            "run {number}: {more:?}"
        );
        for (name, bytes) in &*whole {
            assert!(found[name] == *bytes, "run {number}, {more:?}: {} differs", name.display());
        }
        fs::remove_dir_all(&at).unwrap();
        number += 1;
        // A soak of many cycles takes hours; where it is cut short, this says how far it came.
        if number.is_multiple_of(RUNS.len()) {
            println!("{} cycles so far, all files the same", tally.cycles());
        }
    }
    println!("{} cycles, all files the same: {tally:?}", tally.cycles());
}
