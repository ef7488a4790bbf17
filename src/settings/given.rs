//! The settings that one place gave, flags or a TOML file: the others stay unset, so that places can be laid over
//! each other.

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgAction, Args};
use serde::{Deserialize, Serialize};

use super::{
    BadSetting, Debias, DeviceChoice, ImbalanceType, LwLoss, Method, Precision, PriorFrom, Schedule,
    Settings, allowed, bad,
};
use crate::data::registry;
use crate::files::read_whole;
use crate::usage;

/// Some of the [`Settings`], by the same names. What each may be and its default are added to the help from
/// [`allowed`] and [`Settings::default`].
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct GivenSettings {
    /// Data set; the reference's cifar10_im and cifar100_im are understood too
    #[arg(long, value_name = "NAME", help_heading = "Data")]
    pub dataset: Option<String>,
    /// Folder that holds the data set; without it, ./data (folder and csv need it)
    #[arg(long, value_name = "FOLDER", help_heading = "Data")]
    pub data_dir: Option<PathBuf>,
    /// Images of the smallest class as a share of those of the largest: mu = 1/rho; 1 keeps all images, and is what folder takes
    /// unless said otherwise; not read for voc and csv
    #[arg(long, value_name = "MU", help_heading = "Data")]
    pub imb_factor: Option<f64>,
    /// Shape of the class counts: falling exponentially, in one step, or none: all images are kept
    #[arg(long, value_name = "WORD", help_heading = "Data")]
    pub imb_type: Option<String>,
    /// Make the last class the largest instead of the first
    #[arg(long, value_name = "BOOL", help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub reverse: Option<bool>,
    /// Chance q that a wrong class joins a candidate set; not read for voc and csv
    #[arg(long, value_name = "Q", help_heading = "Data")]
    pub partial_rate: Option<f64>,
    /// Seed of the subset and of the candidate sets; the reference always takes 0
    #[arg(long, value_name = "N", help_heading = "Data")]
    pub data_seed: Option<u32>,
    /// Rows and columns of the network's input, in pixels; 128 for voc unless said otherwise
    #[arg(long, value_name = "PIXELS", help_heading = "Data")]
    pub image_size: Option<usize>,
    /// Training images per class of the synthetic data, before the long-tailed subset is taken
    #[arg(long, value_name = "IMAGES", help_heading = "Data")]
    pub synthetic_train_per_class: Option<usize>,
    /// Test images per class of the synthetic data
    #[arg(long, value_name = "IMAGES", help_heading = "Data")]
    pub synthetic_test_per_class: Option<usize>,
    /// Network; resnet50 and resnet101 are made of bottleneck blocks
    #[arg(short = 'a', long, value_name = "NAME", help_heading = "Network")]
    pub arch: Option<String>,
    /// Width of the first stage's blocks, in channels; the others are 2, 4 and 8 times as wide
    #[arg(long, value_name = "CHANNELS", help_heading = "Network")]
    pub width: Option<usize>,
    /// Loss and disambiguation. A method that is chosen brings its own --mixup and --upd-start unless they are given: solar
    /// mixes, lw and cavl update from epoch 0
    #[arg(long, value_name = "WORD", help_heading = "Method")]
    pub method: Option<String>,
    /// What is subtracted from the logits: nothing; the log of the true class frequencies (oracle; oracle-post: at test
    /// only); or of the class prior that RECORDS estimates
    #[arg(long, value_name = "WORD", help_heading = "Method")]
    pub debias: Option<String>,
    /// Momentum of the mean feature, from which RECORDS estimates the class prior
    #[arg(long, value_name = "MOMENTUM", help_heading = "Method")]
    pub m: Option<f64>,
    /// Train on mixed views as well
    #[arg(long, value_name = "BOOL", help_heading = "Method", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide_possible_values = true)]
    pub mixup: Option<bool>,
    /// Weight of the loss of the mixed views
    #[arg(long, value_name = "WEIGHT", help_heading = "Method")]
    pub alpha: Option<f64>,
    /// First epoch, counted from 0, that updates the confidence
    #[arg(long, value_name = "EPOCH", help_heading = "Method")]
    pub upd_start: Option<usize>,
    /// LW: the loss of a label
    #[arg(long, value_name = "WORD", help_heading = "Method")]
    pub lw_loss: Option<String>,
    /// LW: weight of the classes that are no candidates
    #[arg(long, value_name = "WEIGHT", help_heading = "Method")]
    pub lw_beta: Option<f64>,
    /// SoLar: epochs of the stage that estimates the class prior
    #[arg(long, value_name = "EPOCHS", help_heading = "Method")]
    pub est_epochs: Option<usize>,
    /// SoLar: share of each class that is chosen, at the first epoch and after warm-up
    #[arg(long, value_name = "FROM,TO", help_heading = "Method", action = ArgAction::Set, value_delimiter = ',')]
    pub rho_range: Option<Vec<f64>>,
    /// SoLar: step of the class prior in the estimation stage and in the training stage
    #[arg(long, value_name = "FIRST,SECOND", help_heading = "Method", action = ArgAction::Set, value_delimiter = ',')]
    pub gamma: Option<Vec<f64>>,
    /// SoLar: batches of earlier predictions that Sinkhorn sees beside the step's own
    #[arg(long, value_name = "BATCHES", help_heading = "Method")]
    pub queue_length: Option<usize>,
    /// SoLar: power of the predictions in Sinkhorn
    #[arg(long, value_name = "LAMBDA", help_heading = "Method")]
    pub lamd: Option<f64>,
    /// SoLar: weight of the chosen samples after warm-up
    #[arg(long, value_name = "WEIGHT", help_heading = "Method")]
    pub eta: Option<f64>,
    /// SoLar: a sample whose prediction agrees with its pseudo-label beyond this is chosen whatever its loss
    #[arg(long, value_name = "SHARE", help_heading = "Method")]
    pub tau: Option<f64>,
    /// SoLar: epochs over which eta and rho reach their values
    #[arg(long, value_name = "EPOCHS", help_heading = "Method")]
    pub warmup_epoch: Option<usize>,
    /// SoLar: what the class prior is counted from: an extra pass over the training images after each epoch, or the
    /// forwards of the epoch's own steps
    #[arg(long, value_name = "WORD", help_heading = "Method")]
    pub prior_from: Option<String>,
    /// Passes over the training data, in epochs
    #[arg(long, value_name = "EPOCHS", help_heading = "Optimisation")]
    pub epochs: Option<usize>,
    /// Samples a step; each gives a weak and a strong view
    #[arg(short = 'b', long, value_name = "SAMPLES", help_heading = "Optimisation")]
    pub batch_size: Option<usize>,
    /// Learning rate of the first epoch
    #[arg(long, visible_alias = "learning-rate", value_name = "RATE", help_heading = "Optimisation")]
    pub lr: Option<f64>,
    /// Momentum of SGD
    #[arg(long, value_name = "MOMENTUM", help_heading = "Optimisation")]
    pub momentum: Option<f64>,
    /// Weight decay of SGD, on every parameter
    #[arg(long, visible_alias = "wd", value_name = "DECAY", help_heading = "Optimisation")]
    pub weight_decay: Option<f64>,
    /// How the learning rate falls from epoch to epoch
    #[arg(long, value_name = "WORD", help_heading = "Optimisation")]
    pub schedule: Option<String>,
    /// Epochs after which the step schedule lowers the learning rate
    #[arg(long, value_name = "EPOCHS", help_heading = "Optimisation", action = ArgAction::Set, value_delimiter = ',', value_parser = epoch)]
    pub lr_decay_epochs: Option<Vec<usize>>,
    /// Factor of one lowering; the cosine schedule ends at the learning rate times its third power
    #[arg(long, value_name = "FACTOR", help_heading = "Optimisation")]
    pub lr_decay_rate: Option<f64>,
    /// Seed of the initial weights, the views, the order of samples and the shuffle of class counts
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub seed: Option<u64>,
    /// Where to compute
    #[arg(long, value_name = "WORD", help_heading = "Run")]
    pub device: Option<String>,
    /// How activations are stored: bf16 on a GPU and f32 on the CPU unless said otherwise
    #[arg(long, value_name = "WORD", help_heading = "Run")]
    pub precision: Option<String>,
    /// CPU threads; 0 takes all; no more than four for each core are started, or 16
    #[arg(long, value_name = "THREADS", help_heading = "Run")]
    pub threads: Option<usize>,
    /// Folder that holds the folders of runs
    #[arg(long, value_name = "FOLDER", help_heading = "Run")]
    pub exp_dir: Option<PathBuf>,
    /// Name of the run's folder; without it, made from the settings and the time
    #[arg(long, value_name = "NAME", help_heading = "Run")]
    pub name: Option<String>,
    /// Epochs from one checkpoint to the next
    #[arg(long, value_name = "EPOCHS", help_heading = "Run")]
    pub checkpoint_every: Option<usize>,
    /// Epochs from one evaluation to the next
    #[arg(long, value_name = "EPOCHS", help_heading = "Run")]
    pub eval_every: Option<usize>,
}

