//! What a trained network is used for, through the real binary: predict, disambiguate, export, import.

mod support {
    pub mod onnx;
    pub mod python;
}

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use image::RgbImage;
use records::data::recipe::open_test;
use records::data::{ImageSet, Normalisation};

use records::device::cpu::CpuDevice;
use records::nn::StateDict;
use records::train::checkpoint::Checkpoint;
use records::train::predict::Predictor;
use records::train::run::recipe;
use records::train::tensor_file::TensorFile;
use serde_json::Value;
use support::onnx::{Model, Values};
use support::python::python_with;

fn records(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap()
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

/// A run of two epochs on built-in images, made once, and its test images.
struct Trained {
    folder: tempfile::TempDir,
    test: ImageSet,
    classes: Vec<String>,
    normalisation: Normalisation,
}

fn trained() -> &'static Trained {
    static TRAINED: OnceLock<Trained> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let runs = folder.path().join("runs");
        succeed(&records(&["train", "--preset=tiny", "--name=a", "--exp-dir", runs.to_str().unwrap()]));
        let (checkpoint, path) = checkpoint_in(folder.path());
        let data = open_test(&recipe(&checkpoint.settings(&path).unwrap()).unwrap()).unwrap();
        let test = data.test.unwrap();
        for i in 0..test.len() {
            let class = &data.classes[usize::from(test.labels[i])];
            let path = folder.path().join("images").join(class).join(format!("{i:03}.png"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            RgbImage::from_raw(32, 32, test.image(i).to_vec()).unwrap().save(path).unwrap();
        }
        Trained { folder, test, classes: data.classes, normalisation: data.normalisation }
    })
}

fn checkpoint_in(folder: &Path) -> (Checkpoint, PathBuf) {
    let path = folder.join("runs/a/checkpoint-0002.safetensors");
    (Checkpoint::read(&path).unwrap(), path)
}

impl Trained {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_string()
    }

    fn checkpoint(&self) -> (Checkpoint, PathBuf) {
        checkpoint_in(self.folder.path())
    }

    /// The last line of metrics.jsonl.
    fn metrics(&self) -> Value {
        let lines = fs::read_to_string(self.path("runs/a/metrics.jsonl")).unwrap();
        serde_json::from_str(lines.lines().last().unwrap()).unwrap()
    }

    /// `records predict` with the run's checkpoint.
    fn predict(&self, more: &[&str]) -> Output {
        let checkpoint = self.path("runs/a/checkpoint-0002.safetensors");
        records(&[&["predict", "--device=cpu", "--checkpoint", &checkpoint], more].concat())
    }
}

/// Rows of a CSV table by their column.
fn table(text: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().unwrap().clone();
    let row =
        |row: csv::StringRecord| header.iter().map(String::from).zip(row.iter().map(String::from)).collect();
    reader.records().map(|record| row(record.unwrap())).collect()
}

