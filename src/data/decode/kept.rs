//! Decoded images, kept on disk for the next run that reads them.
//!
//! A pack holds the squares of one set of image files, each under the SHA-256 of its file's bytes: every file is
//! still read and every check made, only decoding and resizing are saved. So a file that changed is decoded
//! again, and what a pack of another version or a damaged one holds is never used. That pays for photographs;
//! for files about as small as their pixels, opening them takes as long as decoding, and nothing is kept.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, bail};
use rustix::process::geteuid;
use sha2::{Digest, Sha256};

use super::square::{Fit, square_of};
use super::{MAX_BYTES, shown};
use crate::files::{open_for_reading_without_links, read_whole, write_private};
use crate::text::hex;
use crate::usage;

/// Name of the variable that says where decoded images are kept: an absolute path, or `off`.
const VARIABLE: &str = "RECORDS_CACHE";
/// First bytes of a pack; a new layout or decoder gets another version.
const SIGNATURE: &[u8; 16] = b"records images 2";
/// File bytes that were decoded, from which on a pack is written: under a second of decoding is not worth it.
const WORTH: u64 = 32 << 20;
/// All packs together take no more than this, bytes; the oldest are removed.
const MOST_BYTES: u64 = 2 << 30;

/// Names the content of a file.
type Key = [u8; 16];
/// Bytes of an index entry: a key, the checksum of its pixels, and 1 where the image was turned upright, else
/// 0.
const ENTRY: usize = size_of::<Key>() + size_of::<u32>() + 1;
/// Signature, number of images, bytes of an image.
const HEAD: usize = SIGNATURE.len() + 16;

/// The folder of the packs; `None` if nothing is to be kept.
fn folder_by(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let absolute = |name: &str| given(name).filter(|path| path.is_absolute());
    match given(VARIABLE) {
        Some(word) if word.as_os_str() == "off" => return Ok(None),
        Some(folder) if folder.is_absolute() => return Ok(Some(folder.join("images"))),
        Some(other) => bail!("{VARIABLE}={}: must be an absolute path or off", shown(&other)),
        None => {}
    }
    let base = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")));
    Ok(base.map(|base| base.join("records").join("images")))
}

/// The folder where decoded images are kept, if they are.
///
/// # Errors
/// If `RECORDS_CACHE` is neither an absolute path nor `off`.
pub fn folder() -> Result<Option<PathBuf>> {
    folder_by(&|name| std::env::var_os(name))
}

/// The kept images of a set, and what its next pack will hold.
pub struct Kept {
    size: usize,
    fit: Fit,
    /// Where the pack is or will be.
    path: Option<PathBuf>,
    pack: Option<Pack>,
    /// The content of each file, once it is read, and whether the image was turned upright.
    keys: Vec<OnceLock<(Key, bool)>>,
    /// Bytes of the files that had to be decoded.
    decoded: AtomicU64,
    /// File bytes from which on a pack is written.
    worth: u64,
    /// Why nothing can be kept.
    problem: Option<String>,
}

impl Kept {
    /// The images that are kept of the `count` files of the set `name` (any text, such as its folder).
    pub fn open(name: &Path, count: usize, size: usize, fit: Fit) -> Self {
        let (folder, problem) = match folder() {
            Ok(folder) => (folder, None),
            Err(error) => (None, Some(error.to_string())),
        };
        Self { problem, ..Self::open_in(folder.as_deref(), WORTH, name, count, (size, fit)) }
    }

    fn open_in(
        folder: Option<&Path>,
        worth: u64,
        name: &Path,
        count: usize,
        (size, fit): (usize, Fit),
    ) -> Self {
        let name = [name.as_os_str().as_encoded_bytes(), format!("\0{size} {fit:?}").as_bytes()].concat();
        let path = folder.map(|folder| folder.join(format!("{}.bin", hex(&key(&name)))));
        let pack = path
            .as_deref()
            .and_then(|path| Pack::open(path, 3_usize.saturating_mul(size).saturating_mul(size)).ok());
        let keys = (0..count).map(|_| OnceLock::new()).collect();
        Self { size, fit, path, pack, keys, decoded: AtomicU64::new(0), worth, problem: None }
    }

