//! The list of data sets.
//!
//! A data set is a [`DataSet`] in a file of this folder, and an entry of [`ALL`]. Settings, messages, the
//! doctor, downloads and [`recipe`](super::recipe) read its properties from there; nothing else knows a data
//! set by name.

pub mod cifar;
pub mod csv;
pub mod folder;
pub mod idx;
pub mod synthetic;
pub mod voc;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::Result;

use super::Normalisation;
use super::archive::Archive;
use super::decode::Fit;
use super::fingerprint::{Outline, Part};
use super::listed::ListedSource;
use super::recipe::Recipe;
use super::source::LoadedData;
use crate::usage;

/// All data sets, in the order of lists.
pub static ALL: &[&DataSet] = &[
    &cifar::CIFAR10_LT,
    &cifar::CIFAR100_LT,
    &cifar::CIFAR100_LT_NU,
    &idx::MNIST,
    &idx::FASHION_MNIST,
    &idx::KMNIST,
    &folder::CLASS_FOLDERS,
    &voc::VOC2007,
    &csv::LISTED_IMAGES,
    &synthetic::MADE_UP,
];

/// The properties of a data set.
#[derive(Debug)]
pub struct DataSet {
    /// The word of `--dataset`.
    pub name: &'static str,
    /// Other words for it, such as the reference's; `_` counts as `-`.
    pub aliases: &'static [&'static str],
    /// What it is, in a few words.
    pub about: &'static str,
    /// What `--data-dir` holds.
    pub reads: &'static str,
    /// Number of classes, if it is fixed.
    pub classes: Option<usize>,
    /// How many images it has, where that is known without reading it.
    pub images: fn(&Recipe) -> Option<Images>,
    /// Default rows and columns of the network's input (SPEC 9).
    pub image_size: usize,
    /// Default imbalance factor mu.
    pub imb_factor: f64,
    /// Whether `--data-dir` must be given.
    pub needs_data_dir: bool,
    /// Where its candidate sets come from.
    pub candidates: Candidates,
    /// Its download.
    pub archive: Option<&'static Archive>,
    /// Opens it in a folder.
    pub open: Open,
    /// The file of an image by its position; `None` if images have no files of their own, or it cannot be
    /// found.
    pub file: fn(&Path, Part, usize) -> Option<String>,
    /// The files of all images of a part in order, relative to the folder; `None` where images have no files
    /// of their own.
    pub paths: Option<Paths>,
    /// Normalisation of test images, for a set with these classes.
    pub normalisation: fn(&[String]) -> Normalisation,
    /// How an image of another shape becomes a square.
    pub fit: Fit,
    /// Recognises it in a folder: what it is, and a remark to follow the folder's name.
    pub recognise: fn(&Path) -> Option<(String, String)>,
}

/// Lists the files of all images of a part.
pub type Paths = fn(&Path, Part) -> Result<Vec<PathBuf>>;

/// How many images of how many classes a data set has, before a subset is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Images {
    /// Classes.
    pub classes: usize,
    /// Training images.
    pub train: usize,
    /// Test images.
    pub test: usize,
}

/// Examines the outline of a data set before its images are read, and may refuse it.
pub type Look<'a> = &'a dyn Fn(&Outline) -> Result<()>;

/// Opens the data set of a recipe in a folder. A data set that reads its images one by one calls `Look`
/// first.
///
/// # Errors
/// Usage errors that name the flag, file or folder at fault.
pub type Open = fn(&Recipe, &Path, Look<'_>) -> Result<Opened>;

/// The origin of candidate sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Drawn, every wrong class with the same probability.
    Uniform,
    /// Drawn, classes of the same superclass (given for each class) with a higher probability; the run's seed
    /// shuffles the class counts, as in the reference.
    BySuperclass(&'static [u8]),
    /// Given in its lists, which are the training set: neither subset nor candidates are drawn.
    Own,
}

/// An opened data set.
pub enum Opened {
    /// Labelled images, from which a long-tailed subset is drawn.
    Labelled(Box<LoadedData>),
    /// Images with their candidate sets.
    Listed(Box<ListedSource>),
}

impl Opened {
    /// Listed images, unless `look` refuses them.
    fn listed(listed: ListedSource, look: Look<'_>) -> Result<Self> {
        look(&listed.outline()?)?;
        Ok(Opened::Listed(Box::new(listed)))
    }
}

impl DataSet {
    /// The common properties of most data sets; an entry overrides name, words and `open`.
    const USUAL: DataSet = DataSet {
        name: "",
        aliases: &[],
        about: "",
        reads: "",
        classes: None,
        images: |_| None,
        image_size: 32,
        imb_factor: 0.01,
        needs_data_dir: false,
        candidates: Candidates::Uniform,
        archive: None,
        open: |_, folder, _| Err(usage!("{}: nothing is read here", folder.display())),
        file: |_, _, _| None,
        paths: None,
        normalisation: |_| folder::FOLDER,
        fit: Fit::Stretched,
        recognise: |_| None,
    };
}

/// The names of all data sets.
pub fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|set| set.name)
}

/// The data set with the name or other word `word`.
pub fn find(word: &str) -> Option<&'static DataSet> {
    let word = word.replace('_', "-");
    ALL.iter().copied().find(|set| set.name == word || set.aliases.contains(&word.as_str()))
}

/// As [`find`].
///
/// # Errors
/// A usage error with all names.
pub fn named(word: &str) -> Result<&'static DataSet> {
    find(word).ok_or_else(|| usage!("--dataset {word}: must be {}", one_of()))
}

/// The names of all data sets, to follow "must be".
pub fn one_of() -> &'static str {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("one of {}", names().collect::<Vec<_>>().join(", ")));
    &TEXT
}

/// A default in words, with the data sets that differ from most: "1 for folder, else 0.01".
pub fn default_in_words<T: PartialEq + std::fmt::Display>(of: fn(&DataSet) -> T) -> String {
    let usual = of(&DataSet::USUAL);
    let others = ALL.iter().filter(|set| of(set) != usual);
    let others: Vec<String> = others.map(|set| format!("{} for {}", of(set), set.name)).collect();
    format!("{}, else {usual}", others.join(", "))
}

/// The downloads, each once.
pub fn archives() -> Vec<&'static Archive> {
    let mut archives: Vec<&Archive> = ALL.iter().filter_map(|set| set.archive).collect();
    archives.dedup_by_key(|archive| archive.word);
    archives
}

/// The words of all downloads: "cifar10 or cifar100".
pub fn archive_words() -> String {
    archives().iter().map(|archive| archive.word).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_one_data_set() {
        let words = |set: &DataSet| [&[set.name], set.aliases].concat();
        for set in ALL {
            for word in words(set) {
                assert!(std::ptr::eq(find(word).unwrap(), *set), "{word}");
                assert!(!word.contains('_') && !word.is_empty(), "{word}");
                let of = ALL.iter().filter(|other| words(other).contains(&word));
                assert_eq!(of.count(), 1, "{word}");
            }
            assert!(!set.about.is_empty() && !set.reads.is_empty(), "{}", set.name);
        }
        assert!(find("cifar10_im").is_some_and(|set| set.name == "cifar10-lt"));
        assert!(named("").is_err_and(|error| error.to_string().contains("cifar10-lt, ")));
    }

    #[test]
    fn downloads_are_found_by_their_words() {
        for archive in archives() {
            assert_eq!(find(archive.word).unwrap().archive.unwrap().word, archive.word);
        }
    }
}
