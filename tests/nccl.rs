//! GPUs of several processes without a GPU: the program runs through cudarc and NCCL's functions on the
//! stand-in for both, each process with an interpreted GPU of its own. The step is that of one process but
//! for the order of sums, and has the bits of `--device sim` over MPI, which sums in the same order; whatever
//! a process does, the others end with one line.
//!
//! The tests start mpirun themselves; without it they fail.
#![cfg(target_os = "linux")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use processes::{ONE_STEP, RECORDS, Running, assert_rounding, errors, mpirun, output, records, state};
use rustix::process::{Signal, kill_process};
use same_runs::{assert_same, succeed, text};
use small_images::write_small_images;
use stand_in::{is_launched, kernel_cache, stand_in, taken_since};

#[path = "support/processes.rs"]
mod processes;
#[path = "support/same_runs.rs"]
mod same_runs;
#[path = "support/small_images.rs"]
mod small_images;
#[path = "support/stand_in.rs"]
mod stand_in;
mod support;

/// One step of 8 samples; a network of width 4.
const TINY: &[&str] = &[
    "--preset=tiny",
    "--width=4",
    "--threads=1",
    "--precision=f32",
    "--exp-dir=runs",
    "--debias=records",
    "--upd-start=0",
    "--world-timeout=120",
];
const FEW: &[&str] = &["--synthetic-train-per-class=1", "--synthetic-test-per-class=1", "--batch-size=8"];

/// The same command where the driver and NCCL are the stand-in's.
fn on_stand_in<'a>(command: &'a mut Command, at: &Path) -> &'a mut Command {
    command.env("LD_LIBRARY_PATH", stand_in()).env("RECORDS_GPU_CODE", "ptx");
    command.env("STAND_IN_LOG", at.join("calls"))
}

fn calls(at: &Path) -> String {
    fs::read_to_string(at.join("calls")).unwrap_or_default()
}

/// A run of one step in a folder of its own below `at`; returns the run's folder.
fn train(at: &Path, name: &str, processes: usize, more: &[&str]) -> PathBuf {
    let folder = at.join(name);
    fs::create_dir(&folder).unwrap();
    let arguments = [TINY, ONE_STEP, FEW, &["--name=a"], more].concat();
    let ended = output(on_stand_in(&mut records(&folder, processes, &arguments), &folder));
    assert!(ended.status.success(), "{}\n{}", text(&ended.stderr), notes(&folder));
    folder.join("runs/a")
}

/// What the stand-in says of its own.
fn notes(at: &Path) -> String {
    calls(at).lines().filter(|line| line.starts_with("note")).collect::<Vec<_>>().join("\n")
}

/// Joint batchnorm: two processes, and one; the same bits twice. All exchanges of the step are part of its
/// graph.
///
/// Not with the preset's own seed, 123: its gradients then differ by 2.5e-2, all of it from one value at the
/// edge of a ReLU (traced launch by launch). It is value 34 of channel 5 of the second view of image 0 behind
/// layer3.1.bn1: x less its mean is 5.2e-7 on one GPU, and -8.0e-7 on two, where x of that layer, up to 10,
/// differs by up to 1.0e-5. So y is 5.0e-7 on one and 0 on the other, and the gradient of that value passes on
/// one alone. Everything else forward differs by at most 1.7e-6 of the largest value of its layer, no other of
/// the 557 056 masks does, and what comes before it in the backward pass differs by at most 1.5e-6. With 1.3e-6
/// added to that value of x on two GPUs, the gradients of the whole network differ by 1.1e-6. On the CPU both
/// lie on the same side: 2.4e-7.
#[test]
fn a_step_of_two_is_that_of_one() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let joint = ["--device=cuda", "--seed=1"];
    let one = train(at, "one", 0, &joint);
    let two = train(at, "two", 2, &joint);
    assert_rounding("cuda by 2", &two, &one);
    let again = train(at, "again", 2, &joint);
    assert_same(&again, &two, "twice");

    let calls = calls(&at.join("two"));
    let lines = |start: &str| calls.lines().filter(|line| line.starts_with(start)).count();
    // Of every process: gathers of rows and of batchnorm's sums, and the two exchanges of a bucket.
    assert!(lines("ncclAllGather captured") > 80, "{calls}");
    assert!(lines("ncclGroupEnd captured") >= 2, "{calls}");
    assert_eq!(lines("ncclAllGather "), lines("ncclAllGather captured"), "all are captured");
    assert_eq!(notes(&at.join("two")), "");
}

