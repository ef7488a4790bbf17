//! Parses the arguments into a command, or into one line that says what is wrong with them.

use std::any::TypeId;
use std::ffi::OsString;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches};

use super::{Cli, Command, reference, table};
use crate::settings::written::flag_value;
use crate::settings::{self, Settings, quoted_where_odd};
use crate::train::grid::{Benchmark, ROWS};
use crate::usage;

/// What the arguments ask for.
#[derive(Debug)]
pub enum Parsed {
    /// A command to run.
    Command(Command),
    /// Help or the version, to print.
    Text(String),
}

/// Parses the arguments, the program's name first.
///
/// # Errors
/// A usage error of one line: flag, value and what is allowed.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Parsed> {
    let argv: Vec<OsString> = argv.into_iter().map(with_hyphens).collect();
    let parsed = command().try_get_matches_from(&argv).and_then(|matches| Cli::from_arg_matches(&matches));
    match parsed {
        Ok(cli) => Ok(Parsed::Command(cli.command)),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Parsed::Text(error.render().to_string()))
        }
        Err(error) => Err(usage!("{}", what_is_wrong(&error, argv.get(1)))),
    }
}

/// The argument in this program's spelling: `--batch_size=64` becomes `--batch-size=64`, and the reference's
/// `-lr_decay_epochs` gets its second hyphen. Values stay as they are.
fn with_hyphens(argument: OsString) -> OsString {
    let Some(text) = argument.to_str() else {
        return argument;
    };
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let mut name = match name {
        "-lr_decay_epochs" | "-lr-decay-epochs" | "-lr_decay_rate" | "-lr-decay-rate" => format!("-{name}"),
        _ if name.starts_with("--") => name.to_string(),
        _ => return argument,
    };
    name = name.replace('_', "-");
    match value {
        Some(value) => format!("{name}={value}").into(),
        None => name.into(),
    }
}

/// The command line, where the help of `train` and `table` also gives the allowed values and the default of
/// each setting.
pub(super) fn command() -> clap::Command {
    let defaults = |settings: &Settings| toml::Table::try_from(settings).unwrap_or_default();
    let of_train = defaults(&Settings::default());
    let mut of_table = defaults(&Benchmark::Cifar10.published_settings(&ROWS[0]));
    for (name, default) in [("dataset", "DATA"), ("exp-dir", "runs/table-DATA")] {
        of_table.insert(name.into(), default.into());
    }
    let not_taken = table::not_taken();
    // As in the reference trainer, the last of repeated flags counts.
    let overriding = |command: clap::Command| command.args_override_self(true);
    Cli::command()
        .mut_subcommands(overriding)
        .mut_subcommand("train", |train| train.mut_args(|argument| with_help_of_setting(argument, &of_train)))
        .mut_subcommand("table", |table| {
            table.mut_args(|argument| {
                let is_taken = !not_taken.iter().any(|(name, _)| argument.get_long() == Some(name));
                with_help_of_setting(argument, &of_table).hide(!is_taken)
            })
        })
}

fn with_help_of_setting(argument: clap::Arg, defaults: &toml::Table) -> clap::Arg {
    let Some(name) = argument.get_long().map(str::to_string) else {
        return argument;
    };
    let mut argument = argument;
    if takes_number(&argument) {
        // -1 and -inf are then refused as values, with what is allowed, and not as unknown flags.
        argument = argument.allow_hyphen_values(true);
    }
    let mut help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    if let Some(allowed) = allowed(&name).filter(|allowed| allowed != "a folder") {
        help.push_str(&format!(" ({allowed})"));
    }
    if let Some(default) = defaults.get(&name) {
        help.push_str(&format!(" [default: {}]", flag_value(default)));
    }
    argument.help(help)
}

/// The allowed values of a flag, in words that follow "must be"; the flag is a setting or belongs to a
/// command that has settings.
pub fn allowed(flag: &str) -> Option<String> {
    let of_reference = || reference::ALLOWED.iter().find(|(name, _)| *name == flag);
    settings::allowed(flag)
        .or_else(|| table::allowed(flag))
        .or_else(|| of_reference().map(|(_, allowed)| (*allowed).into()))
}

