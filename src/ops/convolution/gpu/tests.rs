//! Every tile's kernels on small shapes that fill none of the tiles, for which the tile choice would only
//! ever take the smallest. RECORDS_TEST_DEVICE names the device, `sim` (default) or `cuda`.

use half::{bf16, f16};

use super::*;
use crate::device::Buffer;
use crate::device::cpu::instructions::{Simd, chosen};
use crate::device::gpu;
use crate::device::gpu::driver::{Driver, Memory};
use crate::ops::convolution::cpu;
use crate::random::philox::{Purpose, Stream};

/// Relative rounding error of f32, and of f16, whose significand has 11 bits.
const F32: f64 = 1.0 / (1 << 24) as f64;
const F16: f64 = 1.0 / (1 << 11) as f64;

/// Relative rounding error of a stored value; bf16 has 8 significant bits.
fn stored(element: Element) -> f64 {
    match element {
        Element::Bf16 => 1.0 / (1 << 8) as f64,
        Element::F16 => F16,
        _ => 0.0,
    }
}

/// What the tensor cores multiply and add, and the type of their operands.
const NUMBERS: [(Numbers, Element); 3] =
    [(Numbers::Bf16, Element::Bf16), (Numbers::F16, Element::F16), (Numbers::F16Short, Element::F16)];

/// The rounding of sums, relative to the sum of the products' sizes: with short runs, a run of 32 products is rounded to
/// f16 twice, once each sixteen, and every time the sum is at most that of the sizes of its products.
fn of_runs(numbers: Option<Numbers>) -> f64 {
    if numbers == Some(Numbers::F16Short) { 2.0 * F16 } else { 0.0 }
}

fn sizes(values: &[f32]) -> Vec<f32> {
    values.iter().map(|value| value.abs()).collect()
}

/// Operands in device memory, and memory for partial sums behind them.
struct Bench {
    driver: Box<dyn Driver>,
    memory: Vec<Memory>,
    buffers: Vec<Buffer>,
}

const OPERANDS: [Tensor; 3] = [Tensor(0), Tensor(1), Tensor(2)];
const WORKSPACE: usize = 4 << 20;

fn simd() -> Simd {
    chosen().unwrap()
}

