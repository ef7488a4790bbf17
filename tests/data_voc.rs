//! PASCAL VOC 2007 with candidate sets: its layout, the padding of its images pixel by pixel, and a run
//! through the binary.

use std::fs;
use std::path::Path;
use std::process::Command;

use image::{ImageFormat, Rgb, RgbImage};
use records::data::augment::resize::resize;
use records::data::longtail::ImbalanceType;
use records::data::recipe::{Recipe, TrainingData, prepare};
use records::data::registry::voc::{VOC, VOC_CLASSES, VOC2007};
use records::error::{UsageError, one_line};
use tempfile::TempDir;

/// Sizes of the training images: one of each class in order, and one more; both orientations, with odd
/// differences.
const SIZES: [(u32, u32); 4] = [(8, 8), (8, 3), (5, 8), (11, 6)];

/// An image whose pixels all differ, and differ between images; none is black.
fn picture(number: usize) -> RgbImage {
    let (width, height) = SIZES[number % SIZES.len()];
    RgbImage::from_fn(width, height, |x, y| Rgb([1 + 20 * x as u8, 1 + 20 * y as u8, 1 + 12 * number as u8]))
}

/// Writes the layout under `root`: training image i is of class i, with the class after it as another
/// candidate.
fn write_voc(root: &Path) {
    let mut train = String::from(",name,label,label set\n");
    let mut test = String::from("name,label,label set\r\n");
    for (i, class) in VOC_CLASSES.iter().enumerate() {
        // Its own class occurs twice, but is in the set once.
        train += &format!("{i},{i:02}.png,{class},{} {class} {class}\n", VOC_CLASSES[(i + 1) % 20]);
        save(&root.join(format!("train_var/images/{i:02}.png")), &picture(i));
    }
    for i in [19, 0, 7] {
        test += &format!("t{i}.png,{},whatever\r\n", VOC_CLASSES[i]);
        save(&root.join(format!("test/images/t{i}.png")), &picture(i));
    }
    fs::write(root.join("train_var/images_PLL.csv"), train).unwrap();
    fs::write(root.join("test/images_uniform.csv"), test).unwrap();
}

fn save(path: &Path, image: &RgbImage) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image.save_with_format(path, ImageFormat::Png).unwrap();
}

fn load(data_dir: &Path, image_size: usize) -> anyhow::Result<TrainingData> {
    prepare(&recipe(data_dir, image_size))
}

fn recipe(data_dir: &Path, image_size: usize) -> Recipe {
    Recipe {
        dataset: &VOC2007,
        data_dir: Some(data_dir.into()),
        imb_factor: 0.01,
        imb_type: ImbalanceType::Exp,
        reverse: false,
        partial_rate: 0.1,
        seed: 123,
        data_seed: 0,
        image_size,
        synthetic_train_per_class: 1,
        synthetic_test_per_class: 1,
        unreadable: Default::default(),
    }
}

/// The image padded as in SPEC 9, pixel by pixel: W > H puts (W - H) div 2 black rows on top, H > W (H -
/// W) div 2 black columns to the left.
fn padded(picture: &RgbImage) -> (usize, Vec<u8>) {
    let (w, h) = (i64::from(picture.width()), i64::from(picture.height()));
    let side = w.max(h);
    let pixel = |x: i64, y: i64| {
        let (x, y) = (x - (side - w) / 2, y - (side - h) / 2);
        if (0..w).contains(&x) && (0..h).contains(&y) {
            picture.get_pixel(x as u32, y as u32).0
        } else {
            [0; 3]
        }
    };
    let pixels = (0..side * side).flat_map(|at| pixel(at % side, at / side)).collect();
    (side as usize, pixels)
}

#[test]
fn lists_and_images_become_a_training_set() {
    let dir = TempDir::new().unwrap();
    // The root itself, its parent, and the data folder of the reference.
    write_voc(&dir.path().join("VOC2017/PLL"));
    for given in ["VOC2017/PLL", "VOC2017", ""] {
        let data = load(&dir.path().join(given), 8).unwrap();
        assert_eq!(data.classes, VOC_CLASSES);
        assert!(data.classes.is_sorted(), "ids are alphabetical");
        assert_eq!(data.train.labels, (0..20).map(Some).collect::<Vec<_>>());
        for (i, row) in data.candidates.rows.chunks_exact(20).enumerate() {
            let set: Vec<usize> = (0..20).filter(|&class| row[class] == 1).collect();
            let next = (i + 1) % 20;
            assert_eq!(set, [i.min(next), i.max(next)], "image {i}");
        }
        assert_eq!(data.counts(), Some(vec![1; 20]));
        assert_eq!((data.train_normalisation, data.test_normalisation), (VOC, VOC));
        assert_eq!(data.test.unwrap().labels, [19, 0, 7]);
    }
    // SPEC 4.
    assert_eq!((VOC.mean, VOC.std), ([0.2554, 0.2243, 0.2070], [0.2414, 0.2207, 0.2104]));
}

