//! Whole runs through the real binary: their files, resuming after a kill, damaged files, divergence.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use records::train::tensor_file::{TensorFile, Values};

/// `records train --preset tiny` in `folder` with a few more epochs.
fn train(folder: &Path, name: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command
        .args(["train", "--preset", "tiny", "--epochs", "6", "--name", name, "--exp-dir"])
        .arg(folder)
        .args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn resume(path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).args(["train", "--resume"]).arg(path).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Asserts exit code 2 and one line of error that contains `parts`.
fn assert_refused(output: &Output, parts: &[&str]) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

fn tensors(run: &Path, epochs: usize) -> TensorFile {
    TensorFile::read(&run.join(format!("checkpoint-{epochs:04}.safetensors"))).unwrap()
}

/// Bitwise, so that a NaN equals itself and -0 is not 0.
fn assert_same_bits(a: &TensorFile, b: &TensorFile, what: &str) {
    assert_eq!(a.tensors.keys().collect::<Vec<_>>(), b.tensors.keys().collect::<Vec<_>>());
    for (name, (_, values)) in &a.tensors {
        let same = match (values, &b.tensors[name].1) {
            (Values::F32(a), Values::F32(b)) => {
                a.iter().map(|v| v.to_bits()).eq(b.iter().map(|v| v.to_bits()))
            }
            (a, b) => a == b,
        };
        assert!(same, "{what}: {name} differs");
    }
}

#[test]
fn a_run_leaves_everything_and_eval_works_from_the_checkpoint_alone() {
    let folder = tempfile::tempdir().unwrap();
    let printed = succeed(&train(folder.path(), "one", &[]).output().unwrap());
    for part in [
        "device cpu",
        "top-1",
        "top-5",
        "many-shot",
        "medium-shot",
        "few-shot",
        "MMC",
        "disambiguated",
        "class prior",
    ] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
    let run = folder.path().join("one");
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().count(), 6);
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    assert!(fs::read_to_string(run.join("log.txt")).unwrap().contains("few-shot"));
    let config: toml::Table = fs::read_to_string(run.join("config.toml")).unwrap().parse().unwrap();
    assert_eq!(config["epochs"].as_integer(), Some(6));
    let names: Vec<String> =
        fs::read_dir(&run).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let kept = names.iter().filter(|name| name.starts_with("checkpoint-")).count();
    assert_eq!(kept, 2, "{names:?}");

    // The reference's names and shapes, and nothing that PyTorch's load_state_dict(strict=False) would
    // reject.
    let file = tensors(&run, 6);
    assert_eq!(file.f32("encoder.layer2.0.shortcut.0.weight").unwrap().0, [16, 8, 1, 1]);
    assert_eq!(file.f32("fc.weight").unwrap().0, [10, 64]);
    assert_eq!(file.i64("encoder.bn1.num_batches_tracked").unwrap(), (&[][..], &[24][..]));
    assert_eq!(file.f32("confidence").unwrap().0, [78, 10]);
    assert!(file.tensors.contains_key("momentum.fc.bias") && file.tensors.contains_key("feat_mean"));

    // Elsewhere, without the run's folder.
    let alone = folder.path().join("alone.safetensors");
    fs::copy(run.join("checkpoint-0006.safetensors"), &alone).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_records"))
        .args(["eval", "--checkpoint"])
        .arg(&alone)
        .output()
        .unwrap();
    let top1 = last["test"]["top1"].as_f64().unwrap();
    let printed = succeed(&output);
    assert!(printed.contains(&format!("top-1 {top1:.2} %")), "{printed} does not show {top1}");
}

