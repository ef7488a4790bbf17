//! The tape differentiates any graph of its operations: the gradients of a tensor that is used several times
//! are added, whatever the operations that use it and their order. Compared with differences on the CPU, and
//! the kernels with the CPU (RECORDS_TEST_DEVICE names the device, `sim` or `cuda`).

#[path = "support/mod.rs"]
mod support;

use records::autograd::Tape;
use records::device::cpu::{CpuDevice, RoundedCpu};
use records::device::gpu::{self, Precision};
use records::device::{Buffer, Device, Element, Tensor};
use records::ops::batchnorm::{Epilogue, batchnorm};
use records::ops::convolution::{ConvolutionShape, convolution};
use records::ops::linear::linear;
use records::ops::pooling::average_pool;
use records::random::philox::{Purpose, Stream};
use support::relative_error;

/// Images, positions across, channels.
const N: usize = 3;
const S: usize = 4;
const C: usize = 8;
const ROWS: usize = N * S * S;

/// The parameters of every graph below, and its input.
struct Values {
    x: Vec<f32>,
    w: Vec<f32>,
    affine: Vec<f32>,
    fc: Vec<f32>,
}

impl Values {
    fn new() -> Self {
        let mut stream = Stream::new(11, Purpose::Initialisation, 0, 0, 0);
        let mut draw = |len: usize| (0..len).map(|_| stream.unit() as f32 - 0.5).collect::<Vec<f32>>();
        Self { x: draw(ROWS * C), w: draw(9 * C * C), affine: draw(2 * C), fc: draw(C * (C + 1)) }
    }

    fn parts(&mut self) -> [&mut Vec<f32>; 4] {
        [&mut self.x, &mut self.w, &mut self.affine, &mut self.fc]
    }
}

/// The operands of a graph.
#[derive(Clone, Copy)]
struct Leaves {
    x: Tensor,
    w: Tensor,
    affine: Tensor,
    running: Tensor,
    fc: Tensor,
}

fn shape() -> ConvolutionShape {
    ConvolutionShape { batch: N, height: S, width: S, in_channels: C, out_channels: C, kernel: 3, stride: 1 }
}

impl Leaves {
    fn convolution(self, tape: &mut Tape, x: Tensor) -> Tensor {
        convolution(tape, shape(), x, self.w)
    }

    fn batchnorm(self, tape: &mut Tape, x: Tensor, residual: Option<Tensor>, relu: bool) -> Tensor {
        batchnorm(tape, [ROWS, C], x, [self.affine, self.running], Epilogue { residual, relu }, None)
    }

    /// The end of every graph: pooled features through the fully connected layer.
    fn logits(self, tape: &mut Tape, x: Tensor) -> Tensor {
        let pooled = average_pool(tape, [N, S * S, C], x);
        linear(tape, [N, C, C], pooled, self.fc)
    }
}

/// Records a graph; returns its results.
type Graph = fn(Leaves, &mut Tape) -> Vec<Tensor>;

/// The weighted sum of the logits, and the gradients of x and the parameters.
fn run(values: &Values, graph: Graph, device: &mut dyn Device) -> (f64, Vec<Vec<f32>>) {
    let activations = device.activations();
    let mut upload = |element: Element, values: &[f32]| -> Buffer {
        let buffer = device.allocate(element, values.len(), "a test").unwrap();
        device.write_f32(buffer, values).unwrap();
        buffer
    };
    let mut running = vec![0.0; 2 * C];
    running[C..].fill(1.0);
    let mut parameter =
        |element, values: &[f32]| (upload(element, values), upload(Element::F32, &vec![0.0; values.len()]));
    // Convolutions read weights in the type of activations.
    let w = parameter(activations, &values.w);
    let [affine, fc] = [&values.affine, &values.fc].map(|values| parameter(Element::F32, values));
    let (x, running) = (upload(activations, &values.x), upload(Element::F32, &running));
    let mut tape = Tape::new(activations);
    let leaves = Leaves {
        x: tape.persistent(x),
        w: tape.parameter(w.0, w.1),
        affine: tape.parameter(affine.0, affine.1),
        running: tape.persistent(running),
        fc: tape.parameter(fc.0, fc.1),
    };
    tape.differentiate(leaves.x);
    let results = graph(leaves, &mut tape);
    let weights: Vec<f32> = (0..N * C).map(|i| (i as f32 * 0.7).sin()).collect();
    let seeds: Vec<(Tensor, Tensor)> =
        results.iter().map(|&y| (y, tape.persistent(upload(Element::F32, &weights)))).collect();
    results.iter().for_each(|&y| tape.keep(y));
    let gradients = tape.backward(&seeds);
    let dx = gradients[&leaves.x];
    tape.keep(dx);
    let plan = tape.finish(device).unwrap();
    // Twice, because gradients are overwritten, not added to those of the previous step.
    device.replay(&plan).unwrap();
    device.replay(&plan).unwrap();
    let mut read = |buffer| device.read_f32(buffer).unwrap();
    let weighted =
        |y: Vec<f32>| y.iter().zip(&weights).map(|(&y, &w)| f64::from(y) * f64::from(w)).sum::<f64>();
    let sum = results.iter().map(|&y| weighted(read(plan.buffer(y)))).sum();
    (sum, vec![read(plan.buffer(dx)), read(w.1), read(affine.1), read(fc.1)])
}

