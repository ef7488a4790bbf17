//! Reading files that a user names: only regular files, and never more than a limit.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;

use super::{careful, careful_without_links};
use crate::usage;

/// Opens a regular file (links are followed) for reading; also returns its size in bytes.
///
/// # Errors
/// A usage error that names the file if it is missing, cannot be read, or is a folder, pipe, socket or
/// device. Never waits: such things are refused before they are opened, and one that took the file's place in
/// between is opened without waiting.
pub fn open_regular(path: &Path) -> Result<(File, u64)> {
    let shown = path.display();
    let unreadable = |error| usage!("{shown}: cannot be read: {error}");
    let metadata = fs::metadata(path).map_err(unreadable)?;
    is_regular(path, &metadata)?;
    let file = OpenOptions::new().read(true).custom_flags(careful()).open(path).map_err(unreadable)?;
    let opened = file.metadata().map_err(unreadable)?;
    is_regular(path, &opened)?;
    Ok((file, opened.len()))
}

/// Opens a regular file for reading, if the last part of `path` is not a link; never waits.
///
/// # Errors
/// If it cannot be opened, is a link, or is not a regular file.
pub fn open_for_reading_without_links(path: &Path) -> io::Result<File> {
    let refused = || io::Error::other("is not a regular file");
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(refused());
    }
    let file = OpenOptions::new().read(true).custom_flags(careful_without_links()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(refused()) }
}

fn is_regular(path: &Path, metadata: &Metadata) -> Result<()> {
    let shown = path.display();
    if metadata.is_dir() {
        Err(usage!("{shown}: is a folder; name a file"))
    } else if !metadata.is_file() {
        Err(usage!("{shown}: is a pipe, socket or device; name a regular file"))
    } else {
        Ok(())
    }
}

/// The bytes of a regular file of at most `limit` bytes.
///
/// # Errors
/// A usage error as for [`open_regular`], and for a larger file, of which nothing is read.
pub fn read_whole(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, size) = open_regular(path)?;
    let too_large = |size: u64| {
        usage!("{}: {size} bytes; at most {limit} are expected here, so name another file", path.display())
    };
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    // Reading one byte beyond the limit detects a file that has grown in the meantime.
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| usage!("{}: cannot be read: {error}", path.display()))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit_code;

    #[test]
    fn reads_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, b"12345").unwrap();
        assert_eq!(read_whole(&path, 5).unwrap(), b"12345");
        let error = read_whole(&path, 4).unwrap_err();
        assert!(error.to_string().contains("5 bytes; at most 4"), "{error}");
        assert_eq!(exit_code(&error), 2);
    }

    #[test]
    fn what_is_no_regular_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        for (path, part) in [
            (folder.path().join("missing"), "cannot be read"),
            (folder.path().to_path_buf(), "is a folder"),
            (Path::new("/dev/zero").to_path_buf(), "device"),
            (pipe, "is a pipe"),
        ] {
            let error = read_whole(&path, 1 << 20).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(exit_code(&error), 2);
        }
    }
}
