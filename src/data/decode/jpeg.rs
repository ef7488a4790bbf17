//! JPEG by libjpeg, with its slow integer transform and smooth colour upsampling, so that pixels equal
//! Pillow's bit for bit.

use std::ffi::{CStr, c_char, c_int};
use std::marker::PhantomData;
use std::ptr::NonNull;

// Links libjpeg, which libjpeg.c calls.
use mozjpeg_sys as _;

use super::orientation::{self, Orientation};
use super::{Decoded, Problem, check_size, pixel_buffer};

/// The first bytes of a JPEG file.
pub const SIGNATURE: &[u8] = &[0xff, 0xd8, 0xff];

/// `struct records_jpeg` of libjpeg.c.
#[repr(C)]
struct Handle {
    _opaque: [u8; 0],
}

/// `struct records_jpeg_header` of libjpeg.c.
#[repr(C)]
#[derive(Default)]
struct Header {
    width: u32,
    height: u32,
    components: u32,
    progressive: u32,
    arithmetic: u32,
    blocks: u64,
    working_bytes: u64,
}

unsafe extern "C" {
    fn records_jpeg_open(bytes: *const u8, length: usize) -> Option<NonNull<Handle>>;
    fn records_jpeg_close(jpeg: NonNull<Handle>);
    fn records_jpeg_message(jpeg: NonNull<Handle>) -> *const c_char;
    fn records_jpeg_read_header(jpeg: NonNull<Handle>, header: *mut Header) -> c_int;
    fn records_jpeg_start(jpeg: NonNull<Handle>, colours: u32) -> c_int;
    fn records_jpeg_read_row(jpeg: NonNull<Handle>, row: *mut u8) -> c_int;
    fn records_jpeg_finish(jpeg: NonNull<Handle>) -> c_int;
}

/// A file being decoded. After an error it can only be dropped.
struct Decoder<'a> {
    handle: NonNull<Handle>,
    bytes: PhantomData<&'a [u8]>,
}

impl Drop for Decoder<'_> {
    fn drop(&mut self) {
        // SAFETY: the handle came from records_jpeg_open and is closed once.
        unsafe { records_jpeg_close(self.handle) }
    }
}

impl<'a> Decoder<'a> {
    fn open(bytes: &'a [u8]) -> Result<Self, Problem> {
        // SAFETY: the slice outlives the handle by the lifetime of Self.
        let handle = unsafe { records_jpeg_open(bytes.as_ptr(), bytes.len()) };
        Ok(Self { handle: handle.ok_or("no memory to decode it")?, bytes: PhantomData })
    }

    /// The result of a call: 1 is success; otherwise the error is libjpeg's message.
    fn check(&self, status: c_int) -> Result<(), Problem> {
        if status == 1 {
            return Ok(());
        }
        // SAFETY: the message is part of the handle and ends in a zero.
        let message = unsafe { CStr::from_ptr(records_jpeg_message(self.handle)) };
        Err(message.to_string_lossy().into_owned())
    }

    fn read_header(&mut self) -> Result<Header, Problem> {
        let mut header = Header::default();
        // SAFETY: the handle is open, the header is of the declared layout.
        self.check(unsafe { records_jpeg_read_header(self.handle, &mut header) })?;
        Ok(header)
    }

    fn start(&mut self, colours: u32) -> Result<(), Problem> {
        // SAFETY: the handle is open.
        self.check(unsafe { records_jpeg_start(self.handle, colours) })
    }

    /// `row` has the image's width times the colours that [`Self::start`] was called with.
    fn read_row(&mut self, row: &mut [u8]) -> Result<(), Problem> {
        // SAFETY: the row is as long as libjpeg writes, which start has checked against the number of
        // colours.
        self.check(unsafe { records_jpeg_read_row(self.handle, row.as_mut_ptr()) })
    }

    fn finish(&mut self) -> Result<(), Problem> {
        // SAFETY: the handle is open.
        self.check(unsafe { records_jpeg_finish(self.handle) })
    }
}

