//! Images listed in CSV files with their candidate sets by name: what PASCAL VOC and a user's own lists share.
//!
//! The lists are the training set: no subset is taken of them and no candidate is drawn.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::Result;
use indicatif::ProgressBar;

use super::candidates::CandidateSets;
use super::decode::{Fit, decode_all, decode_square, loading_bar};
use super::recipe::{TestData, TrainingData};
use super::table::Table;
use super::{ImageSet, MAX_CLASSES, Normalisation};
use crate::usage;

/// Takes a candidate set apart into names.
pub type Split = fn(&str) -> Vec<&str>;

/// How a list is written.
pub struct Columns {
    /// The column with the image's path inside the images' folder.
    pub image: &'static str,
    /// The column with the name of the true class.
    pub label: &'static str,
    /// Whether every row must have a true class; else the field may be empty, or the column missing.
    pub every_label: bool,
    /// The column with the candidate set, and how it is taken apart; `None` for test images.
    pub candidates: Option<(&'static str, Split)>,
}

/// A list of images.
pub struct List {
    file: PathBuf,
    folder: PathBuf,
    /// `folder` without links.
    real_folder: PathBuf,
    rows: Vec<Row>,
}

/// An image of a list.
struct Row {
    /// Counted from 1.
    line: usize,
    /// Inside the list's folder.
    image: PathBuf,
    label: Option<String>,
    /// Distinct; empty for test images.
    candidates: Vec<String>,
}

impl List {
    /// Reads the list in `file`, whose images lie in `folder`.
    ///
    /// # Errors
    /// A usage error with file and line: whatever [`Table::read`] refuses, a missing column, no row, an image's path that is
    /// empty, leads out of the folder or stands there twice, a candidate set that is empty or names a class twice, a true
    /// class that is missing or not in its set.
    pub fn read(file: &Path, folder: &Path, columns: &Columns) -> Result<Self> {
        let table = Table::read(file)?;
        let image_column = table.required_column(columns.image)?;
        let label_column = match table.column(columns.label)? {
            None if columns.every_label => Some(table.required_column(columns.label)?),
            column => column,
        };
        let candidates = match columns.candidates {
            Some((name, split)) => Some((name, table.required_column(name)?, split)),
            None => None,
        };
        let shown = file.display();
        let mut rows = Vec::new();
        let mut lines: HashMap<PathBuf, usize> = HashMap::new();
        for (line, fields) in table.rows() {
            let field = |column: usize| -> Result<&str> {
                let text = fields[column].trim();
                match text.chars().find(|c| c.is_control()) {
                    Some(c) => {
                        Err(usage!("{shown}:{line}: the control character {c:?} in {text:?}; remove it"))
                    }
                    None => Ok(text),
                }
            };
            let image = inside(field(image_column)?).map_err(|problem| {
                usage!("{shown}:{line}: {} {:?}: {problem}", columns.image, &fields[image_column])
            })?;
            if let Some(first) = lines.insert(image.clone(), line) {
                return Err(usage!(
                    "{shown}:{line}: {} is listed on line {first} already; keep one of the rows",
                    image.display()
                ));
            }
            let label = label_column.map(field).transpose()?.filter(|label| !label.is_empty());
            if label.is_none() && columns.every_label {
                return Err(usage!("{shown}:{line}: the {} is missing; name the true class", columns.label));
            }
            let mut set = Vec::new();
            if let Some((name, column, split)) = candidates {
                set = split(field(column)?);
                check_set(&set, label).map_err(|problem| usage!("{shown}:{line}: {name}: {problem}"))?;
            }
            rows.push(Row {
                line,
                image,
                label: label.map(String::from),
                candidates: set.into_iter().map(String::from).collect(),
            });
        }
        if rows.is_empty() {
            return Err(usage!("{shown}: lists no image; add a row for each"));
        }
        let real_folder = fs::canonicalize(folder).map_err(|error| {
            usage!("{}: cannot be read: {error}; put the images of {shown} there", folder.display())
        })?;
        Ok(Self { file: file.into(), folder: folder.into(), real_folder, rows })
    }

    /// The names in all candidate sets, ascending.
    pub fn candidate_names(&self) -> BTreeSet<&str> {
        self.rows.iter().flat_map(|row| &row.candidates).map(String::as_str).collect()
    }

    /// Something wrong with a row, with file and line.
    fn at(&self, row: &Row, problem: impl std::fmt::Display) -> anyhow::Error {
        usage!("{}:{}: {problem}", self.file.display(), row.line)
    }

    /// The id of a class that a row names.
    fn id(&self, row: &Row, name: &str, classes: &Classes) -> Result<u8> {
        classes.ids.get(name).copied().ok_or_else(|| {
            self.at(row, format_args!("class {name:?} is unknown; correct it or {}", classes.remedy))
        })
    }

    fn labels(&self, classes: &Classes) -> Result<Vec<Option<u8>>> {
        let id = |row: &Row| row.label.as_deref().map(|name| self.id(row, name, classes)).transpose();
        self.rows.iter().map(id).collect()
    }

    fn candidates(&self, classes: &Classes) -> Result<CandidateSets> {
        let count = classes.names.len();
        let mut sets = CandidateSets { classes: count, rows: vec![0; self.rows.len() * count] };
        for (row, set) in self.rows.iter().zip(sets.rows.chunks_exact_mut(count)) {
            for name in &row.candidates {
                set[usize::from(self.id(row, name, classes)?)] = 1;
            }
        }
        Ok(sets)
    }

