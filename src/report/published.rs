//! The published numbers: top-1 test accuracy in percent.
//!
//! Source: the results tables of Hong et al., "Long-tailed partial label learning via dynamic rebalancing"
//! (ICLR 2023), as the readme of its published code gives them (SPEC 11): the best of 800 epochs, ResNet-18
//! of width 64.

use crate::train::grid::{Benchmark, Column, MethodRow, ROWS};

/// Imbalance ratios of the tables.
pub const RHOS: [f64; 2] = [50.0, 100.0];

/// The ambiguities of a benchmark's table.
pub fn qs(benchmark: Benchmark) -> [f64; 3] {
    match benchmark {
        Benchmark::Cifar10 => [0.3, 0.5, 0.7],
        Benchmark::Cifar100 => [0.03, 0.05, 0.07],
    }
}

/// Rows in the order of [`ROWS`]; columns: each of [`RHOS`] with each of [`qs`].
const CIFAR10: [[f64; 6]; 5] = [
    [76.12, 56.45, 41.56, 66.38, 50.09, 38.11],
    [36.27, 17.61, 12.77, 29.97, 15.80, 11.75],
    [82.57, 80.28, 67.24, 77.66, 72.90, 57.46],
    [83.88, 76.55, 54.61, 75.38, 70.63, 53.15],
    [84.25, 82.5, 71.24, 79.79, 74.07, 62.25],
];

const CIFAR100: [[f64; 6]; 5] = [
    [42.29, 38.03, 36.59, 38.39, 34.09, 31.05],
    [22.56, 5.59, 3.12, 11.37, 3.32, 1.98],
    [48.06, 45.56, 42.51, 42.25, 40.59, 38.65],
    [47.93, 46.85, 45.1, 42.51, 41.71, 39.15],
    [52.08, 50.58, 47.91, 46.57, 45.22, 44.73],
];

/// The published top-1 of a cell, in percent; `None` if the tables have no such cell.
pub fn top1(benchmark: Benchmark, row: &MethodRow, Column { rho, q }: Column) -> Option<f64> {
    let table = match benchmark {
        Benchmark::Cifar10 => &CIFAR10,
        Benchmark::Cifar100 => &CIFAR100,
    };
    let qs = qs(benchmark);
    let rho = RHOS.iter().position(|&known| known == rho)?;
    let q = qs.iter().position(|&known| known == q)?;
    let row = ROWS.iter().position(|known| known == row)?;
    Some(table[row][rho * qs.len() + q])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(benchmark: Benchmark, word: &str, rho: f64, q: f64) -> Option<f64> {
        top1(benchmark, ROWS.iter().find(|row| row.word == word).unwrap(), Column { rho, q })
    }

    /// Corners of both tables, and the cells that the presets run.
    #[test]
    fn landmarks_stand_in_their_cells() {
        use Benchmark::{Cifar10, Cifar100};
        for (benchmark, word, rho, q, expected) in [
            (Cifar10, "corr", 50.0, 0.3, 76.12),
            (Cifar10, "corr", 100.0, 0.3, 66.38),
            (Cifar10, "corr", 100.0, 0.7, 38.11),
            (Cifar10, "oracle", 100.0, 0.5, 15.80),
            (Cifar10, "records", 100.0, 0.3, 77.66),
            (Cifar10, "records", 100.0, 0.5, 72.90),
            (Cifar10, "solar", 100.0, 0.3, 75.38),
            (Cifar10, "records-mixup", 50.0, 0.3, 84.25),
            (Cifar10, "records-mixup", 100.0, 0.7, 62.25),
            (Cifar100, "corr", 50.0, 0.03, 42.29),
            (Cifar100, "oracle", 100.0, 0.07, 1.98),
            (Cifar100, "records", 100.0, 0.03, 42.25),
            (Cifar100, "solar", 50.0, 0.07, 45.1),
            (Cifar100, "records-mixup", 100.0, 0.07, 44.73),
        ] {
            assert_eq!(of(benchmark, word, rho, q), Some(expected), "{benchmark:?} {word} {rho} {q}");
        }
        for (benchmark, word, rho, q) in
            [(Cifar10, "corr", 20.0, 0.3), (Cifar10, "corr", 50.0, 0.03), (Cifar100, "corr", 50.0, 0.3)]
        {
            assert_eq!(of(benchmark, word, rho, q), None);
        }
    }

    /// As in the paper: more ambiguity and more imbalance are harder, RECORDS beats CORR, mixup helps.
    #[test]
    fn the_tables_have_the_shape_of_the_paper() {
        for benchmark in [Benchmark::Cifar10, Benchmark::Cifar100] {
            let qs = qs(benchmark);
            let value = |word, rho, q| of(benchmark, word, rho, q).unwrap();
            for row in &ROWS {
                for rho in RHOS {
                    assert!(
                        qs.is_sorted_by(|&a, &b| value(row.word, rho, a) > value(row.word, rho, b)),
                        "{}",
                        row.word
                    );
                }
                for q in qs {
                    assert!(value(row.word, 50.0, q) > value(row.word, 100.0, q), "{} {q}", row.word);
                }
            }
            for (rho, q) in RHOS.into_iter().flat_map(|rho| qs.map(|q| (rho, q))) {
                assert!(value("oracle", rho, q) < value("corr", rho, q));
                assert!(value("corr", rho, q) < value("records", rho, q));
                assert!(value("records", rho, q) < value("records-mixup", rho, q));
            }
        }
    }
}
