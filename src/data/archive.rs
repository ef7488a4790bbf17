//! The official archives of data sets: their properties, and whether a folder holds their files.

use std::fs;
use std::path::{Path, PathBuf};

/// An archive that holds one folder of files.
#[derive(Debug)]
pub struct Archive {
    /// Its word for `records data fetch`.
    pub word: &'static str,
    /// Name of the data set in messages.
    pub title: &'static str,
    /// File name of the archive.
    pub file_name: &'static str,
    /// Its authors' address for it.
    pub url: &'static str,
    /// Length of the archive.
    pub bytes: u64,
    /// SHA-256 of the archive, 64 hexadecimal digits in lower case.
    pub sha256: &'static str,
    /// The folder in it.
    pub folder: &'static str,
    /// The files of that folder that are unpacked.
    pub files: &'static [ArchiveFile],
}

/// A file of an archive.
#[derive(Debug)]
pub struct ArchiveFile {
    /// Name inside the folder.
    pub name: &'static str,
    /// Its allowed lengths.
    pub size: FileSize,
}

/// The allowed lengths of a file, in bytes.
#[derive(Clone, Copy, Debug)]
pub enum FileSize {
    /// Exactly this length; the reader needs the file.
    Exactly(u64),
    /// At most this length; a text beside the images, which may be missing.
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

/// A file with its size, for tables.
pub const fn file(name: &'static str, size: FileSize) -> ArchiveFile {
    ArchiveFile { name, size }
}

/// Whether the files of an archive are in a folder for data.
#[derive(Debug, PartialEq)]
pub enum Presence {
    /// Every file that the reader needs is in this folder, with the right size.
    Complete(PathBuf),
    /// The reader would choose this folder, but a file is missing or has another size.
    Incomplete {
        /// The folder.
        folder: PathBuf,
        /// The file, and what is wrong with it, on one line.
        wrong: String,
    },
    /// There is no folder of this data set.
    Missing,
}

impl Archive {
    /// The command that downloads it into `data_dir`.
    pub fn command(&self, data_dir: &Path) -> String {
        format!("records data fetch {} --data-dir {}", self.word, data_dir.display())
    }

    /// Whether the files are in `data_dir`, which contains the archive's folder or is that folder, as for the
    /// reader.
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

    /// What is wrong with the first file that the reader needs and that is missing from `folder` or has
    /// another size.
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

    /// Whether `folder` is the one of the archive, and what is wrong there: see [`DataSet::recognise`].
    ///
    /// [`DataSet::recognise`]: super::registry::DataSet::recognise
    pub fn recognise(&self, folder: &Path) -> Option<(String, String)> {
        let (first, _) = self.needed().next()?;
        folder.join(first).is_file().then(|| {
            let wrong = self.first_wrong(folder).map_or(String::new(), |wrong| {
                format!("; {wrong}; move the folder away and run records data fetch {}", self.word)
            });
            (self.title.to_string(), wrong)
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
    use crate::data::registry::archives;
    use crate::data::registry::cifar::CIFAR100_ARCHIVE as CIFAR100;
    use std::fs::File;

    #[test]
    fn figures_have_the_form_of_what_they_are() {
        for archive in archives() {
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
