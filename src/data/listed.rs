//! Images listed in CSV files with their candidate sets by name: the common part of PASCAL VOC and a user's
//! own lists.
//!
//! The lists are the training set: no subset and no candidates are drawn.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Display, Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use csv::StringRecord;

use super::candidates::CandidateSets;
use super::decode::{Fit, LoadedFiles, Unreadable, check_readable, load_files, loading, turned_in_words};
use super::fingerprint::{Outline, Part, Sizes};
use super::image_path;
use super::left_out::{TEST_IMAGES, TRAINING_IMAGES};
use super::lookalike::did_you_mean;
use super::progress::WorkProgress;
use super::recipe::{Positions, TestData, TrainingData};
use super::several::{Names, is_several, words};
use super::table::Table;
use super::{ImageSet, MAX_CLASSES, Normalisation};
use crate::usage;

/// Splits a candidate set into names.
pub type Split = fn(&str) -> Vec<&str>;

/// The format of a list.
pub struct Columns {
    /// The column with the image's path inside the images' folder.
    pub image: &'static str,
    /// The column with the name of the true class.
    pub label: &'static str,
    /// Whether every row must have a true class; otherwise the field may be empty, or the column missing.
    pub every_label: bool,
    /// The column with the candidate set, and how to split it; `None` for test images.
    pub candidates: Option<(&'static str, Split)>,
    /// What separates the classes of a set, in words.
    pub separator: &'static str,
}

/// A list of images.
pub struct List {
    file: PathBuf,
    folder: PathBuf,
    /// `folder` with links resolved.
    real_folder: PathBuf,
    rows: Vec<ListedImage>,
    names: NameTable,
    separator: &'static str,
}

/// An image of a list.
struct ListedImage {
    /// Counted from 1.
    line: usize,
    /// Path inside the list's folder.
    image: Arc<Path>,
    /// Number of the true class's name.
    label: Option<u32>,
    /// Numbers of the candidates' names, distinct; empty for test images.
    candidates: Box<[u32]>,
}

/// The names of classes in a list, each stored once.
#[derive(Default)]
struct NameTable {
    numbers: HashMap<Arc<str>, u32>,
    /// Each with the line of its first occurrence.
    names: Vec<(Arc<str>, usize)>,
}

impl NameTable {
    fn number(&mut self, name: &str, line: usize) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let (name, number) = (Arc::from(name), self.names.len() as u32);
        self.numbers.insert(Arc::clone(&name), number);
        self.names.push((name, line));
        number
    }

    fn name(&self, number: u32) -> &str {
        &self.names[number as usize].0
    }
}

impl List {
    /// Reads the list in `file`, whose images are in `folder`.
    ///
    /// # Errors
    /// A usage error with file and line: whatever [`Table::read`] and
    /// [`TableRows::next_row`](super::table::TableRows::next_row) refuse, a missing column, no row, an
    /// image's path that is empty, leads out of the folder or occurs twice, a candidate set that is empty or
    /// names a class twice, a true class that is missing or not in its set.
    pub fn read(file: &Path, folder: &Path, columns: &Columns) -> Result<Self> {
        let table = Table::read(file)?;
        let reader = RowReader::new(file, &table, columns)?;
        let shown = file.display();
        let (mut rows, mut names) = (Vec::new(), NameTable::default());
        let mut lines: HashMap<Arc<Path>, usize> = HashMap::new();
        let mut records = table.rows()?;
        while let Some((line, fields)) = records.next_row()? {
            let row = reader.row(line, fields, &mut names)?;
            if let Some(first) = lines.insert(Arc::clone(&row.image), line) {
                return Err(usage!(
                    "{shown}:{line}: {} is listed on line {first} already; keep one of the rows",
                    row.image.display()
                ));
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Err(usage!("{shown}: lists no image; add a row for each"));
        }
        let real_folder = fs::canonicalize(folder).map_err(|error| {
            usage!("{}: cannot be read: {error}; put the images of {shown} there", folder.display())
        })?;
        let separator = columns.separator;
        Ok(Self { file: file.into(), folder: folder.into(), real_folder, rows, names, separator })
    }

    /// The names of all classes in the list, each with the line of its first occurrence.
    pub fn names(&self) -> Names<'_> {
        self.names.names.iter().map(|(name, line)| (&**name, *line)).collect()
    }

