//! WebP, BMP, TIFF and GIF: the pixels of the first image, upright, as Pillow gives them; damage names the
//! file.

mod support {
    pub mod python;
}

use std::fs;
use std::path::Path;

use image::{DynamicImage, ImageFormat, RgbImage, RgbaImage};
use proptest::prelude::*;
use records::data::decode::{decode, decode_bytes};
use support::python::python_with;

/// A picture of few colours, not square, different in every corner.
fn picture() -> RgbImage {
    RgbImage::from_fn(13, 7, |x, y| {
        image::Rgb([(x / 4 * 60) as u8, (y / 3 * 80) as u8, ((x + y) / 8 * 100) as u8])
    })
}

#[test]
fn every_format_gives_its_pixels() {
    let folder = tempfile::tempdir().unwrap();
    for (ending, format) in [
        ("webp", ImageFormat::WebP),
        ("bmp", ImageFormat::Bmp),
        ("tif", ImageFormat::Tiff),
        ("GIF", ImageFormat::Gif),
    ] {
        let path = folder.path().join(format!("a.{ending}"));
        picture().save_with_format(&path, format).unwrap();
        assert!(records::data::decode::has_image_extension(&path));
        assert_eq!(decode(&path).unwrap(), picture(), "{ending}");
        // The name says nothing about the format.
        let other = folder.path().join("misnamed.png");
        fs::copy(&path, &other).unwrap();
        assert_eq!(decode(&other).unwrap(), picture(), "{ending}");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        let error = decode(&path).unwrap_err().to_string();
        assert!(error.contains("not a readable image") && error.contains(&format!("a.{ending}")), "{error}");
    }
}

/// As `convert("RGB")`: what is transparent keeps its colour.
#[test]
fn alpha_is_dropped() {
    let clear = RgbaImage::from_fn(8, 8, |x, y| image::Rgba([x as u8 * 9, y as u8 * 9, 77, (x * 30) as u8]));
    for format in [ImageFormat::WebP, ImageFormat::Tiff, ImageFormat::Bmp] {
        let mut bytes = std::io::Cursor::new(Vec::new());
        clear.write_to(&mut bytes, format).unwrap();
        let expected = RgbImage::from_fn(8, 8, |x, y| image::Rgb([x as u8 * 9, y as u8 * 9, 77]));
        assert_eq!(decode_bytes(bytes.get_ref()).unwrap(), expected, "{format:?}");
    }
}

/// An EXIF chunk behind the pixels of a WebP file turns it upright.
#[test]
fn exif_orientation_is_followed() {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture().write_to(&mut bytes, ImageFormat::WebP).unwrap();
    let plain = bytes.into_inner();
    // A TIFF header, one entry: orientation 6, the camera was turned by a quarter.
    let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut file = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x08\0\0\0".to_vec();
    file.extend([12, 0, 0, 6, 0, 0]);
    file.extend(&plain[12..]);
    file.extend(b"EXIF");
    file.extend((exif.len() as u32).to_le_bytes());
    file.extend(exif);
    let length = (file.len() as u32 - 8).to_le_bytes();
    file[4..8].copy_from_slice(&length);
    let upright = DynamicImage::ImageRgb8(picture()).rotate90().into_rgb8();
    assert_eq!(decode_bytes(&file).unwrap(), upright);
}

#[test]
fn more_than_8_bits_are_refused() {
    let mut bytes = std::io::Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(picture()).to_rgb16().write_to(&mut bytes, ImageFormat::Tiff).unwrap();
    assert!(decode_bytes(bytes.get_ref()).unwrap_err().contains("8 bits"));
    // A header that claims more pixels than memory takes.
    let mut huge = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    huge.extend([0, 64, 0, 0, 0, 64, 0, 0, 1, 0, 24, 0]);
    huge.extend([0; 24]);
    let error = decode_bytes(&huge).unwrap_err();
    assert!(error.contains("16384x16384") && error.contains("MiB"), "{error}");
}

