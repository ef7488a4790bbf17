//! Convolution: forward pass, data gradient, weight gradient. Here the shape selects the tile; the unit tests
//! of `src/ops/convolution/gpu/` run every tile's kernels.

use records::device::gpu::Precision;
use records::device::{Buffer, Element, Plan, Program, Tensor};
use records::operations;
use records::ops::batchnorm::BatchNorm;
use records::ops::convolution::{
    Convolution, ConvolutionDataGradient, ConvolutionShape, ConvolutionWeightGradient,
};

use crate::pair::{Outcome, Pair, Random, Value, stored};

/// Relative rounding error of f32.
const F32: f64 = 1.0 / (1 << 24) as f64;

const X: Tensor = Tensor(0);
const W: Tensor = Tensor(1);
const Y: Tensor = Tensor(2);
const DY: Tensor = Tensor(3);
const DW: Tensor = Tensor(4);
const DX: Tensor = Tensor(5);
const SUM: Tensor = Tensor(6);

fn shape([batch, height, width, in_channels, out_channels, kernel, stride]: [usize; 7]) -> ConvolutionShape {
    ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride }
}

/// Sums of `terms` products, in different orders on the CPU and in the kernels: at worst each addition rounds
/// a sum as large as the result. Even the smallest sums round their products.
fn summation(terms: usize) -> f64 {
    F32 * terms.max(16) as f64
}

/// `sum` and sixteen products as a tensor core adds them that keeps no further bits: each is cut to the
/// digits of the largest, and so is what comes out.
fn truncated(sum: f32, products: &[f64]) -> f32 {
    let all = || products.iter().copied().chain([f64::from(sum)]);
    let largest = all().fold(0.0, |largest: f64, value| largest.max(value.abs()));
    let cut = |value: f64, of: f64| {
        let unit = 2f64.powi(of.log2().floor() as i32 - 23);
        (value / unit).trunc() * unit
    };
    if largest == 0.0 {
        return 0.0;
    }
    let total: f64 = all().map(|value| cut(value, largest)).sum();
    if total == 0.0 { 0.0 } else { cut(total, total.abs()) as f32 }
}

/// Hardware may cut where the interpreter rounds: up to an ulp each product, and one each sixteen, towards 0.
/// That stays within the tolerance, half an ulp of the results' size for each product, so a GPU needs no
/// other one.
#[test]
fn tensor_cores_that_truncate_stay_within_the_tolerance() {
    let mut random = Random::new("truncation");
    for terms in [16usize, 80, 576, 4608, 38_848] {
        let sums = (if terms > 10_000 { 30 } else { 300 }) as usize;
        let (mut exact, mut worst) = (0.0, 0.0f64);
        for _ in 0..sums {
            let [a, b] = [0, 1].map(|_| random.normal(terms, 1.0).into_iter().map(half::bf16::from_f32));
            let products: Vec<f64> = a.zip(b).map(|(a, b)| a.to_f64() * b.to_f64()).collect();
            let hardware = products.chunks(16).fold(0.0, truncated);
            let cpu = products.iter().fold(0f32, |sum, &product| sum + product as f32);
            exact += products.iter().sum::<f64>().powi(2);
            worst = worst.max((f64::from(hardware) - f64::from(cpu)).abs());
        }
        let scale = (exact / sums as f64).sqrt();
        let used = worst / (summation(terms) * scale);
        println!("{terms} terms: {used:.3} of the tolerance");
        assert!(used <= 1.0, "{terms} terms: {used:.2} times the tolerance");
    }
}

/// What sums in f16 may round, for each of the results: a run of 32 products is rounded twice, once each sixteen,
/// and every time the sum is at most that of the sizes of its products. `sizes` is an outcome of the same operations
/// on the sizes of their operands.
fn of_short_runs(sizes: &Option<Outcome>, tensor: Tensor) -> Vec<f64> {
    let sizes = sizes.as_ref().map_or(&[][..], |sizes| &sizes.cpu[tensor.0]);
    sizes.iter().map(|&size| 2.0 / (1 << 11) as f64 * f64::from(size)).collect()
}

fn sizes(value: &Value) -> Value {
    match value {
        Value::Activations(values) => Value::Activations(values.iter().map(|value| value.abs()).collect()),
        other => other.clone(),
    }
}