/// The share of the test images that are predicted right is the run's own top-1; CSV, JSON and the library
/// say the same.
#[test]
fn predictions_are_those_of_the_test() {
    let run = trained();
    let images = run.path("images");
    let rows = table(&succeed(&run.predict(&[&images, "--all"])));
    assert_eq!(rows.len(), run.test.len());
    let right = rows.iter().filter(|row| row["path"].contains(&format!("/{}/", row["class_1"]))).count();
    let top1 = 100.0 * right as f64 / rows.len() as f64;
    assert_eq!(Some(top1), run.metrics()["test"]["top1"].as_f64());
    for row in &rows {
        let of_class = |class: &String| row[&format!("p({class})")].parse::<f64>().unwrap();
        let sum: f64 = run.classes.iter().map(of_class).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row:?}");
        assert_eq!(row["probability_1"], row[&format!("p({})", row["class_1"])]);
        let probability = |rank: usize| row[&format!("probability_{rank}")].parse::<f64>().unwrap();
        assert!((1..5).all(|rank| probability(rank) >= probability(rank + 1)), "{row:?}");
    }

    let json = succeed(&run.predict(&[&images, "--format=json", "--top-k=99"]));
    let objects: Vec<Value> = serde_json::from_str(&json).unwrap();
    for (object, row) in objects.iter().zip(&rows) {
        assert_eq!(object["path"], row["path"].as_str());
        assert_eq!(object["class"], row["class_1"].as_str());
        assert_eq!(object["top"].as_array().unwrap().len(), 10);
        let number = object["top"][4]["probability"].as_f64().unwrap() as f32;
        assert_eq!(number, row["probability_5"].parse::<f32>().unwrap());
    }

    // Without the debias, as the network's own logits say.
    let plain = table(&succeed(&run.predict(&[&images, "--no-debias", "--all"])));
    assert_ne!(plain, rows);
    let (checkpoint, path) = run.checkpoint();
    let mut device = CpuDevice::new(1).unwrap();
    let predictor = Predictor::new(&checkpoint, &path, 7, &mut device).unwrap();
    let expected = predictor.probabilities(&run.test.images, false, &mut device).unwrap();
    // Folders come in the order of their names, which is that of the classes here only by chance.
    for row in &plain {
        let number: usize = row["path"].rsplit('/').next().unwrap().trim_end_matches(".png").parse().unwrap();
        for (class, share) in run.classes.iter().zip(&expected[number]) {
            let found: f64 = row[&format!("p({class})")].parse().unwrap();
            assert!((found - share).abs() < 1e-6, "{row:?}");
        }
    }
}

#[test]
fn unreadable_images_are_named_in_one_go_or_left_out() {
    let run = trained();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    fs::copy(run.folder.path().join("images").join(&run.classes[0]).join("000.png"), file("fine.png"))
        .unwrap();
    fs::write(file("broken.png"), b"\x89PNG\r\n\x1a\nnothing").unwrap();
    fs::write(file("text.jpg"), b"no image").unwrap();
    fs::write(file("notes.txt"), b"not taken").unwrap();
    fs::write(file(".hidden.png"), b"not taken").unwrap();
    let at = folder.path().to_str().unwrap();
    assert_refused(&run.predict(&[at]), &["2 of 3 images", "broken.png", "text.jpg", "--skip-unreadable"]);
    let output = run.predict(&[at, "--skip-unreadable"]);
    assert_eq!(table(&succeed(&output)).len(), 1);
    assert!(text(&output.stderr).contains("left out: 2 of 3 images"), "{}", text(&output.stderr));
    assert_refused(&run.predict(&[file("text.jpg").to_str().unwrap(), "--skip-unreadable"]), &["none of 1"]);
    assert_refused(&run.predict(&["absent.png"]), &["absent.png"]);
    assert_refused(&run.predict(&[at, "--top-k=0"]), &["--top-k 0"]);
    assert_refused(&run.predict(&[at, "--format=xml"]), &["--format xml", "csv or json"]);
    fs::create_dir(file("empty")).unwrap();
    assert_refused(&run.predict(&[file("empty").to_str().unwrap()]), &["holds no image"]);
}

#[test]
fn cleaned_labels_are_as_right_as_the_run_said() {
    let run = trained();
    let out = run.path("labels.csv");
    let printed =
        succeed(&records(&["disambiguate", &run.path("runs/a"), "--model", "--device=cpu", "--out", &out]));
    let rows = table(&fs::read_to_string(&out).unwrap());
    let (checkpoint, _) = run.checkpoint();
    let (shape, confidence) = checkpoint.confidence().unwrap();
    assert_eq!(rows.len(), shape[0]);
    for (row, confidences) in rows.iter().zip(confidence.chunks_exact(shape[1])) {
        let candidates: Vec<&str> = row["candidates"].split('|').collect();
        assert_eq!(row["size"], candidates.len().to_string());
        assert!(candidates.contains(&row["label"].as_str()) && candidates.contains(&row["truth"].as_str()));
        let most = confidences.iter().copied().fold(0.0, f32::max);
        assert_eq!(row["confidence"].parse::<f32>().unwrap(), most);
        assert_eq!(row["agrees"] == "yes", row["model"] == row["label"]);
    }
    let right = rows.iter().filter(|row| row["label"] == row["truth"]).count();
    let accuracy = 100.0 * right as f64 / rows.len() as f64;
    let expected = run.metrics()["label_accuracy"].as_f64().unwrap();
    // The run's own figure went through f32.
    assert!((accuracy - expected).abs() < 1e-4, "{accuracy} {expected}");
    assert!(printed.contains(&format!("{accuracy:.2} %")) && printed.contains("after 2 epochs"), "{printed}");
    let agree = 100.0 * rows.iter().filter(|row| row["agrees"] == "yes").count() as f64 / rows.len() as f64;
    assert!(printed.contains(&format!("the image, too: {agree:.2} %")), "{printed}");
    assert_refused(&records(&["disambiguate", &run.path("images")]), &["no whole checkpoint"]);
}

