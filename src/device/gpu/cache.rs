//! Compiled kernels, kept on disk by what they were made from.
//!
//! The key covers the source, its headers, the compiler's options and version, so a kernel is compiled once
//! on a machine and again whenever any of them changes. A file that is damaged is compiled anew.
//!
//! What is read here runs on the GPU, so folder and file must be this user's alone (`own_files.rs`): that is
//! the defence against a planted file. The checksum only tells damage, since anyone can compute it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Result;
use sha2::{Digest, Sha256};

use super::nvrtc::{Compiled, Nvrtc, Target};
use super::own_files::{distrust, keep, trusted};
use super::sources::{self, Source};
use crate::text::hex;
use crate::usage;

/// The compiler, opened when first needed, and its cache.
pub struct KernelCache {
    folder: Option<PathBuf>,
    compiler: Nvrtc,
}

/// Name of the variable that says where compiled kernels are kept.
const FOLDER_VARIABLE: &str = "RECORDS_KERNEL_CACHE";
/// The largest compiled kernel has under 1 MB.
const MOST_BYTES: u64 = 64 << 20;

/// Where compiled kernels are kept.
#[derive(Debug, PartialEq)]
pub enum Place {
    /// In that folder, which may not be there yet.
    Folder(PathBuf),
    /// Nowhere, and why: they are compiled every time.
    Nowhere(String),
}

impl Place {
    /// By the environment: `RECORDS_KERNEL_CACHE`, else `records/kernels` in `XDG_CACHE_HOME`, else in
    /// `.cache` of `HOME`. A variable that is empty counts as not set, and so do relative paths, as the XDG
    /// specification says: they would lead to whatever folder is the current one.
    ///
    /// # Errors
    /// A usage error for a `RECORDS_KERNEL_CACHE` that is relative or leads to something that is not trusted.
    pub fn find() -> Result<Self> {
        Self::by(&|name| std::env::var_os(name))
    }

    fn by(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self> {
        let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let absolute = |name: &str| given(name).filter(|path| path.is_absolute());
        if let Some(folder) = given(FOLDER_VARIABLE) {
            let shown = folder.display();
            if !folder.is_absolute() {
                return Err(usage!(
                    "{FOLDER_VARIABLE}={shown}: must be an absolute path, else it is another folder in every current folder"
                ));
            }
            return match distrust(&folder) {
                Some(reason) => Err(usage!(
                    "{FOLDER_VARIABLE}={shown}: {reason}, so anyone could put code there; name a folder of your own"
                )),
                None => Ok(Place::Folder(folder)),
            };
        }
        let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
        let Some(base) = base else {
            let none = "neither XDG_CACHE_HOME nor HOME is an absolute path";
            return Ok(Place::Nowhere(format!("{none}; {FOLDER_VARIABLE} names a folder")));
        };
        let folder = base.join("records").join("kernels");
        Ok(match distrust(&folder) {
            Some(reason) => Place::Nowhere(format!(
                "{}: {reason}; change that, or name another folder with {FOLDER_VARIABLE}",
                folder.display()
            )),
            None => Place::Folder(folder),
        })
    }
}

impl KernelCache {
    /// Opens NVRTC; compiled kernels are kept where [`Place::find`] says. Where nothing can be written,
    /// kernels are compiled every time.
    ///
    /// # Errors
    /// A usage error that says what to install when there is no NVRTC, or as [`Place::find`].
    pub fn open() -> Result<Self> {
        let folder = match Place::find()? {
            Place::Folder(folder) => Some(folder),
            Place::Nowhere(_) => None,
        };
        Ok(Self { folder, compiler: Nvrtc::open()? })
    }

    /// As [`KernelCache::open`], with compiled kernels in `folder`.
    ///
    /// # Errors
    /// As there.
    pub fn open_in(folder: &Path) -> Result<Self> {
        Ok(Self { folder: Some(folder.to_path_buf()), compiler: Nvrtc::open()? })
    }

