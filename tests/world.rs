//! Several processes that train one network over MPI: the same as one process but for the order of sums, the
//! same bits every time, and an end with one line whatever one of them does.
//!
//! The tests start mpirun themselves; without it they fail.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use processes::{
    ONE_STEP, RECORDS, Running, assert_rounding, differences, errors, mpirun, output, records, state,
};
use records::train::run_folder;
use rustix::process::{Signal, kill_process};
use same_runs::{assert_same, succeed, text};
use small_images::write_small_images;

#[path = "support/processes.rs"]
mod processes;
#[path = "support/same_runs.rs"]
mod same_runs;
#[path = "support/small_images.rs"]
mod small_images;
mod support;

/// Four steps of 16 samples an epoch; a network of width 4.
const TINY: &[&str] = &[
    "--preset=tiny",
    "--synthetic-test-per-class=2",
    "--width=4",
    "--threads=1",
    "--device=cpu",
    "--exp-dir=runs",
    "--debias=none",
    "--world-timeout=20",
];

/// A run called `name` of the tiny network; returns its folder.
fn train(at: &Path, name: &str, processes: usize, more: &[&str]) -> PathBuf {
    let name = format!("--name={name}");
    let arguments = [TINY, &[&name[..]], more].concat();
    succeed(&output(&mut records(at, processes, &arguments)));
    at.join("runs").join(&name["--name=".len()..])
}

/// A step is that of one process up to another order of sums, whatever the method, and also where the batch
/// of 16 does not divide.
#[test]
fn steps_are_those_of_one_process() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let methods: &[(&str, &[&str], &[usize])] = &[
        ("records", &["--debias=records", "--mixup=true", "--upd-start=0"], &[2, 3]),
        ("cc", &["--method=cc", "--upd-start=0", "--optimizer=adamw", "--lr=0.001"], &[2]),
        ("lw", &["--method=lw", "--upd-start=0", "--precision=bf16"], &[2]),
        ("solar", &["--method=solar", "--est-epochs=0", "--epochs=2", "--warmup-epoch=0"], &[2]),
        ("pico", &["--method=pico", "--upd-start=0"], &[4]),
    ];
    for (method, settings, worlds) in methods {
        let settings = [ONE_STEP, *settings].concat();
        let one = train(at, method, 0, &settings);
        for &processes in *worlds {
            let many = train(at, &format!("{method}-{processes}"), processes, &settings);
            assert_rounding(&format!("{method} by {processes}"), &many, &one);
        }
    }
}

/// A world of one is no world: the same bits. Two processes give the same bits every time, batchnorm joint or
/// local, and several batches of other sizes.
#[test]
fn the_same_world_gives_the_same_bits() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    for (name, settings) in [
        ("joint", &["--debias=records", "--epochs=2", "--batch-size=15"][..]),
        ("local", &["--batchnorm=local", "--epochs=1"]),
    ] {
        let twice = [1, 2].map(|time| {
            let folder = at.join(format!("{name}-{time}"));
            fs::create_dir(&folder).unwrap();
            train(&folder, "a", 2, settings)
        });
        assert_same(&twice[0], &twice[1], name);
    }
    let [none, one] = ["none", "one"].map(|name| at.join(name));
    for (folder, processes) in [(&none, 0), (&one, 1)] {
        fs::create_dir(folder).unwrap();
        train(folder, "a", processes, &["--epochs=1"]);
    }
    assert_same(&one.join("runs/a"), &none.join("runs/a"), "a world of one");
    // Local statistics are another computation.
    let local = at.join("local-1/runs/a");
    assert!(differences(&local, &none.join("runs/a"))[0] > 1e-3);
}

