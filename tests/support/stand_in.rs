//! Where the stand-in for NVIDIA's driver library lies, for programs that load it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder for LD_LIBRARY_PATH with the stand-in as libcuda.so.1 and libcuda.so, and as libnccl.so.2. Cargo
/// built it, as this test depends on the package tools/cuda-stand-in, beside the test's own program and under
/// another name, which no loader looks for.
pub fn stand_in() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let library = std::env::current_exe().unwrap().with_file_name("libcuda_stand_in.so");
        assert!(library.is_file(), "{} is missing", library.display());
        // A folder a test program, whose tests run in one process.
        let program = std::env::current_exe().unwrap().file_name().unwrap().to_os_string();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cuda-stand-in").join(program);
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["libcuda.so.1", "libcuda.so", "libnccl.so.2"] {
            let link = folder.join(name);
            if link.is_symlink() {
                std::fs::remove_file(&link).unwrap();
            }
            std::os::unix::fs::symlink(&library, link).unwrap();
        }
        folder
    })
}
