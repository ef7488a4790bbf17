//! The command line.

mod file;
mod list;
mod report;
mod run;
mod spec;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs the PTX that NVRTC emits on the CPU, checks its memory and synchronisation, and counts what it costs.
#[derive(Parser)]
#[command(name = "ptx-sim", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a kernel. Exit code 0: clean, 3: something was found, 2: bad usage or input, 1: anything else
    Run(run::Run),
    /// List the kernels of a file with their parameters, registers and memory
    List(list::List),
}

/// What ends the program early.
pub enum Failure {
    /// Bad usage or input: exit code 2.
    Usage(String),
    /// Anything else: exit code 1.
    Other(String),
}

impl Failure {
    fn usage(message: impl fmt::Display) -> Self {
        Self::Usage(message.to_string())
    }
}

/// Reads the arguments, runs the command, and says how it went.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let result = match arguments.command {
        Command::Run(run) => run.execute(),
        Command::List(list) => list.execute(),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(Failure::Usage(message)) => {
            eprintln!("error: {}", printable(&message));
            ExitCode::from(2)
        }
        Err(Failure::Other(message)) => {
            eprintln!("error: {}", printable(&message));
            ExitCode::from(1)
        }
    }
}

/// A message without control characters: what it quotes from a file must not steer the terminal.
fn printable(message: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    message.chars().map(shown).collect()
}

/// Writes to standard output; a reader that went away is not an error.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write as _;
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::Other(format!("cannot write to standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn program(path: &std::path::Path) -> Result<ptx_sim::Program, Failure> {
    let shown = path.display();
    let bytes = file::read(path, file::MOST_PTX).map_err(Failure::usage)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::usage(format!("{shown}: not text; give PTX, not a cubin")))?;
    ptx_sim::Program::parse(&text).map_err(|error| Failure::usage(format!("{shown}: {error}")))
}
