//! Batchnorm: training forward, inference and gradient.
//!
//! The interpreter simulates a GPU of 82 multiprocessors, so a tensor of a thousand rows is already cut into
//! many tiles, few of them of full length.

use std::sync::Arc;

use records::autograd::Tape;
use records::device::gpu::driver::Driver as _;
use records::device::gpu::kernels::batchnorm::{
    self as kernels, BatchnormFinish, BatchnormGradientFinish, FINISH_CHANNELS,
};
use records::device::gpu::kernels::batchnorm_joint::{
    self as joint, BatchnormJointGradient, BatchnormJointStatistics,
};
use records::device::gpu::launch::{Address, Launch};
use records::device::gpu::sim::SimDriver;
use records::device::gpu::{GpuDevice, Precision};
use records::device::{Buffer, Device as _, Element, Operation, Plan, Program, Tensor};
use records::operations;
use records::ops::batchnorm::{
    BatchNorm, BatchNormGradient, BatchNormInference, JointBatchNorm, JointBatchNormGradient, ValidRows,
    positive_len,
};
use records::ops::convolution::{Convolution, ConvolutionDataGradient, ConvolutionShape};
use records::ops::elementwise::Convert;

use crate::pair::{Outcome, PRECISIONS, Pair, Random, Value, stored};

/// Rounding of one f32 operation, relative.
const F32: f64 = 1.0 / (1 << 24) as f64;
/// Rounding to bf16, whose significand has eight bits, relative.
const BF16: f64 = 1.0 / (1 << 8) as f64;

const X: Tensor = Tensor(0);
const AFFINE: Tensor = Tensor(1);
const RUNNING: Tensor = Tensor(2);
const BATCH: Tensor = Tensor(3);
const RESIDUAL: Tensor = Tensor(4);
const Y: Tensor = Tensor(5);
const DY: Tensor = Tensor(6);
const D_AFFINE: Tensor = Tensor(7);
const DX: Tensor = Tensor(8);
const POSITIVE: Tensor = Tensor(9);
const COUNT: Tensor = Tensor(10);

/// Asserts |kernels - cpu| <= relative |cpu| + absolute.
fn assert_within(what: &str, outcome: &Outcome, tensor: Tensor, relative: f64, absolute: f64) {
    let pairs = outcome.cpu[tensor.0].iter().zip(&outcome.kernels[tensor.0]);
    for (at, (&cpu, &kernels)) in pairs.enumerate() {
        let tolerance = relative * f64::from(cpu).abs() + absolute;
        let difference = (f64::from(kernels) - f64::from(cpu)).abs();
        assert!(
            difference <= tolerance,
            "{what}, element {at}: cpu {cpu}, kernels {kernels} (allowed {tolerance:e})"
        );
    }
}

fn rounded(values: impl Iterator<Item = f32>) -> Vec<f32> {
    values.map(|value| half::bf16::from_f32(value).to_f32()).collect()
}

/// Operands whose values before the ReLU keep a distance from 0: xhat lies near +1 or -1 (rows alternate), so
/// that g xhat + b with g in 0.8..1.2 and |b| in 0.1..0.2 is beyond 0.1 for every number of rows, and a
/// residual pushes the same way. Means and deviations differ between channels. x holds values that bf16
/// represents, at every precision: the CPU computes the variance from squares in f32, which are exact then;
/// the accuracy of the kernels is compared with f64 below.
fn operands(random: &mut Random, rows: usize, channels: usize) -> Vec<Value> {
    let signs: Vec<f32> = (0..rows * channels)
        .map(|i| if (i / channels + i % channels).is_multiple_of(2) { 1.0 } else { -1.0 })
        .collect();
    let (centre, spread) = (random.normal(channels, 1.0), random.uniform(channels, 0.5, 2.0));
    let sizes = random.uniform(rows * channels, 0.8, 1.2);
    let x = (0..rows * channels).map(|i| centre[i % channels] + spread[i % channels] * signs[i] * sizes[i]);
    let offsets = random.uniform(channels, -0.1, 0.1);
    let affine = random
        .uniform(channels, 0.8, 1.2)
        .into_iter()
        .chain(offsets.iter().map(|&v| if v < 0.0 { v - 0.1 } else { v + 0.1 }));
    let residual =
        random.normal(rows * channels, 1.0).into_iter().zip(&signs).map(|(v, sign)| v.abs() * sign);
    vec![
        Value::Activations(rounded(x)),
        Value::F32(affine.collect()),
        Value::F32(random.uniform(2 * channels, 0.1, 2.0)),
        Value::Output(2 * channels),
        Value::Activations(residual.collect()),
        Value::ActivationOutput(rows * channels),
        Value::Activations(random.normal(rows * channels, 1.0)),
        Value::Output(2 * channels),
        Value::ActivationOutput(rows * channels),
        Value::PositiveBits(rows * channels),
    ]
}

fn forward([rows, channels]: [usize; 2], residual: bool, relu: bool) -> BatchNorm {
    BatchNorm {
        rows,
        channels,
        x: X,
        affine: AFFINE,
        running: RUNNING,
        batch: BATCH,
        residual: residual.then_some(RESIDUAL),
        relu,
        valid: None,
        y: Y,
        positive: (residual && relu).then_some(POSITIVE),
    }
}

