//! The file of a download, until it is whole and its checksum is right.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::files::{Lock, LockError, open_own, unwritable};
use crate::text::hex;
use crate::usage;

/// A file to which one process at a time appends. The lock ends with the process; the bytes it has written
/// stay.
pub struct PartFile {
    path: PathBuf,
    file: File,
    len: u64,
}

impl PartFile {
    /// Opens `path` and locks it; the bytes of an earlier run are kept.
    ///
    /// # Errors
    /// A usage error if the folder cannot be written to, if another process has the lock, or if `path` is a
    /// link or another thing that no earlier run made.
    pub fn open(path: &Path) -> Result<Self> {
        let unusable = |error: io::Error| unwritable(path, error);
        let foreign = |what: String| usage!("{}: {what}; move it away", path.display());
        let mut file = match Lock::take(path) {
            Ok(lock) => lock.into_file(),
            Err(LockError::Held) => {
                return Err(usage!(
                    "{}: another process is downloading into it; wait until it has ended",
                    path.display()
                ));
            }
            // On a file system without locks, the checksum detects that two processes have written.
            Err(LockError::Unsupported(_)) => open_own(path).map_err(|error| foreign(error.to_string()))?,
            Err(LockError::Foreign(what)) => return Err(foreign(what)),
            Err(LockError::Io(error)) => return Err(unusable(error)),
        };
        let len = file.seek(SeekFrom::End(0)).map_err(unusable)?;
        Ok(Self { path: path.into(), file, len })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends `bytes`.
    ///
    /// # Errors
    /// If they cannot be written, as on a full disk; the length stays as before.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .seek(SeekFrom::Start(self.len))
            .and_then(|_| self.file.write_all(bytes))
            .with_context(|| format!("{}: cannot be written", self.path.display()))?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Empties the file.
    ///
    /// # Errors
    /// If the file cannot be truncated.
    pub fn clear(&mut self) -> Result<()> {
        self.file.set_len(0).with_context(|| format!("{}: cannot be emptied", self.path.display()))?;
        self.len = 0;
        Ok(())
    }

    /// Removes the file, if it still exists.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("{}: cannot be removed", self.path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

/// SHA-256 of all of `file`, 64 hexadecimal digits in lower case; rewinds the file.
///
/// # Errors
/// If the file cannot be read.
pub fn sha256(file: &mut File) -> io::Result<String> {
    file.rewind()?;
    let mut context = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => context.update(&buffer[..read]),
        }
    }
    file.rewind()?;
    Ok(hex(&context.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit_code;

    #[test]
    fn what_is_written_stays_for_the_next_and_only_one_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.part");
        let mut first = PartFile::open(&path).unwrap();
        first.append(b"ab").unwrap();
        let second = PartFile::open(&path).err().unwrap();
        assert_eq!(exit_code(&second), 2);
        assert!(second.to_string().contains("another process"), "{second}");
        drop(first);
        let mut next = PartFile::open(&path).unwrap();
        assert_eq!(next.len(), 2);
        next.append(b"c").unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(next.file()).unwrap(), abc);
        next.clear().unwrap();
        next.append(b"d").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"d");
        next.remove().unwrap();
        assert!(!path.exists());
    }
}
