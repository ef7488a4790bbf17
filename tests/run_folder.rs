//! The run folder as a ledger: kills and full disks at every step, files that are lost, damaged or of another computation, going
//! back, locks. Faults come from a library preloaded into the real binary (tests/support/failing_disk.rs).
#![cfg(target_os = "linux")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use preload::failing;
use records::train::checkpoint::Checkpoint;

#[path = "support/preload.rs"]
mod preload;

/// Settings with which an epoch takes a tenth of a second.
const TINY: &[&str] = &[
    "--preset=tiny",
    "--synthetic-test-per-class=2",
    "--synthetic-train-per-class=12",
    "--width=4",
    "--threads=1",
    "--device=cpu",
    "--exp-dir=runs",
    "--name=a",
];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `records train` in the folder `at`.
fn records(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.arg("train").args(arguments).current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn train(at: &Path, more: &[&str]) -> Command {
    records(at, &[TINY, more].concat())
}

fn resume(at: &Path, path: &str) -> Output {
    records(at, &["--resume", path]).output().unwrap()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
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

/// Every file of a run but those that say what happened and when, such as the report, which shows wall times.
fn results(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(run).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        if path.is_dir() {
            for (inner, bytes) in results(&path) {
                found.insert(format!("{name}/{inner}"), bytes);
            }
        } else if !["log.txt", "times.jsonl", "report.html"].contains(&name.as_str()) {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

fn assert_same(run: &Path, whole: &BTreeMap<String, Vec<u8>>, what: &str) {
    let found = results(run);
    assert_eq!(found.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in whole {
        assert!(found[name] == *bytes, "{what}: {name} differs");
    }
}

/// A folder with a run of six epochs that was never stopped, made once: the best is epoch 1.
fn six_epochs() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        succeed(&train(folder.path(), &["--epochs=6"]).output().unwrap());
        folder
    });
    folder.path()
}

/// A copy of it, and its `runs/a`.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/a");
    fs::create_dir_all(&run).unwrap();
    for entry in fs::read_dir(six_epochs().join("runs/a")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, run.join(path.file_name().unwrap())).unwrap();
    }
    (folder, run)
}

fn whole() -> BTreeMap<String, Vec<u8>> {
    results(&six_epochs().join("runs/a"))
}

fn checkpoint(run: &Path, done: usize) -> PathBuf {
    run.join(format!("checkpoint-{done:04}.safetensors"))
}

fn lines(run: &Path) -> Vec<String> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    text.lines().map(String::from).collect()
}

fn edit_line(run: &Path, number: usize, from: &str, to: &str) {
    let mut lines = lines(run);
    assert!(lines[number].contains(from));
    lines[number] = lines[number].replace(from, to);
    fs::write(run.join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
}

/// What must hold at any instant: the newest checkpoint's epochs have their lines, and its best epoch is in best.safetensors, or a
/// better one.
fn assert_holds(run: &Path, what: &str) {
    let mut numbered: Vec<PathBuf> = fs::read_dir(run)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-"))
        .collect();
    numbered.sort();
    let Some(newest) = numbered.last() else { return };
    let progress = Checkpoint::read(newest).unwrap().progress;
    assert!(lines(run).len() >= progress.epochs_done, "{what}: a line is missing");
    if progress.best_top1 >= 0.0 {
        let best = Checkpoint::read(&run.join("best.safetensors")).unwrap().progress;
        assert!(best.epochs_done > progress.best_epoch, "{what}: the best file is older than the checkpoint");
        assert!(best.best_top1 >= progress.best_top1 || best.epochs_done > progress.epochs_done, "{what}");
    }
}

/// Runs with a fault at every step of `stride`, goes on, and compares every byte. Returns the number of steps.
fn at_every_step(more: &[&str], how: &str, stride: usize) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("whole");
    fs::create_dir(&at).unwrap();
    let until_done: Vec<&str> = more.iter().copied().filter(|flag| !flag.starts_with("--max-min")).collect();
    succeed(&train(&at, &until_done).output().unwrap());
    let whole = results(&at.join("runs/a"));
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(usize::MAX));
    let one = |number: usize| {
        let at = folder.path().join(number.to_string());
        fs::create_dir(&at).unwrap();
        let step = number.to_string();
        let output =
            failing(&mut train(&at, more), &[("FAIL_AT", &step), ("FAIL_HOW", how)]).output().unwrap();
        // 3: it was stopped by --max-minutes.
        if [Some(0), Some(3)].contains(&output.status.code()) {
            ended.fetch_min(number, Ordering::SeqCst);
        } else if how == "full" {
            assert_ends(&output, 1, &["No space left"]);
        }
        let (run, what) = (at.join("runs/a"), format!("{how} at step {number}"));
        if run.exists() {
            assert_holds(&run, &what);
        }
        let begun = run.join("config.toml").exists();
        succeed(&if begun { resume(&at, "runs/a") } else { train(&at, &until_done).output().unwrap() });
        assert_same(&run, &whole, &what);
        fs::remove_dir_all(&at).unwrap();
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = 1 + stride * next.fetch_add(1, Ordering::SeqCst);
                    if number > ended.load(Ordering::SeqCst) || number > 500 {
                        break;
                    }
                    one(number);
                }
            });
        }
    });
    ended.load(Ordering::SeqCst)
}

