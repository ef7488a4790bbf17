//! Runs that are stopped: by signals, by --max-minutes, inside an epoch and between two. Gone on with, they end
//! with the bytes of a run that was never stopped.
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use records::train::checkpoint::Checkpoint;
use rustix::process::{Pid, Signal, kill_process};
use same_runs::{assert_same, succeed, text};

#[path = "support/same_runs.rs"]
mod same_runs;

/// Settings with which an epoch of four steps takes a tenth of a second.
const TINY: &[&str] = &[
    "--preset=tiny",
    "--synthetic-test-per-class=2",
    "--width=4",
    "--threads=1",
    "--device=cpu",
    "--exp-dir=runs",
    "--name=a",
];

/// A program in the folder `at` to which SIGINT and SIGHUP mean what they do by default: what a shell runs in the
/// background ignores the one, what `nohup` runs the other, and so would all that the tests start.
fn program(program: &str, at: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec, signal() may be called.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            Ok(())
        })
    };
    command
}

/// `records train` in the folder `at`.
fn records(at: &Path, arguments: &[&str]) -> Command {
    let mut command = program(env!("CARGO_BIN_EXE_records"), at);
    command.arg("train").args(arguments);
    command
}

fn train(at: &Path, more: &[&str]) -> Command {
    records(at, &[TINY, more].concat())
}

/// Stopped with `code`, and one line that names `parts` and how to go on.
fn assert_stopped(output: &Output, code: i32, parts: &[&str]) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    for part in parts.iter().chain(&["go on with: records train --resume runs/a\n"]) {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

/// Stops a run after every step that it does, until it is done, and compares it with one that is not stopped.
fn stop_after_every_step(more: &[&str]) {
    let scratch = tempfile::tempdir().unwrap();
    let [whole, often] = ["whole", "often"].map(|name| scratch.path().join(name));
    for folder in [&whole, &often] {
        fs::create_dir(folder).unwrap();
    }
    succeed(&train(&whole, more).output().unwrap());

    let run = often.join("runs/a");
    let (mut inside, mut between) = (0, 0);
    let mut output = train(&often, &[more, &["--max-minutes=1e-9"]].concat()).output().unwrap();
    while output.status.code() == Some(3) {
        assert_stopped(&output, 3, &["stopped by --max-minutes 0.000000001 "]);
        let log = fs::read_to_string(run.join("log.txt")).unwrap();
        assert!(log.lines().last().unwrap().starts_with("stopped by"), "{log}");
        let page = fs::read_to_string(run.join("report.html")).unwrap();
        assert!(page.contains(">stopped<") && page.contains("stopped by --max-minutes"), "{page}");
        match Checkpoint::read(&run.join("stopped.safetensors")) {
            Ok(checkpoint) => {
                assert!(checkpoint.progress.steps_done > 0, "nothing to keep at the end of an epoch");
                inside += 1;
            }
            Err(_) => between += 1,
        }
        assert!(inside + between < 100, "no end");
        output = records(&often, &["--resume=runs/a", "--max-minutes=1e-9"]).output().unwrap();
    }
    succeed(&output);
    let (epochs, steps) = (fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count(), 4);
    assert_eq!((inside, between), (epochs * steps, epochs - 1), "{more:?}");
    assert_same(&run, &whole.join("runs/a"), &format!("{more:?}"));
}

#[test]
fn every_step_of_records_can_be_the_last() {
    stop_after_every_step(&["--debias=records", "--mixup=true", "--upd-start=1"]);
}

#[test]
fn every_step_of_solar_can_be_the_last() {
    stop_after_every_step(&["--method=solar", "--debias=none", "--est-epochs=1", "--epochs=2"]);
    stop_after_every_step(&[
        "--method=solar",
        "--debias=none",
        "--prior-from=steps",
        "--est-epochs=1",
        "--epochs=1",
    ]);
}

#[test]
fn every_step_of_pico_can_be_the_last() {
    stop_after_every_step(&["--method=pico", "--optimizer=adamw", "--lr=0.001"]);
}

/// Checkpoints every other epoch: one between two epochs is kept where no other holds it.
#[test]
fn stops_between_rare_checkpoints_lose_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let more = ["--epochs=5", "--checkpoint-every=5", "--lr=1e-30"];
    let [whole, often] = ["whole", "often"].map(|name| scratch.path().join(name));
    for folder in [&whole, &often] {
        fs::create_dir(folder).unwrap();
    }
    succeed(&train(&whole, &more).output().unwrap());
    let run = often.join("runs/a");
    let mut kept = 0;
    let mut output = train(&often, &[&more[..], &["--max-minutes=1e-9"]].concat()).output().unwrap();
    while output.status.code() == Some(3) {
        let stopped = Checkpoint::read(&run.join("stopped.safetensors"));
        kept += usize::from(stopped.is_ok_and(|stopped| stopped.progress.steps_done == 0));
        output = records(&often, &["--resume=runs/a", "--max-minutes=1e-9"]).output().unwrap();
    }
    succeed(&output);
    assert_eq!(kept, 4);
    assert_same(&run, &whole.join("runs/a"), "rare checkpoints");
}

