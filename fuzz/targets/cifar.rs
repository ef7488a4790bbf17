//! CIFAR's binary files: records with labels and planes.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use records::data::registry::cifar::{load_cifar10, load_cifar100};
use records_fuzz::{scratch, write_seeds};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(scratch);

/// A record with a single grey level after its label bytes.
fn record(labels: &[u8], level: u8) -> Vec<u8> {
    [labels, &[level; 3072]].concat()
}

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let ten: Vec<u8> = (0..10).flat_map(|label| record(&[label], label)).collect();
    vec![("one", record(&[3], 9)), ("ten", ten), ("fine", record(&[4, 99], 9)), ("empty", Vec::new())]
}

// The bytes are used for every file of CIFAR-10 and for the training file of CIFAR-100.
fuzz_target!(init: write_seeds(&seeds()), |bytes: &[u8]| {
    let folder = FOLDER.path();
    for i in 1..=5 {
        fs::write(folder.join(format!("data_batch_{i}.bin")), bytes).unwrap();
    }
    for name in ["test_batch.bin", "train.bin", "test.bin"] {
        fs::write(folder.join(name), bytes).unwrap();
    }
    fs::write(folder.join("fine_label_names.txt"), bytes).unwrap();
    if let Ok(source) = load_cifar10(folder) {
        assert_eq!(source.train.images.len(), source.train.len() * 3072);
        assert!(source.train.labels.iter().all(|&label| label < 10));
    }
    let _ = load_cifar100(folder);
});
