//! The CPU device, operation by operation and as a whole step, on one thread: `cargo bench`. With `cargo test
//! --bench cpu` each benchmark runs once without timing.

mod operations;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use operations::{Ready, Step};
use records::device::Element;

/// ResNet-18's convolutions at a width of 64 and of 8: name, input channels, output channels, rows and
/// columns of the input, kernel, stride.
const CONVOLUTIONS: [(&str, [usize; 5]); 12] = [
    ("stem", [3, 64, 32, 3, 1]),
    ("stage 1", [64, 64, 32, 3, 1]),
    ("stage 2", [128, 128, 16, 3, 1]),
    ("stage 3", [256, 256, 8, 3, 1]),
    ("stage 4", [512, 512, 4, 3, 1]),
    ("to stage 2", [64, 128, 32, 3, 2]),
    ("shortcut to stage 2", [64, 128, 32, 1, 2]),
    ("narrow stem", [3, 8, 32, 3, 1]),
    ("narrow stage 1", [8, 8, 32, 3, 1]),
    ("narrow stage 2", [16, 16, 16, 3, 1]),
    ("narrow stage 3", [32, 32, 8, 3, 1]),
    ("narrow to stage 2", [8, 16, 32, 3, 2]),
];

/// Times operations bound by arithmetic, in FLOP/s.
fn by_arithmetic(criterion: &mut Criterion, group: &str, cases: Vec<(&str, Ready)>) {
    let rate = |ready: &Ready| Throughput::Elements(ready.flops() as u64);
    run(criterion, group, cases, rate);
}

/// Times operations bound by memory, in bytes/s of the least possible traffic.
fn by_memory(criterion: &mut Criterion, group: &str, cases: Vec<(&str, Ready)>) {
    let rate = |ready: &Ready| Throughput::Bytes(ready.least_bytes() as u64);
    run(criterion, group, cases, rate);
}

fn run(
    criterion: &mut Criterion,
    group: &str,
    cases: Vec<(&str, Ready)>,
    rate: impl Fn(&Ready) -> Throughput,
) {
    let mut group = criterion.benchmark_group(group);
    for (name, mut ready) in cases {
        group.throughput(rate(&ready));
        group.bench_function(name, |bencher| bencher.iter(|| ready.run()));
    }
    group.finish();
}

/// What `--precision f32` and `bf16` store, with what is put before a benchmark's name.
const PRECISIONS: [(Element, &str); 2] = [(Element::F32, ""), (Element::Bf16, "bf16 ")];

/// Gelem/s are GFLOP/s of the direct sum: Winograd's algorithm can exceed the processor's limit.
fn convolution(criterion: &mut Criterion) {
    for (activations, word) in PRECISIONS {
        println!("{}", operations::limit(activations));
        let cases = |make: fn(Element, [usize; 5]) -> Ready| {
            CONVOLUTIONS.map(|(name, extents)| (name, make(activations, extents))).into_iter().collect()
        };
        let name = |direction: &str| format!("{word}convolution{direction}");
        by_arithmetic(criterion, &name(""), cases(operations::convolution));
        by_arithmetic(criterion, &name(" data gradient"), cases(operations::convolution_data_gradient));
        by_arithmetic(criterion, &name(" weight gradient"), cases(operations::convolution_weight_gradient));
    }
}

fn batchnorm(criterion: &mut Criterion) {
    for (activations, word) in PRECISIONS {
        let cases = |make: &dyn Fn([usize; 2]) -> Ready| {
            vec![
                ("first stage", make([16 * 32 * 32, 64])),
                ("last stage", make([16 * 4 * 4, 512])),
                ("first stage of width 8", make([16 * 32 * 32, 8])),
            ]
        };
        let forward = cases(&|[rows, channels]| operations::batchnorm(activations, rows, channels));
        by_memory(criterion, &format!("{word}batchnorm"), forward);
        for (residual, ending) in [(false, ""), (true, " with a residual")] {
            let gradient = cases(&|extents| operations::batchnorm_gradient(activations, extents, residual));
            by_memory(criterion, &format!("{word}batchnorm gradient{ending}"), gradient);
        }
    }
}

/// A convolution, its data gradient and its weight gradient where nothing was chosen.
fn nothing_chosen(criterion: &mut Criterion) {
    let cases = operations::convolutions_of_zeros([64, 64, 32, 3, 1]).into_iter().collect();
    by_memory(criterion, "convolution of zeros", cases);
}

fn augmentation(criterion: &mut Criterion) {
    let cases = vec![("weak views", operations::augment(0)), ("strong views", operations::augment(1))];
    by_memory(criterion, "augmentation", cases);
}

fn sinkhorn(criterion: &mut Criterion) {
    let cases = [("batch alone", 0), ("with the queue", 64 * 256)];
    let cases = cases.map(|(name, queue)| (name, operations::sinkhorn(queue)));
    // The number of rounds depends on the data, so the upper bound of the arithmetic is no measure.
    by_memory(criterion, "sinkhorn", cases.into());
}

fn step(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("step of 16 samples");
    for (width, (activations, word)) in [8, 32].into_iter().flat_map(|width| PRECISIONS.map(|p| (width, p))) {
        let mut step = Step::new(activations, width);
        group.throughput(Throughput::Elements(step.flops() as u64));
        group.bench_function(format!("{word}width {width}"), |bencher| bencher.iter(|| step.run()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    targets = convolution, batchnorm, nothing_chosen, augmentation, sinkhorn, step
}
criterion_main!(benches);
