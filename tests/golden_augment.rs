//! Every augmentation operation against Pillow and torchvision: exactly equal.

mod support;

use records::data::augment::operation::{OPERATIONS, OperationParameters};
use records::data::augment::resize::{Axis, Crop, resize, resize_crop};
use records::data::augment::{colour, cutout, cutout_rectangle, flip};
use records::train::tensor_file::{TensorFile, Values};
use support::golden;

const SIZE: usize = 32;
const BYTES: usize = SIZE * SIZE * 3;

fn same(what: &str, got: &[u8], want: &[u8]) {
    assert_eq!(got.len(), want.len(), "{what}");
    if let Some(at) = (0..got.len()).find(|&i| got[i] != want[i]) {
        let count = (0..got.len()).filter(|&i| got[i] != want[i]).count();
        panic!("{what}: {count} values differ, first at {at}: {} for {}", got[at], want[at]);
    }
}

/// Applies `operation` to every image for every value and compares with the golden tensor `name` [value,
/// image, y, x, rgb].
fn check(path: &str, file: &TensorFile, name: &str, values: &[f64], operation: impl Fn(f64, &mut [u8])) {
    let (_, images) = file.u8("images").unwrap();
    let (_, want) = file.u8(name).unwrap();
    assert_eq!(want.len(), values.len() * images.len(), "{name}");
    for (v, value) in values.iter().enumerate() {
        for (i, image) in images.chunks_exact(BYTES).enumerate() {
            let mut pixels = image.to_vec();
            operation(*value, &mut pixels);
            let at = (v * images.len() / BYTES + i) * BYTES;
            same(&format!("{path}: {name} value {value} image {i}"), &pixels, &want[at..at + BYTES]);
        }
    }
}

#[test]
fn operations_match_pillow() {
    for (path, file) in golden("augment") {
        let mut checked = 0;
        for (operation, name, range) in OPERATIONS {
            if name == "identity" {
                continue;
            }
            let values = if range.is_some() { file.f64(&format!("value.{name}")).unwrap().1 } else { &[0.0] };
            check(&path, &file, &format!("op.{name}"), values, |value, pixels| {
                OperationParameters::new(operation, value, [SIZE, SIZE]).apply(pixels, SIZE, &mut Vec::new());
            });
            checked += 1;
        }
        assert_eq!(checked, 13);
        let (_, values) = file.f64("value.jitter").unwrap();
        check(&path, &file, "jitter.brightness", values, |f, pixels| colour::brightness(pixels, f as f32));
        check(&path, &file, "jitter.contrast", values, |f, pixels| colour::contrast(pixels, f as f32));
        check(&path, &file, "jitter.saturation", values, |f, pixels| colour::saturation(pixels, f as f32));
        let (_, values) = file.f64("value.hue").unwrap();
        check(&path, &file, "jitter.hue", values, |f, pixels| colour::hue(pixels, colour::hue_shift(f)));
        check(&path, &file, "grayscale", &[0.0], |_, pixels| colour::grayscale(pixels));
        check(&path, &file, "hflip", &[0.0], |_, pixels| flip(pixels, SIZE));
    }
}

#[test]
fn resizes_match_pillow() {
    for (path, file) in golden("augment") {
        let (_, images) = file.u8("images").unwrap();
        let (_, want) = file.u8("resized_crop").unwrap();
        let Values::I32(boxes) = &file.tensors["boxes_top_left_height_width"].1 else { panic!("boxes") };
        let per_box = images.len();
        for (b, frame) in boxes.chunks_exact(4).enumerate() {
            let [top, left, height, width] = [0, 1, 2, 3].map(|i| frame[i] as usize);
            let axes = (Axis::new(width, SIZE), Axis::new(height, SIZE));
            for (i, image) in images.chunks_exact(BYTES).enumerate() {
                let mut out = vec![0; BYTES];
                let crop = Crop { top, left, height, width };
                resize_crop(image, SIZE, crop, [SIZE, SIZE], (&axes.0, &axes.1), &mut Vec::new(), &mut out);
                let want = &want[b * per_box + i * BYTES..][..BYTES];
                same(&format!("{path}: crop {frame:?} of image {i}"), &out, want);
            }
        }
        let (shape, big) = file.u8("big").unwrap();
        let got = resize(big, [shape[0], shape[1]], [128, 128]);
        same(&format!("{path}: big.to128"), &got, file.u8("big.to128").unwrap().1);
    }
}

#[test]
fn cutouts_match_the_reference() {
    for (path, file) in golden("augment") {
        let image = &file.u8("images").unwrap().1[..BYTES];
        let (_, want) = file.u8("cutout").unwrap();
        for (n, case) in file.f64("cutout.size_cx_cy").unwrap().1.chunks_exact(3).enumerate() {
            let mut pixels = image.to_vec();
            if let Some(rectangle) = cutout_rectangle(case[0], [case[1], case[2]], [SIZE, SIZE]) {
                cutout(&mut pixels, SIZE, rectangle);
            }
            same(&format!("{path}: cutout {case:?}"), &pixels, &want[n * BYTES..][..BYTES]);
        }
    }
}
