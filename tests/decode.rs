//! Images against Pillow's pixels: a matrix of JPEG and PNG layouts made by tools/decode_cases.py, then
//! damage, headers with false claims, and the memory for decoding.

mod support;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;
use records::data::decode::{Fit, decode, decode_square};
use records::data::registry::folder;
use records::error::{UsageError, exit_code, one_line};
use records::train::tensor_file::TensorFile;
use support::golden;
use tempfile::TempDir;

/// A file and Pillow's pixels of it; no pixels if it must be refused.
struct Case {
    name: String,
    file: Vec<u8>,
    height: usize,
    width: usize,
    pixels: Vec<u8>,
}

fn cases() -> Vec<Case> {
    let (_, tensors): (String, TensorFile) = golden("decode_cases").remove(0);
    let bytes = |name: &str| tensors.u8(name).unwrap().1;
    let integers = |name: &str| tensors.i64(name).unwrap().1.iter().map(|&v| v as usize).collect::<Vec<_>>();
    let (sizes, ends) = (integers("heights_widths"), integers("file_ends"));
    let (files, mut pixels, mut start) = (bytes("files"), bytes("pixels"), 0);
    let names = String::from_utf8(bytes("names").to_vec()).unwrap();
    let mut cases = Vec::new();
    for ((name, size), end) in names.lines().zip(sizes.as_chunks::<2>().0).zip(ends) {
        let [height, width] = *size;
        let (own, rest) = pixels.split_at(3 * height * width);
        let (name, file) = (name.to_owned(), files[start..end].to_vec());
        cases.push(Case { name, file, height, width, pixels: own.to_vec() });
        (pixels, start) = (rest, end);
    }
    cases
}

/// The case of that name.
fn case(name: &str) -> Case {
    cases().into_iter().find(|case| case.name.starts_with(name)).unwrap_or_else(|| panic!("no case {name}"))
}

/// Decodes bytes through a file in `folder`.
fn decode_bytes(folder: &TempDir, bytes: &[u8]) -> anyhow::Result<image::RgbImage> {
    let path = folder.path().join("the image");
    fs::write(&path, bytes).unwrap();
    decode(&path)
}

/// Asserts a usage error of one line that names the file, and returns it.
fn refusal(what: &str, result: anyhow::Result<image::RgbImage>) -> String {
    let error = match result {
        Ok(image) => panic!("{what}: was accepted with {}x{} pixels", image.width(), image.height()),
        Err(error) => error,
    };
    assert!(error.is::<UsageError>(), "{what}: {error:?} is no usage error");
    assert_eq!(exit_code(&error), 2, "{what}");
    let text = error.to_string();
    assert!(text.contains("the image"), "{what}: {text:?} does not name the file");
    assert_eq!(text, one_line(&error), "{what}: more than one line");
    text
}

#[test]
fn every_layout_has_pillows_pixels_or_is_refused() {
    let folder = TempDir::new().unwrap();
    let (mut equal, mut refused) = (0, 0);
    for case in cases() {
        let result = decode_bytes(&folder, &case.file);
        if case.pixels.is_empty() {
            refusal(&case.name, result);
            refused += 1;
        } else {
            let image = result.unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let size = [image.height() as usize, image.width() as usize];
            assert_eq!(size, [case.height, case.width], "{}", case.name);
            assert!(*image.as_raw() == case.pixels, "{}: other pixels than Pillow's", case.name);
            equal += 1;
        }
    }
    // The matrix must not shrink unnoticed.
    assert!(equal >= 350 && refused >= 60, "{equal} cases with pixels, {refused} refusals");
}

#[test]
fn refusals_say_what_is_wrong() {
    let folder = TempDir::new().unwrap();
    for (name, part) in [
        ("refuse jpeg of 12 bits", "precision 12"),
        ("refuse jpeg with frame c3", "process: SOF type 0xc3"),
        ("refuse jpeg with frame c9", "arithmetic coding"),
        ("refuse jpeg with frame ca", "arithmetic coding"),
        ("refuse jpeg of two components", "2 colour components"),
        ("refuse jpeg without quantisers", "uantization table"),
        ("refuse jpeg without end marker", "remature end"),
        ("refuse jpeg cut in its only scan, end marker", "premature end"),
        ("refuse jpeg without its last scan", "a colour component has no scan"),
        ("refuse jpeg without its last refinement", "last progressive scans"),
        ("refuse jpeg with a restart marker out of order", "0xd5 instead of RST1"),
        ("refuse png grey, 16 bits", "16-bit grey"),
        ("refuse png without its end", "unexpected end of file"),
        ("refuse png without a palette", "palette"),
        ("refuse text", "no signature of JPEG"),
    ] {
        let text = refusal(name, decode_bytes(&folder, &case(name).file));
        assert!(text.contains(part), "{name}: {text:?} does not say {part:?}");
    }
}

