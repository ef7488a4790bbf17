//! A user's own ambiguous data: `train.csv` lists images with their candidate sets, `test.csv` images with
//! their true classes. docs/data.md describes the format.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::folder::FOLDER;
use super::{Candidates, DataSet, Opened};
use crate::data::decode::Fit;
use crate::data::listed::{Classes, Columns, List, ListedSource};
use crate::data::lookalike::{self, Named};
use crate::data::several;
use crate::data::table::{numbered_lines, read_text};
use crate::usage;

/// A user's own images and candidate sets.
pub static LISTED_IMAGES: DataSet = DataSet {
    name: "csv",
    about: "images of your own with candidate sets of your own",
    reads: "train.csv and the images it lists; test.csv and classes.txt may be there",
    needs_data_dir: true,
    candidates: Candidates::Own,
    open: |_, folder, look| Opened::listed(open(folder)?, look),
    file: |folder, part, position| open(folder).ok()?.file(part, position),
    paths: Some(|folder, part| Ok(open(folder)?.paths(part))),
    fit: Fit::Padded,
    recognise: |folder| {
        let is_file = |name: &str| folder.join(name).is_file();
        let tested = if is_file("test.csv") { "and test.csv" } else { "without test.csv" };
        is_file("train.csv").then(|| ("listed images".into(), format!(": train.csv {tested}")))
    },
    ..DataSet::USUAL
};

const TRAIN_COLUMNS: Columns = Columns {
    image: "path",
    label: "label",
    every_label: false,
    candidates: Some(("candidates", split)),
    separator: "|",
};
const TEST_COLUMNS: Columns = Columns { every_label: true, candidates: None, ..TRAIN_COLUMNS };

/// Separates the classes of a candidate set; names may contain blanks, commas and semicolons.
const SEPARATOR: char = '|';

fn split(set: &str) -> Vec<&str> {
    if set.is_empty() { Vec::new() } else { set.split(SEPARATOR).map(str::trim).collect() }
}

/// Reads `train.csv` in `data_dir`, and `test.csv` and `classes.txt` if they exist.
///
/// Class ids are the positions in `classes.txt`, else the alphabetical order of all names in the candidate
/// sets. Without `test.csv` there are no test images. Images are normalised by [`FOLDER`].
///
/// # Errors
/// A usage error with file and line: those of [`List::read`]; a name in `classes.txt` that occurs twice or
/// cannot be in a set; fewer than two classes or more than 256; a name that is several, or looks identical to
/// another.
pub fn open(data_dir: &Path) -> Result<ListedSource> {
    let file = |name: &str| data_dir.join(name);
    // A dangling link counts as existing, and is an error below.
    let is_there = |name: &str| fs::symlink_metadata(file(name)).is_ok();
    let train = List::read(&file("train.csv"), data_dir, &TRAIN_COLUMNS)?;
    let test = if is_there("test.csv") {
        Some(List::read(&file("test.csv"), data_dir, &TEST_COLUMNS)?)
    } else {
        None
    };
    let test_names = test.as_ref().map(List::names).unwrap_or_default();
    let (classes, notes) = if is_there("classes.txt") {
        declared(data_dir)?
    } else {
        found(data_dir, &train, &test_names.into_keys().collect())?
    };
    Ok(ListedSource { classes, train, test, normalisation: FOLDER, notes })
}

/// The classes that `classes.txt` declares, and warnings about their names.
fn declared(data_dir: &Path) -> Result<(Classes, Vec<String>)> {
    let file = data_dir.join("classes.txt");
    let names = class_list(&file)?;
    let named =
        |(name, line): &(String, usize)| Named { name: name.clone(), place: format!("classes.txt:{line}") };
    let notes = lookalike::check(data_dir, &names.iter().map(named).collect::<Vec<_>>())?;
    let names = names.into_iter().map(|(name, _)| name).collect();
    Ok((Classes::new(names, &file, "add it to classes.txt")?, notes))
}

/// The classes in the candidate sets of `train`, and warnings about their names. `certain` are names that
/// occur elsewhere as single names.
fn found(data_dir: &Path, train: &List, certain: &HashSet<&str>) -> Result<(Classes, Vec<String>)> {
    let file = train.file();
    let names = train.names();
    let mut notes = several::check(&names, certain, train.is_ambiguous())
        .map_err(|(line, problem)| usage!("{}:{line}: {problem}", file.display()))?;
    let classes = names.keys().map(ToString::to_string).collect();
    let classes = Classes::new(classes, file, "list images that may be of it in train.csv")?;
    let named =
        |(name, line): (&&str, &usize)| Named { name: name.to_string(), place: format!("train.csv:{line}") };
    notes.extend(lookalike::check(data_dir, &names.iter().map(named).collect::<Vec<_>>())?);
    Ok((classes, notes))
}

/// The classes in a file with one on each line, with their line numbers; blank lines are ignored.
fn class_list(path: &Path) -> Result<Vec<(String, usize)>> {
    let mut names = Vec::new();
    let mut lines = HashMap::new();
    for (number, line) in numbered_lines(&read_text(path)?) {
        let name = line.trim();
        if name.is_empty() {
            continue;
        }
        let wrong = |problem: &str| usage!("{}:{number}: class {name:?} {problem}", path.display());
        if name.contains(SEPARATOR) || name.contains(char::is_control) {
            return Err(wrong("contains | or a control character; rename it"));
        }
        if let Some(first) = lines.insert(name.to_string(), number) {
            return Err(wrong(&format!("is on line {first} already; keep one")));
        }
        names.push((name.to_string(), number));
    }
    Ok(names)
}
