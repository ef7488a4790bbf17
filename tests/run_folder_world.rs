//! A run folder in a world that is at fault: a file system that becomes read-only or has no locks, a clock that
//! jumps. Faults come from a library preloaded into the real binary (tests/support/failing_disk.rs).
#![cfg(target_os = "linux")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use preload::failing;
use same_runs::{assert_same, succeed, text};

#[path = "support/preload.rs"]
mod preload;
#[path = "support/same_runs.rs"]
mod same_runs;

/// Settings with which an epoch of two steps takes a tenth of a second.
const TINY: &[&str] = &[
    "train",
    "--preset=tiny",
    "--synthetic-test-per-class=2",
    "--synthetic-train-per-class=12",
    "--width=4",
    "--threads=1",
    "--device=cpu",
    "--exp-dir=runs",
    "--name=a",
    "--epochs=3",
];

fn records(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(arguments).current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A folder `at`, and a run in it that nothing happened to.
fn whole(at: &Path) -> std::path::PathBuf {
    fs::create_dir(at).unwrap();
    succeed(&records(at, TINY).output().unwrap());
    at.join("runs/a")
}

/// Ended with one line that names `part`.
fn one_line(output: &Output, part: &str) -> String {
    let line = text(&output.stderr);
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(line.contains(part), "{part:?} is not in {line:?}");
    line
}

/// From any of its writes on, a run finds its folder read-only: it ends with one line that says so, and goes on
/// when the folder is writable again.
#[test]
fn a_folder_that_becomes_read_only_ends_the_run_and_loses_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = whole(&scratch.path().join("whole"));
    let (mut number, mut ended) = (1, 0);
    loop {
        let at = scratch.path().join(number.to_string());
        fs::create_dir(&at).unwrap();
        let how = [("FAIL_AT", number.to_string()), ("FAIL_HOW", "readonly".into())];
        let how = how.each_ref().map(|(name, value)| (*name, value.as_str()));
        let output = failing(&mut records(&at, TINY), &how).output().unwrap();
        if output.status.success() {
            break;
        }
        ended += 1;
        let line = one_line(&output, "Read-only file system");
        let begun = at.join("runs/a/config.toml").exists();
        // A run that has begun has failed; before that, the folder may also be one that cannot be used.
        let codes: &[i32] = if begun { &[1] } else { &[1, 2] };
        assert!(codes.contains(&output.status.code().unwrap()), "step {number}: {line}");
        assert_eq!(
            line.contains("go on with: records train --resume runs/a"),
            begun,
            "step {number}: {line}"
        );
        // Nor can it be gone on with as long as it is read-only.
        let resume = ["train", "--resume=runs/a"];
        if begun {
            let from_the_first = [("FAIL_AT", "1"), ("FAIL_HOW", "readonly")];
            let refused = failing(&mut records(&at, &resume), &from_the_first).output().unwrap();
            assert!([Some(1), Some(2)].contains(&refused.status.code()), "{}", text(&refused.stderr));
            one_line(&refused, "Read-only file system");
        }
        let again = if begun { records(&at, &resume) } else { records(&at, TINY) };
        succeed(&{ again }.output().unwrap());
        assert_same(&at.join("runs/a"), &whole, &format!("read-only from step {number} on"));
        number += 5;
    }
    assert!(ended > 5, "{ended} runs ended");
}

/// Sets the times of all files of a run.
fn touch(run: &Path, time: SystemTime) {
    for entry in fs::read_dir(run).unwrap() {
        let file = File::options().append(true).open(entry.unwrap().path()).unwrap();
        file.set_modified(time).unwrap();
    }
}