#[test]
fn a_kill_at_any_step_and_a_resume_leave_the_same_bytes() {
    let steps = at_every_step(&["--epochs=3"], "kill", 1);
    assert!((40..500).contains(&steps), "{steps} steps");
}

/// While the state inside an epoch is written, and while the run goes on from it.
#[test]
fn a_kill_at_any_step_of_stopping_leaves_the_same_bytes() {
    let steps = at_every_step(&["--epochs=2", "--max-minutes=1e-9"], "kill", 1);
    assert!((8..40).contains(&steps), "{steps} steps");

    // A run that was stopped in its third epoch, gone on with and killed on the way.
    let (folder, run) = copy();
    fs::remove_dir_all(&run).unwrap();
    let mut stopped = train(folder.path(), &["--epochs=6", "--max-minutes=1e-9"]).output().unwrap();
    while lines(&run).len() < 2 {
        stopped = records(folder.path(), &["--resume=runs/a", "--max-minutes=1e-9"]).output().unwrap();
    }
    assert_eq!(stopped.status.code(), Some(3));
    stopped = records(folder.path(), &["--resume=runs/a", "--max-minutes=1e-9"]).output().unwrap();
    assert!(text(&stopped.stderr).contains("in epoch 2 after 1 of"), "{}", text(&stopped.stderr));
    for number in (1..60).step_by(3) {
        let at = folder.path().join(number.to_string());
        fs::create_dir_all(at.join("runs/a")).unwrap();
        for (name, bytes) in results(&run) {
            fs::write(at.join("runs/a").join(name), bytes).unwrap();
        }
        let step = number.to_string();
        let mut command = records(&at, &["--resume", "runs/a"]);
        let output = failing(&mut command, &[("FAIL_AT", &step), ("FAIL_HOW", "kill")]).output().unwrap();
        succeed(&resume(&at, "runs/a"));
        assert_same(&at.join("runs/a"), &whole(), &format!("kill {number} after a stop"));
        if output.status.success() {
            break;
        }
    }
}

/// An earlier checkpoint that is named goes before the later state of a stopped run, which is set aside.
#[test]
fn the_state_of_a_stopped_run_is_left_for_the_checkpoint_that_is_named() {
    let (folder, run) = copy();
    fs::remove_file(checkpoint(&run, 6)).unwrap();
    let stopped = records(folder.path(), &["--resume=runs/a", "--max-minutes=1e-9"]).output().unwrap();
    assert_eq!(stopped.status.code(), Some(3), "{}", text(&stopped.stderr));
    let printed = succeed(&resume(folder.path(), "runs/a/checkpoint-0005.safetensors"));
    assert!(printed.contains("stopped.safetensors moved to runs/a/superseded"), "{printed}");
    fs::remove_dir_all(run.join("superseded")).unwrap();
    assert_same(&run, &whole(), "after a named checkpoint");

    // One that is damaged is passed over.
    fs::remove_file(checkpoint(&run, 6)).unwrap();
    fs::write(run.join("stopped.safetensors"), "x").unwrap();
    let printed = succeed(&resume(folder.path(), "runs/a"));
    assert!(printed.contains("passing over runs/a/stopped.safetensors: not a whole"), "{printed}");
    assert!(run.join("superseded/stopped.safetensors").exists());
}