impl Bench {
    fn new(operands: &[(Element, &[f32])]) -> Self {
        let name = std::env::var("RECORDS_TEST_DEVICE").unwrap_or_else(|_| "sim".into());
        let mut driver = gpu::open_driver(name.parse().unwrap()).unwrap();
        let lengths = operands.iter().map(|(element, values)| element.bytes() * values.len());
        let lengths: Vec<usize> = lengths.chain([WORKSPACE]).collect();
        let memory = driver.allocate(&lengths, "a test operand").unwrap();
        let buffers = operands.iter().enumerate().map(|(allocation, &(element, values))| {
            let bytes: Vec<u8> = match element {
                Element::F32 => bytemuck::cast_slice(values).to_vec(),
                Element::U8 => values.iter().map(|&v| v as u8).collect(),
                Element::F16 => values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect(),
                _ => values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()).collect(),
            };
            driver.write(memory[allocation].address, &bytes).unwrap();
            Buffer { allocation, offset: 0, len: values.len(), element }
        });
        let buffers = buffers.collect();
        Self { driver, memory, buffers }
    }

    /// Launches what `lower` appends; returns the third operand, and the result of `lower`.
    fn run<R>(&mut self, lower: impl FnOnce(&mut Lowering<'_>) -> R) -> (Vec<f32>, R) {
        let given = self.launch(lower);
        (self.operand(2), given)
    }

    /// Launches what `lower` appends; returns its result.
    fn launch<R>(&mut self, lower: impl FnOnce(&mut Lowering<'_>) -> R) -> R {
        let addresses: Vec<u64> = self.memory.iter().map(|memory| memory.address).collect();
        let gpu = self.driver.gpu().clone();
        let mut lowering = Lowering::new(&gpu, &self.buffers, &addresses);
        let given = lower(&mut lowering);
        let (mut launches, workspace) = lowering.finish();
        assert!(workspace <= WORKSPACE);
        for launch in &mut launches {
            launch.place_workspace(addresses[self.buffers.len()]);
            self.driver.launch(launch).unwrap();
        }
        given
    }

    /// The values of an operand.
    fn operand(&mut self, number: usize) -> Vec<f32> {
        let Buffer { len, element, .. } = self.buffers[number];
        let address = self.memory[number].address;
        match element {
            Element::F32 => self.read(address, len),
            Element::U8 => {
                let mut bytes = vec![0; len];
                self.driver.read(address, &mut bytes).unwrap();
                bytes.into_iter().map(f32::from).collect()
            }
            _ => {
                let mut bits = vec![0u16; len];
                self.driver.read(address, bytemuck::cast_slice_mut(&mut bits)).unwrap();
                let widened = |bits| match element {
                    Element::F16 => f16::from_bits(bits).to_f32(),
                    _ => bf16::from_bits(bits).to_f32(),
                };
                bits.into_iter().map(widened).collect()
            }
        }
    }

    /// What stands at an address of the workspace.
    fn workspace(&mut self, address: Address, len: usize) -> Vec<f32> {
        let Address::Workspace(offset) = address else { panic!("outside the workspace") };
        self.read(self.memory[self.buffers.len()].address + offset as u64, len)
    }

    /// Overwrites operands with ones, which none of the tests computes.
    fn overwrite(&mut self, operands: &[usize]) {
        for &number in operands {
            let Memory { address, bytes } = self.memory[number];
            self.driver.write(address, &vec![0xff; bytes]).unwrap();
        }
    }

    fn read(&mut self, address: u64, len: usize) -> Vec<f32> {
        let mut values = vec![0f32; len];
        self.driver.read(address, bytemuck::cast_slice_mut(&mut values)).unwrap();
        values
    }
}

/// Normal values around `mean`, rounded to bf16.
fn random(len: usize, mean: f64, sample: u32) -> Vec<f32> {
    let mut stream = Stream::new(17, Purpose::Initialisation, 0, sample, 0);
    (0..len).map(|_| bf16::from_f32((mean + stream.normal()) as f32).to_f32()).collect()
}

/// |got - want| <= relative |want| + absolute + runs times the sum of the products' sizes.
fn assert_near(what: &str, [got, want, sizes]: [&[f32]; 3], relative: f64, absolute: f64, runs: f64) {
    assert_eq!([got.len(), sizes.len()], [want.len(); 2]);
    for (at, ((&got, &want), &size)) in got.iter().zip(want).zip(sizes).enumerate() {
        let allowed = relative * f64::from(want.abs()) + absolute + runs * f64::from(size);
        let error = (f64::from(got) - f64::from(want)).abs();
        assert!(error <= allowed, "{what}, element {at}: {got}, CPU {want} (allowed {allowed:e})");
    }
}

fn shape([in_channels, out_channels]: [usize; 2], stride: usize) -> ConvolutionShape {
    ConvolutionShape { batch: 5, height: 7, width: 5, in_channels, out_channels, kernel: 3, stride }
}

/// Shapes for a tile: of both strides, or for one with a halo parts of an image, whole ones, and fewer than fill
/// the last tile.
fn shapes<K>(tile: &Tile<K>, channels: [usize; 2]) -> Vec<ConvolutionShape> {
    match tile.with_halo() {
        true => shapes_with_halo(tile.rows, channels).into(),
        false => both_strides(channels).into(),
    }
}

fn both_strides(channels: [usize; 2]) -> [ConvolutionShape; 2] {
    [1, 2].map(|stride| shape(channels, stride))
}

/// For a tile with a halo of so many rows. An image of the fourth is three tiles.
fn shapes_with_halo(rows: usize, channels: [usize; 2]) -> [ConvolutionShape; 5] {
    let of = |(batch, height, width)| ConvolutionShape { batch, height, width, ..shape(channels, 1) };
    [(9, 4, 4), (3, 8, 8), (1, 16, 16), (1, 3 * rows / 32, 32), (3, 8, 16)].map(of)
}

#[test]
fn forward_and_statistics_of_every_tile() {
    let tiles = NUMBERS.into_iter().flat_map(|(numbers, element)| {
        let tiles = tiles::forward(numbers).into_iter();
        tiles.flat_map(move |tile| {
            let of = move |shape| {
                (Some(numbers), element, Gathering::of(tile, &shape, ForwardKernel::Tile), shape)
            };
            shapes(&tile, [40, 136]).into_iter().map(of)
        })
    });
    let others = [
        (Element::Bf16, stems(Element::Bf16).0),
        (Element::F16, stems(Element::F16).0),
        (Element::F32, f32_gathering(ForwardKernel::F32)),
    ];
    let others = others.into_iter().flat_map(|(element, gathering)| {
        both_strides([3, 136]).into_iter().map(move |shape| (None, element, gathering, shape))
    });
    for (numbers, element, gathering, shape) in tiles.chain(others) {
        let what = format!("{numbers:?} {element:?} {}x{} {shape:?}", gathering.rows, gathering.columns);
        // The mean of y is far from 0, so sums of squares would cancel.
        let (x, w) = (random(shape.input_len(), 2.0, 0), random(shape.weight_len(), 1.0, 1));
        let poison = vec![f32::NAN; shape.output_len()];
        let mut bench = Bench::new(&[(element, &x), (element, &w), (element, &poison)]);
        let (y, statistics) =
            bench.run(|lowering| forward_by(&gathering, lowering, &shape, OPERANDS, true, None));

        let mut want = poison;
        cpu::forward(simd(), &shape, &x, &w, &mut want, &mut cpu::Workspace::default());
        // Up to 360 products of about 2, in another order: every partial sum is below 2000.
        let mut of_sizes = vec![0.0; y.len()];
        cpu::forward(simd(), &shape, &sizes(&x), &sizes(&w), &mut of_sizes, &mut cpu::Workspace::default());
        let absolute = 360.0 * F32 * 2000.0;
        assert_near(&what, [&y, &want, &of_sizes], stored(element), absolute, of_runs(numbers));

        let PartialStatistics { address, tiles, rows_per_tile } = statistics.unwrap();
        let channels = shape.out_channels;
        assert_eq!(tiles, pixels(&shape).div_ceil(rows_per_tile));
        let partial = bench.workspace(address, tiles * 2 * channels);
        for (tile, rows) in y.chunks(rows_per_tile * channels).enumerate() {
            let n = (rows.len() / channels) as f64;
            for channel in 0..channels {
                let values = || rows.iter().skip(channel).step_by(channels).map(|&v| f64::from(v));
                let sum: f64 = values().sum();
                let size: f64 = values().map(f64::abs).sum();
                let m2: f64 = values().map(|v| (v - sum / n).powi(2)).sum();
                let at = tile * 2 * channels + channel;
                let (got_sum, got_m2) = (f64::from(partial[at]), f64::from(partial[at + channels]));
                // Each of at most 128 additions rounds once.
                let allowed = 128.0 * F32;
                assert!((got_sum - sum).abs() <= allowed * size, "{what}: sum {got_sum}, float64 {sum}");
                // The mean's error enters squared; each deviation is rounded as its value is.
                let mean_error = allowed * size / n;
                let allowed = 2.0 * allowed * m2 + 2.0 * n * mean_error * mean_error;
                assert!((got_m2 - m2).abs() <= allowed, "{what}: M2 {got_m2}, float64 {m2}");
            }
        }
    }
}

#[test]
fn data_gradient_of_every_tile() {
    let tiles = NUMBERS.into_iter().flat_map(|(numbers, element)| {
        let tiles = tiles::data_gradient(numbers).into_iter();
        tiles.flat_map(move |tile| {
            let of = move |shape| {
                (Some(numbers), element, Gathering::of(tile, &shape, DataGradientKernel::Tile), shape)
            };
            shapes(&tile, [136, 40]).into_iter().map(of)
        })
    });
    let f32 = f32_gathering(DataGradientKernel::F32);
    let f32 = both_strides([136, 40]).into_iter().map(move |shape| (None, Element::F32, f32, shape));
    for (numbers, element, gathering, shape) in tiles.chain(f32) {
        for accumulate in [false, true] {
            let tile = [gathering.rows, gathering.columns];
            let what = format!("{numbers:?} {element:?} {tile:?} {shape:?} accumulate {accumulate}");
            let (dy, w) = (random(shape.output_len(), 0.0, 2), random(shape.weight_len(), 0.0, 3));
            let mut want = random(shape.input_len(), 0.0, 4);
            if !accumulate {
                want.fill(f32::NAN);
            }
            let mut bench = Bench::new(&[(element, &dy), (element, &w), (element, &want)]);
            let (dx, sums) = bench.run(|lowering| {
                data_gradient_by(&gathering, lowering, &shape, OPERANDS, accumulate, [None; 2])
            });
            assert!(sums.is_none(), "nobody asked for sums");
            cpu::backward_data(
                simd(),
                &shape,
                &dy,
                &w,
                (&mut want, accumulate),
                &mut cpu::Workspace::default(),
            );
            // Up to 360 products of 1, in another order: every partial sum is below 100.
            let mut of_sizes = vec![0.0; dx.len()];
            let [dy, w] = [sizes(&dy), sizes(&w)];
            cpu::backward_data(
                simd(),
                &shape,
                &dy,
                &w,
                (&mut of_sizes, false),
                &mut cpu::Workspace::default(),
            );
            let absolute = 360.0 * F32 * 100.0;
            assert_near(&what, [&dx, &want, &of_sizes], stored(element), absolute, of_runs(numbers));
        }
    }
}

/// A kernel with a halo adds the same products in the same order as the one that copies every tap's pixels: bit
/// for bit; where its tiles have as many rows, statistics too.
#[test]
fn kernels_with_a_halo_have_the_bits_of_those_without() {
    for (numbers, element) in NUMBERS {
        let tiles = tiles::forward(numbers);
        for tile in tiles.iter().filter(|tile| tile.with_halo()) {
            let without = tiles.iter().find(|other| !other.with_halo() && other.columns == tile.columns);
            let without = without.unwrap();
            for shape in shapes(tile, [72, 80]) {
                let (x, w) = (random(shape.input_len(), 1.0, 7), random(shape.weight_len(), 0.0, 8));
                let poison = vec![f32::NAN; shape.output_len()];
                let of = |tile: Tile<_>| {
                    let gathering = Gathering::of(tile, &shape, ForwardKernel::Tile);
                    assert_eq!(gathering.halo.is_some(), tile.with_halo());
                    let mut bench = Bench::new(&[(element, &x), (element, &w), (element, &poison)]);
                    let lower = |lowering: &mut Lowering<'_>| {
                        forward_by(&gathering, lowering, &shape, OPERANDS, true, None)
                    };
                    let (y, statistics) = bench.run(lower);
                    let PartialStatistics { address, tiles, .. } = statistics.unwrap();
                    (y, bench.workspace(address, tiles * 2 * shape.out_channels))
                };
                let ((y, statistics), (want, of_want)) = (of(*tile), of(*without));
                let what = format!("{numbers:?} {:?} {shape:?}", tile.kernel.kernel.name);
                assert!(y == want, "{what}");
                assert!(tile.rows != without.rows || statistics == of_want, "{what}: statistics");
            }
        }
        let tiles = tiles::data_gradient(numbers);
        for tile in tiles.iter().filter(|tile| tile.with_halo()) {
            let without = tiles.iter().find(|other| !other.with_halo() && other.columns == tile.columns);
            let without = without.unwrap();
            for shape in shapes(tile, [80, 72]) {
                let (dy, w) = (random(shape.output_len(), 0.0, 9), random(shape.weight_len(), 0.0, 10));
                let before = random(shape.input_len(), 0.0, 11);
                let of = |tile: Tile<_>| {
                    let gathering = Gathering::of(tile, &shape, DataGradientKernel::Tile);
                    let mut bench = Bench::new(&[(element, &dy), (element, &w), (element, &before)]);
                    bench
                        .run(|lowering| {
                            data_gradient_by(&gathering, lowering, &shape, OPERANDS, true, [None; 2])
                        })
                        .0
                };
                let name = tile.kernel.kernel.name;
                assert!(of(*tile) == of(*without), "{numbers:?} {name} {shape:?}");
            }
        }
    }
}

