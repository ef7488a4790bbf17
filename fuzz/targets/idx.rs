//! IDX files, plain and gzip.
#![no_main]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use libfuzzer_sys::fuzz_target;
use records::data::registry::idx::IdxItems;
use records_fuzz::write_seeds;

const IMAGES: IdxItems = IdxItems { item: &[4, 4], most: 60_000 };
const LABELS: IdxItems = IdxItems { item: &[], most: 60_000 };

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("a Vec takes all")
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let images = [&[0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0, 4][..], &[7; 32]].concat();
    let labels = vec![0, 0, 8, 1, 0, 0, 0, 3, 0, 1, 9];
    vec![("images.gz", gzip(&images)), ("labels.gz", gzip(&labels)), ("images", images), ("labels", labels)]
}

fuzz_target!(init: write_seeds(&seeds()), |bytes: &[u8]| {
    for (values, item) in [(IMAGES, 16), (LABELS, 1)] {
        if let Ok(found) = values.read(bytes) {
            assert!(found.len() % item == 0 && (item..=60_000 * item).contains(&found.len()));
        }
    }
});