/// A file that is cut anywhere, with or without an end marker after the cut, is refused, unless no pixel was
/// lost, as when only padding was cut.
#[test]
fn what_is_cut_short_is_refused() {
    let folder = TempDir::new().unwrap();
    for name in [
        "jpeg sequential",
        "jpeg with all refinements",
        "jpeg orientation 6",
        "jpeg by Pillow, RGB, 4:2:0",
        "jpeg by Pillow, RGB, 4:2:0, progressive",
        "jpeg by Pillow, CMYK, 4:4:4",
        "png palette, 4 bits, interlaced, 13x9",
        "png rgb, 8 bits, 3x17",
        "png orientation 6 behind the pixels",
    ] {
        let case = case(name);
        let jpeg = name.starts_with("jpeg");
        for length in 0..case.file.len() {
            let cut = &case.file[..length];
            refusal(&format!("{name}, {length} bytes"), decode_bytes(&folder, cut));
            if !jpeg {
                continue;
            }
            match decode_bytes(&folder, &[cut, &[0xff, 0xd9]].concat()) {
                Ok(image) => assert!(
                    *image.as_raw() == case.pixels,
                    "{name}, {length} bytes and an end marker: accepted with other pixels"
                ),
                result => drop(refusal(name, result)),
            }
        }
    }
}

/// A JPEG of `components` whose header claims a size and whose scan holds `data` bytes.
fn claiming_jpeg(width: u16, height: u16, progressive: bool, data: usize) -> Vec<u8> {
    let mut file = case("jpeg by Pillow, RGB, 4:4:4").file;
    if progressive {
        file = case("jpeg by Pillow, RGB, 4:4:4, progressive").file;
    }
    let marker = [0xff, if progressive { 0xc2 } else { 0xc0 }, 0, 17, 8];
    let at = file.windows(5).position(|window| window == marker).unwrap() + 5;
    file[at..at + 2].copy_from_slice(&height.to_be_bytes());
    file[at + 2..at + 4].copy_from_slice(&width.to_be_bytes());
    file.truncate(file.len() - 2);
    file.extend(std::iter::repeat_n(0, data));
    file.extend([0xff, 0xd9]);
    file
}

fn claiming_png(width: u32, height: u32) -> Vec<u8> {
    let mut file = case("png rgb, 8 bits, 3x17").file;
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let mut checksum = flate2::Crc::new();
    checksum.update(&file[12..29]);
    file[29..33].copy_from_slice(&checksum.sum().to_be_bytes());
    file
}

/// A PNG with XMP that a few KB of the file unpack to 64 MiB.
fn png_of_long_text() -> Vec<u8> {
    let mut packed = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(&vec![b'a'; 64 << 20]).unwrap();
    let chunk = [b"zTXtXML:com.adobe.xmp\0\0".as_slice(), &packed.finish().unwrap()].concat();
    let mut checksum = flate2::Crc::new();
    checksum.update(&chunk);
    let length = (chunk.len() - 4) as u32;
    let text = [&length.to_be_bytes(), chunk.as_slice(), &checksum.sum().to_be_bytes()].concat();
    let mut file = case("png rgb, 8 bits, 3x17").file;
    // After the signature and the header.
    file.splice(33..33, text);
    file
}

#[test]
fn sizes_beyond_the_limits_or_the_bytes_are_refused() {
    let folder = TempDir::new().unwrap();
    for (what, file, part) in [
        ("a wide JPEG", claiming_jpeg(16_385, 8, false, 0), "limit is 16384 on each side"),
        ("a high JPEG", claiming_jpeg(8, 65_500, true, 0), "limit is 16384 on each side"),
        ("a large JPEG", claiming_jpeg(16_384, 16_384, false, 0), "limit is 256 MiB"),
        // Three bytes per pixel would fit, but not with two for each coefficient.
        ("a large progressive JPEG", claiming_jpeg(6000, 6000, true, 0), "limit is 256 MiB"),
        ("a JPEG of few bytes", claiming_jpeg(5000, 16_384, false, 500), "too few for 5000x16384"),
        ("a progressive JPEG of few bytes", claiming_jpeg(5000, 5000, true, 500), "too few for 5000x5000"),
        ("a JPEG without height", claiming_jpeg(8, 0, false, 0), "mpty"),
        ("a wide PNG", claiming_png(16_385, 1), "limit is 16384 on each side"),
        ("a large PNG", claiming_png(16_384, 16_384), "limit is 256 MiB"),
        ("a PNG of few bytes", claiming_png(5000, 16_384), "too few for 5000x16384"),
        ("a PNG without height", claiming_png(5, 0), "image dimensions"),
    ] {
        let text = refusal(what, decode_bytes(&folder, &file));
        assert!(text.contains(part), "{what}: {text:?} does not say {part:?}");
    }
}