/// Kills a run with SIGKILL at five moments spread over its length (tests/run_folder.rs does so at every step
/// of its files), resumes each, and compares all bits of the final checkpoint with those of a run never
/// stopped.
#[test]
fn killed_runs_resume_to_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let started = std::time::Instant::now();
    succeed(&train(folder.path(), "whole", &[]).output().unwrap());
    let length = started.elapsed();
    let whole = tensors(&folder.path().join("whole"), 6);
    let mut killed = 0;
    for number in 0..5u32 {
        let name = format!("killed-{number}");
        let mut child = train(folder.path(), &name, &[]).stdout(Stdio::null()).spawn().unwrap();
        // The moments differ from run to run of this test, since any moment must work.
        let jitter =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos() % 1000;
        std::thread::sleep(length.mul_f64((f64::from(number) + f64::from(jitter) / 1000.0) / 5.0));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
        let run = folder.path().join(&name);
        if !run.join("config.toml").exists() {
            // Killed before the run had written its settings: there is nothing to resume, and the message
            // says so.
            assert_refused(&resume(&run), &[&name]);
            continue;
        }
        succeed(&resume(&run));
        assert_same_bits(&whole, &tensors(&run, 6), &name);
        let metrics = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
        assert_eq!(metrics.lines().count(), 6, "{name}: one line an epoch");
    }
    assert!(killed >= 2, "only {killed} of five runs were killed before they ended");
}

/// In f16, where the CPU rounds as a GPU does, the loss scale is part of the state; bf16 has none.
#[test]
fn a_run_in_f16_resumes_to_the_same_bits() {
    use records::optim::loss_scale::{LOSS_SCALE, SKIPPED_STEPS, STEPS, STOPPED_AT};
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("half");
    succeed(&train(folder.path(), "half", &["--device", "cpu", "--precision", "f16"]).output().unwrap());
    let whole = tensors(&run, 6);
    let Values::F32(scale) = &whole.tensors["loss_scale"].1 else { panic!("the scale is no f32") };
    assert!(scale[STEPS] > scale[SKIPPED_STEPS] && scale[STOPPED_AT] == 0.0, "{scale:?}");
    assert_eq!(scale[LOSS_SCALE], 65536.0 * 0.5f32.powi(scale[SKIPPED_STEPS] as i32), "{scale:?}");
    let metrics = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let last = metrics(&run).lines().last().unwrap().to_string();
    let left_out = format!("\"steps_left_out\":{},", scale[SKIPPED_STEPS]);
    assert!(last.contains(&left_out), "{last}");
    let earlier = run.join("checkpoint-0005.safetensors");
    succeed(&resume(&earlier));
    assert_same_bits(&whole, &tensors(&run, 6), "resumed");
    let output = train(folder.path(), "bf16", &["--device", "cpu", "--precision", "bf16"]).output().unwrap();
    succeed(&output);
    assert!(!tensors(&folder.path().join("bf16"), 6).tensors.contains_key("loss_scale"));
    assert!(!metrics(&folder.path().join("bf16")).contains("steps_left_out"));
}

#[test]
fn the_number_of_threads_does_not_change_a_bit() {
    let folder = tempfile::tempdir().unwrap();
    for threads in ["1", "2", "3"] {
        succeed(&train(folder.path(), threads, &["--threads", threads]).output().unwrap());
    }
    let one = tensors(&folder.path().join("1"), 6);
    assert_same_bits(&one, &tensors(&folder.path().join("2"), 6), "two threads");
    assert_same_bits(&one, &tensors(&folder.path().join("3"), 6), "three threads");
}

#[test]
fn another_seed_gives_another_network() {
    let folder = tempfile::tempdir().unwrap();
    for seed in ["1", "2"] {
        succeed(&train(folder.path(), seed, &["--seed", seed, "--epochs", "1"]).output().unwrap());
    }
    let weights = |name: &str| tensors(&folder.path().join(name), 1).f32("fc.weight").unwrap().1.to_vec();
    assert_ne!(weights("1"), weights("2"));
}

