//! The whole path of `--device cuda` without a GPU: the program and the kernel tests run through cudarc on
//! the stand-in for NVIDIA's driver, which runs the kernels' PTX and checks their memory. What comes out has
//! the bits of `--device sim`.
#![cfg(target_os = "linux")]

#[path = "../support/stand_in.rs"]
mod stand_in;
mod tiles;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use records::data::augment::parameters::VIEW_BYTES;
use records::ops::statistics::counter;
use records::train::tensor_file::TensorFile;
use serde_json::Value;
use stand_in::stand_in;

/// A program that finds the stand-in in the driver's place.
fn with_stand_in(program: impl AsRef<std::ffi::OsStr>, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", stand_in()).env("RECORDS_GPU_CODE", "ptx");
    command.env("STAND_IN_LOG", folder.join("calls")).current_dir(folder);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The calls, and what the interpreter found, for a message.
fn notes(folder: &Path) -> String {
    let calls = std::fs::read_to_string(folder.join("calls")).unwrap_or_default();
    calls.lines().filter(|line| line.starts_with("note")).collect::<Vec<_>>().join("\n")
}

/// The preset `tiny` with fewer images: two epochs of two steps and an evaluation.
const TRAIN: [&str; 12] = [
    "train",
    "--preset",
    "tiny",
    "--synthetic-train-per-class",
    "1",
    "--synthetic-test-per-class",
    "1",
    "--imb-factor",
    "1",
    "--batch-size",
    "5",
    "--device",
];

/// Of these, one epoch.
const SHORT: [&str; 1] = ["--epochs=1"];

fn train(folder: &Path, device: &str, name: &str) -> Command {
    let mut command = with_stand_in(env!("CARGO_BIN_EXE_records"), folder);
    command.args(TRAIN).args([device, "--name", name]).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn finish(child: Child, folder: &Path) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stderr), notes(folder));
}

/// The numbered checkpoints of a run, by name.
fn checkpoints(run: &Path) -> Vec<(String, TensorFile)> {
    let files = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = files.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.starts_with("checkpoint-"));
    names.sort();
    names.into_iter().map(|name| (name.clone(), TensorFile::read(&run.join(name)).unwrap())).collect()
}

fn metrics(run: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn assert_equal_runs(ours: &Path, theirs: &Path) {
    let (our_files, their_files) = (checkpoints(ours), checkpoints(theirs));
    assert!(!our_files.is_empty());
    for ((our_name, ours), (their_name, theirs)) in our_files.iter().zip(&their_files) {
        assert_eq!(our_name, their_name);
        assert!(ours.tensors.len() > 150, "{} tensors", ours.tensors.len());
        assert_eq!(ours.tensors.keys().collect::<Vec<_>>(), theirs.tensors.keys().collect::<Vec<_>>());
        for (name, tensor) in &ours.tensors {
            assert!(*tensor == theirs.tensors[name], "{our_name}: {name} differs");
        }
    }
    assert_eq!(our_files.len(), their_files.len());
    assert_eq!(metrics(ours), metrics(theirs));
}

/// With weight gradients beside the rest or in their turn, and of those that may run next any first: the same
/// bits. Poison changes nothing either: no step reads what it has not written. The interpreter finds such a read
/// by itself; on a GPU, where it cannot, the poison makes numbers NaN.
#[test]
fn training_through_the_driver_has_the_interpreter_s_bits() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [here, in_turn] = [0, 1].map(|number| folders[number].path());
    let children = [
        train(here, "sim", "sim").env("RECORDS_WARP_SEED", "5").spawn().unwrap(),
        train(here, "cuda", "cuda")
            .envs([("RECORDS_POISON", "1"), ("STAND_IN_LAST_FIRST", "1")])
            .spawn()
            .unwrap(),
        train(in_turn, "sim", "sim").env("RECORDS_BRANCHES", "0").spawn().unwrap(),
        train(in_turn, "cuda", "cuda").env("RECORDS_BRANCHES", "0").spawn().unwrap(),
    ];
    children
        .into_iter()
        .zip([here, here, in_turn, in_turn])
        .for_each(|(child, folder)| finish(child, folder));
    for run in [here.join("runs/sim"), here.join("runs/cuda"), in_turn.join("runs/cuda")] {
        assert_equal_runs(&run, &in_turn.join("runs/sim"));
    }
    let calls = |folder: &Path| std::fs::read_to_string(folder.join("calls")).unwrap();
    let count = |calls: &str, start: &str| calls.lines().filter(|line| line.starts_with(start)).count();
    let [here_calls, in_turn_calls] = [here, in_turn].map(calls);
    assert!(count(&here_calls, "cuGraphLaunch") >= 8, "{here_calls}");
    assert!(here_calls.contains(" of 0xff"), "temporaries are poisoned");
    assert!(count(&here_calls, "cuStreamWaitEvent captured") > 20, "{here_calls}");
    assert_eq!(count(&in_turn_calls, "cuStreamWaitEvent"), 0);
    assert_eq!([notes(here), notes(in_turn)], ["", ""]);
}