/// Decodes the first image of a file.
///
/// # Errors
/// What is wrong with the file, or not supported.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Problem> {
    let mut decoder = Decoder::open(bytes)?;
    let header = decoder.read_header()?;
    let orientation = orientation_of(bytes);
    check_header(&header, bytes.len(), orientation)?;
    let colours = if header.components == 4 { 4 } else { 3 };
    decoder.start(colours)?;
    let (width, height) = (header.width as usize, header.height as usize);
    let mut pixels = pixel_buffer(width, height)?;
    let mut cmyk = vec![0; if colours == 4 { 4 * width } else { 0 }];
    for row in pixels.chunks_exact_mut(3 * width) {
        if colours == 4 {
            decoder.read_row(&mut cmyk)?;
            rgb_of_cmyk(&cmyk, row);
        } else {
            decoder.read_row(row)?;
        }
    }
    decoder.finish()?;
    Ok(Decoded { width: header.width, height: header.height, pixels, orientation })
}

/// Refuses files that are not supported, and sizes for which the file has too few bytes.
fn check_header(header: &Header, file_bytes: usize, orientation: Orientation) -> Result<(), Problem> {
    if !matches!(header.components, 1 | 3 | 4) {
        return Err(format!("{} colour components; 1, 3 or 4 are supported", header.components));
    }
    if header.arithmetic != 0 {
        return Err("arithmetic coding is not supported".into());
    }
    check_size(header.width, header.height, file_bytes as u64 + header.working_bytes, orientation)?;
    // A block takes one bit for its mean and, unless a progressive run skips it, one bit for the rest.
    let least_bits = header.blocks * if header.progressive != 0 { 1 } else { 2 };
    if least_bits > 8 * file_bytes as u64 {
        return Err(format!(
            "cut short: {file_bytes} bytes are too few for {}x{} pixels",
            header.width, header.height
        ));
    }
    Ok(())
}

/// A row of CMYK as Pillow's RGB; files hold CMYK inverted, 255 is no ink.
fn rgb_of_cmyk(cmyk: &[u8], rgb: &mut [u8]) {
    for (&[c, m, y, k], rgb) in cmyk.as_chunks::<4>().0.iter().zip(rgb.as_chunks_mut::<3>().0) {
        *rgb = [c, m, y].map(|light| {
            let k = u32::from(k);
            let product = (255 - u32::from(light)) * k + 128;
            // The product over 255, rounded; at most k.
            k.saturating_sub((product + (product >> 8)) >> 8) as u8
        });
    }
}

/// The orientation in the metadata before the first scan.
fn orientation_of(bytes: &[u8]) -> Orientation {
    const XMP: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
    const EXIF: &[u8] = b"Exif\0\0";
    let (mut exif, mut xmp) = (Vec::new(), None);
    for segment in app1_segments(bytes) {
        if let Some(part) = segment.strip_prefix(EXIF) {
            exif.extend_from_slice(part);
        } else if let Some(packet) = segment.strip_prefix(XMP) {
            xmp = Some(packet);
        }
    }
    orientation::of_metadata(&exif, xmp.unwrap_or_default())
}

/// The contents of the APP1 segments before the first scan, as far as they are inside the file.
fn app1_segments(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    const APP1: u8 = 0xe1;
    const START_OF_SCAN: u8 = 0xda;
    // After the start-of-image marker.
    let mut at = 2;
    std::iter::from_fn(move || {
        loop {
            at += next_marker(bytes.get(at..)?)?;
            match bytes[at - 1] {
                START_OF_SCAN => return None,
                // Start of image, TEM and restart markers have no length.
                0x01 | 0xd0..=0xd8 => {}
                marker => {
                    let length = bytes.get(at..at + 2)?;
                    let end = at + usize::from(u16::from_be_bytes([length[0], length[1]]));
                    let segment = bytes.get(at + 2..end)?;
                    at = end;
                    if marker == APP1 {
                        return Some(segment);
                    }
                }
            }
        }
    })
}

/// Number of bytes up to and including the next marker; stuffed zeros and fill bytes are not markers.
fn next_marker(bytes: &[u8]) -> Option<usize> {
    bytes.windows(2).position(|pair| pair[0] == 0xff && !matches!(pair[1], 0x00 | 0xff)).map(|at| at + 2)
}
