//! Data sets in IDX files: read correctly, and refused if they do not match their headers.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use records::data::decode::Unreadable;
use records::data::longtail::ImbalanceType;
use records::data::recipe::{Recipe, TrainingData, open_test, prepare};
use records::data::registry;
use records::data::registry::idx::IdxItems;
use records::error::exit_code;

const TRAIN_IMAGES: &str = "train-images-idx3-ubyte";
const TRAIN_LABELS: &str = "train-labels-idx1-ubyte";
const TEST_IMAGES: &str = "t10k-images-idx3-ubyte";
const TEST_LABELS: &str = "t10k-labels-idx1-ubyte";

/// An IDX file with these sizes in its header, and the values.
fn idx(sizes: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    sizes.iter().for_each(|size| bytes.extend(size.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Image `i`, of class `i % 10`, with grey levels that encode both.
fn images(count: usize) -> Vec<u8> {
    (0..count)
        .flat_map(|i| (0..784).map(move |p| if p == 0 { i as u8 } else { (i % 10 * 25 + p % 7) as u8 }))
        .collect()
}

fn labels(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i % 10) as u8).collect()
}

/// The four files with 40 training and 20 test images.
fn write_set(folder: &Path, as_gzip: bool) {
    fs::create_dir_all(folder).unwrap();
    for (name, bytes) in [
        (TRAIN_IMAGES, idx(&[40, 28, 28], &images(40))),
        (TRAIN_LABELS, idx(&[40], &labels(40))),
        (TEST_IMAGES, idx(&[20, 28, 28], &images(20))),
        (TEST_LABELS, idx(&[20], &labels(20))),
    ] {
        if as_gzip {
            fs::write(folder.join(format!("{name}.gz")), gzip(&bytes)).unwrap();
        } else {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
}

fn recipe(dataset: &str, data_dir: &Path, image_size: usize) -> Recipe {
    Recipe {
        dataset: registry::find(dataset).unwrap(),
        data_dir: Some(data_dir.into()),
        imb_factor: 1.0,
        imb_type: ImbalanceType::Exp,
        reverse: false,
        partial_rate: 0.3,
        seed: 1,
        data_seed: 0,
        image_size,
        synthetic_train_per_class: 1,
        synthetic_test_per_class: 1,
        unreadable: Default::default(),
    }
}

fn load(dataset: &str, data_dir: &Path) -> TrainingData {
    prepare(&recipe(dataset, data_dir, 28)).unwrap()
}

#[test]
fn that_no_image_can_be_skipped_is_said() {
    let folder = tempfile::tempdir().unwrap();
    write_set(folder.path(), false);
    let asked =
        |unreadable| prepare(&Recipe { unreadable, ..recipe("mnist", folder.path(), 28) }).unwrap().notes;
    assert!(asked(Unreadable::Refused).iter().all(|note| !note.contains("--skip-unreadable")));
    let notes = asked(Unreadable::LeftOut);
    assert!(notes.iter().any(|note| note.contains("--skip-unreadable changes nothing")), "{notes:?}");
}

#[test]
fn gray_levels_become_three_channels() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), false);
    let data = load("mnist", dir.path());
    assert_eq!((data.train.len(), data.train.height, data.train.width), (40, 28, 28));
    assert_eq!(data.classes[9], "9");
    for (row, &i) in data.index.iter().enumerate() {
        let image = data.train.image(row);
        let expected: Vec<u8> =
            images(40)[i as usize * 784..][..784].iter().flat_map(|&level| [level; 3]).collect();
        assert_eq!(image, expected, "row {row}");
        assert_eq!(data.train.labels[row], Some((i % 10) as u8));
    }
    assert_eq!(data.test.unwrap().labels, labels(20));
    assert_eq!(data.train_normalisation.mean, [0.1307; 3]);
    assert_eq!(data.test_normalisation.std, [0.3081; 3]);
}