/// Three processes and four, joint batchnorm, and one process. The batch of 10 divides by neither, so that no
/// exchange of rows has equal parts.
#[test]
fn steps_of_three_and_four_are_that_of_one() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    write_small_images(at);
    let data = format!("--data-dir={}", at.display());
    let step = |processes: usize| {
        let folder = at.join(format!("by-{processes}"));
        fs::create_dir(&folder).unwrap();
        let of_lists = ["--dataset=csv", &data, "--image-size=8", "--batch-size=10"];
        let step = ["--device=cuda", "--lr=0.01", "--epochs=1", "--seed=1", "--name=a"];
        let arguments = [TINY, &of_lists, &step].concat();
        let ended = output(on_stand_in(&mut records(&folder, processes, &arguments), &folder));
        assert!(ended.status.success(), "{}\n{}", text(&ended.stderr), notes(&folder));
        assert_eq!(notes(&folder), "");
        folder
    };
    let one = step(0);
    for processes in [3, 4] {
        let many = step(processes);
        assert_rounding(&format!("cuda by {processes}"), &many.join("runs/a"), &one.join("runs/a"));
        let calls = calls(&many);
        let count = |start: &str| calls.lines().filter(|line| line.starts_with(start)).count();
        // Of every process: gathers of rows and of batchnorm's sums, and the exchanges of the parts of a bucket.
        assert!(count("ncclAllGather captured") >= 40 * processes, "{calls}");
        assert!(count("ncclGroupEnd captured") >= 3 * processes, "{calls}");
    }
}

/// Where batchnorm is local, what processes do together has the same bits over MPI, between the interpreter's
/// launches, as over NCCL in a graph. The batch of 7 does not divide.
#[test]
fn sums_have_the_order_of_mpi() {
    let scratch = tempfile::tempdir().unwrap();
    let local = |device: &str, name: &str| {
        train(scratch.path(), name, 2, &["--batchnorm=local", "--batch-size=7", device])
    };
    let [nccl, mpi] = [local("--device=cuda", "nccl"), local("--device=sim", "mpi")];
    let [ours, theirs] = [nccl, mpi].map(|run| state(&run).state_dict());
    assert!(ours.len() > 150, "{} tensors", ours.len());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, tensor) in &ours {
        assert!(*tensor == theirs[name], "{name} differs");
    }
}

/// Tiles are those of the first process's times, whatever the others would choose by.
#[test]
fn the_first_process_chooses_the_tiles_of_all() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let cache = kernel_cache(at);
    let calls_of = |command: &mut Command| {
        let _ = fs::remove_file(at.join("calls"));
        on_stand_in(command, at).envs([("STAND_IN_SKIP", "1")]).env("RECORDS_KERNEL_CACHE", &cache);
        let ended = output(command);
        assert!(ended.status.success(), "{}\n{}", text(&ended.stderr), notes(at));
        (calls(at), text(&ended.stdout))
    };
    let [settings @ .., _timeout] = TINY else { panic!("{TINY:?}") };
    // Each of two has half of the batch.
    let mut tune = Command::new(RECORDS);
    tune.args(
        [&["tune", "--format=json", "--samples=8", "--test-samples=10"], settings, FEW, &["--batch-size=4"]]
            .concat(),
    )
    .current_dir(at);
    let (model, tuned) = taken_since(&serde_json::from_str(&calls_of(&mut tune).1).unwrap());
    let of_each = |name: &'static str, tiles: &'static str| {
        let command: &[&str] = &["-n", "1", "-x", tiles, RECORDS, "train"];
        [command, TINY, ONE_STEP, FEW, &["--device=cuda", "--name", name]].concat()
    };
    for (name, tiles, taken) in [
        ("tuned", ["RECORDS_TILES=", "RECORDS_TILES=model"], [true, false]),
        ("model", ["RECORDS_TILES=model", "RECORDS_TILES="], [false, true]),
    ] {
        let [first, second] = tiles.map(|tiles| of_each(name, tiles));
        let (calls, _) = calls_of(&mut mpirun(at, &[&first[..], &[":"], &second].concat()));
        assert_eq!([&tuned, &model].map(|kernel| is_launched(&calls, kernel)), taken, "{name}");
        let log = fs::read_to_string(at.join("runs").join(name).join("log.txt")).unwrap();
        assert_eq!(log.contains(" times measured on Stand-in GPU"), taken[0], "{log}");
    }
}