#[test]
fn damaged_checkpoints_are_named_and_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&train(folder.path(), "run", &[]).output().unwrap());
    let run = folder.path().join("run");
    let newest = run.join("checkpoint-0006.safetensors");
    let good = fs::read(&newest).unwrap();
    let eval = |path: &Path| {
        Command::new(env!("CARGO_BIN_EXE_records")).args(["eval", "--checkpoint"]).arg(path).output().unwrap()
    };
    let mut flipped = good.clone();
    let at = flipped.len() - 1000;
    flipped[at] ^= 4;
    fs::write(&newest, &flipped).unwrap();
    assert_refused(&eval(&newest), &["checkpoint-0006", "damaged"]);
    fs::write(&newest, &good[..good.len() / 2]).unwrap();
    assert_refused(&eval(&newest), &["checkpoint-0006", "not a whole safetensors file"]);

    // Resuming uses the one before and makes the newest again.
    let printed = succeed(&resume(&run));
    assert!(printed.contains("passing over") && printed.contains("resuming after 5 epochs"), "{printed}");
    let again = TensorFile::read(&newest).unwrap();
    assert_same_bits(&TensorFile::from_bytes(&good).unwrap(), &again, "resumed");
    assert_refused(&eval(&run.join("config.toml")), &["config.toml", "not a whole safetensors file"]);
    assert_refused(&eval(&run.join("absent.safetensors")), &["cannot be read", "absent.safetensors"]);
}