/// A run that diverges twice in its second epoch and goes back: killed at any moment, it goes back to the same
/// state with the same learning rate.
#[test]
fn a_kill_at_any_step_of_going_back_after_a_divergence_leaves_the_same_bytes() {
    let more = ["--epochs=3", "--mixup=true", "--lr=0.01", "--alpha=2000", "--on-divergence=rollback"];
    let steps = at_every_step(&more, "kill", 9);
    assert!((60..500).contains(&steps), "{steps} steps");

    let folder = tempfile::tempdir().unwrap();
    let printed = succeed(&train(folder.path(), &more).output().unwrap());
    assert_eq!(printed.matches("training has diverged in epoch 1: the logits of ").count(), 2, "{printed}");
    assert!(printed.contains("going back to 1 epochs, with learning rates times 0.25"), "{printed}");
    let rates: Vec<f64> = lines(&folder.path().join("runs/a"))
        .iter()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["learning_rate"].as_f64().unwrap()
        })
        .collect();
    // The cosine over three epochs has fallen to 3/4 of its height in epoch 1.
    assert!((rates[1] / (0.01 * (0.001 + 0.999 * 0.75)) - 0.25).abs() < 1e-9, "{rates:?}");
    let last = Checkpoint::read(&checkpoint(&folder.path().join("runs/a"), 3)).unwrap();
    assert_eq!(last.progress.rollbacks, 2);

    // Without a checkpoint to go back to, and after five times, it has failed.
    let hopeless = ["--lr=1e30", "--on-divergence=rollback", "--name=b"];
    assert_ends(
        &records(folder.path(), &[&TINY[..7], &hopeless].concat()).output().unwrap(),
        1,
        &["in epoch 0"],
    );
    let hopeless = ["--mixup=true", "--alpha=1e30", "--on-divergence=rollback", "--name=c"];
    let ended = records(folder.path(), &[&TINY[..7], &hopeless].concat()).output().unwrap();
    assert_ends(&ended, 1, &["after going back 5 times: ", "in epoch 1"]);
    assert!(checkpoint(&folder.path().join("runs/c"), 1).exists());
}

/// Made again or gone on with, a branch is whole; the run that it comes from is not touched.
#[test]
fn a_kill_at_any_step_of_branching_leaves_a_whole_branch_or_none() {
    let (folder, run) = copy();
    let from = ["--resume=runs/a/checkpoint-0005.safetensors", "--branch=b", "--lr=0.001"];
    succeed(&records(folder.path(), &from).output().unwrap());
    let branch = folder.path().join("runs/b");
    let wanted = results(&branch);
    for number in (1..40).step_by(2) {
        fs::remove_dir_all(&branch).unwrap();
        let step = number.to_string();
        let mut command = records(folder.path(), &from);
        let how = [("FAIL_AT", step.as_str()), ("FAIL_HOW", "kill"), ("FAIL_UNDER", "runs/b")];
        if failing(&mut command, &how).output().unwrap().status.success() {
            fs::create_dir_all(&branch).unwrap();
            break;
        }
        let again = records(folder.path(), &from).output().unwrap();
        if !again.status.success() {
            // It is there, and has its state.
            succeed(&resume(folder.path(), "runs/b"));
        }
        // The settings of a checkpoint are those of the folder.
        assert_same(&branch, &wanted, &format!("kill {number} of a branch"));
    }
    assert_same(&run, &whole(), "the run that was branched from");
}

/// Over the boundary of SoLar's stages, where the best begins anew.
#[test]
fn a_kill_at_any_step_of_solar_leaves_the_same_bytes() {
    let steps =
        at_every_step(&["--method=solar", "--debias=none", "--est-epochs=1", "--epochs=2"], "kill", 3);
    assert!((40..500).contains(&steps), "{steps} steps");
}

#[test]
fn a_full_disk_is_a_failed_run_that_goes_on_when_there_is_room() {
    let steps = at_every_step(&["--epochs=3", "--checkpoint-every=2"], "full", 3);
    assert!((35..500).contains(&steps), "{steps} steps");
}

/// Kills while going back to an earlier checkpoint: whatever was moved so far, nothing is lost and the run can be gone on with.
#[test]
fn a_kill_while_going_back_loses_nothing() {
    let mut completed = false;
    for step in (1..200).step_by(7) {
        let (folder, run) = copy();
        let step = step.to_string();
        let mut command = records(folder.path(), &["--resume", "runs/a/checkpoint-0002.safetensors"]);
        let output = failing(&mut command, &[("FAIL_AT", &step), ("FAIL_HOW", "kill")]).output().unwrap();
        completed |= output.status.success();
        succeed(&resume(folder.path(), "runs/a"));
        // The run's own files are those of a run never stopped.
        for (name, bytes) in whole() {
            assert!(fs::read(run.join(&name)).unwrap() == bytes, "step {step}: {name} differs");
        }
        if output.status.success() {
            break;
        }
    }
    assert!(completed);
}