/// The calls from the last step of an epoch, of which two are, to the first of the next: those before the counters
/// are read back, while the GPU trains, and those from then on, while it waits.
fn between_epochs<'a>(calls: &[&'a str], step: &str, epoch: usize) -> [Vec<&'a str>; 2] {
    let steps: Vec<usize> = (0..calls.len()).filter(|&at| calls[at] == step).collect();
    let section = &calls[steps[2 * epoch + 1] + 1..steps[2 * epoch + 2]];
    let counters = format!("cuMemcpyDtoHAsync_v2 {}", 4 * counter::LEN);
    let waits = section.iter().position(|call| *call == counters).expect("the counters are read back");
    [section[..waits].to_vec(), section[waits..].to_vec()]
}

/// The sizes of the copies that are `call`s.
fn copied(calls: &[&str], call: &str) -> Vec<usize> {
    let sizes = calls.iter().filter_map(|line| line.strip_prefix(call)?.trim().parse().ok());
    sizes.collect()
}

/// What the host has the driver do while the GPU waits between two epochs: little is copied, each copy is waited for
/// once, and of the state that a checkpoint holds the GPU only makes a copy, which is read back behind the next
/// steps. The augmentation parameters are uploaded while the GPU trains.
#[test]
fn little_is_done_between_epochs() {
    let [to, from, within] = ["cuMemcpyHtoDAsync_v2", "cuMemcpyDtoHAsync_v2", "cuMemcpyDtoDAsync_v2"];
    let folder = tempfile::tempdir().unwrap();
    let mut command = train(folder.path(), "cuda", "run");
    command.args(["--epochs=3", "--eval-every=100", "--checkpoint-every=2"]).env("STAND_IN_SKIP", "1");
    finish(command.spawn().unwrap(), folder.path());
    let log = std::fs::read_to_string(folder.path().join("calls")).unwrap();
    let calls: Vec<&str> = log.lines().map(str::trim_end).collect();
    let launches = calls.iter().filter(|call| call.starts_with("cuGraphLaunch"));
    let step = launches.max_by_key(|call| calls.iter().filter(|other| other == call).count()).unwrap();

    let parameters = 10 * 2 * VIEW_BYTES;
    let [trains, waits] = between_epochs(&calls, step, 0);
    assert_eq!(trains, [&*format!("{to} {parameters}"), "cuStreamSynchronize"]);
    let count = |calls: &[&str], name: &str| calls.iter().filter(|call| call.starts_with(name)).count();
    assert_eq!(copied(&waits, within), [parameters]);
    // Counts of what is not finite; the order of the ten samples, step, counters, control block.
    let uploads = copied(&waits, to);
    assert_eq!((uploads.len(), &uploads[1..3]), (5, &[40, 4][..]), "{waits:?}");
    assert!(uploads.iter().all(|&bytes| bytes <= 40), "{waits:?}");
    // Counters, counts, running statistics, statistics of the confidences, and a row of each tracked sample.
    let read = copied(&waits, from);
    assert!(read.len() <= 14 && read.iter().sum::<usize>() < 64 << 10, "{waits:?}");
    assert_eq!(count(&waits, "cuStreamSynchronize"), uploads.len() + read.len());
    // What is not finite, and the statistics.
    assert_eq!(count(&waits, "cuGraphLaunch"), 2);
    assert_eq!(waits.len(), 2 * (uploads.len() + read.len()) + 3, "nothing else: {waits:?}");

    // With a checkpoint: copies within the GPU and one wait more.
    let [_, with_checkpoint] = between_epochs(&calls, step, 1);
    let kept = copied(&with_checkpoint, within);
    let state: usize = kept.iter().sum::<usize>() - parameters;
    assert!(state > 100 << 10, "{with_checkpoint:?}");
    assert_eq!(with_checkpoint.len(), waits.len() + kept.len(), "{with_checkpoint:?}");
    assert_eq!((copied(&with_checkpoint, to), copied(&with_checkpoint, from)), (uploads, read));
    let after = calls.iter().rposition(|call| call == step).unwrap();
    let behind: usize = copied(&calls[after..], from).iter().take(kept.len() - 1).sum();
    assert_eq!(behind, state, "read back behind the steps");
}