fn gradient([rows, channels]: [usize; 2], residual: bool, relu: bool) -> BatchNormGradient {
    BatchNormGradient {
        rows,
        channels,
        x: X,
        y: Y,
        positive: (residual && relu).then_some(POSITIVE),
        relu,
        residual,
        valid: None,
        affine: AFFINE,
        batch: BATCH,
        dy: DY,
        d_affine: D_AFFINE,
        dx: DX,
    }
}

/// Forward pass and gradient for every combination of residual and ReLU.
fn training(precision: Precision, shapes: &[[usize; 2]]) {
    compare(precision, shapes, |forward, gradient| operations![forward, gradient].into());
}

/// The same of the operations that `recorded` makes of the two.
fn compare(
    precision: Precision,
    shapes: &[[usize; 2]],
    recorded: impl Fn(BatchNorm, BatchNormGradient) -> Vec<Arc<dyn Operation>>,
) {
    let mut pair = Pair::new(precision);
    let stored = stored(precision);
    for &shape @ [rows, channels] in shapes {
        for (residual, relu) in [(false, false), (false, true), (true, false), (true, true)] {
            let what = format!("{rows} x {channels}, residual {residual}, relu {relu}");
            let mut random = Random::new(&format!("batchnorm training {precision:?} {what}"));
            let values = operands(&mut random, rows, channels);
            let operations = recorded(forward(shape, residual, relu), gradient(shape, residual, relu));
            let outcome = pair.run_each(&operations, &values);

            // Values are near 1. Sums run over at most a few dozen rows in a thread, then over lanes and
            // tiles in trees: a few roundings of f32; sixteen leave a margin.
            outcome.assert_close(&format!("{what}: statistics"), BATCH, 16.0 * F32, 16.0 * F32);
            outcome.assert_close(&format!("{what}: running"), RUNNING, 16.0 * F32, 16.0 * F32);
            // The CPU computes x scale + (b - mean scale): what cancels is up to |x| scale = 8 x 1.2 / 0.4 in
            // general; one row has no variance, and scale is 1.2 / sqrt(eps) = 380.
            let cancelled = if rows == 1 { 380.0 * 8.0 } else { 24.0 };
            assert_within(&format!("{what}: y"), &outcome, Y, stored + 16.0 * F32, 4.0 * cancelled * F32);
            if relu && residual {
                // The CPU masks by y, the kernels by the bits that they have left of theirs.
                outcome.assert_equal(&format!("{what}: the residual's gradient"), DY);
            }
            // Sums of `rows` products of size 1 with random signs, and their rounding errors, grow with the
            // root of the rows. The devices' means differ by one or two roundings of |x|, up to 12
            // deviations, which moves sum dy xhat by as many roundings of sum dy.
            outcome.assert_close(&format!("{what}: d_affine"), D_AFFINE, 32.0 * F32, 32.0 * F32);
            // scale (dy - mean(dy) - xhat mean(dy xhat)) cancels, with two rows completely; dy is below 5.
            let scale = if rows == 1 { 380.0 } else { 3.0 };
            assert_within(
                &format!("{what}: dx"),
                &outcome,
                DX,
                stored + 16.0 * F32,
                16.0 * scale * 5.0 * F32,
            );
        }
    }
}

/// Of one GPU the joint statistics are its own, by the kernels of several.
#[test]
fn joint_training_of_one() {
    for precision in PRECISIONS {
        let shapes = [[1, 8], [3, 24], [67, 40], [2603, 8], [517, 64], [45, 520], [9, 2048]];
        compare(precision, &shapes, |forward, gradient| {
            operations![JointBatchNorm(forward), JointBatchNormGradient(gradient)].into()
        });
    }
}

#[test]
fn training_in_f32() {
    training(
        Precision::F32,
        &[
            [1, 8],
            [2, 4],
            [3, 12],
            [67, 20],
            [1301, 8],
            [517, 64],
            [130, 260],
            [45, 516],
            [9, 2048],
            [9216, 8],
            [75, 1024],
        ],
    );
}

#[test]
fn training_in_bf16() {
    training(
        Precision::Bf16,
        &[
            [1, 8],
            [2, 16],
            [3, 24],
            [67, 40],
            [2603, 8],
            [517, 64],
            [130, 264],
            [45, 520],
            [9, 2048],
            [16384, 8],
            [75, 1024],
        ],
    );
}

