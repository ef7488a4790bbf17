//! The kernel tests under NVIDIA's compute-sanitizer, where it is installed: accesses out of bounds, and what
//! warps do to each other's shared memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::Check;
use super::programs::{End, cuda_tool};

/// Its tools, and seconds for each. A test takes tens of times as long, so what is reached by then counts.
const TOOLS: [(&str, u64); 3] = [("memcheck", 60), ("racecheck", 60), ("synccheck", 30)];
/// The exit status where it finds something.
const FOUND: i32 = 99;

/// Runs the kernel tests under each tool; null where there is none.
pub fn check(check: &mut Check<'_>, programs: &[PathBuf]) -> Value {
    let Some(sanitizer) = cuda_tool("compute-sanitizer") else {
        super::note("no compute-sanitizer, so the tests were not run under it");
        return Value::Null;
    };
    let is_kernels = |program: &&PathBuf| program.file_name().is_some_and(|name| name == "test-kernels");
    let Some(program) = programs.iter().find(is_kernels).or(programs.first()) else { return Value::Null };
    TOOLS.iter().map(|&(tool, most)| under(check, &sanitizer, program, tool, most)).collect()
}

fn under(check: &mut Check<'_>, sanitizer: &Path, program: &Path, tool: &str, most: u64) -> Value {
    let mut command = Command::new(sanitizer);
    command.args(["--tool", tool, "--error-exitcode", &FOUND.to_string()]).arg(program);
    command.args(["--test-threads", "1"]).env("RECORDS_TEST_DEVICE", "cuda");
    let outcome = match check.run(command, most) {
        Ok(outcome) => outcome,
        Err(error) => return check.failure(&format!("compute-sanitizer's {tool}"), &error),
    };
    // The machine may not let it look at the GPU; then nothing is known.
    let refused =
        outcome.end == End::Failed && outcome.status != Some(FOUND) && !outcome.out.contains("test result");
    let found = outcome.status == Some(FOUND) || (outcome.end == End::Failed && !refused);
    if found {
        check.failed.push(format!("compute-sanitizer's {tool}"));
    }
    let tests = outcome.out.matches("... ok").count();
    super::note(&format!(
        "compute-sanitizer's {tool}: {tests} tests, {}",
        match (found, refused, outcome.end) {
            (true, ..) => "something was found",
            (_, true, _) => "it could not run",
            (.., End::TimedOut) => "nothing found before its time was up",
            _ => "nothing found",
        }
    ));
    json!({
        "tool": tool,
        "found": found,
        "ran": !refused,
        "done": outcome.end != End::TimedOut && !refused,
        "tests_passed": tests,
        "seconds": outcome.seconds,
        "log": outcome.tail(),
    })
}
