//! Shared by several test files: golden data and comparison.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};

use records::train::tensor_file::TensorFile;

/// The golden files whose names start with `prefix`: those in tests/golden, and those of the full set if it
/// exists (in the folder that RECORDS_GOLDEN names, else ../shared/golden).
///
/// # Panics
/// If there is none, since a test without data proves nothing.
pub fn golden(prefix: &str) -> Vec<(String, TensorFile)> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let full =
        std::env::var_os("RECORDS_GOLDEN").map_or_else(|| manifest.join("../shared/golden"), PathBuf::from);
    let mut files: Vec<PathBuf> = [manifest.join("tests/golden"), full]
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
        .filter(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .is_some_and(|n| n.starts_with(prefix) && n.ends_with(".safetensors"))
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no golden data '{prefix}*'");
    files.into_iter().map(|path| (path.display().to_string(), TensorFile::read(&path).unwrap())).collect()
}

/// The relative error in the 2-norm, |got - want| / |want|, with which golden/README.md compares whole
/// tensors.
pub fn relative_error(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let gap = norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    let size = norm(&mut want.iter().map(|w| f64::from(*w)));
    if size == 0.0 { gap } else { gap / size }
}

/// Fails with the position of the largest difference.
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f64) {
    let error = relative_error(got, want);
    if error <= tolerance {
        return;
    }
    let worst = (0..got.len())
        .max_by(|&a, &b| (got[a] - want[a]).abs().total_cmp(&(got[b] - want[b]).abs()))
        .unwrap_or(0);
    panic!(
        "{what}: relative error {error:.3e} > {tolerance:.1e}; worst at {worst}: {} for {}",
        got[worst], want[worst]
    );
}

/// The golden files' hash fill (golden/README.md): u in [-0.5, 0.5) of element i of tensor t with seed s.
pub fn hash_unit(tensor: u32, element: u32, seed: u32) -> f64 {
    let mut x = element
        .wrapping_mul(2_654_435_761)
        .wrapping_add(tensor.wrapping_mul(40_503))
        .wrapping_add(seed.wrapping_mul(69_069));
    x ^= x >> 16;
    x = x.wrapping_mul(0x85eb_ca6b);
    x ^= x >> 13;
    x = x.wrapping_mul(0xc2b2_ae35);
    x ^= x >> 16;
    f64::from(x) / 4_294_967_296.0 - 0.5
}

/// Values of parameter number `tensor` by the hash fill.
pub fn hash_parameter(name: &str, shape: &[usize], tensor: u32, seed: u32) -> Vec<f32> {
    let scale = |u: f64| {
        if shape.len() == 4 {
            u * 12f64.sqrt() * (2.0 / (shape[0] * shape[2] * shape[3]) as f64).sqrt()
        } else if name.starts_with("fc.") {
            2.0 * u / 512f64.sqrt()
        } else if name.ends_with("weight") {
            1.0 + 0.4 * u
        } else {
            0.4 * u
        }
    };
    let len = shape.iter().product::<usize>() as u32;
    (0..len).map(|element| scale(hash_unit(tensor, element, seed)) as f32).collect()
}