/// Images with files of their own are named by their paths; a label that is not known stays empty.
#[test]
fn cleaned_labels_name_the_files_of_a_list() {
    let run = trained();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    let mut list = "path,candidates,label\n".to_string();
    for i in 0..16 {
        let name = format!("{i}.png");
        RgbImage::from_raw(32, 32, run.test.image(i * 6).to_vec()).unwrap().save(data.join(&name)).unwrap();
        list.push_str(&format!(
            "{name},{},{}\n",
            ["cat|dog", "dog", "cat|eel"][i % 3],
            ["cat", "dog", ""][i % 3]
        ));
    }
    fs::write(data.join("train.csv"), list).unwrap();
    let (data, runs) = (data.to_str().unwrap(), folder.path().join("runs"));
    let settings = ["--preset=tiny", "--dataset=csv", "--epochs=1", "--batch-size=8", "--image-size=32"];
    let place = ["--data-dir", data, "--name=a", "--exp-dir", runs.to_str().unwrap()];
    succeed(&records(&[&["train"][..], &settings, &place].concat()));
    let rows = table(&succeed(&records(&["disambiguate", runs.join("a").to_str().unwrap()])));
    assert_eq!(rows.len(), 16);
    for (i, row) in rows.iter().enumerate() {
        assert_eq!((&row["path"], &row["sample"]), (&format!("{i}.png"), &i.to_string()));
        assert_eq!(row["truth"], ["cat", "dog", ""][i % 3]);
    }
    // Padded, not stretched, as the run reads them.
    let wide = Path::new(data).join("wide.png");
    RgbImage::from_pixel(64, 16, image::Rgb([9, 99, 200])).save(&wide).unwrap();
    let checkpoint = runs.join("a/checkpoint-0001.safetensors");
    let predicted = succeed(&records(&[
        "predict",
        "--device=cpu",
        "--no-debias",
        "--all",
        "--checkpoint",
        checkpoint.to_str().unwrap(),
        wide.to_str().unwrap(),
    ]));
    let mut pixels = vec![0; 32 * 32 * 3];
    records::data::decode::decode_square(&wide, 32, records::data::decode::Fit::Padded, &mut pixels).unwrap();
    let mut device = CpuDevice::new(1).unwrap();
    let predictor =
        Predictor::new(&Checkpoint::read(&checkpoint).unwrap(), &checkpoint, 1, &mut device).unwrap();
    let expected = predictor.probabilities(&pixels, false, &mut device).unwrap();
    let found: f32 = table(&predicted)[0]["p(dog)"].parse().unwrap();
    assert_eq!(found, expected[0][1] as f32);
}

/// `images` as f32 `[N,3,S,S]` in 0..1.
fn channels_first(set: &ImageSet, count: usize) -> Values {
    let plane = set.height * set.width;
    let mut values = Vec::new();
    for i in 0..count {
        for channel in 0..3 {
            values.extend(
                set.image(i).chunks_exact(3).map(|pixel| f64::from(f32::from(pixel[channel]) / 255.0)),
            );
        }
    }
    assert_eq!(values.len(), count * 3 * plane);
    Values { shape: vec![count, 3, set.height, set.width], values }
}

