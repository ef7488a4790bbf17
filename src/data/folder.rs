//! A class-folder data set: `train/<class>/*` and `test/<class>/*`, JPEG or PNG.
//!
//! Class ids are the alphabetical order of the training folders' names, images are in order of file name within a class. Other
//! sizes are resized to the network's input (Pillow's bilinear). Hidden files are skipped; any other file that is no
//! image is an error, since a misspelt ending would otherwise drop data silently.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use image::{ImageReader, Limits};
use indicatif::ProgressBar;
use rayon::prelude::*;

use super::augment::resize::resize;
use super::source::Source;
use super::{CIFAR10, CIFAR100, ImageSet, Normalisation, cifar};
use crate::usage;

/// Normalisation of a folder whose classes are not CIFAR-10's: the customary figures of natural images (ImageNet's).
pub const FOLDER: Normalisation = Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// Largest side of an image that is read, pixels; and most memory its decoding may take.
const LARGEST_SIDE: u32 = 16_384;
const MOST_MEMORY: u64 = 256 << 20;

/// Visible entries of a folder, by name.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = |error| usage!("{}: cannot be read: {error}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// The class folders of a split with their names.
fn class_folders(split: &Path) -> Result<Vec<(String, PathBuf)>> {
    if !split.is_dir() {
        return Err(usage!("{}: no such folder; it must hold one folder of images a class", split.display()));
    }
    let mut classes = Vec::new();
    for path in entries(split)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.is_dir() {
            return Err(usage!(
                "{}: not a folder; {} must hold class folders only",
                path.display(),
                split.display()
            ));
        }
        classes.push((name, path));
    }
    if classes.is_empty() {
        return Err(usage!("{}: holds no class folder", split.display()));
    }
    Ok(classes)
}

/// The image files of a class.
fn image_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let files = entries(folder)?;
    for file in &files {
        let ending = file.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        if !["jpg", "jpeg", "png"].contains(&ending.as_str()) || !file.is_file() {
            return Err(usage!(
                "{}: not a .jpg, .jpeg or .png file; remove it from the data set",
                file.display()
            ));
        }
    }
    if files.is_empty() {
        return Err(usage!("{}: holds no image", folder.display()));
    }
    Ok(files)
}

/// Decodes a file into RGB with bounded memory.
///
/// # Errors
/// A usage error naming the file.
pub fn decode(file: &Path) -> Result<image::RgbImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(LARGEST_SIDE);
    limits.max_image_height = Some(LARGEST_SIDE);
    limits.max_alloc = Some(MOST_MEMORY);
    let opened = ImageReader::open(file).and_then(ImageReader::with_guessed_format);
    let mut reader = opened.map_err(|error| usage!("{}: cannot be read: {error}", file.display()))?;
    reader.limits(limits);
    let decoded = reader.decode();
    Ok(decoded.map_err(|error| usage!("{}: not a readable image: {error}", file.display()))?.into_rgb8())
}

/// Reads the files of a split, `(path, class)`, in order.
fn read(files: &[(PathBuf, u8)], size: usize, bar: &ProgressBar) -> Result<ImageSet> {
    let images: Vec<Vec<u8>> = files
        .par_iter()
        .map(|(file, _)| {
            let image = decode(file)?;
            bar.inc(1);
            let [height, width] = [image.height() as usize, image.width() as usize];
            let fits = height == size && width == size;
            let pixels = image.into_raw();
            Ok(if fits { pixels } else { resize(&pixels, [height, width], [size, size]) })
        })
        // The first failure in order, whichever thread meets one first.
        .collect::<Vec<Result<Vec<u8>>>>()
        .into_iter()
        .collect::<Result<_>>()?;
    let labels = files.iter().map(|(_, class)| *class).collect();
    Ok(ImageSet { images: images.concat(), labels, height: size, width: size })
}

/// Loads the data set in `folder`, every image `size` x `size`.
///
/// # Errors
/// Usage errors naming the folder or file at fault; nothing is half-loaded.
pub fn load(folder: &Path, size: usize) -> Result<Source> {
    if !folder.is_dir() {
        let shown = folder.display();
        return Err(usage!(
            "--data-dir {shown}: no such folder; it must hold train/<class>/* and test/<class>/*"
        ));
    }
    let train_folders = class_folders(&folder.join("train"))?;
    if train_folders.len() > 256 {
        let (shown, count) = (folder.display(), train_folders.len());
        return Err(usage!("{shown}: train holds {count} classes; at most 256 are supported"));
    }
    let classes: Vec<String> = train_folders.iter().map(|(name, _)| name.clone()).collect();
    let mut splits = [Vec::new(), Vec::new()];
    for (class, (_, path)) in (0u8..=255).zip(&train_folders) {
        splits[0].extend(image_files(path)?.into_iter().map(|file| (file, class)));
    }
    for (name, path) in class_folders(&folder.join("test"))? {
        let Some(class) = classes.iter().position(|known| *known == name) else {
            return Err(usage!("{}: class '{name}' is not among those of the training set", path.display()));
        };
        splits[1].extend(image_files(&path)?.into_iter().map(|file| (file, class as u8)));
    }
    let bar = ProgressBar::new((splits[0].len() + splits[1].len()) as u64).with_message("reading images");
    let sets: Result<Vec<ImageSet>> = splits.iter().map(|files| read(files, size, &bar)).collect();
    bar.finish_and_clear();
    let sets = sets?;
    let [train, test] =
        <[ImageSet; 2]>::try_from(sets).map_err(|_| anyhow::anyhow!("two splits were read"))?;
    // CIFAR-10 as pictures is still CIFAR-10, with the reference's constants for test images too (SPEC 12).
    let is_cifar10 = classes == cifar::CIFAR10_CLASSES;
    let (train_normalisation, test_normalisation) =
        if is_cifar10 { (CIFAR10, CIFAR100) } else { (FOLDER, FOLDER) };
    Ok(Source { classes, train, test, train_normalisation, test_normalisation })
}