/// A run under way, whose steps have begun.
fn start(command: &mut Command) -> Child {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let heading = lines.find(|line| line.as_ref().unwrap().starts_with("epoch      lr"));
    assert!(heading.is_some(), "the run has not begun");
    // Reads on, so that the run is not held up.
    std::thread::spawn(move || lines.count());
    std::thread::sleep(Duration::from_millis(100));
    child
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn signals_keep_the_state_and_a_resume_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let more = ["--epochs=25"];
    succeed(&train(scratch.path(), &more).output().unwrap());
    let whole = scratch.path().join("runs/a");
    let signals = [
        (Signal::INT, "SIGINT", 130),
        (Signal::TERM, "SIGTERM", 143),
        (Signal::HUP, "SIGHUP", 129),
        (Signal::USR1, "SIGUSR1", 138),
        (Signal::XCPU, "SIGXCPU", 152),
    ];
    let folder = scratch.path().join("stopped");
    fs::create_dir(&folder).unwrap();
    let mut command = train(&folder, &more);
    for (signal, name, code) in signals {
        let child = start(&mut command);
        send(&child, signal);
        assert_stopped(&child.wait_with_output().unwrap(), code, &[&format!("stopped by {name} ")]);
        command = records(&folder, &["--resume=runs/a"]);
    }
    let printed = succeed(&command.output().unwrap());
    assert!(printed.contains("resuming after"), "{printed}");
    assert_same(&folder.join("runs/a"), &whole, "five signals");
}

/// An epoch of one short step and a test of many batches.
const LONG_TEST: &[&str] = &[
    "--synthetic-train-per-class=12",
    "--synthetic-test-per-class=300",
    "--batch-size=32",
    "--width=8",
    "--epochs=2",
    "--lr=0.001",
];

/// Stops a run in the evaluation of an epoch, and goes on with it: what `more` makes of it.
fn stop_while_it_evaluates(more: &[&str]) {
    let scratch = tempfile::tempdir().unwrap();
    let settings = [LONG_TEST, more].concat();
    succeed(&train(scratch.path(), &settings).output().unwrap());
    let whole = scratch.path().join("runs/a");
    let times = fs::read_to_string(whole.join("times.jsonl")).unwrap();
    let times: serde_json::Value = serde_json::from_str(times.lines().next().unwrap()).unwrap();
    let [training, test] =
        ["training_seconds", "evaluation_seconds"].map(|name| times[name].as_f64().unwrap());

    let folder = scratch.path().join("stopped");
    fs::create_dir(&folder).unwrap();
    let run = folder.join("runs/a");
    let mut command = train(&folder, &settings);
    // A tenth of the way into the test, as far as the machine's load allows; again where that was not met.
    let mut met = 0;
    for _ in 0..20 {
        let child = start(&mut command);
        std::thread::sleep(Duration::from_secs_f64(training + 0.1 * test));
        let sent = Instant::now();
        send(&child, Signal::TERM);
        let output = child.wait_with_output().unwrap();
        command = records(&folder, &["--resume=runs/a"]);
        if output.status.success() {
            break;
        }
        assert_stopped(&output, 143, &["stopped by SIGTERM "]);
        if !text(&output.stderr).contains("after 1 of 1 steps") {
            continue;
        }
        let stopped = Checkpoint::read(&run.join("stopped.safetensors")).unwrap();
        assert_eq!(stopped.progress.steps_done, 1);
        assert!(sent.elapsed().as_secs_f64() < 0.7 * test, "{:?} of {test} s", sent.elapsed());
        met += 1;
        if met == 2 {
            break;
        }
    }
    assert!(met > 0, "no signal met the evaluation");
    let output = command.output().unwrap();
    // It may be done already.
    if output.status.code() != Some(0) {
        panic!("{}", text(&output.stderr));
    }
    assert_same(&run, &whole, &format!("{more:?}"));
}