#[test]
fn folders_are_protected() {
    let folder = tempfile::tempdir().unwrap();
    succeed(&train(folder.path(), "taken", &["--epochs", "1"]).output().unwrap());
    let before = fs::read(folder.path().join("taken/metrics.jsonl")).unwrap();
    assert_refused(&train(folder.path(), "taken", &[]).output().unwrap(), &["--name taken", "--resume"]);
    assert_eq!(before, fs::read(folder.path().join("taken/metrics.jsonl")).unwrap());

    // Two processes in one folder: the second is refused while the first runs, and not after.
    let mut first =
        train(folder.path(), "long", &["--epochs", "10000"]).stdout(Stdio::null()).spawn().unwrap();
    let run = folder.path().join("long");
    for _ in 0..600 {
        if run.join("metrics.jsonl").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_refused(&resume(&run), &["another process"]);
    first.kill().unwrap();
    first.wait().unwrap();

    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert_refused(&train(&file, "x", &[]).output().unwrap(), &["cannot make the run folder"]);
    assert_refused(&resume(&folder.path().join("nowhere")), &["nowhere"]);
    let changed = Command::new(env!("CARGO_BIN_EXE_records"))
        .args(["train", "--lr", "0.5", "--resume"])
        .arg(folder.path().join("taken"))
        .output()
        .unwrap();
    assert_refused(&changed, &["lr was ", "and is now 0.5", "leave --lr out"]);
}

#[test]
fn divergence_ends_the_run_and_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(folder.path(), "run", &["--lr", "1e30"]).output().unwrap();
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert!(line.contains("diverged") && line.contains("--lr"), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    assert!(folder.path().join("run/config.toml").exists());
}

/// No GPU and no compiler are usage errors with a remedy, before anything is written.
#[test]
fn devices_that_cannot_be_had_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        let mut command = train(folder.path(), "run", arguments);
        command.env("CUDA_VISIBLE_DEVICES", "").env("RECORDS_NVRTC", "/nowhere/libnvrtc.so");
        assert_refused(&command.output().unwrap(), words);
    };
    refused(&["--device", "cuda"], &["--device cuda", "use --device cpu"]);
    let sim_words: &[&str] = match cfg!(feature = "sim") {
        true => &["NVRTC", "/nowhere/libnvrtc.so", "pip install"],
        false => &["--device sim", "no PTX interpreter", "--features sim"],
    };
    refused(&["--device", "sim"], sim_words);
    refused(&["--device", "cpu", "--precision", "fp16"], &["--precision fp16", "bf16", "f16"]);
    let output = train(folder.path(), "run", &["--batch-size", "200"]).output().unwrap();
    assert_refused(&output, &["--batch-size 200", "78 samples"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// A replay case of two steps on a width-4 network.
fn replay_case() -> TensorFile {
    let mut case = TensorFile::default();
    let floats = |n: usize| Values::F32((0..n).map(|i| (i as f32 * 0.37).sin()).collect());
    let shape = vec![2, 4, 3, 8, 8];
    case.tensors.insert("batch.weak".into(), (shape.clone(), floats(2 * 4 * 3 * 64)));
    case.tensors.insert("batch.strong".into(), (shape, floats(2 * 4 * 3 * 64)));
    case.tensors.insert("batch.index".into(), (vec![2, 4], Values::I64(vec![0, 1, 2, 3, 5, 4, 1, 0])));
    let candidates = (0..6 * 3).map(|i| u8::from(i % 3 == 0 || i % 4 == 1)).collect();
    case.tensors.insert("candidates".into(), (vec![6, 3], Values::U8(candidates)));
    for (key, value) in
        [("width", "4"), ("method", "corr"), ("debias", "records"), ("update", "false,true"), ("lr", "0.1")]
    {
        case.metadata.insert(key.into(), value.into());
    }
    case
}

fn replay(folder: &Path, case: &TensorFile) -> (Output, PathBuf) {
    let (input, output) = (folder.join("case.safetensors"), folder.join("out.safetensors"));
    case.write(&input).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(["replay", "--device", "cpu", "--input"]).arg(&input).arg("--output").arg(&output);
    (command.output().unwrap(), output)
}

#[test]
fn replay_writes_what_it_documents() {
    let folder = tempfile::tempdir().unwrap();
    let case = replay_case();
    let (output, path) = replay(folder.path(), &case);
    succeed(&output);
    let result = TensorFile::read(&path).unwrap();
    assert_eq!(result.f32("loss").unwrap().0, [2]);
    assert_eq!(result.f32("logits.weak").unwrap().0, [4, 3]);
    assert_eq!(result.f32("grad.encoder.conv1.weight").unwrap().0, [4, 3, 3, 3]);
    assert_eq!(result.f32("feat_mean").unwrap().0, [32]);
    assert_eq!(result.i64("encoder.bn1.num_batches_tracked").unwrap().1, [2]);
    // Only the rows of the second step were updated; row 2 was in the first only, when updates were off.
    let (_, confidence) = result.f32("confidence").unwrap();
    let candidates = case.u8("candidates").unwrap().1;
    let start = records::pll::Start::Uniform.rows(3, candidates);
    assert_eq!(confidence[6..12], start[6..12]);
    assert!(confidence.iter().zip(candidates).all(|(c, s)| *s == 1 || *c == 0.0));

    // Feeding the output back continues: one step more equals three steps at once.
    let mut again = case.clone();
    again.extend(result.state_dict());
    assert!(replay(folder.path(), &again).0.status.success());
}

#[test]
fn bad_replay_cases_are_refused_with_the_tensor_named() {
    let folder = tempfile::tempdir().unwrap();
    type Change = fn(&mut TensorFile);
    let changes: &[(&str, Change)] = &[
        ("'candidates' is missing", |case| _ = case.tensors.remove("candidates")),
        ("'batch.weak' is missing", |case| _ = case.tensors.remove("batch.weak")),
        ("'batch.index'", |case| {
            case.tensors.get_mut("batch.index").unwrap().1 = Values::I64(vec![0, 1, 2, 9, 0, 1, 2, 3])
        }),
        ("occurs twice", |case| {
            case.tensors.get_mut("batch.index").unwrap().1 = Values::I64(vec![0, 1, 1, 3, 0, 1, 2, 3])
        }),
        ("'method': 'other'", |case| _ = case.metadata.insert("method".into(), "other".into())),
        ("'update'", |case| _ = case.metadata.insert("update".into(), "true,maybe".into())),
        ("3 values for 2 steps", |case| _ = case.metadata.insert("update".into(), "true,true,true".into())),
        ("'lr': 'fast'", |case| _ = case.metadata.insert("lr".into(), "fast".into())),
        ("'width': '0'", |case| _ = case.metadata.insert("width".into(), "0".into())),
        ("'arch': 'vgg'", |case| _ = case.metadata.insert("arch".into(), "vgg".into())),
        ("fc.bias", |case| _ = case.tensors.insert("fc.bias".into(), (vec![4], Values::F32(vec![0.0; 4])))),
        ("'confidence'", |case| {
            _ = case.tensors.insert("confidence".into(), (vec![1, 3], Values::F32(vec![0.0; 3])))
        }),
    ];
    for (part, change) in changes {
        let mut case = replay_case();
        change(&mut case);
        let (output, path) = replay(folder.path(), &case);
        assert_refused(&output, &["case.safetensors", part]);
        assert!(!path.exists(), "{part}: something was written");
    }
}
