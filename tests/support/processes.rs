//! Programs that mpirun starts, and what their runs have left.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use records::train::checkpoint::Checkpoint;
use records::train::run_folder;
use rustix::process::Pid;

use super::same_runs::text;
use super::support::relative_error;

/// mpirun with `arguments`, in the folder `at`, on any number of processors.
pub fn mpirun(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("mpirun");
    command.args(arguments).current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped());
    // What Open MPI takes as --allow-run-as-root, --oversubscribe and --bind-to none; containers may not
    // let one process read another's memory.
    for (name, value) in [
        ("OMPI_ALLOW_RUN_AS_ROOT", "1"),
        ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"),
        ("OMPI_MCA_rmaps_base_oversubscribe", "1"),
        ("OMPI_MCA_hwloc_base_binding_policy", "none"),
        ("OMPI_MCA_btl_vader_single_copy_mechanism", "none"),
    ] {
        command.env(name, value);
    }
    command
}

pub const RECORDS: &str = env!("CARGO_BIN_EXE_records");

/// `records train` by so many processes; 0 is one without mpirun.
pub fn records(at: &Path, processes: usize, arguments: &[&str]) -> Command {
    if processes == 0 {
        let mut command = Command::new(RECORDS);
        command.arg("train").args(arguments).current_dir(at).stdout(Stdio::piped()).stderr(Stdio::piped());
        return command;
    }
    mpirun(at, &[&["-n", &processes.to_string(), RECORDS, "train"], arguments].concat())
}

pub fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| {
        panic!("cannot start mpirun ({error}): these tests need MPI, such as Debian's openmpi-bin")
    })
}

/// The state after a run.
pub fn state(run: &Path) -> Checkpoint {
    let (path, _) = run_folder::newest(run).unwrap();
    Checkpoint::read(&path).unwrap()
}

/// The relative difference of two runs' states: of the networks, of SGD's momentum (after one step the
/// gradients, where there is one) and of the confidence rows.
pub fn differences(one: &Path, other: &Path) -> [f64; 3] {
    let [one, other] = [one, other].map(|run| state(run).state_dict());
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    ["encoder.,fc.", "momentum.", "confidence"].map(|prefixes| {
        let named = |name: &str| prefixes.split(',').any(|prefix| name.starts_with(prefix));
        let all = |dict: &records::nn::StateDict| -> Vec<f32> {
            dict.iter().filter(|(name, _)| named(name)).flat_map(|(_, (_, v))| v.clone()).collect()
        };
        relative_error(&all(&one), &all(&other))
    })
}

/// The lines of a program's standard error that are the program's own, not mpirun's.
pub fn errors(output: &Output) -> Vec<String> {
    text(&output.stderr).lines().filter(|line| line.starts_with("error: ")).map(String::from).collect()
}

/// One step an epoch. After several steps from these, a value that another order of sums moves over the
/// edge of a ReLU is no longer rounding: other vector instructions alone then make a difference of 1e-3.
pub const ONE_STEP: &[&str] = &["--imb-factor=1", "--synthetic-train-per-class=2", "--lr=0.01", "--epochs=1"];

/// Asserts that two states differ as f32 sums in another order do: relative to their norm 1e-6, and 1e-5 for
/// gradients, which have come through 20 layers.
pub fn assert_rounding(what: &str, many: &Path, one: &Path) {
    let [network, gradients, rows] = differences(many, one);
    println!("{what}: network {network:.1e}, gradients {gradients:.1e}, confidence rows {rows:.1e}");
    assert!(network < 1e-6 && gradients < 1e-5 && rows < 1e-6, "{what}: {network} {gradients} {rows}");
}

/// A run of several processes under way.
pub struct Running {
    mpirun: Child,
    /// The processes by rank.
    pub ranks: Vec<Pid>,
    began: Instant,
}

impl Running {
    /// Starts `command`, whose run is called a, and waits until that has written a checkpoint.
    pub fn start(at: &Path, command: &mut Command) -> Self {
        let child = command.spawn().unwrap();
        let began = Instant::now();
        while run_folder::newest(&at.join("runs/a")).is_none() {
            assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint");
            std::thread::sleep(Duration::from_millis(20));
        }
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap();
        let pids = children.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap());
        Self { mpirun: child, ranks: pids.collect(), began: Instant::now() }
    }

    /// How it has ended, which must be within `limit` of its first checkpoint.
    pub fn end(self, limit: Duration) -> Output {
        let output = self.mpirun.wait_with_output().unwrap();
        assert!(self.began.elapsed() < limit, "{:?}", self.began.elapsed());
        output
    }
}