    /// Writes the square of the set's file `number` to `out`, `[size, size, 3]`. Returns whether the image was
    /// turned or mirrored to be upright.
    ///
    /// # Errors
    /// As [`decode_square`](super::decode_square).
    pub fn square(&self, number: usize, path: &Path, out: &mut [u8]) -> Result<bool> {
        let bytes = read_whole(path, MAX_BYTES)?;
        if self.path.is_none() {
            return square_of(path, &bytes, self.size, self.fit, out);
        }
        let key = key(&bytes);
        let is_turned = match self.pack.as_ref().and_then(|pack| pack.read(&key, out)) {
            Some(is_turned) => is_turned,
            None => {
                let is_turned = square_of(path, &bytes, self.size, self.fit, out)?;
                self.decoded.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                is_turned
            }
        };
        let _ = self.keys[number].set((key, is_turned));
        Ok(is_turned)
    }

    /// Keeps the squares `images` of all files that could be read if enough of them had to be decoded. What goes
    /// wrong costs the next run time, nothing else; it is returned, one line.
    pub fn keep(&self, images: &[u8]) -> Option<String> {
        let off = || format!("{VARIABLE}=off says that this is intended");
        if let Some(problem) = &self.problem {
            return Some(format!("decoded images are not kept: {problem}"));
        }
        let path = self.path.as_deref()?;
        if self.decoded.load(Ordering::Relaxed) < self.worth || images.len() as u64 > MOST_BYTES / 2 {
            return None;
        }
        let keys: Vec<(Key, bool)> = self.keys.iter().filter_map(|key| key.get().copied()).collect();
        let written = write(path, &keys, 3 * self.size * self.size, images);
        written.err().map(|error| format!("decoded images are not kept: {error:#}; {}", off()))
    }
}

fn key(bytes: &[u8]) -> Key {
    let mut key = Key::default();
    key.copy_from_slice(&Sha256::digest(bytes)[..size_of::<Key>()]);
    key
}

/// A pack that is whole as far as its index says; pixels are checked when they are read.
struct Pack {
    file: File,
    /// Offset and checksum of each image, and whether it was turned upright.
    images: HashMap<Key, (u64, u32, bool)>,
}

impl Pack {
    fn open(path: &Path, image_len: usize) -> Result<Self> {
        let mut file = open_for_reading_without_links(path)?;
        let found = file.metadata()?;
        // Only what this user wrote counts: pixels of others would train a network on their images.
        if found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
            bail!("others may have written it");
        }
        let mut head = [0; HEAD];
        file.read_exact(&mut head)?;
        let (signature, numbers) = head.split_at(SIGNATURE.len());
        let [count, len] = [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|i| numbers[at + i])));
        let index_len = count.checked_mul(ENTRY as u64).context("too many images")?;
        let whole = count.checked_mul(len).and_then(|pixels| pixels.checked_add(HEAD as u64 + 4 + index_len));
        if signature != SIGNATURE || len != image_len as u64 || whole != Some(found.len()) {
            bail!("not a whole pack of such images");
        }
        let mut index = vec![0; index_len as usize + 4];
        file.read_exact(&mut index)?;
        let (index, check) = index.split_at(index_len as usize);
        if crc32c::crc32c_append(crc32c::crc32c(&head), index).to_le_bytes() != check {
            bail!("its index is damaged");
        }
        let first = HEAD as u64 + 4 + index_len;
        let entry = |(number, entry): (usize, &[u8])| {
            let (key, rest) = entry.split_at(size_of::<Key>());
            let check = u32::from_le_bytes(std::array::from_fn(|i| rest[i]));
            let is_turned = rest[size_of::<u32>()] == 1;
            (std::array::from_fn(|i| key[i]), (first + number as u64 * len, check, is_turned))
        };
        Ok(Self { file, images: index.chunks_exact(ENTRY).enumerate().map(entry).collect() })
    }

    /// Reads the image of a file's content into `out`, if it is there and undamaged; returns whether it was
    /// turned upright.
    fn read(&self, key: &Key, out: &mut [u8]) -> Option<bool> {
        let &(offset, check, is_turned) = self.images.get(key)?;
        let is_whole = self.file.read_exact_at(out, offset).is_ok() && crc32c::crc32c(out) == check;
        is_whole.then_some(is_turned)
    }
}

