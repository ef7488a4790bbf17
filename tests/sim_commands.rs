//! The program on the interpreter, as a user runs it: a short training, and a replay beside the CPU's.

use std::path::Path;
use std::process::{Command, Output};

use records::train::tensor_file::{TensorFile, Values};

fn records(folder: &Path, arguments: &[&str]) -> Output {
    let output =
        Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

#[test]
fn a_short_training_on_the_interpreter() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "train",
        "--preset",
        "tiny",
        "--device",
        "sim",
        "--name",
        "run",
        "--epochs",
        "1",
        "--synthetic-train-per-class",
        "4",
        "--synthetic-test-per-class",
        "1",
        "--imb-factor",
        "0.5",
        "--batch-size",
        "8",
        "--upd-start",
        "0",
    ];
    let output = records(folder.path(), &arguments);
    assert!(String::from_utf8_lossy(&output.stdout).contains("PTX interpreter"));
    let line = std::fs::read_to_string(folder.path().join("runs/run/metrics.jsonl")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(line.trim()).unwrap();
    let loss = metrics["loss"].as_f64().unwrap();
    // Ten classes: a pair of untrained views lies near 2 ln 10 and somewhat above for the negative terms.
    assert!((1.0..12.0).contains(&loss), "{line}");
    // A checkpoint of the interpreter is like any other, so the CPU can evaluate it.
    let best = folder.path().join("runs/run");
    let checkpoint = std::fs::read_dir(&best)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .expect("a checkpoint");
    records(folder.path(), &["eval", "--checkpoint", checkpoint.to_str().unwrap(), "--device", "cpu"]);
}

#[test]
fn a_replay_in_f32_agrees_with_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let mut case = TensorFile::default();
    let floats = |n: usize, scale: f32| Values::F32((0..n).map(|i| ((i * i) as f32 * scale).sin()).collect());
    let shape = vec![2, 4, 3, 8, 8];
    case.tensors.insert("batch.weak".into(), (shape.clone(), floats(2 * 4 * 3 * 64, 0.37)));
    case.tensors.insert("batch.strong".into(), (shape, floats(2 * 4 * 3 * 64, 0.53)));
    case.tensors.insert("batch.index".into(), (vec![2, 4], Values::I64(vec![0, 1, 2, 3, 5, 4, 1, 0])));
    let candidates = (0..6 * 3).map(|i| u8::from(i % 3 == 0 || i % 4 == 1)).collect();
    case.tensors.insert("candidates".into(), (vec![6, 3], Values::U8(candidates)));
    for (key, value) in [("width", "8"), ("debias", "records"), ("update", "false,true"), ("lr", "0.01")] {
        case.metadata.insert(key.into(), value.into());
    }
    case.write(&folder.path().join("case.safetensors")).unwrap();
    let run = |device: &str| {
        let output = format!("{device}.safetensors");
        let input = ["replay", "--input", "case.safetensors", "--output", &output];
        records(folder.path(), &[&input[..], &["--device", device, "--precision", "f32"]].concat());
        TensorFile::read(&folder.path().join(&output)).unwrap().state_dict()
    };
    let (cpu, sim) = (run("cpu"), run("sim"));
    assert_eq!(cpu.keys().collect::<Vec<_>>(), sim.keys().collect::<Vec<_>>());
    for name in ["loss", "logits.weak", "logits.strong", "confidence", "feat_mean", "fc.weight"] {
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let (a, b) = (&sim[name].1, &cpu[name].1);
        let gap = norm(&mut a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
        let size = norm(&mut b.iter().map(|b| f64::from(*b)));
        // Sums in another order: 1e-6 for each layer, over two steps.
        assert!(gap <= 1e-3 * size, "{name}: {:.1e}", gap / size);
    }
}
