//! Compiled kernels, kept on disk by what they were made from.
//!
//! The key covers the source, its headers, the compiler's options and version, so a kernel is compiled once on a machine
//! and again whenever any of them changes. A file that is damaged is compiled anew.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::nvrtc::{Compiled, Nvrtc, Target};
use super::sources::{self, Source};

/// The compiler, opened when first needed, and its cache.
pub struct KernelCache {
    folder: Option<PathBuf>,
    compiler: Nvrtc,
}

/// Name of the variable that says where compiled kernels are kept.
const FOLDER_VARIABLE: &str = "RECORDS_KERNEL_CACHE";

impl KernelCache {
    /// Opens NVRTC; compiled kernels are kept in `RECORDS_KERNEL_CACHE`, else in the user's cache folder. Where neither can be
    /// written, kernels are compiled every time.
    ///
    /// # Errors
    /// A usage error that says what to install when there is no NVRTC.
    pub fn open() -> Result<Self> {
        let user = || {
            let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            base.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache")))
                .map(|base| base.join("records").join("kernels"))
        };
        let folder = std::env::var_os(FOLDER_VARIABLE).map(PathBuf::from).or_else(user);
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

    fn file_name(&self, source: &Source, target: Target) -> String {
        let (major, minor) = self.compiler.found.version;
        let mut parts = vec![source.text.to_string(), format!("{major}.{minor}")];
        parts.extend(sources::HEADERS.iter().map(|header| format!("{} {}", header.name, header.text)));
        parts.extend(Nvrtc::options(target));
        let key = fnv1a(parts.join("\0").as_bytes());
        let stem = source.name.trim_end_matches(".cu");
        format!("{stem}-{}-{key:032x}.bin", target.word())
    }
}

/// The 128-bit FNV-1a hash: no defence against forgery, which the user's own cache folder does not need.
fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

/// A file is: CRC32-C of everything after, length of the code, both little-endian u64; code; log.
fn write(path: &Path, compiled: &Compiled) -> Result<()> {
    let mut body = (compiled.code.len() as u64).to_le_bytes().to_vec();
    body.extend_from_slice(&compiled.code);
    body.extend_from_slice(compiled.log.as_bytes());
    let mut bytes = u64::from(crc32c::crc32c(&body)).to_le_bytes().to_vec();
    bytes.extend_from_slice(&body);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    crate::files::write_atomically(path, &bytes)
}

fn read(path: &Path) -> Option<Compiled> {
    let bytes = std::fs::read(path).ok()?;
    let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (check, len) = (number(0)?, number(8)? as usize);
    if u64::from(crc32c::crc32c(bytes.get(8..)?)) != check {
        return None;
    }
    let body = bytes.get(16..).filter(|body| len <= body.len())?;
    let log = String::from_utf8(body[len..].to_vec()).ok()?;
    Some(Compiled { code: body[..len].to_vec(), log })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_comes_back_and_damage_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("kernel.bin");
        let compiled = Compiled { code: vec![1, 2, 3], log: "registers".into() };
        write(&path, &compiled).unwrap();
        let back = read(&path).unwrap();
        assert_eq!((back.code, back.log), (compiled.code, compiled.log));
        let mut bytes = std::fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 0x40;
            std::fs::write(&path, &bytes).unwrap();
            assert!(read(&path).is_none(), "byte {at} changed unseen");
            bytes[at] ^= 0x40;
        }
    }

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
