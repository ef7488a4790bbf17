//! CIFAR-10 and CIFAR-100 in their official binary layout (SPEC 1).
//!
//! A file is a whole number of records without header: label bytes, then 3,072 bytes as three 32x32 planes
//! (red, green, blue), each row-major. CIFAR-10 has one label byte; CIFAR-100 has two, the coarse and the
//! fine class, and the fine one is used.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Candidates, DataSet, Images, Opened};
use crate::data::archive::{Archive, FileSize, file};
use crate::data::source::LoadedData;
use crate::data::superclasses::cifar100_superclass_of;
use crate::data::{CIFAR10, CIFAR100, ImageSet};
use crate::files::read_whole;
use crate::usage;

/// CIFAR-10.
pub static CIFAR10_LT: DataSet = DataSet {
    name: "cifar10-lt",
    aliases: &["cifar10", "cifar-10", "cifar10-im", "cifar-10-lt"],
    about: "CIFAR-10, the long-tailed subset with drawn candidate sets",
    reads: "cifar-10-batches-bin/, the official binary version",
    classes: Some(10),
    images: |_| Some(Images { classes: 10, train: 50_000, test: 10_000 }),
    archive: Some(&CIFAR10_ARCHIVE),
    open: |_, folder, _| Ok(Opened::Labelled(Box::new(load_cifar10(folder)?))),
    // As in the reference (SPEC 12).
    normalisation: |_| CIFAR100,
    recognise: |folder| CIFAR10_ARCHIVE.recognise(folder),
    ..DataSet::USUAL
};

/// CIFAR-100 with its fine classes.
pub static CIFAR100_LT: DataSet = DataSet {
    name: "cifar100-lt",
    aliases: &["cifar100", "cifar-100", "cifar100-im", "cifar-100-lt"],
    about: "CIFAR-100, the long-tailed subset with drawn candidate sets",
    ..CIFAR100_SETS
};

/// CIFAR-100 with candidates likelier inside the superclass.
pub static CIFAR100_LT_NU: DataSet = DataSet {
    name: "cifar100-lt-nu",
    aliases: &["cifar100-nu", "cifar-100-nu", "cifar-100-lt-nu"],
    about: "the same with candidates likelier inside the superclass, any class the most frequent",
    candidates: Candidates::BySuperclass(&SUPERCLASS_OF),
    ..CIFAR100_SETS
};

static SUPERCLASS_OF: [u8; 100] = cifar100_superclass_of();

const CIFAR100_SETS: DataSet = DataSet {
    reads: "cifar-100-binary/, the official binary version",
    classes: Some(100),
    images: |_| Some(Images { classes: 100, train: 50_000, test: 10_000 }),
    archive: Some(&CIFAR100_ARCHIVE),
    open: |_, folder, _| Ok(Opened::Labelled(Box::new(load_cifar100(folder)?))),
    normalisation: |_| CIFAR100,
    recognise: |folder| CIFAR100_ARCHIVE.recognise(folder).or_else(|| for_python(folder)),
    ..DataSet::USUAL
};

/// Recognises the Python version of CIFAR, which is often downloaded instead.
fn for_python(folder: &Path) -> Option<(String, String)> {
    let is_file = |name: &str| folder.join(name).is_file();
    (is_file("data_batch_1") || (is_file("train") && is_file("meta"))).then(|| {
        let remedy = "; the binary version is needed, see records data fetch --help";
        ("CIFAR for Python".into(), remedy.into())
    })
}

/// 10,000 records: the class and 3 x 32 x 32 bytes.
const CIFAR10_BATCH: FileSize = FileSize::Exactly(10_000 * 3_073);
/// A record of CIFAR-100 has two classes.
const CIFAR100_RECORD: u64 = 3_074;
/// The texts have a few hundred bytes.
const TEXT: FileSize = FileSize::AtMost(1 << 16);

/// The binary version of CIFAR-10.
///
/// Size and SHA-256 are those of the checksum file `url_checksums/cifar10.txt` of TensorFlow Datasets. The
/// authors' page, <https://www.cs.toronto.edu/~kriz/cifar.html>, gives the MD5
/// c32a1d4ab5d03f1284b67883e8d87530 and 162 MB.
pub static CIFAR10_ARCHIVE: Archive = Archive {
    word: "cifar10",
    title: "CIFAR-10",
    file_name: "cifar-10-binary.tar.gz",
    url: "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    bytes: 170_052_171,
    sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder: "cifar-10-batches-bin",
    files: &[
        file("data_batch_1.bin", CIFAR10_BATCH),
        file("data_batch_2.bin", CIFAR10_BATCH),
        file("data_batch_3.bin", CIFAR10_BATCH),
        file("data_batch_4.bin", CIFAR10_BATCH),
        file("data_batch_5.bin", CIFAR10_BATCH),
        file("test_batch.bin", CIFAR10_BATCH),
        file("batches.meta.txt", TEXT),
        file("readme.html", TEXT),
    ],
};