/// A curve of five epochs by two processes lies within the spread of one process's over seeds.
#[test]
fn a_curve_is_within_the_spread_of_seeds() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let settings = ["--debias=records", "--epochs=5", "--synthetic-train-per-class=40"];
    let losses =
        |run: PathBuf| -> Vec<f64> { run_folder::metrics(&run).iter().map(|line| line.loss).collect() };
    let curves: Vec<Vec<f64>> = [123, 1, 2]
        .map(|seed| {
            let seed = format!("--seed={seed}");
            losses(train(at, &seed[2..].replace('=', "-"), 0, &[&settings[..], &[&seed]].concat()))
        })
        .to_vec();
    let two = losses(train(at, "two", 2, &settings));
    assert_eq!(two.len(), 5);
    for epoch in 0..5 {
        let of_seeds = curves.iter().map(|curve| curve[epoch]);
        let spread = of_seeds.clone().fold(f64::MIN, f64::max) - of_seeds.fold(f64::MAX, f64::min);
        let difference = (two[epoch] - curves[0][epoch]).abs();
        assert!(difference < spread, "epoch {epoch}: {difference} of {spread}");
    }
}

/// A run of two processes is stopped inside an epoch and goes on with the same bits; with one process it goes
/// on as well, and the log says that bits differ.
#[test]
fn any_number_of_processes_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let more = ["--name=a", "--debias=records", "--epochs=2"];
    for folder in ["whole", "stopped"] {
        fs::create_dir(at.join(folder)).unwrap();
    }
    train(&at.join("whole"), "a", 2, &more);
    let stopped = at.join("stopped");
    let stop = [TINY, &more[..], &["--max-minutes=1e-9"]].concat();
    let ended = output(&mut records(&stopped, 2, &stop));
    assert_eq!(ended.status.code(), Some(3), "{}", text(&ended.stderr));
    assert!(stopped.join("runs/a/stopped.safetensors").exists());
    let copy = at.join("copy");
    let copied = Command::new("cp").arg("-r").args([&stopped, &copy]).status().unwrap();
    assert!(copied.success());

    succeed(&output(&mut records(&stopped, 2, &["--resume=runs/a"])));
    assert_same(&stopped.join("runs/a"), &at.join("whole/runs/a"), "resumed by two");
    let printed = succeed(&output(&mut records(&copy, 0, &["--resume=runs/a"])));
    let said = "computed by 2 processes and goes on with one process";
    assert!(printed.contains(said), "{printed}");
    assert_eq!(state(&copy.join("runs/a")).progress.epochs_done, 2);
}

/// The interpreter's kernels between the exchanges, against one process on the interpreter.
#[cfg(feature = "sim")]
#[test]
fn the_interpreter_shares_a_step_as_well() {
    let scratch = tempfile::tempdir().unwrap();
    let few = ["--synthetic-train-per-class=1", "--synthetic-test-per-class=1", "--batch-size=8"];
    let settings = [ONE_STEP, &few, &["--device=sim", "--precision=f32", "--debias=records"]].concat();
    let settings = [&settings[..], &["--upd-start=0", "--world-timeout=120"]].concat();
    let one = train(scratch.path(), "one", 0, &settings);
    let two = train(scratch.path(), "two", 2, &settings);
    assert_rounding("sim by 2", &two, &one);
}

/// Starts a run of two processes that would go on for long.
fn endless(at: &Path, limit: &str) -> Running {
    Running::start(at, &mut records(at, 2, &[TINY, &["--name=a", "--epochs=100000", limit]].concat()))
}

/// The last checkpoint is whole, and the run goes on from it.
fn assert_goes_on(at: &Path) {
    let run = at.join("runs/a");
    let epochs = state(&run).progress.epochs_done + 1;
    succeed(&output(&mut records(at, 2, &["--resume=runs/a", &format!("--epochs={epochs}")])));
    assert!(state(&run).progress.epochs_done >= epochs);
}

#[test]
fn a_process_that_is_lost_ends_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let run = endless(at, "--world-timeout=20");
    kill_process(run.ranks[1], Signal::KILL).unwrap();
    let ended = run.end(Duration::from_secs(30));
    assert!(!ended.status.success());
    let said = text(&ended.stderr);
    // Whoever is quicker: mpirun, or the process that is left.
    assert!(said.contains("signal 9") || said.contains("has ended without a word"), "{said}");
    assert_goes_on(at);
}

