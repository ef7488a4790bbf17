//! The data of a run, made from a name and a few numbers: data set, long-tailed subset, candidate sets.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::candidates::CandidateSets;
use super::decode::Unreadable;
use super::fingerprint::{Outline, Part};
use super::left_out::{LeftOut, PREFIX, TEST_IMAGES, TRAINING_IMAGES, incomplete_batch};
use super::longtail::{ImbalanceType, class_counts, draw_subset, shuffle_counts};
use super::registry::{Candidates, DataSet, Look, Opened};
use super::source::LoadedData;
use super::{ImageSet, Normalisation};
use crate::random::numpy::NumpyLegacy;
use crate::text::printable;
use crate::usage;

/// The settings that decide the data of a run. Data sets with [`Candidates::Own`] read `dataset`, `data_dir`
/// and `image_size` only.
#[derive(Clone, Debug)]
pub struct Recipe {
    pub dataset: &'static DataSet,
    /// Folder of the data set; not used for the synthetic set.
    pub data_dir: Option<PathBuf>,
    /// mu = 1 / rho, in (0, 1].
    pub imb_factor: f64,
    pub imb_type: ImbalanceType,
    /// Whether the last class is the most frequent.
    pub reverse: bool,
    /// q, in [0, 1).
    pub partial_rate: f64,
    /// The run's seed; it affects only the shuffle of the NU set's class counts, as in the reference.
    pub seed: u64,
    /// Seed of subset and candidate sets; the reference has 0.
    pub data_seed: u32,
    /// Height and width of the network's input.
    pub image_size: usize,
    pub synthetic_train_per_class: usize,
    pub synthetic_test_per_class: usize,
    /// What is done about image files that cannot be read.
    pub unreadable: Unreadable,
}

/// Where the images of a set are in their data set, if some of it were left out; otherwise at the same
/// positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions(pub Option<Vec<usize>>);

impl Positions {
    /// The position in the data set of the image at `place` in the set, which holds it.
    pub fn of(&self, place: usize) -> usize {
        self.0.as_ref().map_or(place, |positions| positions[place])
    }
}

/// The data of a run.
#[derive(Clone, Debug)]
pub struct TrainingData {
    /// Class names and sizes of the data set, before a subset was drawn.
    pub outline: Outline,
    pub classes: Vec<String>,
    /// Positions of the training images in the data set, `[N]`.
    pub index: Vec<i32>,
    /// The training images in this order. True classes are for metrics only; a user's own data may lack them.
    pub train: ImageSet<Option<u8>>,
    pub candidates: CandidateSets,
    /// `None` where the data set has no test images.
    pub test: Option<ImageSet>,
    /// Where these are in the data set.
    pub test_positions: Positions,
    pub train_normalisation: Normalisation,
    pub test_normalisation: Normalisation,
    /// Images of the data set that are in neither the training nor the test set.
    pub left_out: Vec<LeftOut>,
    /// What else a user should know about the data, one line each.
    pub notes: Vec<String>,
}

impl TrainingData {
    /// The true class of each training sample, `[N]`; `None` unless all are known.
    pub fn true_labels(&self) -> Option<Vec<u8>> {
        self.train.labels.iter().copied().collect()
    }

    /// The true class of each training sample in the format for devices, `[N]`: -1, which no prediction
    /// equals, if unknown.
    pub fn device_labels(&self) -> Vec<i32> {
        self.train.labels.iter().map(|label| label.map_or(-1, i32::from)).collect()
    }

    /// Training samples of each class, `[K]`; `None` unless all true classes are known.
    pub fn counts(&self) -> Option<Vec<usize>> {
        let mut counts = vec![0; self.classes.len()];
        self.true_labels()?.iter().for_each(|&label| counts[usize::from(label)] += 1);
        Some(counts)
    }

    /// What is left out of the data (and of each epoch, if its steps take `batch` samples), and what else a
    /// user should know: one line each.
    pub fn remarks(&self, batch: Option<usize>) -> Vec<String> {
        let per_epoch = batch.and_then(|batch| incomplete_batch(self.train.len(), batch));
        let left_out = self.left_out.iter().chain(&per_epoch).map(|left_out| format!("{PREFIX}{left_out}"));
        let notes = self.notes.iter().cloned().chain(self.untested_classes());
        left_out.chain(notes.map(|note| format!("note: {note}"))).collect()
    }