/// The kernel with a halo of the same tile and warps.
fn without_batchnorm<A: Copy, B>(plain: Vec<Tile<A>>, tile: &Tile<B>) -> Tile<A> {
    let size = (tile.rows, tile.columns, tile.threads);
    let mut with_halo = plain.into_iter().filter(Tile::with_halo);
    with_halo.find(|other| (other.rows, other.columns, other.threads) == size).expect("a kernel")
}

/// What stands beside a batchnorm.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Residual {
    None,
    Given,
    OfBatchnorm,
}

/// A convolution that normalises what it reads has the bits of the batchnorm and the convolution one after the other:
/// its result, its statistics, and what it leaves of the batchnorm's. With fewer channels than a slice, more than two
/// slices, every kind of residual, and ReLU.
#[test]
fn a_convolution_of_a_batchnorm_has_the_bits_of_both() {
    let [source, affine, running, batch, residual, residual_x, residual_batch, x, positive, w, y] =
        std::array::from_fn(Tensor);
    let kinds = [
        (Residual::None, true),
        (Residual::None, false),
        (Residual::Given, true),
        (Residual::OfBatchnorm, true),
    ];
    let cases = NUMBERS.into_iter().flat_map(|(numbers, element)| {
        tiles::forward_of_batchnorm(numbers).into_iter().map(move |tile| (numbers, element, tile))
    });
    for (number, (numbers, element, tile)) in cases.enumerate() {
        let without = without_batchnorm(tiles::forward(numbers), &tile);
        // Every kind for every tile, and with every shape for some.
        let mut kinds = kinds.into_iter().cycle().skip(number);
        for (shape, channels) in shapes_with_halo(tile.rows, [72, 136]).into_iter().zip([8, 72, 40, 72, 104])
        {
            let shape = ConvolutionShape { in_channels: channels, ..shape };
            let (rows, len) = (shape.input_len() / channels, shape.input_len());
            let (kind, relu) = kinds.next().unwrap();
            let given = [random(len, 1.0, 20), random(len, 0.0, 21), random(shape.weight_len(), 0.0, 22)];
            let (parameters, nothing) = (random(2 * channels, 1.0, 23), vec![0.0; 2 * channels]);
            let [of_input, of_output, bits] = [len, shape.output_len(), len / 8].map(|len| vec![0.0; len]);
            let mut bench = Bench::new(&[
                (element, &given[0]),
                (Element::F32, &parameters),
                (Element::F32, &nothing),
                (Element::F32, &nothing),
                (element, &given[1]),
                (element, &given[1]),
                (Element::F32, &nothing),
                (element, &of_input),
                (Element::U8, &bits),
                (element, &given[2]),
                (element, &of_output),
            ]);
            let has_residual = kind != Residual::None;
            let of = BatchNorm {
                rows,
                channels,
                x: source,
                affine,
                running,
                batch,
                residual: has_residual.then_some(residual),
                relu,
                valid: None,
                y: x,
                positive: has_residual.then_some(positive),
            };
            let before = BatchNorm {
                x: residual_x,
                batch: residual_batch,
                residual: None,
                relu: false,
                y: residual,
                positive: None,
                ..of.clone()
            };
            let before = (kind == Residual::OfBatchnorm).then_some(before);
            let left = |bench: &mut Bench, statistics: Option<PartialStatistics>| {
                let PartialStatistics { address, tiles, .. } = statistics.unwrap();
                let statistics = bench.workspace(address, tiles * 2 * shape.out_channels);
                let positive = if has_residual { bench.operand(positive.0) } else { Vec::new() };
                let results = [bench.operand(x.0), positive, bench.operand(y.0), statistics];
                results.map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            before.iter().for_each(|before| bench.launch(|lowering| lowering.lower(&[before]).unwrap()));
            bench.launch(|lowering| lowering.lower(&[&of]).unwrap());
            let gathering = Gathering::of(without, &shape, ForwardKernel::Tile);
            let separate =
                bench.launch(|lowering| forward_by(&gathering, lowering, &shape, [x, w, y], true, None));
            let separate = left(&mut bench, separate);
            bench.overwrite(&[x.0, positive.0, y.0]);
            if before.is_some() {
                bench.overwrite(&[residual.0]);
            }
            let gathering = Gathering::of(tile, &shape, ForwardKernel::OfBatchnorm);
            let waiting = Normalisation { of, residual: before };
            let together = bench
                .launch(|lowering| forward_by(&gathering, lowering, &shape, [x, w, y], true, Some(&waiting)));
            let name = tile.kernel.kernel.name;
            let what = format!("{numbers:?} {name} {shape:?} {kind:?} {relu}");
            assert!(left(&mut bench, together) == separate, "{what}");
        }
    }
}

/// The weight gradient of the first layer that computes dy from the gradient of a batchnorm has the bits of both one
/// after the other.
#[test]
fn the_stem_of_a_batchnorm_has_the_bits_of_both() {
    let [images, dw, source, source_x, affine, batch, d_affine, dy] = std::array::from_fn(Tensor);
    for element in [Element::Bf16, Element::F16] {
        for (channels, slices) in [(72, 1), (64, 3), (8, 100)] {
            let shape = shape([3, channels], 1);
            let len = shape.output_len();
            let values = [
                random(shape.input_len(), 0.0, 40),
                vec![0.0; shape.weight_len()],
                random(len, 0.0, 41),
                random(len, 1.0, 42),
                random(2 * channels, 1.0, 43),
                random(2 * channels, 0.0, 44).iter().map(|value| value.abs() + 0.1).collect(),
                vec![0.0; 2 * channels],
                vec![0.0; len],
            ];
            let elements = [0, 1, 0, 0, 1, 1, 1, 0].map(|f32| [element, Element::F32][f32]);
            let operands: Vec<_> =
                elements.into_iter().zip(&values).map(|(element, values)| (element, &values[..])).collect();
            let above = BatchNormGradient {
                rows: len / channels,
                channels,
                x: source_x,
                y: source_x,
                positive: None,
                relu: false,
                residual: false,
                valid: None,
                affine,
                batch,
                dy: source,
                d_affine,
                dx: dy,
            };
            let mut bench = Bench::new(&operands);
            bench.launch(|lowering| lowering.lower(&[&above]).unwrap());
            let [separate, together] = [stems(element).1, stem_of_batchnorm(element)].map(|tile| {
                let cut = cut(&shape, tile, slices);
                bench.launch(|lowering| {
                    weight_gradient_by(&cut, lowering, &shape, [images, dy, dw], Some(&above))
                });
                let result = bench.operand(dw.0);
                bench.overwrite(&[dw.0, dy.0]);
                result.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            });
            assert!(separate == together, "{element:?} {channels} {slices}");
        }
    }
}

/// A data gradient that computes what it reads from the gradient of a batchnorm has the bits of both one after the
/// other: its result, the sums for the batchnorm behind it, and what it leaves of the first one's.
#[test]
fn a_data_gradient_of_a_batchnorm_has_the_bits_of_both() {
    let [
        source,
        source_x,
        source_affine,
        source_batch,
        source_d_affine,
        dy,
        w,
        dx,
        x,
        affine,
        batch,
        d_affine,
    ] = std::array::from_fn(Tensor);
    for (numbers, element) in NUMBERS {
        for tile in tiles::data_gradient_of_batchnorm(numbers) {
            let without = without_batchnorm(tiles::data_gradient(numbers), &tile);
            for (shape, channels) in
                shapes_with_halo(tile.rows, [136, 72]).into_iter().zip([8, 72, 40, 72, 104])
            {
                let shape = ConvolutionShape { out_channels: channels, ..shape };
                let (len, behind) = (shape.output_len(), shape.input_len());
                let rows = len / channels;
                let parameters = |mean, sample| random(2 * channels.max(shape.in_channels), mean, sample);
                let deviations =
                    |sample| parameters(0.0, sample).iter().map(|v| v.abs() + 0.1).collect::<Vec<_>>();
                let values = [
                    random(len, 0.0, 30),
                    random(len, 1.0, 31),
                    parameters(1.0, 32),
                    deviations(33),
                    vec![0.0; 2 * channels],
                    vec![0.0; len],
                    random(shape.weight_len(), 0.0, 34),
                    random(behind, 0.0, 35),
                    random(behind, 0.0, 36),
                    parameters(1.0, 37),
                    deviations(38),
                ];
                let elements = [0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 1].map(|f32| [element, Element::F32][f32]);
                let operands: Vec<_> = elements
                    .into_iter()
                    .zip(&values)
                    .map(|(element, values)| (element, &values[..]))
                    .collect();
                let above = BatchNormGradient {
                    rows,
                    channels,
                    x: source_x,
                    y: source_x,
                    positive: None,
                    relu: false,
                    residual: false,
                    valid: None,
                    affine: source_affine,
                    batch: source_batch,
                    dy: source,
                    d_affine: source_d_affine,
                    dx: dy,
                };
                let normalised = BatchNormGradient {
                    rows: behind / shape.in_channels,
                    channels: shape.in_channels,
                    x,
                    y: x,
                    relu: true,
                    affine,
                    batch,
                    dy: dx,
                    d_affine,
                    dx,
                    ..above.clone()
                };
                for accumulate in [false, true] {
                    let run = |gathering: &Gathering<DataGradientKernel>, bench: &mut Bench| {
                        let both = [Some(&above), Some(&normalised)];
                        let sums = bench.launch(|lowering| {
                            data_gradient_by(gathering, lowering, &shape, [dy, w, dx], accumulate, both)
                        });
                        let PartialGradientSums { address, tiles } = sums.unwrap();
                        let sums = bench.workspace(address, tiles * 2 * shape.in_channels);
                        [bench.operand(dy.0), bench.operand(dx.0), sums]
                            .map(|values| values.into_iter().map(f32::to_bits).collect::<Vec<_>>())
                    };
                    let mut bench = Bench::new(&operands);
                    bench.launch(|lowering| lowering.lower(&[&above])).unwrap();
                    let gathering = Gathering::of(without, &shape, DataGradientKernel::Tile);
                    let separate = run(&gathering, &mut bench);
                    let mut bench = Bench::new(&operands);
                    bench.launch(|lowering| lowering.lower(&[&above])).unwrap();
                    bench.overwrite(&[dy.0]);
                    let gathering = Gathering::of(tile, &shape, DataGradientKernel::OfBatchnorm);
                    let what = format!("{numbers:?} {}x{} {shape:?} {accumulate}", tile.rows, tile.columns);
                    assert!(run(&gathering, &mut bench) == separate, "{what}");
                }
            }
        }
    }
}

/// A weight gradient cut into shares of so many slices.
fn cut(shape: &ConvolutionShape, tile: WeightTile, slices: usize) -> WeightCut {
    let (share, columns) = (slices * tile.slice, 9 * shape.in_channels);
    let blocks = shape.out_channels.div_ceil(tile.rows) * columns.div_ceil(tile.columns);
    WeightCut { tile, blocks, share, splits: pixels(shape).div_ceil(share) }
}

#[test]
fn weight_gradient_of_every_tile_and_cut() {
    let tiles = NUMBERS.into_iter().flat_map(|(numbers, element)| {
        tiles::weight_gradient(numbers).into_iter().map(move |tile| (Some(numbers), element, tile, 40))
    });
    let stems = [Element::Bf16, Element::F16].map(|element| (None, element, stems(element).1, 3));
    for (numbers, element, tile, in_channels) in
        tiles.chain(stems).chain([(None, Element::F32, F32_WEIGHT_TILE, 3)])
    {
        // With a halo, whole images, more rows than a window has, and shares that begin inside of an image.
        let with_halo = [((1, 12, 32), 100), ((9, 4, 4), 1), ((3, 8, 16), 3)];
        let cases: Vec<_> = match tile.with_halo() {
            true => with_halo.map(|(size, slices)| (size, 1, slices)).into(),
            false => {
                [(1, 1), (1, 3), (1, 100), (2, 1)].map(|(stride, slices)| ((5, 7, 5), stride, slices)).into()
            }
        };
        for ((batch, height, width), stride, slices) in cases {
            let what = format!("{:?} stride {stride} shares of {slices} slices", tile.kernel);
            let shape = ConvolutionShape { batch, height, width, ..shape([in_channels, 136], stride) };
            let (x, dy) = (random(shape.input_len(), 0.0, 5), random(shape.output_len(), 0.0, 6));
            let poison = vec![f32::NAN; shape.weight_len()];
            let cut = cut(&shape, tile, slices);
            let mut bench = Bench::new(&[(element, &x), (element, &dy), (Element::F32, &poison)]);
            let (dw, ()) = bench.run(|lowering| weight_gradient_by(&cut, lowering, &shape, OPERANDS, None));
            let mut want = poison;
            cpu::backward_weight(simd(), &shape, &x, &dy, &mut want, &mut cpu::Workspace::default());
            // Up to 384 products of 1, in another order: every partial sum is below 64.
            let mut of_sizes = vec![0.0; dw.len()];
            let [x, dy] = [sizes(&x), sizes(&dy)];
            cpu::backward_weight(simd(), &shape, &x, &dy, &mut of_sizes, &mut cpu::Workspace::default());
            let products = pixels(&shape) as f64;
            assert_near(&what, [&dw, &want, &of_sizes], 0.0, products * F32 * 64.0, of_runs(numbers));
        }
    }
}

/// The weight gradient that copies x once adds the same products in the same order as the others: bit for bit,
/// with parts of images and whole ones in a step, and shares that begin inside of an image.
#[test]
fn weight_gradients_with_a_halo_have_the_bits_of_those_without() {
    for (numbers, element) in NUMBERS {
        let tiles = tiles::weight_gradient(numbers);
        let without = *tiles.iter().find(|tile| (tile.rows, tile.columns) == (64, 64)).unwrap();
        for tile in tiles.iter().filter(|tile| tile.with_halo()) {
            for shape in shapes_with_halo(128, [40, 72]) {
                for slices in [3, 100] {
                    let (x, dy) = (random(shape.input_len(), 0.0, 12), random(shape.output_len(), 0.0, 13));
                    let poison = vec![f32::NAN; shape.weight_len()];
                    let of = |tile: WeightTile| {
                        let cut = cut(&shape, tile, slices);
                        let mut bench = Bench::new(&[(element, &x), (element, &dy), (Element::F32, &poison)]);
                        bench.run(|lowering| weight_gradient_by(&cut, lowering, &shape, OPERANDS, None)).0
                    };
                    assert!(of(*tile) == of(without), "{numbers:?} {shape:?} shares of {slices} slices");
                }
            }
        }
    }
}