#[test]
fn compressed_files_and_the_usual_folders_hold_the_same() {
    for (dataset, folders, first_class) in [
        ("mnist", ["", "MNIST/raw", "mnist"], "0"),
        ("fashion-mnist", ["", "FashionMNIST/raw", "fashion-mnist"], "T-shirt/top"),
        ("kmnist", ["", "KMNIST/raw", "kmnist"], "o"),
    ] {
        let plain = tempfile::tempdir().unwrap();
        write_set(plain.path(), false);
        let expected = load(dataset, plain.path());
        assert_eq!(expected.classes[0], first_class);
        for folder in folders {
            let dir = tempfile::tempdir().unwrap();
            write_set(&dir.path().join(folder), true);
            let found = load(dataset, dir.path());
            assert_eq!(found.train.images, expected.train.images, "{dataset} in {folder:?}");
            assert_eq!(found.candidates.rows, expected.candidates.rows);
            assert_eq!(open_test(&recipe(dataset, dir.path(), 28)).unwrap().test.unwrap().len(), 20);
        }
    }
}

#[test]
fn other_sizes_are_resized_and_subsets_are_long_tailed() {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), true);
    let data = prepare(&Recipe { imb_factor: 0.5, ..recipe("fmnist", dir.path(), 32) }).unwrap();
    assert_eq!((data.train.height, data.train.width), (32, 32));
    assert_eq!(data.counts().unwrap(), [4, 3, 3, 3, 2, 2, 2, 2, 2, 2]);
    assert!(data.train.image(0).chunks_exact(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
    assert!(data.candidates.sizes().any(|size| size > 1), "some sets are ambiguous");
}

/// The error of loading a set after `wrong` has changed it.
fn refused(wrong: &dyn Fn(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    write_set(dir.path(), false);
    wrong(dir.path());
    let error = prepare(&recipe("mnist", dir.path(), 28)).unwrap_err();
    assert_eq!(exit_code(&error), 2);
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains("https://"), "{text}");
    text
}

#[test]
fn what_is_no_such_file_is_refused() {
    let good = idx(&[40, 28, 28], &images(40));
    let (packed, bomb) = (gzip(&good), gzip(&vec![0; 100 << 20]));
    let claims_much = idx(&[u32::MAX, 28, 28], &[]);
    let mut damaged = packed.clone();
    let at = damaged.len() - 8;
    damaged[at] ^= 1;
    let cases: &[(&str, &[u8], &str)] = &[
        ("empty", b"", "ends after 0 bytes, inside its header"),
        ("short header", &good[..15], "ends after 15 bytes"),
        ("labels for images", &idx(&[40], &labels(40)), "begins with 00000801 instead of 00000803"),
        ("a page of a server", b"<!DOCTYPE html><html>", "begins with 3c21444f"),
        ("other sizes", &idx(&[40, 32, 32], &images(40)), "claims items of [32, 32]; they are [28, 28]"),
        ("none", &idx(&[0, 28, 28], &[]), "claims 0 items"),
        (
            "more than there are",
            &idx(&[60_001, 28, 28], &images(40)),
            "claims 60001 items; there are 1 to 60000",
        ),
        ("gigabytes", &claims_much, "claims 4294967295 items"),
        ("gigabytes, compressed", &gzip(&claims_much), "claims 4294967295 items"),
        ("overflow", &idx(&[40, u32::MAX, u32::MAX], &[]), "claims items of [4294967295, 4294967295]"),
        ("truncated", &good[..good.len() - 1], "ends after 31359 of 31360 values"),
        ("trailing", &[&good[..], b"\0"].concat(), "holds more than the 31360 values"),
        ("trailing, compressed", &gzip(&[&good[..], b"\0"].concat()), "holds more than the 31360 values"),
        ("a bomb", &bomb, "begins with 00000000"),
        ("a bomb with a header", &gzip(&[&good[..], &vec![0; 100 << 20]].concat()), "holds more than"),
        ("truncated gzip", &packed[..packed.len() / 2], "is damaged as gzip"),
        ("without its checksum", &packed[..packed.len() - 8], "is damaged as gzip"),
        ("wrong checksum", &damaged, "is damaged as gzip"),
        ("bytes behind gzip", &[&packed[..], b"more"].concat(), "is damaged as gzip"),
        ("two in one gzip", &[&packed[..], &packed].concat(), "holds more than"),
        ("gzip by its first bytes only", &[0x1f, 0x8b, 0, 0, 0, 0, 0, 0, 0, 0, 0], "is damaged as gzip"),
    ];
    for (case, bytes, expected) in cases {
        let error = refused(&|dir| fs::write(dir.join(TRAIN_IMAGES), bytes).unwrap());
        assert!(error.contains(TRAIN_IMAGES) && error.contains(expected), "{case}: {error}");
    }
    // A file that is too large is not even read.
    let error = refused(&|dir| fs::File::create(dir.join(TRAIN_IMAGES)).unwrap().set_len(1 << 40).unwrap());
    assert!(error.contains("1099511627776 bytes; at most"), "{error}");
}

#[test]
fn files_that_do_not_go_together_are_refused() {
    let put =
        |name: &'static str, bytes: Vec<u8>| move |dir: &Path| fs::write(dir.join(name), &bytes).unwrap();
    let mut eleventh = labels(40);
    eleventh[7] = 10;
    let without_9: Vec<u8> = labels(40).iter().map(|label| label % 9).collect();
    for (wrong, expected) in [
        (put(TRAIN_LABELS, idx(&[40], &eleventh)), "label 7 is 10; labels are 0 to 9"),
        (put(TRAIN_LABELS, idx(&[39], &labels(39))), "has 39 labels, but "),
        (put(TEST_IMAGES, idx(&[19, 28, 28], &images(19))), "t10k-images-idx3-ubyte has 19 images"),
        (put(TRAIN_LABELS, idx(&[40], &without_9)), "class 9 (9) has no training image"),
    ] {
        let error = refused(&wrong);
        assert!(error.contains(expected), "{error}");
    }
    for name in [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS] {
        let error = refused(&|dir| fs::remove_file(dir.join(name)).unwrap());
        assert!(error.contains(&format!("holds no {name}, .gz or not")), "{error}");
    }
    let error = refused(&|dir| {
        for name in [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS] {
            fs::remove_file(dir.join(name)).unwrap();
        }
    });
    assert!(
        error.contains("nor does MNIST/raw or mnist in it; put the four files of MNIST there"),
        "{error}"
    );
}

proptest! {
    /// Arbitrary bytes, and a valid file with some bytes changed or its end cut, give the claimed values or
    /// an error.
    #[test]
    fn any_bytes_are_read_or_refused(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        kept in any::<prop::sample::Index>(),
        cut: bool,
        packed: bool,
    ) {
        const SMALL: IdxItems = IdxItems { item: &[2, 3], most: 9 };
        let check = |bytes: &[u8]| {
            let fine = match SMALL.read(bytes) {
                Ok(values) => values.len() % 6 == 0 && (6..=54).contains(&values.len()),
                Err(problem) => !problem.is_empty(),
            };
            prop_assert!(fine, "{bytes:?}");
            Ok(())
        };
        check(&noise)?;
        let mut file = idx(&[3, 2, 3], &[7; 18]);
        if packed {
            file = gzip(&file);
        }
        prop_assert_eq!(SMALL.read(&file), Ok(vec![7; 18]));
        for (at, byte) in changes {
            let at = at.index(file.len());
            file[at] = byte;
        }
        if cut {
            file.truncate(kept.index(file.len()));
        }
        check(&file)?;
    }
}

#[test]
fn a_network_trains_on_them() {
    let dir = tempfile::tempdir().unwrap();
    write_set(&dir.path().join("MNIST/raw"), true);
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_records"))
            .args(arguments)
            .arg("--data-dir")
            .arg(dir.path())
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = run(&["data", "--dataset", "mnist", "--imb-factor", "1"]);
    assert!(shown.contains("training samples N           40"), "{shown}");
    assert!(run(&["doctor"]).contains("MNIST or a data set in its format in "));
    run(&[
        "train",
        "--preset",
        "tiny",
        "--dataset",
        "mnist",
        "--imb-factor",
        "1",
        "--batch-size",
        "20",
        "--epochs",
        "1",
        "--device",
        "cpu",
        "--name",
        "digits",
    ]);
    let config = fs::read_to_string(dir.path().join("runs/digits/config.toml")).unwrap();
    assert!(config.contains("image-size = 28") && config.contains("dataset = \"mnist\""), "{config}");
    let metrics = fs::read_to_string(dir.path().join("runs/digits/metrics.jsonl")).unwrap();
    let epoch: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    assert!(epoch["loss"].as_f64().is_some_and(|loss| loss.is_finite() && loss > 0.0), "{epoch}");
}
