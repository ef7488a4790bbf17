//! Fingerprints of data, to check that a run is resumed on the same data: confidence rows belong to samples
//! by position, weights to class ids.
//!
//! An [`Outline`], class names and numbers of images, is known before any image is read. A [`Fingerprint`]
//! holds the outline and digests of everything that a run reads, in the order of reading: decoded pixels,
//! true classes, candidate sets. File names, times and the folder are not part of it, since they change no
//! result. Digests are SHA-256: one of all rows together, and the first 32 bits of one for each block of
//! rows, which locate a change.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::recipe::{TestData, TrainingData};
use super::{ImageSet, Normalisation};
use crate::text::{hex, printable};

/// The most blocks in a part of a fingerprint; in a small data set each row is a block.
const BLOCKS: usize = 2048;
/// Hexadecimal digits kept of a block's digest.
const BLOCK_DIGITS: usize = 8;

/// Number of images in all, and in each class if all true classes are known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// In all classes together.
    pub images: usize,
    /// `[K]`.
    pub of_class: Option<Vec<usize>>,
}

impl Sizes {
    /// The sizes of images with these true classes, which are below `classes`.
    pub fn of(labels: &[Option<u8>], classes: usize) -> Self {
        let mut sizes = vec![0; classes];
        labels.iter().flatten().for_each(|&label| sizes[usize::from(label)] += 1);
        let known = labels.iter().all(Option::is_some);
        Self { images: labels.len(), of_class: known.then_some(sizes) }
    }
}

/// Class names and sizes of a data set, known before its images are read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Class names in order of class id, `[K]`.
    pub classes: Vec<String>,
    /// All training images, from which a subset may be drawn.
    pub train: Sizes,
    /// Test images; `None` if there are none.
    pub test: Option<Sizes>,
}

impl Outline {
    /// The changes from `self` to `now`, each as a phrase; empty if both are the same.
    pub fn changes(&self, now: &Self) -> Vec<String> {
        let mut changes = self.class_changes(now);
        if changes.is_empty() {
            changes.extend(size_changes("training", Some(&self.train), Some(&now.train), &self.classes));
            changes.extend(self.test_size_changes(now));
        }
        changes
    }

    /// The changes of class names and test images only.
    pub fn test_changes(&self, now: &Self) -> Vec<String> {
        let mut changes = self.class_changes(now);
        if changes.is_empty() {
            changes.extend(self.test_size_changes(now));
        }
        changes
    }

    /// The changes of the class names.
    pub fn class_changes(&self, now: &Self) -> Vec<String> {
        let (was, is) = (&self.classes, &now.classes);
        if was == is {
            return Vec::new();
        }
        let missing = |from: &[String], other: &[String]| -> Vec<String> {
            let left = from.iter().filter(|name| !other.contains(name));
            left.map(|name| format!("'{}'", printable(name))).collect()
        };
        let (gone, new) = (missing(was, is), missing(is, was));
        let first = was.iter().zip(is).position(|(was, is)| was != is);
        if let (true, true, Some(at)) = (gone.is_empty(), new.is_empty(), first) {
            let (was, is) = (printable(&was[at]), printable(&is[at]));
            return vec![format!(
                "the classes are in another order: class {at} is now '{is}', it was '{was}'"
            )];
        }
        let mut changes = Vec::new();
        if !gone.is_empty() {
            changes.push(named(&gone, "no longer there"));
        }
        if !new.is_empty() {
            changes.push(named(&new, "new"));
        }
        changes
    }

    fn test_size_changes(&self, now: &Self) -> Option<String> {
        size_changes("test", self.test.as_ref(), now.test.as_ref(), &self.classes)
    }
}

/// "class 'a' is new" or "classes 'a', 'b' are new".
fn named(names: &[String], what: &str) -> String {
    let (noun, verb) = if names.len() == 1 { ("class", "is") } else { ("classes", "are") };
    format!("{noun} {} {verb} {what}", short_list(names))
}

