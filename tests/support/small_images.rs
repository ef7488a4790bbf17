//! A data set of a few small images, for steps that take a moment.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};

/// Ten training images of 8 x 8 pixels and three classes, the first two of which are the test images as well.
pub fn write_small_images(folder: &Path) {
    let (mut train, mut test) = (String::from("path,candidates,label\n"), String::from("path,label\n"));
    for number in 0..10u32 {
        let value =
            |x: u32, y: u32, channel: u32| (((x * 7 + y * 13 + channel * 5) * (number + 3)) % 251) as u8;
        let pixels = |x, y| Rgb([value(x, y, 0), value(x, y, 1), value(x, y, 2)]);
        let name = format!("{number}.png");
        RgbImage::from_fn(8, 8, pixels).save_with_format(folder.join(&name), ImageFormat::Png).unwrap();
        let [label, other] = [number % 3, (number + 1) % 3];
        writeln!(train, "{name},{label}|{other},{label}").unwrap();
        if number < 2 {
            writeln!(test, "{name},{label}").unwrap();
        }
    }
    fs::write(folder.join("train.csv"), train).unwrap();
    fs::write(folder.join("test.csv"), test).unwrap();
}
