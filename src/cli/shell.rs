//! `records completions` and `records man`: made of the definitions of the commands.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use super::{output, parse};
use crate::settings::quoted_where_odd;
use crate::usage;

/// Arguments of `records completions`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "bash: records completions bash > ~/.local/share/bash-completion/completions/records\nfish: records completions \
                  fish > ~/.config/fish/completions/records.fish\nzsh: into a file _records in a folder of $fpath"
)]
pub struct CompletionsArguments {
    /// bash, zsh, fish, elvish or powershell
    #[arg(value_name = "SHELL")]
    shell: String,
}

/// Arguments of `records man`.
#[derive(Args, Clone, Debug)]
#[command(after_help = "records man | man -l -   shows it; records man train > records-train.1   keeps one")]
pub struct ManArguments {
    /// The command to describe; without it, the program
    #[arg(value_name = "COMMAND")]
    command: Option<String>,
}

/// Runs `records completions`.
///
/// # Errors
/// A usage error for an unknown shell.
pub fn completions(arguments: &CompletionsArguments) -> Result<()> {
    let shell = arguments.shell.parse::<Shell>().map_err(|_| {
        let shell = quoted_where_odd(&arguments.shell);
        usage!("completions {shell}: must be bash, zsh, fish, elvish or powershell")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut parse::command(), "records", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

/// Runs `records man`.
///
/// # Errors
/// A usage error for an unknown command.
pub fn man(arguments: &ManArguments) -> Result<()> {
    let mut program = parse::command();
    // Fills in what the commands inherit.
    program.build();
    let command = match &arguments.command {
        None => program,
        Some(name) => {
            let found = program.get_subcommands().find(|command| command.get_name() == name).cloned();
            found.ok_or_else(|| {
                usage!("man {}: no such command; records --help lists them", quoted_where_odd(name))
            })?
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    output::print(&String::from_utf8_lossy(&page))
}