/// Stopped inside an epoch on the driver and gone on with on the interpreter, which has the same bits: so has the run.
#[test]
fn a_run_that_is_stopped_inside_an_epoch_has_the_same_bits() {
    let scratch = tempfile::tempdir().unwrap();
    let whole = train(scratch.path(), "sim", "whole").args(SHORT).spawn().unwrap();
    let mut command = train(scratch.path(), "cuda", "stopped");
    let stopped = command.args(SHORT).arg("--max-minutes=1e-9").output().unwrap();
    assert_eq!(stopped.status.code(), Some(3), "{}", notes(scratch.path()));
    assert!(text(&stopped.stderr).contains("in epoch 0 after 1 of 2"), "{}", text(&stopped.stderr));
    let mut resumed = with_stand_in(env!("CARGO_BIN_EXE_records"), scratch.path());
    resumed
        .args(["train", "--resume=runs/stopped", "--device=sim"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    finish(resumed.spawn().unwrap(), scratch.path());
    finish(whole, scratch.path());
    assert_equal_runs(&scratch.path().join("runs/stopped"), &scratch.path().join("runs/whole"));
    assert_eq!(notes(scratch.path()), "");
}

/// The number before the word `unit` that follows `after` in a line.
fn number_after(line: &str, after: &str) -> usize {
    let rest =
        &line[line.find(after).unwrap_or_else(|| panic!("{after:?} is not in {line:?}")) + after.len()..];
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

/// A GPU with too little memory: one line says what the run needs and which batch fits, which then does.
#[test]
fn a_run_that_does_not_fit_says_which_batch_does() {
    let folder = tempfile::tempdir().unwrap();
    let train = |memory: &str, batch: &str, name: &str| {
        let mut command = with_stand_in(env!("CARGO_BIN_EXE_records"), folder.path());
        command.args(["train", "--preset=tiny", "--width=16", "--epochs=1", "--device=cuda", "--name", name]);
        command.arg("--synthetic-train-per-class=200");
        command.arg(batch).envs([("STAND_IN_MEMORY", memory), ("STAND_IN_SKIP", "1")]);
        command.output().unwrap()
    };
    let refused = |output: &Output| {
        let line = text(&output.stderr);
        assert_eq!((output.status.code(), line.matches('\n').count()), (Some(1), 1), "{line}");
        assert!(
            line.contains("not enough GPU memory: ") && line.contains(" of 160 MiB are free; "),
            "{line}"
        );
        line
    };
    let line = refused(&train("160", "--batch-size=256", "large"));
    let [needed, of_batch, has, fits] =
        ["the run takes ", "with --batch-size ", "and has ", " MiB: --batch-size "]
            .map(|after| number_after(&line, after));
    assert!(line.trim_end().ends_with(" fits") && of_batch == 256, "{line}");
    assert!(needed > has && has <= 160 && (2..256).contains(&fits), "{line}");
    assert!(!folder.path().join("runs/large").exists(), "nothing was made");
    let fitting = train("160", &format!("--batch-size={fits}"), "fitting");
    assert!(fitting.status.success(), "{}\n{}", text(&fitting.stderr), notes(folder.path()));

    // Weights and data alone are too much.
    let line = text(&train("8", "--batch-size=32", "tiny").stderr);
    assert!(line.contains("no --batch-size fits; try a smaller --width"), "{line}");
}

/// The kernel tests' program, built by cargo if it is not.
fn kernel_tests() -> PathBuf {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--offline",
            "--test",
            "kernels",
            "--message-format",
            "json",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if cfg!(feature = "nccl") {
        cargo.args(["--features", "records/nccl"]);
    } else if cfg!(feature = "mpi") {
        cargo.args(["--features", "records/mpi"]);
    }
    // What cargo tells a test's process of its package: some build scripts would run again for it, and half of
    // the program would be built anew, here and in the next call.
    let told = |name: &str| {
        name == "OUT_DIR" || name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_")
    };
    for (name, _) in std::env::vars().filter(|(name, _)| told(name)) {
        cargo.env_remove(name);
    }
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let messages = text(&output.stdout);
    let mut messages = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["reason"] == "compiler-artifact" && message["target"]["name"] == "kernels");
    let program = messages.find_map(|message| message["executable"].as_str().map(PathBuf::from));
    program.expect("cargo names the program")
}

fn assert_passed(output: &Output, folder: &Path) {
    let (out, log) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{log}\n{}", notes(folder));
    let summary = out.lines().rev().find(|line| line.starts_with("test result: ok.")).unwrap_or_default();
    assert!(!summary.contains(" 0 passed") && summary.contains(" 0 failed"), "{summary}");
}

/// All of them: each kernel beside its CPU twin, launched as on a GPU, with inputs and an order of warps that
/// RECORDS_FRESH_SEED chooses.
#[test]
fn the_kernel_tests_pass_through_the_driver() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = with_stand_in(kernel_tests(), folder.path());
    let seed = std::env::var("RECORDS_FRESH_SEED").unwrap_or_else(|_| "1".into());
    println!("with RECORDS_FRESH_SEED={seed}");
    command.env("RECORDS_TEST_SEED", &seed).env("STAND_IN_WARP_SEED", &seed);
    assert_passed(
        &command.env("RECORDS_TEST_DEVICE", "cuda").env("RECORDS_POISON", "1").output().unwrap(),
        folder.path(),
    );
}

/// For a GPU of an architecture that the compiler does not know, PTX of the newest that it knows; machine
/// code is refused in one line.
#[test]
fn a_gpu_newer_than_the_compiler_gets_ptx() {
    let folder = tempfile::tempdir().unwrap();
    let run = |code: &str, name: &str| {
        let mut command = train(folder.path(), "cuda", name);
        command.env("STAND_IN_GPU", "future").env("STAND_IN_SKIP", "1").env("RECORDS_GPU_CODE", code);
        command.output().unwrap()
    };
    let fitting = run("", "fitting");
    assert!(fitting.status.success(), "{}\n{}", text(&fitting.stderr), notes(folder.path()));
    let refused = run("cubin", "refused");
    let line = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{line}");
    assert!(line.contains("RECORDS_GPU_CODE=cubin: NVRTC does not know sm_990"), "{line}");
    let odd = run("sass", "odd");
    let line = text(&odd.stderr);
    assert_eq!((odd.status.code(), line.trim_end().lines().count()), (Some(2), 1), "{line}");
    assert!(line.contains("must be ptx or cubin"), "{line}");
}

/// The prediction for a card beside what that card takes, launch by launch; here, what the stand-in says it took.
#[test]
fn a_profile_shows_what_was_measured_beside() {
    let folder = tempfile::tempdir().unwrap();
    let profile = |more: &[&str]| {
        let mut command = with_stand_in(env!("CARGO_BIN_EXE_records"), folder.path());
        let shape = ["--preset=tiny", "--width=8", "--batch-size=5", "--samples=10", "--test-samples=5"];
        // Nothing is computed, and every launch takes as long.
        let output = command
            .env("STAND_IN_SKIP", "1")
            .arg("profile")
            .args(shape)
            .arg("--measured")
            .args(more)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let shown: Value = serde_json::from_str(&profile(&["--format=json"])).unwrap();
    let (measured, launches) = (&shown["measured"], shown["launches"].as_array().unwrap());
    assert!(measured["gpu"].as_str().unwrap().contains("RTX 3090"), "{measured}");
    assert_eq!((&measured["launched_alike"], &measured["launches"]), (&true.into(), &launches.len().into()));
    let sum =
        |values: &[Value], key: &str| values.iter().filter_map(|value| value[key].as_f64()).sum::<f64>();
    let in_turn = measured["in_turn_ms"].as_f64().unwrap();
    assert!(launches.iter().all(|launch| launch["measured_us"].as_f64().is_some_and(|time| time > 0.0)));
    assert!((sum(launches, "measured_us") / 1e3 - in_turn).abs() < 1e-9 * in_turn);
    assert!((sum(shown["parts"].as_array().unwrap(), "measured_ms") - in_turn).abs() < 1e-9 * in_turn);
    assert!(measured["step_ms"].as_f64().unwrap() > 0.0);

    let table = profile(&["--gpu=rtx3090"]);
    assert!(
        table.contains("beside it, what was measured on") && table.contains("expected us   measured"),
        "{table}"
    );
}
