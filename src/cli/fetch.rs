//! `records data fetch`: downloads a data set; also the offer to do so when `records train` finds none.

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

#[cfg(feature = "fetch")]
use super::output;
use crate::data::archive::{Archive, Presence};
#[cfg(feature = "fetch")]
use crate::data::fetch::{FetchSettings, Fetched, fetch};
use crate::data::registry::{self, archive_words};
use crate::settings::{Settings, quoted_where_odd};
use crate::usage;

/// Arguments of `records data fetch`.
#[derive(Args, Clone, Debug)]
#[command(
    after_help = "An interrupted download goes on where it stopped when the same command is run again."
)]
pub struct FetchArguments {
    #[arg(value_name = "NAME", help = archive_words())]
    name: String,
    /// Folder to download to and unpack in
    #[arg(long, value_name = "FOLDER", default_value = "data")]
    data_dir: PathBuf,
    /// Download from another source: the URL of the archive, or of a folder that holds it under its official
    /// name
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Keep the archive beside the unpacked folder
    #[arg(long)]
    keep_archive: bool,
}

/// Runs `records data fetch`.
///
/// # Errors
/// A usage error for an unknown name, a bad mirror or folder; a failed run if the download fails.
pub fn run(arguments: &FetchArguments) -> Result<()> {
    let FetchArguments { name, data_dir, mirror, keep_archive } = arguments;
    let archive = registry::find(name).and_then(|set| set.archive);
    let archive = archive.ok_or_else(|| usage!("{}: must be {}", quoted_where_odd(name), archive_words()))?;
    fetch_and_report(archive, data_dir, mirror.as_deref(), *keep_archive)
}

#[cfg(not(feature = "fetch"))]
fn fetch_and_report(archive: &Archive, data_dir: &Path, _mirror: Option<&str>, _keep: bool) -> Result<()> {
    Err(usage!(
        "records data fetch: this program was built without downloads (--no-default-features); build it with the feature \
         fetch, or unpack {} in {} yourself",
        archive.url,
        data_dir.display()
    ))
}

#[cfg(feature = "fetch")]
fn fetch_and_report(
    archive: &Archive,
    data_dir: &Path,
    mirror: Option<&str>,
    keep_archive: bool,
) -> Result<()> {
    let mirror = mirror.map(String::from);
    let settings = FetchSettings { mirror, keep_archive, ..FetchSettings::default() };
    let title = archive.title;
    output::print(&match fetch(archive, data_dir, &settings)? {
        Fetched::AlreadyThere(folder) => format!("{title} is there already: {}\n", folder.display()),
        Fetched::FromFile(folder) => {
            format!("{title}: {} checked and unpacked to {}\n", archive.file_name, folder.display())
        }
        Fetched::Downloaded(folder) => {
            format!("{title}: downloaded, checked and unpacked to {}\n", folder.display())
        }
    })
}

/// Offers to download the data set of a run, if it is missing and a user can be asked. No is not an error
/// here, since the run itself reports the missing data.
///
/// # Errors
/// If the download fails.
pub fn offer(settings: &Settings) -> Result<()> {
    let Some(archive) = registry::find(&settings.dataset).and_then(|set| set.archive) else {
        return Ok(());
    };
    let data_dir = settings.data_dir.as_deref().unwrap_or(Path::new("data"));
    let somebody = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !cfg!(feature = "fetch") || !somebody || archive.presence(data_dir) != Presence::Missing {
        return Ok(());
    }
    let question = format!(
        "{} is not in {} ({} MB from {}); download it now? [y/N] ",
        archive.title,
        data_dir.display(),
        archive.bytes / 1_000_000,
        archive.url
    );
    if asked(&question, &mut io::stdin().lock(), &mut io::stderr())? {
        fetch_and_report(archive, data_dir, None, false)?;
    }
    Ok(())
}

/// Whether the answer to `question` is yes; an empty one is no.
fn asked(question: &str, answers: &mut impl BufRead, shown: &mut impl Write) -> io::Result<bool> {
    shown.write_all(question.as_bytes())?;
    shown.flush()?;
    let mut answer = String::new();
    answers.read_line(&mut answer)?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (answer, expected) in
            [("y\n", true), (" YES \r\n", true), ("yes", true), ("\n", false), ("", false), ("yep\n", false)]
        {
            let mut shown = Vec::new();
            assert_eq!(asked("now? ", &mut answer.as_bytes(), &mut shown).unwrap(), expected, "{answer:?}");
            assert_eq!(shown, b"now? ");
        }
    }
}