/// If the padded image already has the size, its pixels stay as they are: 8x8, 8x3 (two rows above,
/// three below), 5x8 (one column to the left, two to the right).
#[test]
fn images_are_padded_to_a_square() {
    let dir = TempDir::new().unwrap();
    write_voc(dir.path());
    let data = load(dir.path(), 8).unwrap();
    let test = data.test.unwrap();
    let mut exact = 0;
    for (number, got) in (0..20)
        .map(|i| (i, data.train.image(i)))
        .chain([19, 0, 7].into_iter().zip((0..).map(|i| test.image(i))))
    {
        let (side, expected) = padded(&picture(number));
        exact += usize::from(side == 8);
        let expected = if side == 8 { expected } else { resize(&expected, [side, side], [8, 8]) };
        assert_eq!(got, expected, "image {number}");
    }
    assert_eq!(exact, 16, "of 23 images");

    // The first rows and columns by hand.
    let (wide, tall) = (data.train.image(1), data.train.image(2));
    let row = |image: &[u8], y: usize| image[y * 24..(y + 1) * 24].iter().any(|&value| value != 0);
    assert_eq!(
        [0, 1, 2, 3, 4, 5, 6, 7].map(|y| row(wide, y)),
        [false, false, true, true, true, false, false, false]
    );
    let column = |image: &[u8], x: usize| (0..8).any(|y| image[(y * 8 + x) * 3] != 0);
    assert_eq!(
        [0, 1, 2, 3, 4, 5, 6, 7].map(|x| column(tall, x)),
        [false, true, true, true, true, true, false, false]
    );
}

/// Shrinking to half averages four positions with triangle weights, here computed by hand in eighths.
#[test]
fn padded_images_are_resized_with_antialiasing() {
    let dir = TempDir::new().unwrap();
    write_voc(dir.path());
    let data = load(dir.path(), 4).unwrap();
    let (_, padded) = padded(&picture(1));
    // Weights 1 3 3 1 of 8; at the borders the outer 1 is missing.
    let half = |line: [f64; 8], at: usize| -> f64 {
        let taps = (0..4).filter_map(|tap| {
            Some(((2 * at + tap).checked_sub(1).filter(|&i| i < 8)?, [1.0, 3.0, 3.0, 1.0][tap]))
        });
        let (sum, total) =
            taps.fold((0.0, 0.0), |(sum, total), (i, weight)| (sum + weight * line[i], total + weight));
        (sum / total).round()
    };
    for channel in 0..3 {
        let value = |x: usize, y: usize| f64::from(padded[(y * 8 + x) * 3 + channel]);
        for (y, x) in (0..16).map(|at| (at / 4, at % 4)) {
            let column = std::array::from_fn(|y| half(std::array::from_fn(|x| value(x, y)), x));
            let got = f64::from(data.train.image(1)[(y * 4 + x) * 3 + channel]);
            assert_eq!(got, half(column, y), "{x} {y} {channel}");
        }
    }
}

/// The lists are the training set: imb-type, imb-factor, partial-rate and the seeds are not read.
#[test]
fn no_subset_and_no_candidates_are_drawn() {
    let dir = TempDir::new().unwrap();
    write_voc(dir.path());
    let expected = load(dir.path(), 8).unwrap();
    for imb_type in [ImbalanceType::Exp, ImbalanceType::Step, ImbalanceType::None] {
        let other = Recipe {
            imb_type,
            imb_factor: 0.5,
            reverse: true,
            partial_rate: 0.9,
            seed: 7,
            data_seed: 8,
            ..recipe(dir.path(), 8)
        };
        let other = prepare(&other).unwrap();
        assert_eq!(
            (other.index, other.train.images),
            (expected.index.clone(), expected.train.images.clone())
        );
        assert_eq!(other.candidates, expected.candidates);
    }
}