/// The binary version of CIFAR-100.
///
/// Size and SHA-256 are those of the checksum file `url_checksums/cifar100.txt` of TensorFlow Datasets. The
/// authors' page gives the MD5 03b5dce01913d631647c71ecec9e9cb8 and 161 MB.
pub static CIFAR100_ARCHIVE: Archive = Archive {
    word: "cifar100",
    title: "CIFAR-100",
    file_name: "cifar-100-binary.tar.gz",
    url: "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    bytes: 168_513_733,
    sha256: "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder: "cifar-100-binary",
    files: &[
        file("train.bin", FileSize::Exactly(50_000 * CIFAR100_RECORD)),
        file("test.bin", FileSize::Exactly(10_000 * CIFAR100_RECORD)),
        file("fine_label_names.txt", TEXT),
        file("coarse_label_names.txt", TEXT),
    ],
};

/// Rows, and columns, of an image.
const SIDE: usize = 32;
/// Pixels of an image, which are the bytes of a plane.
const PLANE: usize = SIDE * SIDE;
/// Bytes of an image.
const IMAGE: usize = 3 * PLANE;

/// One of the two official layouts.
struct CifarLayout {
    /// The archive whose folder has this layout.
    official: &'static Archive,
    /// Files of the training set in order.
    train: &'static [&'static str],
    /// File of the test set.
    test: &'static str,
    /// Number of values of each label byte; the last byte is the class.
    label_values: &'static [u8],
}

const LAYOUT10: CifarLayout = CifarLayout {
    official: &CIFAR10_ARCHIVE,
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: "test_batch.bin",
    label_values: &[10],
};

const LAYOUT100: CifarLayout = CifarLayout {
    official: &CIFAR100_ARCHIVE,
    train: &["train.bin"],
    test: "test.bin",
    label_values: &[20, 100],
};

/// Class names of CIFAR-10 by class id, which is their alphabetical order.
pub const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Fine class names of CIFAR-100 by class id, which is their alphabetical order.
#[rustfmt::skip]
pub const CIFAR100_CLASSES: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

/// Loads CIFAR-10 from `data_dir`, which holds `cifar-10-batches-bin/` or is that folder.
///
/// Training images are those of `data_batch_1.bin` to `data_batch_5.bin` one after another, 32x32. Test
/// images are normalised with the statistics of CIFAR-100, as the reference does (SPEC 12).
///
/// # Errors
/// A usage error that names the file and, if it applies, the byte: a file is missing, empty or ends inside a
/// record, a label is out of range, or a class has no training image.
pub fn load_cifar10(data_dir: &Path) -> Result<LoadedData> {
    let folder = LAYOUT10.find(data_dir)?;
    let (train, test) = LAYOUT10.load(&folder)?;
    let classes = CIFAR10_CLASSES.map(String::from).to_vec();
    LAYOUT10.check_every_class(&folder, &train, &classes)?;
    Ok(LoadedData {
        classes,
        train,
        test,
        train_normalisation: CIFAR10,
        test_normalisation: CIFAR100,
        positions: Default::default(),
        left_out: Vec::new(),
        notes: Vec::new(),
    })
}

/// Loads CIFAR-100 with its fine classes from `data_dir`, which holds `cifar-100-binary/` or is that folder.
///
/// Class names come from `fine_label_names.txt` beside the images, if it names 100 classes, else from
/// [`CIFAR100_CLASSES`].
///
/// # Errors
/// As [`load_cifar10`].
pub fn load_cifar100(data_dir: &Path) -> Result<LoadedData> {
    let folder = LAYOUT100.find(data_dir)?;
    let (train, test) = LAYOUT100.load(&folder)?;
    let classes = fine_label_names(&folder).unwrap_or_else(|| CIFAR100_CLASSES.map(String::from).to_vec());
    LAYOUT100.check_every_class(&folder, &train, &classes)?;
    Ok(LoadedData {
        classes,
        train,
        test,
        train_normalisation: CIFAR100,
        test_normalisation: CIFAR100,
        positions: Default::default(),
        left_out: Vec::new(),
        notes: Vec::new(),
    })
}

/// The official file has about 1,000 bytes.
const MOST_NAMES_BYTES: u64 = 1 << 16;

/// The 100 names in `fine_label_names.txt`, one on each line; `None` if the file is missing or has another
/// number of names.
fn fine_label_names(folder: &Path) -> Option<Vec<String>> {
    let bytes = read_whole(&folder.join("fine_label_names.txt"), MOST_NAMES_BYTES).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
    (names.len() == CIFAR100_CLASSES.len()).then_some(names)
}

