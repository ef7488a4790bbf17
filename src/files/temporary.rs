//! Temporary files, in which new contents are written, with names by which a later run recognises what a
//! killed run left behind.
//!
//! A temporary file of `NAME` is called `.NAME.records-PROCESS-NUMBER.tmp`. Its writer holds a lock on it,
//! which ends with the process: a temporary file whose lock nobody holds is left over.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, geteuid, test_kill_process};

use super::read::open_for_reading_without_links;

/// Separates the target's name from the process in a temporary file's name.
const MARK: &[u8] = b".records-";
const ENDING: &[u8] = b".tmp";
/// File names have at most 255 bytes; mark, numbers and ending take up to 35 of them.
const MOST_NAME_BYTES: usize = 200;

/// A new, locked file in `folder`; the umask restricts `mode`.
///
/// # Errors
/// If the folder cannot be written to.
pub(super) fn create(folder: &Path, name: &OsStr, mode: u32) -> io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let mut hidden = beginning(name);
        hidden.extend(format!("{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)).bytes());
        hidden.extend(ENDING);
        let path = folder.join(OsString::from_vec(hidden));
        let file = match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Ok(file) => file,
            // A process with the same number in another container, or its left-over, has this name: take the
            // next one.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => return Err(error),
        };
        // Before it was locked, another process may have removed the file as a left-over.
        let is_ours = !matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        if is_ours && file.metadata()?.nlink() > 0 {
            return Ok((path, file));
        }
    }
}

/// The beginning of the names of a target's temporary files. A long name is cut and gets a checksum of the
/// whole.
fn beginning(name: &OsStr) -> Vec<u8> {
    let name = name.as_bytes();
    let mut text = vec![b'.'];
    if name.len() <= MOST_NAME_BYTES {
        text.extend(name);
    } else {
        // Never cut inside a character of several bytes.
        let is_middle = |at: &usize| name[*at] & 0xc0 == 0x80;
        let end = (0..=MOST_NAME_BYTES - 9).rev().find(|at| !is_middle(at)).unwrap_or(MOST_NAME_BYTES - 9);
        text.extend(&name[..end]);
        text.extend(format!("~{:08x}", crc32c::crc32c(name)).bytes());
    }
    text.extend(MARK);
    text
}

/// Removes the temporary files that killed runs left in `folder`, for targets of any name.
pub fn remove_leftovers(folder: &Path) {
    remove_where(folder, |name| name.first() == Some(&b'.') && process_of(name).is_some());
}

/// As [`remove_leftovers`], for the target called `name` only.
pub(super) fn remove_leftovers_of(folder: &Path, name: &OsStr) {
    let beginning = beginning(name);
    remove_where(folder, |name| name.starts_with(&beginning) && process_of(name).is_some());
}

fn remove_where(folder: &Path, is_meant: impl Fn(&[u8]) -> bool) {
    // A folder that cannot be listed may still be writable.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(process) = process_of(name.as_bytes()).filter(|_| is_meant(name.as_bytes())) {
            // A file that cannot be removed only takes room.
            let _ = remove_if_left_over(&entry.path(), process);
        }
    }
}

/// The process in the name of a temporary file; `None` for any other name.
fn process_of(name: &[u8]) -> Option<i32> {
    let numbers = name.strip_suffix(ENDING)?;
    let at = numbers.windows(MARK.len()).rposition(|part| part == MARK)?;
    let (process, number) = std::str::from_utf8(&numbers[at + MARK.len()..]).ok()?.split_once('-')?;
    number.parse::<u32>().ok()?;
    process.parse().ok()
}

/// Removes a temporary file, if it is a regular file of this user with a single name and no process is
/// writing it.
fn remove_if_left_over(path: &Path, process: i32) -> io::Result<()> {
    let file = open_for_reading_without_links(path)?;
    let opened = file.metadata()?;
    if opened.uid() != geteuid().as_raw() || opened.nlink() != 1 {
        return Ok(());
    }
    let is_abandoned = match file.try_lock() {
        Ok(()) => true,
        Err(TryLockError::WouldBlock) => false,
        // Without locks on this file system, only the process number remains.
        Err(TryLockError::Error(_)) => {
            Pid::from_raw(process).is_some_and(|pid| test_kill_process(pid) == Err(rustix::io::Errno::SRCH))
        }
    };
    if is_abandoned { fs::remove_file(path) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_nobody_writes_any_more_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in [
            ".a.records-1-0.tmp",
            ".a.records-999999999-7.tmp",
            ".a.b.records-1-0.tmp",
            ".a.records-1.tmp",
            ".a.records-x-0.tmp",
            "a.records-1-0.tmp",
            ".a.1-0.tmp",
        ] {
            fs::write(at(name), b"").unwrap();
        }
        fs::write(at("elsewhere"), b"").unwrap();
        std::os::unix::fs::symlink("elsewhere", at(".a.records-2-0.tmp")).unwrap();
        fs::hard_link(at("elsewhere"), at(".a.records-3-0.tmp")).unwrap();
        fs::create_dir(at(".a.records-4-0.tmp")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at(".a.records-5-0.tmp"), 0o600.into()).unwrap();
        let (held, _lock) = create(folder.path(), OsStr::new("a"), 0o666).unwrap();

        remove_leftovers_of(folder.path(), OsStr::new("a"));
        let kept = names(folder.path());
        assert!(!kept.iter().any(|name| name == ".a.records-1-0.tmp"), "{kept:?}");
        assert!(!kept.iter().any(|name| name == ".a.records-999999999-7.tmp"), "{kept:?}");
        assert_eq!(kept.len(), 11, "{kept:?}");
        assert!(held.exists(), "another writer's file is not touched");
        remove_leftovers(folder.path());
        let kept = names(folder.path());
        assert!(!kept.iter().any(|name| name == ".a.b.records-1-0.tmp"), "{kept:?}");
        assert_eq!(kept.len(), 10, "{kept:?}");
    }

    #[test]
    fn names_of_any_length_and_any_bytes_have_temporaries_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let long = |last: &str| OsString::from("x".repeat(254) + last);
        let odd = OsString::from_vec([&[0xff; 250][..], b".bin"].concat());
        for name in [long("a"), long("b"), odd, OsString::from("é".repeat(127))] {
            let (path, file) = create(folder.path(), &name, 0o666).unwrap();
            assert_eq!(std::str::from_utf8(name.as_bytes()).is_ok(), path.to_str().is_some(), "{path:?}");
            drop(file);
            remove_leftovers_of(folder.path(), &long("c"));
            assert!(path.exists());
            remove_leftovers_of(folder.path(), &name);
            assert!(!path.exists());
        }
    }
}
