//! `records table` through the real binary on tiny grids of the synthetic data: running, stopping and
//! resuming, failures, reports, and the same runs as command lines and as an array job.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// Settings with which a run takes well under a second.
const TINY: &[&str] = &[
    "--dataset=synthetic",
    "--synthetic-train-per-class=20",
    "--synthetic-test-per-class=5",
    "--width=4",
    "--batch-size=16",
    "--lr=0.05",
    "--threads=1",
];

/// Two methods by one imbalance by two ambiguities, one seed.
const GRID: &[&str] = &["--methods=records,solar", "--rho=10", "--q=0.1,0.3", "--epochs=2", "--est-epochs=1"];

const NAMES: [&str; 4] = [
    "corr-records-rho10-q0.1-seed123",
    "solar-rho10-q0.1-seed123",
    "corr-records-rho10-q0.3-seed123",
    "solar-rho10-q0.3-seed123",
];

/// `records table cifar10 ... --exp-dir FOLDER`.
fn table<'a>(folder: &Path, arguments: impl IntoIterator<Item = &'a &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(["table", "cifar10"]).args(arguments).arg("--exp-dir").arg(folder);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The tiny grid with more arguments.
fn grid(folder: &Path, more: &[&str]) -> Command {
    table(folder, TINY.iter().chain(GRID).chain(more))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Asserts exit code `code` and one line that contains `parts`.
fn assert_ends(output: &Output, code: i32, parts: &[&str]) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

/// The cells of a CSV table by method and q, as [n, mean, std, published, state].
fn cells(csv: &str) -> BTreeMap<(String, String), [String; 5]> {
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("method,rho,q,n,mean,std,published,state"));
    let cell = |line: &str| {
        let fields: Vec<String> = line.split(',').map(String::from).collect();
        ((fields[0].clone(), fields[2].clone()), fields[3..].to_vec().try_into().unwrap())
    };
    lines.map(cell).collect()
}

fn csv(folder: &Path) -> String {
    succeed(table(
        folder,
        &["--methods=records,solar", "--rho=10", "--q=0.1,0.3", "--report", "--format=csv"],
    ))
}

/// Test top-1 of every epoch of a run.
fn top1(run: &Path) -> Vec<f64> {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let value = |line: &str| {
        serde_json::from_str::<serde_json::Value>(line).unwrap()["test"]["top1"].as_f64().unwrap()
    };
    metrics.lines().map(value).collect()
}

