//! Writing files so that a reader sees the old content or the new one, never a part.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

use crate::usage;

/// Writes `bytes` to `path` whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// A folder that is missing, is no folder or cannot be written to is a usage error; a failure afterwards (a full disk) is
/// a failed run. Either way a file that was there before stays as it was and no temporary file is left behind.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(usage!("{}: not a file name; name the file to write", path.display()));
    };
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if path.is_dir() {
        return Err(usage!("{}: is a folder; name a file inside it", path.display()));
    }
    match fs::metadata(folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            return Err(usage!(
                "{}: cannot be written, {} is not a folder",
                path.display(),
                folder.display()
            ));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(usage!(
                "{}: cannot be written, its folder {} does not exist; create it first",
                path.display(),
                folder.display()
            ));
        }
        Err(error) => return Err(usage!("{}: cannot be written: {error}", path.display())),
    }

    let (temporary, file) = create_temporary(folder, name).map_err(|error| {
        usage!("{}: the folder {} cannot be written to: {error}", path.display(), folder.display())
    })?;
    let written = fill_and_rename(file, &temporary, path, bytes);
    if written.is_err() {
        // The first error is the one to report; a left-over that cannot be removed either changes nothing about it.
        let _ = fs::remove_file(&temporary);
    }
    written.with_context(|| format!("{}: cannot be written", path.display()))?;
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .with_context(|| format!("{}: its folder cannot be flushed to disk", path.display()))
}

/// Creates a file that is no one else's: hidden, named after the target, this process and a counter.
fn create_temporary(folder: &Path, name: &std::ffi::OsStr) -> std::io::Result<(PathBuf, File)> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    loop {
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{}.tmp", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed)));
        let temporary = folder.join(hidden);
        match OpenOptions::new().write(true).create_new(true).open(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            // Left over by a killed process of the same number: take the next name.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn fill_and_rename(mut file: File, temporary: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    file.write_all(bytes)?;
    file.sync_all()?;
    drop(file);
    fs::rename(temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit_code;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn replaces_the_old_content_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomically(&path, b"old").unwrap();
        write_atomically(&path, b"newer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn what_cannot_be_written_is_a_usage_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("plain"), b"").unwrap();
        for (path, part) in [
            (folder.path().join("missing/a.bin"), "does not exist"),
            (folder.path().join("plain/a.bin"), "cannot be written"),
            (folder.path().to_path_buf(), "is a folder"),
            (folder.path().join(".."), "not a file name"),
        ] {
            let error = write_atomically(&path, b"x").unwrap_err();
            assert_eq!(exit_code(&error), 2, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(names(folder.path()), ["plain"]);
    }

    #[test]
    fn a_bare_file_name_means_the_current_folder() {
        let error = write_atomically(Path::new(""), b"x").unwrap_err();
        assert_eq!(exit_code(&error), 2);
    }
}