#[test]
fn a_process_that_stalls_ends_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let run = endless(at, "--world-timeout=2");
    kill_process(run.ranks[1], Signal::STOP).unwrap();
    let ended = run.end(Duration::from_secs(30));
    assert_eq!(ended.status.code(), Some(1));
    let said = errors(&ended);
    assert!(said[0].contains("no answer from rank 1 (process "), "{said:?}");
    // mpirun wakes it, and it finds that the other has ended.
    assert!(said.len() <= 2, "{said:?}");
    assert_goes_on(at);
}

#[test]
fn a_signal_to_one_stops_all() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let run = endless(at, "--world-timeout=20");
    kill_process(run.ranks[1], Signal::TERM).unwrap();
    let ended = run.end(Duration::from_secs(30));
    assert_eq!(ended.status.code(), Some(143), "{}", text(&ended.stderr));
    assert!(text(&ended.stderr).contains("stopped by SIGTERM "), "{}", text(&ended.stderr));
    let log = fs::read_to_string(at.join("runs/a/log.txt")).unwrap();
    assert!(log.lines().last().unwrap().starts_with("stopped by SIGTERM"), "{log}");
    assert_goes_on(at);
}

/// Ends with 2 and the same line of every process, which names what is wrong.
fn assert_refused(command: &mut Command, lines: usize, parts: &[&str]) {
    let began = Instant::now();
    let ended = output(command);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let said = errors(&ended);
    assert_eq!(ended.status.code(), Some(2), "{}", text(&ended.stderr));
    assert_eq!(said.len(), lines, "{}", text(&ended.stderr));
    for part in parts {
        assert!(said.iter().all(|line| line.contains(part)), "{part:?} is not in {said:?}");
    }
}

/// mpirun's arguments for one process with each of these flags.
fn each<'a>(of: &[&[&'a str]]) -> Vec<&'a str> {
    let all: Vec<Vec<&str>> =
        of.iter().map(|more| [&["-n", "1", RECORDS, "train"], TINY, more].concat()).collect();
    all.join(&":")
}

#[test]
fn a_world_that_does_not_fit_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let settings = each(&[&["--lr=0.1"], &["--lr=0.1"], &["--lr=0.2"]]);
    assert_refused(&mut mpirun(at, &settings), 3, &["--lr is 0.1 on rank 0", "0.2 on rank 2"]);
    let devices = each(&[&[], &["--precision=bf16"]]);
    assert_refused(&mut mpirun(at, &devices), 2, &["--precision is"]);
    let small = [TINY, &["--batch-size=2"]].concat();
    assert_refused(&mut records(at, 3, &small), 3, &["--batch-size 2: 3 processes"]);
    let of_reference = [TINY, &["--world-size=4"]].concat();
    assert_refused(&mut records(at, 2, &of_reference), 2, &["--world-size 4: there are 2 processes"]);
    // One process has other data, which the first has not.
    let missing = each(&[&[], &["--dataset=cifar10-lt", "--data-dir=nowhere"]]);
    assert_refused(&mut mpirun(at, &missing), 2, &["--dataset is"]);
    // One fails; the other ends with its reason.
    let nowhere = [TINY, &["--exp-dir=/proc/none"]].concat();
    assert_refused(&mut records(at, 2, &nowhere), 2, &["cannot make the run folder /proc/none"]);
    assert!(!at.join("runs").exists());
}

