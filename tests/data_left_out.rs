//! No sample is left out silently: which images of a data set are used, and the lines about the others.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{ImageFormat, Rgb, RgbImage};
use records::data::longtail::ImbalanceType;
use records::data::recipe::{Recipe, TrainingData, open_test, prepare};
use records::data::registry::folder::CLASS_FOLDERS;
use records::data::registry::synthetic::MADE_UP;
use records::error::exit_code;
use records::train::tensor_file::TensorFile;
use tempfile::TempDir;

/// Class folders `a`, `b`, ... with these numbers of training images, and one test image each.
fn write_classes(dir: &Path, sizes: &[usize]) {
    let mut bytes = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(2, 2, Rgb([9; 3])).write_to(&mut bytes, ImageFormat::Png).unwrap();
    for (class, &size) in (b'a'..).zip(sizes) {
        for (part, count) in [("train", size), ("test", 1)] {
            let folder = dir.join(part).join(char::from(class).to_string());
            fs::create_dir_all(&folder).unwrap();
            (0..count).for_each(|i| fs::write(folder.join(format!("{i:03}.png")), bytes.get_ref()).unwrap());
        }
    }
}

fn recipe(dir: &Path, imb_type: ImbalanceType, imb_factor: f64) -> Recipe {
    Recipe {
        dataset: &CLASS_FOLDERS,
        data_dir: Some(dir.into()),
        imb_factor,
        imb_type,
        reverse: false,
        partial_rate: 0.1,
        seed: 123,
        data_seed: 0,
        image_size: 8,
        synthetic_train_per_class: 30,
        synthetic_test_per_class: 1,
        unreadable: Default::default(),
    }
}

fn lines(data: &TrainingData) -> Vec<String> {
    data.remarks(None)
}

#[test]
fn folders_that_are_imbalanced_themselves_train_whole() {
    let dir = TempDir::new().unwrap();
    let sizes = [100, 10, 40, 6];
    write_classes(dir.path(), &sizes);
    for (imb_type, imb_factor) in [
        (ImbalanceType::None, 0.01),
        (ImbalanceType::None, 1.0),
        (ImbalanceType::Exp, 1.0),
        (ImbalanceType::Step, 1.0),
    ] {
        for reverse in [false, true] {
            let data = prepare(&Recipe { reverse, ..recipe(dir.path(), imb_type, imb_factor) }).unwrap();
            assert_eq!(data.counts().unwrap(), sizes, "{imb_type} {imb_factor}");
            let mut index = data.index.clone();
            index.sort_unstable();
            assert_eq!(index, (0..156).collect::<Vec<i32>>());
            assert_eq!((lines(&data), data.left_out.len()), (vec![], 0));
        }
    }
}

/// The mean class size is 39. A requested profile says what it leaves out, and that a class has fewer images.
#[test]
fn a_profile_says_what_it_leaves_out() {
    let dir = TempDir::new().unwrap();
    write_classes(dir.path(), &[100, 10, 40, 6]);
    // The profile asks for 39, 30, 24 and 19.
    let data = prepare(&recipe(dir.path(), ImbalanceType::Exp, 0.5)).unwrap();
    assert_eq!(data.counts().unwrap(), [39, 10, 24, 6]);
    let expected = "left out: 77 of 156 training images: the profile exp with imb-factor 0.5 keeps 39 to 19 images of a class, drawn \
                    with data-seed 0; --imb-type none keeps all (2 classes have fewer than the profile's count, and all of them are \
                    kept)";
    assert_eq!(lines(&data), [expected]);
    assert_eq!((data.left_out[0].count, data.left_out[0].of), (77, 156));
    let data = prepare(&recipe(dir.path(), ImbalanceType::Step, 0.1)).unwrap();
    assert_eq!(data.counts().unwrap(), [39, 10, 3, 3]);
    let line = &lines(&data)[0];
    assert!(
        line.contains("101 of 156") && line.contains("step") && line.contains("1 class has fewer"),
        "{line}"
    );
}

/// The synthetic set is balanced, so exactly the images beyond the profile are left out.
#[test]
fn sums_hold_for_balanced_sets() {
    let synthetic = |imb_type, imb_factor| {
        let recipe =
            Recipe { dataset: &MADE_UP, image_size: 32, ..recipe(Path::new("."), imb_type, imb_factor) };
        prepare(&recipe).unwrap()
    };
    let data = synthetic(ImbalanceType::Exp, 0.1);
    assert_eq!(data.train.len() + data.left_out[0].count, 300);
    assert!(lines(&data)[0].contains("keeps 30 to 3 images of a class"), "{:?}", lines(&data));
    for data in [synthetic(ImbalanceType::None, 0.1), synthetic(ImbalanceType::Exp, 1.0)] {
        assert_eq!((data.counts().unwrap(), lines(&data)), (vec![30; 10], vec![]));
    }
}

