//! The CPU device, operation by operation and as a whole step, on one thread: `cargo bench`. With `cargo test
//! --bench cpu` each benchmark runs once without timing.

mod operations;

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use operations::{Ready, Step};

/// The convolutions of ResNet-18's first stage and last stage, and its stem: (name, Cin, Cout, height and
/// width).
const CONVOLUTIONS: [(&str, usize, usize, usize); 3] =
    [("stem", 3, 64, 32), ("first stage", 64, 64, 32), ("last stage", 512, 512, 4)];

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

fn convolution(criterion: &mut Criterion) {
    let cases = |make: fn(usize, usize, usize) -> Ready| {
        CONVOLUTIONS.map(|(name, cin, cout, side)| (name, make(cin, cout, side))).into()
    };
    by_arithmetic(criterion, "convolution", cases(operations::convolution));
    by_arithmetic(criterion, "convolution data gradient", cases(operations::convolution_data_gradient));
    by_arithmetic(criterion, "convolution weight gradient", cases(operations::convolution_weight_gradient));
}

fn batchnorm(criterion: &mut Criterion) {
    let cases = |make: fn(usize, usize) -> Ready| {
        vec![
            ("first stage", make(16 * 32 * 32, 64)),
            ("last stage", make(16 * 4 * 4, 512)),
            ("first stage of width 8", make(16 * 32 * 32, 8)),
        ]
    };
    by_memory(criterion, "batchnorm", cases(operations::batchnorm));
    by_memory(
        criterion,
        "batchnorm gradient",
        cases(|rows, channels| operations::batchnorm_gradient(rows, channels, false)),
    );
    by_memory(
        criterion,
        "batchnorm gradient with a residual",
        cases(|rows, channels| operations::batchnorm_gradient(rows, channels, true)),
    );
}

/// A convolution, its data gradient and its weight gradient where nothing was chosen.
fn nothing_chosen(criterion: &mut Criterion) {
    let cases = operations::convolutions_of_zeros(64, 64, 32).into_iter().collect();
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
    for width in [8, 32] {
        let mut step = Step::new(width);
        group.throughput(Throughput::Elements(step.flops() as u64));
        group.bench_function(format!("width {width}"), |bencher| bencher.iter(|| step.run()));
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    targets = convolution, batchnorm, nothing_chosen, augmentation, sinkhorn, step
}
criterion_main!(benches);
