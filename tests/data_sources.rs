//! The official CIFAR files and class folders, complete and damaged. All files are made here, except in one
//! test with all of CIFAR-10 as JPEG, which is ignored by default and which tools/test runs if
//! RECORDS_CIFAR10_JPEG names the folder.

use std::fs;
use std::path::Path;

use image::{DynamicImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;
use records::data::registry::cifar::{CIFAR10_CLASSES, CIFAR100_CLASSES, load_cifar10, load_cifar100};
use records::data::registry::folder::{self, FOLDER};
use records::data::source::LoadedData;
use records::data::{CIFAR10, CIFAR100};
use records::error::{UsageError, exit_code, one_line};
use tempfile::TempDir;

const PLANE: usize = 1024;
const RECORD10: usize = 1 + 3 * PLANE;
const RECORD100: usize = 2 + 3 * PLANE;

/// Byte of channel `channel` at `position` in the image numbered `seed`: differs between images, channels and
/// positions.
fn pixel(seed: usize, channel: usize, position: usize) -> u8 {
    ((seed * 31 + channel * 85 + position * 7 + position / 32) % 251) as u8
}

/// A record of either layout: label bytes, then the planes.
fn record(labels: &[u8], seed: usize) -> Vec<u8> {
    let planes = (0..3).flat_map(|channel| (0..PLANE).map(move |position| pixel(seed, channel, position)));
    labels.iter().copied().chain(planes).collect()
}

/// Writes CIFAR-10 with two images in each training file and three test images; training image `i` has label
/// `i`.
fn write_cifar10(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for file in 0..5 {
        let bytes: Vec<u8> = (2 * file..2 * file + 2).flat_map(|i| record(&[i as u8], i)).collect();
        fs::write(folder.join(format!("data_batch_{}.bin", file + 1)), bytes).unwrap();
    }
    let test: Vec<u8> =
        [9, 0, 4].iter().flat_map(|&label| record(&[label], 100 + usize::from(label))).collect();
    fs::write(folder.join("test_batch.bin"), test).unwrap();
}

/// Writes CIFAR-100 with one training image of each class in falling order, and two test images.
fn write_cifar100(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let train: Vec<u8> =
        (0..100u8).rev().flat_map(|fine| record(&[fine % 20, fine], usize::from(fine))).collect();
    fs::write(folder.join("train.bin"), train).unwrap();
    fs::write(folder.join("test.bin"), [record(&[19, 3], 200), record(&[0, 99], 201)].concat()).unwrap();
}

fn assert_image(image: &[u8], seed: usize) {
    for position in 0..PLANE {
        let expected = [0, 1, 2].map(|channel| pixel(seed, channel, position));
        assert_eq!(image[3 * position..3 * position + 3], expected, "image {seed}, position {position}");
    }
}

#[test]
fn cifar10_files_become_rows_of_pixels_in_file_order() {
    let dir = TempDir::new().unwrap();
    let inside = dir.path().join("cifar-10-batches-bin");
    write_cifar10(&inside);
    for given in [dir.path(), &inside] {
        let source = load_cifar10(given).unwrap();
        assert_eq!(source.classes, CIFAR10_CLASSES);
        assert_eq!(source.train.labels, (0..10).collect::<Vec<u8>>());
        assert_eq!(source.test.labels, [9, 0, 4]);
        assert_eq!((source.train.height, source.train.width, source.test.height), (32, 32, 32));
        assert_eq!(source.train.images.len(), 10 * 3 * PLANE);
        (0..10).for_each(|i| assert_image(source.train.image(i), i));
        [109, 100, 104].iter().enumerate().for_each(|(i, &seed)| assert_image(source.test.image(i), seed));
        assert_eq!((source.train_normalisation, source.test_normalisation), (CIFAR10, CIFAR100));
    }
}

#[test]
fn cifar100_takes_the_fine_label_and_the_names_beside_it() {
    let dir = TempDir::new().unwrap();
    let inside = dir.path().join("cifar-100-binary");
    write_cifar100(&inside);
    let source = load_cifar100(dir.path()).unwrap();
    assert_eq!(source.classes, CIFAR100_CLASSES);
    assert_eq!(source.train.labels, (0..100).rev().collect::<Vec<u8>>());
    assert_eq!(source.test.labels, [3, 99]);
    (0..100).for_each(|i| assert_image(source.train.image(i), 99 - i));
    assert_image(source.test.image(1), 201);
    assert_eq!((source.train_normalisation, source.test_normalisation), (CIFAR100, CIFAR100));

    // The official file ends in an empty line.
    let names: Vec<String> = (0..100).map(|i| format!("name {i}")).collect();
    fs::write(inside.join("fine_label_names.txt"), names.join("\n") + "\n\n").unwrap();
    assert_eq!(load_cifar100(&inside).unwrap().classes, names);
    fs::write(inside.join("fine_label_names.txt"), names[1..].join("\n")).unwrap();
    assert_eq!(load_cifar100(&inside).unwrap().classes, CIFAR100_CLASSES);
}

/// The error is a usage error of one line that contains all of `parts`.
fn assert_refused(case: &str, result: anyhow::Result<LoadedData>, parts: &[&str]) {
    let error = match result {
        Ok(_) => panic!("{case}: was accepted"),
        Err(error) => error,
    };
    assert!(error.is::<UsageError>(), "{case}: {error:?} is no usage error");
    assert_eq!(exit_code(&error), 2, "{case}");
    let text = error.to_string();
    assert_eq!(text, one_line(&error), "{case}: more than one line");
    parts.iter().for_each(|part| assert!(text.contains(part), "{case}: {text:?} does not say {part:?}"));
}

/// Changes the bytes of a file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// The damage that a row of a table does to a data set.
type Damage = fn(&Path);

#[test]
fn damaged_cifar10_is_refused_by_file_and_byte() {
    let rows: &[(&str, Damage, &[&str])] = &[
        (
            "cut short",
            |dir| edit(&dir.join("data_batch_3.bin"), |bytes| bytes.truncate(RECORD10 + 100)),
            &["data_batch_3.bin", "byte 3073:", "100 of 3073", "cifar-10-binary.tar.gz"],
        ),
        (
            "a byte too many",
            |dir| edit(&dir.join("test_batch.bin"), |bytes| bytes.push(0)),
            &["test_batch.bin", "byte 9219:"],
        ),
        ("empty", |dir| edit(&dir.join("data_batch_5.bin"), Vec::clear), &["data_batch_5.bin", "byte 0:"]),
        (
            "label",
            |dir| edit(&dir.join("data_batch_2.bin"), |bytes| bytes[RECORD10] = 10),
            &["data_batch_2.bin", "byte 3073:", "label 10", "0 to 9"],
        ),
        (
            "first label",
            |dir| edit(&dir.join("test_batch.bin"), |bytes| bytes[0] = 255),
            &["test_batch.bin", "byte 0:"],
        ),
        (
            "missing",
            |dir| fs::remove_file(dir.join("data_batch_4.bin")).unwrap(),
            &["data_batch_4.bin", "cannot be read"],
        ),
        (
            "a folder in its place",
            |dir| {
                fs::remove_file(dir.join("test_batch.bin")).unwrap();
                fs::create_dir(dir.join("test_batch.bin")).unwrap();
            },
            &["test_batch.bin", "is a folder"],
        ),
        (
            "absent class",
            |dir| edit(&dir.join("data_batch_4.bin"), |bytes| bytes[0] = 7),
            &["cifar-10-batches-bin", "class 6 (frog)", "data_batch_1.bin"],
        ),
        (
            "nothing there",
            |dir| fs::remove_dir_all(dir).unwrap(),
            &["cifar-10-batches-bin", "data_batch_1.bin", "records data fetch cifar10 --data-dir"],
        ),
    ];
    for (case, damage, parts) in rows {
        let dir = TempDir::new().unwrap();
        let inside = dir.path().join("cifar-10-batches-bin");
        write_cifar10(&inside);
        damage(&inside);
        assert_refused(case, load_cifar10(dir.path()), parts);
    }
}

#[test]
fn damaged_cifar100_is_refused_by_file_and_byte() {
    let rows: &[(&str, Damage, &[&str])] = &[
        (
            "cut short",
            |dir| {
                edit(&dir.join("train.bin"), |bytes| {
                    bytes.pop();
                })
            },
            &["train.bin", "byte 304326:", "3073 of 3074"],
        ),
        (
            "coarse",
            |dir| edit(&dir.join("train.bin"), |bytes| bytes[RECORD100] = 20),
            &["train.bin", "byte 3074:", "0 to 19"],
        ),
        (
            "fine",
            |dir| edit(&dir.join("test.bin"), |bytes| bytes[1] = 100),
            &["test.bin", "byte 1:", "0 to 99"],
        ),
        (
            "missing",
            |dir| fs::remove_file(dir.join("test.bin")).unwrap(),
            &["test.bin", "cifar-100-binary.tar.gz"],
        ),
        (
            "absent",
            |dir| edit(&dir.join("train.bin"), |bytes| bytes[1] = 0),
            &["class 99 (worm)", "train.bin"],
        ),
    ];
    for (case, damage, parts) in rows {
        let dir = TempDir::new().unwrap();
        let inside = dir.path().join("cifar-100-binary");
        write_cifar100(&inside);
        damage(&inside);
        assert_refused(case, load_cifar100(dir.path()), parts);
    }
}

/// An image whose pixels all differ.
fn pattern(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(x * 8) as u8, (y * 8) as u8, (x * y) as u8]))
}

