//! PASCAL VOC 2007 in its partial-label version (SPEC 9): images with candidate sets, long-tailed by nature.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Candidates, DataSet, Opened};
use crate::data::Normalisation;
use crate::data::decode::Fit;
use crate::data::listed::{Classes, Columns, List, ListedSource};
use crate::usage;

/// PASCAL VOC 2007 with the candidate sets of its partial-label version.
pub static VOC2007: DataSet = DataSet {
    name: "voc",
    about: "PASCAL VOC 2007, partial-label version, long-tailed by nature",
    reads: "train_var/ and test/, or PLL/ or VOC2017/PLL/ with them",
    classes: Some(VOC_CLASSES.len()),
    image_size: 128,
    candidates: Candidates::Own,
    open: |_, folder, look| Opened::listed(open(folder)?, look),
    file: |folder, part, position| open(folder).ok()?.file(part, position),
    paths: Some(|folder, part| Ok(open(folder)?.paths(part))),
    normalisation: |_| VOC,
    fit: Fit::Padded,
    recognise: |folder| {
        let wrong = if folder.join(TEST_LIST).is_file() { "" } else { "; its test part is missing" };
        folder.join(TRAIN_LIST).is_file().then(|| ("PASCAL VOC".into(), wrong.into()))
    },
    ..DataSet::USUAL
};

/// Normalisation of training views and test images.
pub const VOC: Normalisation =
    Normalisation { mean: [0.2554, 0.2243, 0.2070], std: [0.2414, 0.2207, 0.2104] };

/// Class names by class id, which is their alphabetical order.
#[rustfmt::skip]
pub const VOC_CLASSES: [&str; 20] = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
];

const TRAIN_LIST: &str = "train_var/images_PLL.csv";
const TEST_LIST: &str = "test/images_uniform.csv";

const TRAIN_COLUMNS: Columns = Columns {
    image: "name",
    label: "label",
    every_label: true,
    candidates: Some(("label set", split)),
    separator: "a blank",
};
const TEST_COLUMNS: Columns = Columns { candidates: None, ..TRAIN_COLUMNS };

/// The classes between blanks. A class that occurs twice, as for two objects in a photograph, is in the set
/// once.
fn split(set: &str) -> Vec<&str> {
    let mut names: Vec<&str> = set.split_whitespace().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Reads the lists under `data_dir`, which is the folder with `train_var` and `test`, or holds it as `PLL` or
/// `VOC2017/PLL`.
///
/// # Errors
/// A usage error if that folder is not found, and those of [`List::read`].
pub fn open(data_dir: &Path) -> Result<ListedSource> {
    let root = find(data_dir)?;
    let train_list = root.join(TRAIN_LIST);
    let train = List::read(&train_list, &root.join("train_var/images"), &TRAIN_COLUMNS)?;
    let test = List::read(&root.join(TEST_LIST), &root.join("test/images"), &TEST_COLUMNS)?;
    let remedy = format!("unpack the data set again: its classes are {}", VOC_CLASSES.join(", "));
    let classes = Classes::new(VOC_CLASSES.map(String::from).to_vec(), &train_list, &remedy)?;
    Ok(ListedSource { classes, train, test: Some(test), normalisation: VOC, notes: Vec::new() })
}

fn find(data_dir: &Path) -> Result<PathBuf> {
    let mut roots = ["", "PLL", "VOC2017/PLL"].iter().map(|folder| data_dir.join(folder));
    roots.find(|root| root.join(TRAIN_LIST).is_file()).ok_or_else(|| {
        usage!(
            "{}: holds no {TRAIN_LIST}, nor does PLL or VOC2017/PLL in it; unpack the partial-label version of PASCAL VOC \
             2007 there",
            data_dir.display()
        )
    })
}
