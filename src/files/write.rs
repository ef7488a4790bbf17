//! Writing files so that a reader sees the old or the new contents, never a part.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::target::{WriteTarget, folder_of, resolve};
use super::{careful, careful_without_links, temporary};
use crate::usage;

/// How long to wait for the reader of a pipe.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes `bytes` to `path` whole or not at all: a temporary file in the same folder, fsync, rename, fsync of
/// the folder.
///
/// Symbolic links stay, and their target is written, or created if it does not exist. A new file has the
/// permissions that the umask leaves; a replaced file keeps its permissions and, where the system allows it,
/// its owner and group. Its other names (hard links) keep the old contents. A pipe with a reader, a character
/// device and `/dev/fd/N` are written to as they are, without the guarantee. Temporary files that a killed
/// process left of the same file are removed.
///
/// # Errors
/// A usage error, with nothing written, if the folder is missing, is not a folder or is not writable; if the
/// file is read-only; or if `path` is a folder, socket, block device, pipe without reader or loop of links. A
/// failure of the machine (a full disk) is a failed run. In any case an existing file stays as it was and no
/// temporary file is left behind.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = || format!("{}: cannot be written", path.display());
    match resolve(path)? {
        WriteTarget::File { path: file, is_there } => replace(path, &file, is_there, bytes),
        WriteTarget::Stream(stream) => write_to_stream(path, &stream, bytes),
        WriteTarget::Output => {
            let mut output = io::stdout().lock();
            output.write_all(bytes).and_then(|()| output.flush()).with_context(cannot)
        }
        WriteTarget::Errors => io::stderr().lock().write_all(bytes).with_context(cannot),
    }
}

/// Gives a whole file a second name in the same folder, under which nothing is yet, and flushes the folder.
///
/// # Errors
/// Where the file system has no such links, or the name is taken.
pub fn link_whole(file: &Path, name: &Path) -> io::Result<()> {
    fs::hard_link(file, name)?;
    sync_folder(folder_of(name))
}

/// The error for a path that cannot be written: a failed run if the machine is at fault (no room, too many
/// open files, a broken disk), else a usage error.
pub fn unwritable(path: &Path, error: io::Error) -> anyhow::Error {
    refusal(format!("{}: cannot be written", path.display()), error)
}

fn refusal(what: String, error: io::Error) -> anyhow::Error {
    use rustix::io::Errno;
    const MACHINE: [Errno; 8] = [
        Errno::NOSPC,
        Errno::DQUOT,
        Errno::FBIG,
        Errno::IO,
        Errno::MFILE,
        Errno::NFILE,
        Errno::NOMEM,
        Errno::STALE,
    ];
    if Errno::from_io_error(&error).is_some_and(|number| MACHINE.contains(&number)) {
        return anyhow!(error).context(what);
    }
    usage!("{what}: {error}")
}

/// Replaces `file`, where the links of `path` lead, by `bytes`.
fn replace(path: &Path, file: &Path, is_there: bool, bytes: &[u8]) -> Result<()> {
    let folder = folder_of(file);
    let Some(name) = file.file_name() else {
        return Err(usage!("{}: not a file name; name the file to write", path.display()));
    };
    let replaced = if is_there { Some(writable_file(path, file)?) } else { None };
    // If others may not read the old file, they may not read the new one while it is written either.
    let mode = if replaced.is_some() { 0o600 } else { 0o666 };
    place(path, folder, name, mode, replaced.as_ref(), bytes)
}

/// Writes `bytes` to `path` whole or not at all, readable by this user only; whatever is at `path`, also a
/// link, is replaced.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    let Some(name) = path.file_name() else {
        return Err(usage!("{}: not a file name; name the file to write", path.display()));
    };
    place(path, folder_of(path), name, 0o600, None, bytes)
}

/// Puts a new file with these permissions into `folder` as `name`; messages name `path`.
fn place(
    path: &Path,
    folder: &Path,
    name: &OsStr,
    mode: u32,
    replaced: Option<&Metadata>,
    bytes: &[u8],
) -> Result<()> {
    temporary::remove_leftovers_of(folder, name);
    let (growing, mut opened) = temporary::create(folder, name, mode).map_err(|error| {
        refusal(format!("{}: the folder {} cannot be written to", path.display(), folder.display()), error)
    })?;
    let written = fill(&mut opened, replaced, bytes).and_then(|()| fs::rename(&growing, folder.join(name)));
    if written.is_err() {
        // The first error is reported, whether or not the temporary file can be removed.
        let _ = fs::remove_file(&growing);
    }
    written.with_context(|| format!("{}: cannot be written", path.display()))?;
    sync_folder(folder).with_context(|| format!("{}: its folder cannot be flushed to disk", path.display()))
}