#[test]
fn going_on_from_an_earlier_checkpoint_sets_the_later_ones_aside() {
    let (folder, run) = copy();
    let printed = succeed(&resume(folder.path(), "runs/a/checkpoint-0002.safetensors"));
    for part in
        ["checkpoint-0006.safetensors moved to runs/a/superseded", "resuming after 2 epochs", "later lines"]
    {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
    let (found, before) = (results(&run), whole());
    for (name, bytes) in &before {
        assert!(found[name] == *bytes, "{name} differs");
    }
    let aside: BTreeSet<&str> = found.keys().filter_map(|name| name.strip_prefix("superseded/")).collect();
    assert_eq!(
        aside,
        BTreeSet::from(["checkpoint-0005.safetensors", "checkpoint-0006.safetensors", "metrics.jsonl"])
    );
    assert_eq!(text(&found["superseded/metrics.jsonl"]).lines().collect::<Vec<_>>(), lines(&run)[2..]);
    // Once more: into a folder of its own.
    succeed(&resume(folder.path(), "runs/a/checkpoint-0005.safetensors"));
    assert!(run.join("superseded-2/checkpoint-0006.safetensors").exists());
}

#[test]
fn lines_are_kept_as_they_are() {
    // Damaged in the middle of what is done, or all of the file removed: said, and nothing else.
    for (number, changed) in [(0, true), (3, true), (0, false)] {
        let (folder, run) = copy();
        fs::remove_file(checkpoint(&run, 6)).unwrap();
        if changed {
            edit_line(&run, number, "\"loss\"", "\"lXss\"");
        } else {
            fs::write(run.join("metrics.jsonl"), "").unwrap();
        }
        let before = lines(&run);
        let printed = succeed(&resume(folder.path(), "runs/a"));
        let (said, after) = if changed {
            (format!("line {} cannot be read", number + 1), before)
        } else {
            ("no line of epoch 0-4".into(), vec![lines(six_epochs().join("runs/a").as_path())[5].clone()])
        };
        assert!(printed.contains(&said), "{said:?} is not in {printed}");
        assert_eq!(lines(&run), after);
    }
}

#[test]
fn lines_of_epochs_that_are_run_again_are_compared() {
    // Of another computation: set aside, not dropped.
    let (folder, run) = copy();
    fs::remove_file(checkpoint(&run, 6)).unwrap();
    edit_line(&run, 5, "\"loss\":", "\"loss\":1");
    let other = lines(&run)[5].clone();
    let printed = succeed(&resume(folder.path(), "runs/a"));
    assert!(printed.contains("epoch 5 came out otherwise than its line says"), "{printed}");
    assert_eq!(fs::read_to_string(run.join("superseded/metrics.jsonl")).unwrap(), other + "\n");
    fs::remove_dir_all(run.join("superseded")).unwrap();
    assert_same(&run, &whole(), "after another computation");

    // As earlier versions wrote them, with the times: the same results, so they stay.
    let (folder, run) = copy();
    fs::remove_file(checkpoint(&run, 6)).unwrap();
    let old: Vec<String> =
        lines(&run).iter().map(|line| line[..line.len() - 1].to_string() + ",\"seconds\":1.5}").collect();
    fs::write(run.join("metrics.jsonl"), old.join("\n") + "\n").unwrap();
    let printed = succeed(&resume(folder.path(), "runs/a"));
    assert!(printed.contains("resuming after 5 epochs") && !printed.contains("superseded"), "{printed}");
    assert_eq!(lines(&run), old);

    // Cut short, or only its end missing.
    for cut in [1, 40] {
        let (folder, run) = copy();
        fs::remove_file(checkpoint(&run, 6)).unwrap();
        let metrics = fs::read(run.join("metrics.jsonl")).unwrap();
        fs::write(run.join("metrics.jsonl"), &metrics[..metrics.len() - cut]).unwrap();
        let printed = succeed(&resume(folder.path(), "runs/a"));
        assert_eq!(
            printed.contains("was cut short and is removed; it began {\"epoch\":5"),
            cut > 1,
            "{printed}"
        );
        assert_same(&run, &whole(), "after a line that was cut short");
    }
}

#[test]
fn a_best_that_is_lost_is_made_again_or_said_to_be_lost() {
    assert!(
        checkpoint(&six_epochs().join("runs/a"), 2).exists(),
        "the best epoch is 1, and its checkpoint is kept"
    );
    type Change = fn(&Path);
    let changes: [(&str, Change); 3] = [
        ("is missing", |run| fs::remove_file(run.join("best.safetensors")).unwrap()),
        ("holds 5 epochs", |run| _ = fs::copy(checkpoint(run, 5), run.join("best.safetensors")).unwrap()),
        ("not a whole safetensors file", |run| fs::write(run.join("best.safetensors"), "x").unwrap()),
    ];
    for (problem, change) in changes {
        let (folder, run) = copy();
        change(&run);
        let printed = succeed(&resume(folder.path(), "runs/a"));
        assert!(printed.contains(problem) && printed.contains("made again, of epoch 1"), "{printed}");
        assert!(printed.contains("(epoch 1) |"), "{printed}");
        assert!(fs::read(run.join("best.safetensors")).unwrap() == whole()["best.safetensors"]);

        let (folder, run) = copy();
        change(&run);
        fs::remove_file(checkpoint(&run, 2)).unwrap();
        let printed = succeed(&resume(folder.path(), "runs/a"));
        assert!(printed.contains("(epoch 1, its state is in no file) |"), "{printed}");
        assert!(!run.join("best.safetensors").exists());
    }
}

#[test]
fn what_is_whole_is_offered_when_checkpoints_are_lost() {
    let (folder, run) = copy();
    for done in [2, 5, 6] {
        fs::remove_file(checkpoint(&run, done)).unwrap();
    }
    let offer = "records train --resume runs/a/best.safetensors";
    assert_ends(&resume(folder.path(), "runs/a"), 2, &["no numbered checkpoint is left", "2 epochs", offer]);
    let before = results(&run);
    assert_ends(&resume(folder.path(), "runs/a"), 2, &[offer]);
    assert!(before == results(&run), "a refusal changes nothing");
    succeed(&resume(folder.path(), "runs/a/best.safetensors"));
    let mut expected = whole();
    expected.remove("checkpoint-0002.safetensors");
    assert_same(&run, &expected, "from the best");

    let (folder, run) = copy();
    for done in [2, 5, 6] {
        fs::write(checkpoint(&run, done), "x").unwrap();
    }
    assert_ends(&resume(folder.path(), "runs/a"), 2, &["checkpoint-0006", "not a whole", offer]);
    assert_ends(&resume(folder.path(), "runs/a/checkpoint-0005.safetensors"), 2, &["checkpoint-0005"]);

    // One that is whole but does not fit is passed over by its name, and so is one whose name does not say what it holds.
    let (folder, run) = copy();
    fs::rename(checkpoint(&run, 6), checkpoint(&run, 9)).unwrap();
    let printed = succeed(&resume(folder.path(), "runs/a"));
    assert!(printed.contains("checkpoint-0009.safetensors: holds 6 epochs, not 9"), "{printed}");
    assert!(printed.contains("resuming after 5 epochs"), "{printed}");
    assert!(
        fs::read(run.join("superseded/checkpoint-0009.safetensors")).unwrap()
            == whole()["checkpoint-0006.safetensors"]
    );
    fs::remove_dir_all(run.join("superseded")).unwrap();
    assert_same(&run, &whole(), "after a checkpoint under another name");
}

/// They are written once. Damage in place, which nothing here does, then is damage of both, and is reported.
#[test]
fn the_best_and_its_checkpoint_are_one_file() {
    let made = six_epochs().join("runs/a");
    let number = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(number(&made.join("best.safetensors")), number(&checkpoint(&made, 2)));
    assert_ne!(number(&checkpoint(&made, 5)), number(&checkpoint(&made, 6)));

    let (folder, run) = copy();
    fs::remove_file(checkpoint(&run, 2)).unwrap();
    fs::hard_link(run.join("best.safetensors"), checkpoint(&run, 2)).unwrap();
    fs::write(checkpoint(&run, 2), "x").unwrap();
    let printed = succeed(&resume(folder.path(), "runs/a"));
    assert!(printed.contains("best.safetensors: not a whole safetensors file"), "{printed}");
    assert!(printed.contains("(epoch 1, its state is in no file) |"), "{printed}");
}

/// Where links cannot be made, the checkpoint is written.
#[test]
fn a_file_system_without_links_gets_two_files() {
    let folder = tempfile::tempdir().unwrap();
    let no_links = [("FAIL_LINKS", "1")];
    succeed(&failing(&mut train(folder.path(), &["--epochs=6"]), &no_links).output().unwrap());
    let run = folder.path().join("runs/a");
    assert_same(&run, &whole(), "without links");
    assert_eq!(fs::metadata(run.join("best.safetensors")).unwrap().nlink(), 1);
}

#[test]
fn settings_that_are_not_whole_are_never_completed_from_defaults() {
    let whole_config = whole()["config.toml"].clone();
    for length in [0, 60, whole_config.len() / 2, whole_config.len() - 5] {
        let (folder, run) = copy();
        fs::write(run.join("config.toml"), &whole_config[..length]).unwrap();
        assert_ends(&resume(folder.path(), "runs/a"), 2, &["config.toml", "checkpoints hold its settings"]);
        fs::remove_file(run.join("config.toml")).unwrap();
        let printed = succeed(&resume(folder.path(), "runs/a"));
        assert!(printed.contains("config.toml was missing: made again from the checkpoint"), "{printed}");
        assert_same(&run, &whole(), "after config.toml was lost");
    }
}

#[test]
fn a_checkpoint_alone_in_a_folder_can_be_gone_on_with() {
    let (folder, run) = copy();
    let alone = folder.path().join("alone");
    fs::create_dir(&alone).unwrap();
    fs::copy(checkpoint(&run, 2), alone.join("x.safetensors")).unwrap();
    // Named without a folder.
    let printed = succeed(&resume(&alone, "x.safetensors"));
    for part in ["config.toml was missing", "no line of epoch 0-1"] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
    let (found, whole) = (results(&alone), whole());
    for name in ["config.toml", "checkpoint-0005.safetensors", "checkpoint-0006.safetensors"] {
        assert!(found[name] == whole[name], "{name} differs");
    }
    assert_eq!(lines(&alone), lines(&run)[2..]);

    let strange = folder.path().join("strange");
    fs::create_dir(&strange).unwrap();
    fs::copy(checkpoint(&run, 2), strange.join("x.safetensors")).unwrap();
    fs::write(strange.join("notes.txt"), "mine").unwrap();
    assert_ends(&resume(folder.path(), "strange/x.safetensors"), 2, &["strange", "a folder of its own"]);
    assert_eq!(fs::read_dir(&strange).unwrap().count(), 2);
}

/// A run that has done its first epoch.
fn start(command: &mut Command, run: &Path) -> Child {
    let child = command.spawn().unwrap();
    let has_begun = || {
        std::thread::sleep(Duration::from_millis(50));
        run.join("metrics.jsonl").exists()
    };
    assert!((0..600).any(|_| has_begun()), "the run has not begun");
    child
}

#[test]
fn a_folder_belongs_to_one_process_whatever_happens_to_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/a");
    let first = start(&mut train(folder.path(), &["--epochs=10000"]), &run);
    fs::remove_file(run.join("lock")).unwrap();
    assert_ends(&resume(folder.path(), "runs/a"), 2, &["another process is running"]);
    // Moved away: the run ends instead of writing to a folder that is made in its place.
    fs::rename(&run, folder.path().join("moved")).unwrap();
    fs::create_dir(&run).unwrap();
    let ended = first.wait_with_output().unwrap();
    assert_ends(&ended, 1, &["runs/a", "moved or removed", "--resume runs/a"]);
    assert_eq!(fs::read_dir(&run).unwrap().count(), 0);
    let log = fs::read_to_string(folder.path().join("moved/log.txt")).unwrap();
    assert!(log.lines().last().unwrap().starts_with("failed: "), "{log}");
}