#[test]
fn an_evaluation_is_left_and_begun_again() {
    stop_while_it_evaluates(&["--debias=records", "--mixup=true"]);
}

/// Whose class prior moves at the end of each epoch, by a pass over the training images.
#[test]
fn an_evaluation_of_solar_is_left_and_begun_again() {
    stop_while_it_evaluates(&["--method=solar", "--debias=none", "--est-epochs=1", "--epochs=1"]);
}

/// A step of several seconds.
const SLOW: &[&str] = &["--width=64", "--batch-size=16", "--epochs=1"];

#[test]
fn a_second_signal_ends_at_once_and_one_sent_twice_does_not() {
    let scratch = tempfile::tempdir().unwrap();
    let child = start(&mut train(scratch.path(), SLOW));
    send(&child, Signal::TERM);
    std::thread::sleep(Duration::from_millis(700));
    send(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr).as_str()), (Some(130), ""));
    assert!(!scratch.path().join("runs/a/stopped.safetensors").exists());

    // As `timeout` does.
    let child = start(&mut records(scratch.path(), &["--resume=runs/a"]));
    send(&child, Signal::TERM);
    send(&child, Signal::TERM);
    std::thread::sleep(Duration::from_millis(50));
    send(&child, Signal::TERM);
    assert_stopped(&child.wait_with_output().unwrap(), 143, &["SIGTERM in epoch 0 after 1 of 4 steps"]);
}

/// The letter of the state of a process, and the signals that it catches.
fn state_of(child: &Child) -> (String, u64) {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let field =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_string();
    (field("State:")[..1].into(), u64::from_str_radix(&field("SigCgt:"), 16).unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn other_signals_and_suspending_stay_as_they_are() {
    let scratch = tempfile::tempdir().unwrap();
    let [whole, suspended] = ["whole", "suspended"].map(|name| scratch.path().join(name));
    for folder in [&whole, &suspended] {
        fs::create_dir(folder).unwrap();
    }
    let more = ["--epochs=10"];
    succeed(&train(&whole, &more).output().unwrap());

    // SIGHUP is ignored from the start, as nohup does.
    let script = format!(
        "trap '' HUP; exec {} train {} {}",
        env!("CARGO_BIN_EXE_records"),
        TINY.join(" "),
        more.join(" ")
    );
    let mut command = program("bash", &suspended);
    command.args(["-c", &script]);
    let child = start(&mut command);
    let caught = state_of(&child).1;
    let catches = |signal: Signal| caught & (1 << (signal.as_raw() - 1)) != 0;
    let [mine, others] = [
        [Signal::INT, Signal::TERM, Signal::USR1, Signal::XCPU],
        [Signal::HUP, Signal::USR2, Signal::TSTP, Signal::CONT],
    ];
    assert!(mine.into_iter().all(catches) && !others.into_iter().any(catches), "{caught:x}");

    send(&child, Signal::HUP);
    send(&child, Signal::STOP);
    let started = Instant::now();
    while state_of(&child).0 != "T" {
        assert!(started.elapsed() < Duration::from_secs(10), "not suspended");
        std::thread::sleep(Duration::from_millis(10));
    }
    send(&child, Signal::CONT);
    succeed(&child.wait_with_output().unwrap());
    assert_same(&suspended.join("runs/a"), &whole.join("runs/a"), "suspended");
}

#[test]
fn minutes_are_a_positive_number() {
    let scratch = tempfile::tempdir().unwrap();
    for minutes in ["0", "-1", "inf", "NaN"] {
        let output = train(scratch.path(), &[&format!("--max-minutes={minutes}")]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("must be a positive number"), "{}", text(&output.stderr));
        assert!(!scratch.path().join("runs").exists());
    }
}
