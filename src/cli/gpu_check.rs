//! `records gpu-check`: checks and times the kernels on this machine's GPU. The kernel tests, a short
//! training compared with the CPU's, timings of steps and, if PyTorch is installed, its timings go into one
//! JSON file, which is written whether or not all checks pass.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::output;
use crate::device::gpu::probe::{self, FoundDriver};
use crate::files::write_atomically;
use crate::usage;

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
    /// The version of the code, for the file
    #[arg(long, value_name = "WORD", default_value = "unknown")]
    commit: String,
    /// Use the smallest training and step, to try the command itself
    #[arg(long)]
    smallest: bool,
}

/// Runs everything and writes the file.
///
/// # Errors
/// A usage error if no GPU can be used or there are no tests; after the file is written, an error if a check
/// failed.
pub fn run(arguments: &GpuCheckArguments) -> Result<()> {
    let programs = test_programs(&arguments.tests)?;
    let driver = probe::usable().map_err(|missing| usage!("no GPU to use: {missing}"))?;
    let mut failed = Vec::new();

    // Correctness before anything is timed.
    let tests: Vec<Value> = programs.iter().map(|program| test(program, &mut failed)).collect();
    let training = ["cuda", "cpu"].map(|device| training(arguments, device, &mut failed));
    let agrees = losses_agree(&training);
    if !agrees {
        failed.push("the loss after training, which differs from the CPU's".to_string());
    }
    let smallest = arguments.smallest;
    let steps: Vec<Value> =
        step_sizes(smallest).map(|size| step(smallest, size, MODEL, &mut failed)).collect();
    let profiles: Vec<Value> =
        ["bf16", "f16"].map(|precision| profile(smallest, precision, &mut failed)).into();
    let tuned: Vec<Value> = step_sizes(smallest).map(|size| tuned(smallest, size, &mut failed)).collect();
    let pytorch = arguments.pytorch.as_deref().map_or(Value::Null, |script| pytorch(script, &mut failed));

    let result = json!({
        "gpu": gpu(&driver),
        "commit": arguments.commit,
        "tests": tests,
        "training": training,
        "loss_agrees": agrees,
        "steps": steps,
        "profiles": profiles,
        "tuned": tuned,
        "pytorch": pytorch,
    });
    write_atomically(&arguments.out, format!("{result:#}\n").as_bytes())?;
    output::print(&format!("wrote {}\n", arguments.out.display()))?;
    ensure!(failed.is_empty(), "failed: {}", failed.join("; "));
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

/// The output of a program, and whether it succeeded.
struct Outcome {
    passed: bool,
    out: String,
    log: String,
}

impl Outcome {
    fn of(mut command: Command) -> Self {
        match command.stdin(Stdio::null()).output() {
            Ok(output) => {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let (out, log) = (text(&output.stdout), text(&output.stderr));
                Self { passed: output.status.success(), out, log }
            }
            Err(error) => Self { passed: false, out: String::new(), log: error.to_string() },
        }
    }

    /// The last lines of its output, with standard error last.
    fn tail(&self) -> Vec<&str> {
        const LINES: usize = 60;
        let lines: Vec<&str> = self.out.lines().chain(self.log.lines()).collect();
        lines[lines.len().saturating_sub(LINES)..].to_vec()
    }
}

/// What tiles are chosen by, as `RECORDS_TILES` has it.
const MODEL: &str = "model";
/// The same where they have been timed.
const TUNED: &str = "";

/// Runs `records` as another process, so that its failure does not end the check.
fn records<A: AsRef<OsStr>>(tiles: &str, arguments: impl IntoIterator<Item = A>) -> Result<Outcome> {
    let program = std::env::current_exe().context("where this program lies")?;
    let mut command = Command::new(program);
    command.args(arguments).env("RECORDS_TILES", tiles);
    Ok(Outcome::of(command))
}

/// The object that `records` prints.
fn object(tiles: &str, arguments: &[&str]) -> Result<Value> {
    let outcome = records(tiles, arguments)?;
    if !outcome.passed {
        bail!("{}", outcome.tail().join("\n"));
    }
    serde_json::from_str(&outcome.out).with_context(|| format!("what {} prints", arguments[0]))
}

fn test(program: &Path, failed: &mut Vec<String>) -> Value {
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut command = Command::new(program);
    command.args(["--test-threads", "1"]).env("RECORDS_TEST_DEVICE", "cuda").env("RECORDS_POISON", "1");
    let outcome = Outcome::of(command);
    output::note(&format!("{name} {}", if outcome.passed { "passed" } else { "failed" }));
    if !outcome.passed {
        failed.push(name.clone());
    }
    json!({ "suite": name.trim_start_matches("test-"), "passed": outcome.passed, "log": outcome.tail() })
}

/// A short training: the same views, order and initial weights on every device.
fn training(arguments: &GpuCheckArguments, device: &str, failed: &mut Vec<String>) -> Value {
    let size: &[&str] = match arguments.smallest {
        true => &["--preset", "tiny", "--epochs", "1"],
        false => &["--preset", "quick", "--width", "16", "--epochs", "6"],
    };
    let trained = || -> Result<Vec<Value>> {
        let mut words: Vec<&OsStr> = vec!["train".as_ref(), "--exp-dir".as_ref(), arguments.work.as_ref()];
        words.extend(["--device", device, "--name", device].map(OsStr::new));
        words.extend(size.iter().map(OsStr::new));
        let outcome = records(MODEL, words)?;
        if !outcome.passed {
            bail!("{}", outcome.tail().join("\n"));
        }
        let file = arguments.work.join(device).join("metrics.jsonl");
        let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
        text.lines().map(|line| serde_json::from_str(line).context("a line of metrics")).collect()
    };
    match trained() {
        Ok(epochs) => json!({ "device": device, "epochs": epochs }),
        Err(error) => {
            output::note(&format!("training on {device} failed: {error:#}"));
            failed.push(format!("training on {device}"));
            json!({ "device": device, "failed": format!("{error:#}") })
        }
    }
}

/// Whether the final losses agree. With the same views, order and weights, bf16 and f32 differ only by
/// rounding: after a few epochs by far less than a tenth of the loss.
fn losses_agree([gpu, cpu]: &[Value; 2]) -> bool {
    let last = |training: &Value| training["epochs"].as_array()?.last()?["loss"].as_f64();
    matches!((last(gpu), last(cpu)), (Some(gpu), Some(cpu)) if cpu > 0.0 && (gpu - cpu).abs() <= 0.1 * cpu)
}

/// (batch size, width) of the timed steps: the published one (256 samples, 512 views, width 64), and smaller
/// ones.
fn step_sizes(smallest: bool) -> impl Iterator<Item = (usize, usize)> {
    let sizes: &[(usize, usize)] = if smallest { &[(4, 8)] } else { &[(256, 64), (64, 64), (256, 16)] };
    sizes.iter().copied()
}

/// The published run, or the smallest.
fn preset(smallest: bool) -> &'static str {
    if smallest { "tiny" } else { "records-cifar10" }
}

