//! The official archives: where they are, what they must be and what they hold.

use std::fs;
use std::path::{Path, PathBuf};

use crate::data::recipe::DatasetName;

/// An archive with one folder of files in it.
#[derive(Debug)]
pub struct Archive {
    /// The word of `records data fetch`.
    pub word: &'static str,
    /// Name of the data set in messages.
    pub title: &'static str,
    /// The archive's own name.
    pub file_name: &'static str,
    /// Where its authors offer it.
    pub url: &'static str,
    /// Length of the archive.
    pub bytes: u64,
    /// SHA-256 of the archive, 64 hexadecimal digits in lower case.
    pub sha256: &'static str,
    /// The only folder in it.
    pub folder: &'static str,
    /// The files of that folder that are unpacked.
    pub files: &'static [ArchiveFile],
}

/// A file of an archive.
#[derive(Debug)]
pub struct ArchiveFile {
    /// Name inside the folder.
    pub name: &'static str,
    /// How long it may be.
    pub size: FileSize,
}

/// How long a file may be, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum FileSize {
    /// The reader needs the file.
    Exactly(u64),
    /// A text beside the images; it may be missing.
    AtMost(u64),
}

impl FileSize {
    /// The most bytes the file may have.
    pub fn most(self) -> u64 {
        match self {
            FileSize::Exactly(bytes) | FileSize::AtMost(bytes) => bytes,
        }
    }

    /// Whether a file may have that many bytes.
    pub fn allows(self, bytes: u64) -> bool {
        match self {
            FileSize::Exactly(exact) => bytes == exact,
            FileSize::AtMost(most) => bytes <= most,
        }
    }
}

/// What of an archive is in a folder for data.
#[derive(Debug, PartialEq)]
pub enum Presence {
    /// Every file that the reader needs lies in that folder, each of its right size.
    Complete(PathBuf),
    /// The reader would take that folder, but one of its files is missing or of another size.
    Incomplete {
        /// That folder.
        folder: PathBuf,
        /// One line: which file, and what is wrong with it.
        wrong: String,
    },
    /// Neither: no folder of that data set.
    Missing,
}

/// 10,000 records: the class and 3 x 32 x 32 bytes.
const CIFAR10_BATCH: FileSize = FileSize::Exactly(10_000 * 3_073);
/// A record of CIFAR-100 has two classes.
const CIFAR100_RECORD: u64 = 3_074;
/// The texts have some hundred bytes.
const TEXT: FileSize = FileSize::AtMost(1 << 16);

const fn file(name: &'static str, size: FileSize) -> ArchiveFile {
    ArchiveFile { name, size }
}

/// The binary version of CIFAR-10.
///
/// Size and SHA-256 are those of the checksum file `url_checksums/cifar10.txt` of TensorFlow Datasets. The authors' page,
/// <https://www.cs.toronto.edu/~kriz/cifar.html>, gives the MD5 c32a1d4ab5d03f1284b67883e8d87530 and 162 MB.
pub const CIFAR10: Archive = Archive {
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
/// Size and SHA-256 are those of the checksum file `url_checksums/cifar100.txt` of TensorFlow Datasets. The authors' page
/// gives the MD5 03b5dce01913d631647c71ecec9e9cb8 and 161 MB.
pub const CIFAR100: Archive = Archive {
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

/// The archive that a data set is read from; none for those that are no download.
pub fn archive_of(dataset: DatasetName) -> Option<&'static Archive> {
    match dataset {
        DatasetName::Cifar10Lt => Some(&CIFAR10),
        DatasetName::Cifar100Lt | DatasetName::Cifar100LtNu => Some(&CIFAR100),
        DatasetName::Folder | DatasetName::Voc | DatasetName::Csv | DatasetName::Synthetic => None,
    }
}

impl Archive {
    /// The command that downloads it into `data_dir`.
    pub fn command(&self, data_dir: &Path) -> String {
        format!("records data fetch {} --data-dir {}", self.word, data_dir.display())
    }

    /// What is in `data_dir`, which holds the archive's folder or is that folder, as the reader looks for it.
    pub fn presence(&self, data_dir: &Path) -> Presence {
        let inside = data_dir.join(self.folder);
        let folder = if fs::symlink_metadata(&inside).is_ok() {
            inside
        } else if self.needed().any(|(name, _)| data_dir.join(name).exists()) {
            data_dir.to_path_buf()
        } else {
            return Presence::Missing;
        };
        match self.first_wrong(&folder) {
            None => Presence::Complete(folder),
            Some(wrong) => Presence::Incomplete { folder, wrong },
        }
    }

    /// The first file that the reader needs and that is not in `folder` with its right size; what is wrong with it.
    pub fn first_wrong(&self, folder: &Path) -> Option<String> {
        self.needed().find_map(|(name, expected)| {
            match fs::metadata(folder.join(name)).ok().filter(fs::Metadata::is_file) {
                None => Some(format!("{name} is missing")),
                Some(found) if found.len() != expected => {
                    Some(format!("{name} has {} bytes instead of {expected}", found.len()))
                }
                Some(_) => None,
            }
        })
    }

    /// The files that the reader needs, with their sizes in bytes.
    pub fn needed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.files.iter().filter_map(|file| match file.size {
            FileSize::Exactly(bytes) => Some((file.name, bytes)),
            FileSize::AtMost(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn figures_have_the_form_of_what_they_are() {
        for archive in [&CIFAR10, &CIFAR100] {
            assert!(archive.url.ends_with(archive.file_name));
            assert_eq!(archive.sha256.len(), 64);
            assert!(archive.sha256.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')));
            // 60,000 images, packed to about 170 MB, unpack to a little more.
            let unpacked: u64 = archive.needed().map(|(_, bytes)| bytes).sum();
            assert!(unpacked > 60_000 * 3_072 && unpacked > archive.bytes);
        }
    }

    #[test]
    fn presence_tells_the_first_wrong_file() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(CIFAR100.presence(root.path()), Presence::Missing);
        let inside = root.path().join("cifar-100-binary");
        fs::create_dir(&inside).unwrap();
        let wrong = |wrong: &str| Presence::Incomplete { folder: inside.clone(), wrong: wrong.into() };
        assert_eq!(CIFAR100.presence(root.path()), wrong("train.bin is missing"));
        for (name, bytes) in CIFAR100.needed() {
            File::create(inside.join(name)).unwrap().set_len(bytes).unwrap();
        }
        assert_eq!(CIFAR100.presence(root.path()), Presence::Complete(inside.clone()));
        assert_eq!(CIFAR100.presence(&inside), Presence::Complete(inside.clone()), "the folder itself");
        File::create(inside.join("test.bin")).unwrap().set_len(7).unwrap();
        assert_eq!(CIFAR100.presence(root.path()), wrong("test.bin has 7 bytes instead of 30740000"));
    }
}
