//! The built-in procedural set: ten classes of shapes on 32x32 RGB images, for runs without any data.
//!
//! The class is the shape alone. Position, size, tilt, the two colours, their contrast, the background's slope and noise and
//! an occluding bar are random and tell nothing. Classes come in look-alike pairs whose members lie at opposite ends of
//! the long tail (disc and ring, square and diamond, ...), so that a prior learnt from the head hurts the tail, which is
//! what methods for long-tailed ambiguous labels differ in.

use rayon::prelude::*;

use super::source::Source;
use super::{ImageSet, Normalisation};
use crate::random::philox::{Purpose, Stream};

/// Rows and columns of an image.
pub const SIZE: usize = 32;

/// The classes; look-alikes are (0, 9), (1, 8), (2, 7), (3, 6), (4, 5).
pub const CLASSES: [&str; 10] = [
    "disc",
    "square",
    "triangle-up",
    "plus",
    "stripes-level",
    "stripes-upright",
    "cross",
    "triangle-down",
    "diamond",
    "ring",
];

/// Mean and standard deviation of the training images, measured over 5,000 of seed 0.
pub const SYNTHETIC: Normalisation = Normalisation { mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] };

/// Whether (u, v), in units of the shape's radius with v pointing down, lies in the class's shape.
fn inside(class: usize, u: f64, v: f64) -> bool {
    let (au, av) = (u.abs(), v.abs());
    let radius = (u * u + v * v).sqrt();
    let triangle = |v: f64| v <= 0.75 && au <= (v + 1.0) * 0.55;
    match class {
        0 => radius <= 0.9,
        1 => au.max(av) <= 0.8,
        2 => triangle(v) && v >= -1.0,
        3 => au.max(av) <= 0.95 && au.min(av) <= 0.27,
        4 => au.max(av) <= 0.9 && ((v + 0.9) / 0.36) as i32 % 2 == 0,
        5 => au.max(av) <= 0.9 && ((u + 0.9) / 0.36) as i32 % 2 == 0,
        6 => radius <= 1.05 && ((u - v).abs().min((u + v).abs()) <= 0.38),
        7 => triangle(-v) && -v >= -1.0,
        8 => au + av <= 1.1,
        _ => (0.45..=0.95).contains(&radius),
    }
}

/// One image, `[SIZE, SIZE, 3]`, of a class.
fn draw(stream: &mut Stream, class: usize, out: &mut [u8]) {
    let side = SIZE as f64;
    let radius = stream.uniform(8.0, 14.0);
    let centre = [0, 1].map(|_| stream.uniform(radius * 0.75, side - radius * 0.75));
    let tilt = stream.uniform(-0.25, 0.25);
    let (sin, cos) = tilt.sin_cos();
    let ground: [f64; 3] = std::array::from_fn(|_| stream.uniform(50.0, 205.0));
    // The shape's colour lies at a random distance in a random direction from the ground.
    let direction: [f64; 3] = std::array::from_fn(|_| stream.normal());
    let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt().max(1e-6);
    let contrast = stream.uniform(70.0, 160.0);
    let slope: [f64; 2] = std::array::from_fn(|_| stream.uniform(-25.0, 25.0));
    let noise = stream.uniform(4.0, 14.0);
    let bar = (stream.unit() < 0.3).then(|| {
        let colour: [f64; 3] = std::array::from_fn(|_| stream.uniform(20.0, 235.0));
        (stream.below(2) == 0, stream.uniform(4.0, side - 4.0), stream.uniform(1.0, 3.0), colour)
    });
    for (at, pixel) in out.chunks_exact_mut(3).enumerate() {
        let (x, y) = ((at % SIZE) as f64 + 0.5, (at / SIZE) as f64 + 0.5);
        let (dx, dy) = ((x - centre[0]) / radius, (y - centre[1]) / radius);
        let within = inside(class, cos * dx + sin * dy, cos * dy - sin * dx);
        let light = slope[0] * (x / side - 0.5) + slope[1] * (y / side - 0.5);
        for (channel, value) in pixel.iter_mut().enumerate() {
            let mut level = ground[channel] + light;
            if within {
                level += contrast * direction[channel] / length;
            }
            if let Some((upright, place, half, colour)) = bar {
                let distance = if upright { x - place } else { y - place };
                if distance.abs() <= half {
                    level = colour[channel];
                }
            }
            // Uniform noise of the same standard deviation everywhere, from 16 bits each.
            level += noise * 1.732 * (f64::from(stream.next_u32() >> 16) / 32_768.0 - 1.0);
            *value = level.round().clamp(0.0, 255.0) as u8;
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
pub fn generate(seed: u64, train_per_class: usize, test_per_class: usize) -> Source {
    Source {
        classes: CLASSES.map(String::from).to_vec(),
        train: set(seed, 0, train_per_class),
        test: set(seed, 1, test_per_class),
        train_normalisation: SYNTHETIC,
        test_normalisation: SYNTHETIC,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_depend_on_seed_and_part_alone() {
        let small = generate(3, 4, 2);
        let large = generate(3, 4, 2);
        assert_eq!(small.train.images, large.train.images);
        assert_eq!(small.train.class_sizes(10), vec![4; 10]);
        assert_ne!(small.train.images, generate(4, 4, 2).train.images);
        assert_ne!(small.train.image(0), small.test.image(0));
    }

    /// Mean and spread within 0.03 of the stated constants, which are round figures.
    #[test]
    fn normalisation_is_measured() {
        let train = generate(0, 200, 1).train;
        let n = (train.images.len() / 3) as f64;
        for channel in 0..3 {
            let values = || train.images.iter().skip(channel).step_by(3).map(|&v| f64::from(v) / 255.0);
            let mean = values().sum::<f64>() / n;
            let std = (values().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt();
            assert!((mean - f64::from(SYNTHETIC.mean[channel])).abs() < 0.03, "mean {mean}");
            assert!((std - f64::from(SYNTHETIC.std[channel])).abs() < 0.03, "std {std}");
        }
    }

    /// The mean colour of a class tells nothing: all class means agree within the noise of 200 images.
    #[test]
    fn colour_does_not_give_the_class_away() {
        let train = generate(0, 200, 1).train;
        let mean = |class: usize| {
            let images = (class * 200..(class + 1) * 200).flat_map(|i| train.image(i));
            images.map(|&v| f64::from(v)).sum::<f64>() / (200.0 * 3072.0)
        };
        let means: Vec<f64> = (0..10).map(mean).collect();
        assert!(means.iter().all(|m| (m - means[0]).abs() < 12.0), "{means:?}");
    }
}
