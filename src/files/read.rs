//! Reading files that a user names: only regular files, and never more of one than is asked for.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::Result;

use super::{careful, careful_without_links};
use crate::usage;

/// Opens a regular file (links are followed) for reading and tells its size in bytes.
///
/// # Errors
/// A usage error naming the file where it is missing, cannot be read, or is a folder, pipe, socket or device. Never waits: what
/// is no file is refused before it is opened, and what became none in between is opened without waiting and refused then.
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

/// Opens a regular file for reading where the last part of `path` is no link; never waits.
///
/// # Errors
/// When it cannot be opened, or is a link or no regular file.
pub fn open_for_reading_without_links(path: &Path) -> io::Result<File> {
    let refused = || io::Error::other("is no regular file");
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
/// A usage error as [`open_regular`], and for a larger file, of which nothing is read.
pub fn read_whole(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, size) = open_regular(path)?;
    let too_large = |size: u64| {
        usage!(
            "{}: {size} bytes; at most {limit} are read, so it is not what it is taken for",
            path.display()
        )
    };
    if size > limit {
        return Err(too_large(size));
    }
    let mut bytes = Vec::new();
    // One byte more than the limit tells a file that grew meanwhile.
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
