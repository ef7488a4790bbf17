//! The command line: one file for each command, without logic of its own.
//!
//! A new command is a file with its arguments and `run`, one line in [`Command`] and one in `dispatch`.

pub mod augment;
pub mod bench;
pub mod data;
mod described_run;
pub mod device;
pub mod disambiguate;
pub mod doctor;
pub mod eval;
pub mod export;
pub mod fetch;
pub mod gpu_check;
pub mod import;
pub mod output;
pub mod parse;
pub mod predict;
pub mod profile;
pub mod progress;
pub mod reference;
pub mod replay;
pub mod report;
pub mod shell;
pub mod study;
pub mod table;
pub mod train;
pub mod tune;
pub mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::error::{exit_code, one_line, stopped};
use crate::settings::{MOST_THREADS, quoted_where_odd};
use crate::usage;

/// Trains image classifiers on long-tailed data whose labels are candidate sets, with RECORDS and its peers
#[derive(Parser, Debug)]
#[command(
    name = "records",
    version,
    after_help = "Exit codes: 0 done, 1 the run failed, 2 bad usage or input, 3 --max-minutes were up, 128+N signal N \
                  stopped it (130 Ctrl-C, 143 SIGTERM)."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Train a network; start with `records train --preset quick`
    Train(Box<train::TrainArguments>),
    /// Evaluate a checkpoint on its test set
    Eval(eval::EvalArguments),
    /// Classes and probabilities of images by a trained network
    Predict(predict::PredictArguments),
    /// Write the labels that a run has made of its candidate sets
    Disambiguate(disambiguate::DisambiguateArguments),
    /// Write a trained network as ONNX, or its weights as safetensors
    Export(export::ExportArguments),
    /// Make a checkpoint of weights of the reference or of PyTorch
    Import(Box<import::ImportArguments>),
    /// Run the grid of a published table of results and show it beside the published numbers
    Table(Box<table::TableArguments>),
    /// Write the report of a run as a page for a browser, or compare several runs
    Report(report::ReportArguments),
    /// Follow a run from another terminal, or from a browser
    Watch(watch::WatchArguments),
    /// Run given steps on given tensors, to check against other engines
    Replay(replay::ReplayArguments),
    /// Show a long-tailed ambiguous training set, write its subset and candidate sets, or fetch a data set
    Data(Box<data::DataArguments>),
    /// Apply an augmentation to an image, or draw a contact sheet of views
    Augment(augment::AugmentArguments),
    /// Measure speed
    Bench(bench::BenchArguments),
    /// Predict what a run takes on a GPU that need not be there: every launch, its limit, the step, the run
    Profile(Box<profile::ProfileArguments>),
    /// Time every tile that a run's convolutions could take on this machine's GPU, for later runs to take the
    /// fastest
    Tune(Box<tune::TuneArguments>),
    /// Run ladders of kernels to learn from: each rung is checked against the CPU and shown with its cost
    Study(study::StudyArguments),
    /// Print completions for a shell
    Completions(shell::CompletionsArguments),
    /// Print the manual page of the program or of one of its commands
    Man(shell::ManArguments),
    /// Show what this machine offers and what is missing
    Doctor(doctor::DoctorArguments),
    /// Check the kernels on this machine's GPU against the CPU, and time them beside PyTorch; start it with
    /// tools/gpu_check
    GpuCheck(gpu_check::GpuCheckArguments),
}

fn dispatch(command: &Command) -> Result<()> {
    match command {
        Command::Train(arguments) => train::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Predict(arguments) => predict::run(arguments),
        Command::Disambiguate(arguments) => disambiguate::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Import(arguments) => import::run(arguments),
        Command::Table(arguments) => table::run(arguments),
        Command::Report(arguments) => report::run(arguments),
        Command::Watch(arguments) => watch::run(arguments),
        Command::Replay(arguments) => replay::run(arguments),
        Command::Data(arguments) => data::run(arguments),
        Command::Augment(arguments) => augment::run(arguments),
        Command::Bench(arguments) => bench::run(arguments),
        Command::Profile(arguments) => profile::run(arguments),
        Command::Tune(arguments) => tune::run(arguments),
        Command::Study(arguments) => study::run(arguments),
        Command::Completions(arguments) => shell::completions(arguments),
        Command::Man(arguments) => shell::man(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::GpuCheck(arguments) => gpu_check::run(arguments),
    }
}

/// Runs the program: parses the arguments, runs one command, turns its error into one line and an exit code.
pub fn main() -> ExitCode {
    let_large_writes_fail();
    crate::data::progress::draw_with(progress::draw);
    crate::train::observed::files::report_with(crate::report::page::maker);
    match run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader (as in `| head`) has closed the pipe.
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, there is nobody to report to.
            let kind = if stopped(&error).is_some() { "" } else { "error: " };
            // In one write, so that lines of several processes do not mix.
            let line = format!("{kind}{}\n", one_line(&error));
            let _ = std::io::stderr().write_all(line.as_bytes());
            ExitCode::from(exit_code(&error))
        }
    }
}

/// A write beyond the limit of file sizes (`ulimit -f`) would end the process by a signal, without a message.
/// With the signal ignored, the write fails as on a full disk.
fn let_large_writes_fail() {
    // SAFETY: no handler is installed, and no other thread runs yet.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Checks the environment variables that decide how many threads decode images; any number in them would be
/// started.
fn check_environment() -> Result<()> {
    for name in ["RAYON_NUM_THREADS", "RAYON_RS_NUM_CPUS"] {
        let Some(value) = std::env::var_os(name) else { continue };
        let threads = value.to_str().and_then(|text| text.parse::<usize>().ok());
        if threads.is_none_or(|threads| threads > MOST_THREADS) {
            let shown = quoted_where_odd(&value.to_string_lossy());
            return Err(usage!("{name} {shown}: must be a whole number from 0 to {MOST_THREADS}"));
        }
    }
    Ok(())
}

fn run(argv: impl IntoIterator<Item = OsString>) -> Result<()> {
    match parse::parse(argv)? {
        parse::Parsed::Text(text) => output::print(&text),
        parse::Parsed::Command(command) => {
            // The doctor works on any machine.
            if !matches!(command, Command::Doctor(_)) {
                check_environment()?;
            }
            dispatch(&command)
        }
    }
}