/// The peak memory of this process in MiB, according to Linux.
#[cfg(target_os = "linux")]
fn peak_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

const CHILD_FILE: &str = "RECORDS_TEST_DECODE_FILE";

/// Runs in its own process, started below, so that the peak is that of one image.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "the child of peak_memory_is_what_the_image_needs"]
fn decode_in_a_child() {
    let path = PathBuf::from(std::env::var_os(CHILD_FILE).expect("started by another test"));
    let mut out = vec![0; 3];
    let before = peak_mib();
    let decoded = decode_square(&path, 1, Fit::Stretched, &mut out).is_ok();
    println!("decoded {decoded} peak {}", peak_mib() - before);
}

/// Whether an image is decoded, and by how many MiB the peak of memory grows.
#[cfg(target_os = "linux")]
fn peak_of(path: &Path) -> (bool, u64) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "decode_in_a_child", "--ignored", "--nocapture"])
        .env(CHILD_FILE, path)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = text.split("decoded ").nth(1).expect("a result").split_whitespace().collect();
    (words[0] == "true", words[2].parse().unwrap())
}

#[cfg(target_os = "linux")]
#[test]
fn peak_memory_is_what_the_image_needs() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("image");
    let grey = |side| {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::new(side, side).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    };
    for (what, file, decoded, most) in [
        ("1 KB that claim 5000x16384", claiming_jpeg(5000, 16_384, false, 500), false, 4),
        ("1 KB that claim 4000x4000 in progressive scans", claiming_jpeg(4000, 4000, true, 500), false, 4),
        // Enough bytes for a claim of 80 million pixels, but no scan with them: only the pixels that are read
        // are touched.
        ("2 MB that claim 5000x16384", claiming_jpeg(5000, 16_384, false, 2_000_000), false, 250),
        ("a PNG that claims 5000x16384", claiming_png(5000, 16_384), false, 4),
        ("a PNG whose text unpacks to 64 MiB", png_of_long_text(), true, 8),
        // 48 MiB of pixels, 1 MiB of file; resizing to one pixel takes little.
        ("4096x4096 pixels", grey(4096), true, 56),
        // 192 MiB of pixels: below the limit of 256.
        ("8192x8192 pixels", grey(8192), true, 215),
    ] {
        fs::write(&path, file).unwrap();
        let (was_decoded, peak) = peak_of(&path);
        assert_eq!(was_decoded, decoded, "{what}");
        assert!(peak <= most, "{what}: {peak} MiB, at most {most} are needed");
    }
}

/// Class folders use the same decoder: images are upright, whatever their extension.
#[test]
fn folders_follow_orientation_and_content() {
    let folder = TempDir::new().unwrap();
    let (turned, png) = (case("jpeg orientation 6"), case("png rgb, 8 bits, 13x9"));
    for place in ["train/a", "train/b", "test/a", "test/b"] {
        fs::create_dir_all(folder.path().join(place)).unwrap();
        fs::write(folder.path().join(place).join("named.png"), &turned.file).unwrap();
        fs::write(folder.path().join(place).join("other.jpg"), &png.file).unwrap();
    }
    let source = folder::load(folder.path(), 8).unwrap();
    for (i, case) in [(0, &turned), (1, &png)] {
        let expected =
            records::data::augment::resize::resize(&case.pixels, [case.height, case.width], [8, 8]);
        assert_eq!(source.train.image(i), expected, "{}", case.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes replaced, removed or inserted anywhere give an image or a refusal.
    #[test]
    fn damaged_files_never_panic(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        removed in 0usize..20,
        bytes in proptest::collection::vec(any::<u8>(), 0..8),
    ) {
        static CASES: std::sync::LazyLock<Vec<Case>> = std::sync::LazyLock::new(cases);
        let folder = TempDir::new().unwrap();
        let case = &CASES[which.index(CASES.len())];
        let mut file = case.file.clone();
        let at = at.index(file.len() + 1);
        file.splice(at..(at + removed).min(case.file.len()), bytes);
        match decode_bytes(&folder, &file) {
            Ok(image) => prop_assert_eq!(image.as_raw().len(), (3 * image.width() * image.height()) as usize),
            result => drop(refusal(&case.name, result)),
        }
    }

    #[test]
    fn random_bytes_behind_a_signature_are_refused(
        png: bool,
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let folder = TempDir::new().unwrap();
        let signature: &[u8] = if png { b"\x89PNG\r\n\x1a\n" } else { &[0xff, 0xd8, 0xff] };
        refusal("random", decode_bytes(&folder, &[signature, &bytes].concat()));
    }
}