/// Batches with a number of valid rows that the device decides: rows behind are not read, and 0 in the
/// results. None, one, some and all of the images, and more than fit.
fn partly_valid(precision: Precision, shapes: &[[usize; 3]]) {
    let mut pair = Pair::new(precision);
    let stored = stored(precision);
    for &[images, rows_each, channels] in shapes {
        let rows = images * rows_each;
        for (residual, relu) in [(false, false), (false, true), (true, false), (true, true)] {
            for count in [0, 1, images / 2, images - 1, images, images + 3] {
                let what = format!(
                    "{count} of {images} x {rows_each} x {channels}, residual {residual}, relu {relu}"
                );
                let there = (count * rows_each).min(rows);
                let mut random = Random::new(&format!("batchnorm valid {precision:?} {what}"));
                let mut values = operands(&mut random, rows, channels);
                for tensor in [X, RESIDUAL] {
                    let Value::Activations(values) = &mut values[tensor.0] else { unreachable!() };
                    values[there * channels..].fill(f32::NAN);
                }
                let Value::Activations(dy) = &mut values[DY.0] else { unreachable!() };
                dy[there * channels..].fill(0.0);
                let Value::F32(running) = values[RUNNING.0].clone() else { unreachable!() };
                values.push(Value::I32(vec![count as i32]));
                let valid = Some(ValidRows { count: COUNT, rows_each });
                let shape = [rows, channels];
                let operations = operations![
                    BatchNorm { valid, ..forward(shape, residual, relu) },
                    BatchNormGradient { valid, ..gradient(shape, residual, relu) },
                ];
                let outcome = pair.run_each(&operations, &values);

                // The tolerances of whole batches.
                outcome.assert_close(&format!("{what}: statistics"), BATCH, 16.0 * F32, 16.0 * F32);
                outcome.assert_close(&format!("{what}: running"), RUNNING, 16.0 * F32, 16.0 * F32);
                let cancelled = if there == 1 { 380.0 * 8.0 } else { 24.0 };
                assert_within(&format!("{what}: y"), &outcome, Y, stored + 16.0 * F32, 4.0 * cancelled * F32);
                if relu && residual {
                    outcome.assert_equal(&format!("{what}: the residual's gradient"), DY);
                }
                outcome.assert_close(&format!("{what}: d_affine"), D_AFFINE, 32.0 * F32, 32.0 * F32);
                let scale = if there == 1 { 380.0 } else { 3.0 };
                let absolute = 16.0 * scale * 5.0 * F32;
                assert_within(&format!("{what}: dx"), &outcome, DX, stored + 16.0 * F32, absolute);
                for tensor in [Y, DX] {
                    let written = &outcome.kernels[tensor.0];
                    assert!(written[there * channels..].iter().all(|v| *v == 0.0), "{what}: behind");
                    assert!(written[..there * channels].iter().all(|v| v.is_finite()), "{what}");
                }
                if there == 0 {
                    assert_eq!(outcome.kernels[RUNNING.0], running, "{what}");
                    let zeros = |tensor: Tensor| outcome.kernels[tensor.0].iter().all(|v| *v == 0.0);
                    assert!(zeros(BATCH) && zeros(D_AFFINE), "{what}");
                }
            }
        }
    }
}

#[test]
fn partly_valid_batches_in_f32() {
    partly_valid(Precision::F32, &[[2, 1, 4], [5, 9, 12], [40, 13, 64], [7, 16, 260]]);
}

#[test]
fn training_in_f16() {
    training(Precision::F16, &[[1, 8], [3, 24], [67, 40], [517, 64], [130, 264], [9, 2048], [16384, 8]]);
}

#[test]
fn partly_valid_batches_in_f16() {
    partly_valid(Precision::F16, &[[2, 1, 8], [5, 9, 24], [7, 16, 264]]);
}

#[test]
fn partly_valid_batches_in_bf16() {
    partly_valid(Precision::Bf16, &[[2, 1, 8], [5, 9, 24], [40, 13, 64], [7, 16, 264]]);
}

/// Training statistics and y against f64 for a mean of a thousand deviations: x in f32 around 100 with
/// deviation 0.1 (in bf16, whose steps there are 0.5, deviation 3; in f16, whose steps are 1/16, deviation
/// 1). A variance from E[x^2] - E[x]^2 in f32 would be wrong by several percent.
#[test]
fn a_large_mean_costs_no_digits() {
    for (precision, deviation) in [(Precision::F32, 0.1), (Precision::Bf16, 3.0), (Precision::F16, 1.0)] {
        let mut pair = Pair::new(precision);
        for shape @ [rows, channels] in [[70, 8], [3001, 16], [409, 264]] {
            let what = format!("{precision:?} {rows} x {channels}");
            let mut random = Random::new(&format!("batchnorm large mean {what}"));
            let mut values = operands(&mut random, rows, channels);
            let x = random.normal(rows * channels, deviation).into_iter().map(|v| 100.0 + v);
            let x: Vec<f32> = match precision {
                Precision::Bf16 => rounded(x),
                Precision::F16 => x.map(|v| half::f16::from_f32(v).to_f32()).collect(),
                Precision::F32 => x.collect(),
            };
            values[X.0] = Value::Activations(x.clone());
            let Value::F32(affine) = values[AFFINE.0].clone() else { unreachable!() };
            let Value::F32(running) = values[RUNNING.0].clone() else { unreachable!() };
            let kernels = pair.run(&[forward(shape, false, false)], &values[..=Y.0]).kernels;

            let n = rows as f64;
            for channel in 0..channels {
                let column: Vec<f64> =
                    x.iter().skip(channel).step_by(channels).map(|&v| f64::from(v)).collect();
                let mean = column.iter().sum::<f64>() / n;
                let variance = column.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                let inverse = 1.0 / (variance + 1e-5).sqrt();
                let near = |name: &str, got: f32, want: f64, tolerance: f64| {
                    let difference = (f64::from(got) - want).abs();
                    assert!(
                        difference <= tolerance,
                        "{what}: {name} of channel {channel}: {got}, float64 {want}"
                    );
                };
                // A tile's sum and the mean itself are rounded near 100 (times the rows): 2 roundings of 100,
                // doubled for the division and the merging.
                let mean_error = 4.0 * F32 * 100.0;
                near("mean", kernels[BATCH.0][channel], mean, mean_error);
                near(
                    "running mean",
                    kernels[RUNNING.0][channel],
                    0.9 * f64::from(running[channel]) + 0.1 * mean,
                    mean_error,
                );
                // Deviations from a tile's first row are exact. The tiles' means, wrong by 100 F32, enter
                // squared deviations of at most about variance / 4: relative 2 x 100 F32 / (4 deviation).
                let relative = 32.0 * F32 + 50.0 * F32 / deviation;
                near("1/std", kernels[BATCH.0][channels + channel], inverse, relative * inverse);
                let new = 0.9 * f64::from(running[channels + channel]) + 0.1 * variance * n / (n - 1.0);
                near("running variance", kernels[RUNNING.0][channels + channel], new, 2.0 * relative * new);
                // y carries the mean's error, in deviations; xhat is below 5.
                let (g, b) = (f64::from(affine[channel]), f64::from(affine[channels + channel]));
                for (row, value) in column.iter().enumerate() {
                    let want = g * (value - mean) * inverse + b;
                    let tolerance = g * (mean_error * inverse + 5.0 * relative)
                        + stored(precision) * want.abs()
                        + 4.0 * F32;
                    near("y", kernels[Y.0][row * channels + channel], want, tolerance);
                }
            }
        }
    }
}