/// The metadata of an existing file, if it is writable: a read-only file is not replaced, although a rename
/// would succeed.
fn writable_file(path: &Path, file: &Path) -> Result<Metadata> {
    let opened = OpenOptions::new().write(true).custom_flags(careful_without_links()).open(file);
    let metadata = opened.and_then(|opened| opened.metadata()).map_err(|error| unwritable(path, error))?;
    if metadata.is_file() {
        Ok(metadata)
    } else {
        Err(usage!("{}: cannot be written: another process replaces it just now", path.display()))
    }
}

fn fill(file: &mut File, replaced: Option<&Metadata>, bytes: &[u8]) -> io::Result<()> {
    if let Some(replaced) = replaced {
        keep_owner_and_mode(file, replaced)?;
    }
    file.write_all(bytes)?;
    file.sync_all()
}

/// Gives the new file the owner, group and permissions of the one it replaces, as far as the system allows.
fn keep_owner_and_mode(file: &File, replaced: &Metadata) -> io::Result<()> {
    let made = file.metadata()?;
    let mut mode = replaced.mode() & 0o777;
    if made.uid() != replaced.uid() {
        // Only root may change a file's owner.
        let _ = fchown(file, Some(replaced.uid()), None);
    }
    if made.gid() != replaced.gid() && fchown(file, None, Some(replaced.gid())).is_err() {
        // The group is another one, so the permissions of the old group do not apply.
        mode &= 0o707 | (mode & 0o007) << 3;
    }
    match file.set_permissions(Permissions::from_mode(mode)) {
        // File systems without permissions.
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => Ok(()),
        other => other,
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder).and_then(|opened| opened.sync_all()) {
        // The folder is writable but not readable, or the file system does not flush folders.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::PermissionDenied | ErrorKind::InvalidInput | ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Writes to a pipe, a character device or an open file of another descriptor.
fn write_to_stream(path: &Path, stream: &Path, bytes: &[u8]) -> Result<()> {
    let shown = path.display();
    let opened = OpenOptions::new().append(true).custom_flags(careful()).open(stream);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if rustix::io::Errno::from_io_error(&error) == Some(rustix::io::Errno::NXIO) => {
            return Err(usage!(
                "{shown}: nobody reads from this pipe; start its reader first, or name a file"
            ));
        }
        Err(error) => return Err(unwritable(path, error)),
    };
    write_patiently(&mut file, bytes, PATIENCE).with_context(|| format!("{shown}: cannot be written"))
}

/// Writes to a file that does not block; fails if it accepts nothing for as long as `patience`.
fn write_patiently(file: &mut File, mut bytes: &[u8], patience: Duration) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let limit = Timespec {
                    tv_sec: patience.as_secs() as i64,
                    tv_nsec: i64::from(patience.subsec_nanos()),
                };
                if poll(&mut [PollFd::new(file, PollFlags::OUT)], Some(&limit)) == Ok(0) {
                    return Err(io::Error::other(format!("its reader took nothing for {patience:?}")));
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

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

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[track_caller]
    fn assert_refused(path: &Path, part: &str) {
        let error = write_atomically(path, b"x").unwrap_err();
        assert_eq!(exit_code(&error), 2, "{error:#}");
        assert!(format!("{error:#}").contains(part), "{error:#}");
    }

    #[test]
    fn replaces_the_old_content_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write_atomically(&path, b"old").unwrap();
        fs::write(folder.path().join(".a.bin.records-1-0.tmp"), b"left over").unwrap();
        write_atomically(&path, b"newer").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"newer");
        assert_eq!(names(folder.path()), ["a.bin"]);
    }

    #[test]
    fn what_cannot_be_written_is_a_usage_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("plain"), b"").unwrap();
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        symlink("missing/x", at("c")).unwrap();
        symlink("new/", at("d")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (path, part) in [
            (at("missing/a.bin"), "does not exist"),
            (at("plain/a.bin"), "cannot be written"),
            (folder.path().to_path_buf(), "is a folder"),
            (at(".."), "is a folder"),
            (at("."), "is a folder"),
            (at("new/"), "not a file name"),
            (at("new/."), "not a file name"),
            (at("plain/"), "not a file name"),
            (PathBuf::new(), "not a file name"),
            (PathBuf::from("a\0b"), "cannot be written"),
            (at(&"x".repeat(256)), "cannot be written"),
            (at("a"), "form a loop"),
            (at("c"), "does not exist"),
            (at("d"), "not a file name"),
            (at("socket"), "is a socket"),
        ] {
            assert_refused(&path, part);
        }
        drop(socket);
        assert_eq!(names(folder.path()), ["a", "b", "c", "d", "plain", "socket"]);
    }

    #[test]
    fn links_stay_and_their_target_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/real"), b"old").unwrap();
        symlink("sub/real", at("one")).unwrap();
        symlink(at("one"), at("two")).unwrap();
        symlink("sub/made", at("dangling")).unwrap();
        symlink("sub", at("folder")).unwrap();
        write_atomically(&at("two"), b"new").unwrap();
        write_atomically(&at("dangling"), b"made").unwrap();
        write_atomically(&at("folder/third"), b"third").unwrap();
        for (name, content) in [("sub/real", "new"), ("sub/made", "made"), ("sub/third", "third")] {
            assert_eq!(fs::read_to_string(at(name)).unwrap(), content);
            assert!(fs::symlink_metadata(at(name)).unwrap().is_file());
        }
        assert!(["one", "two", "dangling", "folder"].iter().all(|name| at(name).is_symlink()));
        assert_eq!(names(folder.path()).len(), 5);
        assert_eq!(names(&at("sub")).len(), 3);
    }

    #[test]
    fn permissions_are_kept_and_those_of_new_files_are_the_umasks() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("ordinary"), b"").unwrap();
        write_atomically(&at("new"), b"").unwrap();
        assert_eq!(mode(&at("new")), mode(&at("ordinary")));
        for kept in [0o600, 0o640, 0o666, 0o755, 0o200] {
            fs::set_permissions(at("new"), Permissions::from_mode(kept)).unwrap();
            write_atomically(&at("new"), b"x").unwrap();
            assert_eq!(mode(&at("new")), kept);
        }
        if rustix::process::geteuid().is_root() {
            fchown(File::open(at("new")).unwrap(), Some(12345), Some(54321)).unwrap();
            write_atomically(&at("new"), b"y").unwrap();
            let kept = fs::metadata(at("new")).unwrap();
            assert_eq!((kept.uid(), kept.gid()), (12345, 54321));
        } else {
            fs::set_permissions(at("new"), Permissions::from_mode(0o444)).unwrap();
            assert_refused(&at("new"), "cannot be written: Permission denied");
        }
    }

    #[test]
    fn other_names_of_a_file_keep_the_old_content() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), b"old").unwrap();
        fs::hard_link(at("a"), at("b")).unwrap();
        write_atomically(&at("a"), b"new").unwrap();
        assert_eq!((fs::read(at("a")).unwrap(), fs::read(at("b")).unwrap()), (b"new".into(), b"old".into()));
    }

    #[test]
    fn names_of_any_bytes_and_of_the_greatest_length_are_written() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        for name in
            [&[b'x'; 255][..], "é".repeat(127).as_bytes(), &[0xff, 0xfe, b'a'], b" ", b"-", b".x", b"a\nb"]
        {
            let path = folder.path().join(std::ffi::OsStr::from_bytes(name));
            write_atomically(&path, b"1").unwrap();
            write_atomically(&path, b"2").unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"2");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 7);
    }

    #[test]
    fn pipes_are_written_to_where_somebody_reads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
        assert_refused(&path, "nobody reads");
        let opened = OpenOptions::new().read(true).custom_flags(careful()).open(&path);
        let mut reader = opened.unwrap();
        write_atomically(&path, b"through").unwrap();
        let mut found = [0; 16];
        assert_eq!(io::Read::read(&mut reader, &mut found).unwrap(), 7);
        assert_eq!(&found[..7], b"through");

        // More bytes than a pipe holds, and a reader that does not read.
        let mut writer = OpenOptions::new().append(true).custom_flags(careful()).open(&path).unwrap();
        let error = write_patiently(&mut writer, &[0; 1 << 20], Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("took nothing for 50ms"), "{error}");
        assert_eq!(names(folder.path()), ["pipe"]);
    }

    #[test]
    fn devices_are_written_to_and_stay() {
        use std::os::unix::fs::FileTypeExt;
        write_atomically(Path::new("/dev/null"), b"x").unwrap();
        assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
        if Path::new("/dev/full").exists() {
            let error = write_atomically(Path::new("/dev/full"), b"x").unwrap_err();
            assert_eq!(exit_code(&error), 1, "{error:#}");
        }
    }

    #[test]
    fn a_machine_at_its_end_is_no_misuse() {
        let code = |number: i32| exit_code(&unwritable(Path::new("a"), io::Error::from_raw_os_error(number)));
        let (no_room, not_allowed) = (28, 13);
        assert_eq!((code(no_room), code(not_allowed)), (1, 2));
    }
}