/// A process whose images or lists are not those of the others is named on all, whatever differs.
#[test]
fn other_data_on_a_process_are_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    for folder in ["ours", "theirs"] {
        fs::create_dir(at.join(folder)).unwrap();
        write_small_images(&at.join(folder));
    }
    let of_lists = ["--dataset=csv", "--image-size=8", "--batch-size=10", "--epochs=1"];
    let [ours, theirs] = ["--data-dir=ours", "--data-dir=theirs"].map(|dir| [&of_lists[..], &[dir]].concat());
    let all = each(&[&ours, &theirs, &ours]);
    let refused = |lines: usize, parts: &[&str]| assert_refused(&mut mpirun(at, &all), lines, parts);
    let differ = ["the data of rank 1 (process ", "are not those of rank 0: ", "--data-dir"];

    // One image is another one.
    let image = at.join("theirs/3.png");
    let kept = fs::read(&image).unwrap();
    fs::copy(at.join("theirs/4.png"), &image).unwrap();
    refused(3, &differ);
    fs::write(&image, kept).unwrap();
    // One sample has another candidate.
    let list = at.join("theirs/train.csv");
    let kept = fs::read_to_string(&list).unwrap();
    fs::write(&list, kept.replace("3.png,0|1", "3.png,0|2")).unwrap();
    refused(3, &differ);
    // A test image has another class.
    fs::write(&list, &kept).unwrap();
    let test = at.join("theirs/test.csv");
    fs::write(&test, fs::read_to_string(&test).unwrap().replace("1.png,1", "1.png,2")).unwrap();
    refused(3, &differ);
    // An image is missing there: the others say who ended, and why.
    fs::remove_file(&image).unwrap();
    let ended = output(&mut mpirun(at, &all));
    let said = errors(&ended);
    assert_eq!((ended.status.code(), said.len()), (Some(2), 3), "{said:?}");
    assert!(said.iter().all(|line| line.contains("theirs/3.png")), "{said:?}");
    assert_eq!(said.iter().filter(|line| line.contains("rank 1 (process ")).count(), 2, "{said:?}");
    assert!(!at.join("runs").exists());
    // With the same data everywhere, in whatever folder, they train.
    fs::remove_dir_all(at.join("theirs")).unwrap();
    fs::create_dir(at.join("theirs")).unwrap();
    write_small_images(&at.join("theirs"));
    succeed(&output(&mut mpirun(at, &all)));
}

