//! A training set of which only the shape is known: as many blank images as the run would have, none of them
//! read.

use anyhow::Result;

use crate::data::candidates::CandidateSets;
use crate::data::fingerprint::{Outline, Sizes};
use crate::data::longtail::class_counts;
use crate::data::recipe::{Recipe, TrainingData};
use crate::data::registry::{Candidates, Images};
use crate::data::{CIFAR10, ImageSet};
use crate::memory;
use crate::settings::ImbalanceType;
use crate::usage;

/// What the caller says of a data set; it goes before what the program knows of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Training samples, all classes together, after a subset was taken.
    pub samples: Option<usize>,
    /// Classes.
    pub classes: Option<usize>,
    /// Test images.
    pub test_samples: Option<usize>,
}

/// How many samples a run has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Training samples of each class, `[K]`.
    pub counts: Vec<usize>,
    /// Test images.
    pub test: usize,
}

impl Shape {
    /// Of the run that a recipe is for.
    ///
    /// # Errors
    /// A usage error where neither the data set's entry nor `given` says how large it is.
    pub fn of(recipe: &Recipe, given: Given) -> Result<Self> {
        let name = recipe.dataset.name;
        let known = (recipe.dataset.images)(recipe);
        let classes = given.classes.or(known.map(|images| images.classes)).or(recipe.dataset.classes);
        let missing =
            |flag: &str| usage!("--{flag}: must be given, the size of the data set {name} is not known");
        let classes = classes.ok_or_else(|| missing("classes"))?;
        if !(2..=256).contains(&classes) {
            return Err(usage!("--classes {classes}: must be 2 to 256"));
        }
        let test = given.test_samples.or(known.map(|images| images.test)).unwrap_or(0);
        let counts = match (given.samples, known) {
            (Some(samples), _) => evenly(samples, classes),
            (None, Some(images)) => subset(recipe, images, classes),
            (None, None) => return Err(missing("samples")),
        };
        Ok(Self { counts, test })
    }

    /// Training samples.
    pub fn samples(&self) -> usize {
        self.counts.iter().sum()
    }

    /// Blank data of this shape, images of `size` x `size`. The pages of the images are never touched, so
    /// they take no memory on systems that hand out zeros late.
    ///
    /// # Errors
    /// A usage error where the images are more than the machine could hold.
    pub fn blank(&self, size: usize) -> Result<TrainingData> {
        let (samples, classes) = (self.samples(), self.counts.len());
        let bytes = memory::product(&[samples.saturating_add(self.test), size, size, 3]);
        memory::ensure_room(
            bytes,
            "blank images of the run's shape",
            "take fewer --samples or a smaller --image-size",
        )?;
        let labels: Vec<u8> =
            self.counts.iter().enumerate().flat_map(|(class, &count)| vec![class as u8; count]).collect();
        let mut rows = vec![0; samples * classes];
        labels
            .iter()
            .zip(rows.chunks_exact_mut(classes))
            .for_each(|(&label, row)| row[usize::from(label)] = 1);
        let names: Vec<String> = (0..classes).map(|class| class.to_string()).collect();
        let train = ImageSet {
            images: vec![0; samples * size * size * 3],
            labels: labels.into_iter().map(Some).collect(),
            height: size,
            width: size,
        };
        let test = (self.test > 0).then(|| ImageSet {
            images: vec![0; self.test * size * size * 3],
            labels: (0..self.test).map(|i| (i % classes) as u8).collect(),
            height: size,
            width: size,
        });
        Ok(TrainingData {
            outline: Outline { classes: names.clone(), train: Sizes::of(&train.labels, classes), test: None },
            classes: names,
            index: Vec::new(),
            train,
            candidates: CandidateSets { classes, rows },
            test,
            test_positions: Default::default(),
            train_normalisation: CIFAR10,
            test_normalisation: CIFAR10,
            left_out: Vec::new(),
            notes: Vec::new(),
        })
    }
}

/// `samples` in classes that differ by one at most.
fn evenly(samples: usize, classes: usize) -> Vec<usize> {
    (0..classes).map(|class| samples / classes + usize::from(class < samples % classes)).collect()
}

/// The long-tailed subset of a balanced set.
fn subset(recipe: &Recipe, images: Images, classes: usize) -> Vec<usize> {
    let Recipe { imb_type, imb_factor, reverse, .. } = *recipe;
    let own = recipe.dataset.candidates == Candidates::Own;
    if own || imb_type == ImbalanceType::None || imb_factor == 1.0 {
        return evenly(images.train, classes);
    }
    class_counts(imb_type, images.train / classes, classes, imb_factor, reverse)
}
