//! The command line: parses, runs one command, and turns its error into one line and an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    load_kernels_at_once();
    records::cli::main()
}

/// Has CUDA load kernels with their modules: by default recent drivers load one when it is first launched,
/// and some refuse to while launches are recorded. Who sets the variable otherwise is obeyed.
fn load_kernels_at_once() {
    const VARIABLE: &str = "CUDA_MODULE_LOADING";
    if std::env::var_os(VARIABLE).is_none() {
        // SAFETY: no other thread runs yet that could read the environment meanwhile.
        unsafe { std::env::set_var(VARIABLE, "EAGER") };
    }
}