#[test]
fn a_process_that_does_not_come_ends_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let first = [&["-n", "1", RECORDS, "train"], TINY, &["--world-timeout=3"]].concat();
    let absent = [&first[..], &[":", "-n", "1", "sleep", "30"]].concat();
    assert_refused(&mut mpirun(at, &absent), 1, &["a process is missing"]);

    // A process that MPI knows nothing of: srun says so, or MPI finds out.
    let mut command = records(at, 0, TINY);
    command.envs([("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "2")]);
    assert_refused(&mut command, 1, &["one of 2 processes that srun has started without MPI", "--mpi=pmix"]);
    let mut command = records(at, 0, TINY);
    command.envs([("PMI_RANK", "0"), ("PMI_SIZE", "2")]);
    assert_refused(&mut command, 1, &["mpiexec has started 2 processes, but MPI sees 1", "mpirun"]);
    assert!(!at.join("runs").exists());
}

/// `records train` as torchrun starts its process `rank` of `size` on one machine, where it listens at `port`.
fn as_torchrun(at: &Path, [rank, size]: [usize; 2], port: u16, arguments: &[&str]) -> Command {
    let mut command = records(at, 0, arguments);
    let [rank, size] = [rank, size].map(|number| number.to_string());
    for (name, value) in
        [("RANK", &rank), ("LOCAL_RANK", &rank), ("WORLD_SIZE", &size), ("LOCAL_WORLD_SIZE", &size)]
    {
        command.env(name, value);
    }
    command.env("MASTER_ADDR", "127.0.0.1").env("MASTER_PORT", port.to_string());
    command
}

/// A port that is free and whose neighbour is, below those that the system gives to whoever asks for any.
fn free_port() -> u16 {
    static TRIED: AtomicU16 = AtomicU16::new(0);
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = 12_000 + (std::process::id() % 900) as u16 * 20;
    let ports = std::iter::repeat_with(|| first + 2 * TRIED.fetch_add(1, Ordering::SeqCst));
    ports.take(1000).find(|&port| is_free(port) && is_free(port + 1)).expect("a free port")
}

/// Processes that torchrun has started find each other, and compute what those of mpirun compute. torchrun itself
/// listens at MASTER_PORT.
#[test]
fn torchrun_starts_the_same_world() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let run = [TINY, &["--name=a", "--epochs=1"]].concat();
    let [by_torchrun, by_mpirun] = ["torchrun", "mpirun"].map(|name| at.join(name));
    fs::create_dir(&by_torchrun).unwrap();
    fs::create_dir(&by_mpirun).unwrap();
    succeed(&output(&mut records(&by_mpirun, 3, &run)));
    let port = free_port();
    let _torchrun = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let ranks = [0, 1, 2].map(|rank| {
        let mut command = as_torchrun(&by_torchrun, [rank, 3], port, &run);
        // As where srun has started torchrun.
        command.envs([("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_JOB_ID", "1")]);
        command.spawn().unwrap()
    });
    for rank in ranks {
        succeed(&rank.wait_with_output().unwrap());
    }
    assert_same(&by_torchrun.join("runs/a"), &by_mpirun.join("runs/a"), "by torchrun");
}

/// Whatever is missing, one line says so in bounded time.
#[test]
fn a_world_of_torchrun_that_does_not_form_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let limited = [TINY, &["--world-timeout=2"]].concat();
    let port = free_port();
    assert_refused(
        &mut as_torchrun(at, [0, 2], port, &limited),
        1,
        &["rank 0 of 2", "a process is missing", "torchrun"],
    );
    assert_refused(
        &mut as_torchrun(at, [1, 2], port, &limited),
        1,
        &["rank 1 of 2", "nobody listens at 127.0.0.1:"],
    );
    // Somebody else listens at the port behind torchrun's.
    let _other = TcpListener::bind(("127.0.0.1", port + 1)).unwrap();
    let parts = [&format!("port {}", port + 1), "ompi-server", "--master-port"];
    assert_refused(&mut as_torchrun(at, [0, 2], port, &limited), 1, &parts);
    let mut command = as_torchrun(at, [0, 2], port, TINY);
    assert_refused(
        command.env_remove("MASTER_PORT"),
        1,
        &["MASTER_PORT is not set", "mpirun -n 2 records train"],
    );
    // Without the server of Open MPI.
    let mut command = as_torchrun(at, [0, 2], free_port(), TINY);
    let parts = ["ompi-server", "is not there", "mpirun -n 2 records train"];
    assert_refused(command.env("PATH", at), 1, &parts);
    // The processes find each other, and differ.
    let port = free_port();
    let other = [TINY, &["--lr=0.2"]].concat();
    let second = as_torchrun(at, [1, 2], port, &other).spawn().unwrap();
    assert_refused(
        &mut as_torchrun(at, [0, 2], port, TINY),
        1,
        &["--lr is ", "on rank 0 (", "0.2 on rank 1 ("],
    );
    assert_eq!(second.wait_with_output().unwrap().status.code(), Some(2));
    assert!(!at.join("runs").exists());
}

#[test]
fn a_process_of_torchrun_that_is_lost_ends_the_others() {
    let scratch = tempfile::tempdir().unwrap();
    let at = scratch.path();
    let port = free_port();
    let endless = [TINY, &["--name=a", "--epochs=100000"]].concat();
    let [first, mut second] = [0, 1].map(|rank| as_torchrun(at, [rank, 2], port, &endless).spawn().unwrap());
    let began = Instant::now();
    while run_folder::newest(&at.join("runs/a")).is_none() {
        assert!(began.elapsed() < Duration::from_secs(60), "no checkpoint");
        std::thread::sleep(Duration::from_millis(20));
    }
    second.kill().unwrap();
    second.wait().unwrap();
    let began = Instant::now();
    let ended = first.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(ended.status.code(), Some(1), "{}", text(&ended.stderr));
    let said = errors(&ended);
    assert!(
        said.len() == 1 && said[0].contains("rank 1 (process ") && said[0].contains("without a word"),
        "{said:?}"
    );
    assert_goes_on(at);
}