/// The logits of the first `count` test images, as this engine computes them.
fn own_logits(run: &Trained, count: usize, debiased: bool) -> Vec<f32> {
    use records::train::evaluate::Evaluation;
    let (checkpoint, path) = run.checkpoint();
    let mut device = CpuDevice::new(1).unwrap();
    let settings = checkpoint.settings(&path).unwrap();
    let model = checkpoint.model(&settings, &path, &mut device).unwrap();
    let positions: Vec<i32> = (0..count as i32).collect();
    let set = run.test.select(&positions);
    let pass = Evaluation::of_set(&model, &set, run.normalisation, &mut device).unwrap();
    if debiased { pass.run(&mut device).unwrap().0 } else { pass.logits(&mut device).unwrap() }
}

fn export(run: &Trained, name: &str, more: &[&str]) -> PathBuf {
    let out = run.path(name);
    let checkpoint = run.path("runs/a/checkpoint-0002.safetensors");
    succeed(&records(&[&["export", "--checkpoint", &checkpoint, "-o", &out], more].concat()));
    out.into()
}

/// Largest difference of logits, relative to the largest logit: f32 sums in another order.
fn assert_close(found: &[f64], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let most = expected.iter().fold(0.0f64, |most, &z| most.max(f64::from(z).abs()));
    let gap = found.iter().zip(expected).map(|(f, &e)| (f - f64::from(e)).abs()).fold(0.0, f64::max);
    assert!(gap <= 1e-4 * most, "{what}: {gap} of {most}");
}

#[test]
fn an_onnx_model_is_the_network() {
    let run = trained();
    let (checkpoint, _) = run.checkpoint();
    let dict = checkpoint.state_dict();
    let images = channels_first(&run.test, 3);
    let mut normalised = images.clone();
    for (at, value) in normalised.values.iter_mut().enumerate() {
        let channel = at / 1024 % 3;
        *value =
            (*value - f64::from(run.normalisation.mean[channel])) / f64::from(run.normalisation.std[channel]);
    }
    for (name, more, input, debiased) in [
        ("in.onnx", &["--format=onnx"][..], &images, true),
        ("out.onnx", &["--format=onnx", "--normalisation=out", "--no-debias"], &normalised, false),
    ] {
        let model = Model::read(&fs::read(export(run, name, more)).unwrap());
        assert_eq!(model.opset, 13);
        let ends: Vec<(&str, String)> =
            model.ends.iter().map(|(name, shape)| (name.as_str(), shape.join(" "))).collect();
        assert_eq!(ends, [("images", "batch 3 32 32".into()), ("logits", "batch 10".into())]);
        assert_eq!(serde_json::from_str::<Vec<String>>(&model.metadata["classes"]).unwrap(), run.classes);
        assert_eq!(model.metadata["debiased"], debiased.to_string());
        // Every tensor of the network, byte for byte, and nothing else but what the options add.
        let of_network: Vec<&String> = dict
            .keys()
            .filter(|name| {
                !name.starts_with("momentum.") && !["confidence", "feat_mean"].contains(&name.as_str())
            })
            .collect();
        for name in &of_network {
            let (shape, values) = &dict[*name];
            assert_eq!(&model.constants[*name].shape, shape, "{name}");
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            assert!(model.raw[*name] == bytes, "{name}");
        }
        let added = if debiased { 3 } else { 0 };
        assert_eq!(model.constants.len(), of_network.len() + added, "{name}");
        let count = |operator: &str| model.nodes.iter().filter(|node| node.operator == operator).count();
        let found = ["Conv", "BatchNormalization", "Add", "Relu", "Gemm"].map(count);
        assert_eq!(found, [20, 20, 8, 17, 1]);
        let logits = model.run(input.clone());
        assert_eq!(logits.shape, [3, 10]);
        assert_close(&logits.values, &own_logits(run, 3, debiased), name);
    }
}

