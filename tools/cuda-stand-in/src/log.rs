//! The log, and what the environment asks for.

use std::ffi::c_int;
use std::io::Write as _;

use crate::code::Code;

/// Writes a call down, where STAND_IN_LOG names a file.
pub fn call(name: &str, captured: bool, detail: &str) {
    let note = if captured { " captured" } else { "" };
    append(&format!("{name}{note} {detail}"));
}

/// Writes down what only this library can say, such as what the interpreter found: into the log, else to
/// standard error.
pub fn note(text: &str) {
    if !append(&format!("note {text}")) {
        eprintln!("cuda-stand-in: {text}");
    }
}

fn append(line: &str) -> bool {
    let Some(path) = std::env::var_os("STAND_IN_LOG") else { return false };
    let log = std::fs::OpenOptions::new().append(true).create(true).open(path);
    log.is_ok_and(|mut log| log.write_all(format!("{line}\n").as_bytes()).is_ok())
}

/// The code that STAND_IN_FAIL=call:code wants of this call.
pub fn failure(name: &str) -> Option<Code> {
    let wanted = std::env::var("STAND_IN_FAIL").ok()?;
    let (call, code) = wanted.split_once(':')?;
    if call == name { code.parse::<c_int>().ok().map(Code) } else { None }
}

/// A number from the environment.
pub fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Whether a switch of the environment is on.
pub fn on(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| value == "1")
}

/// Whether CUDA_MODULE_LOADING has kernels loaded with their modules.
pub fn loads_at_once() -> bool {
    std::env::var_os("CUDA_MODULE_LOADING").is_some_and(|value| value == "EAGER")
}
