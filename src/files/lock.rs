//! Locks between processes: a file that one process at a time holds. The lock ends with the process.

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::own::{NotOwn, open_own};
use super::{careful, careful_without_links};

/// A held lock.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

/// Why a lock could not be taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process holds it.
    Held,
    /// The file system has no locks.
    Unsupported(io::Error),
    /// Something is there that this program did not make: a link, a device, another user's file. Says what it
    /// is.
    Foreign(String),
    /// The file cannot be opened or created.
    Io(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockError::Held => f.write_str("another process holds it"),
            LockError::Unsupported(error) => write!(f, "the file system has no locks ({error})"),
            LockError::Foreign(what) => f.write_str(what),
            LockError::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LockError {}

impl From<NotOwn> for LockError {
    fn from(error: NotOwn) -> Self {
        match error {
            NotOwn::Foreign(what) => LockError::Foreign(what),
            NotOwn::Io(error) => LockError::Io(error),
        }
    }
}

impl Lock {
    /// Takes the lock of the file `path`, which is created if it does not exist. Never waits.
    ///
    /// # Errors
    /// See [`LockError`].
    pub fn take(path: &Path) -> Result<Self, LockError> {
        // The previous holder may have removed the file in between; then this lock is on a file that nobody
        // else can find.
        for _ in 0..100 {
            let lock = Self { path: path.into(), file: open_own(path)? };
            lock.file.try_lock().map_err(refused)?;
            if lock.still_holds() {
                return Ok(lock);
            }
        }
        Err(LockError::Held)
    }

    /// Takes the lock of a folder itself, which cannot be removed while it holds files.
    ///
    /// # Errors
    /// See [`LockError`]; some network file systems can lock files but not folders.
    pub fn take_folder(path: &Path) -> Result<Self, LockError> {
        let file = File::open(path).map_err(LockError::Io)?;
        if !file.metadata().map_err(LockError::Io)?.is_dir() {
            return Err(LockError::Foreign("is not a folder".into()));
        }
        file.try_lock().map_err(refused)?;
        Ok(Self { path: path.into(), file })
    }

    /// Whether the path still leads to the locked file or folder. If it was replaced, another process can
    /// lock the new one.
    pub fn still_holds(&self) -> bool {
        let identity = |found: io::Result<fs::Metadata>| found.ok().map(|found| (found.dev(), found.ino()));
        let is_folder = self.file.metadata().is_ok_and(|held| held.is_dir());
        let now = if is_folder { fs::metadata(&self.path) } else { fs::symlink_metadata(&self.path) };
        let held = identity(self.file.metadata());
        held.is_some() && held == identity(now)
    }

    /// Whether a process holds the lock of `path`, a file or a folder; creates nothing. A lock that cannot be
    /// examined counts as free.
    pub fn is_held(path: &Path) -> bool {
        let is_folder = fs::metadata(path).is_ok_and(|found| found.is_dir());
        if !is_folder && !fs::symlink_metadata(path).is_ok_and(|found| found.is_file()) {
            return false;
        }
        let flags = if is_folder { careful() } else { careful_without_links() };
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    /// The locked file by itself; the lock lasts as long as the file is open.
    pub fn into_file(self) -> File {
        self.file
    }

    /// The locked file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }
}

fn refused(error: TryLockError) -> LockError {
    use rustix::io::Errno;
    match error {
        TryLockError::WouldBlock => LockError::Held,
        TryLockError::Error(error) => match Errno::from_io_error(&error) {
            // EBADF: some network file systems lock only files that are open for writing, which a folder
            // never is.
            Some(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::BADF) => {
                LockError::Unsupported(error)
            }
            _ => LockError::Io(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_the_others_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        fs::write(&path, b"kept").unwrap();
        let held = Lock::take(&path).unwrap();
        assert!(held.still_holds() && Lock::is_held(&path));
        assert!(matches!(Lock::take(&path), Err(LockError::Held)));
        drop(held);
        assert!(!Lock::is_held(&path));
        Lock::take(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"kept");
        let held = Lock::take_folder(folder.path()).unwrap();
        assert!(matches!(Lock::take_folder(folder.path()), Err(LockError::Held)));
        assert!(Lock::is_held(folder.path()) && held.still_holds());
        assert!(matches!(Lock::take_folder(&path), Err(LockError::Foreign(_))));
    }

    #[test]
    fn a_lock_file_that_was_removed_or_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let first = Lock::take(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!first.still_holds());
        let second = Lock::take(&path).unwrap();
        assert!(!first.still_holds() && second.still_holds());
        fs::rename(&path, folder.path().join("old")).unwrap();
        std::os::unix::fs::symlink("old", &path).unwrap();
        assert!(!second.still_holds(), "a link to the file is not the file");
    }

    #[test]
    fn what_this_program_does_not_make_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("other"), b"kept").unwrap();
        std::os::unix::fs::symlink("other", at("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        fs::hard_link(at("other"), at("hard")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), 0o600.into()).unwrap();
        for (name, part) in [
            ("link", "symbolic link"),
            ("dangling", "symbolic link"),
            ("hard", "hard link"),
            ("folder", "folder"),
            ("pipe", "pipe"),
        ] {
            let error = Lock::take(&at(name)).unwrap_err();
            assert!(matches!(&error, LockError::Foreign(what) if what.contains(part)), "{name}: {error}");
            assert!(!Lock::is_held(&at(name)) || name == "folder");
        }
        assert!(!at("nowhere").exists());
        assert_eq!(fs::read(at("other")).unwrap(), b"kept");
        assert!(matches!(Lock::take(&at("missing/lock")), Err(LockError::Io(_))));
    }
}
