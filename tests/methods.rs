//! Every method through replay and through the binary: what is written, that a run resumes where it stopped,
//! that a partly valid batch computes like a smaller one, and that a NaN stays visible.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use records::autograd::Tape;
use records::device::cpu::CpuDevice;
use records::device::{Device, Element};
use records::nn::{Mode, Network, Parameters, Pass, ResNet};
use records::random::philox::{Purpose, Stream};
use records::train::replay::replay;
use records::train::tensor_file::{TensorFile, Values};

/// Metadata of a replay, and names of tensors that its output must hold.
type MethodCase = (&'static [(&'static str, &'static str)], &'static [&'static str]);

const SOLAR: &[(&str, &str)] =
    &[("method", "solar"), ("queue_length", "2"), ("eta", "0.3"), ("rho", "0.4"), ("tau", "0.9")];

const PICO: &[(&str, &str)] = &[("method", "pico"), ("moco_queue", "8"), ("low_dim", "8")];

const METHODS: &[MethodCase] = &[
    (&[("method", "corr")], &["logits.weak", "logits.strong"]),
    (&[("method", "corr"), ("debias", "oracle")], &["logits.strong"]),
    (&[("method", "corr"), ("debias", "records"), ("mixup", "true")], &["logits.strong_mixed", "feat_mean"]),
    (&[("method", "proden")], &["logits.weak"]),
    (&[("method", "proden"), ("debias", "records")], &["feat_mean"]),
    (&[("method", "proden"), ("debias", "oracle"), ("mixup", "true")], &["logits.weak_mixed"]),
    (&[("method", "lw"), ("debias", "records")], &["feat_mean"]),
    (&[("method", "lw"), ("lw_loss", "cross-entropy"), ("lw_beta", "2")], &["logits.weak"]),
    (&[("method", "cavl"), ("debias", "records"), ("mixup", "true")], &["logits.weak_mixed"]),
    (&[("method", "cc"), ("debias", "records")], &["feat_mean"]),
    (&[("method", "mse"), ("debias", "records")], &["feat_mean"]),
    (&[("method", "exp"), ("debias", "records")], &["feat_mean"]),
    (PICO, &["logits.weak", "embeddings", "keys", "pseudo_labels", "prototypes", "key_queue", "key_encoder"]),
    (&[PICO[0], PICO[1], PICO[2], ("debias", "records")], &["feat_mean", "prototypes"]),
    (SOLAR, &["logits.weak_mixed", "refined", "chosen", "queue", "class_prior", "sinkhorn"]),
];

/// `steps` steps of four samples each, for three classes and a network of width 4.
fn case(metadata: &[(&str, &str)], steps: usize) -> TensorFile {
    let mut stream = Stream::new(3, Purpose::Initialisation, 0, 0, 0);
    let mut case = TensorFile::default();
    let (batch, classes, samples) = (4, 3, 9);
    let shape = vec![steps, batch, 3, 8, 8];
    let len = steps * batch * 3 * 64;
    for name in ["batch.weak", "batch.strong"] {
        let values = (0..len).map(|_| stream.normal() as f32).collect();
        case.tensors.insert(name.into(), (shape.clone(), Values::F32(values)));
    }
    let mut rows = |of: u32| -> Vec<i64> {
        (0..steps).flat_map(|_| stream.permutation(of as usize)[..batch].to_vec()).map(i64::from).collect()
    };
    let (index, permutation) = (rows(samples), rows(batch as u32));
    case.tensors.insert("batch.index".into(), (vec![steps, batch], Values::I64(index)));
    case.tensors.insert("mixup.permutation".into(), (vec![steps, batch], Values::I64(permutation)));
    let weights = (0..steps).map(|step| 0.6 + 0.1 * step as f32).collect();
    case.tensors.insert("mixup.weight".into(), (vec![steps], Values::F32(weights)));
    case.tensors.insert("prior".into(), (vec![3], Values::F32(vec![0.6, 0.3, 0.1])));
    let candidates = (0..samples as usize * classes).map(|i| u8::from(i % 3 == 0 || i % 4 == 1)).collect();
    case.tensors.insert("candidates".into(), (vec![samples as usize, classes], Values::U8(candidates)));
    let given = metadata.iter().chain(&[("width", "4"), ("update", "true"), ("lr", "0.05")]);
    case.metadata.extend(given.map(|&(key, value)| (key.to_string(), value.to_string())));
    case
}

/// The steps of a case from `from` on.
fn steps_from(case: &TensorFile, from: usize) -> TensorFile {
    let mut part = case.clone();
    for name in ["batch.weak", "batch.strong", "batch.index", "mixup.permutation", "mixup.weight"] {
        let (shape, values) = part.tensors.get_mut(name).unwrap();
        let cut = from * shape[1..].iter().product::<usize>();
        match values {
            Values::F32(values) => _ = values.drain(..cut),
            Values::I64(values) => _ = values.drain(..cut),
            other => panic!("{other:?}"),
        }
        shape[0] -= from;
    }
    part
}

fn run(case: &TensorFile) -> TensorFile {
    replay(case, &mut CpuDevice::new(1).unwrap()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// Three steps at once, and one step followed by two from its output: the same bits.
#[test]
fn every_method_replays_and_goes_on_from_its_own_output() {
    for (metadata, names) in METHODS {
        let case = case(metadata, 3);
        let whole = run(&case);
        for name in *names {
            assert!(whole.tensors.contains_key(*name), "{metadata:?}: no {name}");
        }
        let losses = whole.f32("loss").unwrap().1;
        assert!(
            losses.iter().all(|loss| loss.is_finite()) && losses[0] != losses[1],
            "{metadata:?}: {losses:?}"
        );
        assert!(whole.f32("grad.encoder.conv1.weight").unwrap().1.iter().any(|&g| g != 0.0), "{metadata:?}");

        let mut first = case.clone();
        for name in ["batch.weak", "batch.strong", "batch.index", "mixup.permutation", "mixup.weight"] {
            let (shape, values) = first.tensors.get_mut(name).unwrap();
            let len = shape[1..].iter().product::<usize>();
            match values {
                Values::F32(values) => values.truncate(len),
                Values::I64(values) => values.truncate(len),
                other => panic!("{other:?}"),
            }
            shape[0] = 1;
        }
        let first = run(&first);
        let mut rest = steps_from(&case, 1);
        rest.extend(first.state_dict());
        let counter = "encoder.bn1.num_batches_tracked";
        rest.tensors.insert(counter.into(), first.tensors[counter].clone());
        let rest = run(&rest);
        for (name, tensor) in whole.tensors.iter().filter(|(name, _)| *name != "loss") {
            assert_eq!(tensor, &rest.tensors[name], "{metadata:?}: {name}");
        }
        assert_eq!(losses[1..], *rest.f32("loss").unwrap().1, "{metadata:?}");
    }
}

/// A NaN in one weight of the classifier reaches the loss of every method.
#[test]
fn a_nan_is_seen_by_every_method() {
    for (metadata, _) in METHODS {
        let mut case = case(metadata, 1);
        case.tensors.insert("fc.bias".into(), (vec![3], Values::F32(vec![0.0, f32::NAN, 0.0])));
        let loss = run(&case).f32("loss").unwrap().1[0];
        assert!(loss.is_nan(), "{metadata:?}: loss {loss}");
    }
}

#[test]
fn what_a_method_needs_is_named() {
    let refuse = |metadata: &[(&str, &str)], change: &dyn Fn(&mut TensorFile), parts: &[&str]| {
        let mut case = case(metadata, 2);
        change(&mut case);
        let error = replay(&case, &mut CpuDevice::new(1).unwrap()).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    let mixed = &[("method", "corr"), ("mixup", "true")][..];
    refuse(mixed, &|case| _ = case.tensors.remove("mixup.weight"), &["'mixup.weight' is missing"]);
    refuse(
        mixed,
        &|case| {
            let (_, values) = case.tensors.get_mut("mixup.permutation").unwrap();
            *values = Values::I64(vec![0, 1, 2, 2, 0, 1, 2, 3]);
        },
        &["'mixup.permutation'", "step 0", "permutation of 0 to 3"],
    );
    refuse(&[("method", "lw"), ("mixup", "true")], &|_| (), &["'mixup'", "candidate set"]);
    refuse(&[("method", "pico"), ("mixup", "true")], &|_| (), &["'mixup'", "prototype"]);
    let narrow = |case: &mut TensorFile| {
        case.tensors.insert("prototypes".into(), (vec![3, 4], Values::F32(vec![0.0; 12])));
    };
    refuse(PICO, &narrow, &["'prototypes'", "[3, 8]"]);
    refuse(&[("method", "solar"), ("debias", "records")], &|_| (), &["'debias'", "Sinkhorn"]);
    refuse(&[("debias", "oracle")], &|case| _ = case.tensors.remove("prior"), &["'prior' is missing"]);
    let short = |case: &mut TensorFile| {
        case.tensors.insert("queue".into(), (vec![4, 3], Values::F32(vec![0.0; 12])));
    };
    refuse(SOLAR, &short, &["'queue'", "[8, 3]"]);
    refuse(&[("method", "corr"), ("eta", "0.1,high")], &|_| (), &["'eta'", "'high'"]);
    let empty = |case: &mut TensorFile| {
        let (_, values) = case.tensors.get_mut("candidates").unwrap();
        let Values::U8(values) = values else { panic!() };
        values[3..6].fill(0);
    };
    refuse(&[("method", "corr")], &empty, &["'candidates'", "row 1 has no candidate"]);
}

/// The first images of a batch with zeros behind them: logits, running statistics and gradients are those of
/// a batch of these images alone, whatever their number; with none, nothing is learnt.
#[test]
fn a_partly_occupied_batch_computes_as_a_smaller_one() {
    let (batch, size, classes) = (6, 8, 3);
    let len = size * size * 3;
    let mut stream = Stream::new(8, Purpose::Initialisation, 0, 0, 0);
    let images: Vec<f32> = (0..batch * len).map(|_| stream.normal() as f32).collect();
    let seeds: Vec<f32> = (0..batch * classes).map(|_| stream.normal() as f32).collect();
    // Logits, gradients and running statistics of a batch of `rows` images, of which `there` are valid.
    let run = |rows: usize, there: Option<usize>| {
        let mut device = CpuDevice::new(2).unwrap();
        let network = ResNet::resnet18(4, classes);
        let parameters = Parameters::new(&network, 1, &mut device).unwrap();
        let shown = there.unwrap_or(rows);
        let mut upload = |values: &[f32], each: usize| {
            let mut padded = values[..shown * each].to_vec();
            padded.resize(rows * each, 0.0);
            let buffer = device.allocate(Element::F32, rows * each, "case").unwrap();
            device.write_f32(buffer, &padded).unwrap();
            buffer
        };
        let (x, seed) = (upload(&images, len), upload(&seeds, classes));
        let mut tape = Tape::new(Element::F32);
        let count = there.map(|there| {
            let buffer = device.allocate(Element::I32, 1, "count").unwrap();
            device.write_i32(buffer, &[there as i32]).unwrap();
            tape.persistent(buffer)
        });
        let (x, seed) = (tape.persistent(x), tape.persistent(seed));
        let mode = Mode::Training(Pass { number: 0, count });
        let outputs = network.record(&mut tape, &parameters, mode, [rows, size], x);
        // The gradient of the logits is copied first, because its memory may be reused.
        tape.backward(&[(outputs.logits, seed)]);
        tape.keep(outputs.logits);
        let plan = tape.finish(&mut device).unwrap();
        device.replay(&plan).unwrap();
        let mut logits = device.read_f32(plan.buffer(outputs.logits)).unwrap();
        logits.truncate(shown * classes);
        let gradients = device.read_f32(parameters.gradients).unwrap();
        [logits, gradients, device.read_f32(parameters.running).unwrap()]
    };
    let close = |a: &[f32], b: &[f32]| {
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|v| v * v).sum::<f32>().sqrt();
        // All sums, including that of the classifier's bias row, are over the same rows, and blocks of rows
        // are cut alike.
        a.len() == b.len()
            && norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) <= 1e-6 * norm(&mut b.iter().copied())
    };
    for there in [1, 3, 6] {
        let (part, alone) = (run(batch, Some(there)), run(there, None));
        for (what, (part, alone)) in ["logits", "gradients", "statistics"].iter().zip(part.iter().zip(&alone))
        {
            assert!(close(part, alone), "{there} of {batch}: {what}");
        }
    }
    let [_, gradients, running] = run(batch, Some(0));
    assert!(gradients.iter().all(|&g| g == 0.0));
    let mut device = CpuDevice::new(1).unwrap();
    let fresh = Parameters::new(&ResNet::resnet18(4, classes), 1, &mut device).unwrap();
    assert_eq!(running, device.read_f32(fresh.running).unwrap());
}

/// Runs `records train --preset tiny` with `more` arguments, or another command, in `folder`.
fn train(folder: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.current_dir(folder).args(["train"]).args(more);
    command.output().unwrap()
}

/// The checkpoints of a run folder, oldest first.
fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let is_checkpoint =
        |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("checkpoint-");
    let mut checkpoints: Vec<_> = files.filter(is_checkpoint).collect();
    checkpoints.sort();
    checkpoints
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Repeats the last epoch from the checkpoint before it: all tensors have the same bits. SoLar's cases stop
/// before its second stage, in it while the queue is filling, and where it is full.
#[test]
fn runs_of_every_kind_resume_to_the_same_bits() {
    let kinds: &[(&str, &[&str])] = &[
        ("mixup", &["--mixup", "--epochs", "3"]),
        ("oracle", &["--debias", "oracle", "--epochs", "2"]),
        ("lw", &["--method", "lw", "--epochs", "2"]),
        ("cavl", &["--method", "cavl", "--mixup", "--epochs", "3"]),
        ("pico", &["--method", "pico", "--moco-queue", "48", "--low-dim", "16", "--epochs", "3"]),
        ("boundary", &["--method", "solar", "--est-epochs", "2", "--epochs", "1", "--queue-length", "3"]),
        ("filling", &["--method", "solar", "--est-epochs", "1", "--epochs", "3", "--queue-length", "64"]),
        (
            "full",
            &[
                "--method",
                "solar",
                "--est-epochs",
                "0",
                "--epochs",
                "3",
                "--queue-length",
                "3",
                "--prior-from=steps",
            ],
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (name, flags) in kinds {
        let debias = if name == &"oracle" { "oracle" } else { "none" };
        let common =
            ["--preset", "tiny", "--device", "cpu", "--debias", debias, "--warmup-epoch=2", "--name", name];
        let common: Vec<&str> = common
            .into_iter()
            .filter(|flag| *flag != "--warmup-epoch=2" || flags.contains(&"solar"))
            .collect();
        succeed(&train(folder.path(), &[&common[..], flags].concat()));
        let run = folder.path().join("runs").join(name);
        let checkpoints = checkpoints(&run);
        // The two newest; that of the best epoch may precede them.
        let [.., before, last] = &checkpoints[..] else { panic!("{name}: {checkpoints:?}") };
        let first = TensorFile::read(last).unwrap();
        std::fs::remove_file(last).unwrap();
        succeed(&train(folder.path(), &["--resume", before.to_str().unwrap()]));
        let again = TensorFile::read(last).unwrap();
        assert_eq!(first.tensors.keys().collect::<Vec<_>>(), again.tensors.keys().collect::<Vec<_>>());
        for (tensor, (shape, values)) in &first.tensors {
            let bits = |values: &Values| match values {
                Values::F32(values) => values.iter().map(|v| v.to_bits()).collect::<Vec<_>>(),
                other => vec![format!("{other:?}").len() as u32],
            };
            let (shape_again, values_again) = &again.tensors[tensor];
            assert_eq!((shape, bits(values)), (shape_again, bits(values_again)), "{name}: {tensor}");
        }
        if flags.contains(&"solar") {
            assert!(
                first.tensors.contains_key("queue") && first.tensors.contains_key("class_prior"),
                "{name}"
            );
            assert_chosen(&run, name);
        } else {
            assert!(!fs_text(&run).contains("\"chosen\""), "{name}");
        }
    }
}

fn fs_text(run: &Path) -> String {
    std::fs::read_to_string(run.join("metrics.jsonl")).unwrap()
}

/// The first epoch of a stage chooses nothing, later ones at least a sample of a class that has any; with
/// --est-epochs 2 the third epoch is a first one.
fn assert_chosen(run: &Path, name: &str) {
    let chosen: Vec<f64> = fs_text(run)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["chosen"].as_f64().unwrap())
        .collect();
    let first =
        |epoch: usize| epoch == 0 || (name == "boundary" && epoch == 2) || (name == "filling" && epoch == 1);
    assert!(chosen.len() >= 3, "{name}: {chosen:?}");
    for (epoch, &share) in chosen.iter().enumerate() {
        assert_eq!(share == 0.0, first(epoch), "{name}, epoch {epoch}: {chosen:?}");
        assert!((0.0..=1.0).contains(&share), "{name}: {chosen:?}");
    }
}
