//! Images in one folder for each class: `train/<class>/*` and `test/<class>/*`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::cifar::CIFAR10_CLASSES;
use super::{DataSet, Opened};
use crate::data::decode::{
    EXTENSIONS, Fit, LoadedFiles, Unreadable, check_readable, has_image_extension, load_files, loading,
    turned_in_words,
};
use crate::data::fingerprint::{Outline, Part, Sizes};
use crate::data::left_out::{LeftOut, TEST_IMAGES, TRAINING_IMAGES};
use crate::data::lookalike::{self, Named, did_you_mean};
use crate::data::recipe::Positions;
use crate::data::source::LoadedData;
use crate::data::{CIFAR10, CIFAR100, ImageSet, MAX_CLASSES, Normalisation};
use crate::text::printable;
use crate::usage;

/// One folder for each class. By default all images are kept, since such a set may itself be long-tailed.
pub static CLASS_FOLDERS: DataSet = DataSet {
    name: "folder",
    about: "images of your own in one folder per class, candidate sets drawn",
    reads: "train/<class>/* and test/<class>/*, JPEG, PNG, WebP, BMP, TIFF or GIF",
    imb_factor: 1.0,
    needs_data_dir: true,
    open: |recipe, folder, look| {
        let listing = list(folder)?;
        // Those that cannot be read do not count.
        if recipe.unreadable == Unreadable::Refused {
            look(&listing.outline())?;
        }
        Ok(Opened::Labelled(Box::new(listing.load(recipe.image_size, recipe.unreadable)?)))
    },
    file: |folder, part, position| list(folder).ok()?.file(part, position),
    paths: Some(|folder, part| Ok(list(folder)?.paths(folder, part))),
    normalisation: |classes| normalisations(classes).1,
    recognise,
    ..DataSet::USUAL
};

/// The most folders that are searched, so that `--data-dir /` ends soon.
const MOST_FOLDERS: usize = 200;

/// The folders in `folder` in order of name, up to that limit.
pub fn folders_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).take(MOST_FOLDERS).collect();
    folders.sort();
    folders
}

fn recognise(folder: &Path) -> Option<(String, String)> {
    let classes = folders_in(&folder.join("train")).len();
    // Beside a list of images, the folders train and test hold the listed images.
    if classes < 2 || folder.join("train.csv").is_file() {
        return None;
    }
    let tested = folders_in(&folder.join("test")).len();
    let wrong = if tested == classes { "" } else { "; train and test must have the same classes" };
    Some(("class folders".into(), format!(": {classes} classes in train, {tested} in test{wrong}")))
}

