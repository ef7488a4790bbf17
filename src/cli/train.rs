//! `records train`: resolves the settings of a run and starts it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::output;
use super::reference::ReferenceFlags;
use crate::collective::World;
use crate::collective::launch::{self, DEFAULT_TIMEOUT};
use crate::device::cpu::threads;
use crate::error::{exit_code, one_line, stopped};
use crate::settings::given::SettingsFile;
use crate::settings::presets::{self, PRESETS};
use crate::settings::{GivenSettings, Settings, config_toml, quoted_where_odd};
use crate::train::progress::{self, Show};
use crate::train::run;
use crate::train::run_folder::{is_unused, settings_to_resume};
use crate::train::stop::Stop;
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
    /// Resume a run, named by its folder or by one of its checkpoints, with the settings in its config.toml; auto
    /// resumes the run that --exp-dir and --name name, if there is one, and starts it otherwise
    #[arg(long, value_name = "RUN_FOLDER|CHECKPOINT|auto")]
    pub resume: Option<PathBuf>,
    /// With --resume: leave that run as it is, and make a new one of this name from its checkpoint, with any settings
    #[arg(long, value_name = "NAME")]
    pub branch: Option<String>,
    /// Stop after so many minutes, at a step from which --resume goes on with the same bits
    #[arg(long, value_name = "MINUTES")]
    pub max_minutes: Option<f64>,
    /// How many seconds one of several processes waits for the others before it ends with an error
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT)]
    pub world_timeout: f64,
    /// List the presets and exit
    #[arg(long)]
    pub list_presets: bool,
    /// Print the settings as TOML and exit
    #[arg(long)]
    pub dry_run: bool,
    /// How to show the run: auto (lines, and bars on a terminal), plain (lines), json (a line for each epoch
    /// and for all else that is said) or quiet (errors alone; log.txt has the rest)
    #[arg(long, value_name = "WORD", default_value = "auto")]
    pub progress: String,
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
    let show = Show::from_word(&arguments.progress).ok_or_else(|| {
        let words = Show::ALL.map(|show| show.to_string()).join(", ");
        usage!("--progress {}: must be one of {words}", quoted_where_odd(&arguments.progress))
    })?;
    progress::show_as(show);
    let world = launch::form(timeout(arguments.world_timeout)?)?;
    if !world.is_first() {
        progress::show_as(Show::Quiet);
    }
    // Nobody is done before all are: the first process has the last file to write.
    let result = match train(arguments, &world) {
        Err(error) if stopped(&error).is_none() => Err(error),
        ended => world.collective().any(false).and(ended),
    };
    if let Err(error) = result.as_ref()
        && stopped(error).is_none()
    {
        world.collective().leave(exit_code(error), &one_line(error));
    }
    result
}

/// The limit of `--world-timeout`.
fn timeout(seconds: f64) -> Result<Duration> {
    match Duration::try_from_secs_f64(seconds) {
        Ok(limit) if !limit.is_zero() => Ok(limit),
        _ => Err(usage!("--world-timeout {seconds}: must be a positive number of seconds")),
    }
}

/// Trains, as one of the processes of `world`.
fn train(arguments: &TrainArguments, world: &World) -> Result<()> {
    if arguments.resume.as_deref() == Some(Path::new("auto")) {
        return start_or_resume(arguments, world);
    }
    let mut settings = resolve(arguments)?;
    arguments.reference.check_world(world.rank(), world.size())?;
    if let Some(name) = &arguments.branch {
        if arguments.resume.is_none() {
            return Err(usage!(
                "--branch {}: needs --resume with the run to begin from",
                quoted_where_odd(name)
            ));
        }
        settings.name = Some(name.clone());
        settings.validate()?;
    }
    let stop = stop_after(arguments.max_minutes)?;
    let mut without_effect = arguments.reference.without_effect();
    if arguments.resume.is_some() {
        let given = &arguments.given;
        let ours = [
            ("--name", given.values.value("name").is_some()),
            ("--exp-dir", given.values.value("exp-dir").is_some() && arguments.branch.is_none()),
        ];
        without_effect.extend(ours.into_iter().filter(|(_, given)| *given).map(|(flag, _)| flag));
    }
    if !without_effect.is_empty() && world.is_first() {
        output::note(&format!("without effect here: {}", without_effect.join(", ")));
    }
    if arguments.dry_run {
        return if world.is_first() { output::print(&config_toml(&settings)?) } else { Ok(()) };
    }
    threads::limit_other_work(if settings.threads == 0 { world.threads() } else { settings.threads });
    if world.is_first() {
        super::fetch::offer(&settings)?;
    }
    match (&arguments.resume, &arguments.branch) {
        (Some(from), Some(_)) => run::branch(&settings, from, &stop, world),
        (resume, _) => run::run(&settings, resume.as_deref(), &stop, world),
    }
}

/// `--resume auto`: resumes the run in the folder that the settings name, if there is one, and starts it otherwise.
fn start_or_resume(arguments: &TrainArguments, world: &World) -> Result<()> {
    let fresh = TrainArguments { resume: None, ..arguments.clone() };
    let settings = resolve(&fresh)?;
    let Some(name) = settings.name.as_ref().filter(|_| arguments.branch.is_none()) else {
        return Err(usage!("--resume auto: needs the run's --name, and no --branch"));
    };
    let folder = settings.exp_dir.join(name);
    // The first process decides: it makes the folder.
    let begins = world.from_first(|| Ok(vec![u8::from(!folder.exists() || is_unused(&folder))]))?;
    if begins == [1] {
        return train(&fresh, world);
    }
    // Refuses a folder that is no run's.
    settings_to_resume(&folder)?;
    if arguments.dry_run {
        return if world.is_first() { output::print(&config_toml(&settings)?) } else { Ok(()) };
    }
    let stop = stop_after(arguments.max_minutes)?;
    run::run(&settings, Some(&folder), &stop, world)
}

/// What stops a run early: signals, and `--max-minutes` from now on.
///
/// # Errors
/// A usage error for minutes that are not positive.
pub fn stop_after(minutes: Option<f64>) -> Result<Stop> {
    match minutes {
        Some(minutes) if !(minutes > 0.0 && minutes.is_finite()) => {
            Err(usage!("--max-minutes {minutes}: must be a positive number"))
        }
        minutes => Ok(Stop::after_minutes(minutes)),
    }
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
    if arguments.branch.is_some() {
        settings.forget_other_methods(&arguments.given);
    }
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
