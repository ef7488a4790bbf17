//! A run's state belongs to its data and settings, and to a network with finite values: anything else is
//! refused by name.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use records::train::tensor_file::{TensorFile, Values};

const CLASSES: [&str; 3] = ["cat", "dog", "ship"];

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

/// Asserts the exit code and one line of error that contains `parts`.
fn assert_ends(output: &Output, code: i32, parts: &[&str]) {
    let line = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}");
    assert_eq!(line.matches('\n').count(), 1, "{line:?}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

/// A picture that differs for each seed.
fn draw(path: &Path, seed: u8) {
    let pixel = |x: u32, y: u32| image::Rgb([seed.wrapping_mul(37), (x * 31) as u8 ^ seed, (y * 17) as u8]);
    image::RgbImage::from_fn(8, 8, pixel).save(path).unwrap();
}

/// Four training images and three test images of each class, as class folders.
fn write_folders(root: &Path) {
    let _ = fs::remove_dir_all(root);
    let mut seed = 0;
    for (split, count) in [("train", 4), ("test", 3)] {
        for class in CLASSES {
            let folder = root.join(split).join(class);
            fs::create_dir_all(&folder).unwrap();
            for i in 0..count {
                draw(&folder.join(format!("{i}.png")), seed);
                seed += 1;
            }
        }
    }
}

/// The same number of images as a CSV list.
fn write_csv(root: &Path) {
    write_folders(root);
    let (mut train, mut test) = (String::from("path,candidates,label\n"), String::from("path,label\n"));
    for (class, other) in CLASSES.iter().zip(["dog", "ship", "cat"]) {
        for i in 0..4 {
            let label = if i == 3 { "" } else { class };
            train += &format!("train/{class}/{i}.png,{class}|{other},{label}\n");
        }
        for i in 0..3 {
            test += &format!("test/{class}/{i}.png,{class}\n");
        }
    }
    fs::write(root.join("train.csv"), train).unwrap();
    fs::write(root.join("test.csv"), test).unwrap();
}

/// A data set with a run of two epochs on it, whose last checkpoint is removed.
struct Setting {
    scratch: tempfile::TempDir,
    write: fn(&Path),
}

impl Setting {
    fn new(dataset: &str, write: fn(&Path), more: &[&str]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let setting = Self { scratch, write };
        write(&setting.data());
        let (data, runs) = (setting.data(), setting.scratch.path().join("runs"));
        let [data, runs] = [&data, &runs].map(|path| path.to_str().unwrap());
        let mut arguments = vec!["train", "--dataset", dataset, "--data-dir", data, "--exp-dir", runs];
        arguments.extend(["--name", "a", "--imb-factor", "1", "--partial-rate", "0.3", "--batch-size", "4"]);
        arguments.extend([
            "--epochs",
            "2",
            "--width",
            "2",
            "--image-size",
            "8",
            "--device",
            "cpu",
            "--threads",
            "1",
        ]);
        arguments.extend(more);
        succeed(&records(&arguments));
        setting
    }

    fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    fn run(&self) -> PathBuf {
        self.scratch.path().join("runs/a")
    }

    fn checkpoint(&self, done: usize) -> PathBuf {
        self.run().join(format!("checkpoint-{done:04}.safetensors"))
    }

    /// Resumes a copy of the run after its first epoch.
    fn resume(&self, more: &[&str]) -> Output {
        let copy = self.scratch.path().join("copy");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(self.run()).unwrap() {
            let path = entry.unwrap().path();
            if path != self.checkpoint(2) {
                fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
            }
        }
        let output = records(&[&["train", "--resume", copy.to_str().unwrap()], more].concat());
        if output.status.success() {
            let [was, is] = [self.checkpoint(2), copy.join("checkpoint-0002.safetensors")]
                .map(|path| TensorFile::read(&path).unwrap().tensors);
            assert!(was == is, "another state after the resume");
        }
        output
    }

    fn eval(&self, more: &[&str]) -> Output {
        records(&[&["eval", "--checkpoint", self.checkpoint(2).to_str().unwrap()], more].concat())
    }

    /// Makes a change, checks resume and evaluation, and restores the data.
    fn with(&self, change: impl Fn(&Path)) -> (Output, Output) {
        (self.write)(&self.data());
        change(&self.data());
        (self.resume(&[]), self.eval(&[]))
    }
}

fn swap(a: &Path, b: &Path) {
    let (first, second) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    fs::write(a, second).unwrap();
    fs::write(b, first).unwrap();
}

fn edit(path: &Path, from: &str, to: &str) {
    let old = fs::read_to_string(path).unwrap();
    assert!(old.contains(from), "{from:?} is not in {old}");
    fs::write(path, old.replacen(from, to, 1)).unwrap();
}

/// A change: its name, how to make it, parts of the refusal of a resume, and of an evaluation if that is
/// refused too.
type Case = (&'static str, fn(&Path), &'static [&'static str], &'static [&'static str]);

fn check_cases(setting: &Setting, cases: &[Case]) {
    for (name, change, resume, eval) in cases {
        println!("{name}");
        let (resumed, evaluated) = setting.with(change);
        assert_ends(&resumed, 2, resume);
        assert_ends(&resumed, 2, &["put the data back or start a new run"]);
        if eval.is_empty() {
            succeed(&evaluated);
        } else {
            assert_ends(&evaluated, 2, eval);
        }
    }
}

#[test]
fn changed_class_folders_are_refused_by_what_changed() {
    let setting = Setting::new("folder", write_folders, &[]);
    let renamed: fn(&Path) = |data| {
        for split in ["train", "test"] {
            fs::rename(data.join(split).join("cat"), data.join(split).join("zcat")).unwrap();
        }
    };
    check_cases(
        &setting,
        &[
            (
                "a class renamed",
                renamed,
                &["'cat' is no longer there", "'zcat' is new"],
                &["'zcat' is new", "class names"],
            ),
            (
                "two classes' folders swapped",
                |data| {
                    for split in ["train", "test"] {
                        let at = |name: &str| data.join(split).join(name);
                        fs::rename(at("cat"), at("x")).unwrap();
                        fs::rename(at("dog"), at("cat")).unwrap();
                        fs::rename(at("x"), at("dog")).unwrap();
                    }
                },
                &["training samples", "test samples"],
                &["test samples"],
            ),
            (
                "a class added",
                |data| {
                    fs::create_dir(data.join("train/bird")).unwrap();
                    draw(&data.join("train/bird/0.png"), 200);
                },
                &["class 'bird' is new"],
                &["class 'bird' is new"],
            ),
            (
                "an image added",
                |data| draw(&data.join("train/dog/9.png"), 99),
                &["'dog' has 5 training images, it had 4"],
                &[],
            ),
            (
                "an image moved to another class",
                |data| fs::rename(data.join("train/dog/0.png"), data.join("train/cat/9.png")).unwrap(),
                &["'cat' has 5 training images, it had 4", "'dog' has 3"],
                &[],
            ),
            (
                "two images swapped within a class",
                |data| swap(&data.join("train/dog/1.png"), &data.join("train/dog/2.png")),
                &["same in another order", "train/dog/1.png", "train/dog/2.png"],
                &[],
            ),
            (
                "two images swapped across classes",
                |data| swap(&data.join("train/dog/1.png"), &data.join("train/cat/2.png")),
                &["the pixels differ in training samples", "train/dog/1.png", "train/cat/2.png"],
                &[],
            ),
            (
                "an image replaced",
                |data| draw(&data.join("train/ship/3.png"), 77),
                &["the pixels differ in training sample ", "train/ship/3.png"],
                &[],
            ),
            (
                "a test image replaced",
                |data| draw(&data.join("test/ship/1.png"), 77),
                &["the pixels differ in test sample 7", "test/ship/1.png"],
                &["the pixels differ in test sample 7", "test/ship/1.png", "--other-test-images"],
            ),
            (
                "a test image removed",
                |data| fs::remove_file(data.join("test/cat/0.png")).unwrap(),
                &["class 'cat' has 2 test images, it had 3"],
                &["class 'cat' has 2 test images, it had 3"],
            ),
            (
                "a class without test images",
                |data| fs::remove_dir_all(data.join("test/cat")).unwrap(),
                &["class 'cat' has 0 test images"],
                &["class 'cat' has 0 test images"],
            ),
        ],
    );
    // Names and sizes are compared before images are read, so a damaged image is not reached.
    let (resumed, _) = setting.with(|data| {
        draw(&data.join("train/cat/9.png"), 3);
        fs::write(data.join("train/cat/0.png"), "no image").unwrap();
    });
    assert_ends(&resumed, 2, &["'cat' has 5 training images"]);
}

#[test]
fn what_changes_no_number_is_no_change() {
    let setting = Setting::new("folder", write_folders, &[]);
    let again: fn(&Path) = |data| {
        let path = data.join("train/dog/1.png");
        let decoded = image::open(&path).unwrap();
        decoded.save_with_format(&path, image::ImageFormat::Png).unwrap();
        fs::rename(data.join("train/dog/3.png"), data.join("train/dog/3b.png")).unwrap();
    };
    for change in [|_: &Path| {}, again] {
        let (resumed, evaluated) = setting.with(change);
        succeed(&resumed);
        assert!(!succeed(&evaluated).contains("other test images"));
    }
    // The checkpoint names the folder of the data, which may have moved.
    let moved = setting.scratch.path().join("elsewhere");
    write_folders(&setting.data());
    fs::rename(setting.data(), &moved).unwrap();
    let more = ["--data-dir", moved.to_str().unwrap()];
    succeed(
        &setting.resume(
            &[&more[..], &["--checkpoint-every", "7", "--eval-every", "1", "--threads", "2"]].concat(),
        ),
    );
    succeed(&setting.eval(&more));
}

#[test]
fn changed_lists_are_refused_by_what_changed() {
    let setting = Setting::new("csv", write_csv, &[]);
    check_cases(
        &setting,
        &[
            (
                "a candidate set",
                |data| edit(&data.join("train.csv"), "1.png,dog|ship", "1.png,dog|ship|cat"),
                &["the candidate sets differ in training sample 5", "train/dog/1.png, line 7"],
                &[],
            ),
            (
                "a true label taken out",
                |data| edit(&data.join("train.csv"), "cat|dog,cat", "cat|dog,"),
                &["the true classes differ in training sample 0"],
                &[],
            ),
            (
                "rows in another order",
                |data| {
                    edit(&data.join("train.csv"), "train/cat/0.png,cat|dog,cat\n", "");
                    let list = fs::read_to_string(data.join("train.csv")).unwrap();
                    fs::write(data.join("train.csv"), list + "train/cat/0.png,cat|dog,cat\n").unwrap();
                },
                &["the training samples are the same in another order"],
                &[],
            ),
            (
                "a row taken out",
                |data| edit(&data.join("train.csv"), "train/cat/0.png,cat|dog,cat\n", ""),
                &["there are 11 training images, there were 12"],
                &[],
            ),
            (
                "classes in another order",
                |data| fs::write(data.join("classes.txt"), "dog\ncat\nship\n").unwrap(),
                &["classes are in another order: class 0 is now 'dog', it was 'cat'"],
                &["class 0 is now 'dog', it was 'cat'"],
            ),
            (
                "a test label",
                |data| edit(&data.join("test.csv"), "cat/1.png,cat", "cat/1.png,dog"),
                &["class 'cat' has 2 test images, it had 3"],
                &["class 'cat' has 2 test images, it had 3"],
            ),
            (
                "two test rows swapped",
                |data| {
                    edit(&data.join("test.csv"), "cat/0.png", "cat/x.png");
                    edit(&data.join("test.csv"), "cat/1.png", "cat/0.png");
                    edit(&data.join("test.csv"), "cat/x.png", "cat/1.png");
                },
                &["the test samples are the same in another order: others are test samples 0"],
                &["the test samples are the same in another order"],
            ),
            (
                "no test list",
                |data| fs::remove_file(data.join("test.csv")).unwrap(),
                &["there are no test images, there were 9"],
                &["there are no test images, there were 9"],
            ),
        ],
    );
}

#[test]
fn test_images_that_come_later_can_be_evaluated() {
    let without: fn(&Path) = |root| {
        write_csv(root);
        fs::remove_file(root.join("test.csv")).unwrap();
    };
    let setting = Setting::new("csv", without, &[]);
    let (resumed, evaluated) = setting.with(write_csv);
    assert_ends(&resumed, 2, &["there are 9 test images, there were none"]);
    assert!(succeed(&evaluated).contains("9 test images"));
}

#[test]
fn other_test_images_are_evaluated_where_they_are_asked_for() {
    let setting = Setting::new("folder", write_folders, &[]);
    draw(&setting.data().join("test/cat/9.png"), 55);
    assert_ends(&setting.eval(&[]), 2, &["class 'cat' has 4 test images, it had 3", "--other-test-images"]);
    let printed = succeed(&setting.eval(&["--other-test-images"]));
    assert!(
        printed.contains("10 test images") && printed.contains("other test images than those of the run"),
        "{printed}"
    );
    fs::rename(setting.data().join("test/cat"), setting.data().join("test/x")).unwrap();
    fs::rename(setting.data().join("train/cat"), setting.data().join("train/x")).unwrap();
    assert_ends(&setting.eval(&["--other-test-images"]), 2, &["class 'x' is new"]);
}

#[test]
fn a_resume_names_every_setting_that_differs() {
    let setting = Setting::new("folder", write_folders, &[]);
    let refused = |more: &[&str], parts: &[&str]| assert_ends(&setting.resume(more), 2, parts);
    refused(
        &["--batch-size", "5", "--lr=0.5", "--data-seed=3"],
        &[
            "batch-size was 4 and is now 5",
            "lr was 0.02 and is now 0.5",
            "data-seed was 0 and is now 3",
            "leave --batch-size, --data-seed, --lr out to go on",
        ],
    );
    refused(&["--method", "lw"], &["method was corr and is now lw", "upd-start was 1 and is now 0"]);
    let config = setting.run().join("config.toml");
    edit(&config, "batch-size = 4", "batch-size = 5");
    let parts = [
        "batch-size was 4 and is now 5",
        "put batch-size back to 4 in",
        "config.toml to go on, or make a new run of it",
    ];
    refused(&[], &parts);
    refused(
        &["--seed", "7"],
        &["seed was 123 and is now 7", "leave --seed out, put batch-size back to 4 in"],
    );
    // The name of another folder does not silently start a new run.
    let output = setting.resume(&["--batch-size", "4", "--name", "b"]);
    succeed(&output);
    assert!(text(&output.stderr).contains("without effect here: --name"), "{}", text(&output.stderr));
    // A flag overrides the file for this call.
    succeed(&setting.resume(&["--batch-size", "4"]));
}

/// Changes a checkpoint and gives it the right checksum.
fn doctor(path: &Path, change: impl Fn(&mut TensorFile)) {
    let mut file = TensorFile::read(path).unwrap();
    change(&mut file);
    let checksum = file.checksum("checksum").unwrap();
    file.metadata.insert("checksum".into(), format!("{checksum:08x}"));
    file.write(path).unwrap();
}

fn plant(path: &Path, tensor: &str, value: f32) {
    doctor(path, |file| match &mut file.tensors.get_mut(tensor).unwrap().1 {
        Values::F32(values) => *values.last_mut().unwrap() = value,
        other => panic!("{other:?}"),
    });
}

#[test]
fn a_state_that_is_not_finite_is_refused_by_its_tensor() {
    let setting = Setting::new("folder", write_folders, &["--records"]);
    let good = [setting.checkpoint(1), setting.checkpoint(2)].map(|path| fs::read(path).unwrap());
    for (tensor, value, shown) in [
        ("encoder.layer4.1.conv2.weight", f32::NAN, "NaN"),
        ("fc.bias", f32::NEG_INFINITY, "-inf"),
        ("encoder.bn1.running_var", f32::INFINITY, "inf"),
        ("momentum.encoder.conv1.weight", f32::NAN, "NaN"),
        ("confidence", f32::NAN, "NaN"),
        ("feat_mean", f32::INFINITY, "inf"),
    ] {
        plant(&setting.checkpoint(2), tensor, value);
        let parts = ["checkpoint-0002", tensor, shown, "diverged", "earlier checkpoint"];
        assert_ends(&setting.eval(&[]), 2, &parts);
        assert_ends(&records(&["train", "--resume", setting.checkpoint(2).to_str().unwrap()]), 2, &parts);
        fs::write(setting.checkpoint(2), &good[1]).unwrap();
    }
    // A folder goes on from the one before.
    plant(&setting.checkpoint(2), "fc.weight", f32::NAN);
    let resumed = records(&["train", "--resume", setting.run().to_str().unwrap()]);
    let printed = succeed(&resumed);
    assert!(printed.contains("passing over") && printed.contains("'fc.weight' holds NaN"), "{printed}");
    // Finite, but without a finite result: a negative variance has no root.
    plant(&setting.checkpoint(2), "encoder.bn1.running_var", -1.0);
    assert_ends(&setting.eval(&[]), 2, &["checkpoint-0002", "9 of 9 test images", "not finite"]);
    // Data that cannot be compared: a file of another version.
    doctor(&setting.checkpoint(2), |file| {
        _ = file.metadata.insert("format".into(), "records checkpoint 1".into())
    });
    assert_ends(&setting.eval(&[]), 2, &["records checkpoint 1", "this version reads"]);
    fs::write(setting.checkpoint(2), &good[1]).unwrap();
    doctor(&setting.checkpoint(2), |file| _ = file.metadata.insert("data".into(), "{}".into()));
    assert_ends(&setting.eval(&[]), 2, &["checkpoint-0002", "'data'"]);
}

/// A run on built-in images that must diverge, in its own folder.
fn diverging(scratch: &Path, name: &str, more: &[&str]) -> (Output, PathBuf) {
    let mut arguments = vec!["train", "--dataset", "synthetic", "--imb-factor", "1", "--partial-rate", "0.3"];
    arguments.extend(["--width", "8", "--batch-size", "16", "--synthetic-train-per-class", "10"]);
    arguments.extend(["--synthetic-test-per-class", "10", "--device", "cpu", "--name", name]);
    arguments.extend(["--exp-dir", scratch.to_str().unwrap()]);
    arguments.extend(more);
    (records(&arguments), scratch.join(name))
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "safetensors")).collect()
}

#[test]
fn a_diverged_epoch_leaves_nothing_behind() {
    let scratch = tempfile::tempdir().unwrap();
    let always: &[&str] =
        &["training has diverged in epoch 0", "nothing of this epoch was written", "a lower --lr"];
    for (name, more, parts) in [
        (
            "rate",
            &["--epochs", "1", "--lr", "100"][..],
            &["(now 100)", "after step 5 of 6, the loss has exploded to"][..],
        ),
        (
            "rarely-evaluated",
            &["--epochs", "5", "--lr", "1000", "--eval-every", "5"],
            &["after step 4 of 6, the loss has exploded to"],
        ),
        (
            "in-one-step",
            &["--epochs", "1", "--lr", "1e30"],
            &[
                "logits, losses",
                "from step 2 of 6 on, first in layer encoder.bn1; its training samples",
                "(now 1e30)",
            ],
        ),
        (
            "decay",
            &["--epochs", "1", "--lr", "0.1", "--weight-decay", "1e4"],
            &["a lower --weight-decay (now 10000)"],
        ),
        (
            "solar",
            &["--epochs", "2", "--lr", "100", "--method", "solar", "--est-epochs", "1"],
            &["after step 5 of 6, the loss has exploded to"],
        ),
        (
            "beta",
            &["--epochs", "1", "--method", "lw", "--lw-beta", "1e30"],
            &["after step 1 of 6, the loss has exploded to 4.5e29", "a lower --lw-beta (now 1e30)"],
        ),
    ] {
        println!("{name}");
        let (output, run) = diverging(scratch.path(), name, more);
        assert_ends(&output, 1, always);
        assert_ends(&output, 1, parts);
        assert!(checkpoints(&run).is_empty(), "{name}: {:?}", checkpoints(&run));
        assert_eq!(fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default(), "", "{name}");
        let log = fs::read_to_string(run.join("log.txt")).unwrap();
        assert!(log.lines().last().unwrap().starts_with("failed: training has diverged"), "{log}");
    }
}

/// The loss of mixed views begins with epoch 1 and makes the run diverge; the state of epoch 0 stays as it
/// was.
#[test]
fn divergence_keeps_the_good_checkpoints() {
    let scratch = tempfile::tempdir().unwrap();
    let (output, run) = diverging(scratch.path(), "late", &["--epochs", "4", "--mixup", "--alpha", "1e30"]);
    assert_ends(
        &output,
        1,
        &[
            "diverged in epoch 1",
            "after step 1 of 6, the loss has exploded",
            "earlier epochs are kept in",
            "--alpha (now 1e30)",
        ],
    );
    let kept = checkpoints(&run);
    assert_eq!(kept.len(), 2, "the first and the best: {kept:?}");
    for path in &kept {
        let finite =
            |values: &Values| !matches!(values, Values::F32(values) if values.iter().any(|v| !v.is_finite()));
        assert!(
            TensorFile::read(path).unwrap().tensors.values().all(|(_, values)| finite(values)),
            "{path:?}"
        );
        succeed(&records(&["eval", "--checkpoint", path.to_str().unwrap()]));
    }
    assert_eq!(fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count(), 1);
    // It diverges in the same place again.
    let again = records(&["train", "--resume", run.to_str().unwrap()]);
    assert_ends(&again, 1, &["diverged in epoch 1", "after step 1 of 6"]);
    assert_eq!(checkpoints(&run).len(), 2);
}

#[test]
fn values_out_of_proportion_are_reported() {
    let scratch = tempfile::tempdir().unwrap();
    let (output, _) = diverging(scratch.path(), "large", &["--epochs", "2", "--lr", "10"]);
    let printed = succeed(&output);
    assert_eq!(printed.matches("grown out of proportion").count(), 1, "{printed}");
    let (output, _) = diverging(scratch.path(), "usual", &["--epochs", "2"]);
    assert!(!succeed(&output).contains("out of proportion"));
}