const GRAPHS: [(&str, Graph); 8] = [
    ("shared weights", |l, tape| {
        let once = l.convolution(tape, l.x);
        let twice = l.convolution(tape, once);
        vec![l.logits(tape, twice)]
    }),
    ("a residual that is used before", |l, tape| {
        let y = l.convolution(tape, l.x);
        let side = l.logits(tape, y);
        let z = l.convolution(tape, y);
        let z = l.batchnorm(tape, z, Some(y), false);
        vec![l.logits(tape, z), side]
    }),
    ("a residual that is used after", |l, tape| {
        let y = l.convolution(tape, l.x);
        let z = l.convolution(tape, y);
        let z = l.batchnorm(tape, z, Some(y), false);
        let side = l.logits(tape, y);
        vec![l.logits(tape, z), side]
    }),
    ("a batchnorm whose input is its residual", |l, tape| {
        let y = l.convolution(tape, l.x);
        let z = l.batchnorm(tape, y, Some(y), false);
        vec![l.logits(tape, z)]
    }),
    ("one residual of two batchnorms", |l, tape| {
        let y = l.convolution(tape, l.x);
        let first = l.batchnorm(tape, y, Some(y), false);
        let second = l.batchnorm(tape, first, Some(y), false);
        vec![l.logits(tape, second)]
    }),
    ("two pools of one activation", |l, tape| {
        let y = l.convolution(tape, l.x);
        vec![l.logits(tape, y), l.logits(tape, y)]
    }),
    ("a pool, then a convolution, then a batchnorm of one input", |l, tape| {
        let pooled = l.logits(tape, l.x);
        let convolved = l.convolution(tape, l.x);
        let normalised = l.batchnorm(tape, l.x, None, false);
        vec![pooled, l.logits(tape, convolved), l.logits(tape, normalised)]
    }),
    ("logits that are seeded and read on", |l, tape| {
        let pooled = average_pool(tape, [N, S * S, C], l.x);
        let once = linear(tape, [N, C, C], pooled, l.fc);
        vec![once, linear(tape, [N, C, C], once, l.fc)]
    }),
];

/// Every gradient of every graph against central differences. For f32 sums of about 1, differences over 2 x
/// 0.01 are accurate to about 1e-4; the graphs' curvature adds less than a hundredth of the largest gradient.
#[test]
fn gradients_of_tensors_used_several_times_are_added() {
    let mut device = CpuDevice::new(1).unwrap();
    for (what, graph) in GRAPHS {
        let mut values = Values::new();
        let (_, gradients) = run(&values, graph, &mut device);
        for (part, gradient) in gradients.iter().enumerate() {
            let largest = gradient.iter().fold(0f32, |most, g| most.max(g.abs()));
            let tolerance = 1e-2 * f64::from(largest) + 2e-3;
            for at in (0..gradient.len()).step_by(13) {
                let mut shifted = |by: f32| {
                    values.parts()[part][at] += by;
                    let (sum, _) = run(&values, graph, &mut device);
                    values.parts()[part][at] -= by;
                    sum
                };
                let step = 0.01;
                let difference = (shifted(step) - shifted(-step)) / (2.0 * f64::from(step));
                let given = f64::from(gradient[at]);
                assert!(
                    (difference - given).abs() <= tolerance,
                    "{what}, part {part}, value {at}: gradient {given}, difference {difference}"
                );
            }
        }
    }
}

/// Asserts that the kernels' gradients differ from those of `cpu` by at most `tolerance`, in the 2-norm of
/// each.
fn compare(precision: Precision, cpu: &mut dyn Device, tolerance: f64) {
    let name = std::env::var("RECORDS_TEST_DEVICE").unwrap_or_else(|_| "sim".into());
    let kernels = name.parse().and_then(|kind| gpu::open(kind, precision));
    let mut kernels = kernels.unwrap_or_else(|error| panic!("{name}: {error:#}"));
    let values = Values::new();
    for (what, graph) in GRAPHS {
        let (expected, given) = (run(&values, graph, cpu).1, run(&values, graph, &mut kernels).1);
        for (part, (expected, given)) in expected.iter().zip(&given).enumerate() {
            let distance = relative_error(given, expected);
            println!("{precision:?}, {what}, part {part}: {distance:.1e}");
            assert!(distance <= tolerance, "{what}, part {part}: distance {distance:.1e}");
        }
    }
}

/// Sums in another order, through one or two batchnorms: a few dozen roundings of f32.
#[test]
fn gradients_of_the_kernels_in_f32_are_the_cpu_s() {
    compare(Precision::F32, &mut CpuDevice::new(1).unwrap(), 3e-6);
}

/// The CPU rounds where the kernels do; where the order of their sums changes a rounding, a value moves by
/// 2^-8 of itself. If that happened to one value in twenty, a gradient would move by 2^-8 / sqrt(20) = 9e-4.
#[test]
fn gradients_of_the_kernels_in_bf16_are_the_rounded_cpu_s() {
    compare(Precision::Bf16, &mut RoundedCpu::new(CpuDevice::new(1).unwrap(), Element::Bf16), 1e-3);
}