    /// The images in order of the rows, padded to a square and resized (SPEC 9).
    fn images(&self, size: usize, progress: &ProgressBar) -> Result<Vec<u8>> {
        decode_all(self.rows.len(), size, progress, |i, out| {
            let row = &self.rows[i];
            self.load(row, size, out).map_err(|error| self.at(row, error))
        })
    }

    fn load(&self, row: &Row, size: usize, out: &mut [u8]) -> Result<()> {
        let path = self.folder.join(&row.image);
        let shown = path.display();
        let real = fs::canonicalize(&path).map_err(|error| {
            usage!("{shown}: cannot be read: {error}; put the image there or remove the row")
        })?;
        if !real.starts_with(&self.real_folder) {
            return Err(usage!("{shown}: a link leads out of the folder; put the image itself there"));
        }
        if !real.is_file() {
            return Err(usage!("{shown}: is no file; name an image"));
        }
        decode_square(&path, size, Fit::Padded, out)
    }
}

/// A path that stays inside the folder it is relative to.
fn inside(text: &str) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return Err("must be a path inside the data's folder, relative and without .."),
        }
    }
    if path.as_os_str().is_empty() { Err("must name an image") } else { Ok(path) }
}

/// What a candidate set must be.
fn check_set(set: &[&str], label: Option<&str>) -> Result<(), String> {
    if set.is_empty() {
        return Err("the candidate set is empty; name the classes that it may be".into());
    }
    let mut seen = BTreeSet::new();
    for &name in set {
        if name.is_empty() {
            return Err("an empty name between separators; remove it".into());
        }
        if !seen.insert(name) {
            return Err(format!("class {name:?} stands twice in the candidate set; keep one"));
        }
    }
    match label {
        Some(label) if !seen.contains(label) => {
            Err(format!("the true class {label:?} is not in its candidate set; add it there or correct it"))
        }
        _ => Ok(()),
    }
}

/// The classes of a data set by name.
pub struct Classes {
    names: Vec<String>,
    ids: HashMap<String, u8>,
    /// What to do where a name is unknown, to follow "correct it or".
    remedy: String,
}

impl Classes {
    /// Classes whose ids are their positions in `names`. `file` is what they were found in.
    ///
    /// # Errors
    /// A usage error for fewer than two and for more than 256.
    pub fn new(names: Vec<String>, file: &Path, remedy: &str) -> Result<Self> {
        let (count, shown) = (names.len(), file.display());
        if count < 2 {
            return Err(usage!("{shown}: {count} class; training needs at least 2"));
        }
        if count > MAX_CLASSES {
            return Err(usage!(
                "{shown}: {count} classes; at most {MAX_CLASSES} are supported, so merge or remove some"
            ));
        }
        let ids = names.iter().cloned().zip(0u8..=255).collect();
        Ok(Self { names, ids, remedy: remedy.into() })
    }
}

/// A data set of listed images; the images are not read yet.
pub struct ListedSource {
    pub classes: Classes,
    pub train: List,
    /// `None` where there are no test images.
    pub test: Option<List>,
    /// Normalisation of training views and test images.
    pub normalisation: Normalisation,
    /// What a user should know of the lists, a line each.
    pub notes: Vec<String>,
}

impl ListedSource {
    /// Reads all images as RGB of `size` x `size`.
    ///
    /// # Errors
    /// A usage error with file and line: a class that is unknown, an image that is missing, damaged, too large or outside its
    /// folder. One without line for a class that no candidate set holds.
    pub fn training_data(self, size: usize) -> Result<TrainingData> {
        let Self { classes, train, test, normalisation, notes } = self;
        let candidates = train.candidates(&classes)?;
        if let Some(absent) = candidates.frequencies().iter().position(|&sets| sets == 0) {
            return Err(usage!(
                "{}: no candidate set holds the class {:?}; list images that may be of it or leave the class out",
                train.file.display(),
                classes.names[absent]
            ));
        }
        let labels = train.labels(&classes)?;
        let test_labels = test.as_ref().map(|list| list.labels(&classes)).transpose()?;

        let progress = loading_bar(train.rows.len() + test.as_ref().map_or(0, |list| list.rows.len()));
        let images = train.images(size, &progress).and_then(|train| {
            Ok((train, test.as_ref().map(|list| list.images(size, &progress)).transpose()?))
        });
        progress.finish_and_clear();
        let (images, test_images) = images?;
        Ok(TrainingData {
            classes: classes.names,
            index: (0..).take(labels.len()).collect(),
            train: ImageSet { images, labels, height: size, width: size },
            candidates,
            test: test_images.zip(test_labels).map(|(images, labels)| test_set(images, labels, size)),
            train_normalisation: normalisation,
            test_normalisation: normalisation,
            left_out: Vec::new(),
            notes,
        })
    }

    /// Reads the test images alone, as [`ListedSource::training_data`] does.
    ///
    /// # Errors
    /// As there.
    pub fn test_data(self, size: usize) -> Result<TestData> {
        let Self { classes, test, normalisation, .. } = self;
        let mut set = None;
        if let Some(list) = test {
            let labels = list.labels(&classes)?;
            let progress = loading_bar(list.rows.len());
            let images = list.images(size, &progress);
            progress.finish_and_clear();
            set = Some(test_set(images?, labels, size));
        }
        Ok(TestData { classes: classes.names, test: set, normalisation, left_out: Vec::new() })
    }
}

/// A test set, each of whose rows has its label: [`Columns::every_label`].
fn test_set(images: Vec<u8>, labels: Vec<Option<u8>>, size: usize) -> ImageSet {
    ImageSet { images, labels: labels.into_iter().flatten().collect(), height: size, width: size }
}
