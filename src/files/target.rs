//! Where a path to write to leads: links are followed, and files are distinguished from pipes, devices and
//! folders.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::write::unwritable;
use crate::usage;

/// Where the bytes for a path go.
#[derive(Debug)]
pub(super) enum WriteTarget {
    /// A regular file, or the place where one will be created; never a link.
    File { path: PathBuf, is_there: bool },
    /// A pipe, a character device, or the open file of another descriptor: written to as it is.
    Stream(PathBuf),
    /// This process's standard output.
    Output,
    /// This process's standard error.
    Errors,
}

/// After this many links a path counts as a loop, as in Linux.
const MOST_LINKS: usize = 40;

/// Follows `path` to its target.
///
/// # Errors
/// A usage error if the path cannot be a file: a folder, a block device, a socket, a loop of links, or in a
/// missing folder.
pub(super) fn resolve(path: &Path) -> Result<WriteTarget> {
    let mut at = path.to_path_buf();
    for _ in 0..=MOST_LINKS {
        if !ends_in_a_name(&at) {
            return Err(not_a_file_name(path));
        }
        let found = match fs::symlink_metadata(&at) {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return absent(path, at),
            Err(error) => return Err(unwritable(path, error)),
        };
        if !found.is_symlink() {
            return what_is_there(path, at, &found);
        }
        if let Some(target) = descriptor(path, &at)? {
            return Ok(target);
        }
        let to = fs::read_link(&at).map_err(|error| unwritable(path, error))?;
        at = folder_of(&at).join(to);
    }
    Err(usage!("{}: cannot be written: its symbolic links form a loop; name a file", path.display()))
}

/// Whether a path to write to is, or will be, a file. Unlike a pipe or device, a file can be written again
/// and again.
///
/// # Errors
/// As [`write_atomically`](super::write_atomically) for a path that cannot be a file.
pub fn is_file(path: &Path) -> Result<bool> {
    Ok(matches!(resolve(path)?, WriteTarget::File { .. }))
}

/// The folder that contains a path's last part.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Whether the last part is the name of a file. `Path::file_name` ignores a final `/` and `/.`, which mean a
/// folder.
fn ends_in_a_name(path: &Path) -> bool {
    let last = path.as_os_str().as_bytes().rsplit(|&byte| byte == b'/').next();
    !matches!(last, None | Some(b"" | b"." | b".."))
}

fn not_a_file_name(path: &Path) -> anyhow::Error {
    let shown = path.display();
    if path.as_os_str().is_empty() {
        usage!("an empty path: not a file name; name the file to write")
    } else if path.is_dir() {
        usage!("{shown}: is a folder; name a file inside it")
    } else {
        usage!("{shown}: not a file name; name the file to write")
    }
}

/// A file that will be created at `at`, where the links of `path` lead.
fn absent(path: &Path, at: PathBuf) -> Result<WriteTarget> {
    let (shown, folder) = (path.display(), folder_of(&at));
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => Ok(WriteTarget::File { path: at, is_there: false }),
        Ok(_) => Err(usage!("{shown}: cannot be written, {} is not a folder", folder.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(usage!(
            "{shown}: cannot be written, its folder {} does not exist; create it first",
            folder.display()
        )),
        Err(error) => Err(unwritable(path, error)),
    }
}

fn what_is_there(path: &Path, at: PathBuf, found: &Metadata) -> Result<WriteTarget> {
    let (shown, kind) = (path.display(), found.file_type());
    if kind.is_file() {
        Ok(WriteTarget::File { path: at, is_there: true })
    } else if kind.is_dir() {
        Err(usage!("{shown}: is a folder; name a file inside it"))
    } else if kind.is_fifo() || kind.is_char_device() {
        Ok(WriteTarget::Stream(at))
    } else {
        let what = if kind.is_socket() { "a socket" } else { "a block device" };
        Err(usage!("{shown}: is {what}, which is not written to; name a file"))
    }
}

/// The target of a link `at` in `/proc/PID/fd`, which leads to the open file whatever its text says
/// (`/dev/stdout` and `/dev/fd/N` are such links). `None` for any other link.
fn descriptor(path: &Path, at: &Path) -> Result<Option<WriteTarget>> {
    let failed = |error: io::Error| unwritable(path, error);
    let folder = fs::canonicalize(folder_of(at)).map_err(failed)?;
    let parts: Vec<&OsStr> = folder.iter().collect();
    let number = at.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<u32>().ok());
    let (["/", "proc", process, .., "fd"], Some(number)) =
        (&parts.iter().map(|part| part.to_str().unwrap_or_default()).collect::<Vec<_>>()[..], number)
    else {
        return Ok(None);
    };
    let is_own = fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == *process);
    match number {
        0 if is_own => Err(usage!("{}: is standard input; name a file", path.display())),
        1 if is_own => Ok(Some(WriteTarget::Output)),
        2 if is_own => Ok(Some(WriteTarget::Errors)),
        _ => {
            let found = fs::metadata(at).map_err(failed)?;
            match what_is_there(path, at.to_path_buf(), &found)? {
                // Bytes written to this descriptor earlier must stay, so it is not replaced as a file would
                // be.
                WriteTarget::File { path, .. } => Ok(Some(WriteTarget::Stream(path))),
                other => Ok(Some(other)),
            }
        }
    }
}
