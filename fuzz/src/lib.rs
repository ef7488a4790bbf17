//! Shared by the targets: the files with which a fuzzer begins, and a folder for loaders that read files.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

/// Writes the initial files into the folder that `RECORDS_FUZZ_SEEDS` names, if it is set.
pub fn write_seeds(seeds: &[(&str, Vec<u8>)]) {
    let Some(folder) = std::env::var_os("RECORDS_FUZZ_SEEDS").map(PathBuf::from) else { return };
    for (name, bytes) in seeds {
        fs::write(folder.join(name), bytes).expect("seeds can be written");
    }
}

/// A folder, in main memory if possible, for a loader that reads files.
pub fn scratch() -> TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a folder can be made")
}