#[test]
fn onnxruntime_computes_the_same_logits() {
    let run = trained();
    let Some(mut python) = python_with(&["onnx", "onnxruntime", "numpy"]) else { return };
    let model = export(run, "runtime.onnx", &["--format=onnx"]);
    let images = run.path("images.f32");
    let count = 5;
    let values = channels_first(&run.test, count).values;
    fs::write(&images, values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect::<Vec<_>>())
        .unwrap();
    let script = "
import sys, numpy, onnx, onnxruntime
onnx.checker.check_model(onnx.load(sys.argv[1]), full_check=True)
session = onnxruntime.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
images = numpy.fromfile(sys.argv[2], dtype='<f4').reshape(-1, 3, 32, 32)
for batch in (images, images[:1]):
    logits = session.run(['logits'], {'images': batch})[0]
    print(' '.join(repr(float(z)) for z in logits.ravel()))
";
    let output = python.args(["-c", script]).arg(&model).arg(&images).output().unwrap();
    let printed = succeed(&output);
    let lines: Vec<Vec<f64>> =
        printed.lines().map(|line| line.split(' ').map(|z| z.parse().unwrap()).collect()).collect();
    assert_close(&lines[0], &own_logits(run, count, true), "onnxruntime");
    assert_close(&lines[1], &own_logits(run, 1, true), "onnxruntime, one image");
}

/// WideResNet has batchnorm before its convolutions and sums of its own; PiCO has layers beside the
/// classifier.
#[test]
fn other_networks_are_exported() {
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    for (name, settings) in [
        ("wide", &["--arch=wideresnet28", "--width=16", "--method=proden"][..]),
        ("pico", &["--method=pico", "--debias=none", "--mixup=false"]),
    ] {
        let common = [
            "train",
            "--preset=tiny",
            "--epochs=1",
            "--synthetic-train-per-class=8",
            "--synthetic-test-per-class=1",
            "--imb-factor=0.3",
            "--batch-size=8",
            "--name",
            name,
            "--exp-dir",
            runs.to_str().unwrap(),
        ];
        succeed(&records(&[&common[..], settings].concat()));
        let path = runs.join(name).join("checkpoint-0001.safetensors");
        let out = folder.path().join(format!("{name}.onnx"));
        let [of, to] = [&path, &out].map(|path| path.to_str().unwrap());
        succeed(&records(&["export", "--format=onnx", "--no-debias", "--checkpoint", of, "-o", to]));
        let checkpoint = Checkpoint::read(&path).unwrap();
        let settings = checkpoint.settings(&path).unwrap();
        let data = open_test(&recipe(&settings).unwrap()).unwrap();
        let set = data.test.unwrap();
        let logits = Model::read(&fs::read(&out).unwrap()).run(channels_first(&set, 1));
        let mut device = CpuDevice::new(1).unwrap();
        let model = checkpoint.model(&settings, &path, &mut device).unwrap();
        let one = set.select(&[0]);
        let pass =
            records::train::evaluate::Evaluation::of_set(&model, &one, data.normalisation, &mut device)
                .unwrap();
        assert_close(&logits.values, &pass.logits(&mut device).unwrap(), name);
    }
}

#[test]
fn exported_weights_are_the_network_s_alone() {
    let run = trained();
    let file = TensorFile::read(&export(run, "weights.safetensors", &["--format=safetensors"])).unwrap();
    // The state_dict of ResNet-18 in PyTorch has 122 entries.
    assert_eq!(file.tensors.len(), 122);
    let dict = run.checkpoint().0.state_dict();
    for (name, (shape, values)) in file.state_dict() {
        assert_eq!((&shape, &values), (&dict[&name].0, &dict[&name].1), "{name}");
    }
    assert_eq!(serde_json::from_str::<Vec<String>>(&file.metadata["classes"]).unwrap(), run.classes);
    let checkpoint = run.path("runs/a/checkpoint-0002.safetensors");
    for (flags, parts) in [
        (["--format=onxn", "--normalisation=in"], ["--format onxn", "onnx or safetensors"]),
        (["--format=onnx", "--normalisation=no"], ["--normalisation no", "in or out"]),
    ] {
        let output = records(&["export", "--checkpoint", &checkpoint, "-o", "x", flags[0], flags[1]]);
        assert_refused(&output, &parts);
    }
}