#[test]
fn a_nan_stays_in_its_channel_and_is_not_hidden() {
    for precision in PRECISIONS {
        let mut values = operands(&mut Random::new("batchnorm nan"), 50, 16);
        let Value::Activations(x) = &mut values[X.0] else { unreachable!() };
        x[33 * 16 + 5] = f32::NAN;
        let outcome = Pair::new(precision).run(&[forward([50, 16], false, true)], &values[..=Y.0]);
        assert!(outcome.kernels[Y.0].iter().enumerate().all(|(i, y)| y.is_nan() == (i % 16 == 5)));
        assert!(outcome.kernels[RUNNING.0][5].is_nan() && outcome.kernels[RUNNING.0][4].is_finite());
    }
}

#[test]
fn inference() {
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for [rows, channels] in [[1, 8], [77, 24], [1300, 16], [33, 520]] {
            for (residual, relu) in [(false, false), (false, true), (true, false), (true, true)] {
                let what = format!("{precision:?} {rows} x {channels}, residual {residual}, relu {relu}");
                let mut values =
                    operands(&mut Random::new(&format!("batchnorm inference {what}")), rows, channels);
                // Only training writes the batch's statistics.
                values[BATCH.0] = Value::F32(vec![0.0]);
                let inference = BatchNormInference {
                    rows,
                    channels,
                    x: X,
                    affine: AFFINE,
                    running: RUNNING,
                    residual: residual.then_some(RESIDUAL),
                    relu,
                    y: Y,
                };
                let outcome = pair.run(&[inference], &values[..=Y.0]);
                // |x| scale, part of which cancels in the CPU's formula, is below 8 x 1.2 / sqrt(0.1) = 30.
                assert_within(&what, &outcome, Y, stored(precision) + 8.0 * F32, 4.0 * 30.0 * F32);
            }
        }
    }
}

/// Runs both finishing kernels on partial sums; returns the running statistics, those of the batch, and the
/// gradient of the parameters.
fn finish(
    driver: &mut SimDriver,
    [rows, channels, tiles, tile_rows]: [usize; 4],
    partial: &[f32],
    running: &[f32],
) -> [Vec<f32>; 3] {
    let bytes = 2 * channels * 4;
    let memory = driver.allocate(&[partial.len() * 4, bytes, bytes, bytes], "a test operand").unwrap();
    driver.write(memory[0].address, bytemuck::cast_slice(partial)).unwrap();
    driver.write(memory[1].address, bytemuck::cast_slice(running)).unwrap();
    let [partial, running, batch, d_affine] =
        [0, 1, 2, 3].map(|at: usize| Address::Device(memory[at].address));
    let blocks = channels.div_ceil(FINISH_CHANNELS);
    let block = [FINISH_CHANNELS as u32, tiles.div_ceil(4).next_power_of_two().min(128) as u32, 1];
    let images = Address::NULL;
    let parameters =
        BatchnormFinish { rows, channels, tiles, tile_rows, rows_each: 0, partial, images, running, batch };
    let launch = kernels::BATCHNORM_FINISH.linear(blocks, 1, parameters);
    driver.launch(&Launch { block, ..launch }).unwrap();
    let parameters = BatchnormGradientFinish { channels, tiles, partial, batch, d_affine };
    let launch = kernels::BATCHNORM_GRADIENT_FINISH.linear(blocks, 1, parameters);
    driver.launch(&Launch { block, ..launch }).unwrap();
    [1, 2, 3].map(|at: usize| {
        let mut values = vec![0f32; 2 * channels];
        driver.read(memory[at].address, bytemuck::cast_slice_mut(&mut values)).unwrap();
        values
    })
}