    /// Whether any candidate set has two classes or more.
    pub fn is_ambiguous(&self) -> bool {
        self.rows.iter().any(|row| row.candidates.len() > 1)
    }

    /// The list's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The usage error for a problem with a row, with file and line.
    fn at(&self, row: &ListedImage, problem: impl std::fmt::Display) -> anyhow::Error {
        usage!("{}:{}: {problem}", self.file.display(), row.line)
    }

    /// The id of a class that a row names.
    fn id(&self, row: &ListedImage, number: u32, classes: &Classes) -> Result<u8> {
        let name = self.names.name(number);
        classes.ids.get(name).copied().ok_or_else(|| {
            let known: HashSet<String> = classes.names.iter().map(|name| name.to_lowercase()).collect();
            let hint = match did_you_mean(name, classes.names.iter().map(String::as_str)) {
                Some(hint) => format!("; {hint}"),
                None if is_several(name, &known, &HashSet::new()).is_some() => {
                    format!("; separate the classes of a set with {}", self.separator)
                }
                None => String::new(),
            };
            self.at(row, format_args!("class {name:?} is unknown{hint}; correct it or {}", classes.remedy))
        })
    }

    fn labels(&self, classes: &Classes) -> Result<Vec<Option<u8>>> {
        let id = |row: &ListedImage| row.label.map(|name| self.id(row, name, classes)).transpose();
        self.rows.iter().map(id).collect()
    }

    fn candidates(&self, classes: &Classes) -> Result<CandidateSets> {
        let count = classes.names.len();
        crate::memory::ensure_room(
            crate::memory::product(&[self.rows.len(), count]),
            &format!("{}: {} candidate sets of {count} classes", self.file.display(), self.rows.len()),
            "split the data set",
        )?;
        let mut sets = CandidateSets { classes: count, rows: vec![0; self.rows.len() * count] };
        for (row, set) in self.rows.iter().zip(sets.rows.chunks_exact_mut(count)) {
            for &name in &row.candidates {
                set[usize::from(self.id(row, name, classes)?)] = 1;
            }
        }
        Ok(sets)
    }

    /// The images in the order of the rows, padded to a square and resized (SPEC 9).
    fn images(&self, size: usize, progress: &dyn WorkProgress) -> Result<LoadedFiles> {
        load_files(&self.file, self.rows.len(), (size, Fit::Padded), progress, |i, decode| {
            let row = &self.rows[i];
            self.load(row, decode).map_err(|error| self.at(row, error))
        })
    }

    /// Leaves out the rows at other positions than these.
    fn keep(&mut self, positions: &[usize]) {
        let mut rows = std::mem::take(&mut self.rows).into_iter().enumerate();
        self.rows = positions.iter().filter_map(|&kept| Some(rows.find(|(at, _)| *at == kept)?.1)).collect();
    }

    fn load(&self, row: &ListedImage, decode: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let path = self.folder.join(&row.image);
        let shown = path.display();
        let real = fs::canonicalize(&path).map_err(|error| {
            let remedy = image_path::remedy(&self.folder, &row.image)
                .unwrap_or_else(|| "put the image there or remove the row".into());
            usage!("{shown}: cannot be read: {error}; {remedy}")
        })?;
        if !real.starts_with(&self.real_folder) {
            return Err(usage!("{shown}: a link leads out of the folder; put the image itself there"));
        }
        if !real.is_file() {
            return Err(usage!("{shown}: is not a file; name an image"));
        }
        decode(&path)
    }
}

/// The positions of the fields in a list's rows, and how to read them.
struct RowReader<'a> {
    shown: Display<'a>,
    columns: &'a Columns,
    image: usize,
    label: Option<usize>,
    candidates: Option<(usize, Split)>,
}

impl<'a> RowReader<'a> {
    fn new(file: &'a Path, table: &Table, columns: &'a Columns) -> Result<Self> {
        let image = table.required_column(columns.image)?;
        let label = match table.column(columns.label)? {
            None if columns.every_label => Some(table.required_column(columns.label)?),
            column => column,
        };
        let candidates = match columns.candidates {
            Some((name, split)) => Some((table.required_column(name)?, split)),
            None => None,
        };
        Ok(Self { shown: file.display(), columns, image, label, candidates })
    }