/// Writes an image; its extension says the format.
fn save(path: &Path, image: impl Into<DynamicImage>) {
    let format = ImageFormat::from_path(path).unwrap();
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes.into_inner()).unwrap();
}

/// Two classes: `ant` with three training images, `bee` with one of each; each JPEG is of one colour.
fn write_folders(dir: &Path) {
    save(&dir.join("train/ant/b.png"), pattern(8, 8));
    save(&dir.join("train/ant/a.JPG"), RgbImage::from_pixel(8, 8, Rgb([200, 100, 50])));
    save(&dir.join("train/ant/c.jpeg"), RgbImage::from_pixel(8, 8, Rgb([10, 20, 30])));
    save(&dir.join("train/bee/a.png"), pattern(16, 12));
    save(&dir.join("test/bee/a.png"), image::GrayImage::from_pixel(8, 8, Luma([77])));
    save(&dir.join("test/bee/b.Png"), RgbaImage::from_pixel(8, 8, Rgba([1, 2, 3, 0])));
}

#[test]
fn folders_are_read_by_class_and_name() {
    let dir = TempDir::new().unwrap();
    write_folders(dir.path());
    for hidden in [".DS_Store", "train/.DS_Store", "train/ant/.hidden"] {
        fs::write(dir.path().join(hidden), "not an image").unwrap();
    }
    fs::write(dir.path().join("README.txt"), "beside train and test anything may lie").unwrap();
    let source = folder::load(dir.path(), 8).unwrap();
    assert_eq!(source.classes, ["ant", "bee"]);
    assert_eq!((&source.train.labels[..], &source.test.labels[..]), (&[0, 0, 0, 1][..], &[1, 1][..]));
    assert_eq!((source.train.height, source.train.width), (8, 8));
    assert_eq!((source.train_normalisation, source.test_normalisation), (FOLDER, FOLDER));
    // A single colour survives JPEG except for rounding between colour spaces: two steps in each channel.
    for (i, colour) in [(0, [200u8, 100, 50]), (2, [10, 20, 30])] {
        for pixel in source.train.image(i).chunks_exact(3) {
            assert!(pixel.iter().zip(colour).all(|(&a, b)| a.abs_diff(b) <= 2), "image {i}: {pixel:?}");
        }
    }
    assert_eq!(source.train.image(1), pattern(8, 8).as_raw().as_slice());
    let resized = records::data::augment::resize::resize(pattern(16, 12).as_raw(), [12, 16], [8, 8]);
    assert_eq!(source.train.image(3), resized);
    assert!(source.test.image(0).iter().all(|&value| value == 77));
    assert!(source.test.image(1).chunks_exact(3).all(|pixel| pixel == [1, 2, 3]));
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let dir = TempDir::new().unwrap();
    write_folders(dir.path());
    for i in 0..40 {
        save(&dir.path().join(format!("train/bee/{i:02}.png")), pattern(9 + i, 5));
    }
    let load = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| folder::load(dir.path(), 8)).unwrap()
    };
    let (one, four) = (load(1), load(4));
    assert_eq!((one.train.images, one.train.labels), (four.train.images, four.train.labels));
    // The first of several damaged files is named.
    for i in [7, 11, 30] {
        fs::write(dir.path().join(format!("train/bee/{i:02}.png")), "damaged").unwrap();
    }
    for threads in [1, 4] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_refused("first", pool.install(|| folder::load(dir.path(), 8)), &["07.png"]);
    }
}