/// The kernels that add up the sums of several GPUs, one of which may have no rows: statistics, and what each
/// GPU divides by its own rows.
#[test]
fn sums_of_several_gpus_are_added() {
    let mut driver = SimDriver::open(0).unwrap();
    let channels = 20;
    for of_ranks in [&[7][..], &[5, 4], &[16, 0, 3], &[0, 0]] {
        let mut random = Random::new(&format!("several GPUs {of_ranks:?}"));
        let ranks = of_ranks.len();
        let mut gathered = Vec::new();
        for &rows in of_ranks {
            let values: Vec<f64> =
                random.normal(rows * channels, 1.0).into_iter().map(|value| 5.0 + f64::from(value)).collect();
            let sum = |term: &dyn Fn(f64) -> f64| -> Vec<f64> {
                let of = |c| values.iter().skip(c).step_by(channels).map(|&value| term(value)).sum();
                (0..channels).map(of).collect()
            };
            gathered.extend(sum(&|value| value).into_iter().chain(sum(&|value| value * value)));
            gathered.push(rows as f64);
        }
        let before = random.uniform(2 * channels, 0.5, 2.0);
        let bytes = 2 * channels * 4;
        let memory = driver.allocate(&[gathered.len() * 8, bytes, bytes, bytes], "a test operand").unwrap();
        driver.write(memory[0].address, bytemuck::cast_slice(&gathered)).unwrap();
        driver.write(memory[1].address, bytemuck::cast_slice(&before)).unwrap();
        let [all, running, batch, share] = [0, 1, 2, 3].map(|at: usize| Address::Device(memory[at].address));
        let parameters = BatchnormJointStatistics { channels, ranks, gathered: all, running, batch };
        driver.launch(&joint::BATCHNORM_JOINT_STATISTICS.linear(1, joint::THREADS, parameters)).unwrap();
        let mut read = |at: usize| {
            let mut values = vec![0f32; 2 * channels];
            driver.read(memory[at].address, bytemuck::cast_slice_mut(&mut values)).unwrap();
            values.into_iter().map(f64::from).collect::<Vec<_>>()
        };
        let (running, found) = (read(1), read(2));
        let total = |c: usize| (0..ranks).map(|rank| gathered[rank * (2 * channels + 1) + c]).sum::<f64>();
        let rows = total(2 * channels);
        let near = |a: f64, b: f64| assert!((a - b).abs() <= 4.0 * F32 * b.abs(), "{of_ranks:?}: {a} {b}");
        for c in 0..channels {
            if rows == 0.0 {
                assert_eq!([found[c], found[channels + c]], [0.0; 2]);
                assert_eq!(running[c], f64::from(before[c]));
                continue;
            }
            let mean = total(c) / rows;
            let variance = total(channels + c) / rows - mean * mean;
            near(found[c], mean);
            near(found[channels + c], 1.0 / (variance + 1e-5).sqrt());
            near(running[c], 0.9 * f64::from(before[c]) + 0.1 * mean);
            let unbiased = variance * rows / (rows - 1.0);
            near(running[channels + c], 0.9 * f64::from(before[channels + c]) + 0.1 * unbiased);
        }
        for (rank, &own) in of_ranks.iter().enumerate() {
            let parameters = BatchnormJointGradient { channels, rank, ranks, gathered: all, batch, share };
            driver.launch(&joint::BATCHNORM_JOINT_GRADIENT.linear(1, joint::THREADS, parameters)).unwrap();
            let mut shared = vec![0f32; 2 * channels];
            driver.read(memory[3].address, bytemuck::cast_slice_mut(&mut shared)).unwrap();
            let part = if rows == 0.0 { 0.0 } else { own as f64 / rows };
            for c in 0..channels {
                near(f64::from(shared[c]), total(c) * found[channels + c] * part);
                near(f64::from(shared[channels + c]), total(channels + c) * part);
            }
        }
    }
}

