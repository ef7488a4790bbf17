//! Trainings on the GPU: a short one beside the CPU's, its bits a second time and over a stop, and one of the
//! published network.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Check;
use super::programs::{End, Outcome, TilesBy, records};
use crate::train::tensor_file::TensorFile;

/// Seconds that a short training may take.
const SHORT: u64 = 240;
/// Seconds that the published network is trained for at the most.
const FULL_WIDTH: u64 = 240;
/// Share of the CPU's loss by which that on the GPU may differ. With the same views, order and initial weights,
/// only rounding differs, which grows from epoch to epoch.
const NEAR: [f64; 2] = [0.02, 0.1];

/// Arguments of the short training: ten epochs of 21 steps.
fn short(smallest: bool) -> &'static [&'static str] {
    match smallest {
        true => &["--preset", "tiny", "--epochs", "1"],
        false => &["--preset", "quick", "--width", "16", "--epochs", "10"],
    }
}

fn train(check: &Check<'_>, device: &str, name: &str, further: &[&str]) -> Result<Command> {
    let mut words: Vec<&OsStr> = vec!["train".as_ref(), "--exp-dir".as_ref(), check.runs.as_os_str()];
    words.extend(["--device", device, "--name", name].map(OsStr::new));
    words.extend(further.iter().map(OsStr::new));
    records(TilesBy::Model, words)
}

/// The lines of a file of JSON lines.
fn lines(file: &Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{}", file.display())))
        .collect()
}

/// The short training on `device`: its epochs' results.
pub fn epochs(check: &mut Check<'_>, device: &str) -> Value {
    let trained = || -> Result<Vec<Value>> {
        let outcome = check.run(train(check, device, device, short(check.smallest))?, SHORT)?;
        ensure!(outcome.passed(), "{}", outcome.why());
        lines(&check.runs.join(device).join("metrics.jsonl"))
    };
    match trained() {
        Ok(epochs) => json!({ "device": device, "epochs": epochs }),
        Err(error) => check.failure(&format!("training on {device}"), &error),
    }
}

/// Whether the losses of all epochs agree.
pub fn curves_agree([gpu, cpu]: [&Value; 2]) -> bool {
    let losses = |training: &Value| -> Option<Vec<f64>> {
        training["epochs"].as_array()?.iter().map(|epoch| epoch["loss"].as_f64()).collect()
    };
    let (Some(gpu), Some(cpu)) = (losses(gpu), losses(cpu)) else { return false };
    let is_near = |(epoch, (gpu, cpu)): (usize, (&f64, &f64))| {
        let near = if epoch == 0 { NEAR[0] } else { NEAR[1] };
        *cpu > 0.0 && (gpu - cpu).abs() <= near * cpu
    };
    !cpu.is_empty() && gpu.len() == cpu.len() && gpu.iter().zip(&cpu).enumerate().all(is_near)
}

/// The short training on the GPU a second time, and stopped inside of the first epoch and resumed: whether results
/// and the state of the last checkpoint have the bits of the first time.
pub fn repeated(check: &mut Check<'_>) -> Value {
    let again = || -> Result<bool> {
        let outcome = check.run(train(check, "cuda", "again", short(check.smallest))?, SHORT)?;
        ensure!(outcome.passed(), "{}", outcome.why());
        same_bits(&check.runs.join("cuda"), &check.runs.join("again"))
    };
    let resumed = || -> Result<bool> {
        let stopped = [short(check.smallest), &["--max-minutes", "0.0001"]].concat();
        let outcome = check.run(train(check, "cuda", "resumed", &stopped)?, SHORT)?;
        // 3: stopped by its own limit.
        if outcome.status != Some(3) {
            bail!("it was to stop, and ended otherwise: {}", outcome.why());
        }
        let folder = check.runs.join("resumed");
        let words =
            ["train".as_ref(), "--device".as_ref(), "cuda".as_ref(), "--resume".as_ref(), folder.as_os_str()];
        let outcome = check.run(records(TilesBy::Model, words)?, SHORT)?;
        ensure!(outcome.passed(), "{}", outcome.why());
        same_bits(&check.runs.join("cuda"), &folder)
    };
    let outcomes = [("a second training", again()), ("a training that was stopped and resumed", resumed())];
    let [again, resumed] = outcomes.map(|(what, outcome)| match outcome {
        Ok(true) => json!(true),
        Ok(false) => {
            check.failed.push(format!("{what}, which has other bits"));
            json!(false)
        }
        Err(error) => check.failure(what, &error),
    });
    json!({ "same_bits_again": again, "same_bits_resumed": resumed })
}

/// Whether two run folders have the same results and the same state in their last checkpoint. (The settings in a
/// checkpoint differ: they name its run.)
fn same_bits(one: &Path, other: &Path) -> Result<bool> {
    let checkpoint = |folder: &Path| -> Result<String> {
        let entries = folder.read_dir().with_context(|| format!("{}", folder.display()))?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let checkpoints = names.filter(|name| name.starts_with("checkpoint-"));
        checkpoints.max().with_context(|| format!("{}: no checkpoint", folder.display()))
    };
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{}", path.display()));
    let name = checkpoint(one)?;
    Ok(name == checkpoint(other)?
        && TensorFile::read(&one.join(&name))?.has_bits_of(&TensorFile::read(&other.join(&name))?)
        && read(&one.join("metrics.jsonl"))? == read(&other.join("metrics.jsonl"))?)
}

