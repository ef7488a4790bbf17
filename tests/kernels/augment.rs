//! Augmentation is integer arithmetic, so the bits are the same everywhere. f32 views equal the CPU's; bf16
//! and f16 views are the CPU's, rounded to nearest even.

use records::data::augment::operation::{OPERATIONS, OperationParameters};
use records::data::augment::parameters::VIEW_BYTES;
use records::data::augment::{ImageOperation, View, ViewParameters};
use records::device::gpu::sim::SimDriver;
use records::device::gpu::{GpuDevice, Precision};
use records::device::{Device as _, Element, Tensor};
use records::error::UsageError;
use records::ops::augment::Augment;

use super::pair::{PRECISIONS, Pair, Random, Value, rounded_as};

const VIEWS: Tensor = Tensor(4);

/// Images of one source size and their views: views 2i and 2i + 1 are the weak and the strong one of image i.
struct Case<'a> {
    what: &'a str,
    source: [usize; 2],
    size: usize,
    images: Vec<Vec<u8>>,
    views: Vec<ViewParameters>,
}

/// Runs a case and asserts that every view is the CPU's.
fn check(pair: &mut Pair, case: &Case<'_>, random: &mut Random) {
    let Case { what, source, size, images, views } = case;
    let samples = images.len();
    assert_eq!(views.len(), 2 * samples, "{what}");
    let values = [
        Value::U8(images.concat()),
        Value::U8(bytemuck::cast_slice(views).to_vec()),
        // In any order, so that a view computed from another sample's image or parameters is detected.
        Value::I32(random.distinct(samples, samples)),
        Value::F32(vec![0.4914, 0.4822, 0.4465, 0.247, 0.243, 0.261]),
        Value::ActivationOutput(2 * samples * size * size * 3),
    ];
    let augment = Augment {
        batch: samples,
        first: 0,
        count: 2,
        source: *source,
        size: *size,
        images: Tensor(0),
        parameters: Tensor(1),
        index: Tensor(2),
        normalisation: Tensor(3),
        views: VIEWS,
    };
    let mut outcome = pair.run(&[augment], &values);
    outcome.cpu[VIEWS.0].iter_mut().for_each(|v| *v = rounded_as(pair.precision, *v));
    outcome.assert_equal(what, VIEWS);
}

/// An image of one of several kinds: noise, a dim range, a gradient, few levels, gray, one colour.
fn image(kind: usize, [height, width]: [usize; 2], random: &mut Random) -> Vec<u8> {
    let pixels = height * width;
    let noise: Vec<u8> = random.below(3 * pixels, 256).into_iter().map(|v| v as u8).collect();
    match kind % 6 {
        0 => noise,
        1 => {
            let ends = random.below(6, 256);
            let level = |i: usize, v: u8| {
                let (a, b) = (ends[i % 3].min(ends[3 + i % 3]), ends[i % 3].max(ends[3 + i % 3]));
                (a + u32::from(v) % (b - a + 1)) as u8
            };
            noise.iter().enumerate().map(|(i, &v)| level(i, v)).collect()
        }
        2 => (0..3 * pixels)
            .map(|i| ((i / 3 % width * 5 + i / 3 / width * 3 + i % 3 * 40) as u8).wrapping_add(noise[i] / 32))
            .collect(),
        3 => noise.iter().map(|v| v / 128 * 90 + 60).collect(),
        4 => noise.chunks_exact(3).flat_map(|pixel| [pixel[0]; 3]).collect(),
        _ => noise[..3].repeat(pixels),
    }
}

/// A case of `views` over images of all kinds.
fn case<'a>(
    what: &'a str,
    source: [usize; 2],
    size: usize,
    mut views: Vec<ViewParameters>,
    random: &mut Random,
) -> Case<'a> {
    if views.len() % 2 == 1 {
        views.push(ViewParameters::plain(source[0], source[1]));
    }
    let images = (0..views.len() / 2).map(|kind| image(kind, source, random)).collect();
    Case { what, source, size, images, views }
}

fn plain(size: usize) -> ViewParameters {
    ViewParameters::plain(size, size)
}

#[test]
fn every_operation_alone() {
    let mut pair = Pair::new(Precision::F32);
    for (operation, name, range) in OPERATIONS {
        let mut random = Random::new(name);
        for size in [32, 21] {
            let [low, high] = range.unwrap_or([0.0, 1.0]);
            let width = high - low;
            let mut values = vec![low, high, (low + high) / 2.0, 0.0, 1.0, low - width, high + width];
            values.extend(random.uniform(17, low, high).into_iter().map(f64::from));
            let views = values
                .iter()
                .map(|&value| {
                    let mut view = plain(size);
                    view.operations[1] = OperationParameters::new(operation, value, [size, size]);
                    view
                })
                .collect();
            let what = format!("{name} at {size}");
            check(&mut pair, &case(&what, [size, size], size, views, &mut random), &mut random);
        }
    }
}