/// One epoch of a list; blanks around the commas are fine.
fn epoch(word: &str) -> Result<usize, std::num::ParseIntError> {
    word.trim().parse()
}

impl GivenSettings {
    /// Lays what is given over `settings`. Only words are checked here; [`Settings::problems`] checks the rest.
    ///
    /// # Errors
    /// The first word that is not known.
    pub fn apply(&self, settings: &mut Settings) -> Result<(), BadSetting> {
        macro_rules! take {
            ($($field:ident)*) => {
                $(if let Some(value) = &self.$field {
                    settings.$field = value.clone();
                })*
            };
        }
        macro_rules! take_optional {
            ($($field:ident)*) => {
                $(if self.$field.is_some() {
                    settings.$field = self.$field.clone();
                })*
            };
        }
        macro_rules! take_word {
            ($($field:ident: $kind:ident, $name:literal;)*) => {
                $(if let Some(word) = &self.$field {
                    settings.$field = $kind::from_word(word).ok_or_else(|| bad($name, word))?;
                })*
            };
        }
        if let Some(word) = &self.dataset {
            let set = registry::find(word).ok_or_else(|| bad("dataset", word))?;
            let before = registry::find(&settings.dataset).map(|before| before.image_size);
            // A data set with images of another size brings its size along; one that is given wins below.
            if before != Some(set.image_size) {
                settings.image_size = set.image_size;
            }
            settings.dataset = set.name.into();
        }
        if let Some(word) = &self.method {
            let method = Method::from_word(word).ok_or_else(|| bad("method", word))?;
            if method != settings.method {
                settings.mixup = method.mixes();
                settings.upd_start = method.first_update();
            }
        }
        macro_rules! take_optional_word {
            ($($field:ident: $kind:ident, $name:literal;)*) => {
                $(if let Some(word) = &self.$field {
                    settings.$field = Some($kind::from_word(word).ok_or_else(|| bad($name, word))?);
                })*
            };
        }
        take_optional_word! {
            lw_loss: LwLoss, "lw-loss";
            prior_from: PriorFrom, "prior-from";
        }
        take_word! {
            imb_type: ImbalanceType, "imb-type";
            method: Method, "method";
            debias: Debias, "debias";
            schedule: Schedule, "schedule";
            device: DeviceChoice, "device";
            precision: Precision, "precision";
        }
        take! {
            imb_factor reverse partial_rate data_seed image_size synthetic_train_per_class synthetic_test_per_class
            arch width m mixup alpha upd_start epochs batch_size lr momentum weight_decay lr_decay_epochs lr_decay_rate
            seed threads exp_dir checkpoint_every eval_every
        }
        take_optional! {
            data_dir lw_beta est_epochs rho_range gamma queue_length lamd eta tau warmup_epoch name
        }
        Ok(())
    }

