//! From a checked archive to the folder of the data set: all of it or nothing.
//!
//! Nothing in the archive decides where something is written: files are written under the names that the [`Archive`] gives,
//! and whatever is not one of them in its folder ends the unpacking, except further plain files there, which are left out.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use tar::EntryType;

use super::archives::{Archive, ArchiveFile};

/// What headers, padding and the end of an archive may take beyond the files, in bytes.
const MOST_OVERHEAD: u64 = 1 << 20;

/// Unpacks the gzipped tar archive in `packed` and returns the folder, which is then in `data_dir`, complete and on disk.
///
/// It grows under another name in `data_dir`; what a killed run left under that name is removed first. The caller sees to it
/// that no other process does the same.
///
/// # Errors
/// For a damaged archive, for entries that have no place in it, for a folder that is in the way, and when something cannot be
/// written; `data_dir` then is as before.
pub fn unpack(packed: &mut File, archive: &Archive, data_dir: &Path) -> Result<PathBuf> {
    let folder = data_dir.join(archive.folder);
    let growing = data_dir.join(format!(".{}.part", archive.folder));
    if growing.exists() {
        fs::remove_dir_all(&growing)
            .with_context(|| format!("{}: left over and cannot be removed", growing.display()))?;
    }
    fs::create_dir(&growing).with_context(|| format!("{}: cannot be made", growing.display()))?;
    let placed = fill(packed, archive, &growing).and_then(|()| {
        fs::rename(&growing, &folder).with_context(|| format!("{}: cannot be placed", folder.display()))
    });
    if placed.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_dir_all(&growing);
    }
    placed?;
    sync(data_dir)?;
    Ok(folder)
}

/// Writes the files of the archive into `folder`, which is empty, and checks that all are there.
fn fill(packed: &mut File, archive: &Archive, folder: &Path) -> Result<()> {
    let unpacked = archive.files.iter().map(|file| file.size.most()).sum::<u64>() + MOST_OVERHEAD;
    let decoder = Bounded { inner: GzDecoder::new(BufReader::new(packed)), left: unpacked };
    let damaged = || format!("{}: is damaged", archive.file_name);
    let mut tar = tar::Archive::new(decoder);
    let mut done = BTreeSet::new();
    for entry in tar.entries().with_context(damaged)? {
        let mut entry = entry.with_context(damaged)?;
        let path = entry.path().with_context(damaged)?.into_owned();
        let Some(file) = expected(archive, &path, entry.header().entry_type())? else {
            continue;
        };
        let (name, size) = (file.name, entry.size());
        ensure!(done.insert(name), "{}: holds {name} twice", archive.file_name);
        ensure!(
            file.size.allows(size),
            "{}: {name} has {size} bytes in it; {} expected",
            archive.file_name,
            file.size.most()
        );
        let target = folder.join(name);
        let unwritable = || format!("{}: cannot be written", target.display());
        let mut written = File::create_new(&target).with_context(unwritable)?;
        copy(&mut entry, size, &mut written).with_context(damaged)?;
        written.sync_all().with_context(unwritable)?;
    }
    // Behind the last entry stands the checksum of gzip.
    io::copy(&mut tar.into_inner(), &mut io::sink()).with_context(damaged)?;
    if let Some(wrong) = archive.first_wrong(folder) {
        bail!("{}: {wrong}", archive.file_name);
    }
    sync(folder)
}

/// The file that an entry is; none for the folder itself and for further plain files in it.
fn expected<'a>(archive: &'a Archive, path: &Path, kind: EntryType) -> Result<Option<&'a ArchiveFile>> {
    let mut parts = path.components().filter(|part| *part != Component::CurDir);
    let in_folder = parts.next() == Some(Component::Normal(archive.folder.as_ref()));
    let refused = || anyhow::anyhow!("{}: {path:?} ({kind:?}) has no place in it", archive.file_name);
    match (in_folder, parts.next(), parts.next(), kind) {
        (true, None, None, EntryType::Directory) => Ok(None),
        (true, Some(Component::Normal(name)), None, EntryType::Regular) => {
            Ok(archive.files.iter().find(|file| name == file.name))
        }
        _ => Err(refused()),
    }
}

fn copy(entry: &mut impl Read, size: u64, file: &mut File) -> io::Result<()> {
    if io::copy(entry, file)? == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn sync(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|opened| opened.sync_all())
        .with_context(|| format!("{}: cannot be flushed to disk", folder.display()))
}

/// A reader that fails where its bound is passed, so that a small archive cannot grow without end.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self
            .left
            .checked_sub(read as u64)
            .ok_or_else(|| io::Error::other("unpacks to more than its files have"))?;
        Ok(read)
    }
}