#[test]
fn folders_with_the_classes_of_cifar10_are_normalised_as_cifar10() {
    let dir = TempDir::new().unwrap();
    for part in ["train", "test"] {
        for class in CIFAR10_CLASSES {
            save(&dir.path().join(part).join(class).join("0.png"), pattern(8, 8));
        }
    }
    let source = folder::load(dir.path(), 8).unwrap();
    assert_eq!(source.classes, CIFAR10_CLASSES);
    assert_eq!((source.train_normalisation, source.test_normalisation), (CIFAR10, CIFAR100));
}

#[test]
fn labels_are_bytes_so_256_classes_are_the_most() {
    let dir = TempDir::new().unwrap();
    for class in 0..256 {
        save(&dir.path().join(format!("train/{class:03}/a.png")), pattern(1, 1));
    }
    save(&dir.path().join("test/255/a.png"), pattern(1, 1));
    assert_eq!(folder::load(dir.path(), 1).unwrap().test.labels, [255]);
    save(&dir.path().join("train/256/a.png"), pattern(1, 1));
    assert_refused("257", folder::load(dir.path(), 1), &["train", "257 classes", "256"]);
}

/// Sets width and height in the header of a PNG, with the checksum that belongs to them.
fn set_png_size(bytes: &mut [u8], width: u32, height: u32) {
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = bytes[12..29].iter().fold(!0u32, |checksum, &byte| {
        (0..8).fold(checksum ^ u32::from(byte), |value, _| {
            if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 }
        })
    });
    bytes[29..33].copy_from_slice(&(!checksum).to_be_bytes());
}

