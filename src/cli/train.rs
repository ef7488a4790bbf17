//! `records train`: resolves the settings of a run and starts it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::output;
use super::reference::ReferenceFlags;
use crate::device::cpu::threads;
use crate::settings::given::SettingsFile;
use crate::settings::presets::{self, PRESETS};
use crate::settings::{GivenSettings, Settings, config_toml};
use crate::train::run_folder::settings_to_resume;
use crate::usage;

/// Arguments of `records train`. Flags override --config, which overrides --preset, which overrides the
/// defaults.
#[derive(Args, Clone, Debug, Default)]
#[command(
    after_help = "Flags override --config, which overrides --preset, which overrides the defaults. Flags may be written \
                  with underscores (--batch_size)."
)]
pub struct TrainArguments {
    /// Start from the named settings; --list-presets shows them
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// Read settings from a TOML file whose keys are the names of the flags, such as the config.toml of
    /// another run
    #[arg(long, value_name = "FILE.toml")]
    pub config: Option<PathBuf>,
    /// Resume a run, named by its folder or by one of its checkpoints, with the settings in its config.toml
    #[arg(long, value_name = "RUN_FOLDER|CHECKPOINT")]
    pub resume: Option<PathBuf>,
    /// List the presets and exit
    #[arg(long)]
    pub list_presets: bool,
    /// Print the settings as TOML and exit
    #[arg(long)]
    pub dry_run: bool,
    /// The settings among the flags.
    #[command(flatten)]
    pub given: GivenSettings,
    /// The reference trainer's flags.
    #[command(flatten)]
    pub reference: ReferenceFlags,
}

/// Runs `records train`.
///
/// # Errors
/// A usage error for bad settings, or the error of the run.
pub fn run(arguments: &TrainArguments) -> Result<()> {
    if arguments.list_presets {
        return output::print(&list_of_presets());
    }
    let settings = resolve(arguments)?;
    let mut without_effect = arguments.reference.without_effect();
    if arguments.resume.is_some() {
        let given = &arguments.given;
        let ours = [
            ("--name", given.values.value("name").is_some()),
            ("--exp-dir", given.values.value("exp-dir").is_some()),
        ];
        without_effect.extend(ours.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag));
    }
    if !without_effect.is_empty() {
        output::note(&format!("without effect here: {}", without_effect.join(", ")));
    }
    if arguments.dry_run {
        return output::print(&config_toml(&settings)?);
    }
    threads::limit_other_work(settings.threads);
    super::fetch::offer(&settings)?;
    crate::train::run::run(&settings, arguments.resume.as_deref())
}

/// The settings that result from flags, configuration file, preset and defaults, all checked.
///
/// # Errors
/// A usage error of one line that names the flag (or file, line and key), the value and what is allowed.
pub fn resolve(arguments: &TrainArguments) -> Result<Settings> {
    let file = match (&arguments.resume, &arguments.config) {
        (Some(_), Some(config)) => {
            return Err(usage!("--config {}: must be left out with --resume", config.display()));
        }
        (Some(run), None) => Some(settings_to_resume(run)?),
        (None, Some(config)) => Some(SettingsFile::read(config)?),
        (None, None) => None,
    };
    let mut settings = match &arguments.preset {
        None => {
            let dataset = |given: &GivenSettings| given.values.get::<String>("dataset");
            let of_file = || file.as_ref().and_then(|file| dataset(&file.given));
            Settings::defaults_for(dataset(&arguments.given).or_else(of_file).as_deref())
        }
        Some(name) if arguments.resume.is_some() => {
            return Err(usage!("--preset {name}: must be left out with --resume"));
        }
        Some(name) => match presets::find(name) {
            Some(preset) => preset.settings(),
            None => {
                let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
                return Err(usage!("--preset {name}: must be one of {}", names.join(", ")));
            }
        },
    };
    let mut problems_of_file = Vec::new();
    if let Some(file) = &file {
        file.given.apply(&mut settings).map_err(|problem| file.usage_error(&problem))?;
        problems_of_file = settings.problems();
        problems_of_file.retain(|problem| file.sets(problem.name));
    }
    arguments.given.apply(&mut settings).map_err(|problem| usage!("{problem}"))?;
    arguments.reference.apply(&arguments.given, &mut settings)?;
    match settings.problems().into_iter().next() {
        None => Ok(settings),
        // A flag may have replaced a bad value of the file; one that is still there is reported with its
        // line.
        Some(problem) => Err(match &file {
            Some(file) if problems_of_file.contains(&problem) => file.usage_error(&problem),
            _ => usage!("{problem}"),
        }),
    }
}

fn list_of_presets() -> String {
    let mut rows = vec![["name", "data", "q", "imb", "method", "about"].map(String::from)];
    for preset in PRESETS {
        let settings = preset.settings();
        rows.push([
            preset.name.to_string(),
            settings.dataset.clone(),
            settings.partial_rate.to_string(),
            settings.imb_factor.to_string(),
            settings.method_title(),
            preset.about.to_string(),
        ]);
    }
    output::table(&rows)
}