/// Removes a complete run's last epoch, as if it had been killed before.
fn undo_last_epoch(run: &Path) {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let lines: Vec<&str> = metrics.lines().collect();
    fs::write(run.join("metrics.jsonl"), lines[..lines.len() - 1].join("\n") + "\n").unwrap();
    fs::remove_file(run.join(format!("checkpoint-{:04}.safetensors", lines.len()))).unwrap();
}

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn a_grid_runs_once_and_is_shown_beside_the_published_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let printed = succeed(grid(folder.path(), &["--seeds=1,2"]));
    for number in 1..=8 {
        assert!(printed.contains(&format!("run {number} of 8: ")), "{printed}");
        assert!(printed.contains(&format!("run {number} of 8 ended after ")), "{printed}");
    }
    assert!(printed.contains(" left\n"), "{printed}");
    // The table's numbers against the runs' own metrics.
    let best = |words: &str, seed: u32, skipped: usize| {
        let run = folder.path().join(format!("{words}-rho10-q0.3-seed{seed}"));
        top1(&run)[skipped..].iter().copied().fold(0.0, f64::max)
    };
    let report = &["--methods=records,solar", "--rho=10", "--q=0.1,0.3", "--seeds=1,2", "--report"];
    let shown = cells(&succeed(table(folder.path(), report.iter().chain(&["--format=csv"]))));
    assert_eq!(shown.len(), 4);
    for (word, words, skipped) in [("records", "corr-records", 0), ("solar", "solar", 1)] {
        // SoLar's first epoch is in the stage that estimates the class prior, with its own network.
        let [a, b] = [1, 2].map(|seed| best(words, seed, skipped));
        let [n, mean, std, published, state] = &shown[&(word.into(), "0.3".into())];
        assert_eq!((n.as_str(), state.as_str(), published.as_str()), ("2", "complete", ""));
        assert_eq!(mean, &format!("{:.4}", (a + b) / 2.0), "{word}");
        assert_eq!(std, &format!("{:.4}", (a - b).abs() / 2f64.sqrt()), "{word}");
    }
    let epochs = |name: &str| top1(&folder.path().join(name)).len();
    assert_eq!([epochs("corr-records-rho10-q0.3-seed1"), epochs("solar-rho10-q0.3-seed1")], [2, 3]);

    // The run ends with the table that a report without any settings shows; neither a report nor a second
    // call writes anything.
    let before = files(folder.path());
    let table_text = succeed(table(folder.path(), report));
    assert!(printed.ends_with(&table_text), "{printed}\n{table_text}");
    assert_eq!(succeed(grid(folder.path(), &["--seeds=1,2"])), table_text);
    assert!(before == files(folder.path()), "files changed");
    for part in [
        "CIFAR-10-LT",
        "10/.1",
        "CORR+RECORDS",
        " ± ",
        "over 2 seeds",
        "epochs 2 (800)",
        "dataset synthetic (cifar10-lt)",
    ] {
        assert!(table_text.contains(part), "{part:?} is not in {table_text}");
    }
    // Even if SoLar's first stage was better.
    let path = folder.path().join("solar-rho10-q0.1-seed1/metrics.jsonl");
    let metrics = fs::read_to_string(&path).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let mut better = first.clone();
    better["test"]["top1"] = 99.0.into();
    let rest: Vec<&str> = metrics.lines().skip(1).collect();
    fs::write(&path, format!("{better}\n{}\n", rest.join("\n"))).unwrap();
    assert_eq!(top1(path.parent().unwrap())[0], 99.0);
    assert_eq!(succeed(table(folder.path(), report)), table_text);
    // The last epoch instead of the best.
    let last = cells(&succeed(table(folder.path(), report.iter().chain(&["--format=csv", "--show=last"]))));
    let [a, b] =
        [1, 2].map(|seed| *top1(&folder.path().join(format!("solar-rho10-q0.1-seed{seed}"))).last().unwrap());
    assert_eq!(last[&("solar".into(), "0.1".into())][1], format!("{:.4}", (a + b) / 2.0));
}

#[test]
fn what_is_not_there_is_a_dash_beside_the_published_number() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("runs");
    let printed = succeed(table(&nowhere, &["--report"]));
    let line = |start: &str| printed.lines().find(|line| line.starts_with(start)).unwrap().to_string();
    let words = |line: String| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    assert_eq!(
        words(line("CORR ")),
        [
            "CORR", "-", "(76.12)", "-", "(56.45)", "-", "(41.56)", "-", "(66.38)", "-", "(50.09)", "-",
            "(38.11)"
        ]
    );
    assert_eq!(
        words(line("CIFAR")),
        ["CIFAR-10-LT", "50/.3", "50/.5", "50/.7", "100/.3", "100/.5", "100/.7"]
    );
    let titles: Vec<&str> =
        printed.lines().skip(1).take(5).map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(titles, ["CORR", "CORR+Oracle-LA", "CORR+RECORDS", "SoLar", "CORR+RECORDS+mixup"]);
    assert!(!printed.contains("unlike"), "these are the published settings: {printed}");
    // All cells of a column begin at the same position.
    let starts = |line: &str| line.rfind('-');
    assert_eq!(starts(&line("SoLar")), starts(&line("CORR+RECORDS+mixup")));

    let hundred = Command::new(env!("CARGO_BIN_EXE_records"))
        .args(["table", "cifar100", "--report", "--format=markdown", "--methods=solar", "--exp-dir"])
        .arg(&nowhere)
        .output()
        .unwrap();
    let expected = "| CIFAR-100-LT | 50/.03 | 50/.05 | 50/.07 | 100/.03 | 100/.05 | 100/.07 |\n\
                    | --- | --- | --- | --- | --- | --- | --- |\n\
                    | SoLar | - (47.93) | - (46.85) | - (45.10) | - (42.51) | - (41.71) | - (39.15) |\n\n";
    assert!(text(&hundred.stdout).starts_with(expected), "{}", text(&hundred.stdout));
    assert!(!nowhere.exists(), "a report writes nothing");

    std::fs::write(&nowhere, b"").unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_records"))
        .args(["table", "cifar10", "--report", "--exp-dir"])
        .arg(&nowhere)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("--exp-dir"), "{}", text(&refused.stderr));
}

