//! The readers of CIFAR files and class folders, on small files in the same formats and on damaged ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use image::{ImageFormat, RgbImage};
use proptest::prelude::*;
use records::data::{CIFAR10, CIFAR100, cifar, folder};
use records::error::UsageError;

const RECORD: usize = 3073;

/// A CIFAR-10 folder of two training records a file, labels 0 to 9, and ten test records.
fn cifar10(data: &Path) -> PathBuf {
    let batches = data.join("cifar-10-batches-bin");
    fs::create_dir_all(&batches).unwrap();
    let record = |label: u8| {
        let mut bytes = vec![label];
        bytes.extend((0..3072u32).map(|i| (i / 1024 * 64 + i % 1024 % 61) as u8 ^ label));
        bytes
    };
    for file in 0..5u8 {
        let bytes = [record(2 * file), record(2 * file + 1)].concat();
        fs::write(batches.join(format!("data_batch_{}.bin", file + 1)), bytes).unwrap();
    }
    fs::write(batches.join("test_batch.bin"), (0..10).flat_map(record).collect::<Vec<u8>>()).unwrap();
    batches
}

/// `train/{a,b}` and `test/{a,b}` with PNG and JPEG files of several sizes.
fn pictures(data: &Path) {
    for (split, class, name, side) in [
        ("train", "a", "1.png", 32),
        ("train", "a", "0.PNG", 40),
        ("train", "b", "x.jpg", 32),
        ("train", "b", "y.jpeg", 16),
        ("test", "a", "t.png", 32),
        ("test", "b", "t.png", 32),
    ] {
        let path = data.join(split).join(class).join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let image = RgbImage::from_fn(side, side, |x, y| image::Rgb([x as u8 * 5, y as u8 * 5, side as u8]));
        let format = if name.to_lowercase().ends_with("png") { ImageFormat::Png } else { ImageFormat::Jpeg };
        image.save_with_format(path, format).unwrap();
    }
}

fn assert_usage<T>(result: anyhow::Result<T>, parts: &[&str]) {
    let Err(error) = result else { panic!("accepted, though wrong: {parts:?}") };
    assert!(error.is::<UsageError>(), "{error:?}");
    for part in parts {
        assert!(error.to_string().contains(part), "{part:?} is not in {error}");
    }
}

#[test]
fn cifar10_reads_planes_in_file_order() {
    let data = tempfile::tempdir().unwrap();
    let batches = cifar10(data.path());
    for path in [data.path(), &batches] {
        let source = cifar::load_cifar10(path).unwrap();
        assert_eq!(source.train.labels, (0..10).collect::<Vec<u8>>());
        assert_eq!(source.test.len(), 10);
        assert_eq!(source.classes[9], "truck");
        assert_eq!((source.train_normalisation, source.test_normalisation), (CIFAR10, CIFAR100));
        // Pixel (row 1, column 2) of record 3 is byte 34 of each plane.
        let pixel = &source.train.image(3)[(32 + 2) * 3..][..3];
        assert_eq!(pixel, [34 ^ 3, (64 + 34) ^ 3, (128 + 34) ^ 3]);
    }
}

#[test]
fn cifar100_takes_the_fine_label() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().join("cifar-100-binary");
    fs::create_dir(&folder).unwrap();
    let records: Vec<u8> =
        (0..100u8).flat_map(|fine| [vec![fine / 5, fine], vec![fine; 3072]].concat()).collect();
    fs::write(folder.join("train.bin"), &records).unwrap();
    fs::write(folder.join("test.bin"), &records).unwrap();
    let source = cifar::load_cifar100(data.path()).unwrap();
    assert_eq!(source.train.labels, (0..100).collect::<Vec<u8>>());
    assert_eq!(source.train.image(77), [77; 3072]);
    let names: Vec<String> = (0..100).map(|i| format!("name {i}")).collect();
    fs::write(folder.join("fine_label_names.txt"), names.join("\n")).unwrap();
    assert_eq!(cifar::load_cifar100(data.path()).unwrap().classes, names);
}

