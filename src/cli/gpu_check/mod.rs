//! `records gpu-check`: checks and times the kernels on this machine's GPU. Correctness comes first, then times,
//! then the GPU's counters; all goes into one JSON file, which is written anew after each part, so that a check
//! that is stopped has what it knows.

mod counters;
mod measured;
mod programs;
mod sanitizer;
mod training;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, ensure};
use clap::Args;
use serde_json::{Map, Value, json};

use self::programs::Outcome;
use super::output;
use crate::device::gpu::probe::{self, FoundDriver};
use crate::files::write_atomically;
use crate::usage;

/// Seconds that a program of kernel tests may take.
const TESTS: u64 = 300;

/// Arguments of `records gpu-check`.
#[derive(Args, Clone, Debug)]
pub struct GpuCheckArguments {
    /// Folder with the programs test-* of the kernel tests, which tools/gpu_check builds
    #[arg(long, value_name = "FOLDER")]
    tests: PathBuf,
    /// The JSON file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// New folder for the runs of the short training
    #[arg(long, value_name = "FOLDER")]
    work: PathBuf,
    /// The script that times PyTorch; without it, PyTorch is not timed
    #[arg(long, value_name = "FILE")]
    pytorch: Option<PathBuf>,
    /// CIFAR-10 as image files, a folder a class in train/ and in test/, for a training of the published network;
    /// without it, made-up images
    #[arg(long, value_name = "FOLDER")]
    images: Option<PathBuf>,
    /// Minutes after which no further part is begun; the file says which were left out
    #[arg(long, value_name = "MINUTES", default_value = "9", value_parser = clap::value_parser!(u64).range(1..=600))]
    minutes: u64,
    /// The version of the code, for the file
    #[arg(long, value_name = "WORD", default_value = "unknown")]
    commit: String,
    /// Use the smallest training and step, to try the command itself
    #[arg(long)]
    smallest: bool,
}

/// What a check knows so far.
struct Check<'a> {
    smallest: bool,
    /// The folder of its trainings.
    runs: &'a Path,
    /// What failed, in words.
    failed: Vec<String>,
    /// The file, part by part.
    parts: Map<String, Value>,
    out: &'a Path,
    end: Instant,
    left_out: Vec<&'static str>,
}

/// Says something of a check that goes on.
fn note(text: &str) {
    output::note(text);
}

impl Check<'_> {
    /// Where a program's output goes.
    fn output(&self) -> PathBuf {
        self.runs.join("output")
    }

    /// Runs a program for so many seconds at the most.
    fn run(&self, command: Command, most: u64) -> Result<Outcome> {
        Outcome::of(command, &self.output(), Duration::from_secs(most))
    }

    /// Notes that something could not be done; what the file says of it.
    fn failure(&mut self, what: &str, error: &Error) -> Value {
        note(&format!("{what} failed: {error:#}"));
        self.failed.push(what.to_string());
        json!({ "failed": format!("{what}: {error:#}") })
    }

    /// Does a part, if there is time for it, and writes the file with it.
    fn part(&mut self, name: &'static str, part: impl FnOnce(&mut Self) -> Value) -> Result<()> {
        if Instant::now() >= self.end {
            self.left_out.push(name);
            return Ok(());
        }
        let value = part(self);
        self.parts.insert(name.into(), value);
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        self.parts.insert("failed".into(), json!(self.failed));
        self.parts.insert("left_out".into(), json!(self.left_out));
        let text = format!("{:#}\n", Value::Object(self.parts.clone()));
        write_atomically(self.out, text.as_bytes())
    }
}