    /// The compiler.
    pub fn compiler(&self) -> &Nvrtc {
        &self.compiler
    }

    /// A file of kernels compiled for `target`.
    ///
    /// # Errors
    /// The compiler's messages.
    pub fn compiled(&self, source: &Source, target: Target) -> Result<Compiled> {
        let path = self.folder.as_ref().map(|folder| folder.join(self.file_name(source, target)));
        if let Some(found) = path.as_deref().and_then(read) {
            return Ok(found);
        }
        let compiled = self.compiler.compile(source.name, source.text, &sources::headers(), target)?;
        if let Some(path) = path {
            // A cache that cannot be written costs time, nothing else.
            let _ = write(&path, &compiled);
        }
        Ok(compiled)
    }

    /// What all kernels are for `target`, by a number that is another where a source, the compiler or its
    /// options are others.
    pub fn content(&self, target: Target) -> String {
        let (major, minor) = self.compiler.found.version;
        let sources = sources::KERNELS.iter().chain(sources::HEADERS);
        let mut parts: Vec<String> =
            sources.map(|source| format!("{} {}", source.name, source.text)).collect();
        parts.push(format!("{major}.{minor}"));
        parts.extend(Nvrtc::options(target));
        hex(&Sha256::digest(parts.join("\0"))[..16])
    }

