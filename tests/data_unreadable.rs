//! Image files that cannot be read: named all in one go, or left out and counted; and images that are turned
//! upright.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image::codecs::jpeg::JpegEncoder;
use image::{Rgb, RgbImage};

fn records(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeed(arguments: &[&str]) -> String {
    let output = records(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn refused(arguments: &[&str], parts: &[&str]) {
    let output = records(arguments);
    let line = text(&output.stderr);
    assert_eq!((output.status.code(), line.matches('\n').count()), (Some(2), 1), "{line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line}");
    }
}

fn picture(number: u8) -> RgbImage {
    RgbImage::from_fn(9, 6, |x, y| Rgb([x as u8 * 28, y as u8 * 40, number * 20]))
}

/// Class folders: `a` and `b` with four training and two test images each.
fn class_folders(data: &Path) {
    for (part, images) in [("train", 4), ("test", 2)] {
        for (class, salt) in [("a", 0), ("b", 6)] {
            let folder = data.join(part).join(class);
            fs::create_dir_all(&folder).unwrap();
            (0..images).for_each(|i| picture(i + salt).save(folder.join(format!("{i}.png"))).unwrap());
        }
    }
}

/// Breaks three of the images of [`class_folders`], each in another way.
fn break_some(data: &Path) {
    let cut = data.join("train/a/1.png");
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::write(data.join("train/b/0.png"), "no image").unwrap();
    fs::write(data.join("test/a/0.png"), "").unwrap();
}

/// `records train` on the data in a folder, as the run `name` in `runs`.
fn train<'a>(dataset: &'a str, data: &'a str, runs: &'a str, name: &'a str) -> Vec<&'a str> {
    let common =
        ["--image-size=8", "--width=4", "--batch-size=2", "--epochs=1", "--device=cpu", "--threads=2"];
    let mut arguments =
        vec!["train", "--dataset", dataset, "--data-dir", data, "--exp-dir", runs, "--name", name];
    arguments.extend(common);
    arguments
}

#[test]
fn class_folders_go_on_without_what_cannot_be_read() {
    let (data, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    class_folders(data.path());
    break_some(data.path());
    let (folder, exp_dir) = (data.path().to_str().unwrap(), runs.path().to_str().unwrap());
    let arguments = train("folder", folder, exp_dir, "x");
    let named = ["train/a/1.png", "train/b/0.png", "test/a/0.png"];
    refused(&arguments, &[&["3 of 12 images cannot be read", "--skip-unreadable"], &named[..]].concat());
    assert!(!runs.path().join("x").exists());

    let printed = succeed(&[&arguments[..], &["--skip-unreadable"]].concat());
    assert!(
        printed.contains("6 training samples of 2 classes (largest 3, smallest 3), 3 test images"),
        "{printed}"
    );
    let run = runs.path().join("x");
    let log = fs::read_to_string(run.join("log.txt")).unwrap();
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    for (count, names) in [("2 of 8 training images", &named[..2]), ("1 of 4 test images", &named[2..])] {
        let begins = format!("left out: {count}: they cannot be read, as --skip-unreadable allows: ");
        let line = log.lines().find(|line| line.starts_with(&begins)).unwrap_or_else(|| panic!("{log}"));
        assert!(names.iter().all(|name| line.contains(name)), "{line}");
        assert!(page.contains(&format!("<li>{count}: they cannot be read")), "{page}");
    }
    assert!(fs::read_to_string(run.join("config.toml")).unwrap().contains("skip-unreadable = true"));

    // Labels are those of the files that they name.
    let path = run.to_str().unwrap();
    let labels = succeed(&["disambiguate", path]);
    let rows: Vec<Vec<&str>> = labels.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|field| *field == name).unwrap();
    let (index, file, truth) = (column("index"), column("path"), column("truth"));
    let mut files: Vec<&str> = rows[1..].iter().map(|row| row[file]).collect();
    files.sort_unstable();
    let readable = ["a/0", "a/2", "a/3", "b/1", "b/2", "b/3"].map(|name| format!("train/{name}.png"));
    assert_eq!(files, readable);
    for row in &rows[1..] {
        assert!(row[file].starts_with(&format!("train/{}/", row[truth])), "{row:?}");
        let position = row[index].parse::<usize>().unwrap();
        assert_eq!(row[file], format!("train/{}/{}.png", ["a", "b"][position / 4], position % 4));
    }

    // The run goes on and is evaluated on the same images, and refuses others.
    succeed(&["train", "--resume", path, "--epochs=2"]);
    let checkpoint = run.join("best.safetensors");
    let evaluated = succeed(&["eval", "--checkpoint", checkpoint.to_str().unwrap()]);
    assert!(evaluated.contains("3 test images"), "{evaluated}");
    picture(1).save(data.path().join("train/a/1.png")).unwrap();
    let changed = ["class 'a' has 4 training images, it had 3"];
    refused(&["train", "--resume", path, "--epochs=3"], &changed);
    picture(0).save(data.path().join("test/a/0.png")).unwrap();
    refused(
        &["eval", "--checkpoint", checkpoint.to_str().unwrap()],
        &["class 'a' has 2 test images, it had 1"],
    );
}

#[test]
fn something_must_be_left() {
    let (data, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    class_folders(data.path());
    let (folder, exp_dir) = (data.path().to_str().unwrap(), runs.path().to_str().unwrap());
    let skipping = [&train("folder", folder, exp_dir, "x")[..], &["--skip-unreadable"]].concat();
    let all_of = |class: &str, images: usize| {
        (0..images).for_each(|i| fs::write(data.path().join(format!("{class}/{i}.png")), "x").unwrap());
    };
    all_of("train/b", 4);
    refused(&skipping, &["no training image of class b can be read"]);
    all_of("test/a", 2);
    all_of("test/b", 2);
    refused(&skipping, &["no image is left", "test/a/0.png", "train/b/3.png"]);
    let data_command = ["data", "--dataset", "folder", "--data-dir", folder, "--image-size=8"];
    refused(&data_command, &["8 of 12 images"]);
}

#[test]
fn lists_go_on_without_what_cannot_be_read() {
    let (data, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| data.path().join(name);
    (0..6).for_each(|i| picture(i).save(at(&format!("{i}.png"))).unwrap());
    fs::write(at("1.png"), "no image").unwrap();
    let train_list =
        "path,candidates,label\n0.png,a|b,a\n1.png,b,b\nmissing.png,a,a\n2.png,b|a,b\n3.png,a,a\n";
    fs::write(at("train.csv"), train_list).unwrap();
    fs::write(at("test.csv"), "path,label\ngone.png,a\n4.png,b\n5.png,a\n").unwrap();
    let (folder, exp_dir) = (data.path().to_str().unwrap(), runs.path().to_str().unwrap());
    let arguments = train("csv", folder, exp_dir, "x");
    let named = ["train.csv:3: ", "1.png", "train.csv:4: ", "missing.png", "test.csv:2: ", "gone.png"];
    refused(&arguments, &[&["3 of 8 images cannot be read"], &named[..]].concat());

    let printed = succeed(&[&arguments[..], &["--skip-unreadable"]].concat());
    for part in [
        "left out: 2 of 5 training images: they cannot be read",
        "left out: 1 of 3 test images",
        "2 test images",
    ] {
        assert!(printed.contains(part), "{part:?} is not in {printed}");
    }
    let run = runs.path().join("x");
    let labels = succeed(&["disambiguate", run.to_str().unwrap()]);
    let begins: Vec<String> =
        labels.lines().skip(1).map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",")).collect();
    assert_eq!(begins, ["0,0,0.png", "1,3,2.png", "2,4,3.png"]);
    succeed(&["train", "--resume", run.to_str().unwrap(), "--epochs=2"]);
    let checkpoint = run.join("checkpoint-0002.safetensors");
    assert!(succeed(&["eval", "--checkpoint", checkpoint.to_str().unwrap()]).contains("2 test images"));
    // `records data` as well.
    let data_command = ["data", "--dataset", "csv", "--data-dir", folder, "--image-size=8"];
    refused(&data_command, &["3 of 8 images"]);
    assert!(succeed(&[&data_command[..], &["--skip-unreadable"]].concat()).contains("left out: 2 of 5"));
    // The class that only an unreadable image may be of.
    fs::write(at("train.csv"), train_list.replace("1.png,b,b", "1.png,c,c")).unwrap();
    let arguments = train("csv", folder, exp_dir, "y");
    refused(&[&arguments[..], &["--skip-unreadable"]].concat(), &["no candidate set holds the class \"c\""]);
}

/// A JPEG file with an EXIF orientation.
fn oriented(path: &Path, orientation: u8) {
    let mut plain = Vec::new();
    JpegEncoder::new_with_quality(&mut plain, 95).encode_image(&picture(3)).unwrap();
    let mut exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let mut file = plain[..2].to_vec();
    file.extend([0xff, 0xe1, 0, exif.len() as u8 + 2]);
    file.extend(exif);
    file.extend(&plain[2..]);
    fs::write(path, file).unwrap();
}

#[test]
fn it_is_said_once_how_many_images_are_turned() {
    let (data, runs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    class_folders(data.path());
    let (folder, exp_dir) = (data.path().to_str().unwrap(), runs.path().to_str().unwrap());
    let said = |name: &str| {
        let printed = succeed(&train("folder", folder, exp_dir, name));
        let lines = printed.lines().filter(|line| line.contains("EXIF"));
        lines.map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(said("none"), Vec::<String>::new());
    // As it is; turned by a quarter; mirrored, among the test images.
    for (file, orientation) in [("train/a/x.jpg", 1), ("train/b/x.jpg", 6), ("test/b/x.jpg", 2)] {
        oriented(&data.path().join(file), orientation);
    }
    assert_eq!(said("some"), ["note: 2 of 15 images are turned or mirrored, as their EXIF orientation says"]);
    let log = fs::read_to_string(runs.path().join("some/log.txt")).unwrap();
    assert_eq!(log.matches("EXIF").count(), 1, "{log}");
}