#[test]
fn a_folder_that_is_removed_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/a");
    let child = start(&mut train(folder.path(), &["--epochs=10000"]), &run);
    // Files may still be written into it meanwhile.
    while run.exists() {
        let _ = fs::remove_dir_all(&run);
    }
    assert_ends(&child.wait_with_output().unwrap(), 1, &["runs/a", "moved or removed"]);
    assert!(!run.exists());
}

#[test]
fn a_file_system_without_locks_is_no_other_process() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("runs/a");
    let no_locks = [("FAIL_FLOCK", "95")];
    let mut first = start(failing(&mut train(folder.path(), &["--epochs=10000"]), &no_locks), &run);
    let mut second = records(folder.path(), &["--resume", "runs/a"]);
    assert_ends(&failing(&mut second, &no_locks).output().unwrap(), 2, &["another process is running"]);
    first.kill().unwrap();
    let printed = text(&first.wait_with_output().unwrap().stdout);
    assert!(printed.contains("no locks") && printed.contains("owner"), "{printed}");
    // What a killed process left is taken over, and gone at the end.
    let mut third = train(folder.path(), &["--epochs=10000"]);
    assert_ends(&failing(&mut third, &no_locks).output().unwrap(), 2, &["is there already"]);
    let (folder, run) = copy();
    fs::remove_file(checkpoint(&run, 6)).unwrap();
    fs::write(run.join("owner"), "elsewhere boot 1 1\n").unwrap();
    let mut command = records(folder.path(), &["--resume", "runs/a"]);
    assert_ends(
        &failing(&mut command, &no_locks).output().unwrap(),
        2,
        &["another machine", "remove the file"],
    );
    fs::write(run.join("owner"), "").unwrap();
    succeed(&failing(&mut command, &no_locks).output().unwrap());
    assert_same(&run, &whole(), "without locks");
}

