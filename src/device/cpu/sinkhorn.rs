//! The label refinery of SoLar (NeurIPS 2022): Sinkhorn's iteration towards pseudo-labels whose class frequencies follow the
//! estimated class prior.

use rayon::prelude::*;

use crate::device::primitive::{SinkhornSettings, outcome};

/// Rows whose column sums are made together. A fixed cut, so that the bits do not depend on threads.
const BLOCK: usize = 256;

/// The error before it is first looked at.
const FIRST_ERROR: f32 = 1e6;

/// Fills `refined` and returns the figures of [`outcome`]; see [`crate::device::Primitive::Sinkhorn`]. An empty `queue` is none.
pub(super) fn run(
    classes: usize,
    settings: &SinkhornSettings,
    predictions: &[f32],
    queue: &[f32],
    class_prior: &[f32],
    refined: &mut [f32],
) -> [f32; outcome::LEN] {
    let full = queue.chunks_exact(classes).next_back().is_some_and(|last| last.iter().any(|&v| v != 0.0));
    let queue = if full { queue } else { &[] };
    let rows: Vec<f32> = queue.iter().chain(predictions).copied().collect();

    let scaling = |relaxed: bool| {
        let lifted = |&value: &f32| if relaxed && value == 0.0 { settings.relaxation } else { value };
        let powers = rows.iter().map(|value| power(lifted(value), settings.power)).collect();
        Scaling::solve(classes, settings, powers, class_prior)
    };
    let mut solved = scaling(false);
    let mut rounds = solved.rounds;
    let relaxed = solved.failed || !solved.result(0).all(f32::is_finite);
    if relaxed {
        solved = scaling(true);
        rounds += solved.rounds;
    }
    let result = solved.result(queue.len() / classes);
    for ((refined, &prediction), result) in refined.iter_mut().zip(predictions).zip(result) {
        // A product, not a choice: a NaN shows also where the prediction is 0.
        let mask = if relaxed && prediction == 0.0 { 0.0 } else { 1.0 };
        *refined = result * mask;
    }
    let mut figures = [0.0; outcome::LEN];
    figures[outcome::ROUNDS] = rounds as f32;
    figures[outcome::RELAXED] = f32::from(u8::from(relaxed));
    figures
}

/// x^lambda; SoLar's cube by two products, as PyTorch forms it.
fn power(value: f32, lambda: f32) -> f32 {
    if lambda == 3.0 { value * value * value } else { value.powf(lambda) }
}

/// One attempt: A `[n,K]` and the vectors that scale its columns and rows.
struct Scaling {
    powers: Vec<f32>,
    columns: Vec<f32>,
    rows: Vec<f32>,
    rounds: usize,
    /// The error was NaN when it was looked at.
    failed: bool,
}

impl Scaling {
    fn solve(classes: usize, settings: &SinkhornSettings, powers: Vec<f32>, class_prior: &[f32]) -> Self {
        let count = powers.len() / classes;
        let share = 1.0 / count as f32;
        let mut scaling =
            Self { powers, columns: vec![1.0; classes], rows: vec![share; count], rounds: 0, failed: false };
        let mut error = FIRST_ERROR;
        while scaling.rounds < settings.rounds && !scaling.failed && error >= settings.tolerance {
            scaling.round(class_prior, share);
            if scaling.rounds.is_multiple_of(settings.check_every) {
                let sum = |values: &[f32]| values.iter().map(|&value| f64::from(value)).sum::<f64>() as f32;
                error = sum(&scaling.rows) + sum(&scaling.columns);
                scaling.failed = error.is_nan();
            }
        }
        scaling
    }

    /// a = r / (A^T b), b = (1/n) / (A a). The sums are in f64 and rounded: only their results can overflow, as in any order
    /// of f32 additions.
    fn round(&mut self, class_prior: &[f32], share: f32) {
        let classes = class_prior.len();
        let blocks: Vec<Vec<f64>> = self
            .powers
            .par_chunks(BLOCK * classes)
            .zip(self.rows.par_chunks(BLOCK))
            .map(|(powers, rows)| {
                let mut sums = vec![0.0; classes];
                for (powers, &row) in powers.chunks_exact(classes).zip(rows) {
                    let products = powers.iter().map(|&a| f64::from(a) * f64::from(row));
                    sums.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
                }
                sums
            })
            .collect();
        for (k, (column, &prior)) in self.columns.iter_mut().zip(class_prior).enumerate() {
            *column = prior / blocks.iter().map(|sums| sums[k]).sum::<f64>() as f32;
        }
        let columns = &self.columns;
        self.powers.par_chunks_exact(classes).zip(&mut self.rows).with_min_len(BLOCK).for_each(
            |(powers, row)| {
                let products =
                    powers.iter().zip(columns).map(|(&a, &column)| f64::from(a) * f64::from(column));
                *row = share / products.sum::<f64>() as f32;
            },
        );
        self.rounds += 1;
    }

    /// n a_k A_jk b_j, row after row from row `first`.
    fn result(&self, first: usize) -> impl Iterator<Item = f32> {
        let count = self.rows.len() as f32;
        let classes = self.columns.len();
        self.powers.chunks_exact(classes).zip(&self.rows).skip(first).flat_map(move |(powers, row)| {
            powers.iter().zip(&self.columns).map(move |(a, column)| a * row * column * count)
        })
    }
}