#[test]
fn what_is_wrong_is_reported_by_file_and_line() {
    /// A file, a text in it, its replacement, and parts of the message.
    type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);
    let rows: &[Row] = &[
        ("train_var/images_PLL.csv", "label set", "set", &["images_PLL.csv:1:", "no column \"label set\""]),
        (
            "train_var/images_PLL.csv",
            "name,label,",
            "name,class,",
            &["images_PLL.csv:1:", "no column \"label\""],
        ),
        (
            "train_var/images_PLL.csv",
            ",bird,",
            ",cat,",
            &["images_PLL.csv:4:", "\"cat\" is not in its candidate set"],
        ),
        ("train_var/images_PLL.csv", ",bird,", ",,", &["images_PLL.csv:4:", "label is missing"]),
        (
            "train_var/images_PLL.csv",
            "boat bird bird",
            "  ",
            &["images_PLL.csv:4:", "candidate set is empty"],
        ),
        (
            "train_var/images_PLL.csv",
            "boat bird bird",
            "boat|bird",
            &["images_PLL.csv:4:", "\"bird\" is not in"],
        ),
        (
            "train_var/images_PLL.csv",
            "boat bird bird",
            "ship bird",
            &["images_PLL.csv:4:", "\"ship\" is unknown", "aeroplane, bicycle"],
        ),
        (
            "train_var/images_PLL.csv",
            "04.png",
            "03.png",
            &["images_PLL.csv:6:", "03.png is listed on line 5"],
        ),
        ("train_var/images_PLL.csv", "04.png", "../04.png", &["images_PLL.csv:6:", "without .."]),
        (
            "train_var/images_PLL.csv",
            "04.png",
            "40.png",
            &["images_PLL.csv:6:", "train_var/images/40.png", "cannot be read"],
        ),
        (
            "train_var/images_PLL.csv",
            "19,19.png,tvmonitor,aeroplane tvmonitor tvmonitor\n",
            "",
            &["no candidate set holds", "tvmonitor"],
        ),
        ("test/images_uniform.csv", ",cat,", ",lynx,", &["images_uniform.csv:4:", "\"lynx\" is unknown"]),
        ("test/images_uniform.csv", ",cat,", ",,", &["images_uniform.csv:4:", "label is missing"]),
    ];
    for (file, from, to, parts) in rows {
        let dir = TempDir::new().unwrap();
        write_voc(dir.path());
        let path = dir.path().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from:?} is not in {file}");
        let mut changed = text.replacen(from, to, 1);
        if to.is_empty() {
            // The class would otherwise still be a candidate of the row before.
            changed = changed.replace("tvmonitor train train", "train");
        }
        fs::write(&path, changed).unwrap();
        let error = load(dir.path(), 8).map(|_| ()).unwrap_err();
        let line = error.to_string();
        assert!(error.is::<UsageError>() && line == one_line(&error), "{line}");
        parts
            .iter()
            .for_each(|part| assert!(line.contains(part), "{from:?}: {line:?} does not say {part:?}"));
    }
    let dir = TempDir::new().unwrap();
    let error = load(dir.path(), 8).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("train_var/images_PLL.csv") && error.contains("unpack"), "{error}");
    write_voc(dir.path());
    fs::remove_file(dir.path().join("test/images_uniform.csv")).unwrap();
    let error = load(dir.path(), 8).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("images_uniform.csv") && error.contains("cannot be read"), "{error}");
}

#[test]
fn the_binary_trains_on_it() {
    let (data, runs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    write_voc(&data.path().join("VOC2017/PLL"));
    let [data, exp_dir] = [data.path(), runs.path()].map(|path| path.to_str().unwrap().to_string());
    let records = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_records")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let printed = records(&[
        "train",
        "--dataset",
        "voc",
        "--data-dir",
        &data,
        "--image-size",
        "32",
        "--width",
        "8",
        "--batch-size",
        "10",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--debias",
        "records",
        "--exp-dir",
        &exp_dir,
        "--name",
        "voc",
    ]);
    assert!(
        printed.contains("20 training samples of 20 classes (largest 1, smallest 1), 3 test images"),
        "{printed}"
    );
    let metrics = fs::read_to_string(runs.path().join("voc/metrics.jsonl")).unwrap();
    let metrics: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    for key in ["train_accuracy", "label_accuracy", "prior_distance"] {
        assert!(metrics[key].is_number(), "{key}: {metrics}");
    }
    let checkpoint = runs.path().join("voc/checkpoint-0001.safetensors");
    let printed = records(&["eval", "--checkpoint", checkpoint.to_str().unwrap()]);
    assert!(
        printed.contains(&format!("top-1 {:.2} %", metrics["test"]["top1"].as_f64().unwrap())),
        "{printed}"
    );

    // Its default image size.
    let out = runs.path().join("voc.safetensors");
    let printed = records(&["data", "--dataset", "voc", "--data-dir", &data, "--out", out.to_str().unwrap()]);
    assert!(printed.contains("1.0 (1 to 1)") && printed.contains("mean 2.0000, 2 to 2"), "{printed}");
    let dry = records(&["train", "--dataset", "voc", "--dry-run"]);
    assert!(dry.contains("image-size = 128"), "{dry}");
}
