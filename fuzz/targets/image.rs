//! JPEG, PNG, WebP, BMP, TIFF and GIF.
#![no_main]

use std::io::Cursor;

use image::{DynamicImage, ImageFormat, RgbImage};
use libfuzzer_sys::fuzz_target;
use records::data::decode::decode_bytes;
use records_fuzz::write_seeds;

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let rgb = RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8 * 28, y as u8 * 36, 99]));
    let rgb = DynamicImage::from(rgb);
    let gray = DynamicImage::from(rgb.to_luma8());
    let encoded = |image: &DynamicImage, format| {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).expect("a Vec takes all");
        bytes.into_inner()
    };
    let (png, jpeg) = (ImageFormat::Png, ImageFormat::Jpeg);
    vec![
        ("rgb.png", encoded(&rgb, png)),
        ("gray.png", encoded(&gray, png)),
        ("rgba.png", encoded(&DynamicImage::from(rgb.to_rgba8()), png)),
        ("deep.png", encoded(&DynamicImage::from(rgb.to_rgb16()), png)),
        ("rgb.jpg", encoded(&rgb, jpeg)),
        ("gray.jpg", encoded(&gray, jpeg)),
        ("rgb.webp", encoded(&rgb, ImageFormat::WebP)),
        ("rgb.bmp", encoded(&rgb, ImageFormat::Bmp)),
        ("gray.tiff", encoded(&gray, ImageFormat::Tiff)),
        ("rgb.gif", encoded(&rgb, ImageFormat::Gif)),
    ]
}

fuzz_target!(init: write_seeds(&seeds()), |bytes: &[u8]| {
    if let Ok(image) = decode_bytes(bytes) {
        assert_eq!(image.as_raw().len(), 3 * image.width() as usize * image.height() as usize);
    }
});