impl CifarLayout {
    /// The folder with the files: the official one inside `data_dir`, or `data_dir` itself if it has one of
    /// the files.
    fn find(&self, data_dir: &Path) -> Result<PathBuf> {
        let inside = data_dir.join(self.official.folder);
        if inside.is_dir() {
            return Ok(inside);
        }
        if self.train.iter().chain([&self.test]).any(|file| data_dir.join(file).exists()) {
            return Ok(data_dir.to_path_buf());
        }
        Err(usage!(
            "{}: holds neither {}/ nor {}; {} downloads {} there",
            data_dir.display(),
            self.official.folder,
            self.train[0],
            self.official.command(data_dir),
            self.official.title
        ))
    }

    /// The training and the test set.
    fn load(&self, folder: &Path) -> Result<(ImageSet, ImageSet)> {
        let empty = || ImageSet { height: SIDE, width: SIDE, ..ImageSet::default() };
        let (mut train, mut test) = (empty(), empty());
        for file in self.train {
            self.append(&folder.join(file), &mut train)?;
        }
        self.append(&folder.join(self.test), &mut test)?;
        Ok((train, test))
    }

    /// Appends the records of one file to `set`.
    fn append(&self, path: &Path, set: &mut ImageSet) -> Result<()> {
        let remedy = format!("unpack {} again", self.official.file_name);
        // A file may have fewer records than the official one, but not more.
        let name = path.file_name().and_then(|name| name.to_str());
        let official = self.official.needed().find(|(file, _)| Some(*file) == name);
        let most = official.map_or(0, |(_, bytes)| bytes);
        let bytes = read_whole(path, most).map_err(|error| usage!("{error}; {remedy}"))?;
        let labels = self.label_values.len();
        let record_len = labels + IMAGE;
        if bytes.is_empty() {
            return Err(usage!("{}: byte 0: the file is empty; {remedy}", path.display()));
        }
        let rest = bytes.len() % record_len;
        if rest != 0 {
            return Err(usage!(
                "{}: byte {}: the last record has {rest} of {record_len} bytes; {remedy}",
                path.display(),
                bytes.len() - rest
            ));
        }
        set.images.reserve_exact(bytes.len() / record_len * IMAGE);
        for (i, record) in bytes.chunks_exact(record_len).enumerate() {
            let (label_bytes, planes) = record.split_at(labels);
            for (position, (&label, &values)) in label_bytes.iter().zip(self.label_values).enumerate() {
                if label >= values {
                    return Err(usage!(
                        "{}: byte {}: label {label}, but {} has labels 0 to {} there; {remedy}",
                        path.display(),
                        i * record_len + position,
                        self.official.title,
                        values - 1
                    ));
                }
            }
            set.labels.push(label_bytes[labels - 1]);
            let (red, rest) = planes.split_at(PLANE);
            let (green, blue) = rest.split_at(PLANE);
            set.images.extend(
                red.iter().zip(green).zip(blue).flat_map(|((&red, &green), &blue)| [red, green, blue]),
            );
        }
        Ok(())
    }

    /// Refuses a training set that lacks a class, since the long-tailed subset would lack it too.
    fn check_every_class(&self, folder: &Path, train: &ImageSet, classes: &[String]) -> Result<()> {
        let Some(absent) = train.class_sizes(classes.len()).iter().position(|&size| size == 0) else {
            return Ok(());
        };
        Err(usage!(
            "{}: class {absent} ({}) has no image in {}; unpack {} again",
            folder.display(),
            classes[absent],
            self.train.join(", "),
            self.official.file_name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_fetched() {
        for layout in [LAYOUT10, LAYOUT100] {
            let read: Vec<&str> = layout.train.iter().chain([&layout.test]).copied().collect();
            let fetched: Vec<&str> = layout.official.needed().map(|(name, _)| name).collect();
            assert_eq!(read, fetched);
            let record = layout.label_values.len() + IMAGE;
            assert!(layout.official.needed().all(|(_, bytes)| bytes % record as u64 == 0));
        }
    }

    #[test]
    fn class_names_are_in_alphabetical_order() {
        assert!(CIFAR10_CLASSES.is_sorted());
        assert!(CIFAR100_CLASSES.is_sorted_by(|a, b| a < b));
        // Anchors of the superclass table: trees are 47, 52, 56, 59, 96.
        let trees = [47, 52, 56, 59, 96].map(|class| CIFAR100_CLASSES[class]);
        assert!(trees.iter().all(|name| name.ends_with("_tree")), "{trees:?}");
    }
}