#[test]
fn a_limit_on_file_sizes_is_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        format!("ulimit -f 100; exec {} train {} --epochs=2", env!("CARGO_BIN_EXE_records"), TINY.join(" "));
    let output = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
    assert_ends(&output, 1, &["best.safetensors", "File too large", "free space", "--resume runs/a"]);
    succeed(&resume(folder.path(), "runs/a"));
}

#[test]
fn pipes_in_a_run_folder_are_refused_and_not_waited_on() {
    for name in
        ["metrics.jsonl", "times.jsonl", "log.txt", "lock", "config.toml", "checkpoint-0006.safetensors"]
    {
        let (folder, run) = copy();
        fs::remove_file(run.join(name)).unwrap();
        assert!(Command::new("mkfifo").arg(run.join(name)).status().unwrap().success());
        let mut command = Command::new("timeout");
        command.args(["60", env!("CARGO_BIN_EXE_records"), "train", "--resume", "runs/a"]);
        let output = command.current_dir(folder.path()).output().unwrap();
        let code = output.status.code();
        // A checkpoint is passed over and moved away; the lock file does not matter where the folder itself is locked.
        let passed_over = ["lock", "checkpoint-0006.safetensors"].contains(&name);
        assert_eq!(code, Some(if passed_over { 0 } else { 2 }), "{name}: {}", text(&output.stderr));
    }
}