    fn file_name(&self, source: &Source, target: Target) -> String {
        let (major, minor) = self.compiler.found.version;
        let mut parts = vec![source.text.to_string(), format!("{major}.{minor}")];
        parts.extend(sources::HEADERS.iter().map(|header| format!("{} {}", header.name, header.text)));
        parts.extend(Nvrtc::options(target));
        let key = hex(&Sha256::digest(parts.join("\0"))[..16]);
        let stem = source.name.trim_end_matches(".cu");
        format!("{stem}-{}-{key}.bin", target.word())
    }
}

/// The SHA-256 of a file's name and of what is in it behind the checksum: a file under another's name is
/// damaged too.
fn checksum(path: &Path, body: &[u8]) -> Vec<u8> {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    Sha256::digest([name, b"\0", body].concat()).to_vec()
}

/// A file is: checksum; length of the code as a little-endian u64; code; log.
fn write(path: &Path, compiled: &Compiled) -> Result<()> {
    let mut body = (compiled.code.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(&compiled.code);
    body.extend_from_slice(compiled.log.as_bytes());
    let mut bytes = checksum(path, &body);
    bytes.extend_from_slice(&body);
    keep(path, &bytes)
}

/// What is in the file, if it is whole and nobody else can have written it.
fn read(path: &Path) -> Option<Compiled> {
    let bytes = trusted(path, MOST_BYTES).ok()??;
    let (check, body) = bytes.split_at_checked(Sha256::output_size())?;
    if checksum(path, body) != check {
        return None;
    }
    let (len, body) = body.split_first_chunk()?;
    let (code, log) = body.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    let log = String::from_utf8(log.to_vec()).ok()?;
    Some(Compiled { code: code.to_vec(), log, kept_in: Some(path.to_path_buf()) })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use rustix::process::geteuid;

    use super::*;

    fn kernel() -> Compiled {
        Compiled { code: vec![1, 2, 3], log: "registers".into(), kept_in: None }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_was_written_comes_back_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("kernel.bin");
        write(&path, &kernel()).unwrap();
        let back = read(&path).unwrap();
        assert_eq!((back.code, back.log, back.kept_in), (kernel().code, kernel().log, Some(path.clone())));
        let other = path.with_file_name("other.bin");
        fs::copy(&path, &other).unwrap();
        assert!(read(&other).is_none(), "another kernel under this name");
        let mut bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 0x40;
            fs::write(&path, &bytes).unwrap();
            assert!(read(&path).is_none(), "byte {at} changed unseen");
            bytes[at] ^= 0x40;
        }
        for len in 0..bytes.len() {
            fs::write(&path, &bytes[..len]).unwrap();
            assert!(read(&path).is_none(), "cut to {len} bytes unseen");
        }
    }

    #[test]
    fn what_others_could_have_written_is_not_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("kernels");
        let path = folder.join("kernel.bin");
        let written = || {
            let _ = fs::remove_file(&path);
            write(&path, &kernel()).unwrap();
            assert!(read(&path).is_some());
        };
        written();
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        for mode in [0o620, 0o602, 0o666] {
            set_mode(&path, mode);
            assert!(read(&path).is_none(), "mode {mode:o}");
        }
        written();
        for mode in [0o770, 0o707, 0o1777] {
            set_mode(&folder, mode);
            assert!(read(&path).is_none(), "folder of mode {mode:o}");
        }
        set_mode(&folder, 0o755);
        assert!(read(&path).is_some(), "others may read it");

        // A link in the file's place, then one in the folder's: both to files that would do.
        fs::rename(&path, folder.join("moved")).unwrap();
        symlink("moved", &path).unwrap();
        assert!(read(&path).is_none());
        write(&path, &kernel()).unwrap();
        assert!(!path.is_symlink() && read(&path).is_some(), "a link is replaced, its target left alone");
        fs::hard_link(&path, root.path().join("second")).unwrap();
        assert!(read(&path).is_none());
        written();
        symlink("kernels", root.path().join("link")).unwrap();
        assert!(read(&root.path().join("link/kernel.bin")).is_none());
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
            assert!(read(&path).is_none());
            written();
            std::os::unix::fs::chown(&folder, Some(12345), None).unwrap();
            assert!(read(&path).is_none());
        }
    }

    #[test]
    fn no_variable_leads_to_the_current_folder() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("open")).unwrap();
        set_mode(&at("open"), 0o777);
        symlink("own", at("link")).unwrap();
        let place = |variables: &[(&str, PathBuf)]| {
            Place::by(&|name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| value.as_os_str().to_os_string())
            })
        };
        let (home, kernels) = (("HOME", at("home")), Place::Folder(at("home/.cache/records/kernels")));
        for xdg in ["", ".", "cache", "../cache"] {
            assert_eq!(place(&[("XDG_CACHE_HOME", xdg.into()), home.clone()]).unwrap(), kernels, "{xdg:?}");
        }
        assert_eq!(
            place(&[("XDG_CACHE_HOME", at("x")), home.clone()]).unwrap(),
            Place::Folder(at("x/records/kernels"))
        );
        for home in ["", "home"] {
            let nowhere = place(&[("HOME", home.into()), ("XDG_CACHE_HOME", "".into())]).unwrap();
            assert!(matches!(nowhere, Place::Nowhere(_)), "{nowhere:?}");
        }
        assert!(matches!(place(&[]).unwrap(), Place::Nowhere(_)));
        assert_eq!(place(&[(FOLDER_VARIABLE, "".into()), home.clone()]).unwrap(), kernels);
        assert_eq!(place(&[(FOLDER_VARIABLE, at("own"))]).unwrap(), Place::Folder(at("own")));
        for (folder, part) in [
            ("kernels".into(), "must be an absolute path"),
            (at("open"), "others may write to it (mode 777"),
            (at("link"), "is a symbolic link"),
            (PathBuf::from("/dev/null"), "is not a folder"),
        ] {
            let error = place(&[(FOLDER_VARIABLE, folder)]).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(crate::error::exit_code(&error), 2);
        }
        fs::create_dir_all(at("home/.cache/records/kernels")).unwrap();
        set_mode(&at("home/.cache/records/kernels"), 0o770);
        let place = place(&[home]).unwrap();
        assert!(matches!(&place, Place::Nowhere(why) if why.contains("chmod go-w")), "{place:?}");
    }
}
