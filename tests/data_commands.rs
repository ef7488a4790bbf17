//! The commands that read data and pictures, through the real binary.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{ImageFormat, RgbImage};

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
        (&["data", "--dataset", "imagenet"], "--dataset imagenet"),
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
