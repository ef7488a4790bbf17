//! Evaluation (SPEC 8): from test logits, debiased where there is a class prior, to the field's metrics.

use std::ops::Range;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::metrics::percent;
use super::model::Model;
use crate::autograd::Tape;
use crate::collective::World;
use crate::data::{ImageSet, Normalisation};
use crate::device::{Buffer, Device, Element, Plan};
use crate::nn::Mode;
use crate::ops::input::{AdvanceStep, NormaliseImages, StoreRows};

/// Accuracies on test images, in percent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TestMetrics {
    /// Share of the images whose largest logit is the true class's.
    pub top1: f64,
    /// Share of the images whose true class is among the five largest logits; `None` for up to five classes,
    /// where it would be 100 for any network.
    pub top5: Option<f64>,
    /// Mean accuracy of the many-shot classes that have test images; `None` if there is none, or if the class
    /// counts of the training set are not known.
    pub many: Option<f64>,
    /// The same of the medium-shot classes.
    pub medium: Option<f64>,
    /// The same of the few-shot classes.
    pub few: Option<f64>,
    /// Accuracy of each class; `None` for a class without test images.
    pub per_class: Vec<Option<f64>>,
}

/// The group of a class by its number of training samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shot {
    /// Those with the most samples: a third of the classes, or fewer where counts are equal.
    Many,
    /// The classes in between.
    Medium,
    /// Those with the fewest samples: a third of the classes, or fewer where counts are equal.
    Few,
}

/// The group of each class: many above the (K-m-1)-th smallest training count, few below the m-th (0-based),
/// m = K/3 (3 for 10 classes, 33 for 100), medium the rest.
pub fn shots(train_counts: &[usize]) -> Vec<Shot> {
    let mut sorted = train_counts.to_vec();
    sorted.sort_unstable();
    let group = sorted.len() / 3;
    let (many, few) = (sorted[sorted.len() - group - 1], sorted[group]);
    let shot = |&count: &usize| match count {
        count if count > many => Shot::Many,
        count if count < few => Shot::Few,
        _ => Shot::Medium,
    };
    train_counts.iter().map(shot).collect()
}

/// Metrics of `logits` `[N,K]` against `labels` `[N]`, N at least 1. A row predicts the first of its largest
/// logits; a row with a NaN counts as wrong. `train_counts` `[K]` is `None` where the training samples'
/// classes are not known.
pub fn metrics(logits: &[f32], labels: &[u8], classes: usize, train_counts: Option<&[usize]>) -> TestMetrics {
    let (mut hits, mut hits5, mut sizes) = (vec![0usize; classes], 0usize, vec![0usize; classes]);
    for (row, &label) in logits.chunks_exact(classes).zip(labels) {
        let label = usize::from(label);
        let own = row[label];
        let above = |(k, &z): (usize, &f32)| z > own || (z == own && k < label);
        let rank = row.iter().enumerate().filter(|&entry| above(entry)).count();
        let valid = row.iter().all(|z| !z.is_nan());
        sizes[label] += 1;
        hits[label] += usize::from(valid && rank == 0);
        hits5 += usize::from(valid && rank < 5);
    }
    let per_class: Vec<Option<f64>> =
        hits.iter().zip(&sizes).map(|(&hit, &size)| percent(hit as f64, size)).collect();
    let shots = train_counts.map(shots);
    let mean_of = |group: Shot| {
        let of_group = per_class.iter().zip(shots.as_ref()?).filter(|(_, shot)| **shot == group);
        let members: Vec<f64> = of_group.filter_map(|(accuracy, _)| *accuracy).collect();
        (!members.is_empty()).then(|| members.iter().sum::<f64>() / members.len() as f64)
    };
    let n = labels.len();
    TestMetrics {
        top1: percent(hits.iter().sum::<usize>() as f64, n).unwrap_or(0.0),
        top5: percent(hits5 as f64, n).filter(|_| classes > 5),
        many: mean_of(Shot::Many),
        medium: mean_of(Shot::Medium),
        few: mean_of(Shot::Few),
        per_class,
    }
}