/// The published network trained on the GPU for a while, end to end: seconds an epoch with all that the host does, and
/// how good it gets. On CIFAR-10 as image files where `images` names their folder, else on made-up images.
pub fn full_width(check: &mut Check<'_>, images: Option<&Path>) -> Value {
    let trained = || -> Result<Value> {
        let (size, a_class, most): (&[&str], &str, u64) = match check.smallest {
            true => (&["--width", "8", "--batch-size", "16", "--epochs", "2"], "4", SHORT),
            false => (&["--epochs", "60", "--eval-every", "10"], "1240", FULL_WIDTH),
        };
        let made_up = ["--dataset", "synthetic", "--imb-factor", "1", "--synthetic-train-per-class", a_class];
        let of_folder = ["--dataset", "folder", "--imb-factor", "0.01", "--data-dir"];
        let mut words: Vec<&OsStr> = ["train", "--preset", "records-cifar10"].map(OsStr::new).into();
        words.extend(["--device", "cuda", "--name", "full-width"].map(OsStr::new));
        words.extend(["--exp-dir".as_ref(), check.runs.as_os_str()]);
        words.extend(size.iter().map(OsStr::new));
        match images {
            Some(folder) => words.extend(of_folder.map(OsStr::new).into_iter().chain([folder.as_os_str()])),
            None => words.extend(made_up.map(OsStr::new)),
        }
        let outcome = check.run(records(TilesBy::Model, words)?, most)?;
        let folder = check.runs.join("full-width");
        result_of(&outcome, &folder)
    };
    trained().unwrap_or_else(|error| check.failure("a training of the published network", &error))
}

/// What the epochs of a training that has ended, or whose time was up, came to.
fn result_of(outcome: &Outcome, folder: &Path) -> Result<Value> {
    ensure!(outcome.end != End::Failed, "{}", outcome.why());
    let (times, results) = (lines(&folder.join("times.jsonl"))?, lines(&folder.join("metrics.jsonl"))?);
    // The first epoch also compiles and records.
    let mut seconds: Vec<f64> = times.iter().skip(1).filter_map(|epoch| epoch["seconds"].as_f64()).collect();
    seconds.sort_by(f64::total_cmp);
    let tests: Vec<&Value> =
        results.iter().map(|epoch| &epoch["test"]).filter(|test| !test.is_null()).collect();
    Ok(json!({
        "epochs": results.len(),
        "done": outcome.passed(),
        "seconds_per_epoch_median": seconds.get(seconds.len() / 2),
        "times": times,
        "tests": tests,
        "label_accuracy": results.last().map(|epoch| &epoch["label_accuracy"]),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::tensor_file::Values;

    #[test]
    fn curves_agree_where_every_epoch_is_near() {
        let of = |losses: &[f64]| json!({ "epochs": losses.iter().map(|loss| json!({ "loss": loss })).collect::<Vec<_>>() });
        let cpu = of(&[3.0, 2.0, 1.0]);
        for (gpu, agree) in [
            (of(&[3.01, 2.1, 0.95]), true),
            (of(&[3.1, 2.0, 1.0]), false),
            (of(&[3.0, 2.0, 1.2]), false),
            (of(&[3.0, 2.0]), false),
            (json!({ "failed": "x" }), false),
        ] {
            assert_eq!(curves_agree([&gpu, &cpu]), agree, "{gpu}");
        }
        let nothing = of(&[]);
        assert!(!curves_agree([&nothing, &nothing]));
    }

    #[test]
    fn run_folders_are_compared_bit_by_bit() {
        let folder = tempfile::tempdir().unwrap();
        // A run with these results, and checkpoints whose state is one number.
        let run = |name: &str, results: &str, checkpoints: &[(&str, f32)]| {
            let path = folder.path().join(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::write(path.join("metrics.jsonl"), results).unwrap();
            for &(file, value) in checkpoints {
                let mut state = TensorFile::default();
                state.tensors.insert("w".into(), (vec![1], Values::F32(vec![value])));
                state.metadata.insert("run".into(), name.into());
                state.write(&path.join(file)).unwrap();
            }
            path
        };
        let [first, last] = [1, 2].map(|epoch| format!("checkpoint-000{epoch}.safetensors"));
        let one = run("one", "a", &[(&first, 5.0), (&last, 0.0)]);
        assert!(same_bits(&one, &run("same", "a", &[(&last, 0.0)])).unwrap());
        let results = run("results", "b", &[(&last, 0.0)]);
        let state = run("state", "a", &[(&last, -0.0)]);
        let short = run("short", "a", &[(&first, 0.0)]);
        for other in [results, state, short] {
            assert!(!same_bits(&one, &other).unwrap(), "{}", other.display());
        }
        assert!(same_bits(&one, &run("empty", "a", &[])).is_err());
    }
}
