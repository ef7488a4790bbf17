//! Going on with a run in another way: longer, with other free settings, as a branch, or whether it is there or
//! not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use records::train::checkpoint::Checkpoint;
use same_runs::{assert_same, results, succeed, text};

#[path = "support/same_runs.rs"]
mod same_runs;

/// Settings with which an epoch takes a tenth of a second.
const TINY: &[&str] = &[
    "--preset=tiny",
    "--synthetic-test-per-class=2",
    "--width=4",
    "--threads=1",
    "--device=cpu",
    "--exp-dir=runs",
    "--epochs=4",
];

fn records(at: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.arg("train").args(arguments).current_dir(at).output().unwrap()
}

/// Ends with `code` and one line that holds `parts`.
fn assert_ends(output: &Output, code: i32, parts: &[&str]) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

fn assert_says(printed: &str, parts: &[&str]) {
    for part in parts {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
}

/// A folder with `runs/a`, a finished run of four epochs, copied from one that is made once.
fn four_epochs() -> (tempfile::TempDir, PathBuf) {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        succeed(&records(folder.path(), &[TINY, &["--name=a"]].concat()));
        folder
    });
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/a");
    fs::create_dir_all(&run).unwrap();
    for entry in fs::read_dir(made.path().join("runs/a")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, run.join(path.file_name().unwrap())).unwrap();
    }
    (folder, run)
}

fn lines(run: &Path) -> Vec<String> {
    fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().map(String::from).collect()
}

fn config(run: &Path) -> String {
    fs::read_to_string(run.join("config.toml")).unwrap()
}

#[test]
fn a_finished_run_can_be_made_longer() {
    let (folder, run) = four_epochs();
    let before = lines(&run);
    let printed = succeed(&records(folder.path(), &["--resume=runs/a", "--epochs=6"]));
    assert_says(
        &printed,
        &[
            "resumed after 4 epochs with epochs 6 (was 4)",
            "the cosine schedule now falls over 6 epochs: epoch 4 has learning rate 0.012",
            ", after 0.007",
        ],
    );
    assert_eq!((lines(&run).len(), &lines(&run)[..4]), (6, &before[..]));
    assert_says(&config(&run), &["\nepochs = 6\n", "\n# Resumed after 4 epochs with epochs 6 (was 4)\n"]);
    let last = Checkpoint::read(&run.join("checkpoint-0006.safetensors")).unwrap();
    assert_eq!(last.config, config(&run));

    // Stopped on the way, the change holds without being given again, and is written down once.
    let (other, stopped) = four_epochs();
    let mut output = records(other.path(), &["--resume=runs/a", "--epochs=6", "--max-minutes=1e-9"]);
    for _ in 0..3 {
        assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
        output = records(other.path(), &["--resume=runs/a", "--max-minutes=1e-9"]);
    }
    succeed(&records(other.path(), &["--resume=runs/a"]));
    assert_same(&stopped, &run, "made longer");

    // And shorter, but not than what is done.
    assert_ends(
        &records(folder.path(), &["--resume=runs/a", "--epochs=5"]),
        2,
        &["--epochs 5", "has done 6"],
    );
    let fifth = "--resume=runs/a/checkpoint-0005.safetensors";
    succeed(&records(folder.path(), &[fifth, "--epochs=5"]));
    assert_eq!(lines(&run).len(), 5);
}

#[test]
fn a_run_of_the_step_schedule_keeps_its_rates() {
    let folder = tempfile::tempdir().unwrap();
    let step = ["--schedule=step", "--lr-decay-epochs=1,4"];
    succeed(&records(folder.path(), &[TINY, &step, &["--name=a"]].concat()));
    let long = [&TINY[..6], &step, &["--name=long", "--epochs=6"]].concat();
    succeed(&records(folder.path(), &long));
    let printed = succeed(&records(folder.path(), &["--resume=runs/a", "--epochs=6"]));
    assert_says(&printed, &["the step schedule does not depend on --epochs: epoch 4 has learning rate"]);
    // The same as if it had been so long from the beginning.
    assert_eq!(lines(&folder.path().join("runs/a")), lines(&folder.path().join("runs/long")));
}

#[test]
fn what_may_change_is_written_down() {
    let (folder, run) = four_epochs();
    fs::remove_file(run.join("checkpoint-0004.safetensors")).unwrap();
    let more = ["--resume=runs/a", "--threads=2", "--checkpoint-every=3", "--name=other"];
    let printed = succeed(&records(folder.path(), &more));
    assert_says(&printed, &["resumed after 3 epochs with checkpoint-every 3 (was 0), threads 2 (was 1)"]);
    assert_says(&config(&run), &["# Resumed after 3 epochs with checkpoint-every 3", "\nname = \"a\"\n"]);
    // Nothing changed, nothing written.
    let before = results(&run);
    succeed(&records(folder.path(), &["--resume=runs/a"]));
    assert!(before == results(&run));
    assert_ends(&records(folder.path(), &["--resume=runs/a", "--lr=1"]), 2, &["lr was", "--branch NAME"]);
}