/// Whether logits `[N,K]` have two or more rows and all are the same: the network's output does not depend on
/// its input.
pub fn are_all_the_same(logits: &[f32], classes: usize) -> bool {
    logits.len() > classes && logits.chunks_exact(classes).all(|row| row == &logits[..classes])
}

/// Subtracts a log-prior `[K]` from every row of logits `[N,K]`.
pub fn debias(logits: &mut [f32], log_prior: &[f32]) {
    for row in logits.chunks_exact_mut(log_prior.len()) {
        row.iter_mut().zip(log_prior).for_each(|(z, prior)| *z -= prior);
    }
}

/// The total-variation distance (half the sum of absolute differences) between a class prior and the class
/// frequencies of `train_counts`.
pub fn prior_distance(prior: &[f64], train_counts: &[usize]) -> f64 {
    let total: usize = train_counts.iter().sum();
    let gap = |(&share, &count): (&f64, &usize)| (share - count as f64 / total as f64).abs();
    0.5 * prior.iter().zip(train_counts).map(gap).sum::<f64>()
}

/// Images on the device and their normalisation.
#[derive(Clone, Copy)]
pub struct ResidentImages {
    /// u8 `[N,S,S,3]`.
    pub images: Buffer,
    /// N.
    pub count: usize,
    /// S.
    pub size: usize,
    /// f32 `[6]`, mean then standard deviation.
    pub normalisation: Buffer,
}

impl ResidentImages {
    /// Uploads square images.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn new(set: &ImageSet, normalisation: Normalisation, device: &mut dyn Device) -> Result<Self> {
        let images = device.allocate(Element::U8, set.images.len(), "the test images")?;
        device.write_u8(images, &set.images)?;
        let constants = device.allocate(Element::F32, 6, "the normalisation")?;
        device.write_f32(constants, &normalisation.flat())?;
        Ok(Self { images, count: set.len(), size: set.height, normalisation: constants })
    }
}

/// Images in a forward pass in evaluation mode: on a GPU enough to fill it and to share out its launches, in main
/// memory as many as a training step has. Each image's logits are the same in any batch.
pub fn evaluation_batch(device: &dyn Device) -> usize {
    if device.in_main_memory() { 256 } else { 1000 }
}

/// Logits `[N,K]` of test images, and the log-prior `[K]` that was subtracted from them, if there is one.
pub type Tested = (Vec<f32>, Option<Vec<f32>>);

/// A forward pass in evaluation mode, recorded for images resident on the device.
pub struct Evaluation {
    plan: Plan,
    batches: usize,
    images: usize,
    classes: usize,
    step: Buffer,
    logits: Buffer,
    log_prior: Option<Buffer>,
}

