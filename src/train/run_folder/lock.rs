//! A run's folder belongs to one process at a time.
//!
//! The folder itself is locked, which holds whatever happens to the files in it, and the file `lock` in it, for network file
//! systems that lock files across machines but folders not at all. Both locks die with the process. Where a file system has
//! no locks, the file `owner` names the process instead.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::files::{Lock, LockError, read_whole, unwritable};
use crate::text::printable;
use crate::usage;

/// What holds a folder.
#[derive(Debug)]
pub struct RunLock {
    folder: Option<Lock>,
    file: Option<Lock>,
    owner: Option<Owner>,
}

/// Whether a process is running in the folder of a run. Makes nothing.
pub fn is_running(folder: &Path) -> bool {
    Lock::is_held(folder)
        || Lock::is_held(&folder.join("lock"))
        || owner_in(&folder.join("owner")).is_some_and(|owner| is_alive(&owner) != Some(false))
}

impl RunLock {
    /// Takes the folder. Also returns a line for the log where the file system has no locks.
    ///
    /// # Errors
    /// A usage error where another process runs in it, or what lies there is not what this program makes.
    pub fn take(path: &Path) -> Result<(Self, Option<String>)> {
        let file = path.join("lock");
        let folder = attempt(path, path, Lock::take_folder)?;
        let file = match attempt(path, &file, Lock::take) {
            // Another user's file is no hindrance where the folder itself is locked.
            Err(_) if folder.is_some() && !Lock::is_held(&file) => None,
            taken => taken?,
        };
        if folder.is_some() || file.is_some() {
            return Ok((Self { folder, file, owner: None }, None));
        }
        let owner = Owner::take(path)?;
        let warning = "this file system has no locks: the file 'owner' in the run's folder says which process it belongs to";
        Ok((Self { folder, file, owner: Some(owner) }, Some(warning.into())))
    }

    /// Whether the folder is still where it was, and still this process's.
    pub fn holds(&self) -> bool {
        match (&self.folder, &self.file, &self.owner) {
            (Some(folder), ..) => folder.still_holds(),
            (None, Some(file), _) => file.still_holds(),
            (None, None, Some(owner)) => owner.still_holds(),
            (None, None, None) => false,
        }
    }
}

/// `None` where the file system has no locks.
fn attempt(
    folder: &Path,
    path: &Path,
    take: impl Fn(&Path) -> Result<Lock, LockError>,
) -> Result<Option<Lock>> {
    let shown = printable(&folder.display().to_string());
    for wait in [10, 40, 150, 0] {
        match take(path) {
            Ok(lock) => return Ok(Some(lock)),
            // `records table` looks whether a run is held by holding it for a moment.
            Err(LockError::Held) if wait > 0 => std::thread::sleep(Duration::from_millis(wait)),
            Err(LockError::Held) => break,
            Err(LockError::Unsupported(_)) => return Ok(None),
            Err(LockError::Foreign(what)) => {
                return Err(usage!("{}: {what}; move it away", printable(&path.display().to_string())));
            }
            Err(LockError::Io(error)) => return Err(unwritable(path, error)),
        }
    }
    Err(usage!("{shown}: another process is running in this folder; wait for it or choose another --name"))
}

/// The file `owner`: the process that a folder belongs to, where there are no locks.
#[derive(Debug)]
struct Owner {
    path: PathBuf,
    /// Host, boot, process and its start, blank-separated.
    text: String,
}

/// What /proc says; the word `unknown` where there is none.
fn of_system(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().next().unwrap_or("unknown").to_string()
}

/// When a process began, in the kernel's ticks; `None` if there is none of that number.
fn start_of(process: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may hold anything; the start is the twentieth word after it.
    text.rsplit_once(')')?.1.split_whitespace().nth(19).map(String::from)
}

fn this_host() -> [String; 2] {
    ["/proc/sys/kernel/hostname", "/proc/sys/kernel/random/boot_id"].map(of_system)
}

