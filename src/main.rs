//! The command line: parses, runs one command, and turns its error into one line and an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    records::cli::main()
}