/// A file as `torch.save({"state_dict": OrderedDict(...), "epoch": 3}, ...)` writes it, with the prefix of
/// data-parallel training; `edit` changes the pickle.
fn torch_file(dict: &StateDict, edit: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let text = |text: &str| [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    let number = |n: usize| [b"J", &(n as u32).to_le_bytes()[..]].concat();
    let numbers =
        |list: &[usize]| [b"(", &list.iter().flat_map(|&n| number(n)).collect::<Vec<_>>()[..], b"t"].concat();
    let mut pickle = b"\x80\x02}q\x00(".to_vec();
    pickle.extend(text("epoch"));
    pickle.extend(b"K\x03");
    pickle.extend(text("state_dict"));
    pickle.extend(b"ccollections\nOrderedDict\n)R(");
    let mut entries: Vec<(String, Vec<u8>)> = Vec::new();
    for (key, (name, (shape, values))) in dict.iter().enumerate() {
        pickle.extend(text(&format!("module.{name}")));
        pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        pickle.extend(text("storage"));
        pickle.extend(b"ctorch\nFloatStorage\n");
        pickle.extend([text(&key.to_string()), text("cpu"), number(values.len()), b"tQ".to_vec()].concat());
        let strides: Vec<usize> = (0..shape.len()).map(|i| shape[i + 1..].iter().product()).collect();
        pickle.extend([number(0), numbers(shape), numbers(&strides)].concat());
        pickle.extend(b"\x89ccollections\nOrderedDict\n)RtR");
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        entries.push((format!("archive/data/{key}"), bytes));
    }
    pickle.extend(b"uu.");
    edit(&mut pickle);
    entries.insert(0, ("archive/data.pkl".into(), pickle));
    zip(&entries)
}

/// A zip archive of stored entries.
fn zip(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let mut sum = flate2::Crc::new();
        sum.update(bytes);
        let size = (bytes.len() as u32).to_le_bytes();
        let fields = [
            &[0; 8][..],
            &sum.sum().to_le_bytes(),
            &size,
            &size,
            &(name.len() as u16).to_le_bytes(),
            &[0; 2],
        ]
        .concat();
        let at = (file.len() as u32).to_le_bytes();
        directory
            .extend([b"PK\x01\x02\x14\0\x14\0", &fields[..], &[0; 10], &at[..], name.as_bytes()].concat());
        file.extend([b"PK\x03\x04\x14\0", &fields[..], name.as_bytes(), bytes].concat());
    }
    let (at, length) = (file.len() as u32, directory.len() as u32);
    let count = (entries.len() as u16).to_le_bytes();
    file.extend(directory);
    file.extend(
        [b"PK\x05\x06\0\0\0\0", &count[..], &count, &length.to_le_bytes(), &at.to_le_bytes(), &[0; 2]]
            .concat(),
    );
    file
}

/// The state_dict of the run's network.
fn state_dict(run: &Trained) -> StateDict {
    let file = TensorFile::read(&export(run, "dict.safetensors", &["--format=safetensors"])).unwrap();
    file.state_dict()
}

fn import(file: &Path, out: &Path, more: &[&str]) -> Output {
    let [file, out] = [file, out].map(|path| path.to_str().unwrap());
    records(&[&["import", file, "-o", out, "--preset=tiny", "--device=cpu"], more].concat())
}

/// Weights come back to the bit, whichever file they were in, and the checkpoint is good for eval and a run.
#[test]
fn imported_weights_are_a_checkpoint() {
    let run = trained();
    let folder = tempfile::tempdir().unwrap();
    let dict = state_dict(run);
    let torch = folder.path().join("checkpoint_best.pth.tar");
    fs::write(&torch, torch_file(&dict, |_| {})).unwrap();
    for (name, file) in [("a", torch), ("b", run.folder.path().join("dict.safetensors"))] {
        let out = folder.path().join(name).join("start.safetensors");
        fs::create_dir(out.parent().unwrap()).unwrap();
        let output = import(&file, &out, &[]);
        succeed(&output);
        let imported = Checkpoint::read(&out).unwrap();
        assert_eq!(imported.progress.epochs_done, 0);
        let state = imported.state_dict();
        for (name, tensor) in &dict {
            assert_eq!(&state[name], tensor, "{name}");
        }
        assert!(text(&output.stderr).contains("no mean feature"), "{}", text(&output.stderr));
        assert!(state["feat_mean"].1.iter().any(|&value| value > 0.0));
        let of = out.to_str().unwrap();
        assert!(succeed(&records(&["eval", "--checkpoint", of, "--device=cpu"])).contains("after 0 epochs"));
        let printed = succeed(&records(&["train", "--resume", of, "--epochs=2"]));
        assert!(printed.contains("run folder"), "{printed}");
    }
}