/// The clock is set forward and back by decades before each resume, to before 1970 as well, and files are of the
/// far future and past: the results are the same, and no time is negative.
#[test]
fn a_clock_that_jumps_changes_nothing() {
    const YEAR: i64 = 31_556_952;
    let scratch = tempfile::tempdir().unwrap();
    let whole = whole(&scratch.path().join("whole"));
    let at = scratch.path().join("jumps");
    fs::create_dir(&at).unwrap();
    let run = at.join("runs/a");
    let under = |arguments: &[&str], years: i64| {
        let ahead = (years * YEAR).to_string();
        failing(&mut records(&at, arguments), &[("FAIL_CLOCK", &ahead)]).output().unwrap()
    };
    let jumps = [30, -20, -90, 0, 200];
    let mut output = under(&[TINY, &["--max-minutes=1e-9"]].concat(), 5);
    let mut stops = 0;
    while output.status.code() == Some(3) {
        let past = SystemTime::UNIX_EPOCH - Duration::from_secs(1 << 30);
        let future = SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33);
        touch(&run, if stops % 2 == 0 { future } else { past });
        let years = jumps[stops % jumps.len()];
        let watched = succeed(&under(&["watch", "runs/a"], years));
        assert!(watched.contains("stopped; "), "{watched}");
        succeed(&under(&["report", "runs/a"], years));
        output = under(&["train", "--resume=runs/a", "--max-minutes=1e-9"], years);
        stops += 1;
        assert!(stops < 50, "no end");
    }
    succeed(&output);
    assert!(stops > jumps.len(), "{stops} stops");
    assert_same(&run, &whole, "a clock that jumps");
    let times = fs::read_to_string(run.join("times.jsonl")).unwrap();
    for line in times.lines() {
        let times: serde_json::Value = serde_json::from_str(line).unwrap();
        for (name, value) in times.as_object().unwrap() {
            assert!(value.as_f64().is_some_and(|value| value >= 0.0), "{name}: {value}");
        }
    }
    assert_eq!(times.lines().count(), 3);
}

/// Under a clock that is ahead, a page says that time: the fault reaches the program.
#[test]
fn the_page_of_a_run_says_when_it_was_written() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = records(scratch.path(), &[TINY, &["--epochs=10000"]].concat());
    let ahead = (100 * 31_556_952_i64).to_string();
    let mut child = failing(&mut command, &[("FAIL_CLOCK", &ahead)]).spawn().unwrap();
    let mut rows = BufReader::new(child.stdout.take().unwrap()).lines();
    // The page of an epoch is written before the row of the one after the next.
    let row = rows.find(|line| line.as_ref().unwrap().starts_with("    2 "));
    assert!(row.is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    let run = scratch.path().join("runs/a");
    let page = |run: &Path| fs::read_to_string(run.join("report.html")).unwrap();
    let killed = page(&run);
    assert!(
        killed.contains(">running after ") && killed.contains("<p class=\"soft\">Written 21"),
        "{killed}"
    );
    assert!(killed.contains("http-equiv=\"refresh\""));
    succeed(&records(scratch.path(), &["report", "runs/a"]).output().unwrap());
    let again = page(&run);
    assert!(
        again.contains(">stopped<") && !again.contains("Written") && !again.contains("refresh"),
        "{again}"
    );
}

/// Whichever way a file system says that it has no locks.
#[test]
fn file_systems_without_locks_are_known_by_all_their_errors() {
    const ENOSYS: &str = "38";
    const ENOLCK: &str = "37";
    const EACCES: &str = "13";
    for error in [ENOSYS, ENOLCK] {
        let scratch = tempfile::tempdir().unwrap();
        let no_locks = [("FAIL_FLOCK", error)];
        let printed = succeed(&failing(&mut records(scratch.path(), TINY), &no_locks).output().unwrap());
        assert!(printed.contains("this file system has no locks"), "{printed}");
        let run = scratch.path().join("runs/a");
        assert!(!run.join("owner").exists(), "it goes with the process");
        // Another machine has it.
        fs::write(run.join("owner"), "elsewhere boot 1 1\n").unwrap();
        let mut command = records(scratch.path(), &["train", "--resume=runs/a", "--epochs=4"]);
        let output = failing(&mut command, &no_locks).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        one_line(&output, "belongs to a process of another machine");
        fs::remove_file(run.join("owner")).unwrap();
        succeed(&failing(&mut command, &no_locks).output().unwrap());
    }
    // Any other error is none that may be passed over: two processes could write at once.
    let scratch = tempfile::tempdir().unwrap();
    let output = failing(&mut records(scratch.path(), TINY), &[("FAIL_FLOCK", EACCES)]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    one_line(&output, "Permission denied");
}