#[test]
fn a_grid_that_was_killed_goes_on_to_the_same_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    succeed(grid(&whole, &[]));
    let mut kills = 0;
    for name in NAMES {
        // Killed in the middle of each run in turn.
        let mut child = grid(&killed, &[]).stdout(Stdio::null()).spawn().unwrap();
        for _ in 0..6000 {
            if killed.join(name).join("metrics.jsonl").exists() || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        kills += usize::from(!child.wait().unwrap().success());
        if name == NAMES[0] {
            let printed = succeed(table(&killed, GRID.iter().take(3).chain(&["--report"])));
            assert!(printed.contains("incomplete") || printed.contains("± "), "{printed}");
        }
    }
    assert!(kills >= 3, "only {kills} of four calls were killed before they ended");
    // A folder in which a run was killed before it had written its settings is taken over.
    let unused = killed.join(NAMES[3]);
    fs::remove_dir_all(&unused).unwrap();
    fs::create_dir(&unused).unwrap();
    fs::write(unused.join("lock"), "").unwrap();
    succeed(grid(&killed, &[]));
    assert_eq!(csv(&killed), csv(&whole));
    for name in NAMES {
        assert_eq!(top1(&killed.join(name)), top1(&whole.join(name)), "{name}");
    }
}

#[test]
fn a_failed_run_is_shown_and_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--methods=corr", "--rho=10", "--q=0.3", "--epochs=2", "--lr=1e30"];
    let diverging = || table(folder.path(), TINY.iter().chain(&arguments)).output().unwrap();
    let name = "corr-rho10-q0.3-seed123";
    for _ in 0..2 {
        let output = diverging();
        assert_ends(&output, 1, &["1 of 1 runs failed", name]);
        let printed = text(&output.stdout);
        assert!(printed.contains("run 1 of 1: ") && printed.contains("diverged"), "{printed}");
        assert!(
            printed.lines().any(|line| line.starts_with("CORR ") && line.ends_with(" failed")),
            "{printed}"
        );
    }
    // The reason is in the folder, so that a report shows it, too.
    let log = fs::read_to_string(folder.path().join(name).join("log.txt")).unwrap();
    assert!(log.lines().last().unwrap().starts_with("failed: training has diverged in epoch 0"), "{log}");
    let report = ["--methods=corr", "--rho=10", "--q=0.3", "--report"];
    let printed = succeed(table(folder.path(), &report));
    assert!(printed.contains(&format!("failed: {name}: training has diverged")), "{printed}");
    let shown = cells(&succeed(table(folder.path(), report.iter().chain(&["--format=csv"]))));
    assert_eq!(shown[&("corr".into(), "0.3".into())], ["0", "", "", "", "failed"]);
}