fn size_changes(what: &str, was: Option<&Sizes>, now: Option<&Sizes>, classes: &[String]) -> Option<String> {
    let images = |sizes: Option<&Sizes>| sizes.map_or("no".into(), |sizes| sizes.images.to_string());
    if was == now {
        return None;
    }
    let (Some(Sizes { of_class: Some(was_of), .. }), Some(Sizes { of_class: Some(now_of), .. })) = (was, now)
    else {
        if images(was) == images(now) {
            return Some(format!("the true classes of {what} images are given in other rows"));
        }
        let was = if was.is_none() { "none".into() } else { images(was) };
        return Some(format!("there are {} {what} images, there were {was}", images(now)));
    };
    let of_classes = was_of.iter().zip(now_of).zip(classes).filter(|((was, now), _)| was != now);
    let of_classes: Vec<String> = of_classes
        .map(|((was, now), name)| {
            let plural = if *now == 1 { "" } else { "s" };
            format!("class '{}' has {now} {what} image{plural}, it had {was}", printable(name))
        })
        .collect();
    Some(short_list(&of_classes))
}

/// The first three items, and how many more there are.
fn short_list(items: &[String]) -> String {
    let shown = items.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > 3 { format!("{shown} and {} more", items.len() - 3) } else { shown }
}

/// Digests of rows in their order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RowDigests {
    rows: usize,
    /// SHA-256 over the digests of all rows, hexadecimal.
    whole: String,
    /// The first digits of each block's digest, concatenated.
    blocks: String,
}

/// SHA-256 of a row.
type RowDigest = [u8; 32];

fn row_digest(bytes: &[u8]) -> RowDigest {
    Sha256::digest(bytes).into()
}

fn digests<'a>(count: usize, row: impl Fn(usize) -> &'a [u8] + Sync) -> Vec<RowDigest> {
    (0..count).into_par_iter().with_min_len(16).map(|i| row_digest(row(i))).collect()
}

fn hex_of(digests: &[RowDigest]) -> String {
    let mut context = Sha256::new();
    digests.iter().for_each(|row| context.update(row));
    hex(&context.finalize())
}

/// Rows in a block of a set of `rows` rows.
fn block_rows(rows: usize) -> usize {
    rows.div_ceil(BLOCKS).max(1)
}

impl RowDigests {
    fn of(digests: &[RowDigest]) -> Self {
        let mut blocks = String::new();
        for block in digests.chunks(block_rows(digests.len())) {
            blocks.push_str(&hex_of(block)[..BLOCK_DIGITS]);
        }
        Self { rows: digests.len(), whole: hex_of(digests), blocks }
    }

    /// The ranges (first and last row) in which `now` differs; empty if all rows are the same.
    fn differing(&self, now: &Self) -> Vec<[usize; 2]> {
        let mut ranges: Vec<[usize; 2]> = Vec::new();
        if self == now {
            return ranges;
        }
        let len = block_rows(self.rows);
        let block = |rows: &Self, i: usize| {
            rows.blocks.get(i * BLOCK_DIGITS..(i + 1) * BLOCK_DIGITS).map(String::from)
        };
        let count = self.rows.div_ceil(len);
        let differs = |&i: &usize| block(self, i) != block(now, i);
        for i in (0..count).filter(differs) {
            let (first, last) = (i * len, ((i + 1) * len).min(self.rows) - 1);
            match ranges.last_mut() {
                Some(range) if range[1] + 1 == first => range[1] = last,
                _ => ranges.push([first, last]),
            }
        }
        // The digests of two blocks may by chance begin with the same digits; the whole digest still differs.
        if ranges.is_empty() {
            ranges.push([0, self.rows.saturating_sub(1)]);
        }
        ranges
    }
}

/// Returns the name of a sample's file by the sample's position; `None` if it has no file.
pub type FileOf<'a> = &'a dyn Fn(Part, usize) -> Option<String>;

/// A part of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The training images.
    Train,
    /// The test images.
    Test,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Part::Train => "training",
            Part::Test => "test",
        }
    }
}

/// "training sample 3 (now dog/7.jpg)" or "training samples 512 to 543", at most three and how many more.
/// Files are named if the ranges are `exact`, not of whole blocks.
fn shown(part: Part, ranges: &[[usize; 2]], exact: bool, file_of: FileOf<'_>) -> String {
    let rows: usize = ranges.iter().map(|[first, last]| last - first + 1).sum();
    let first_rows = ranges.iter().flat_map(|[first, last]| *first..=*last).take(if exact { 3 } else { 0 });
    let files: Option<Vec<String>> =
        first_rows.map(|row| Some(format!("{row} (now {})", printable(&file_of(part, row)?)))).collect();
    let range = |[first, last]: &[usize; 2]| {
        if first == last { first.to_string() } else { format!("{first} to {last}") }
    };
    let places = match files {
        Some(mut files) if !files.is_empty() => {
            files.resize(rows, String::new());
            files
        }
        _ => ranges.iter().map(range).collect(),
    };
    let plural = if rows == 1 { "" } else { "s" };
    format!("{} sample{plural} {}", part.word(), short_list(&places))
}