/// A folder with several damaged images says so in one go.
#[test]
fn all_damaged_images_of_a_set_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path();
    for (place, fine) in [
        ("train/a/1.bmp", true),
        ("train/a/2.gif", false),
        ("train/b/1.png", true),
        ("train/b/2.webp", false),
        ("test/a/1.png", true),
        ("test/b/1.jpg", false),
    ] {
        let path = data.join(place);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        picture().save_with_format(&path, ImageFormat::Bmp).unwrap();
        if !fine {
            fs::write(&path, b"nothing").unwrap();
        }
    }
    let error = records::data::registry::folder::load(data, 8).unwrap_err().to_string();
    for part in ["3 of 6 images cannot be read", "train/a/2.gif", "train/b/2.webp", "test/b/1.jpg"] {
        assert!(error.contains(part), "{error}");
    }
    // One alone is said as ever.
    for place in ["train/a/2.gif", "test/b/1.jpg"] {
        fs::copy(data.join("train/a/1.bmp"), data.join(place)).unwrap();
    }
    let error = records::data::registry::folder::load(data, 8).unwrap_err().to_string();
    assert!(error.contains("train/b/2.webp: not a readable image") && !error.contains("of 6"), "{error}");
    fs::remove_file(data.join("train/b/2.webp")).unwrap();
    assert_eq!(records::data::registry::folder::load(data, 8).unwrap().train.len(), 3);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Damage is refused or leaves an image; it never ends the program.
    #[test]
    fn damaged_files_are_refused_or_read(which in 0usize..4, at in any::<prop::sample::Index>(), value in any::<u8>()) {
        let format = [ImageFormat::WebP, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::Gif][which];
        let mut bytes = std::io::Cursor::new(Vec::new());
        picture().write_to(&mut bytes, format).unwrap();
        let mut bytes = bytes.into_inner();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = decode_bytes(&bytes);
    }
}

fn write(folder: &Path, script: &str) -> bool {
    let Some(mut python) = python_with(&["PIL", "numpy"]) else { return false };
    let output = python.args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

/// Files as Pillow writes them, and its own pixels of them.
#[test]
fn pillow_reads_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"
import numpy
from PIL import Image, ImageOps
y, x = numpy.mgrid[0:40, 0:61]
base = Image.fromarray(numpy.stack([x * 4, y * 6, (x * y) % 256], -1).astype('uint8'))
alpha = base.copy(); alpha.putalpha(Image.fromarray((x * 4).astype('uint8')))
exif = Image.Exif(); exif[274] = 8
few = base.quantize(16)
other = base.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
base.save('lossless.webp', lossless=True, exif=exif)
base.save('lossy.webp', quality=80)
alpha.save('alpha.webp', lossless=True, exact=True)
base.save('animated.webp', save_all=True, append_images=[other], lossless=True)
base.save('colour.bmp'); base.convert('L').save('grey.bmp'); few.save('palette.bmp'); base.convert('1').save('one.bmp')
few.save('plain.gif'); few.save('animated.gif', save_all=True, append_images=[other.quantize(16)])
few.save('clear.gif', transparency=3)
base.save('plain.tiff'); base.save('lzw.tiff', compression='tiff_lzw'); base.save('deflate.tif', compression='tiff_adobe_deflate')
base.save('turned.tiff', exif=exif); base.convert('L').save('grey.tiff'); alpha.save('alpha.tiff')
import glob
for name in sorted(glob.glob('*.*')):
    image = ImageOps.exif_transpose(Image.open(name)).convert('RGB')
    open(name + '.rgb', 'wb').write(bytes([image.width, image.height]) + image.tobytes())
"#;
    if !write(folder.path(), script) {
        return;
    }
    let mut compared = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "rgb") {
            continue;
        }
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let image = decode(&path).unwrap_or_else(|error| panic!("{error}"));
        let expected = fs::read(folder.path().join(format!("{name}.rgb"))).unwrap();
        assert_eq!([image.width(), image.height()], [0, 1].map(|at| u32::from(expected[at])), "{name}");
        let most = image.as_raw().iter().zip(&expected[2..]).map(|(a, b)| a.abs_diff(*b)).max();
        // The lossy format fixes no arithmetic for the last step, from YUV to RGB.
        let allowed = if name == "lossy.webp" { 2 } else { 0 };
        assert!(most.unwrap() <= allowed, "{name}: {most:?}");
        compared += 1;
    }
    assert_eq!(compared, 17);
}