#[test]
fn damaged_cifar_files_are_named_with_the_byte() {
    let data = tempfile::tempdir().unwrap();
    assert_usage(cifar::load_cifar10(data.path()), &["data_batch_1.bin", "CIFAR-10"]);
    let batches = cifar10(data.path());
    let file = batches.join("data_batch_3.bin");
    let good = fs::read(&file).unwrap();
    fs::write(&file, &good[..RECORD + 100]).unwrap();
    assert_usage(cifar::load_cifar10(data.path()), &["data_batch_3.bin", "byte 3073", "cut short"]);
    fs::write(&file, []).unwrap();
    assert_usage(cifar::load_cifar10(data.path()), &["data_batch_3.bin", "0 bytes"]);
    let mut bad = good.clone();
    bad[RECORD] = 10;
    fs::write(&file, &bad).unwrap();
    assert_usage(cifar::load_cifar10(data.path()), &["data_batch_3.bin", "label 10", "byte 3073"]);
    bad[RECORD] = 0;
    fs::write(&file, &bad).unwrap();
    assert_usage(cifar::load_cifar10(data.path()), &["class 5"]);
    fs::remove_file(&file).unwrap();
    assert_usage(cifar::load_cifar10(data.path()), &["data_batch_3.bin", "cannot be read"]);
}

#[test]
fn folders_are_read_in_order_and_resized() {
    let data = tempfile::tempdir().unwrap();
    pictures(data.path());
    fs::write(data.path().join("train/a/.hidden"), "not an image").unwrap();
    let source = folder::load(data.path(), 32).unwrap();
    assert_eq!(source.classes, ["a", "b"]);
    assert_eq!(source.train.labels, [0, 0, 1, 1]);
    assert_eq!(source.test.labels, [0, 1]);
    // 0.PNG comes before 1.png and was 40 wide: its third channel says so. 1.png is untouched.
    assert_eq!(source.train.image(0)[2], 40);
    assert_eq!(source.train.image(1)[..6], [0, 0, 32, 5, 0, 32]);
    assert_eq!(source.train_normalisation, folder::FOLDER);
    assert!(source.train.images.len() == 4 * 32 * 32 * 3);
}

#[test]
fn damaged_folders_are_refused_with_the_file_named() {
    type Damage = fn(&Path);
    let cases: &[(Damage, &[&str])] = &[
        (|d| fs::write(d.join("train/a/notes.txt"), "x").unwrap(), &["notes.txt", "not a .jpg"]),
        (|d| fs::write(d.join("train/b/z.png"), "no picture").unwrap(), &["z.png", "not a readable image"]),
        (
            |d| {
                let file = d.join("train/b/x.jpg");
                let bytes = fs::read(&file).unwrap();
                fs::write(&file, &bytes[..60]).unwrap();
            },
            &["x.jpg", "not a readable image"],
        ),
        (
            |d| {
                // The header says 2,000,000,000 pixels wide.
                let file = d.join("test/a/t.png");
                let mut bytes = fs::read(&file).unwrap();
                bytes[16..20].copy_from_slice(&2_000_000_000u32.to_be_bytes());
                fs::write(&file, &bytes).unwrap();
            },
            &["t.png", "not a readable image"],
        ),
        (|d| fs::rename(d.join("test/b"), d.join("test/c")).unwrap(), &["class 'c'", "training set"]),
        (|d| fs::create_dir(d.join("train/empty")).unwrap(), &["empty", "holds no image"]),
        (|d| fs::remove_dir_all(d.join("test")).unwrap(), &["test", "no such folder"]),
        (|d| fs::write(d.join("train/stray.png"), "x").unwrap(), &["stray.png", "not a folder"]),
    ];
    for (damage, parts) in cases {
        let data = tempfile::tempdir().unwrap();
        pictures(data.path());
        damage(data.path());
        assert_usage(folder::load(data.path(), 32), parts);
    }
    assert_usage(folder::load(Path::new("no/such/folder"), 32), &["no/such/folder", "train/<class>"]);
}

