//! The built-in procedural set, for runs without any data: textures of ten classes as 32x32 RGB images.
//!
//! A class is a hue and a texture: five hues, each with stripes (the first five classes) and with spots (the
//! last five). Neighbouring hues overlap. Orientation, wavelength, phase, saturation, brightness, contrast,
//! noise, the covered patch and its background are random and independent of the class. So each class at the
//! end of the long tail shares its colour with one of the head and differs only in texture: a prior learnt
//! from the head hurts the tail, which is where methods for long-tailed ambiguous labels differ. Both cues
//! are local and survive cropping.

use anyhow::Result;
use rand::Rng;
use rayon::prelude::*;

use super::{DataSet, Images, Opened};
use crate::data::source::LoadedData;
use crate::data::{ImageSet, Normalisation};
use crate::memory;
use crate::random::philox::{Purpose, Stream};

/// The built-in set; `--data-seed` also decides its images.
pub static MADE_UP: DataSet = DataSet {
    name: "synthetic",
    about: "built-in textures of ten classes, candidate sets drawn",
    reads: "nothing",
    images: |recipe| {
        let (train, test) = (recipe.synthetic_train_per_class, recipe.synthetic_test_per_class);
        let classes = CLASSES.len();
        Some(Images { classes, train: classes * train, test: classes * test })
    },
    open: |recipe, _, _| {
        let (train, test) = (recipe.synthetic_train_per_class, recipe.synthetic_test_per_class);
        Ok(Opened::Labelled(Box::new(generate(u64::from(recipe.data_seed), train, test)?)))
    },
    normalisation: |_| SYNTHETIC,
    ..DataSet::USUAL
};

/// Rows and columns of an image.
pub const SIZE: usize = 32;

/// The classes; `k` and `k + 5` share a hue.
pub const CLASSES: [&str; 10] = [
    "red-stripes",
    "yellow-stripes",
    "green-stripes",
    "blue-stripes",
    "purple-stripes",
    "red-spots",
    "yellow-spots",
    "green-spots",
    "blue-spots",
    "purple-spots",
];

/// Mean and standard deviation of the training images: those of seed 0, rounded.
pub const SYNTHETIC: Normalisation = Normalisation { mean: [0.45, 0.45, 0.45], std: [0.22, 0.22, 0.22] };

/// RGB in 0..=255 of a hue in turns, saturation and value in 0..=1.
fn rgb(hue: f64, saturation: f64, value: f64) -> [f64; 3] {
    [0.0, 2.0 / 3.0, 1.0 / 3.0].map(|shift| {
        let distance = ((hue + shift).rem_euclid(1.0) * 6.0 - 3.0).abs() - 1.0;
        255.0 * value * (1.0 - saturation + saturation * distance.clamp(0.0, 1.0))
    })
}

/// One image, `[SIZE, SIZE, 3]`, of a class.
fn draw(stream: &mut Stream, class: usize, out: &mut [u8]) {
    let side = SIZE as f64;
    let hue = (class % 5) as f64 / 5.0 + 0.045 * stream.normal();
    let colour = rgb(hue, stream.uniform(0.3, 0.8), stream.uniform(0.35, 0.85));
    let ground = rgb(stream.unit(), stream.uniform(0.0, 0.5), stream.uniform(0.2, 0.8));
    let centre = [0, 1].map(|_| stream.uniform(0.3 * side, 0.7 * side));
    let radii = [0, 1].map(|_| stream.uniform(0.35 * side, 0.75 * side));
    let (sin, cos) = stream.uniform(0.0, std::f64::consts::PI).sin_cos();
    let wave = std::f64::consts::TAU / stream.uniform(4.0, 8.0);
    let phase = [0, 1].map(|_| stream.uniform(0.0, std::f64::consts::TAU));
    let contrast = stream.uniform(0.2, 0.5);
    let noise = stream.uniform(5.0, 20.0);
    for (at, pixel) in out.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((at % SIZE) as f64 + 0.5, (at / SIZE) as f64 + 0.5);
        let (dx, dy) = ((x - centre[0]) / radii[0], (y - centre[1]) / radii[1]);
        let along = (wave * (cos * x + sin * y) + phase[0]).sin();
        let across = (wave * (cos * y - sin * x) + phase[1]).sin();
        let texture = if class < 5 { along } else { along * across * std::f64::consts::SQRT_2 };
        for (channel, value) in pixel.iter_mut().enumerate() {
            let level = if dx * dx + dy * dy <= 1.0 {
                colour[channel] * (1.0 + contrast * texture)
            } else {
                ground[channel]
            };
            // Uniform noise of standard deviation `noise`, from 16 bits.
            let noisy = level + noise * 1.732 * (f64::from(stream.next_u32() >> 16) / 32_768.0 - 1.0);
            *value = noisy.round().clamp(0.0, 255.0) as u8;
        }
    }
}

