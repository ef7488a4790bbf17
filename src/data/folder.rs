//! Images in one folder a class: `train/<class>/*` and `test/<class>/*`, JPEG or PNG.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use indicatif::ProgressBar;

use super::cifar::CIFAR10_CLASSES;
use super::decode::{Fit, decode_all, decode_square, loading_bar};
use super::source::Source;
use super::{CIFAR10, CIFAR100, ImageSet, MAX_CLASSES, Normalisation};
use crate::usage;

/// Statistics of ImageNet, the usual choice for images whose own statistics are unknown.
pub const FOLDER: Normalisation = Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

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

    let progress = loading_bar(train.len() + test.len());
    let sets = load_all(&train, size, &progress)
        .and_then(|train_set| Ok((train_set, load_all(&test, size, &progress)?)));
    progress.finish_and_clear();
    let (train, test) = sets?;

    let (train_normalisation, test_normalisation) =
        if classes == CIFAR10_CLASSES { (CIFAR10, CIFAR100) } else { (FOLDER, FOLDER) };
    Ok(Source {
        classes,
        train,
        test,
        train_normalisation,
        test_normalisation,
        left_out: Vec::new(),
        notes: Vec::new(),
    })
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

/// The images of all entries, in their order.
fn load_all(entries: &[Entry], size: usize, progress: &ProgressBar) -> Result<ImageSet> {
    let images = decode_all(entries.len(), size, progress, |i, out| {
        decode_square(&entries[i].path, size, Fit::Stretched, out)
    })?;
    let labels = entries.iter().map(|entry| entry.label).collect();
    Ok(ImageSet { images, labels, height: size, width: size })
}