#[test]
fn damaged_folders_are_refused_by_name() {
    let rows: &[(&str, Damage, &[&str])] = &[
        (
            "text file",
            |dir| fs::write(dir.join("train/ant/notes.txt"), "x").unwrap(),
            &["train/ant/notes.txt", "not an image"],
        ),
        (
            "no extension",
            |dir| fs::write(dir.join("train/ant/notes"), "x").unwrap(),
            &["train/ant/notes", "not an image"],
        ),
        (
            "text named png",
            |dir| fs::write(dir.join("train/ant/t.png"), "some text").unwrap(),
            &["train/ant/t.png", "byte 0"],
        ),
        ("empty image", |dir| fs::write(dir.join("test/bee/0.jpg"), "").unwrap(), &["test/bee/0.jpg"]),
        (
            "truncated JPEG",
            |dir| edit(&dir.join("train/ant/a.JPG"), |bytes| bytes.truncate(bytes.len() - 8)),
            &["train/ant/a.JPG", "remature end"],
        ),
        (
            "JPEG without scan",
            |dir| edit(&dir.join("train/ant/a.JPG"), |bytes| bytes.truncate(60)),
            &["train/ant/a.JPG", "remature end"],
        ),
        (
            "truncated PNG",
            |dir| edit(&dir.join("train/bee/a.png"), |bytes| bytes.truncate(bytes.len() - 40)),
            &["train/bee/a.png"],
        ),
        (
            "huge side",
            |dir| edit(&dir.join("train/bee/a.png"), |bytes| set_png_size(bytes, 2_000_000_000, 1)),
            &["train/bee/a.png", "imit"],
        ),
        (
            "huge area",
            |dir| edit(&dir.join("train/bee/a.png"), |bytes| set_png_size(bytes, 16_384, 16_384)),
            &["train/bee/a.png", "imit"],
        ),
        (
            "wrong checksum",
            |dir| edit(&dir.join("train/bee/a.png"), |bytes| bytes[30] ^= 1),
            &["train/bee/a.png"],
        ),
        ("test class", |dir| save(&dir.join("test/cow/a.png"), pattern(8, 8)), &["test/cow", "no class cow"]),
        (
            "empty class",
            |dir| fs::create_dir(dir.join("train/cow")).unwrap(),
            &["train/cow", "holds no image"],
        ),
        (
            "only hidden files",
            |dir| {
                fs::create_dir(dir.join("train/cow")).unwrap();
                fs::write(dir.join("train/cow/.keep"), "").unwrap();
            },
            &["train/cow", "holds no image"],
        ),
        (
            "folder in a class",
            |dir| fs::create_dir(dir.join("train/ant/d.png")).unwrap(),
            &["train/ant/d.png", "is a folder"],
        ),
        (
            "file beside classes",
            |dir| save(&dir.join("train/a.png"), pattern(8, 8)),
            &["train/a.png", "not a folder"],
        ),
        ("no test", |dir| fs::remove_dir_all(dir.join("test")).unwrap(), &["test", "cannot be read"]),
        ("empty test", |dir| fs::remove_dir_all(dir.join("test/bee")).unwrap(), &["test", "holds no class"]),
        ("no train", |dir| fs::remove_dir_all(dir.join("train")).unwrap(), &["train", "cannot be read"]),
    ];
    for (case, damage, parts) in rows {
        let dir = TempDir::new().unwrap();
        write_folders(dir.path());
        damage(dir.path());
        assert_refused(case, folder::load(dir.path(), 8), parts);
    }
    let dir = TempDir::new().unwrap();
    write_folders(dir.path());
    assert_refused("size 0", folder::load(dir.path(), 0), &["image size 0"]);
    assert_refused("size", folder::load(dir.path(), usize::MAX / 2), &["smaller image size"]);
}