/// All directions of the shapes against the CPU.
fn check(precision: Precision, rows: &[[usize; 7]]) {
    let mut pair = Pair::new(precision);
    let stored = stored(precision);
    for &row in rows {
        let s = shape(row);
        let what = format!("{precision:?} {row:?}");
        let mut random = Random::new(&format!("convolution {what}"));
        let values = [
            Value::Activations(random.normal(s.input_len(), 1.0)),
            Value::Activations(random.normal(s.weight_len(), 1.0)),
            Value::ActivationOutput(s.output_len()),
            Value::Activations(random.normal(s.output_len(), 1.0)),
            Value::Output(s.weight_len()),
            Value::ActivationOutput(s.input_len()),
            Value::Activations(random.normal(s.input_len(), 10.0)),
        ];
        let mut operations = operations![
            Convolution { shape: s, x: X, w: W, y: Y },
            ConvolutionWeightGradient { shape: s, x: X, dy: DY, dw: DW },
        ]
        .to_vec();
        // The tensor-core kernels have no data gradient for the few channels of the first layer, where none is
        // needed.
        let gradient = s.in_channels >= 8 || precision == Precision::F32;
        if gradient {
            let gradient =
                |dx, accumulate| ConvolutionDataGradient { shape: s, dy: DY, w: W, dx, accumulate };
            operations.extend(operations![gradient(DX, false), gradient(SUM, true)]);
        }
        let values = if gradient { &values } else { &values[..=DW.0] };
        let outcome = pair.run_each(&operations, values);
        let of_sizes: Vec<Value> = values.iter().map(sizes).collect();
        let of_sizes = pair.sums_in_f16.then(|| pair.run_each(&operations, &of_sizes));
        let short = |tensor| of_short_runs(&of_sizes, tensor);
        let taps = s.kernel * s.kernel;
        outcome.assert_near(&format!("{what}: y"), Y, stored, summation(taps * s.in_channels), &short(Y));
        let pixels = s.output_len() / s.out_channels;
        outcome.assert_near(&format!("{what}: dw"), DW, 0.0, summation(pixels), &short(DW));
        if gradient {
            let sums = summation(taps * s.out_channels);
            outcome.assert_near(&format!("{what}: dx"), DX, stored, sums, &short(DX));
            outcome.assert_near(&format!("{what}: dx added"), SUM, stored, sums, &short(DX));
        }
    }
}

/// Channels, kernels, strides and sizes that divide nothing.
const ODD: [[usize; 7]; 12] = [
    [1, 1, 1, 24, 40, 3, 1],
    [1, 1, 1, 40, 8, 3, 2],
    [3, 2, 3, 8, 24, 3, 2],
    [5, 2, 3, 16, 24, 1, 1],
    [1, 2, 3, 8, 8, 1, 2],
    [3, 7, 5, 8, 16, 3, 1],
    [5, 7, 5, 24, 40, 3, 2],
    [3, 9, 8, 40, 24, 1, 2],
    [1, 13, 11, 16, 72, 3, 1],
    [3, 8, 9, 72, 136, 3, 2],
    [1, 1, 17, 8, 200, 3, 1],
    [3, 5, 1, 200, 8, 1, 1],
];

#[test]
fn odd_shapes_in_f16() {
    check(Precision::F16, &ODD);
    check(Precision::F16, &[[1, 128, 128, 3, 8, 3, 1], [2, 36, 36, 3, 16, 3, 1], [11, 31, 33, 8, 64, 1, 1]]);
}

#[test]
fn odd_shapes_in_bf16() {
    check(Precision::Bf16, &ODD);
}

#[test]
fn odd_shapes_in_f32() {
    check(Precision::F32, &ODD);
    check(Precision::F32, &[[2, 5, 4, 3, 12, 3, 1], [1, 7, 6, 5, 4, 3, 2], [3, 4, 4, 10, 20, 1, 1]]);
}

/// Every shape of ResNet-18's layers, with fewer images.
#[test]
fn layers_of_resnet18_in_bf16() {
    check(
        Precision::Bf16,
        &[
            [1, 16, 16, 64, 64, 3, 1],
            [1, 16, 16, 64, 128, 3, 2],
            [1, 16, 16, 64, 128, 1, 2],
            [1, 8, 8, 128, 128, 3, 1],
            [1, 8, 8, 128, 256, 3, 2],
            [1, 8, 8, 128, 256, 1, 2],
            [3, 4, 4, 256, 256, 3, 1],
            [1, 4, 4, 256, 512, 3, 2],
            [1, 4, 4, 256, 512, 1, 2],
            [1, 4, 4, 512, 512, 3, 1],
        ],
    );
}

#[test]
fn layers_of_resnet18_in_f32() {
    check(
        Precision::F32,
        &[
            [1, 16, 16, 64, 64, 3, 1],
            [1, 16, 16, 64, 128, 3, 2],
            [1, 8, 8, 128, 256, 1, 2],
            [1, 4, 4, 256, 256, 3, 1],
        ],
    );
}

/// Layers of ResNet-50's bottlenecks at full width: 1x1 convolutions that widen and narrow by four, shortcuts
/// with and without stride.
const BOTTLENECKS: [[usize; 7]; 7] = [
    [1, 9, 9, 64, 64, 1, 1],
    [1, 9, 9, 64, 256, 1, 1],
    [2, 6, 6, 256, 64, 1, 1],
    [1, 9, 9, 256, 512, 1, 2],
    [1, 5, 5, 512, 512, 3, 2],
    [3, 3, 3, 512, 2048, 1, 1],
    [1, 2, 2, 2048, 512, 1, 1],
];

#[test]
fn bottlenecks_in_bf16() {
    check(Precision::Bf16, &BOTTLENECKS);
}

#[test]
fn bottlenecks_in_f32() {
    check(Precision::F32, &BOTTLENECKS[..4]);
}