/// Runs everything and writes the file.
///
/// # Errors
/// A usage error if no GPU can be used or there are no tests; after the file is written, an error if a check
/// failed.
pub fn run(arguments: &GpuCheckArguments) -> Result<()> {
    let programs = test_programs(&arguments.tests)?;
    let driver = probe::usable().map_err(|missing| usage!("no GPU to use: {missing}"))?;
    let mut check = Check {
        smallest: arguments.smallest,
        runs: &arguments.work,
        failed: Vec::new(),
        parts: Map::new(),
        out: &arguments.out,
        end: Instant::now() + Duration::from_secs(60 * arguments.minutes),
        left_out: Vec::new(),
    };
    check.part("gpu", |_| gpu(&driver))?;
    check.part("commit", |_| json!(arguments.commit))?;

    // Correctness before anything is timed.
    check.part("tests", |check| programs.iter().map(|program| test(check, program)).collect())?;
    check.part("training", |check| ["cuda", "cpu"].map(|device| training::epochs(check, device)).into())?;
    check.part("curve_agrees", |check| {
        let agrees = training::curves_agree([0, 1].map(|device| &check.parts["training"][device]));
        if !agrees {
            check.failed.push("the losses of a training, which differ from the CPU's".into());
        }
        agrees.into()
    })?;
    check.part("repeated", training::repeated)?;

    check.part("steps", |check| check.steps().into())?;
    check.part("step_without_branches", Check::step_without_branches)?;
    check.part("profiles", |check| ["bf16", "f16"].map(|precision| check.profile(precision)).into())?;
    if let Some(script) = &arguments.pytorch {
        check.part("pytorch", |check| check.pytorch(script))?;
    }
    check.part("full_width", |check| training::full_width(check, arguments.images.as_deref()))?;
    check.part("tuned", |check| {
        measured::step_sizes(check.smallest).iter().map(|&size| check.tuned(size)).collect()
    })?;
    check.part("counters", |check| {
        let profile = check.parts.get("profiles").map_or(Value::Null, |profiles| profiles[0].clone());
        counters::count(check, &profile)
    })?;
    check.part("sanitizer", |check| sanitizer::check(check, &programs))?;

    check.write()?;
    output::print(&format!("wrote {}\n", arguments.out.display()))?;
    if !check.left_out.is_empty() {
        note(&format!("left out after {} minutes: {}", arguments.minutes, check.left_out.join(", ")));
    }
    ensure!(check.failed.is_empty(), "failed: {}", check.failed.join("; "));
    Ok(())
}

fn gpu(driver: &FoundDriver) -> Value {
    let version = |(major, minor): (u32, u32)| format!("{major}.{minor}");
    let first = driver.gpus.first();
    json!({
        "name": first.map(|gpu| &gpu.name),
        "compute_capability": first.map(|gpu| version(gpu.compute_capability)),
        "multiprocessors": first.map(|gpu| gpu.multiprocessors),
        "memory_bytes": first.map(|gpu| gpu.memory),
        "driver_cuda": version(driver.cuda_version),
    })
}

/// The programs `test-*` of a folder by name.
fn test_programs(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries =
        folder.read_dir().map_err(|error| usage!("--tests {}: {error}", folder.display()))?.flatten();
    let is_test =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"test-"));
    let mut programs: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_test).collect();
    programs.sort();
    if programs.is_empty() {
        return Err(usage!(
            "--tests {}: no test-* there; tools/gpu_check --pack makes them",
            folder.display()
        ));
    }
    Ok(programs)
}

fn test(check: &mut Check<'_>, program: &Path) -> Value {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(["--test-threads", "1"]).env("RECORDS_TEST_DEVICE", "cuda").env("RECORDS_POISON", "1");
    let outcome = match check.run(command, TESTS) {
        Ok(outcome) => outcome,
        Err(error) => return check.failure(&name, &error),
    };
    note(&format!("{name} {}", if outcome.passed() { "passed" } else { "failed" }));
    if !outcome.passed() {
        check.failed.push(name.clone());
    }
    let (passed, log) = (outcome.passed(), outcome.tail());
    json!({ "suite": name.trim_start_matches("test-"), "passed": passed, "seconds": outcome.seconds, "log": log })
}