/// The commands that read data, through the real binary: one line, exit code 2, nothing written.
#[test]
fn commands_refuse_bad_data_in_one_line() {
    let data = tempfile::tempdir().unwrap();
    pictures(data.path());
    let out = data.path().join("out.safetensors");
    let picture = data.path().join("train/a/1.png");
    let png = data.path().join("out.png");
    let [folder, out_text, picture, png_text] =
        [data.path(), &out, &picture, &png].map(|path| path.to_str().unwrap().to_owned());
    let cases: &[(&[&str], &str)] = &[
        (&["data", "--dataset", "mnist"], "--dataset mnist"),
        (&["data", "--dataset", "folder", "--data-dir", "nowhere", "--out", &out_text], "nowhere"),
        (&["data", "--dataset", "synthetic", "--imb-factor", "0", "--out", &out_text], "--imb-factor 0"),
        (
            &["data", "--dataset", "synthetic", "--imb-factor", "0.0001", "--out", &out_text],
            "leaves no sample",
        ),
        (&["data", "--dataset", "synthetic", "--partial-rate", "1", "--out", &out_text], "--partial-rate 1"),
        (&["data", "--dataset", "synthetic", "--imb-type", "odd", "--out", &out_text], "--imb-type odd"),
        (&["data", "--dataset", "synthetic", "--out", "no/folder/x.safetensors"], "no/folder"),
        (
            &["data", "--dataset", "cifar10-lt", "--data-dir", &folder, "--out", &out_text],
            "cifar-10-batches-bin",
        ),
        (&["augment", "absent.png", "--grid", "8", "-o", &png_text], "absent.png"),
        (&["augment", &picture, "--op", "blur", "-o", &png_text], "--op blur"),
        (&["augment", &picture, "--op", "rotate", "-o", &png_text], "needs --value"),
        (&["augment", &picture, "--op", "rotate", "--value", "much", "-o", &png_text], "--value much"),
        (&["augment", &picture, "--op", "resized-crop", "--value", "0,0,99,9", "-o", &png_text], "32x32"),
        (&["augment", &picture, "--op", "rotate", "--value", "9", "-o", "out.gif"], "out.gif"),
        (&["augment", &picture, "--grid", "99", "-o", &png_text], "--grid 99"),
        (&["augment", &picture, "-o", &png_text], "--op"),
    ];
    for (arguments, part) in cases {
        let output = Command::new(env!("CARGO_BIN_EXE_records")).args(*arguments).output().unwrap();
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {line}");
        assert_eq!(line.matches('\n').count(), 1, "{arguments:?}: {line:?}");
        assert!(line.contains(part), "{arguments:?}: {part:?} is not in {line:?}");
        assert!(!out.exists() && !png.exists(), "{arguments:?} wrote something");
    }
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["data", "--dataset", "folder", "--data-dir", &folder, "--imb-factor", "1", "--out", &out_text]);
    let file = records::train::tensor_file::TensorFile::read(&out).unwrap();
    assert_eq!(file.u8("candidates").unwrap().0, [4, 2]);
    run(&["augment", &picture, "--op", "rotate", "--value", "-12.5", "-o", &png_text]);
    run(&["augment", &picture, "--grid", "3", "-o", &png_text]);
    assert!(image::open(&png).unwrap().width() > 500);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_bytes_as_cifar_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..4000),
        records in 0usize..3,
        label in any::<u8>(),
    ) {
        let data = tempfile::tempdir().unwrap();
        let batches = cifar10(data.path());
        let mut file = [vec![label], vec![7; RECORD - 1]].concat().repeat(records);
        file.extend(bytes);
        fs::write(batches.join("data_batch_2.bin"), file).unwrap();
        if let Err(error) = cifar::load_cifar10(data.path()) {
            prop_assert!(error.is::<UsageError>());
        }
    }

    #[test]
    fn damaged_pictures_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
        jpeg in any::<bool>(),
    ) {
        let data = tempfile::tempdir().unwrap();
        pictures(data.path());
        let path = data.path().join(if jpeg { "train/b/x.jpg" } else { "train/a/1.png" });
        let mut file = fs::read(&path).unwrap();
        let start = at.index(file.len());
        for (old, new) in file[start..].iter_mut().zip(&bytes) {
            *old = *new;
        }
        fs::write(&path, file).unwrap();
        if let Err(error) = folder::load(data.path(), 32) {
            prop_assert!(error.is::<UsageError>());
        }
    }
}