/// Ends with 2 and the same line of every process, which names what is wrong.
fn assert_refused(command: &mut Command, lines: usize, parts: &[&str]) {
    let began = Instant::now();
    let ended = output(command);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let said = errors(&ended);
    assert_eq!((ended.status.code(), said.len()), (Some(2), lines), "{}", text(&ended.stderr));
    for part in parts {
        assert!(said.iter().all(|line| line.contains(part)), "{part:?} is not in {said:?}");
    }
}

#[test]
fn gpus_that_do_not_fit_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let arguments = [TINY, ONE_STEP, FEW, &["--device=cuda"]].concat();
    let mut command = records(at, 2, &arguments);
    on_stand_in(&mut command, at).env("STAND_IN_UUID", "7");
    assert_refused(
        &mut command,
        2,
        &["rank 0 (", " and rank 1 (", "the same GPU, Stand-in", "GPU-00000000-0000"],
    );
    // Of two processes with GPUs of their own, one has another.
    let of_each = |uuid: &'static str| [&["-n", "1", "-x", uuid, RECORDS, "train"], &arguments[..]].concat();
    let all = [
        &of_each("STAND_IN_UUID=1")[..],
        &[":"],
        &of_each("STAND_IN_UUID=2"),
        &[":"],
        &of_each("STAND_IN_UUID=1"),
    ];
    let mut command = mpirun(at, &all.concat());
    assert_refused(on_stand_in(&mut command, at), 3, &["rank 0 (", " and rank 2 (", "the same GPU"]);

    let mut command = records(at, 2, &arguments);
    on_stand_in(&mut command, at).env("RECORDS_NCCL", at.join("nowhere"));
    let parts =
        ["RECORDS_NCCL=", "nowhere", "cannot open shared object file", "pip install nvidia-nccl-cu12"];
    assert_refused(&mut command, 2, &parts);
    let mut command = records(at, 2, &arguments);
    on_stand_in(&mut command, at).env("RECORDS_NCCL", stand_in().join("..").join("none"));
    assert_refused(&mut command, 2, &["RECORDS_NCCL="]);
    assert!(!at.join("runs").exists());
}

/// Starts a run of two processes that would go on for long, whose kernels are not run, so that its steps are
/// short.
fn endless(at: &Path, limit: &str) -> Running {
    let endless = ["--device=cuda", "--name=a", "--epochs=100000", "--debias=none", limit];
    let mut command = records(at, 2, &[TINY, FEW, &["--imb-factor=1"], &endless].concat());
    on_stand_in(&mut command, at).envs([("STAND_IN_SKIP", "1"), ("STAND_IN_NCCL_SECONDS", "3")]);
    Running::start(at, &mut command)
}

#[test]
fn a_process_that_is_lost_ends_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let run = endless(scratch.path(), "--world-timeout=20");
    kill_process(run.ranks[1], Signal::KILL).unwrap();
    let ended = run.end(Duration::from_secs(60));
    assert!(!ended.status.success());
    let said = text(&ended.stderr);
    // Whoever is quicker: mpirun, or the process that is left.
    assert!(said.contains("signal 9") || said.contains("has ended without a word"), "{said}");
}

#[test]
fn a_process_that_stalls_ends_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let run = endless(scratch.path(), "--world-timeout=2");
    kill_process(run.ranks[1], Signal::STOP).unwrap();
    let ended = run.end(Duration::from_secs(60));
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended.stderr));
    let said = errors(&ended);
    assert!(said[0].contains("no answer from rank 1 (process "), "{said:?}");
}

/// The exchanges of a GPU with itself, by the program that `tools/gpu_check` runs on a GPU.
#[test]
fn doctor_says_which_nccl_there_is() {
    let scratch = tempfile::tempdir().unwrap();
    let mut command = Command::new(RECORDS);
    let printed = succeed(&output(on_stand_in(command.arg("doctor"), scratch.path())));
    assert!(printed.lines().any(|line| line.starts_with("NCCL") && line.contains("2.18.3")), "{printed}");
    let mut command = Command::new(RECORDS);
    command.arg("doctor").env("RECORDS_NCCL", scratch.path());
    let printed = succeed(&output(on_stand_in(&mut command, scratch.path())));
    assert!(
        printed.lines().any(|line| line.starts_with("NCCL") && line.contains("pip install")),
        "{printed}"
    );
}