/// 78 samples at rho 10 are too few for a batch of 100; at rho 2 there are enough.
#[test]
fn a_run_that_cannot_begin_does_not_stop_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let grid = |rho: &str| {
        let arguments = ["--methods=corr", "--q=0.3", "--epochs=1", "--batch-size=100", "--format=csv", rho];
        table(folder.path(), TINY.iter().chain(&arguments)).output().unwrap()
    };
    // The first of all: that is an error of the call.
    let output = grid("--rho=10,2");
    assert_ends(&output, 2, &["--batch-size 100", "78 samples"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");

    let output = grid("--rho=10,2,5,1");
    assert_ends(&output, 2, &["--batch-size 100"]);
    let output = grid("--rho=2,10,1");
    assert_ends(&output, 1, &["1 of 3 runs failed", "corr-rho10-q0.3-seed123"]);
    let printed = text(&output.stdout);
    let states: Vec<&str> =
        printed.lines().rev().take(3).map(|line| line.rsplit(',').next().unwrap()).collect();
    assert_eq!(states, ["complete", "failed", "complete"], "{printed}");
}

#[test]
fn runs_of_other_settings_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    succeed(grid(folder.path(), &["--methods=records"]));
    let before = files(folder.path());
    let name = NAMES[0];
    for (more, parts) in [
        (&["--epochs=3"][..], &[name, "epochs 2, not 3", "--exp-dir"][..]),
        (&["--m=0.5", "--report"], &[name, "m 0.9, not 0.5"]),
        (&["--eval-every=2"], &[name, "eval-every 1, not 2"]),
        (&["--seeds=124,123", "--width=16", "--commands"], &[name, "width 4, not 16"]),
    ] {
        assert_ends(&grid(folder.path(), more).output().unwrap(), 2, parts);
    }
    // Settings that change no result may differ, and SoLar's defaults may be given explicitly.
    succeed(grid(folder.path(), &["--methods=solar", "--q=0.3"]));
    assert!(
        !succeed(grid(folder.path(), &["--methods=solar", "--q=0.3", "--tau=0.99"])).contains("run 1 of")
    );
    let other = grid(folder.path(), &["--methods=solar", "--q=0.3", "--tau=0.9"]).output().unwrap();
    assert_ends(&other, 2, &[NAMES[3], "tau 0.99, not 0.9"]);
    fs::remove_dir_all(folder.path().join(NAMES[3])).unwrap();
    succeed(grid(folder.path(), &["--methods=records", "--threads=2", "--checkpoint-every=2"]));
    assert!(before == files(folder.path()), "files changed");

    // Rows of one table must have the same settings.
    succeed(grid(folder.path(), &["--methods=solar", "--q=0.1", "--lr=0.06"]));
    let mixed = table(folder.path(), &["--report", "--rho=10", "--q=0.1", "--methods=records,solar"])
        .output()
        .unwrap();
    assert_ends(&mixed, 2, &[name, NAMES[1], "lr 0.05, not 0.06"]);

    let other = folder.path().join("corr-rho10-q0.1-seed123");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("notes"), "mine").unwrap();
    let refused = grid(folder.path(), &["--methods=corr"]).output().unwrap();
    assert_ends(&refused, 2, &["corr-rho10-q0.1-seed123", "no config.toml"]);
}