impl Evaluation {
    /// Uploads a set of test images and records the pass over them.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn of_set(
        model: &Model,
        set: &ImageSet,
        normalisation: Normalisation,
        device: &mut dyn Device,
    ) -> Result<Self> {
        let images = ResidentImages::new(set, normalisation, device)?;
        Self::new(model, images, evaluation_batch(device), device)
    }

    /// Records a forward pass over `batch` images at a time. Images larger than 32x32 come in smaller batches
    /// with as many pixels, so that they need no more memory.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn new(model: &Model, of: ResidentImages, batch: usize, device: &mut dyn Device) -> Result<Self> {
        let ResidentImages { images, count, size, normalisation } = of;
        let batch = (batch * 32 * 32 / (size * size)).clamp(1, batch);
        let batch = batch.min(count.div_ceil(device.world().size()));
        // As many batches as that takes, and all of them as full as can be: the last one is computed whole.
        let batches = count.div_ceil(batch);
        let batch = count.div_ceil(batches);
        let classes = model.network.classes();
        let step = device.allocate(Element::I32, 1, "the batch counter")?;
        let store = device.allocate(Element::F32, batches * batch * classes, "the logits")?;

        let mut tape = Tape::new(device.activations());
        let tensors = [images, normalisation, step, store].map(|buffer| tape.persistent(buffer));
        let [images, normalisation, step_tensor, store_tensor] = tensors;
        let x = tape.temporary(tape.activations(), batch * size * size * 3);
        tape.push(NormaliseImages {
            batch,
            pixels: size * size,
            images,
            step: step_tensor,
            normalisation,
            x,
        });
        let outputs = model.network.record(&mut tape, &model.parameters, Mode::Evaluation, [batch, size], x);
        tape.push(StoreRows {
            batch,
            columns: classes,
            rows: outputs.logits,
            step: step_tensor,
            store: store_tensor,
        });
        let log_prior = model.debias.record_test(&mut tape, outputs.classifier);
        tape.push(AdvanceStep { step: step_tensor, modulus: None });
        let plan = tape.finish(device)?;
        Ok(Self { plan, batches, images: count, classes, step, logits: store, log_prior })
    }

    /// Logits `[N,K]` of all images with the network's current weights. Several processes share the batches out.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits(&self, device: &mut dyn Device) -> Result<Vec<f32>> {
        let own = self.own_batches(&device.world());
        self.replay(own, &|| true, device)?;
        self.read_logits(device)
    }

    /// As [`Evaluation::logits`], as long as `goes_on` says so before each batch; `None` if it was left. That
    /// changes nothing of the network. One of several processes does not leave: the others would wait for it.
    ///
    /// # Errors
    /// If the device fails.
    pub fn logits_while(
        &self,
        goes_on: &dyn Fn() -> bool,
        device: &mut dyn Device,
    ) -> Result<Option<Vec<f32>>> {
        let world = device.world();
        let goes_on = || !world.is_alone() || goes_on();
        let is_whole = self.replay(self.own_batches(&world), &goes_on, device)?;
        is_whole.then(|| self.read_logits(device)).transpose()
    }

    /// The batches that are this process's.
    fn own_batches(&self, world: &World) -> Range<usize> {
        world.share().of(self.batches)
    }

    /// Runs the pass over those batches; whether over all of them.
    fn replay(&self, own: Range<usize>, goes_on: &dyn Fn() -> bool, device: &mut dyn Device) -> Result<bool> {
        // Without a batch of its own, a process repeats another's: the class-prior estimate is part of the pass.
        let begin = own.start.min(self.batches - 1);
        device.write_i32(self.step, &[begin as i32])?;
        for _ in begin..own.end.max(begin + 1) {
            if !goes_on() {
                return Ok(false);
            }
            device.replay(&self.plan)?;
        }
        Ok(true)
    }

    fn read_logits(&self, device: &mut dyn Device) -> Result<Vec<f32>> {
        let world = device.world();
        let mut logits = device.read_f32(self.logits)?;
        if !world.is_alone() {
            let (own, len) = (self.own_batches(&world), logits.len() / self.batches);
            let own = logits[own.start * len..own.end * len].to_vec();
            world.gather_rows(&own, [1, self.batches, len], &mut logits)?;
        }
        logits.truncate(self.images * self.classes);
        Ok(logits)
    }

    /// The logits less the log-prior `[K]`, where there is a debias, and that log-prior.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&self, device: &mut dyn Device) -> Result<Tested> {
        let logits = self.logits(device)?;
        self.debiased(logits, device)
    }

    /// As [`Evaluation::run`], as long as `goes_on` says so before each batch; `None` if it was left.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run_while(&self, goes_on: &dyn Fn() -> bool, device: &mut dyn Device) -> Result<Option<Tested>> {
        let Some(logits) = self.logits_while(goes_on, device)? else { return Ok(None) };
        self.debiased(logits, device).map(Some)
    }

    fn debiased(&self, mut logits: Vec<f32>, device: &mut dyn Device) -> Result<Tested> {
        let log_prior = self.log_prior.map(|buffer| device.read_f32(buffer)).transpose()?;
        if let Some(log_prior) = &log_prior {
            debias(&mut logits, log_prior);
        }
        Ok((logits, log_prior))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;
    use crate::nn::ResNet;
    use crate::optim::{Hyperparameters, registry};

    /// Images of 64x64 come in batches of a quarter of the size; the batch size changes no logit.
    #[test]
    fn large_images_are_evaluated_in_smaller_batches() {
        let mut device = CpuDevice::new(1).unwrap();
        let network = Box::new(ResNet::resnet50(2, 3));
        let constants = Hyperparameters { momentum: 0.9, beta2: 0.999, weight_decay: 0.0 };
        let optimiser = (registry::find("sgd").unwrap(), constants);
        let model =
            Model::new(network, optimiser, 1, crate::pll::ClassPriorSource::None, &mut device).unwrap();
        let size = 64;
        let images = (0..5 * size * size * 3).map(|i: usize| (i * i / 7) as u8).collect();
        let set = ImageSet { images, labels: vec![0, 1, 2, 0, 1], height: size, width: size };
        let mut logits = |batch: usize, batches: usize| {
            let images = ResidentImages::new(&set, crate::data::CIFAR10, &mut device).unwrap();
            let evaluation = Evaluation::new(&model, images, batch, &mut device).unwrap();
            assert_eq!(evaluation.batches, batches);
            evaluation.run(&mut device).unwrap().0
        };
        let (one, two) = (logits(1, 5), logits(8, 3));
        assert_eq!(one.len(), 15);
        assert_eq!(one, two);
        assert_ne!(one[..3], one[3..6]);
    }

    #[test]
    fn groups_of_the_published_profile() {
        let counts = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50];
        let shots = shots(&counts);
        let of = |group| shots.iter().filter(|&&s| s == group).count();
        assert_eq!((of(Shot::Many), of(Shot::Medium), of(Shot::Few)), (3, 4, 3));
        assert_eq!(super::shots(&[5; 10]), vec![Shot::Medium; 10]);
    }

    #[test]
    fn ties_go_to_the_first_class_and_nan_is_wrong() {
        let result = metrics(&[1.0, 1.0, f32::NAN, 0.0], &[0, 1], 2, None);
        assert_eq!((result.top1, result.many), (50.0, None));
        let result = metrics(&[1.0, 1.0], &[1], 2, Some(&[1, 1]));
        assert_eq!((result.top1, result.medium), (0.0, Some(0.0)));
        let mut rows = vec![0.0; 18];
        rows[6] = f32::NAN;
        // The first five of equal logits; a NaN; the sixth.
        let result = metrics(&rows, &[4, 1, 5], 6, None);
        assert_eq!((result.top1, result.top5), (0.0, Some(100.0 / 3.0)));
    }

    /// A group or class without test images has no accuracy, neither 0 nor 100.
    #[test]
    fn empty_groups_have_no_accuracy() {
        // Equal counts: all classes are medium. Class 2 has no test image.
        let logits = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        let result = metrics(&logits, &[0, 1], 3, Some(&[5, 5, 5]));
        assert_eq!((result.many, result.medium, result.few), (None, Some(50.0), None));
        assert_eq!(result.per_class, [Some(100.0), Some(0.0), None]);
        // Each group is one class; the few-shot class 2 has no test image, so its accuracy is unknown and not
        // 0 %.
        let result = metrics(&logits, &[0, 1], 3, Some(&[9, 5, 1]));
        assert_eq!((result.many, result.medium, result.few), (Some(100.0), Some(0.0), None));
        // With up to five classes, top-5 would always be 100 %.
        for (classes, expected) in [(2, None), (5, None), (6, Some(100.0))] {
            assert_eq!(metrics(&vec![0.0; classes], &[0], classes, None).top5, expected, "{classes}");
        }
        let text = serde_json::to_string(&result).unwrap();
        assert!(text.contains("\"few\":null") && text.contains("\"per_class\":[100.0,0.0,null]"), "{text}");
        assert_eq!(serde_json::from_str::<TestMetrics>(&text).unwrap(), result);
    }

    #[test]
    fn distance_of_opposite_priors_is_one() {
        assert!((prior_distance(&[1.0, 0.0], &[0, 7]) - 1.0).abs() < 1e-12);
        assert!(prior_distance(&[0.5; 2], &[3, 3]) < 1e-12);
    }
}