/// What an `owner` file says; `None` where there is none.
fn owner_in(path: &Path) -> Option<String> {
    String::from_utf8(read_whole(path, 4096).ok()?).ok()
}

/// Whether the process that an `owner` file names still runs; `None` where that cannot be known.
fn is_alive(owner: &str) -> Option<bool> {
    let words: Vec<&str> = owner.split_whitespace().collect();
    let [host, boot, process, start] = words[..] else {
        // Cut short by a kill.
        return Some(false);
    };
    let [this_host, this_boot] = this_host();
    if host != this_host {
        return None;
    }
    Some(boot == this_boot && start_of(process).is_some_and(|begun| begun == start))
}

impl Owner {
    /// Takes the folder: where another process has it that still runs, or of which that cannot be known, it is refused.
    fn take(folder: &Path) -> Result<Self> {
        let path = folder.join("owner");
        let [host, boot] = this_host();
        let process = std::process::id().to_string();
        let start = start_of(&process).unwrap_or_else(|| "unknown".into());
        let ours = Self { path, text: format!("{host} {boot} {process} {start}\n") };
        for _ in 0..100 {
            match OpenOptions::new().write(true).create_new(true).open(&ours.path) {
                Ok(mut file) => {
                    file.write_all(ours.text.as_bytes()).map_err(|error| unwritable(&ours.path, error))?;
                    return Ok(ours);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => ours.remove_stale()?,
                Err(error) => return Err(unwritable(&ours.path, error)),
            }
        }
        Err(usage!("{}: cannot be taken over; remove it", ours.path.display()))
    }

    /// Removes the file of a process that has ended.
    fn remove_stale(&self) -> Result<()> {
        let shown = printable(&self.path.display().to_string());
        let Some(other) = owner_in(&self.path) else { return Ok(()) };
        match is_alive(&other) {
            Some(false) => fs::remove_file(&self.path).map_err(|error| unwritable(&self.path, error)),
            Some(true) => Err(usage!(
                "{shown}: another process is running in this folder ({}); wait for it or choose another --name",
                printable(other.trim())
            )),
            None => Err(usage!(
                "{shown}: the folder belongs to a process of another machine ({}); if that has ended, remove the file",
                printable(other.trim())
            )),
        }
    }

    fn still_holds(&self) -> bool {
        owner_in(&self.path).is_some_and(|found| found == self.text)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.still_holds() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_process_even_when_the_lock_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let (lock, warning) = RunLock::take(folder.path()).unwrap();
        assert!(lock.holds() && warning.is_none() && is_running(folder.path()));
        fs::remove_file(folder.path().join("lock")).unwrap();
        let error = RunLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        let moved = folder.path().with_extension("moved");
        fs::rename(folder.path(), &moved).unwrap();
        assert!(!lock.holds());
        fs::create_dir(folder.path()).unwrap();
        assert!(!lock.holds(), "a folder made in its place is another");
        drop(lock);
        assert!(!is_running(&moved));
        fs::remove_dir_all(moved).unwrap();
    }

    #[test]
    fn the_owner_file_tells_processes_that_run_from_those_that_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("owner");
        let ours = Owner::take(folder.path()).unwrap();
        assert!(ours.still_holds() && is_running(folder.path()));
        let error = Owner::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another process is running"), "{error}");
        let text = ours.text.clone();
        drop(ours);
        assert!(!path.exists(), "it goes with the process");

        let words: Vec<&str> = text.split_whitespace().collect();
        let [host, boot, process, start] = words[..] else { panic!("{text}") };
        for stale in [
            format!("{host} {boot} {process} 1\n"),
            format!("{host} another-boot {process} {start}\n"),
            format!("{host} {boot} 999999999 {start}\n"),
            String::new(),
        ] {
            fs::write(&path, &stale).unwrap();
            assert!(Owner::take(folder.path()).unwrap().still_holds(), "{stale}");
        }
        fs::write(&path, format!("{host}-2 {boot} {process} {start}\n")).unwrap();
        let error = Owner::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another machine") && error.contains("remove"), "{error}");
    }
}
