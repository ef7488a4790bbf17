//! Images in one folder a class: `train/<class>/*` and `test/<class>/*`, JPEG or PNG.
//!
//! PNG pixels are exact. JPEG leaves decoders some freedom: on 5,000 images of CIFAR-10 as JPEG these pixels differ from
//! libjpeg's (Pillow's) by 0.26 levels of 255 on average and by 5 at most.

use std::ffi::OsString;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use anyhow::Result;
use image::{ImageFormat, ImageReader, Limits, RgbImage};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;

use super::augment::resize::resize;
use super::cifar::CIFAR10_CLASSES;
use super::source::Source;
use super::{CIFAR10, CIFAR100, ImageSet, Normalisation};
use crate::usage;

/// Statistics of ImageNet, the usual choice for images whose own statistics are unknown.
pub const FOLDER: Normalisation = Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// Rows and columns an image may have at most.
const MAX_SIDE: u32 = 16_384;
/// Bytes that decoding one image may take at most.
const MAX_BYTES: u64 = 256 << 20;
/// Classes a set may have at most: labels are bytes.
const MAX_CLASSES: usize = 256;

/// Loads the images under `data_dir/train` and `data_dir/test` as RGB of `size` x `size`.
///
/// Class ids are the alphabetical order of the folders in `train`; `test` may lack classes. Images come by class, then by
/// file name, both in order of their bytes. Hidden files and folders are skipped. An image of another size is resized as
/// Pillow's bilinear filter does, not keeping its aspect; transparency is dropped. If the classes are those of CIFAR-10,
/// it is normalised as CIFAR-10 is, with the test images by the statistics of CIFAR-100 (SPEC 12); else by [`FOLDER`].
///
/// # Errors
/// A usage error that names the file or folder: missing or empty folders, more than 256 classes, a test class that `train`
/// lacks, anything that is no JPEG or PNG, and the first image in order that cannot be read, is damaged, or is larger than
/// 16,384 pixels a side or 256 MiB decoded.
pub fn load(data_dir: &Path, size: usize) -> Result<Source> {
    if size == 0 {
        return Err(usage!("image size 0: give at least 1 pixel"));
    }
    let train_dir = data_dir.join("train");
    let test_dir = data_dir.join("test");
    let classes = class_folders(&train_dir)?;
    if classes.len() > MAX_CLASSES {
        return Err(usage!(
            "{}: {} classes; at most {MAX_CLASSES} are supported, so move some of the folders away",
            train_dir.display(),
            classes.len()
        ));
    }
    let train = list_images(&train_dir, &classes, &classes)?;
    let test = list_images(&test_dir, &class_folders(&test_dir)?, &classes)?;

    let progress = ProgressBar::new((train.len() + test.len()) as u64);
    if let Ok(style) = ProgressStyle::with_template("loading images {wide_bar} {pos}/{len} {eta}") {
        progress.set_style(style);
    }
    let sets = decode_all(&train, size, &progress)
        .and_then(|train_set| Ok((train_set, decode_all(&test, size, &progress)?)));
    progress.finish_and_clear();
    let (train, test) = sets?;

    let (train_normalisation, test_normalisation) =
        if classes == CIFAR10_CLASSES { (CIFAR10, CIFAR100) } else { (FOLDER, FOLDER) };
    Ok(Source { classes, train, test, train_normalisation, test_normalisation })
}

/// An image still to be read.
struct Entry {
    path: PathBuf,
    label: u8,
}