/// Case: a score that came back an ulp lower made a tie a new best.
#[test]
fn a_tie_stays_a_tie_after_a_resume() {
    let settings = ["--synthetic-test-per-class=9", "--width=8", "--epochs=6", "--lr=0.003", "--seed=13"];
    let folder = tempfile::tempdir().unwrap();
    let best = |printed: &str| printed.lines().find(|line| line.contains("best top-1")).map(String::from);
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    fs::create_dir(&whole).unwrap();
    fs::create_dir(&killed).unwrap();
    let printed = succeed(&train(&whole, &settings).output().unwrap());
    let at = [("FAIL_MATCH", "checkpoint-0003"), ("FAIL_AT", "1"), ("FAIL_HOW", "kill")];
    assert!(!failing(&mut train(&killed, &settings), &at).output().unwrap().status.success());
    assert_eq!(best(&succeed(&resume(&killed, "runs/a"))), best(&printed));
    assert_same(&killed.join("runs/a"), &results(&whole.join("runs/a")), "a tie");
}

#[test]
fn an_epoch_of_no_hit_has_its_best_file_too() {
    let folder = tempfile::tempdir().unwrap();
    // A rate so small that nothing is learnt: whatever the score, even 0 %, the table names a file that is there.
    succeed(
        &train(folder.path(), &["--epochs=1", "--lr=1e-30", "--synthetic-test-per-class=1"])
            .output()
            .unwrap(),
    );
    assert!(folder.path().join("runs/a/best.safetensors").exists());
}