    /// The names of all settings, in kebab case.
    pub fn names() -> Vec<String> {
        let command = GivenSettings::augment_args(clap::Command::new("settings"));
        command.get_arguments().filter_map(|argument| argument.get_long()).map(String::from).collect()
    }
}

/// A TOML file of settings.
pub struct SettingsFile {
    /// The file.
    pub path: PathBuf,
    /// What it gives.
    pub given: GivenSettings,
    text: String,
}

/// Settings files are some 2 KB; this keeps a wrong path (a device, a checkpoint) from filling the memory.
const LARGEST_FILE: u64 = 1 << 20;

impl SettingsFile {
    /// Reads a TOML file of settings; values are not checked beyond their types.
    ///
    /// # Errors
    /// A usage error of one line: file, line, key, what is wrong.
    pub fn read(path: &Path) -> Result<SettingsFile> {
        let shown = path.display();
        let bytes = read_whole(path, LARGEST_FILE)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let byte = error.utf8_error().valid_up_to();
            usage!("{shown}: byte {byte} is not UTF-8; name a TOML file")
        })?;
        Self::parse(path, text)
    }

    /// The settings in `text`, which is from `path`.
    ///
    /// # Errors
    /// As [`SettingsFile::read`].
    pub fn parse(path: &Path, text: String) -> Result<SettingsFile> {
        match toml::from_str(&text) {
            Ok(given) => Ok(SettingsFile { path: path.to_path_buf(), given, text }),
            Err(error) => Err(toml_error(path, &text, &error)),
        }
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the file sets `name`.
    pub fn sets(&self, name: &str) -> bool {
        self.line_of(name).is_some()
    }

    /// A problem with a value of this file, with file and line.
    pub fn usage_error(&self, problem: &BadSetting) -> anyhow::Error {
        let shown = self.path.display();
        let BadSetting { name, value, reason } = problem;
        match self.line_of(name) {
            Some(line) => usage!("{shown}:{line}: {name} = {value}: {reason}"),
            None => usage!("{shown}: {problem}"),
        }
    }

    fn line_of(&self, name: &str) -> Option<usize> {
        let position = self.text.lines().position(|line| key_of(line) == Some(name))?;
        Some(position + 1)
    }
}