/// Names in `folder` that are not hidden, ascending.
fn names_in(folder: &Path) -> Result<Vec<OsString>> {
    let unreadable = |error| {
        usage!("{}: cannot be read: {error}; put train/<class>/ and test/<class>/ there", folder.display())
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Names of the class folders in `folder`, ascending.
fn class_folders(folder: &Path) -> Result<Vec<String>> {
    let mut classes = Vec::new();
    for name in names_in(folder)? {
        let path = folder.join(&name);
        if !path.is_dir() {
            return Err(usage!(
                "{}: is no folder; only one folder a class may lie here, so move it away",
                path.display()
            ));
        }
        let name = name
            .into_string()
            .map_err(|_| usage!("{}: the class name is not UTF-8; rename the folder", path.display()))?;
        classes.push(name);
    }
    if classes.is_empty() {
        return Err(usage!(
            "{}: holds no class; put one folder a class there, with its images",
            folder.display()
        ));
    }
    Ok(classes)
}

/// The images in `folders` of `root`, whose labels are the positions in `classes`.
fn list_images(root: &Path, folders: &[String], classes: &[String]) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in folders {
        let folder = root.join(name);
        let label =
            classes.binary_search(name).ok().and_then(|class| u8::try_from(class).ok()).ok_or_else(|| {
                usage!(
                    "{}: the training set has no class {name}; add it there or remove it here",
                    folder.display()
                )
            })?;
        let before = entries.len();
        for file in names_in(&folder)? {
            let path = folder.join(file);
            if !has_image_extension(&path) || path.is_dir() {
                return Err(usage!(
                    "{}: is no image; only .jpg, .jpeg and .png files may lie in a class folder, so move it away",
                    path.display()
                ));
            }
            entries.push(Entry { path, label });
        }
        if entries.len() == before {
            return Err(usage!(
                "{}: holds no image; add .jpg, .jpeg or .png files or remove the folder",
                folder.display()
            ));
        }
    }
    Ok(entries)
}

/// Whether the name ends in .jpg, .jpeg or .png, in any case.
fn has_image_extension(path: &Path) -> bool {
    path.extension().is_some_and(|extension| {
        ["jpg", "jpeg", "png"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    })
}

/// Decodes all images on all threads; each has its own place, so the order does not depend on the threads.
fn decode_all(entries: &[Entry], size: usize, progress: &ProgressBar) -> Result<ImageSet> {
    let too_large = || {
        usage!(
            "{} images of {size}x{size} pixels do not fit into memory; choose a smaller image size",
            entries.len()
        )
    };
    let image_len = size.checked_mul(size).and_then(|pixels| pixels.checked_mul(3)).ok_or_else(too_large)?;
    let total = image_len.checked_mul(entries.len()).ok_or_else(too_large)?;
    let mut images = Vec::new();
    images.try_reserve_exact(total).map_err(|_| too_large())?;
    images.resize(total, 0);
    // The first error in order, whichever thread meets one first.
    let error = images.par_chunks_exact_mut(image_len).zip(entries).find_map_first(|(out, entry)| {
        let decoded = decode_resized(&entry.path, size, out);
        progress.inc(1);
        decoded.err()
    });
    match error {
        Some(error) => Err(error),
        None => {
            let labels = entries.iter().map(|entry| entry.label).collect();
            Ok(ImageSet { images, labels, height: size, width: size })
        }
    }
}

/// Decodes a JPEG or PNG file into RGB, within bounds of size and memory; alpha is dropped.
///
/// # Errors
/// A usage error naming the file and what is wrong with it.
pub fn decode(path: &Path) -> Result<RgbImage> {
    let damaged = |problem: &dyn std::fmt::Display| {
        usage!("{}: not a readable JPEG or PNG image: {problem}; replace or remove it", path.display())
    };
    let bytes = fs::read(path).map_err(|error| {
        usage!("{}: cannot be read: {error}; make it readable or remove it", path.display())
    })?;
    let mut reader =
        ImageReader::new(Cursor::new(&bytes)).with_guessed_format().map_err(|error| damaged(&error))?;
    match reader.format() {
        Some(ImageFormat::Jpeg) if !jpeg_is_complete(&bytes) => {
            return Err(damaged(&format_args!(
                "the JPEG data end at byte {} without end marker",
                bytes.len()
            )));
        }
        Some(ImageFormat::Jpeg | ImageFormat::Png) => {}
        _ => return Err(damaged(&"neither a JPEG nor a PNG signature at byte 0")),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    reader.limits(limits);
    Ok(reader.decode().map_err(|error| damaged(&error))?.into_rgb8())
}

/// Decodes a file into `out`, `size` x `size`, resized by Pillow's bilinear where it has another size.
fn decode_resized(path: &Path, size: usize, out: &mut [u8]) -> Result<()> {
    let image = decode(path)?;
    let (width, height) = (image.width() as usize, image.height() as usize);
    if (width, height) == (size, size) {
        out.copy_from_slice(image.as_raw());
    } else {
        out.copy_from_slice(&resize(image.as_raw(), [height, width], [size, size]));
    }
    Ok(())
}

/// Whether the markers of a JPEG file lead to its end-of-image marker. The decoder fills what a truncated file lacks with
/// grey and reports nothing, so that such a file would go unnoticed.
fn jpeg_is_complete(bytes: &[u8]) -> bool {
    const END_OF_IMAGE: u8 = 0xd9;
    // After the start-of-image marker.
    let mut at = 2;
    while let Some(skip) = bytes.get(at..).and_then(next_marker) {
        at += skip;
        match bytes[at - 1] {
            END_OF_IMAGE => return true,
            // Start of image and TEM stand alone.
            0x01 | 0xd8 => {}
            _ => {
                let Some(&[high, low]) = bytes.get(at..at + 2) else { return false };
                // Entropy-coded data after a scan's header have no length: the next marker ends them.
                at += usize::from(u16::from_be_bytes([high, low]));
            }
        }
    }
    false
}

/// Bytes up to and with the next marker; stuffed zeros, fill bytes and restart markers are none.
fn next_marker(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(2)
        .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff | 0xd0..=0xd7))
        .map(|at| at + 2)
}
