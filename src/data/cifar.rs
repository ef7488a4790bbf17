//! CIFAR-10 and CIFAR-100 in their official binary format: records of label bytes and 3072 bytes of planes (red, green,
//! blue, each 32x32 row-major).
//!
//! Files may hold any positive whole number of records, so that small ones can stand in for the real ones in tests; every
//! class must occur in the training files.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::source::Source;
use super::{CIFAR10, CIFAR100, ImageSet};
use crate::usage;

/// The classes of CIFAR-10 in order of id.
pub const CIFAR10_CLASSES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const IMAGE: usize = 3 * PLANE;

/// One of the two formats.
struct Format {
    name: &'static str,
    folder: &'static str,
    train: &'static [&'static str],
    test: &'static str,
    /// Label bytes before the pixels; the last is the class.
    labels: usize,
    classes: usize,
}

const FORMAT_10: Format = Format {
    name: "CIFAR-10",
    folder: "cifar-10-batches-bin",
    train: &[
        "data_batch_1.bin",
        "data_batch_2.bin",
        "data_batch_3.bin",
        "data_batch_4.bin",
        "data_batch_5.bin",
    ],
    test: "test_batch.bin",
    labels: 1,
    classes: 10,
};

const FORMAT_100: Format = Format {
    name: "CIFAR-100",
    folder: "cifar-100-binary",
    train: &["train.bin"],
    test: "test.bin",
    labels: 2,
    classes: 100,
};

impl Format {
    /// The folder with the files: `data_dir` itself or the archive's folder in it.
    fn locate(&self, data_dir: &Path) -> Result<PathBuf> {
        let candidates = [data_dir.join(self.folder), data_dir.to_path_buf()];
        let found = candidates.into_iter().find(|folder| folder.join(self.train[0]).is_file());
        found.ok_or_else(|| {
            let (name, folder, first, shown) = (self.name, self.folder, self.train[0], data_dir.display());
            usage!("--data-dir {shown}: no {name} there ({folder}/{first}); unpack its binary version into this folder")
        })
    }

    /// Adds the records of a file to a set.
    fn read(&self, file: &Path, set: &mut ImageSet) -> Result<()> {
        let shown = file.display();
        let bytes = fs::read(file).map_err(|error| usage!("{shown}: cannot be read: {error}"))?;
        let record = self.labels + IMAGE;
        if bytes.is_empty() || bytes.len() % record != 0 {
            let whole = bytes.len() / record * record;
            return Err(usage!(
                "{shown}: {} bytes, the record at byte {whole} is cut short (records have {record}); download it again",
                bytes.len()
            ));
        }
        for (number, record_bytes) in bytes.chunks_exact(record).enumerate() {
            let (labels, planes) = record_bytes.split_at(self.labels);
            let label = labels[self.labels - 1];
            if usize::from(label) >= self.classes {
                let at = number * record + self.labels - 1;
                return Err(usage!("{shown}: label {label} at byte {at}; must be below {}", self.classes));
            }
            set.labels.push(label);
            for pixel in 0..PLANE {
                set.images.extend([planes[pixel], planes[PLANE + pixel], planes[2 * PLANE + pixel]]);
            }
        }
        Ok(())
    }

    fn load(&self, data_dir: &Path) -> Result<(PathBuf, ImageSet, ImageSet)> {
        let folder = self.locate(data_dir)?;
        let empty = || ImageSet { height: SIDE, width: SIDE, ..ImageSet::default() };
        let (mut train, mut test) = (empty(), empty());
        for name in self.train {
            self.read(&folder.join(name), &mut train)?;
        }
        self.read(&folder.join(self.test), &mut test)?;
        if let Some(class) = train.class_sizes(self.classes).iter().position(|&size| size == 0) {
            return Err(usage!(
                "{}: no training record has class {class}; the files are incomplete",
                folder.display()
            ));
        }
        Ok((folder, train, test))
    }
}

/// CIFAR-10. Test images are normalised with CIFAR-100's constants, as in the reference (SPEC 12).
///
/// # Errors
/// Usage errors naming file and byte.
pub fn load_cifar10(data_dir: &Path) -> Result<Source> {
    let (_, train, test) = FORMAT_10.load(data_dir)?;
    let classes = CIFAR10_CLASSES.map(String::from).to_vec();
    Ok(Source { classes, train, test, train_normalisation: CIFAR10, test_normalisation: CIFAR100 })
}

/// CIFAR-100 with its fine labels, named as in `fine_label_names.txt` where that is there.
///
/// # Errors
/// Usage errors naming file and byte.
pub fn load_cifar100(data_dir: &Path) -> Result<Source> {
    let (folder, train, test) = FORMAT_100.load(data_dir)?;
    let text = fs::read_to_string(folder.join("fine_label_names.txt")).unwrap_or_default();
    let names: Vec<String> =
        text.lines().map(str::trim).filter(|name| !name.is_empty()).map(String::from).collect();
    let classes =
        if names.len() == 100 { names } else { (0..100).map(|id| format!("class {id:02}")).collect() };
    Ok(Source { classes, train, test, train_normalisation: CIFAR100, test_normalisation: CIFAR100 })
}