/// Digests of a set of images with their normalisation, labels and candidate sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SetPrint {
    /// Height and width, pixels.
    size: [usize; 2],
    /// Mean and standard deviation, as bits.
    normalisation: [u32; 6],
    images: RowDigests,
    labels: RowDigests,
    /// `None` for test images, which have none.
    candidates: Option<RowDigests>,
    /// SHA-256 over the samples sorted by digest: unchanged if samples only change places.
    unordered: String,
}

impl SetPrint {
    fn of<Label: Copy + Into<Option<u8>> + Sync>(
        set: &ImageSet<Label>,
        candidates: Option<(&[u8], usize)>,
        normalisation: Normalisation,
    ) -> Self {
        let images = digests(set.len(), |i| set.image(i));
        let labels: Vec<[u8; 2]> =
            set.labels.iter().map(|&label| label.into().map_or([0, 0], |label| [1, label])).collect();
        let labels = digests(set.len(), |i| &labels[i]);
        let candidates =
            candidates.map(|(rows, classes)| digests(set.len(), |i| &rows[i * classes..(i + 1) * classes]));
        let mut samples: Vec<RowDigest> = (0..set.len())
            .map(|i| {
                let candidates = candidates.as_ref().map_or([0; 32], |rows| rows[i]);
                row_digest([images[i], labels[i], candidates].as_flattened())
            })
            .collect();
        samples.sort_unstable();
        Self {
            size: [set.height, set.width],
            normalisation: normalisation.flat().map(f32::to_bits),
            images: RowDigests::of(&images),
            labels: RowDigests::of(&labels),
            candidates: candidates.as_deref().map(RowDigests::of),
            unordered: hex_of(&samples),
        }
    }

    /// The changes from `self` to `now`.
    fn changes(&self, now: &Self, part: Part, file_of: FileOf<'_>) -> Vec<String> {
        let what = part.word();
        if self == now {
            return Vec::new();
        }
        if self.images.rows != now.images.rows {
            return vec![format!(
                "there are {} {what} samples, there were {}",
                now.images.rows, self.images.rows
            )];
        }
        let mut changes = Vec::new();
        if self.size != now.size {
            let text = |[height, width]: [usize; 2]| format!("{width}x{height}");
            changes.push(format!("{what} images are {}, they were {}", text(now.size), text(self.size)));
        }
        if self.normalisation != now.normalisation {
            changes.push(format!("the normalisation of {what} images is another"));
        }
        let candidates = self.candidates.as_ref().zip(now.candidates.as_ref());
        let parts = [
            ("the pixels", self.images.differing(&now.images)),
            ("the true classes", self.labels.differing(&now.labels)),
            ("the candidate sets", candidates.map_or(Vec::new(), |(was, now)| was.differing(now))),
        ];
        let moved = self.unordered == now.unordered;
        for (name, ranges) in parts.iter().filter(|(_, ranges)| !ranges.is_empty()) {
            let places = shown(part, ranges, block_rows(self.images.rows) == 1, file_of);
            if moved {
                changes
                    .push(format!("the {what} samples are the same in another order: others are {places}"));
                break;
            }
            changes.push(format!("{name} differ in {places}"));
        }
        changes
    }
}

/// The fingerprint of the data that a run read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    outline: Outline,
    train: SetPrint,
    /// `None` where there are no test images.
    test: Option<SetPrint>,
}

impl Fingerprint {
    /// The fingerprint of a run's data. Hashes every byte of it, on all threads.
    pub fn of(data: &TrainingData) -> Self {
        let sets = Some((&data.candidates.rows[..], data.candidates.classes));
        Self {
            outline: data.outline.clone(),
            train: SetPrint::of(&data.train, sets, data.train_normalisation),
            test: data.test.as_ref().map(|test| SetPrint::of(test, None, data.test_normalisation)),
        }
    }