#[test]
fn a_run_of_another_process_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let more = ["--methods=corr", "--q=0.3,0.1", "--checkpoint-every=1"];
    succeed(grid(folder.path(), &more));
    // As if it were still in its last epoch elsewhere.
    let run = folder.path().join("corr-rho10-q0.3-seed123");
    let whole = top1(&run);
    undo_last_epoch(&run);
    let lock = File::options().append(true).open(run.join("lock")).unwrap();
    lock.lock().unwrap();
    let before = files(folder.path());
    let printed = succeed(grid(folder.path(), &more));
    assert!(printed.contains("running: corr-rho10-q0.3-seed123: 1 of 2 epochs"), "{printed}");
    assert!(!printed.contains("run 1 of"), "{printed}");
    assert_eq!(succeed(grid(folder.path(), &["--methods=corr", "--q=0.3,0.1", "--commands"])), "");
    assert!(before == files(folder.path()), "files changed");
    drop(lock);
    let lines = succeed(grid(folder.path(), &["--methods=corr", "--q=0.3,0.1", "--commands"]));
    assert_eq!(lines, format!("records train --resume {}\n", run.display()));
    succeed(grid(folder.path(), &more));
    assert_eq!(top1(&run), whole);

    // A folder whose epochs cannot be run again is reported, and the others go on.
    fs::remove_file(run.join("metrics.jsonl")).unwrap();
    let output = grid(folder.path(), &["--methods=corr", "--q=0.3,0.2"]).output().unwrap();
    assert_ends(&output, 1, &["1 of 2 runs failed: corr-rho10-q0.3-seed123"]);
    assert!(text(&output.stdout).contains("metrics.jsonl lacks epochs"), "{}", text(&output.stdout));
    assert!(folder.path().join("corr-rho10-q0.2-seed123/metrics.jsonl").exists());
}

#[test]
fn a_table_in_a_file_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (runs, file) = (folder.path().join("runs"), folder.path().join("table.md"));
    let output = format!("--output={}", file.display());
    let printed = succeed(grid(&runs, &["--methods=corr", "--format=markdown", &output]));
    assert!(printed.ends_with(&format!("table written to {}\n", file.display())), "{printed}");
    let markdown = fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = markdown.lines().collect();
    assert_eq!(lines[..2], ["| CIFAR-10-LT | 10/.1 | 10/.3 |", "| --- | --- | --- |"]);
    let best = [0.1, 0.3].map(|q| {
        let run = runs.join(format!("corr-rho10-q{q}-seed123"));
        top1(&run).into_iter().fold(0.0, f64::max)
    });
    assert_eq!(lines[2], format!("| CORR | {:.2} | {:.2} |", best[0], best[1]));

    // A file that cannot be written is reported before anything is run.
    let (elsewhere, nowhere) =
        (folder.path().join("other"), format!("--output={}/x/y", folder.path().display()));
    assert_ends(&grid(&elsewhere, &[&nowhere]).output().unwrap(), 2, &["x/y", "does not exist"]);
    assert!(!elsewhere.exists());
}

/// Runs a script in bash with `records` on the path.
fn bash(script: &Path, task: Option<&str>) -> Output {
    let binary = Path::new(env!("CARGO_BIN_EXE_records")).parent().unwrap().to_path_buf();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(binary).chain(std::env::split_paths(&path))).unwrap();
    let mut command = Command::new("bash");
    command.arg(script).env("PATH", path).env_remove("SLURM_ARRAY_TASK_ID");
    if let Some(task) = task {
        command.env("SLURM_ARRAY_TASK_ID", task);
    }
    command.output().unwrap()
}

/// If the line of the best epoch cannot be read, its result comes from the checkpoint.
#[test]
fn a_damaged_line_does_not_change_a_result() {
    let folder = tempfile::tempdir().unwrap();
    let report = |show: &str| {
        let arguments = ["--methods=corr", "--rho=10", "--q=0.3", "--report", "--format=csv", show];
        succeed(table(folder.path(), TINY.iter().chain(&arguments).chain(&["--epochs=3"])))
    };
    succeed(table(
        folder.path(),
        TINY.iter().chain(&["--methods=corr", "--rho=10", "--q=0.3", "--epochs=3"]),
    ));
    let before = ["--show=best", "--show=last"].map(report);
    let path = folder.path().join("corr-rho10-q0.3-seed123/metrics.jsonl");
    let lines = fs::read_to_string(&path).unwrap();
    for number in 0..2 {
        let mut lines: Vec<&str> = lines.lines().collect();
        lines[number] = "damaged";
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        assert_eq!(["--show=best", "--show=last"].map(report), before, "line {number}");
    }
}