/// Every proper prefix of a JPEG is refused, so that nothing is filled with grey; bytes after its end are
/// ignored.
#[test]
fn no_prefix_of_a_jpeg_is_accepted() {
    let dir = TempDir::new().unwrap();
    write_folders(dir.path());
    let path = dir.path().join("train/ant/a.jpg");
    save(&path, pattern(8, 8));
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        assert_refused(&format!("{len} bytes"), folder::load(dir.path(), 8), &["train/ant/a.jpg"]);
    }
    fs::write(&path, [&whole[..], b"trailing bytes"].concat()).unwrap();
    assert!(folder::load(dir.path(), 8).is_ok());
}

/// Arbitrary bytes, alone or replacing part of a valid file.
fn spoil(valid: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut spoiled = valid.to_vec();
    let at = at % (valid.len() + 1);
    let end = valid.len().min(at + bytes.len());
    spoiled.splice(at..end, bytes.iter().copied());
    spoiled
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// For any bytes, loading gives images or a usage error.
    #[test]
    fn random_bytes_never_panic_as_cifar(
        at in 0usize..2 * RECORD10,
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        alone: bool,
    ) {
        let dir = TempDir::new().unwrap();
        write_cifar10(dir.path());
        write_cifar100(dir.path());
        for file in ["data_batch_2.bin", "train.bin"] {
            edit(&dir.path().join(file), |valid| *valid = if alone { bytes.clone() } else { spoil(valid, at, &bytes) });
        }
        for result in [load_cifar10(dir.path()), load_cifar100(dir.path())] {
            match result {
                Ok(source) => prop_assert_eq!(source.train.images.len(), source.train.len() * 3 * PLANE),
                Err(error) => prop_assert!(error.is::<UsageError>(), "{:?}", error),
            }
        }
    }

    #[test]
    fn random_bytes_never_panic_as_images(
        at in any::<usize>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        alone: bool,
        name in prop_oneof![Just("a.JPG"), Just("b.png")],
    ) {
        let dir = TempDir::new().unwrap();
        write_folders(dir.path());
        edit(&dir.path().join("train/ant").join(name), |valid| {
            *valid = if alone { bytes.clone() } else { spoil(valid, at, &bytes) };
        });
        match folder::load(dir.path(), 8) {
            Ok(source) => prop_assert_eq!(source.train.images.len(), 4 * 8 * 8 * 3),
            Err(error) => {
                prop_assert!(error.is::<UsageError>(), "{:?}", error);
                prop_assert!(error.to_string().contains(name), "{}", error);
            }
        }
    }
}

/// All of CIFAR-10 as JPEG. The sums over all pixels are Pillow's (13.0.0 with libjpeg-turbo 3.2.0), which
/// has the same bytes for each of the 60,000 images; the mean over the training set is CIFAR-10's own to
/// 0.002.
#[test]
#[ignore = "needs the real images that RECORDS_CIFAR10_JPEG names"]
fn all_of_cifar10_as_jpeg() {
    let dir = std::env::var_os("RECORDS_CIFAR10_JPEG")
        .expect("RECORDS_CIFAR10_JPEG names a folder with train/ and test/");
    let start = std::time::Instant::now();
    let source = folder::load(Path::new(&dir), 32).unwrap();
    eprintln!("60,000 files in {:.2} s", start.elapsed().as_secs_f64());
    assert_eq!(source.classes, CIFAR10_CLASSES);
    assert_eq!((source.train.class_sizes(10), source.test.class_sizes(10)), (vec![5000; 10], vec![1000; 10]));
    let sums_of = |images: &[u8]| {
        let mut sums = [0u64; 3];
        for pixel in images.chunks_exact(3) {
            sums.iter_mut().zip(pixel).for_each(|(sum, &value)| *sum += u64::from(value));
        }
        sums
    };
    let sums = sums_of(&source.train.images);
    assert_eq!(sums, [6_413_765_015, 6_294_170_581, 5_829_777_341]);
    assert_eq!(sums_of(&source.test.images), [1_290_104_439, 1_266_598_065, 1_176_037_503]);
    let means = sums.map(|sum| sum as f64 / (50_000 * PLANE) as f64 / 255.0);
    for (mean, known) in means.iter().zip(CIFAR10.mean) {
        assert!((mean - f64::from(known)).abs() < 2e-3, "{means:?}");
    }
}