fn set(seed: u64, part: u32, per_class: usize) -> ImageSet {
    let len = per_class * CLASSES.len();
    let labels: Vec<u8> = (0..len).map(|i| (i / per_class) as u8).collect();
    let mut images = vec![0; len * SIZE * SIZE * 3];
    images.par_chunks_exact_mut(SIZE * SIZE * 3).enumerate().for_each(|(i, image)| {
        let mut stream = Stream::new(seed, Purpose::Synthetic, part, i as u32, 0);
        draw(&mut stream, i / per_class, image);
    });
    ImageSet { images, labels, height: SIZE, width: SIZE }
}

/// The balanced set of a seed: `train_per_class` and `test_per_class` images of each class, in class order.
///
/// # Errors
/// A usage error if the images do not fit into memory.
pub fn generate(seed: u64, train_per_class: usize, test_per_class: usize) -> Result<LoadedData> {
    // Subset and device need further copies.
    let images = train_per_class.saturating_mul(3).saturating_add(test_per_class.saturating_mul(2));
    memory::ensure_room(
        memory::product(&[images, CLASSES.len(), SIZE * SIZE * 3]),
        "the built-in images",
        "take a smaller --synthetic-train-per-class or --synthetic-test-per-class",
    )?;
    Ok(LoadedData {
        classes: CLASSES.map(String::from).to_vec(),
        train: set(seed, 0, train_per_class),
        test: set(seed, 1, test_per_class),
        train_normalisation: SYNTHETIC,
        test_normalisation: SYNTHETIC,
        positions: Default::default(),
        left_out: Vec::new(),
        notes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_depend_on_seed_and_part_alone() {
        let small = generate(3, 4, 2).unwrap();
        let large = generate(3, 4, 2).unwrap();
        assert_eq!(small.train.images, large.train.images);
        assert_eq!(small.train.class_sizes(10), vec![4; 10]);
        assert_ne!(small.train.images, generate(4, 4, 2).unwrap().train.images);
        assert_ne!(small.train.image(0), small.test.image(0));
    }

    /// Mean and spread within 0.03 of the stated constants, which are round figures.
    #[test]
    fn normalisation_is_measured() {
        let train = generate(0, 200, 1).unwrap().train;
        let n = (train.images.len() / 3) as f64;
        for channel in 0..3 {
            let values = || train.images.iter().skip(channel).step_by(3).map(|&v| f64::from(v) / 255.0);
            let mean = values().sum::<f64>() / n;
            let std = (values().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            assert!((mean - f64::from(SYNTHETIC.mean[channel])).abs() < 0.03, "mean {mean}");
            assert!((std - f64::from(SYNTHETIC.std[channel])).abs() < 0.03, "std {std}");
        }
    }

    /// Stripes and spots of one hue have the same mean colour: only texture tells them apart.
    #[test]
    fn colour_does_not_tell_the_look_alikes_apart() {
        let train = generate(0, 200, 1).unwrap().train;
        let mean = |class: usize, channel: usize| {
            let values =
                (class * 200..(class + 1) * 200).flat_map(|i| train.image(i).iter().skip(channel).step_by(3));
            values.map(|&v| f64::from(v)).sum::<f64>() / (200.0 * 1024.0)
        };
        for (class, channel) in (0..15).map(|i| (i / 3, i % 3)) {
            let gap = (mean(class, channel) - mean(class + 5, channel)).abs();
            assert!(gap < 12.0, "class {class} channel {channel}: {gap}");
        }
        assert!((mean(0, 0) - mean(2, 0)).abs() > 20.0, "red and green differ");
    }
}