    /// Class names and sizes.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// The changes from `self` to `now`, each as a phrase; empty if both are of the same data. `file_of`
    /// names files of `now`.
    pub fn changes(&self, now: &Self, file_of: FileOf<'_>) -> Vec<String> {
        let mut changes = self.outline.changes(&now.outline);
        if !changes.is_empty() {
            return changes;
        }
        changes.extend(self.train.changes(&now.train, Part::Train, file_of));
        if let (Some(was), Some(now)) = (&self.test, &now.test) {
            changes.extend(was.changes(now, Part::Test, file_of));
        }
        changes
    }

    /// The changes of the test images, each as a phrase; empty if they are the same, or if the run had none.
    pub fn test_changes(&self, now: &TestData, file_of: FileOf<'_>) -> Vec<String> {
        let (Some(was), Some(test)) = (&self.test, &now.test) else { return Vec::new() };
        let changes = self.outline.test_changes(&now.outline);
        if !changes.is_empty() {
            return changes;
        }
        was.changes(&SetPrint::of(test, None, now.normalisation), Part::Test, file_of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::candidates::CandidateSets;

    /// `samples` images of one pixel, two classes.
    fn data(samples: usize) -> TrainingData {
        let labels: Vec<Option<u8>> = (0..samples).map(|i| Some((i % 2) as u8)).collect();
        let images = (0..samples * 3).map(|i| (i / 3) as u8 ^ (i >> 9) as u8).collect();
        let classes = vec!["a".to_string(), "b".into()];
        TrainingData {
            outline: Outline { classes: classes.clone(), train: Sizes::of(&labels, 2), test: None },
            classes,
            index: (0..samples as i32).collect(),
            train: ImageSet { images, labels, height: 1, width: 1 },
            candidates: CandidateSets { classes: 2, rows: vec![1; samples * 2] },
            test: None,
            test_positions: Default::default(),
            train_normalisation: crate::data::CIFAR10,
            test_normalisation: crate::data::CIFAR10,
            left_out: Vec::new(),
            notes: Vec::new(),
        }
    }

    fn changes(was: &TrainingData, now: &TrainingData) -> Vec<String> {
        let [was, now] = [was, now].map(Fingerprint::of);
        let text = serde_json::to_string(&was).unwrap();
        let read: Fingerprint = serde_json::from_str(&text).unwrap();
        assert_eq!(read, was);
        read.changes(&now, &|_, _| None)
    }

    #[test]
    fn nothing_else_is_a_change() {
        for samples in [1, 7, 5000] {
            assert_eq!(changes(&data(samples), &data(samples)), Vec::<String>::new());
        }
    }

    #[test]
    fn places_are_told_as_closely_as_blocks_are_small() {
        for (samples, changed, places) in [
            (2000, vec![0], "training sample 0"),
            (2000, vec![3, 4, 5, 9], "training samples 3 to 5, 9"),
            (2000, vec![1, 3, 5, 7, 9], "training samples 1, 3, 5 and 2 more"),
            (5000, vec![1], "training samples 0 to 2"),
            (5000, vec![4999], "training samples 4998 to 4999"),
        ] {
            let was = data(samples);
            let mut now = was.clone();
            changed.iter().for_each(|&i: &usize| now.train.images[3 * i] ^= 1);
            assert_eq!(changes(&was, &now), [format!("the pixels differ in {places}")]);
        }
    }

    #[test]
    fn each_part_is_named() {
        let was = data(10);
        let with = |change: fn(&mut TrainingData)| {
            let mut now = was.clone();
            change(&mut now);
            changes(&was, &now).join("; ")
        };
        assert_eq!(with(|now| now.candidates.rows[7] = 0), "the candidate sets differ in training sample 3");
        assert_eq!(with(|now| now.train.labels[3] = None), "the true classes differ in training sample 3");
        assert_eq!(
            with(|now| now.train_normalisation.std[1] += 1e-6),
            "the normalisation of training images is another"
        );
        let moved = with(|now| now.train.images.swap(0, 6));
        assert!(moved.starts_with("the pixels differ in training samples 0, 2"), "{moved}");
        let moved = with(|now| (0..3).for_each(|i| now.train.images.swap(i, 6 + i)));
        assert!(moved.starts_with("the training samples are the same in another order"), "{moved}");
        assert_eq!(
            with(|now| now.outline.classes[1] = "c\n".into()),
            "class 'b' is no longer there; class 'c\\n' is new"
        );
    }
}