/// Every launch of the published step: predicted for this GPU, and measured.
fn profile(smallest: bool, precision: &str, failed: &mut Vec<String>) -> Value {
    let words =
        ["profile", "--preset", preset(smallest), "--precision", precision, "--measured", "--format", "json"];
    object(MODEL, &words).unwrap_or_else(|error| {
        output::note(&format!("the profile in {precision} failed: {error:#}"));
        failed.push(format!("the profile in {precision}"));
        json!({ "precision": precision, "failed": format!("{error:#}") })
    })
}

/// A step with tiles by the model, or with those that were timed.
fn step(smallest: bool, (batch_size, width): (usize, usize), tiles: &str, failed: &mut Vec<String>) -> Value {
    let what = format!("a step of {batch_size} samples at width {width}");
    let (batch_size, width) = (batch_size.to_string(), width.to_string());
    let steps = if smallest { "2" } else { "240" };
    let words = ["bench", "step", "--device", "cuda", "--steps", steps, "--json"];
    let size = ["--batch-size", &*batch_size, "--width", &*width];
    object(tiles, &[&words[..], &size].concat()).unwrap_or_else(|error| {
        output::note(&format!("{what} failed: {error:#}"));
        failed.push(what.clone());
        json!({ "failed": format!("{what}: {error:#}") })
    })
}

/// Times the tiles of a step, and the step again with the fastest. The kernel tests have run all of them.
fn tuned(smallest: bool, size @ (batch_size, width): (usize, usize), failed: &mut Vec<String>) -> Value {
    let words = ["tune", "--preset", preset(smallest), "--format", "json"];
    let numbers = [batch_size, width].map(|number| number.to_string());
    let of_size = ["--batch-size", &*numbers[0], "--width", &*numbers[1]];
    match object(TUNED, &[&words[..], &of_size].concat()) {
        Ok(tuning) => json!({ "tuning": tuning, "step": step(smallest, size, TUNED, failed) }),
        Err(error) => {
            let what = format!("tuning for {batch_size} samples at width {width}");
            output::note(&format!("{what} failed: {error:#}"));
            failed.push(what.clone());
            json!({ "failed": format!("{what}: {error:#}") })
        }
    }
}

/// PyTorch's timings on the same GPU; null if PyTorch is missing or sees no GPU, for which its script has
/// exit status 2.
fn pytorch(script: &Path, failed: &mut Vec<String>) -> Value {
    let mut command = Command::new("python3");
    command.arg(script).args(["--batch-size", "256", "--json"]).stdin(Stdio::null());
    let Ok(output) = command.output() else {
        output::note("no python3, so no timings of PyTorch");
        return Value::Null;
    };
    let log = String::from_utf8_lossy(&output.stderr);
    let last = log.lines().last().unwrap_or_default();
    if output.status.code() == Some(2) {
        output::note(&format!("no timings of PyTorch: {last}"));
        return Value::Null;
    }
    let line = String::from_utf8_lossy(&output.stdout);
    let parsed = line.lines().last().and_then(|line| serde_json::from_str(line).ok());
    match parsed.filter(|_| output.status.success()) {
        Some(timings) => timings,
        None => {
            output::note(&format!("timing PyTorch failed: {last}"));
            failed.push("timing PyTorch".to_string());
            json!({ "failed": log })
        }
    }
}
