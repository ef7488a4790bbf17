//! Files that the program makes for itself and finds again, in folders that others may write to. It follows
//! no link and uses no file of another user.

use std::fmt;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::process::geteuid;

use super::careful_without_links;
use super::target::folder_of;

/// Why a file is not used.
#[derive(Debug)]
pub enum NotOwn {
    /// It exists, but is not a file that this program made; says what it is, as in "is a symbolic link".
    Foreign(String),
    /// It cannot be opened or created.
    Io(io::Error),
}

impl fmt::Display for NotOwn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotOwn::Foreign(what) => f.write_str(what),
            NotOwn::Io(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NotOwn {}

impl From<io::Error> for NotOwn {
    fn from(error: io::Error) -> Self {
        NotOwn::Io(error)
    }
}

/// Opens a file for reading and writing, creating it if it does not exist; its contents stay.
///
/// It must be a regular file with a single name, and belong to this user or to the owner of its folder (who
/// could replace it anyway). If only the owner may write to the folder, the same must hold for the file.
///
/// # Errors
/// What the file is instead, or why it cannot be opened. Never waits.
pub fn open_own(path: &Path) -> Result<File, NotOwn> {
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o644).open(path);
    match made {
        Ok(file) => return Ok(file),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error.into()),
    }
    // Checked before it is opened, since opening some devices has effects, and after, since it may have been
    // replaced.
    is_plain(&fs::symlink_metadata(path)?)?;
    let file = OpenOptions::new().read(true).write(true).custom_flags(careful_without_links()).open(path)?;
    let found = file.metadata()?;
    is_plain(&found)?;
    let folder = fs::metadata(folder_of(path))?;
    if found.uid() != geteuid().as_raw() && found.uid() != folder.uid() {
        return Err(NotOwn::Foreign(format!("belongs to another user (uid {})", found.uid())));
    }
    if strangers_may_write(&found) && !strangers_may_write(&folder) {
        return Err(NotOwn::Foreign(format!("can be written by others (mode {:o})", found.mode() & 0o7777)));
    }
    Ok(file)
}

/// Whether others than the owner may write to a file, or add files to a folder and remove those of others.
fn strangers_may_write(metadata: &Metadata) -> bool {
    let is_sticky_folder = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    metadata.mode() & 0o022 != 0 && !is_sticky_folder
}

fn is_plain(found: &Metadata) -> Result<(), NotOwn> {
    let foreign = |what: &str| Err(NotOwn::Foreign(what.into()));
    if found.is_symlink() {
        foreign("is a symbolic link")
    } else if found.is_dir() {
        foreign("is a folder")
    } else if !found.is_file() {
        foreign("is a pipe, socket or device")
    } else if found.nlink() > 1 {
        foreign("is the same file as another (a hard link)")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown};

    use super::*;

    #[test]
    fn what_others_can_write_or_own_is_refused_in_a_folder_that_they_cannot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        open_own(&path).unwrap();
        open_own(&path).unwrap();
        mode(&path, 0o666);
        let error = open_own(&path).unwrap_err().to_string();
        assert!(error.contains("mode 666"), "{error}");
        mode(folder.path(), 0o777);
        open_own(&path).unwrap();
        mode(folder.path(), 0o1777);
        assert!(open_own(&path).is_err());
        mode(&path, 0o644);
        if geteuid().is_root() {
            chown(&path, Some(12345), None).unwrap();
            let error = open_own(&path).unwrap_err().to_string();
            assert!(error.contains("another user (uid 12345)"), "{error}");
            chown(folder.path(), Some(12345), None).unwrap();
            open_own(&path).unwrap();
        }
    }
}