fn records(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn data_tells_what_is_left_out_and_keeps_it_in_the_file() {
    let dir = TempDir::new().unwrap();
    write_classes(dir.path(), &[100, 10, 40, 6]);
    let (folder, out) = (dir.path().to_str().unwrap(), dir.path().join("x.safetensors"));
    let data = |more: &[&str]| {
        let arguments = ["data", "--dataset", "folder", "--data-dir", folder, "--out", out.to_str().unwrap()];
        let printed = records(&[&arguments, more].concat());
        (printed, TensorFile::read(&out).unwrap())
    };
    // A folder keeps all its images unless a subset is requested.
    for more in [&[][..], &["--imb-type", "none"], &["--imb-factor", "1"]] {
        let (printed, file) = data(more);
        assert!(printed.contains("(100 to 6)") && !printed.contains("left out"), "{printed}");
        assert_eq!(file.u8("label").unwrap().0, [156]);
        assert!(!file.metadata.contains_key("left_out"));
    }
    let (printed, file) = data(&["--imb-factor", "0.1"]);
    assert!(
        printed.lines().any(|line| line.starts_with("left out: 96 of 156 training images: ")),
        "{printed}"
    );
    assert!(file.metadata["left_out"].starts_with("96 of 156 training images: "));
}

/// The log says what a run leaves out of the data and of each epoch; `records table --report` shows it with
/// the columns.
#[test]
fn log_and_report_tell_what_is_left_out() {
    let runs = TempDir::new().unwrap();
    let exp_dir = runs.path().to_str().unwrap();
    #[rustfmt::skip]
    let grid = ["table", "cifar10", "--dataset=synthetic", "--methods=corr", "--rho=2,4", "--q=0.3", "--epochs=1", "--width=8", "--batch-size=16",
        "--synthetic-train-per-class=8", "--synthetic-test-per-class=2", "--device=cpu", "--threads=1", "--exp-dir", exp_dir];
    records(&grid);
    // rho 2: 8, 7, 6, 6, 5, 5, 5, 4, 4, 4 images of a class, 54 in all; rho 4: 8 to 2.
    let log = fs::read_to_string(runs.path().join("corr-rho2-q0.3-seed123/log.txt")).unwrap();
    let of_data = "left out: 26 of 80 training images: the profile exp with imb-factor 0.5 keeps 8 to 4 images of a class";
    let of_epoch = "left out: 6 of 54 training samples per epoch: they do not fill a batch of 16";
    for line in [of_data, of_epoch] {
        assert_eq!(log.lines().filter(|logged| logged.starts_with(line)).count(), 1, "{line}: {log}");
    }
    for format in ["text", "markdown"] {
        let report = records(&[&grid[..], &["--report", "--format", format]].concat());
        for line in [of_data, of_epoch] {
            let line = line.replacen("left out: ", "left out: 2/.3: ", 1);
            assert!(report.lines().any(|told| told.starts_with(&line)), "{line}: {report}");
        }
        assert!(report.contains("left out: 4/.3: "), "{report}");
    }
}

fn image(dir: &Path, path: &str) {
    let path = dir.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::from_pixel(2, 2, Rgb([9; 3])).save_with_format(path, ImageFormat::Png).unwrap();
}

fn remarks(dir: &Path) -> Vec<String> {
    prepare(&recipe(dir, ImbalanceType::Exp, 1.0)).unwrap().remarks(None)
}

/// Hidden images are counted, but not the files that operating systems leave in folders.
#[test]
fn hidden_images_are_told() {
    let dir = TempDir::new().unwrap();
    write_classes(dir.path(), &[2, 2]);
    for litter in
        [".DS_Store", "Thumbs.db", "desktop.ini", "Desktop.ini", "ehthumbs.db", "._000.png", ".keep"]
    {
        for folder in ["train", "train/a", "test/b"] {
            fs::write(dir.path().join(folder).join(litter), "x").unwrap();
        }
    }
    assert_eq!(remarks(dir.path()), Vec::<String>::new());
    for hidden in [
        "train/a/.x.png",
        "train/a/.ipynb_checkpoints/y.png",
        "train/.c/0.png",
        "train/.c/1.JPG",
        "test/b/.t.png",
    ] {
        image(dir.path(), hidden);
    }
    let lines = remarks(dir.path());
    assert!(
        lines[0].starts_with("left out: 4 of 8 training images: they are hidden, the first in train/.c;"),
        "{lines:?}"
    );
    assert!(
        lines[1].starts_with("left out: 1 of 3 test images: they are hidden, the first in test/b/.t.png;"),
        "{lines:?}"
    );
    assert_eq!(lines.len(), 2);
    let test = open_test(&recipe(dir.path(), ImbalanceType::Exp, 1.0)).unwrap();
    assert_eq!(test.left_out.iter().map(|left_out| left_out.count).collect::<Vec<_>>(), [1]);
}

/// Notes about folders whose names look alike, untested classes, and links to images in another place.
#[test]
fn what_may_be_meant_otherwise_is_told() {
    let dir = TempDir::new().unwrap();
    for path in ["train/Cat/0.png", "train/cat/0.png", "train/dog/0.png", "train/dog/1.png", "test/cat/0.png"]
    {
        image(dir.path(), path);
    }
    fs::hard_link(dir.path().join("train/dog/0.png"), dir.path().join("test/cat/1.png")).unwrap();
    std::os::unix::fs::symlink("dog", dir.path().join("train/hound")).unwrap();
    let lines = remarks(dir.path());
    let expected: [&[&str]; 3] = [
        &["note: classes that look alike: \"Cat\" (train/Cat) and \"cat\" (train/cat)", "case"],
        &["note: 3 images are links to files", "train/hound/0.png (train/dog/0.png)"],
        &["note: 3 classes have no test image (Cat, dog, hound): their accuracy is unknown"],
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, parts) in lines.iter().zip(expected) {
        parts.iter().for_each(|part| assert!(line.contains(part), "{part} is not in {line}"));
    }
}

#[test]
fn class_folders_that_look_the_same_are_refused() {
    for (names, parts) in [
        (
            ["train/caf\u{e9}/0.png", "train/cafe\u{301}/0.png"],
            &["train/caf", "U+00E9 for U+0065 U+0301"][..],
        ),
        (["train/cat/0.png", "train/cat /0.png"], &["train/cat : class \"cat \" looks the same", "U+0020"]),
        (["train/cat/0.png", "train/c\u{200b}at/0.png"], &["\"c\\u{200b}at\"", "U+200B for nothing"]),
        (
            ["train/cat/0.png", "test/Cat/0.png"],
            &["no class Cat; did you mean \"cat\"? They differ only in upper"],
        ),
        (["train/caf\u{e9}/0.png", "test/cafe\u{301}/0.png"], &["did you mean", "U+0065 U+0301 for U+00E9"]),
        (["train/cat/sub/0.png", "test/dog/0.png"], &["train/cat/sub: is a folder", "move them up"]),
    ] {
        let dir = TempDir::new().unwrap();
        for path in names.into_iter().chain(["train/dog/0.png", "test/dog/0.png"]) {
            image(dir.path(), path);
        }
        let error = prepare(&recipe(dir.path(), ImbalanceType::Exp, 1.0)).unwrap_err();
        assert_eq!(exit_code(&error), 2);
        parts.iter().for_each(|part| assert!(error.to_string().contains(part), "{part} is not in {error}"));
    }
}

/// Escape bytes in the names of classes and files do not reach the terminal.
#[test]
fn names_do_not_steer_the_terminal() {
    let (dir, runs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    for name in ["a\u{1b}[31m", "b\u{202e}\r\nc", "z"] {
        for i in 0..3 {
            image(dir.path(), &format!("train/{name}/{i}.png"));
        }
    }
    image(dir.path(), "test/a\u{1b}[31m/0.png");
    image(dir.path(), "train/z/.\u{1b}[2J.png");
    let (data, exp_dir) = (dir.path().to_str().unwrap(), runs.path().to_str().unwrap());
    let checkpoint = runs.path().join("x/checkpoint-0001.safetensors");
    #[rustfmt::skip]
    let commands: [&[&str]; 3] = [
        &["data", "--dataset", "folder", "--data-dir", data],
        &["train", "--dataset", "folder", "--data-dir", data, "--image-size=8", "--width=8", "--batch-size=4", "--epochs=1", "--device=cpu",
          "--exp-dir", exp_dir, "--name=x"],
        &["eval", "--checkpoint", checkpoint.to_str().unwrap()],
    ];
    for command in commands {
        let printed = records(command);
        assert!(!printed.contains(['\u{1b}', '\u{202e}', '\r']), "{command:?}: {printed:?}");
        assert!(printed.contains("\\u{1b}"), "{command:?}: {printed}");
    }
}
