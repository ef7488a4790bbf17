//! Where the stand-in for NVIDIA's driver library lies, for programs that load it.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

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

/// A kernel cache in `folder` for a program that measures times, which it keeps there: with what is compiled
/// already, so that nothing is compiled again, but without the times of others.
#[allow(dead_code, reason = "not all tests measure")]
pub fn kernel_cache(folder: &Path) -> PathBuf {
    use std::os::unix::fs::DirBuilderExt as _;
    static COMPILED: OnceLock<()> = OnceLock::new();
    // Once for all tests of a program.
    COMPILED.get_or_init(|| {
        let mut train = std::process::Command::new(env!("CARGO_BIN_EXE_records"));
        train.args(["train", "--preset=tiny", "--epochs=1", "--device=cuda"]).current_dir(folder);
        train.args(["--exp-dir=compiled", "--name=compiled"]).env("LD_LIBRARY_PATH", stand_in());
        let output = train.envs([("RECORDS_GPU_CODE", "ptx"), ("STAND_IN_SKIP", "1")]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    });
    let cache = folder.join("kernels");
    std::fs::DirBuilder::new().mode(0o700).create(&cache).unwrap();
    let given = std::env::var_os("RECORDS_KERNEL_CACHE").map(PathBuf::from);
    let shared = given.or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/records/kernels")));
    let compiled = shared.and_then(|shared| std::fs::read_dir(shared).ok()).into_iter().flatten().flatten();
    for entry in compiled.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "bin")) {
        std::fs::copy(entry.path(), cache.join(entry.file_name())).unwrap();
    }
    cache
}

/// A kernel with its grid that the model takes in a step, and one that is taken instead since tiles were
/// timed, of what `records tune` prints as JSON.
#[allow(dead_code, reason = "not all tests measure")]
pub fn taken_since(tuned: &Value) -> (String, String) {
    let choices = tuned["choices"].as_array().unwrap();
    let kernel = |choice: &Value, by: &str| choice[by]["kernel"].as_str().unwrap().to_string();
    let is_taken = |by: &str, wanted: &str| choices.iter().any(|choice| kernel(choice, by) == wanted);
    let step = choices.iter().filter(|choice| choice["part"] == "step");
    let mut changed = step.map(|choice| (kernel(choice, "model"), kernel(choice, "tuned")));
    let found = changed.find(|(model, tuned)| !is_taken("model", tuned) && !is_taken("tuned", model));
    found.unwrap_or_else(|| panic!("the stand-in's times change nothing: {tuned:#}"))
}

/// Whether a kernel with its grid, as `records tune` shows it, is among calls that are captured.
#[allow(dead_code, reason = "not all tests measure")]
pub fn is_launched(calls: &str, kernel: &str) -> bool {
    let (name, grid) = kernel.split_once(' ').unwrap();
    let grid = grid.split(' ').next().unwrap();
    let wanted = format!("convolution_{name} {grid} ");
    calls.lines().any(|line| line.starts_with("cuLaunchKernel captured") && line.contains(&wanted))
}