/// Every operation on 128 x 128 pixels, sixteen per thread, at both ends of its range and between them.
#[test]
fn every_operation_on_large_views() {
    let mut random = Random::new("large views");
    let size = 128;
    let views = OPERATIONS.into_iter().flat_map(|(operation, _, range)| {
        let [low, high] = range.unwrap_or([0.0, 1.0]);
        [low, high, low + 0.3 * (high - low)].map(|value| {
            let mut view = plain(size);
            view.operations[0] = OperationParameters::new(operation, value, [size, size]);
            view.cutout = [100, 3, 126, 40];
            view
        })
    });
    let case = case("operations at 128", [size, size], size, views.collect(), &mut random);
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

/// A view that does not fit a block's memory is refused before anything runs, with the size that fits.
#[test]
fn views_that_are_too_large_are_refused() {
    let mut device = GpuDevice::new(Box::new(SimDriver::open(0).unwrap()), Precision::Bf16);
    let size = 130;
    let lengths =
        [(Element::U8, 3 * 64), (Element::U8, 2 * VIEW_BYTES), (Element::I32, 1), (Element::F32, 6)];
    let mut buffers = device.allocate_all(&lengths, "a test operand").unwrap();
    buffers.push(device.allocate(Element::Bf16, 2 * size * size * 3, "a test operand").unwrap());
    let augment = Augment {
        batch: 1,
        first: 0,
        count: 2,
        source: [8, 8],
        size,
        images: Tensor(0),
        parameters: Tensor(1),
        index: Tensor(2),
        normalisation: Tensor(3),
        views: VIEWS,
    };
    let error = device.execute(&augment, &buffers).unwrap_err();
    assert!(error.is::<UsageError>(), "{error:#}");
    let line = error.to_string();
    assert!(
        line.contains("130x130") && line.contains("up to 129") && line.contains("--image-size"),
        "{line}"
    );
}

/// Every operation before and after every other and itself: none may leave state that breaks the next.
#[test]
fn every_operation_after_every_other() {
    let mut random = Random::new("pairs of operations");
    let mut views = Vec::new();
    for (first, _, first_range) in OPERATIONS {
        for (second, _, second_range) in OPERATIONS {
            let mut drawn = |operation, range: Option<[f64; 2]>| {
                let [low, high] = range.unwrap_or([0.0, 1.0]);
                let value = f64::from(random.uniform(1, low, high)[0]);
                OperationParameters::new(operation, value, [20, 20])
            };
            let mut view = plain(20);
            view.operations =
                [drawn(first, first_range), drawn(second, second_range), drawn(first, first_range)];
            views.push(view);
        }
    }
    let case = case("pairs of operations", [20, 20], 20, views, &mut random);
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

/// Autocontrast's table is the only place where f64 rounding matters: many ranges, each with all its values.
#[test]
fn autocontrast_over_many_ranges() {
    let mut random = Random::new("autocontrast ranges");
    let mut view = plain(32);
    view.operations[0] = OperationParameters::new(ImageOperation::Autocontrast, 0.0, [32, 32]);
    let images = (0..48)
        .map(|_| {
            let ends = random.below(6, 256);
            (0..3 * 32 * 32)
                .map(|i| {
                    let (a, b) = (ends[i % 3], ends[3 + i % 3]);
                    (a.min(b) + (i / 3) as u32 % (a.abs_diff(b) + 1)) as u8
                })
                .collect()
        })
        .collect();
    let case = Case { what: "autocontrast", source: [32, 32], size: 32, images, views: vec![view; 96] };
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

#[test]
fn histograms_of_few_levels() {
    let mut random = Random::new("few levels");
    let mut images = Vec::new();
    for levels in [[0u8, 0, 0], [255, 255, 255], [7, 8, 9], [0, 255, 128], [254, 255, 0], [1, 1, 2]] {
        images.push(levels.repeat(32 * 32));
        // One pixel that differs, then half of them, then few enough that equalize's step is 0 or 1.
        for count in [1, 512, 769, 770] {
            let mut pixels = levels.repeat(32 * 32);
            pixels[..3 * count].chunks_exact_mut(3).for_each(|p| p.copy_from_slice(&[9, 200, 255]));
            images.push(pixels);
        }
    }
    let with = |operation| {
        let mut view = plain(32);
        view.operations[2] = OperationParameters::new(operation, 0.0, [32, 32]);
        view
    };
    let views = (0..images.len())
        .flat_map(|_| [with(ImageOperation::Equalize), with(ImageOperation::Autocontrast)])
        .collect();
    let case = Case { what: "few levels", source: [32, 32], size: 32, images, views };
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

#[test]
fn every_order_of_the_jitter() {
    let mut random = Random::new("jitter");
    let mut views = Vec::new();
    for number in 0..24 {
        let mut rest = vec![0, 1, 2, 3];
        let (a, b, c) = (number / 6, number / 2 % 3, number % 2);
        let mut view = plain(32);
        view.jitter = 1;
        view.jitter_order = [rest.remove(a), rest.remove(b), rest.remove(c), rest[0]];
        view.jitter_factors = random.uniform(3, 0.6, 1.4).try_into().unwrap();
        view.hue_shift = random.below(1, 256)[0] as i32;
        view.grayscale = i32::from(number % 5 == 0);
        view.flip = number as i32 & 1;
        views.push(view);
    }
    let case = case("jitter", [32, 32], 32, views, &mut random);
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

/// 40 levels of each channel in all combinations: every order of the channels, and every tie.
#[test]
fn hue_over_the_colour_cube() {
    let mut random = Random::new("hue");
    let level = |i: usize| (i * 255 / 39) as u8;
    let colours: Vec<u8> =
        (0..40 * 40 * 40).flat_map(|i| [level(i / 1600), level(i / 40 % 40), level(i % 40)]).collect();
    let images: Vec<Vec<u8>> = colours.chunks_exact(3 * 40 * 40).map(<[u8]>::to_vec).collect();
    let shifts = random.below(2 * images.len(), 256);
    let views = shifts
        .into_iter()
        .map(|shift| {
            let mut view = plain(40);
            view.jitter = 1;
            view.hue_shift = shift as i32;
            view
        })
        .collect();
    let case = Case { what: "hue", source: [40, 40], size: 40, images, views };
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

/// Colours whose luma lies on a rounding boundary, which random ones almost never do.
#[test]
fn gray_of_colours_on_the_edge() {
    let mut random = Random::new("gray");
    let on_edge = |&[r, g, b]: &[u8; 3]| {
        let [r, g, b] = [r, g, b].map(u32::from);
        (19_595 * r + 38_470 * g + 7_471 * b + 32_768) % 65_536 == 0
    };
    let colours = (0..1 << 24).map(|c: u32| [c as u8, (c >> 8) as u8, (c >> 16) as u8]);
    let edge: Vec<u8> = colours.filter(on_edge).take(4 * 64).flatten().collect();
    assert_eq!(edge.len(), 3 * 4 * 64);
    let images: Vec<Vec<u8>> = edge.chunks_exact(3 * 64).map(<[u8]>::to_vec).collect();
    let mut view = plain(8);
    view.grayscale = 1;
    let case = Case { what: "gray", source: [8, 8], size: 8, images, views: vec![view; 8] };
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

/// Whole views with parameters as training draws them.
#[test]
fn whole_views() {
    for (precision, samples) in [(Precision::F32, 104), (Precision::Bf16, 41), (Precision::F16, 23)] {
        let mut random = Random::new("whole views");
        let views = (0..samples)
            .flat_map(|sample| {
                [View::Weak, View::Strong]
                    .map(|view| ViewParameters::of_sample(11, 3, sample, view, [32, 32], 32))
            })
            .collect();
        let what = format!("whole views {precision:?}");
        check(&mut Pair::new(precision), &case(&what, [32, 32], 32, views, &mut random), &mut random);
    }
}

/// Sources and views of all shapes: not square, shrunk, enlarged, odd widths, images whose length is no
/// multiple of a vector.
#[test]
fn every_shape() {
    let mut random = Random::new("shapes");
    let table = [
        ([33, 21], 32, 6),
        ([48, 48], 40, 4),
        ([32, 32], 31, 6),
        ([5, 7], 9, 6),
        ([70, 51], 33, 2),
        ([256, 200], 32, 1),
        ([64, 64], 64, 1),
        ([96, 128], 128, 2),
        ([128, 96], 128, 2),
        ([128, 128], 128, 2),
        // The largest view that fits a block of the interpreter's GPU.
        ([64, 100], 129, 1),
    ];
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        for (source, size, samples) in table {
            let views = (0..samples)
                .flat_map(|sample| {
                    [View::Weak, View::Strong].map(|view| {
                        let mut view = ViewParameters::of_sample(5, 1, sample, view, source, size);
                        view.flip = sample as i32 & 1;
                        view
                    })
                })
                .collect();
            let what = format!("{source:?} to {size} {precision:?}");
            check(&mut pair, &case(&what, source, size, views, &mut random), &mut random);
        }
    }
}

#[test]
fn extreme_crops_and_cutouts() {
    let mut random = Random::new("extremes");
    let source = [32, 27];
    let mut views = Vec::new();
    for crop in [
        [0, 0, 1, 1],
        [31, 26, 1, 1],
        [0, 0, 32, 27],
        [3, 2, 29, 1],
        [5, 0, 1, 27],
        // Beyond the image: clipped.
        [-4, -9, 40, 50],
        [100, 100, 3, 3],
        [7, 7, 0, -3],
        [i32::MAX, i32::MIN, i32::MAX, i32::MIN],
    ] {
        for flip in [0, 1, -1] {
            let mut view = ViewParameters::plain(source[0], source[1]);
            (view.crop, view.flip) = (crop, flip);
            views.push(view);
        }
    }
    for cutout in [
        [0, 0, 31, 31],
        [5, 7, 5, 7],
        [6, 0, 5, 9],
        [0, 9, 9, 6],
        [-9, -9, -1, -1],
        [32, 32, 40, 40],
        [-5, 20, 3, 90],
        [31, 0, 31, 0],
        [i32::MIN, i32::MIN, i32::MAX, i32::MAX],
    ] {
        let mut view = ViewParameters::plain(source[0], source[1]);
        view.cutout = cutout;
        views.push(view);
    }
    let case = case("extreme crops and cutouts", source, 32, views, &mut random);
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

/// Parameters that no host writes behave as on the CPU.
#[test]
fn parameters_of_any_value() {
    let mut random = Random::new("any value");
    let extremes = [i32::MIN, i32::MAX, -1, 0, 1, 1 << 16, -70_000];
    let factors = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, -2.0, 3.5, 1e-40, 1e30];
    let mut views = Vec::new();
    for kind in -1..18 {
        for _ in 0..5 {
            let mut view = plain(24);
            let pick = random.below(8, 7 * 8);
            let integers = std::array::from_fn(|i| extremes[pick[i] as usize % 7]);
            view.operations[0] =
                OperationParameters { kind, factor: factors[pick[7] as usize % 8], integers };
            views.push(view);
        }
    }
    for pick in 0..24usize {
        let mut view = plain(24);
        view.jitter = -7;
        view.jitter_order = [pick as i32 % 4, -1, 9, i32::MIN + pick as i32];
        view.jitter_factors = std::array::from_fn(|i| factors[(pick + i) % 8]);
        view.hue_shift = extremes[pick % 7];
        views.push(view);
    }
    let case = case("parameters of any value", [24, 24], 24, views, &mut random);
    check(&mut Pair::new(Precision::F32), &case, &mut random);
}

/// One view of each sample, weak or strong, into rows that others may follow: those stay unchanged.
#[test]
fn one_view_at_a_time() {
    let size = 32;
    let [images, parameters, index, normalisation, views] = std::array::from_fn(Tensor);
    for precision in PRECISIONS {
        let mut pair = Pair::new(precision);
        let mut random = Random::new("one view at a time");
        let samples = 5;
        let of_sample = |sample| {
            [View::Weak, View::Strong]
                .map(|view| ViewParameters::of_sample(2, 9, sample, view, [size, size], size))
        };
        let given: Vec<ViewParameters> = (0..samples).flat_map(of_sample).collect();
        let source: Vec<u8> =
            (0..samples as usize).flat_map(|k| image(k, [size, size], &mut random)).collect();
        // Fewer than there are samples.
        let batch = 3;
        let len = size * size * 3;
        for (first, count) in [(0, 1), (1, 1), (0, 2)] {
            let values = [
                Value::U8(source.clone()),
                Value::U8(bytemuck::cast_slice(&given).to_vec()),
                Value::I32(random.distinct(batch, samples as usize)),
                Value::F32(vec![0.4914, 0.4822, 0.4465, 0.247, 0.243, 0.261]),
                Value::Activations(vec![7.0; 4 * batch * len]),
            ];
            let source = [size, size];
            let augment = Augment {
                batch,
                first,
                count,
                source,
                size,
                images,
                parameters,
                index,
                normalisation,
                views,
            };
            let mut outcome = pair.run(&[augment], &values);
            outcome.cpu[VIEWS.0].iter_mut().for_each(|v| *v = rounded_as(precision, *v));
            outcome.assert_equal(&format!("{count} views from {first}, {precision:?}"), views);
            assert!(outcome.kernels[VIEWS.0][count * batch * len..].iter().all(|v| *v == 7.0));
        }
    }
}