    /// The remark about classes without test images, if there are test images.
    fn untested_classes(&self) -> Option<String> {
        let sizes = self.test.as_ref()?.class_sizes(self.classes.len());
        let absent: Vec<&String> =
            self.classes.iter().zip(&sizes).filter(|(_, size)| **size == 0).map(|(name, _)| name).collect();
        let names =
            |names: &[&String]| names.iter().map(|name| printable(name)).collect::<Vec<_>>().join(", ");
        let classes = match absent[..] {
            [] => return None,
            [name] => format!("class {} has no test image: its accuracy is", printable(name)),
            [..] if absent.len() <= 5 => {
                format!("{} classes have no test image ({}): their accuracy is", absent.len(), names(&absent))
            }
            [..] => {
                format!(
                    "{} classes have no test image ({}, ...): their accuracy is",
                    absent.len(),
                    names(&absent[..5])
                )
            }
        };
        Some(format!("{classes} unknown and not part of the means over many, medium and few"))
    }
}

/// The test images of a data set.
#[derive(Clone, Debug)]
pub struct TestData {
    /// Class names and sizes of the data set.
    pub outline: Outline,
    pub classes: Vec<String>,
    /// `None` where the data set has no test images.
    pub test: Option<ImageSet>,
    /// Where these are in the data set.
    pub positions: Positions,
    pub normalisation: Normalisation,
    /// As in [`TrainingData`], for the test images.
    pub left_out: Vec<LeftOut>,
}

fn open(recipe: &Recipe, look: Look<'_>) -> Result<Opened> {
    let opened = (recipe.dataset.open)(recipe, folder_of(recipe), look)?;
    if let Opened::Labelled(source) = &opened {
        look(&source.outline())?;
        let size = recipe.image_size;
        if source.train.height != size || source.train.width != size {
            let (name, own) = (recipe.dataset.name, source.train.height);
            return Err(usage!("--image-size {size}: {name} has images of {own}x{own}; must be {own}"));
        }
    }
    Ok(opened)
}

/// What a data set says of its images without being read, for `records predict`, is what it reads.
fn check_form(recipe: &Recipe, classes: &[String], normalisation: Normalisation) {
    let said = (recipe.dataset.normalisation)(classes);
    debug_assert_eq!(said, normalisation, "{}", recipe.dataset.name);
}

fn folder_of(recipe: &Recipe) -> &Path {
    recipe.data_dir.as_deref().unwrap_or(Path::new("data"))
}

/// The test images alone.
///
/// # Errors
/// Usage errors that name the folder or file.
pub fn open_test(recipe: &Recipe) -> Result<TestData> {
    open_test_if(recipe, &|_| Ok(()))
}

/// The file of the image at `position` in its data set; `None` if images have no files of their own, or it
/// cannot be found.
pub fn file_of(recipe: &Recipe, part: Part, position: usize) -> Option<String> {
    (recipe.dataset.file)(folder_of(recipe), part, position)
}

/// The files of all images of a part in the order of the data set, relative to its folder; `None` where
/// images have no files of their own.
///
/// # Errors
/// A usage error for a folder or list that cannot be read.
pub fn paths(recipe: &Recipe, part: Part) -> Result<Option<Vec<PathBuf>>> {
    recipe.dataset.paths.map(|paths| paths(folder_of(recipe), part)).transpose()
}

/// As [`open_test`], unless `look` refuses the data set; `look` is called before images are read.
///
/// # Errors
/// Those of [`open_test`] and of `look`.
pub fn open_test_if(recipe: &Recipe, look: Look<'_>) -> Result<TestData> {
    match open(recipe, look)? {
        Opened::Listed(listed) => listed.test_data(recipe.image_size, recipe.unreadable),
        Opened::Labelled(source) => {
            check_form(recipe, &source.classes, source.test_normalisation);
            let outline = source.outline();
            let LoadedData { classes, test, test_normalisation, mut left_out, positions, .. } = *source;
            left_out.retain(|left_out| left_out.what == TEST_IMAGES);
            let [_, positions] = positions;
            let (test, normalisation) = (Some(test), test_normalisation);
            Ok(TestData { outline, classes, test, positions, normalisation, left_out })
        }
    }
}

/// Opens the data set, and draws the subset and the candidate sets (SPEC 2 and 3) unless it brings them.
///
/// A set of class folders may itself be imbalanced. If a profile is requested, n_max is the mean class size,
/// and a class with fewer images than its count keeps all of them.
///
/// # Errors
/// Usage errors that name the flag, file or folder at fault.
pub fn prepare(recipe: &Recipe) -> Result<TrainingData> {
    prepare_if(recipe, &|_| Ok(()))
}

