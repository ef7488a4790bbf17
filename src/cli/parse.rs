//! From the arguments to a command, or to one line that says what is wrong with them.

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

/// An argument with the hyphens that flags have here: `--batch_size=64` is `--batch-size=64`, and the reference's
/// `-lr_decay_epochs` has two in front. Values stay as they are.
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

/// The command line with what each setting may be and its default added to the help of `train` and `table`.
fn command() -> clap::Command {
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
        // So that -1 and -inf are told what is allowed instead of being taken for flags.
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

/// What the value of a flag may be, to follow "must be": a setting, or another flag of a command that has settings.
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

/// One line for an error of the argument parser; `first` is the first argument.
fn what_is_wrong(error: &clap::Error, first: Option<&OsString>) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    // "--lr <RATE>" and "--mixup[=<BOOL>]" name the flags --lr and --mixup.
    let flag = text(ContextKind::InvalidArg).map(|arg| {
        let name = arg.split([' ', '[', '=']).next().unwrap_or_default();
        quoted_where_odd(if name.is_empty() { &arg } else { name })
    });
    match (error.kind(), flag) {
        (ErrorKind::UnknownArgument, Some(flag)) => {
            let kind = if flag.starts_with('-') { "unknown flag" } else { "not expected here" };
            match text(ContextKind::SuggestedArg) {
                Some(other) => format!("{flag}: {kind}; did you mean {other}?"),
                None => format!("{flag}: {kind}; --help lists what there is"),
            }
        }
        (ErrorKind::InvalidValue | ErrorKind::ValueValidation, Some(flag)) => {
            let value = text(ContextKind::InvalidValue).filter(|value| !value.is_empty());
            match (value, allowed(flag.trim_start_matches('-'))) {
                (Some(value), Some(allowed)) => {
                    format!("{flag} {}: must be {allowed}", quoted_where_odd(&value))
                }
                (Some(value), None) => {
                    format!(
                        "{flag} {}: not a value that is allowed; --help says what is",
                        quoted_where_odd(&value)
                    )
                }
                (None, Some(allowed)) => format!("{flag}: its value is missing; it must be {allowed}"),
                (None, None) => format!("{flag}: its value is missing"),
            }
        }
        (ErrorKind::NoEquals, Some(flag)) => format!("{flag}: write its value behind =, as in {flag}=true"),
        (ErrorKind::TooManyValues | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues, Some(flag)) => {
            format!("{flag}: another number of values is expected; --help says which")
        }
        (ErrorKind::InvalidSubcommand, _) => {
            let word = quoted_where_odd(&text(ContextKind::InvalidSubcommand).unwrap_or_default());
            match text(ContextKind::SuggestedSubcommand) {
                Some(other) => format!("{word}: unknown command; did you mean {other}?"),
                // A word behind a command that has commands of its own.
                None if first.is_some_and(|first| Cli::command().find_subcommand(first).is_some()) => {
                    format!("{word}: not expected here; --help lists what there is")
                }
                None => format!("{word}: unknown command; there are {}", commands()),
            }
        }
        (ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, _) => {
            format!("a command is missing; there are {}; see records --help", commands())
        }
        (ErrorKind::InvalidUtf8, _) => {
            "an argument is not UTF-8; only names of files and folders may be".to_string()
        }
        // Few cases are left; the first paragraph of the parser's own text says what it is.
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