#[test]
fn a_branch_is_a_new_run_from_a_checkpoint() {
    let (folder, run) = four_epochs();
    let before = results(&run);
    let from = "--resume=runs/a/checkpoint-0003.safetensors";
    let branch =
        |name: &str, more: &[&str]| records(folder.path(), &[&[from, "--branch", name], more].concat());
    let printed = succeed(&branch("b", &["--lr=0.002", "--epochs=5"]));
    let said =
        "from runs/a/checkpoint-0003.safetensors after 3 epochs with epochs 5 (was 4), lr 0.002 (was 0.05)";
    assert_says(&printed, &[&format!("branched {said}"), "best top-1"]);
    let made = folder.path().join("runs/b");
    assert_says(&config(&made), &[&format!("# Branched {said}\n"), "\nname = \"b\"\n", "\nlr = 0.002\n"]);
    assert_eq!((lines(&made).len(), &lines(&made)[..3]), (5, &lines(&run)[..3]));
    assert!(made.join("best.safetensors").exists());
    assert_ends(&branch("b", &[]), 2, &["--branch b", "is there already"]);

    // With the same settings, it is the run itself.
    assert!(!succeed(&branch("same", &[])).contains("starts anew"));
    let weights =
        |run: &Path| Checkpoint::read(&run.join("checkpoint-0004.safetensors")).unwrap().state_dict();
    assert!(weights(&folder.path().join("runs/same")) == weights(&run));
    assert_eq!(lines(&folder.path().join("runs/same")), lines(&run));

    // Another method, optimiser, debias; other candidate sets.
    let printed =
        succeed(&branch("solar", &["--method=solar", "--debias=none", "--est-epochs=0", "--epochs=5"]));
    assert_says(&printed, &["starts anew: ", "queue"]);
    let printed = succeed(&branch("adamw", &["--optimizer=adamw", "--lr=0.001", "--partial-rate=0.5"]));
    assert_says(&printed, &["the confidence rows, since the data differ", "the optimiser", "other data: "]);
    // Back from a method with settings of its own.
    let solar = ["--resume=runs/solar", "--branch=back", "--method=corr", "--epochs=6"];
    succeed(&records(folder.path(), &solar));

    assert_ends(&branch("wide", &["--width=8", "--epochs=9"]), 2, &["checkpoint-0003", "shape"]);
    assert_ends(&branch("done", &["--epochs=3"]), 2, &["--epochs 3", "has done 3 epochs; must be more"]);
    assert_ends(&records(folder.path(), &[TINY, &["--branch=c"]].concat()), 2, &["--resume"]);
    assert!(before == results(&run), "the run itself is as it was");
}

#[test]
fn a_branch_begins_between_two_epochs() {
    let (folder, run) = four_epochs();
    fs::remove_file(run.join("checkpoint-0004.safetensors")).unwrap();
    let stopped = records(folder.path(), &["--resume=runs/a", "--max-minutes=1e-9"]);
    assert_eq!(stopped.status.code(), Some(3));
    let inside = records(folder.path(), &["--resume=runs/a/stopped.safetensors", "--branch=b"]);
    assert_ends(&inside, 2, &["stopped.safetensors", "inside an epoch"]);
    assert_says(&succeed(&records(folder.path(), &["--resume=runs/a", "--branch=b"])), &["after 3 epochs"]);
}

#[test]
fn auto_starts_goes_on_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let auto = [TINY, &["--name=a", "--epochs=2", "--resume=auto", "--max-minutes=1e-9"]].concat();
    let mut calls = 0;
    loop {
        let output = records(folder.path(), &auto);
        calls += 1;
        match output.status.code() {
            Some(3) => assert!(calls < 20),
            code => {
                assert_eq!(code, Some(0), "{}", text(&output.stderr));
                break;
            }
        }
    }
    assert!(calls > 5, "{calls}");
    succeed(&records(folder.path(), &[TINY, &["--name=whole", "--epochs=2"]].concat()));
    let lines = |name: &str| fs::read(folder.path().join("runs").join(name).join("metrics.jsonl")).unwrap();
    assert!(lines("a") == lines("whole"));
    // Once more: nothing to do. Other settings are other settings.
    succeed(&records(folder.path(), &auto));
    assert_ends(&records(folder.path(), &[&auto[..], &["--lr=1"]].concat()), 2, &["lr was"]);
    let nameless = [TINY, &["--resume=auto"]].concat();
    assert_ends(&records(folder.path(), &nameless), 2, &["--resume auto", "--name"]);
    // A folder of something else is not written to.
    fs::create_dir(folder.path().join("runs/mine")).unwrap();
    fs::write(folder.path().join("runs/mine/notes.txt"), "mine").unwrap();
    let mine = [TINY, &["--resume=auto", "--name=mine"]].concat();
    assert_ends(&records(folder.path(), &mine), 2, &["runs/mine", "no config.toml and no checkpoint"]);
    assert_eq!(fs::read_dir(folder.path().join("runs/mine")).unwrap().count(), 1);
}