/// The finishing kernels alone, with as many tiles as convolutions of large inputs leave; the last one is
/// short.
#[test]
fn thousands_of_tiles_are_merged() {
    let mut driver = SimDriver::open(0).unwrap();
    for (channels, tiles, tile_rows, last_rows) in
        [(12, 5001, 3, 2), (8, 128, 64, 64), (20, 7, 128, 1), (4, 1, 9, 9)]
    {
        let what = format!("{tiles} tiles of {tile_rows} rows of {channels} channels");
        let mut random = Random::new(&what);
        let rows = (tiles - 1) * tile_rows + last_rows;
        let count = |tile: usize| if tile + 1 == tiles { last_rows } else { tile_rows } as f64;
        // Tiles whose means differ by about 1 around 20, each with an M2 of about its number of rows.
        let means = random.normal(tiles * channels, 1.0);
        let squares = random.uniform(tiles * channels, 0.5, 1.5);
        let mut partial = vec![0f32; tiles * 2 * channels];
        for tile in 0..tiles {
            for channel in 0..channels {
                let at = tile * channels + channel;
                partial[tile * 2 * channels + channel] = ((20.0 + f64::from(means[at])) * count(tile)) as f32;
                partial[(tile * 2 + 1) * channels + channel] = (f64::from(squares[at]) * count(tile)) as f32;
            }
        }
        let running = random.uniform(2 * channels, 0.1, 2.0);
        let [new_running, batch, d_affine] =
            finish(&mut driver, [rows, channels, tiles, tile_rows], &partial, &running);

        for channel in 0..channels {
            let part =
                |tile: usize, which: usize| f64::from(partial[(tile * 2 + which) * channels + channel]);
            let n = rows as f64;
            let sums: [f64; 2] = [0, 1].map(|which| (0..tiles).map(|tile| part(tile, which)).sum());
            let mean = sums[0] / n;
            let between = |tile: usize| count(tile) * (part(tile, 0) / count(tile) - mean).powi(2);
            let m2 = sums[1] + (0..tiles).map(between).sum::<f64>();
            // Means are about 20 and their deviations about 1, each rounded once; then 40 tiles in a lane and
            // 7 levels.
            let near = |name: &str, got: f32, want: f64| {
                let error = (f64::from(got) / want - 1.0).abs();
                assert!(error <= 32.0 * F32, "{what}: {name} of channel {channel}: {got}, float64 {want}");
            };
            let blend = |old: f32, new: f64| 0.9 * f64::from(old) + 0.1 * new;
            near("mean", batch[channel], mean);
            near("1/std", batch[channels + channel], 1.0 / (m2 / n + 1e-5).sqrt());
            near("running mean", new_running[channel], blend(running[channel], mean));
            let unbiased = m2 / (n - 1.0);
            near(
                "running variance",
                new_running[channels + channel],
                blend(running[channels + channel], unbiased),
            );
            near("d_g", d_affine[channel], sums[0] * f64::from(batch[channels + channel]));
            near("d_b", d_affine[channels + channel], sums[1]);
        }
    }
}

/// Buffers that hold `values`, on a device with bf16 activations.
fn upload(device: &mut GpuDevice, values: &[Value]) -> Vec<Buffer> {
    let mut buffer = |value: &Value| {
        let (element, len, values) = match value {
            Value::Activations(values) => (Element::Bf16, values.len(), Some(values)),
            Value::F32(values) => (Element::F32, values.len(), Some(values)),
            Value::ActivationOutput(len) => (Element::Bf16, *len, None),
            Value::Output(len) => (Element::F32, *len, None),
            Value::PositiveBits(len) => (Element::U8, positive_len(Element::Bf16, *len), None),
            other => unreachable!("{other:?}"),
        };
        let buffer = device.allocate_all(&[(element, len)], "a test operand").unwrap()[0];
        values.into_iter().for_each(|values| device.write_f32(buffer, values).unwrap());
        buffer
    };
    values.iter().map(&mut buffer).collect()
}

/// With a perfect cache, the traffic is that of the passes counted in the kernels' header: 3 forward without
/// a convolution's partial sums and 1 more with a residual; 5 backward, 6 with a residual; and a sixteenth for
/// the bits of a result with a residual.
#[test]
fn traffic_is_the_predicted_passes() {
    let driver = SimDriver::open(0).unwrap();
    let costs = driver.costs();
    let mut device = GpuDevice::new(Box::new(driver), Precision::Bf16);
    let shape @ [rows, channels] = [4096, 64];
    let tensor = (rows * channels * 2) as f64;
    let values = operands(&mut Random::new("batchnorm traffic"), rows, channels);
    let buffers = upload(&mut device, &values);
    for (residual, forward_passes, gradient_passes) in [(false, 3.0, 5.0), (true, 4.0625, 6.0625)] {
        let operations: [(&dyn Operation, f64); 2] = [
            (&forward(shape, residual, true), forward_passes),
            (&gradient(shape, residual, true), gradient_passes),
        ];
        for (operation, passes) in operations {
            device.execute(operation, &buffers).unwrap();
            let costs = costs.take();
            assert_eq!(costs.values().map(|counted| counted.bank_conflicts).sum::<u64>(), 0);
            let sectors: u64 = costs
                .values()
                .map(|counted| counted.unique_load_sectors + counted.unique_store_sectors)
                .sum();
            let bytes = 32.0 * sectors as f64;
            // Beside the tensors: the partial sums of 32 tiles, written and read, and the channels'
            // coefficients.
            let excess = bytes / tensor - passes;
            assert!(
                (0.0..0.1).contains(&excess),
                "{}, residual {residual}: {} passes",
                operation.name(),
                excess + passes
            );
        }
    }
}