#[test]
fn command_lines_make_the_same_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, lines) = (folder.path().join("whole"), folder.path().join("it's a; $HOME"));
    succeed(grid(&whole, &[]));
    let script = folder.path().join("commands.sh");
    let write = || {
        let printed = succeed(grid(&lines, &["--commands"]));
        fs::write(&script, &printed).unwrap();
        printed
    };
    let printed = write();
    assert_eq!(printed.lines().count(), 4, "{printed}");
    assert!(printed.lines().all(|line| line.starts_with("records train --")), "{printed}");
    assert!(!lines.exists(), "printing commands writes nothing");
    // Two runs: one complete, one stopped before its end, which goes on with --resume.
    let first: Vec<&str> = printed.lines().take(2).collect();
    fs::write(&script, first.join("\n")).unwrap();
    assert!(bash(&script, None).status.success());
    undo_last_epoch(&lines.join(NAMES[1]));
    let printed = write();
    assert_eq!(printed.lines().count(), 3, "{printed}");
    assert!(printed.starts_with("records train --resume '"), "{printed}");
    let output = bash(&script, None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(csv(&lines), csv(&whole));
    assert!(csv(&lines).lines().skip(1).all(|line| line.ends_with("complete")));
    assert_eq!(write(), "");
    // `records table` itself has nothing left to run.
    assert!(!succeed(grid(&lines, &[])).contains("run 1 of"));
}

#[test]
fn an_array_job_runs_and_resumes_its_tasks() {
    let folder = tempfile::tempdir().unwrap();
    let (runs, script) = (folder.path().join("my runs"), folder.path().join("job.sh"));
    let output = format!("--output={}", script.display());
    assert_eq!(succeed(grid(&runs, &["--slurm", &output])), "");
    let job = fs::read_to_string(&script).unwrap();
    for part in ["#!/bin/bash\n", "#SBATCH --array=0-3\n", "#SBATCH --gpus=1\n", "set -euo pipefail\n"] {
        assert!(job.contains(part), "{part:?} is not in {job}");
    }
    let shared = |device: &str| succeed(grid(&runs, &["--slurm", "--processes=4", device]));
    let (gpus, cpus) = (shared("--device=cuda"), shared("--device=cpu"));
    for part in ["#SBATCH --ntasks=4\n", "exec srun --mpi=pmix records train", "export SRUN_CPUS_PER_TASK="] {
        assert!(gpus.contains(part) && cpus.contains(part), "{part:?} is not in {gpus} or in {cpus}");
    }
    assert!(gpus.contains("#SBATCH --nodes=1\n") && gpus.contains("#SBATCH --gpus=4\n"), "{gpus}");
    assert!(!cpus.contains("--gpus"), "{cpus}");
    // sbatch reads directives only up to the first command.
    assert!(job.rfind("#SBATCH").unwrap() < job.find("\nset ").unwrap());
    assert!(Command::new("bash").arg("-n").arg(&script).status().unwrap().success());

    let shown = |name: &str| {
        let printed = csv(&runs);
        let (word, q) = if name.starts_with("solar") { ("solar", "0.1") } else { ("records", "0.1") };
        cells(&printed)[&(word.to_string(), q.to_string())][4].clone()
    };
    let first = bash(&script, Some("0"));
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!((shown(NAMES[0]), shown(NAMES[1])), ("complete".into(), "missing".into()));
    // Once more, as after a requeue: the run is resumed, not refused.
    let before = top1(&runs.join(NAMES[0]));
    assert!(bash(&script, Some("0")).status.success());
    assert_eq!(top1(&runs.join(NAMES[0])), before);
    for (task, part) in [(Some("4"), "must be from 0 to 3"), (None, "SLURM_ARRAY_TASK_ID")] {
        let output = bash(&script, task);
        assert!(!output.status.success() && text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
    for task in ["1", "2", "3"] {
        assert!(bash(&script, Some(task)).status.success());
    }
    assert_ends(&grid(&runs, &["--slurm"]).output().unwrap(), 2, &["no run is left"]);
}