/// Writes a pack whole or not at all, after making room for it.
fn write(path: &Path, keys: &[(Key, bool)], image_len: usize, images: &[u8]) -> Result<()> {
    let Some(folder) = path.parent() else { return Err(usage!("{}: has no folder", shown(path))) };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("{}: cannot be made", shown(folder)))?;
    let mut bytes = Vec::with_capacity(HEAD + 4 + keys.len() * ENTRY + images.len());
    bytes.extend_from_slice(SIGNATURE);
    bytes.extend([keys.len(), image_len].iter().flat_map(|&number| (number as u64).to_le_bytes()));
    for ((key, is_turned), image) in keys.iter().zip(images.chunks_exact(image_len)) {
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(&crc32c::crc32c(image).to_le_bytes());
        bytes.push(u8::from(*is_turned));
    }
    let check = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(&check.to_le_bytes());
    bytes.extend_from_slice(images);
    make_room(folder, path, (bytes.len() as u64, MOST_BYTES))?;
    write_private(path, &bytes)
}

/// Removes the oldest packs of `folder` until another of `len` bytes under the name `path` is within `most`.
fn make_room(folder: &Path, path: &Path, (len, most): (u64, u64)) -> Result<()> {
    let mut packs = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}: cannot be read", shown(folder)))? {
        let entry = entry?;
        let found = entry.metadata()?;
        let is_pack = found.is_file() && entry.path().extension().is_some_and(|extension| extension == "bin");
        if is_pack && entry.path() != path {
            packs.push((found.modified()?, found.len(), entry.path()));
        }
    }
    packs.sort();
    let mut total = len + packs.iter().map(|(_, len, _)| len).sum::<u64>();
    for (_, len, pack) in packs {
        if total <= most {
            break;
        }
        fs::remove_file(&pack).with_context(|| format!("{}: cannot be removed", shown(&pack)))?;
        total -= len;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: usize = 4;
    const LEN: usize = 3 * SIZE * SIZE;

    /// Two PNG files of other sizes, and their squares through a cache in `root`.
    fn load(root: &Path, worth: u64) -> (Vec<u8>, u64, Option<String>) {
        let cache = root.join("cache");
        let kept = Kept::open_in(Some(&cache), worth, root, 2, (SIZE, Fit::Stretched));
        let mut images = vec![0; 2 * LEN];
        for (number, out) in images.chunks_exact_mut(LEN).enumerate() {
            kept.square(number, &root.join(format!("{number}.png")), out).unwrap();
        }
        let problem = kept.keep(&images);
        (images, kept.decoded.into_inner(), problem)
    }

    fn draw(path: &Path, salt: u8) {
        let pixels = image::RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8 * 30, y as u8 * 40, salt]));
        pixels.save(path).unwrap();
    }

    fn prepared() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        draw(&root.path().join("0.png"), 10);
        draw(&root.path().join("1.png"), 20);
        root
    }

    fn pack(root: &Path) -> PathBuf {
        let mut packs = fs::read_dir(root.join("cache")).unwrap();
        packs.next().unwrap().unwrap().path()
    }

    #[test]
    fn a_second_run_decodes_only_what_changed() {
        let root = prepared();
        let (first, decoded, problem) = load(root.path(), 1);
        assert!(decoded > 0 && problem.is_none(), "{problem:?}");
        let (second, decoded, _) = load(root.path(), 1);
        assert_eq!((&second, decoded), (&first, 0));
        draw(&root.path().join("1.png"), 99);
        let (third, decoded, _) = load(root.path(), 1);
        assert_eq!(decoded, fs::metadata(root.path().join("1.png")).unwrap().len());
        assert_eq!(third[..LEN], first[..LEN]);
        assert_ne!(third[LEN..], first[LEN..]);
        assert_eq!(load(root.path(), 1).1, 0, "the pack was written again");
        // Files that change places are found by their content.
        fs::rename(root.path().join("0.png"), root.path().join("2.png")).unwrap();
        fs::rename(root.path().join("1.png"), root.path().join("0.png")).unwrap();
        fs::rename(root.path().join("2.png"), root.path().join("1.png")).unwrap();
        let (swapped, decoded, _) = load(root.path(), 1);
        assert_eq!((&swapped[..LEN], &swapped[LEN..], decoded), (&third[LEN..], &third[..LEN], 0));
    }

    /// Also where the image comes from the pack.
    #[test]
    fn what_was_turned_is_known() {
        let root = prepared();
        let mut jpeg = Vec::new();
        let pixels = image::RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8 * 30, y as u8 * 40, 7]));
        image::codecs::jpeg::JpegEncoder::new(&mut jpeg).encode_image(&pixels).unwrap();
        let exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let head = [&jpeg[..2], &[0xff, 0xe1, 0, exif.len() as u8 + 2], exif].concat();
        fs::write(root.path().join("1.png"), [&head, &jpeg[2..]].concat()).unwrap();
        for _ in 0..2 {
            let cache = root.path().join("cache");
            let kept = Kept::open_in(Some(&cache), 1, root.path(), 2, (SIZE, Fit::Stretched));
            let mut images = vec![0; 2 * LEN];
            let mut squares = images.chunks_exact_mut(LEN);
            let turned = [0, 1].map(|number: usize| {
                let file = root.path().join(format!("{number}.png"));
                kept.square(number, &file, squares.next().unwrap()).unwrap()
            });
            assert_eq!(turned, [false, true]);
            assert!(kept.keep(&images).is_none() && pack(root.path()).exists());
        }
    }

    /// A pack that is cut short anywhere, or in which any byte is another, gives no wrong pixel.
    #[test]
    fn damage_is_seen() {
        let root = prepared();
        let (images, ..) = load(root.path(), 1);
        let pack = pack(root.path());
        let whole = fs::read(&pack).unwrap();
        assert_eq!(whole.len(), HEAD + 4 + 2 * (ENTRY + LEN));
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x40;
            fs::write(&pack, &bytes).unwrap();
            let (again, decoded, _) = load(root.path(), u64::MAX);
            assert!(again == images && decoded > 0, "byte {at}");
            fs::write(&pack, &whole[..at]).unwrap();
            assert_eq!(load(root.path(), u64::MAX).0, images, "{at} bytes");
        }
    }

    #[test]
    fn small_sets_are_not_kept_and_a_folder_that_cannot_be_is_one_line() {
        let root = prepared();
        assert!(load(root.path(), u64::MAX).2.is_none() && !root.path().join("cache").exists());
        fs::write(root.path().join("cache"), b"a file").unwrap();
        let problem = load(root.path(), 1).2.unwrap();
        assert!(problem.contains("not kept") && problem.contains("RECORDS_CACHE"), "{problem}");
        assert_eq!(problem.lines().count(), 1);
    }

    #[test]
    fn what_others_may_write_is_not_read() {
        use std::os::unix::fs::PermissionsExt;

        let root = prepared();
        load(root.path(), 1);
        fs::set_permissions(pack(root.path()), fs::Permissions::from_mode(0o622)).unwrap();
        assert!(load(root.path(), u64::MAX).1 > 0);
    }

    #[test]
    fn the_oldest_packs_make_room() {
        let root = tempfile::tempdir().unwrap();
        let path = |number: u64| root.path().join(format!("{number}.bin"));
        for number in 0..4 {
            fs::write(path(number), [0; 100]).unwrap();
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1000 - number);
            File::options().write(true).open(path(number)).unwrap().set_modified(time).unwrap();
        }
        fs::write(root.path().join("notes.txt"), [0; 500]).unwrap();
        // Pack 0, the newest, is about to be replaced and does not count.
        make_room(root.path(), &path(0), (100, 250)).unwrap();
        let left: Vec<bool> = (0..4).map(|number| path(number).exists()).collect();
        assert_eq!(left, [true, true, false, false]);
        assert!(root.path().join("notes.txt").exists());
    }

    #[test]
    fn the_variable_is_a_folder_or_off() {
        let by = |pairs: &[(&str, &str)]| {
            let pairs: HashMap<String, OsString> =
                pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect();
            folder_by(&|name| pairs.get(name).cloned())
        };
        let folder = |pairs| by(pairs).unwrap().map(|folder| folder.display().to_string());
        assert_eq!(folder(&[("RECORDS_CACHE", "off"), ("HOME", "/h")]), None);
        assert_eq!(folder(&[("RECORDS_CACHE", "/c"), ("HOME", "/h")]), Some("/c/images".into()));
        assert_eq!(folder(&[("HOME", "/h")]), Some("/h/.cache/records/images".into()));
        assert_eq!(folder(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Some("/x/records/images".into()));
        assert_eq!(folder(&[("RECORDS_CACHE", ""), ("XDG_CACHE_HOME", "x")]), None);
        let error = by(&[("RECORDS_CACHE", "here")]).unwrap_err().to_string();
        assert!(error.contains("RECORDS_CACHE=here") && error.contains("off"), "{error}");
    }
}
