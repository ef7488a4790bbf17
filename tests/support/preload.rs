//! Programs whose disk or clock is at fault.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The library that makes the disk fail.
fn failing_disk() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("libfailing_disk.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/failing_disk.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition", "2024", "--crate-type", "cdylib", "-o"]).arg(&library).arg(&source);
        let built = command.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        library
    })
}

/// With faults: see tests/support/failing_disk.rs.
pub fn failing<'a>(command: &'a mut Command, how: &[(&str, &str)]) -> &'a mut Command {
    command.env("LD_PRELOAD", failing_disk()).env("FAIL_UNDER", "runs/a").envs(how.iter().copied())
}
