//! `ptx-sim`: runs or lists the kernels of a PTX file.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