    /// Reads a row of the list; its names go into `names`.
    fn row(&self, line: usize, fields: &StringRecord, names: &mut NameTable) -> Result<ListedImage> {
        let Self { shown, columns, .. } = self;
        let field = |column: usize| -> Result<&str> {
            let text = fields[column].trim();
            match text.chars().find(|c| c.is_control()) {
                Some(c) => Err(usage!(
                    "{shown}:{line}: the control character {c:?} in {text:?}; remove it (a set's classes are separated by {})",
                    columns.separator
                )),
                None => Ok(text),
            }
        };
        let image = image_path::inside(field(self.image)?).map_err(|problem| {
            usage!("{shown}:{line}: {} {:?}: {problem}", columns.image, &fields[self.image])
        })?;
        let label = self.label.map(field).transpose()?.filter(|label| !label.is_empty());
        if label.is_none() && columns.every_label {
            return Err(usage!("{shown}:{line}: the {} is missing; name the true class", columns.label));
        }
        let mut set = Vec::new();
        if let Some((column, split)) = self.candidates {
            set = split(field(column)?);
            check_set(&set, label, columns.separator).map_err(|problem| {
                let name = columns.candidates.map_or("", |(name, _)| name);
                usage!("{shown}:{line}: {name}: {problem}")
            })?;
        }
        Ok(ListedImage {
            line,
            image: image.into(),
            label: label.map(|name| names.number(name, line)),
            candidates: set.iter().map(|name| names.number(name, line)).collect(),
        })
    }
}

/// Checks a candidate set.
fn check_set(set: &[&str], label: Option<&str>, separator: &str) -> Result<(), String> {
    if set.is_empty() {
        return Err("the candidate set is empty; name the classes that it may be".into());
    }
    let mut seen = BTreeSet::new();
    for &name in set {
        if name.is_empty() {
            return Err("an empty name between separators; remove it".into());
        }
        if !seen.insert(name) {
            return Err(format!("class {name:?} occurs twice in the candidate set; keep one"));
        }
    }
    let Some(label) = label.filter(|label| !seen.contains(label)) else { return Ok(()) };
    let only_label = HashSet::from([label.to_lowercase()]);
    let remedy = match did_you_mean(label, set.iter().copied()) {
        Some(hint) => hint,
        None if set.iter().any(|name| {
            is_several(name, &only_label, &HashSet::new()).is_some() || words(name).contains(&label)
        }) =>
        {
            format!("separate the classes of a set with {separator}")
        }
        None => "add it there or correct it".into(),
    };
    Err(format!("the true class {label:?} is not in its candidate set; {remedy}"))
}

/// The classes of a data set by name.
pub struct Classes {
    names: Vec<String>,
    ids: HashMap<String, u8>,
    /// The remedy for an unknown name, to follow "correct it or".
    remedy: String,
}

impl Classes {
    /// Classes whose ids are their positions in `names`, which were found in `file`.
    ///
    /// # Errors
    /// A usage error for fewer than two classes or more than 256.
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
    /// Names of the classes; an id is a position in them.
    pub classes: Classes,
    /// Training images with their candidate sets.
    pub train: List,
    /// Test images; `None` if there are none.
    pub test: Option<List>,
    /// Normalisation of training views and test images.
    pub normalisation: Normalisation,
    /// What a user should know about the lists, one line each.
    pub notes: Vec<String>,
}

impl ListedSource {
    /// Class names and sizes.
    ///
    /// # Errors
    /// A usage error with file and line for a class that is unknown.
    pub fn outline(&self) -> Result<Outline> {
        let count = self.classes.names.len();
        let sizes = |list: &List| -> Result<Sizes> { Ok(Sizes::of(&list.labels(&self.classes)?, count)) };
        // An unknown name in a candidate set is reported before an unknown label.
        self.train.candidates(&self.classes)?;
        Ok(Outline {
            classes: self.classes.names.clone(),
            train: sizes(&self.train)?,
            test: self.test.as_ref().map(sizes).transpose()?,
        })
    }

    /// The file of an image by its position, with the line that lists it.
    pub fn file(&self, part: Part, position: usize) -> Option<String> {
        let list = if part == Part::Train { &self.train } else { self.test.as_ref()? };
        let row = list.rows.get(position)?;
        Some(format!("{}, line {}", list.folder.join(&row.image).display(), row.line))
    }

