//! Safetensors files: checkpoints, replay cases, subsets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use records::train::tensor_file::{TensorFile, Values};
use records_fuzz::write_seeds;

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut file = TensorFile::default();
    file.metadata.insert("dataset".into(), "synthetic".into());
    for (name, shape, values) in [
        ("weight", vec![2, 2], Values::F32(vec![0.5; 4])),
        ("index", vec![3], Values::I32(vec![0, 1, 2])),
        ("candidates", vec![1, 3], Values::U8(vec![1, 0, 1])),
    ] {
        file.tensors.insert(name.into(), (shape, values));
    }
    vec![
        ("tensors", file.to_bytes().expect("shapes and values agree")),
        ("none", b"\x02\0\0\0\0\0\0\0{}".to_vec()),
    ]
}

// A file that can be read is written again, and reads the same.
fuzz_target!(init: write_seeds(&seeds()), |bytes: &[u8]| {
    let Ok(file) = TensorFile::from_bytes(bytes) else { return };
    let written = file.to_bytes().unwrap();
    let again = TensorFile::from_bytes(&written).unwrap();
    assert_eq!(again.to_bytes().unwrap(), written);
});
