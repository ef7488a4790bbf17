//! Files that this program keeps for itself and trusts later, such as compiled kernels: folder and file must
//! belong to this user and be closed to others' writing, and neither may be a link.

use std::fs::{self, DirBuilder, Metadata};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use anyhow::Result;
use rustix::process::geteuid;

use crate::files::{open_for_reading_without_links, write_private};
use crate::usage;

/// Why a folder that is there is not one to take code from; `None` also where it is not there yet.
pub(super) fn distrust(folder: &Path) -> Option<String> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_symlink() => Some("is a symbolic link".into()),
        Ok(found) if !found.is_dir() => Some("is not a folder".into()),
        Ok(found) => foreign(&found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => Some(format!("cannot be looked at ({error})")),
    }
}

/// Why somebody else may have made or changed it.
fn foreign(found: &Metadata) -> Option<String> {
    if found.uid() != geteuid().as_raw() {
        Some(format!("belongs to another user (uid {})", found.uid()))
    } else if found.mode() & 0o022 != 0 {
        Some(format!("others may write to it (mode {:o}; chmod go-w)", found.mode() & 0o7777))
    } else {
        None
    }
}

/// Writes a file that [`trusted`] reads, whole or not at all; makes its folder.
///
/// # Errors
/// A message naming the file or the folder that cannot be written.
pub(super) fn keep(path: &Path, bytes: &[u8]) -> Result<()> {
    make_folder(path)?;
    write_private(path, bytes)
}

/// Makes the folder of such a file.
///
/// # Errors
/// A message naming it.
pub(super) fn make_folder(path: &Path) -> Result<()> {
    let Some(folder) = path.parent() else { return Ok(()) };
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| usage!("{}: the folder cannot be made: {error}", folder.display()))
}

/// The bytes of a file of at most `most` that nobody else can have written; `None` where there is none.
///
/// # Errors
/// Why it is not one to read.
pub(super) fn trusted(path: &Path, most: u64) -> std::result::Result<Option<Vec<u8>>, String> {
    if let Some(reason) = path.parent().and_then(distrust) {
        return Err(format!("its folder: {reason}"));
    }
    let file = match open_for_reading_without_links(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(|error| error.to_string())?,
    };
    let found = file.metadata().map_err(|error| error.to_string())?;
    if let Some(reason) = foreign(&found) {
        return Err(reason);
    }
    if found.nlink() != 1 {
        return Err("has a second name (a hard link)".into());
    }
    if found.len() > most {
        return Err(format!("has {} bytes, more than {most}", found.len()));
    }
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    Ok(Some(bytes))
}
