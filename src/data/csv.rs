//! A user's own ambiguous data: `train.csv` lists images with their candidate sets, `test.csv` images with their true classes.
//! docs/data.md describes both.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::folder::FOLDER;
use super::listed::{Classes, Columns, List, ListedSource};
use super::table::read_text;
use crate::usage;

const TRAIN_COLUMNS: Columns =
    Columns { image: "path", label: "label", every_label: false, candidates: Some(("candidates", split)) };
const TEST_COLUMNS: Columns = Columns { every_label: true, candidates: None, ..TRAIN_COLUMNS };

/// Separates the classes of a candidate set: names may hold blanks, commas and semicolons.
const SEPARATOR: char = '|';

fn split(set: &str) -> Vec<&str> {
    if set.is_empty() { Vec::new() } else { set.split(SEPARATOR).map(str::trim).collect() }
}

/// Reads `train.csv` in `data_dir`, and `test.csv` and `classes.txt` where they are there.
///
/// Class ids are the positions in `classes.txt`, else the alphabetical order of all names in the candidate sets. Without
/// `test.csv` there are no test images. Images are normalised by [`FOLDER`].
///
/// # Errors
/// A usage error with file and line: as [`List::read`]; a name in `classes.txt` that stands there twice or cannot be in a set;
/// fewer than two classes or more than 256.
pub fn open(data_dir: &Path) -> Result<ListedSource> {
    let file = |name: &str| data_dir.join(name);
    // A link that leads nowhere is there, and an error.
    let is_there = |name: &str| fs::symlink_metadata(file(name)).is_ok();
    let train = List::read(&file("train.csv"), data_dir, &TRAIN_COLUMNS)?;
    let test = if is_there("test.csv") {
        Some(List::read(&file("test.csv"), data_dir, &TEST_COLUMNS)?)
    } else {
        None
    };
    let classes = if is_there("classes.txt") {
        let names = class_list(&file("classes.txt"))?;
        Classes::new(names, &file("classes.txt"), "add it to classes.txt")?
    } else {
        let names = train.candidate_names().into_iter().map(String::from).collect();
        Classes::new(names, &file("train.csv"), "list images that may be of it in train.csv")?
    };
    Ok(ListedSource { classes, train, test, normalisation: FOLDER, notes: Vec::new() })
}

/// One class a line; blank lines do not count.
fn class_list(path: &Path) -> Result<Vec<String>> {
    let text = read_text(path)?;
    let mut names = Vec::new();
    let mut lines = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let (number, name) = (number + 1, line.trim());
        if name.is_empty() {
            continue;
        }
        let wrong = |problem: &str| usage!("{}:{number}: class {name:?} {problem}", path.display());
        if name.contains(SEPARATOR) || name.contains(char::is_control) {
            return Err(wrong("holds | or a control character; rename it"));
        }
        if let Some(first) = lines.insert(name, number) {
            return Err(wrong(&format!("stands on line {first} already; keep one")));
        }
        names.push(name.to_string());
    }
    Ok(names)
}