/// The key of a line `key = value`.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    Some(key.trim().trim_matches(['"', '\'']))
}

fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let message = error.message().replace('\n', "; ");
    let shown = path.display();
    let Some(span) = error.span() else {
        return usage!("{shown}: {message}");
    };
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    if let Some(unknown) = message.strip_prefix("unknown field `").and_then(|rest| rest.split('`').next()) {
        let hint = match nearest(unknown, &GivenSettings::names()) {
            Some(name) => format!("did you mean {name}?"),
            None => "`records train --help` lists the names".to_string(),
        };
        return usage!("{shown}:{line}: {}: unknown key; {hint}", super::quoted_where_odd(unknown));
    }
    let key = text.lines().nth(line - 1).and_then(key_of);
    match key.and_then(|key| Some((key, allowed(key)?))) {
        Some((key, allowed)) => usage!("{shown}:{line}: {key}: {message}; must be {allowed}"),
        None => usage!("{shown}:{line}: {message}"),
    }
}

/// The name nearest to `word`, if one is near: at most a third of the letters differ.
pub(crate) fn nearest(word: &str, names: &[String]) -> Option<String> {
    let (distance, name) = names.iter().map(|name| (edits(word, name), name)).min()?;
    (distance <= word.chars().count().max(3) / 3).then(|| name.clone())
}

/// Letters to insert, delete or change to turn `a` into `b` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