#[test]
fn weights_that_do_not_fit_are_refused() {
    let run = trained();
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("x.pt"), folder.path().join("out.safetensors"));
    let dict = state_dict(run);
    let write = |bytes: Vec<u8>, more: &[&str], parts: &[&str]| {
        fs::write(&file, bytes).unwrap();
        assert_refused(&import(&file, &out, more), &[&["x.pt"], parts].concat());
        assert!(!out.exists());
    };
    write(torch_file(&dict, |_| {}), &["--width=16"], &["shape", "but the network has"]);
    write(torch_file(&dict, |_| {}), &["--arch=resnet34"], &["lacks", "resnet34", "--arch"]);
    let mut other = dict.clone();
    other.get_mut("fc.bias").unwrap().1[3] = f32::NAN;
    write(torch_file(&other, |_| {}), &[], &["'fc.bias'", "not finite"]);
    let whole = torch_file(&dict, |_| {});
    write(whole[..whole.len() - 9].to_vec(), &[], &["cut short"]);
    let mut damaged = whole.clone();
    let at = damaged.len() / 2;
    damaged[at] ^= 1;
    write(damaged, &[], &["checksum"]);
    write(torch_file(&dict, |pickle| pickle.truncate(40)), &[], &["pickle is damaged"]);
    write(torch_file(&dict, |pickle| *pickle = b"\x80\x02K\x01.".to_vec()), &[], &["holds no dict"]);
    // Larger than its storage.
    let edit = |pickle: &mut Vec<u8>| {
        let at = pickle.windows(5).rposition(|part| part == b"J\x0a\0\0\0").unwrap();
        pickle[at + 1] = 11;
    };
    write(torch_file(&dict, edit), &[], &["damaged tensor"]);
    write(b"\x80\x02\x8a\x0al\xfc\x9c".to_vec(), &[], &["before 1.6"]);
    write(b"nothing of the kind".to_vec(), &[], &["neither a file of torch.save nor safetensors"]);
}

/// PyTorch itself writes the file, with tensors that share a storage and others that are transposed; and
/// takes what is exported.
#[test]
fn pytorch_s_own_files_are_read() {
    let run = trained();
    let Some(mut python) = python_with(&["torch", "numpy"]) else { return };
    let weights = export(run, "for_torch.safetensors", &["--format=safetensors"]);
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("x.pth"), folder.path().join("out.safetensors"));
    let script = "
import json, struct, sys, torch, collections
bytes = open(sys.argv[1], 'rb').read()
size = struct.unpack('<Q', bytes[:8])[0]
header = json.loads(bytes[8:8 + size])
header.pop('__metadata__')
dict = collections.OrderedDict()
for name, entry in header.items():
    start, end = entry['data_offsets']
    kind = {'F32': torch.float32, 'I64': torch.int64}[entry['dtype']]
    tensor = torch.frombuffer(bytearray(bytes[8 + size + start:8 + size + end]), dtype=kind).reshape(entry['shape'])
    dict['module.' + name] = tensor
both = torch.cat([dict['module.fc.bias'], dict['module.fc.bias']])
dict['module.fc.bias'] = both[10:]
dict['module.fc.weight'] = torch.nn.Parameter(dict['module.fc.weight'].t().contiguous().t())
torch.save({'epoch': 5, 'arch': 'resnet18', 'state_dict': dict, 'optimizer': {'lr': 0.1}}, sys.argv[2])
";
    succeed(&python.args(["-c", script]).arg(weights).arg(&file).output().unwrap());
    succeed(&import(&file, &out, &[]));
    let state = Checkpoint::read(&out).unwrap().state_dict();
    for (name, tensor) in state_dict(run) {
        assert_eq!(state[&name], tensor, "{name}");
    }
}
