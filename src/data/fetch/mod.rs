//! Downloads of the official archives, which are checked against their known length and SHA-256 and unpacked
//! whole or not at all.
//!
//! In the folder for data, a download is written to `<archive>.part`, which a later call continues, and
//! unpacked to `.<folder>.part`, which one rename makes the folder.

mod part_file;
mod transfer;
mod unpack;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use crate::data::archive::{Archive, Presence};
use crate::data::progress::{self, Unit};
use crate::files::open_regular;
use crate::usage;
use part_file::{PartFile, sha256};
use transfer::{Transfer, source_url};

pub use transfer::Patience;

/// The settings of a download.
#[derive(Clone, Debug, Default)]
pub struct FetchSettings {
    /// A URL to use instead of the official one: that of the archive, or of a folder that holds it under its
    /// official name.
    pub mirror: Option<String>,
    /// Whether the archive stays beside the unpacked folder.
    pub keep_archive: bool,
    /// How long to wait for the server, and how often to retry.
    pub patience: Patience,
}

/// The result of a call, with the folder of the data set.
#[derive(Debug, PartialEq)]
pub enum Fetched {
    /// The folder existed and was complete; nothing was done.
    AlreadyThere(PathBuf),
    /// The archive was in the folder for data and was unpacked, without network access.
    FromFile(PathBuf),
    /// The archive was downloaded and unpacked.
    Downloaded(PathBuf),
}

/// Makes sure that `data_dir` holds the complete folder of `archive`.
///
/// If the archive is already in `data_dir`, it is used instead of a download. Blocks as long as bytes arrive.
///
/// # Errors
/// A usage error for a bad mirror, a folder that cannot be used or holds only part of the data set, or an
/// archive in it with another checksum. A failed run if the download fails or is not the archive; the message
/// says what is kept for the next call.
pub fn fetch(archive: &Archive, data_dir: &Path, settings: &FetchSettings) -> Result<Fetched> {
    let url = source_url(archive, settings.mirror.as_deref())?;
    if let Some(folder) = there(archive, data_dir)? {
        return Ok(Fetched::AlreadyThere(folder));
    }
    let made = make_folder(data_dir)?;
    let mut part = PartFile::open(&data_dir.join(format!("{}.part", archive.file_name)))?;
    // Before this process got the lock, another one may have finished the download.
    if let Some(folder) = there(archive, data_dir)? {
        part.remove()?;
        return Ok(Fetched::AlreadyThere(folder));
    }
    let own = data_dir.join(archive.file_name);
    if fs::symlink_metadata(&own).is_ok() {
        let folder = unpack_own(archive, &own, data_dir);
        if folder.is_ok() || part.is_empty() {
            part.remove()?;
        }
        return folder.map(Fetched::FromFile);
    }
    match download(archive, &url, data_dir, &mut part, &settings.patience) {
        Ok(folder) => {
            if settings.keep_archive {
                fs::rename(part.path(), &own)
                    .with_context(|| format!("{}: cannot be kept", own.display()))?;
            } else {
                part.remove()?;
            }
            Ok(Fetched::Downloaded(folder))
        }
        Err(error) if part.is_empty() => {
            // Nothing is worth keeping; if the removal fails too, the first error is reported.
            let _ = part.remove();
            made.iter().for_each(|folder| drop(fs::remove_dir(folder)));
            Err(error)
        }
        Err(error) => Err(anyhow!(
            "{error:#}; {} of {} bytes are kept in {}, and the same command goes on from there",
            part.len(),
            archive.bytes,
            part.path().display()
        )),
    }
}

/// The folder of the archive, if it exists; an error if it is incomplete.
fn there(archive: &Archive, data_dir: &Path) -> Result<Option<PathBuf>> {
    match archive.presence(data_dir) {
        Presence::Complete(folder) => Ok(Some(folder)),
        Presence::Missing => Ok(None),
        // The user's own folder is never replaced.
        Presence::Incomplete { folder, wrong } => {
            Err(usage!("{}: {wrong}; move it away or name another --data-dir", folder.display()))
        }
    }
}

/// Creates `folder` and its missing ancestors; returns the created folders, the deepest first.
fn make_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let above = folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
    let made = above.map(Path::to_path_buf).collect();
    fs::create_dir_all(folder)
        .map_err(|error| usage!("--data-dir {}: cannot be created: {error}", folder.display()))?;
    Ok(made)
}

/// Unpacks the archive that the user put, or an earlier call kept, in the folder for data.
fn unpack_own(archive: &Archive, own: &Path, data_dir: &Path) -> Result<PathBuf> {
    let unreadable = |error| usage!("{}: cannot be read: {error}; move it away", own.display());
    let (mut file, _) = open_regular(own)?;
    let found = sha256(&mut file).map_err(unreadable)?;
    if found != archive.sha256 {
        return Err(usage!(
            "{}: its SHA-256 is {found}, but that of {} is {}; move it away to download the right one",
            own.display(),
            archive.file_name,
            archive.sha256
        ));
    }
    unpack::unpack(&mut file, archive, data_dir)
}

fn download(
    archive: &Archive,
    url: &str,
    data_dir: &Path,
    part: &mut PartFile,
    patience: &Patience,
) -> Result<PathBuf> {
    let progress = progress::begin(archive.file_name, archive.bytes, Unit::Bytes);
    loop {
        let resumed = !part.is_empty();
        Transfer { archive, url, part, patience, progress: &*progress }.run()?;
        let found =
            sha256(part.file()).with_context(|| format!("{}: cannot be read", part.path().display()))?;
        if found == archive.sha256 {
            progress.set_what(&format!("unpacking {}", archive.file_name));
            return unpack::unpack(part.file(), archive, data_dir);
        }
        part.clear()?;
        // Bytes kept by an earlier run may belong to another file, so only a download of this run alone is
        // final.
        if !resumed {
            bail!(
                "{url}: its SHA-256 is {found}, but that of {} is {}; it was thrown away, and another --mirror may have it",
                archive.file_name,
                archive.sha256
            );
        }
        progress
            .line(&format!("{}: wrong checksum; starting again from the beginning", part.path().display()));
    }
}