/// Statistics of ImageNet, the usual choice for images whose own statistics are unknown.
pub const FOLDER: Normalisation = Normalisation { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// Loads the images under `data_dir/train` and `data_dir/test` as RGB of `size` x `size`.
///
/// Class ids are the alphabetical order of the folders in `train`; `test` may lack classes. Images are in
/// order of class, then of file name, both in byte order. Hidden files and folders, and files that operating
/// systems leave in folders, are skipped, and images among them are counted as left out. An image of another
/// size is resized with Pillow's bilinear filter, without keeping its aspect ratio; transparency is dropped.
/// If the classes are those of CIFAR-10, images are normalised as for CIFAR-10, the test images with the
/// statistics of CIFAR-100 (SPEC 12); otherwise with [`FOLDER`].
///
/// # Errors
/// A usage error that names the file or folder: missing or empty folders, more than 256 classes, classes that
/// look identical, a test class that `train` lacks, files that are no images, and all images that
/// cannot be read, are damaged, have more than 16,384 pixels on a side or take more than 256 MiB to decode.
pub fn load(data_dir: &Path, size: usize) -> Result<LoadedData> {
    list(data_dir)?.load(size, Unreadable::Refused)
}

/// The images of a set of class folders, not read yet.
pub struct Listing {
    classes: Vec<String>,
    train: Split,
    test: Split,
    notes: Vec<String>,
}

/// Normalisation of training views and of test images: CIFAR-10's where the classes are its own.
fn normalisations(classes: &[String]) -> (Normalisation, Normalisation) {
    if classes == CIFAR10_CLASSES { (CIFAR10, CIFAR100) } else { (FOLDER, FOLDER) }
}

/// Lists the images that [`load`] reads.
///
/// # Errors
/// Those of [`load`], except for the contents of images.
pub fn list(data_dir: &Path) -> Result<Listing> {
    let mut train = Split::new(data_dir, "train", TRAINING_IMAGES);
    let mut test = Split::new(data_dir, "test", TEST_IMAGES);
    let classes = train.class_folders()?;
    if classes.len() > MAX_CLASSES {
        return Err(usage!(
            "{}: {} classes; at most {MAX_CLASSES} are supported, so move some of the folders away",
            train.root.display(),
            classes.len()
        ));
    }
    let named = |name: &String| Named { name: name.clone(), place: format!("train/{}", printable(name)) };
    let mut notes = lookalike::check(data_dir, &classes.iter().map(named).collect::<Vec<_>>())?;
    train.list_images(&classes, &classes)?;
    let test_folders = test.class_folders()?;
    test.list_images(&test_folders, &classes)?;
    notes.extend(same_files(data_dir, &train.images, &test.images));
    Ok(Listing { classes, train, test, notes })
}

impl Listing {
    /// Class names and sizes.
    pub fn outline(&self) -> Outline {
        let sizes = |split: &Split| {
            let labels: Vec<Option<u8>> = split.images.iter().map(|entry| Some(entry.label)).collect();
            Sizes::of(&labels, self.classes.len())
        };
        let (train, test) = (sizes(&self.train), Some(sizes(&self.test)));
        Outline { classes: self.classes.clone(), train, test }
    }

    /// The file of an image by its position.
    pub fn file(&self, part: Part, position: usize) -> Option<String> {
        let split = if part == Part::Train { &self.train } else { &self.test };
        Some(split.images.get(position)?.path.display().to_string())
    }

    /// The files of all images of a part, relative to `data_dir` where they are in it.
    fn paths(&self, data_dir: &Path, part: Part) -> Vec<PathBuf> {
        let split = if part == Part::Train { &self.train } else { &self.test };
        let relative = |path: &PathBuf| path.strip_prefix(data_dir).unwrap_or(path).to_path_buf();
        split.images.iter().map(|entry| relative(&entry.path)).collect()
    }

    /// Reads the images; see [`load`].
    ///
    /// # Errors
    /// A usage error that names all images that cannot be read, unless they may be left out; then one for a
    /// class of which no training image, or a test set of which none, is left.
    pub fn load(self, size: usize, unreadable: Unreadable) -> Result<LoadedData> {
        let Self { classes, train, test, mut notes } = self;
        let progress = loading(train.images.len() + test.images.len());
        let load = |split: &Split| {
            load_files(&split.root, split.images.len(), (size, Fit::Stretched), &*progress, |i, decode| {
                decode(&split.images[i].path)
            })
        };
        let sets = load(&train).and_then(|of_train| Ok([of_train, load(&test)?]));
        drop(progress);
        let mut sets = sets?;
        check_readable(&mut sets.iter_mut().collect::<Vec<_>>(), unreadable)?;
        let mut left_out: Vec<LeftOut> = [&train, &test].into_iter().filter_map(Split::left_out).collect();
        left_out.extend(
            [&train, &test].into_iter().zip(&sets).filter_map(|(split, set)| set.left_out(split.what)),
        );
        notes.extend(turned_in_words(&sets.iter().collect::<Vec<_>>()));
        let positions = [0, 1].map(|part: usize| Positions(sets[part].positions()));
        let [of_train, of_test] = sets;
        let (train, test) = (train.image_set(of_train, size), test.image_set(of_test, size));
        if let Some(class) = train.class_sizes(classes.len()).iter().position(|&images| images == 0) {
            return Err(usage!(
                "no training image of class {} can be read; mend one or remove the class",
                printable(&classes[class])
            ));
        }
        let (train_normalisation, test_normalisation) = normalisations(&classes);
        Ok(LoadedData {
            classes,
            train,
            test,
            train_normalisation,
            test_normalisation,
            positions,
            left_out,
            notes,
        })
    }
}

/// An image still to be read.
struct UnreadImage {
    path: PathBuf,
    label: u8,
}

/// Files that operating systems leave in folders, in lower case; never samples.
const LITTER: [&str; 4] = ["thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"];

/// `train` or `test`: its images, and those that are skipped.
struct Split {
    root: PathBuf,
    /// What its images are called in messages.
    what: &'static str,
    images: Vec<UnreadImage>,
    /// Number of hidden images.
    hidden: usize,
    /// The first hidden image or folder with images.
    first_hidden: Option<PathBuf>,
}

impl Split {
    fn new(data_dir: &Path, name: &str, what: &'static str) -> Self {
        Self { root: data_dir.join(name), what, images: Vec::new(), hidden: 0, first_hidden: None }
    }

    /// Names in `folder` that are not hidden, ascending. Counts hidden images, including those directly in a
    /// hidden folder.
    fn names_in(&mut self, folder: &Path) -> Result<Vec<OsString>> {
        let unreadable = |error| {
            usage!(
                "{}: cannot be read: {error}; put train/<class>/ and test/<class>/ there",
                folder.display()
            )
        };
        let (mut names, mut hidden) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            if name.as_encoded_bytes().starts_with(b".") {
                hidden.push(name);
            } else if !name.to_str().is_some_and(|name| LITTER.contains(&name.to_lowercase().as_str())) {
                names.push(name);
            }
        }
        names.sort_unstable();
        hidden.sort_unstable();
        hidden.iter().for_each(|name| self.count_hidden(folder.join(name)));
        Ok(names)
    }

    fn count_hidden(&mut self, path: PathBuf) {
        // ._a.jpg is macOS metadata of a.jpg.
        let is_image = |path: &Path| {
            let name = path.file_name().unwrap_or_default();
            has_image_extension(path) && !name.as_encoded_bytes().starts_with(b"._")
        };
        let count = if path.is_dir() {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten();
            inside.filter(|entry| is_image(&entry.path())).count()
        } else {
            usize::from(is_image(&path))
        };
        if count > 0 {
            self.hidden += count;
            self.first_hidden.get_or_insert(path);
        }
    }

    /// The images that could be read, with their labels.
    fn image_set(&self, files: LoadedFiles, size: usize) -> ImageSet {
        let labels = files.readable.iter().map(|&i| self.images[i].label).collect();
        ImageSet { images: files.images, labels, height: size, width: size }
    }

    /// The skipped images.
    fn left_out(&self) -> Option<LeftOut> {
        let first = self.first_hidden.as_ref()?;
        let shown = printable(&first.strip_prefix(self.root.parent()?).unwrap_or(first).to_string_lossy());
        Some(LeftOut {
            count: self.hidden,
            of: self.hidden + self.images.len(),
            what: self.what,
            why: format!(
                "they are hidden, the first in {shown}; names that begin with a dot are skipped, so rename what is meant"
            ),
        })
    }

    /// Names of the class folders, ascending.
    fn class_folders(&mut self) -> Result<Vec<String>> {
        let root = self.root.clone();
        let mut classes = Vec::new();
        for name in self.names_in(&root)? {
            let path = root.join(&name);
            if !path.is_dir() {
                return Err(usage!(
                    "{}: is not a folder; only a folder for each class may be here, so move it away",
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
                "{}: holds no class; put a folder with images there for each class",
                root.display()
            ));
        }
        Ok(classes)
    }

    /// Lists the images in `folders`, whose labels are the positions in `classes`.
    fn list_images(&mut self, folders: &[String], classes: &[String]) -> Result<()> {
        for name in folders {
            let folder = self.root.join(name);
            let class = classes.binary_search(name).ok().and_then(|class| u8::try_from(class).ok());
            let label = class.ok_or_else(|| {
                let hint = did_you_mean(name, classes.iter().map(String::as_str));
                let hint = hint.map_or(String::new(), |hint| format!("; {hint}"));
                usage!(
                    "{}: the training set has no class {}{hint}; add it there or remove it here",
                    folder.display(),
                    printable(name)
                )
            })?;
            let before = self.images.len();
            for file in self.names_in(&folder)? {
                let path = folder.join(file);
                if path.is_dir() {
                    return Err(usage!(
                        "{}: is a folder; the images of a class must be directly in its folder, so move them up or it away",
                        path.display()
                    ));
                }
                if !has_image_extension(&path) {
                    return Err(usage!(
                        "{}: is not an image; only {EXTENSIONS} files may be in a class folder, so move it away",
                        path.display()
                    ));
                }
                self.images.push(UnreadImage { path, label });
            }
            if self.images.len() == before {
                return Err(usage!(
                    "{}: holds no image; add {EXTENSIONS} files or remove the folder",
                    folder.display()
                ));
            }
        }
        Ok(())
    }
}

/// Device and inode number of the file that a path leads to.
fn file_identity(path: &Path) -> Option<(u64, u64)> {
    #[cfg(unix)]
    return fs::metadata(path).ok().map(|file| {
        (std::os::unix::fs::MetadataExt::dev(&file), std::os::unix::fs::MetadataExt::ino(&file))
    });
    #[cfg(not(unix))]
    return path.as_os_str().is_empty().then_some((0, 0));
}

/// The remark about images that links make the same file: in two classes, or in both training and test.
fn same_files(data_dir: &Path, train: &[UnreadImage], test: &[UnreadImage]) -> Option<String> {
    let mut first: HashMap<(u64, u64), (&UnreadImage, bool)> = HashMap::new();
    let (mut count, mut example) = (0, None);
    let all = train.iter().map(|entry| (entry, false)).chain(test.iter().map(|entry| (entry, true)));
    for (entry, is_test) in all {
        let Some(file) = file_identity(&entry.path) else { continue };
        let (earlier, of_test) = *first.entry(file).or_insert((entry, is_test));
        if !std::ptr::eq(earlier, entry) && (earlier.label != entry.label || of_test != is_test) {
            count += 1;
            example.get_or_insert((earlier, entry));
        }
    }
    let (earlier, entry) = example?;
    let shown = |entry: &UnreadImage| {
        printable(&entry.path.strip_prefix(data_dir).unwrap_or(&entry.path).to_string_lossy())
    };
    Some(format!(
        "{count} images are links to files of another class or of the training set, the first {} ({}); remove one of each \
         unless this is intended",
        shown(entry),
        shown(earlier)
    ))
}