/// As [`prepare`], unless `look` refuses the data set; `look` is called before images are read.
///
/// # Errors
/// Those of [`prepare`] and of `look`.
pub fn prepare_if(recipe: &Recipe, look: Look<'_>) -> Result<TrainingData> {
    let Recipe { imb_factor, partial_rate, .. } = *recipe;
    if !(imb_factor > 0.0 && imb_factor <= 1.0) {
        return Err(usage!("--imb-factor {imb_factor}: must be above 0 and at most 1"));
    }
    if !(0.0..1.0).contains(&partial_rate) {
        return Err(usage!("--partial-rate {partial_rate}: must be at least 0 and below 1"));
    }
    let source = match open(recipe, look)? {
        Opened::Labelled(source) => *source,
        Opened::Listed(listed) => {
            let data = listed.training_data(recipe.image_size, recipe.unreadable)?;
            check_form(recipe, &data.classes, data.test_normalisation);
            return Ok(data);
        }
    };
    let classes = source.classes.len();
    if classes < 2 {
        return Err(usage!("the data set has {classes} class; training needs at least 2"));
    }
    let outline = source.outline();
    let sizes = source.train.class_sizes(classes);
    let (counts, subset_of) = kept(recipe, &source.classes, &sizes)?;
    let mut rng = NumpyLegacy::new(recipe.data_seed);
    let mut index = draw_subset(&source.train.labels, &counts, &mut rng);
    let train = source.train.select(&index);
    let [train_positions, test_positions] = source.positions;
    index.iter_mut().for_each(|place| *place = train_positions.of(*place as usize) as i32);
    let candidates = match recipe.dataset.candidates {
        Candidates::BySuperclass(superclass_of) => {
            CandidateSets::non_uniform(&train.labels, superclass_of, partial_rate, &mut rng)
        }
        _ => CandidateSets::uniform(&train.labels, classes, partial_rate, &mut rng),
    };
    candidates.check(&train.labels)?;
    let mut left_out = source.left_out;
    left_out.extend(subset_of);
    let mut notes = source.notes;
    if recipe.unreadable == Unreadable::LeftOut && recipe.dataset.paths.is_none() {
        let name = recipe.dataset.name;
        notes.push(format!(
            "--skip-unreadable changes nothing: the images of {name} are not files of their own"
        ));
    }
    let ImageSet { images, labels, height, width } = train;
    Ok(TrainingData {
        outline,
        classes: source.classes,
        index,
        train: ImageSet { images, labels: labels.into_iter().map(Some).collect(), height, width },
        candidates,
        test: Some(source.test),
        test_positions,
        train_normalisation: source.train_normalisation,
        test_normalisation: source.test_normalisation,
        left_out,
        notes,
    })
}

/// How many of its `sizes` images each class keeps, `[K]`, and what that leaves out.
///
/// Without a profile, or with `imb_factor` 1, all images are kept, whatever the class sizes.
///
/// # Errors
/// A usage error if a class would keep none.
fn kept(recipe: &Recipe, classes: &[String], sizes: &[usize]) -> Result<(Vec<usize>, Option<LeftOut>)> {
    let Recipe { imb_type, imb_factor, .. } = *recipe;
    if imb_type == ImbalanceType::None || imb_factor == 1.0 {
        return Ok((sizes.to_vec(), None));
    }
    let all: usize = sizes.iter().sum();
    let mut wanted = class_counts(imb_type, all / sizes.len(), sizes.len(), imb_factor, recipe.reverse);
    if let Candidates::BySuperclass(_) = recipe.dataset.candidates {
        shuffle_counts(&mut wanted, recipe.seed);
    }
    if let Some(class) = wanted.iter().position(|&count| count == 0) {
        let name = printable(&classes[class]);
        return Err(usage!(
            "--imb-factor {imb_factor}: leaves no sample of class '{name}'; take a larger one"
        ));
    }
    let counts: Vec<usize> = wanted.iter().zip(sizes).map(|(&wanted, &size)| wanted.min(size)).collect();
    let count = all - counts.iter().sum::<usize>();
    let left_out = (count > 0).then(|| LeftOut {
        count,
        of: all,
        what: TRAINING_IMAGES,
        why: why(recipe, &wanted, sizes),
    });
    Ok((counts, left_out))
}

/// The reason why a profile with these class counts leaves images out.
fn why(recipe: &Recipe, wanted: &[usize], sizes: &[usize]) -> String {
    let Recipe { imb_type, imb_factor, data_seed, .. } = recipe;
    let (most, least) = (wanted.iter().max().unwrap_or(&0), wanted.iter().min().unwrap_or(&0));
    let mut why = format!(
        "the profile {imb_type} with imb-factor {imb_factor} keeps {most} to {least} images of a class, drawn with data-seed \
         {data_seed}; --imb-type none keeps all"
    );
    let short = wanted.iter().zip(sizes).filter(|(wanted, size)| size < wanted).count();
    if short > 0 {
        let classes = if short == 1 { "class has" } else { "classes have" };
        why += &format!(" ({short} {classes} fewer than the profile's count, and all of them are kept)");
    }
    why
}
