//! Reading and writing the files that a user names.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

/// The most bytes of PTX. The longest PTX of a library is some tens of MB.
pub const MOST_PTX: u64 = 256 << 20;

/// The bytes of a regular file of at most `limit` bytes. Anything else may wait or never end.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("{shown}: {error}");
    let found = fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        return Err(format!("{shown}: is no regular file; name one"));
    }
    let too_large = |bytes: u64| format!("{shown}: {bytes} bytes; at most {limit} are read");
    if found.len() > limit {
        return Err(too_large(found.len()));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Writes a file, or to a device; a pipe is refused, since it may have no reader.
pub fn write(path: &Path, contents: &[u8]) -> Result<(), String> {
    let shown = path.display();
    #[cfg(unix)]
    if fs::metadata(path).is_ok_and(|found| std::os::unix::fs::FileTypeExt::is_fifo(&found.file_type())) {
        return Err(format!("{shown}: is a pipe; name a file"));
    }
    File::create(path)
        .and_then(|mut file| file.write_all(contents))
        .map_err(|error| format!("{shown}: {error}"))
}
