//! Unpacking a checked archive into the folder of the data set: whole or not at all.
//!
//! The archive has no say in where files are written: they get the names in [`Archive`]. Further plain files
//! in the archive's folder are skipped; any other entry ends the unpacking.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use tar::EntryType;

use crate::data::archive::{Archive, ArchiveFile};
use crate::text::hex;
use crate::usage;

/// The most bytes of an archive beyond the files: headers, padding and end.
const MOST_OVERHEAD: u64 = 1 << 20;

/// Unpacks the gzipped tar archive in `packed` and returns the folder in `data_dir`, complete and flushed to
/// disk.
///
/// Until it is complete it has another name in `data_dir`; what a killed run left under that name is removed
/// first. The caller makes sure that no other process does the same.
///
/// # Errors
/// If the archive is damaged or has unexpected entries, if a folder is in the way, or if a file cannot be
/// written; `data_dir` then is as before.
pub fn unpack(packed: &mut File, archive: &Archive, data_dir: &Path) -> Result<PathBuf> {
    let folder = data_dir.join(archive.folder);
    let growing = data_dir.join(format!(".{}.part", archive.folder));
    remove_left_over(&growing)?;
    fs::create_dir(&growing).with_context(|| format!("{}: cannot be created", growing.display()))?;
    let placed = fill(packed, archive, &growing).and_then(|()| {
        fs::rename(&growing, &folder).with_context(|| format!("{}: cannot be put in place", folder.display()))
    });
    if placed.is_err() {
        // The first error is reported.
        let _ = fs::remove_dir_all(&growing);
    }
    placed?;
    sync(data_dir)?;
    Ok(folder)
}

/// Removes the folder into which a killed run was unpacking; anything else with its name is left alone.
fn remove_left_over(growing: &Path) -> Result<()> {
    let shown = growing.display();
    match fs::symlink_metadata(growing) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(found) if found.is_dir() => {
            fs::remove_dir_all(growing).with_context(|| format!("{shown}: left over and cannot be removed"))
        }
        Ok(found) => {
            let what = if found.is_symlink() { "a symbolic link" } else { "not a folder" };
            Err(usage!("{shown}: is {what}, and a folder must be created there; move it away"))
        }
        Err(error) => Err(usage!("{shown}: cannot be examined: {error}")),
    }
}

/// Writes the files of the archive into the empty `folder`, and checks that none is missing.
fn fill(packed: &mut File, archive: &Archive, folder: &Path) -> Result<()> {
    let unpacked = archive.files.iter().map(|file| file.size.most()).sum::<u64>() + MOST_OVERHEAD;
    let mut hashed = Hashed { inner: packed, context: Sha256::new() };
    let decoder = Bounded { inner: GzDecoder::new(BufReader::new(&mut hashed)), left: unpacked };
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
    // After the last entry comes gzip's checksum.
    io::copy(&mut tar.into_inner(), &mut io::sink()).with_context(damaged)?;
    io::copy(&mut hashed, &mut io::sink()).with_context(damaged)?;
    // The checksum was right before, but others may have changed the file since.
    ensure!(
        hex(&hashed.context.finalize()) == archive.sha256,
        "{}: was changed while it was unpacked",
        archive.file_name
    );
    if let Some(wrong) = archive.first_wrong(folder) {
        bail!("{}: {wrong}", archive.file_name);
    }
    sync(folder)
}

/// The known file that an entry is; none for the folder itself and for further plain files in it.
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

/// A reader that computes the SHA-256 of the bytes read.
struct Hashed<R> {
    inner: R,
    context: Sha256,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.context.update(&buffer[..read]);
        Ok(read)
    }
}

/// A reader that fails beyond its limit, so that a small archive cannot expand without end.
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

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;
    use crate::data::archive::FileSize;

    /// The checksum was right, but the file changed before it was unpacked.
    #[test]
    fn a_file_that_changed_since_it_was_checked_is_refused() {
        let mut tape = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        tape.append_data(&mut header, "f/a", &b"abc"[..]).unwrap();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&tape.into_inner().unwrap()).unwrap();
        let mut packed = tempfile::tempfile().unwrap();
        packed.write_all(&encoder.finish().unwrap()).unwrap();
        let right = super::super::part_file::sha256(&mut packed).unwrap();
        let archive = |sha256: String| Archive {
            word: "f",
            title: "F",
            file_name: "f.tar.gz",
            url: "",
            bytes: 0,
            sha256: sha256.leak(),
            folder: "f",
            files: &[ArchiveFile { name: "a", size: FileSize::Exactly(3) }],
        };
        let data = tempfile::tempdir().unwrap();
        let error = unpack(&mut packed, &archive(right.replace(['0', '1'], "2")), data.path()).unwrap_err();
        assert!(error.to_string().contains("f.tar.gz: was changed"), "{error}");
        assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
        packed.rewind().unwrap();
        unpack(&mut packed, &archive(right), data.path()).unwrap();
        assert_eq!(fs::read(data.path().join("f/a")).unwrap(), b"abc");
    }
}