    /// The images' paths in the order of the rows, as the list has them.
    pub fn paths(&self, part: Part) -> Vec<PathBuf> {
        let list = if part == Part::Train { Some(&self.train) } else { self.test.as_ref() };
        list.map(|list| list.rows.iter().map(|row| row.image.to_path_buf()).collect()).unwrap_or_default()
    }

    /// Reads all images as RGB of `size` x `size`.
    ///
    /// # Errors
    /// A usage error with file and line: a class that is unknown; unless they may be left out, images that are
    /// missing, damaged, too large or outside their folder. One without line for a class that no candidate set
    /// holds.
    pub fn training_data(self, size: usize, unreadable: Unreadable) -> Result<TrainingData> {
        let outline = self.outline()?;
        let Self { classes, mut train, mut test, normalisation, mut notes } = self;
        check_classes(&train, &classes)?;
        let progress = loading(train.rows.len() + test.as_ref().map_or(0, |list| list.rows.len()));
        let mut images = train.images(size, &*progress)?;
        let mut of_test = test.as_ref().map(|list| list.images(size, &*progress)).transpose()?;
        drop(progress);
        let mut sets: Vec<&mut LoadedFiles> = std::iter::once(&mut images).chain(&mut of_test).collect();
        check_readable(&mut sets, unreadable)?;

        train.keep(&images.readable);
        let candidates = check_classes(&train, &classes)?;
        let labels = train.labels(&classes)?;
        let index = images.readable.iter().map(|&position| position as i32).collect();
        let left_out =
            [images.left_out(TRAINING_IMAGES), of_test.as_ref().and_then(|set| set.left_out(TEST_IMAGES))];
        notes.extend(turned_in_words(&std::iter::once(&images).chain(&of_test).collect::<Vec<_>>()));
        let test_positions = of_test.as_ref().and_then(LoadedFiles::positions);
        let test =
            test.as_mut().zip(of_test).map(|(list, set)| list.test_set(set, &classes, size)).transpose()?;
        Ok(TrainingData {
            outline,
            classes: classes.names,
            index,
            train: ImageSet { images: images.images, labels, height: size, width: size },
            candidates,
            test,
            test_positions: Positions(test_positions),
            train_normalisation: normalisation,
            test_normalisation: normalisation,
            left_out: left_out.into_iter().flatten().collect(),
            notes,
        })
    }

    /// Reads the test images alone, as [`ListedSource::training_data`] does.
    ///
    /// # Errors
    /// The same errors.
    pub fn test_data(self, size: usize, unreadable: Unreadable) -> Result<TestData> {
        let outline = self.outline()?;
        let Self { classes, test, normalisation, .. } = self;
        let (mut set, mut left_out, mut positions) = (None, None, None);
        if let Some(mut list) = test {
            list.labels(&classes)?;
            let progress = loading(list.rows.len());
            let images = list.images(size, &*progress);
            drop(progress);
            let mut images = images?;
            check_readable(&mut [&mut images], unreadable)?;
            (left_out, positions) = (images.left_out(TEST_IMAGES), images.positions());
            set = Some(list.test_set(images, &classes, size)?);
        }
        Ok(TestData {
            outline,
            classes: classes.names,
            test: set,
            positions: Positions(positions),
            normalisation,
            left_out: left_out.into_iter().collect(),
        })
    }
}

/// The candidate sets of a list, each class in one of them at least.
fn check_classes(list: &List, classes: &Classes) -> Result<CandidateSets> {
    let candidates = list.candidates(classes)?;
    match candidates.frequencies().iter().position(|&sets| sets == 0) {
        None => Ok(candidates),
        Some(absent) => Err(usage!(
            "{}: no candidate set holds the class {:?}; list images that may be of it or leave the class out",
            list.file.display(),
            classes.names[absent]
        )),
    }
}

impl List {
    /// The test set of a list in which every row has a label ([`Columns::every_label`]), of the images that
    /// could be read.
    fn test_set(&mut self, images: LoadedFiles, classes: &Classes, size: usize) -> Result<ImageSet> {
        self.keep(&images.readable);
        let labels = self.labels(classes)?.into_iter().flatten().collect();
        Ok(ImageSet { images: images.images, labels, height: size, width: size })
    }
}