fn takes_number(argument: &clap::Arg) -> bool {
    let kind = argument.get_value_parser().type_id();
    [TypeId::of::<f64>(), TypeId::of::<usize>(), TypeId::of::<u64>(), TypeId::of::<u32>()]
        .iter()
        .any(|n| kind == *n)
}

/// What the argument parser says of an error under `kind`.
fn context(error: &clap::Error, kind: ContextKind) -> Option<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    }
}

/// One line for an argument that the command does not have.
fn unknown_argument(error: &clap::Error, flag: &str) -> String {
    let kind = if flag.starts_with('-') { "unknown flag" } else { "not expected here" };
    match context(error, ContextKind::SuggestedArg) {
        Some(other) => format!("{flag}: {kind}; did you mean {other}?"),
        None => format!("{flag}: {kind}; --help lists what there is"),
    }
}

/// One line for a flag whose value is missing or not allowed.
fn bad_value(error: &clap::Error, flag: &str) -> String {
    let value = context(error, ContextKind::InvalidValue).filter(|value| !value.is_empty());
    match (value.as_deref().map(quoted_where_odd), allowed(flag.trim_start_matches('-'))) {
        (Some(value), Some(allowed)) => format!("{flag} {value}: must be {allowed}"),
        (Some(value), None) => format!("{flag} {value}: not an allowed value; --help says what is allowed"),
        (None, Some(allowed)) => format!("{flag}: its value is missing; it must be {allowed}"),
        (None, None) => format!("{flag}: its value is missing"),
    }
}

/// One line for a word that is not a command; `first` is the first argument.
fn unknown_command(error: &clap::Error, first: Option<&OsString>) -> String {
    let word = quoted_where_odd(&context(error, ContextKind::InvalidSubcommand).unwrap_or_default());
    match context(error, ContextKind::SuggestedSubcommand) {
        Some(other) => format!("{word}: unknown command; did you mean {other}?"),
        // The first argument is a command with subcommands, and the word is none of them.
        None if first.is_some_and(|first| Cli::command().find_subcommand(first).is_some()) => {
            format!("{word}: not expected here; --help lists what there is")
        }
        None => format!("{word}: unknown command; there are {}", commands()),
    }
}

/// One line for an error of the argument parser; `first` is the first argument.
fn what_is_wrong(error: &clap::Error, first: Option<&OsString>) -> String {
    // "--lr <RATE>" and "--mixup[=<BOOL>]" name the flags --lr and --mixup.
    let flag = context(error, ContextKind::InvalidArg).map(|arg| {
        let name = arg.split([' ', '[', '=']).next().unwrap_or_default();
        quoted_where_odd(if name.is_empty() { &arg } else { name })
    });
    match (error.kind(), flag) {
        (ErrorKind::UnknownArgument, Some(flag)) => unknown_argument(error, &flag),
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some(flag)) => bad_value(error, &flag),
        (ErrorKind::NoEquals, Some(flag)) => format!("{flag}: write its value behind =, as in {flag}=true"),
        (ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues, Some(flag)) => {
            format!("{flag}: wrong number of values; --help says how many it takes")
        }
        (ErrorKind::InvalidSubcommand, _) => unknown_command(error, first),
        (ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => {
            format!("a command is missing; there are {}; see records --help", commands())
        }
        (ErrorKind::InvalidUtf8, _) => {
            "an argument is not UTF-8; only names of files and folders may be other than UTF-8".to_string()
        }
        // For the few other errors, the first paragraph of the parser's own text on one line.
        _ => {
            let text = error.render().to_string();
            let lines = text.lines().take_while(|line| !line.is_empty()).map(str::trim);
            lines.collect::<Vec<_>>().join(" ").trim_start_matches("error: ").to_string()
        }
    }
}

fn commands() -> String {
    let command = Cli::command();
    command.get_subcommands().map(clap::Command::get_name).collect::<Vec<_>>().join(", ")
}