/// A convolution and the batchnorm of its result, recorded together: the convolution leaves the partial sums,
/// no pass reads y for them, and the results are those of both operations on their own.
#[test]
fn statistics_from_the_convolution() {
    let [small, large] = [([9, 7], [16, 24], 3), ([8, 8], [64, 64], 9)];
    for ((image, [in_channels, out_channels], batch), joint) in
        [(small, false), (large, false), (small, true), (large, true)]
    {
        let convolution_shape = ConvolutionShape {
            batch,
            height: image[0],
            width: image[1],
            in_channels,
            out_channels,
            kernel: 3,
            stride: 1,
        };
        let what = format!("{convolution_shape:?}");
        let mut random = Random::new(&format!("batchnorm after {what}"));
        let shape @ [rows, channels] = [batch * image[0] * image[1], out_channels];
        let mut values = operands(&mut random, rows, channels);
        values[X.0] = Value::ActivationOutput(rows * channels);
        let [input, weights] = [values.len(), values.len() + 1].map(Tensor);
        values.push(Value::Activations(random.normal(convolution_shape.input_len(), 1.0)));
        values.push(Value::Activations(random.normal(convolution_shape.weight_len(), 0.1)));
        let convolution = Convolution { shape: convolution_shape, x: input, w: weights, y: X };
        let batchnorm = forward(shape, true, true);
        let operations = match joint {
            false => operations![convolution, batchnorm],
            true => operations![convolution, JointBatchNorm(batchnorm)],
        };

        let driver = SimDriver::open(0).unwrap();
        let costs = driver.costs();
        let mut device = GpuDevice::new(Box::new(driver), Precision::Bf16);
        let statistics = kernels::BATCHNORM_STATISTICS_BF16.kernel;
        let alone = upload(&mut device, &values);
        for operation in &operations {
            device.execute(&**operation, &alone).unwrap();
        }
        assert!(costs.take().contains_key(&statistics));
        let plan = Plan::record(Program::new(operations, upload(&mut device, &values)), &mut device).unwrap();
        device.replay(&plan).unwrap();
        assert!(!costs.take().contains_key(&statistics), "{what}: the convolution leaves the statistics");

        let mut read = |buffers: &[Buffer], tensor: Tensor| device.read_f32(buffers[tensor.0]).unwrap();
        assert_eq!(read(&alone, X), read(plan.buffers(), X), "{what}: the convolution's output");
        // The same sums over other tiles; in bf16, y may round to the other side.
        for (name, tensor, relative) in [("batch", BATCH, 0.0), ("running", RUNNING, 0.0), ("y", Y, BF16)] {
            let pairs = read(&alone, tensor).into_iter().zip(read(plan.buffers(), tensor));
            for (at, (alone, together)) in pairs.enumerate() {
                let tolerance = (2.0 * relative + 16.0 * F32) * f64::from(alone.abs()) + 16.0 * F32;
                let difference = f64::from((alone - together).abs());
                assert!(difference <= tolerance, "{what}: {name} {at}: alone {alone}, together {together}");
            }
        }
    }
}

/// A data gradient and the batchnorm gradient that it is the dy of, recorded together: the convolution leaves
/// the sums, dy is not read for them, and the results are those of the two on their own. With stride 2 the
/// parities of odd sizes have different numbers of tiles, and the batchnorm makes its sums itself.
#[test]
fn gradient_sums_from_the_data_gradient() {
    let device = || {
        let driver = SimDriver::open(0).unwrap();
        let costs = driver.costs();
        (GpuDevice::new(Box::new(driver), Precision::Bf16), costs)
    };
    // Image, channels in and out, kernel, stride, accumulate; whether the sums come from the convolution.
    type Case = ([usize; 2], [usize; 2], [usize; 2], bool, bool);
    let cases: [Case; 7] = [
        ([9, 7], [16, 24], [3, 1], false, true),
        ([8, 8], [64, 64], [3, 1], true, true),
        ([8, 8], [136, 40], [3, 1], false, true),
        ([16, 16], [24, 16], [3, 2], false, true),
        // Three of the four parities have no tap: what lies there counts all the same.
        ([16, 16], [64, 128], [1, 2], true, true),
        ([8, 12], [40, 8], [1, 2], false, true),
        ([27, 19], [16, 16], [3, 2], true, false),
    ];
    for (image, [in_channels, out_channels], [kernel, stride], accumulate, fused) in cases {
        for (residual, relu, joint) in [
            (false, false, false),
            (false, true, false),
            (true, true, false),
            (false, true, true),
            (true, true, true),
        ] {
            let [batch, height, width] = [3, image[0], image[1]];
            let convolution =
                ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride };
            let what = format!("{convolution:?}, residual {residual}, relu {relu}");
            let mut random = Random::new(&format!("batchnorm gradient before {what}"));
            let what = if joint { format!("{what}, joint") } else { what };
            let shape @ [rows, channels] = [batch * height * width, in_channels];
            let mut values = operands(&mut random, rows, channels);
            if !accumulate {
                values[DY.0] = Value::ActivationOutput(rows * channels);
            }
            let [dy, w] = [values.len(), values.len() + 1].map(Tensor);
            values.push(Value::Activations(random.normal(convolution.output_len(), 1.0)));
            values.push(Value::Activations(random.normal(convolution.weight_len(), 0.1)));
            let backward = ConvolutionDataGradient { shape: convolution, dy, w, dx: DY, accumulate };
            let before = forward(shape, residual, relu);
            let after = gradient(shape, residual, relu);
            let operations = match joint {
                false => operations![before, backward, after],
                true => operations![before, backward, JointBatchNormGradient(after)],
            };

            let (mut device, costs) = device();
            let alone = upload(&mut device, &values);
            for operation in &operations {
                device.execute(&**operation, &alone).unwrap();
            }
            costs.take();
            let plan =
                Plan::record(Program::new(operations, upload(&mut device, &values)), &mut device).unwrap();
            device.replay(&plan).unwrap();
            let summed = costs.take().keys().any(|kernel| kernel.name.contains("gradient_sums"));
            assert_eq!(summed, !fused, "{what}");

            let mut read = |buffers: &[Buffer], tensor: Tensor| device.read_f32(buffers[tensor.0]).unwrap();
            // The convolution masks what it stores; alone, the batchnorm does so only where the residual
            // needs it.
            let masked = read(&alone, Y).into_iter().map(|y| relu && fused && y <= 0.0);
            let pairs = read(&alone, DY).into_iter().zip(masked).zip(read(plan.buffers(), DY));
            for (at, ((alone, masked), together)) in pairs.enumerate() {
                let alone = if masked { 0.0 } else { alone };
                assert!(alone == together, "{what}: dy {at}: alone {alone}, together {together}");
            }
            // The same sums over other tiles, of up to `rows` products whose deviation is at most 10; dx may
            // round to the other side in bf16.
            let sums = 16.0 * F32 * 10.0 * (rows as f64).sqrt();
            for (name, tensor, stored, absolute) in
                [("d_affine", D_AFFINE, 0.0, sums), ("dx", DX, BF16, 64.0 * F32)]
            {
                let pairs = read(&alone, tensor).into_iter().zip(read(plan.buffers(), tensor));
                for (at, (alone, together)) in pairs.enumerate() {
                    let tolerance = (2.0 * stored + 16.0 * F32) * f64::from(alone.abs()) + absolute;
                    let difference = f64::from((alone - together).abs());
                    assert!(
                        difference <= tolerance,
                        "{what}: {name} {at}: alone {alone}, together {together}"
                    );
                }
            }
        }
    }
}