/// Image sizes beyond 32, including odd halves; narrow channels; among them rows as long as a tile of pixels.
const SIZES: [[usize; 7]; 6] = [
    [1, 128, 128, 8, 8, 3, 1],
    [1, 128, 128, 8, 16, 3, 2],
    [1, 96, 96, 16, 8, 1, 2],
    [2, 48, 48, 8, 8, 3, 2],
    [1, 36, 36, 8, 24, 3, 2],
    [3, 9, 9, 8, 40, 3, 2],
];

#[test]
fn sizes_beyond_32_in_bf16() {
    check(Precision::Bf16, &SIZES);
    check(Precision::Bf16, &[[1, 128, 128, 3, 8, 3, 1], [2, 36, 36, 3, 16, 3, 1]]);
}

#[test]
fn sizes_beyond_32_in_f32() {
    check(Precision::F32, &SIZES[1..]);
    check(Precision::F32, &[[1, 96, 96, 3, 4, 3, 1]]);
}

#[test]
fn first_layers_in_bf16() {
    check(
        Precision::Bf16,
        &[
            [2, 16, 16, 3, 64, 3, 1],
            [3, 7, 5, 3, 24, 3, 1],
            [1, 9, 8, 3, 72, 3, 2],
            [5, 3, 2, 1, 8, 3, 1],
            [1, 4, 4, 4, 8, 1, 1],
        ],
    );
}

/// Enough pixels that the largest tiles are chosen and a weight gradient is cut into many shares.
#[test]
fn many_pixels_in_bf16() {
    check(Precision::Bf16, &[[41, 16, 16, 8, 128, 1, 1], [11, 31, 33, 8, 64, 1, 1]]);
}

/// Batchnorm of tensor 2 into tensor 6, with its parameters and statistics in 3, 4 and 5.
fn batchnorm_of_the_output(rows: usize, channels: usize) -> BatchNorm {
    BatchNorm {
        rows,
        channels,
        x: Tensor(2),
        affine: Tensor(3),
        running: Tensor(4),
        batch: Tensor(5),
        residual: None,
        relu: true,
        valid: None,
        y: Tensor(6),
        positive: None,
    }
}

/// A convolution and the batchnorm after it, recorded together: the batchnorm takes its sums from the
/// convolution's epilogue.
#[test]
fn statistics_of_the_epilogue() {
    for (precision, element) in
        [(Precision::Bf16, Element::Bf16), (Precision::F16, Element::F16), (Precision::F32, Element::F32)]
    {
        let device = &mut *Pair::new(precision).kernels;
        for row in [
            [3, 7, 5, 16, 40, 3, 1],
            [41, 16, 16, 8, 128, 1, 1],
            [3, 9, 9, 3, 64, 3, 1],
            [5, 8, 8, 24, 24, 3, 2],
            [2, 9, 9, 64, 256, 1, 1],
            [1, 128, 128, 3, 8, 3, 1],
        ] {
            let s = shape(row);
            let (rows, channels) = (s.output_len() / s.out_channels, s.out_channels);
            let mut random = Random::new(&format!("convolution statistics {precision:?} {row:?}"));
            let mut buffer = |element: Element, values: Vec<f32>| {
                let buffer = device.allocate(element, values.len(), "a test operand").unwrap();
                device.write_f32(buffer, &values).unwrap();
                buffer
            };
            // Means far from 0, which reveal cancellation in E[y^2] - E[y]^2.
            let x = random.normal(s.input_len(), 1.0).iter().map(|v| v + 3.0).collect();
            let buffers: Vec<Buffer> = vec![
                buffer(element, x),
                buffer(element, random.normal(s.weight_len(), 0.1).iter().map(|v| v + 0.5).collect()),
                buffer(element, vec![f32::NAN; s.output_len()]),
                buffer(Element::F32, random.normal(2 * channels, 1.0)),
                buffer(Element::F32, vec![0.0; 2 * channels]),
                buffer(Element::F32, vec![f32::NAN; 2 * channels]),
                buffer(element, vec![f32::NAN; s.output_len()]),
            ];
            let [y, batch] = [buffers[2], buffers[5]];
            let convolution = Convolution { shape: s, x: X, w: W, y: Y };
            let operations = operations![convolution, batchnorm_of_the_output(rows, channels)];
            let plan = Plan::record(Program::new(operations, buffers), device).unwrap();
            device.replay(&plan).unwrap();
            let (y, batch) = (device.read_f32(y).unwrap(), device.read_f32(batch).unwrap());
            for channel in 0..channels {
                let values = || y.iter().skip(channel).step_by(channels).map(|&v| f64::from(v));
                let mean = values().sum::<f64>() / rows as f64;
                let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / rows as f64;
                let inverse = 1.0 / (variance + 1e-5).sqrt();
                // Tiles have at most 128 rows, in groups of at least two threads; then a few roundings of
                // merging.
                let near = |got: f32, want: f64| (f64::from(got) / want - 1.0).abs() <= 80.0 * F32;
                assert!(near(batch[channel], mean), "{row:?}: mean {}, float64 {mean}", batch[channel]);
                let got = batch[channels + channel];
                assert!(near(got, inverse), "{row:?}: 1/std {got}, float64 {inverse}");
            }
        }
    }
}