/// A convolution and the batchnorm of an evaluation behind it, on a tape: one kernel does both, with the bits
/// of the two on their own. A result that somebody reads afterwards is written all the same.
#[test]
fn inference_in_the_convolution() {
    const BY_THE_MODEL: &[&str] = &[];
    let cases: [([usize; 2], [usize; 2], [usize; 2], _); 6] = [
        ([9, 7], [16, 24], [3, 1], BY_THE_MODEL),
        ([8, 8], [64, 64], [3, 1], BY_THE_MODEL),
        ([8, 8], [40, 72], [3, 1], &["halo_256x64"]),
        ([16, 16], [24, 136], [3, 2], BY_THE_MODEL),
        ([16, 12], [40, 8], [1, 2], BY_THE_MODEL),
        ([33, 31], [8, 128], [1, 1], BY_THE_MODEL),
    ];
    for (image, [in_channels, out_channels], [kernel, stride], tiles) in cases {
        for (residual, relu, kept) in [(false, true, false), (true, true, false), (true, false, true)] {
            let [batch, height, width] = [3, image[0], image[1]];
            let s = ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride };
            let what = format!("{s:?}, residual {residual}, relu {relu}, kept {kept}");
            let mut random = Random::new(&format!("inference after {what}"));
            let rows = s.output_len() / out_channels;
            let values = [
                Value::Activations(random.normal(s.input_len(), 1.0)),
                Value::Activations(random.normal(s.weight_len(), 0.1)),
                Value::F32(random.normal(2 * out_channels, 1.0)),
                Value::F32(random.uniform(2 * out_channels, 0.1, 2.0)),
                Value::Activations(random.normal(s.output_len(), 1.0)),
                Value::ActivationOutput(s.output_len()),
            ];
            // Of an A100, which has room for every tile.
            let driver = SimDriver::open(0).unwrap().with_tiles(tiles).with_shared_bytes(163 << 10);
            let costs = driver.costs();
            let mut device = GpuDevice::new(Box::new(driver), Precision::Bf16);
            let mut run = |together: bool| {
                let buffers = upload(&mut device, &values);
                let mut tape = Tape::new(Element::Bf16);
                let [x, w, affine, running, added, out] =
                    [0, 1, 2, 3, 4, 5].map(|i| tape.persistent(buffers[i]));
                let y = tape.temporary(Element::Bf16, s.output_len());
                tape.push(Convolution { shape: s, x, w, y });
                if !together {
                    // Something between them that changes nothing.
                    tape.push(Convert { len: s.weight_len(), from: w, to: w });
                }
                tape.push(BatchNormInference {
                    rows,
                    channels: out_channels,
                    x: y,
                    affine,
                    running,
                    residual: residual.then_some(added),
                    relu,
                    y: out,
                });
                if kept {
                    tape.keep(y);
                }
                let plan = tape.finish(&mut device).unwrap();
                costs.take();
                device.replay(&plan).unwrap();
                let launched: Vec<&str> = costs.take().keys().map(|kernel| kernel.name).collect();
                let fused = launched.iter().any(|name| name.contains("convolution_inference"));
                let wanted = tiles.iter().all(|tile| launched.iter().any(|name| name.ends_with(tile)));
                assert!(wanted, "{what}: {tiles:?} in {launched:?}");
                let read = |device: &mut GpuDevice, buffer| device.read_f32(buffer).unwrap();
                (fused, read(&mut device, buffers[5]), kept.then(|| read(&mut device, plan.buffer(y))))
            };
            let (together, apart) = (run(true), run(false));
            assert_eq!((together.0, apart.0), (!kept, false), "{what}");
            assert!(together.1 == apart.1, "{what}: the results differ");
            assert!(together.1.iter().any(|&value| value != 0.0), "{what}: nothing was computed");
            assert!(together.2 == apart.2, "{what}: the convolution's own result differs");
        }
    }
}
