//! How a run is set up: [`Settings`], its defaults, what each value may be, and the TOML a run writes back.
//!
//! A run's settings come from four places, each of which beats those after it: flags, `--config FILE.toml`, `--preset
//! NAME`, the defaults. [`given`] holds what one place gave, [`presets`] the named sets of values, [`choices`] the
//! words a setting may take.

pub mod choices;
pub mod given;
pub mod presets;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::data::registry;
use crate::pll::lw::{self, LwSettings};
use crate::pll::registry::{Entry, OwnSettings};
use crate::pll::{self, solar};
use crate::text::printable;
use crate::usage;
pub use choices::{Debias, DeviceChoice, ImbalanceType, LwLoss, Method, Precision, PriorFrom, Schedule};
pub use given::GivenSettings;

/// Everything that decides what a run computes and where it writes.
///
/// In TOML it is one flat table with the names in kebab case (`batch-size = 256`); the flags have the same names.
/// The defaults are those of the reference trainer (SPEC 5); the published runs are [`presets`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// Data set, one of [`registry::names`].
    pub dataset: String,
    /// Folder that holds the data set; `None`: `data` in the current folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// Images of the smallest class as a share of those of the largest (mu = 1/rho), above 0 and at most 1.
    pub imb_factor: f64,
    /// Shape of the class counts (SPEC 2).
    pub imb_type: ImbalanceType,
    /// Whether the last class is the largest instead of the first.
    pub reverse: bool,
    /// Chance q that a wrong class joins a candidate set (SPEC 3), at least 0 and below 1.
    pub partial_rate: f64,
    /// Seed of the subset and of the candidate sets; the reference always takes 0.
    pub data_seed: u32,
    /// Rows and columns of the network's input, pixels.
    pub image_size: usize,
    /// Training images per class of the synthetic data before the subset is taken.
    pub synthetic_train_per_class: usize,
    /// Test images per class of the synthetic data.
    pub synthetic_test_per_class: usize,
    /// Network, one of [`choices::ARCHITECTURES`].
    pub arch: String,
    /// Width of the first stage's blocks, in channels; the others are 2, 4 and 8 times as wide.
    pub width: usize,
    /// Loss and disambiguation.
    pub method: Method,
    /// What is subtracted from the logits that disambiguation and evaluation read.
    pub debias: Debias,
    /// Momentum of the mean feature (RECORDS), at least 0 and below 1.
    pub m: f64,
    /// Whether mixed views are trained on as well.
    pub mixup: bool,
    /// Weight of the loss of the mixed views.
    pub alpha: f64,
    /// First epoch, counted from 0, that updates the confidence.
    pub upd_start: usize,
    /// LW: the loss of a label; `None`: sigmoid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lw_loss: Option<LwLoss>,
    /// LW: weight beta of the classes that are no candidates; `None`: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lw_beta: Option<f64>,
    /// SoLar: epochs of the stage that estimates the class prior.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub est_epochs: Option<usize>,
    /// SoLar: share of each class that is chosen, at the first epoch and after warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rho_range: Option<Vec<f64>>,
    /// SoLar: step of the class prior in the estimation stage and in the training stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gamma: Option<Vec<f64>>,
    /// SoLar: length of the queue of predictions, batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_length: Option<usize>,
    /// SoLar: power lambda of the predictions in Sinkhorn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lamd: Option<f64>,
    /// SoLar: weight of the chosen samples' losses after warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// SoLar: agreement of prediction and pseudo-label above which a sample is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tau: Option<f64>,
    /// SoLar: epochs of warm-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_epoch: Option<usize>,
    /// SoLar: what the class prior is counted from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prior_from: Option<PriorFrom>,
    /// Epochs.
    pub epochs: usize,
    /// Samples a step; each gives a weak and a strong view.
    pub batch_size: usize,
    /// Learning rate of the first epoch.
    pub lr: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Weight decay of SGD, on every parameter.
    pub weight_decay: f64,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// Epochs after which the step schedule multiplies the learning rate by `lr_decay_rate`.
    pub lr_decay_epochs: Vec<usize>,
    /// Factor of one decay; the cosine schedule ends at `lr * lr_decay_rate^3`.
    pub lr_decay_rate: f64,
    /// Seed of the initial weights, the views, the order of samples and the shuffle of class counts.
    pub seed: u64,
    /// Where to compute.
    pub device: DeviceChoice,
    /// How activations are stored.
    #[serde(default)]
    pub precision: Precision,
    /// CPU threads; 0: all.
    pub threads: usize,
    /// Folder that holds the folders of runs.
    pub exp_dir: PathBuf,
    /// Name of the run's folder; `None`: made from the settings and the time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Epochs from one checkpoint to the next.
    pub checkpoint_every: usize,
    /// Epochs from one evaluation to the next.
    pub eval_every: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            dataset: "cifar10-lt".into(),
            data_dir: None,
            imb_factor: 0.01,
            imb_type: ImbalanceType::Exp,
            reverse: false,
            partial_rate: 0.1,
            data_seed: 0,
            image_size: 32,
            synthetic_train_per_class: 500,
            synthetic_test_per_class: 100,
            arch: "resnet18".into(),
            width: 64,
            method: Method(&pll::corr::ENTRY),
            debias: Debias::None,
            m: 0.9,
            mixup: false,
            alpha: 1.0,
            upd_start: 1,
            lw_loss: None,
            lw_beta: None,
            est_epochs: None,
            rho_range: None,
            gamma: None,
            queue_length: None,
            lamd: None,
            eta: None,
            tau: None,
            warmup_epoch: None,
            prior_from: None,
            epochs: 800,
            batch_size: 256,
            lr: 0.02,
            momentum: 0.9,
            weight_decay: 1e-5,
            schedule: Schedule::Step,
            lr_decay_epochs: vec![700, 800, 900],
            lr_decay_rate: 0.1,
            // The reference has no default seed and is then not repeatable; this is the seed of its published runs.
            seed: 123,
            device: DeviceChoice::Auto,
            precision: Precision::Auto,
            threads: 0,
            exp_dir: "runs".into(),
            name: None,
            checkpoint_every: 1,
            eval_every: 1,
        }
    }
}

impl Settings {
    /// The defaults for a data set, called as in [`GivenSettings`]; `None` is the default one.
    pub fn defaults_for(dataset: Option<&str>) -> Settings {
        let mut settings = Settings::default();
        if let Some(set) = dataset.and_then(registry::find) {
            settings.imb_factor = set.imb_factor;
        }
        settings
    }
}

/// One setting whose value is not allowed.
#[derive(Clone, Debug, PartialEq)]
pub struct BadSetting {
    /// Name of the setting, as in TOML and, behind `--`, of its flag.
    pub name: &'static str,
    /// The value as a user would write it; empty where the setting is missing.
    pub value: String,
    /// What is wrong and what is allowed.
    pub reason: String,
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BadSetting { name, value, reason } = self;
        if value.is_empty() {
            write!(f, "--{name}: {reason}")
        } else {
            write!(f, "--{name} {value}: {reason}")
        }
    }
}

/// What each setting may be, to follow "must be"; printed by `--help` and by every error about the setting.
const ALLOWED: &[(&str, &str)] = &[
    ("data-dir", "a folder"),
    ("imb-factor", "above 0 and at most 1"),
    ("imb-type", "one of exp, step, none"),
    ("imb-ratio", "a number from 1 to 1e30"),
    ("reverse", "true or false"),
    ("partial-rate", "at least 0 and below 1"),
    ("data-seed", "a whole number from 0 to 4294967295"),
    ("image-size", "a whole number from 8 to 512"),
    ("synthetic-train-per-class", "a whole number from 1 to 100000"),
    ("synthetic-test-per-class", "a whole number from 1 to 100000"),
    ("arch", "one of resnet18, resnet34, resnet50, resnet101"),
    ("width", "a whole number from 1 to 1024"),
    ("method", "one of corr, proden, lw, cavl, cc, solar"),
    ("debias", "one of none, oracle, oracle-post, records"),
    ("m", "at least 0 and below 1, in f32 too"),
    ("mixup", "true or false"),
    ("alpha", "a number from 0 to 1e30"),
    ("upd-start", "a whole number from 0 to 1000000"),
    ("lw-loss", "one of sigmoid, cross-entropy"),
    ("lw-beta", "a number from 0 to 1e30"),
    ("est-epochs", "a whole number from 0 to 1000000"),
    ("rho-range", "two numbers from 1e-30 to 1, as in 0.2,0.6"),
    ("gamma", "two numbers from 1e-30 to 1, as in 0.1,0.01"),
    ("queue-length", "a whole number from 0 to 4096"),
    ("lamd", "a number from 1e-30 to 1e30"),
    ("eta", "a number from 1e-30 to 1"),
    ("tau", "a number from 1e-30 to 1e30"),
    ("warmup-epoch", "a whole number from 0 to 1000000"),
    ("prior-from", "one of pass, steps"),
    ("epochs", "a whole number from 1 to 1000000"),
    ("batch-size", "a whole number from 2 to 65536"),
    ("lr", "a number from 1e-30 to 1e30"),
    ("momentum", "at least 0 and below 1, in f32 too"),
    ("weight-decay", "a number from 0 to 1e30"),
    ("schedule", "one of cosine, step"),
    ("lr-decay-epochs", "whole numbers from 0 to 1000000, at most 1000 of them, as in 700,800,900"),
    ("lr-decay-rate", "above 0 and at most 1"),
    ("seed", "a whole number from 0 to 9223372036854775807"),
    ("device", "one of auto, cpu, cuda, sim"),
    ("precision", "one of auto, bf16, f32"),
    ("threads", "a whole number from 0 to 1024"),
    ("exp-dir", "a folder"),
    ("name", "a name of 1 to 200 bytes without /, \\ or control characters that does not begin with - or ."),
    ("checkpoint-every", "a whole number from 1 to 1000000"),
    ("eval-every", "a whole number from 1 to 1000000"),
    // Of `records table`.
    ("methods", "among corr, oracle, records, solar, records-mixup"),
    ("q", "numbers of at least 0 and below 1, as in 0.3,0.5; not below 1e-30 but for 0"),
    ("rho", "numbers from 1 to 1e30, as in 50,100"),
    ("seeds", "whole numbers from 0 to 9223372036854775807, as in 123,124"),
    ("show", "best or last"),
    ("format", "text, markdown or csv"),
    ("num-class", "the number of classes of the data set: 10, 20 or 100"),
];

/// Epochs that a setting may name at most: the longest run.
pub(crate) const MOST_EPOCHS: usize = 1_000_000;

/// Bounds of numbers whose size has no meaning of its own: devices compute in f32, where products of a few of them must neither
/// vanish nor overflow by themselves.
pub(crate) const LEAST: f64 = 1e-30;
pub(crate) const MOST: f64 = 1e30;

/// CPU threads at most; the CPU device starts no more than are of use.
pub const MOST_THREADS: usize = 1024;

/// What the setting called `name` may be, to follow "must be".
pub fn allowed(name: &str) -> Option<&'static str> {
    let fixed = ALLOWED.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed);
    fixed.or_else(|| (name == "dataset").then(registry::one_of))
}

fn bad(name: &'static str, value: impl fmt::Display) -> BadSetting {
    let reason = format!("must be {}", allowed(name).unwrap_or("a value that is known"));
    BadSetting { name, value: quoted_where_odd(&value.to_string()), reason }
}

/// The value on one line and never empty, so that a message always shows what it speaks of.
pub(crate) fn quoted_where_odd(value: &str) -> String {
    if value.is_empty() || value.chars().any(|c| c.is_control() || c.is_whitespace()) {
        printable(&format!("{value:?}"))
    } else {
        printable(value)
    }
}

/// A number as a user would write it: very large and very small ones with an exponent.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && size.is_finite() && !(1e-6..1e16).contains(&size) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

fn above_0_to_1(value: f64) -> bool {
    value > 0.0 && value <= 1.0
}

/// At least 0 and below 1 as devices take it: the f64 next to 1 is 1 in f32, and a mean with that momentum never moves.
fn is_momentum(value: f64) -> bool {
    value >= 0.0 && (value as f32) < 1.0
}

fn list<T: fmt::Display>(values: &[T]) -> String {
    values.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

impl Settings {
    /// Every setting whose value is not allowed: those out of their range in the order of the fields, then contradictions.
    pub fn problems(&self) -> Vec<BadSetting> {
        let mut found = self.out_of_range();
        found.extend(self.contradictions());
        found
    }

    /// Every setting whose value is not allowed whatever the others are, in the order of the fields. All arithmetic on settings
    /// relies on these ranges.
    pub fn out_of_range(&self) -> Vec<BadSetting> {
        let mut found = self.data_out_of_range();
        found.extend(self.method_out_of_range());
        found.extend(self.run_out_of_range());
        found
    }

    fn data_out_of_range(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let mut check = |fine: bool, name, value: String| {
            if !fine {
                found.push(bad(name, value))
            }
        };
        check(registry::names().any(|name| name == self.dataset), "dataset", self.dataset.clone());
        if let Some(folder) = &self.data_dir {
            check(!folder.as_os_str().is_empty(), "data-dir", folder.display().to_string());
        }
        check(above_0_to_1(self.imb_factor), "imb-factor", number(self.imb_factor));
        check((0.0..1.0).contains(&self.partial_rate), "partial-rate", number(self.partial_rate));
        check((8..=512).contains(&self.image_size), "image-size", self.image_size.to_string());
        for (name, images) in [
            ("synthetic-train-per-class", self.synthetic_train_per_class),
            ("synthetic-test-per-class", self.synthetic_test_per_class),
        ] {
            check((1..=100_000).contains(&images), name, images.to_string());
        }
        found
    }

    fn method_out_of_range(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let mut check = |fine: bool, name, value: String| {
            if !fine {
                found.push(bad(name, value))
            }
        };
        check(choices::ARCHITECTURES.contains(&self.arch.as_str()), "arch", self.arch.clone());
        check((1..=1024).contains(&self.width), "width", self.width.to_string());
        check(is_momentum(self.m), "m", number(self.m));
        check((0.0..=MOST).contains(&self.alpha), "alpha", number(self.alpha));
        check(self.upd_start <= MOST_EPOCHS, "upd-start", self.upd_start.to_string());
        for (name, value, range) in [
            ("lw-beta", self.lw_beta, 0.0..=MOST),
            ("lamd", self.lamd, LEAST..=MOST),
            ("eta", self.eta, LEAST..=1.0),
            ("tau", self.tau, LEAST..=MOST),
        ] {
            check(value.is_none_or(|x| range.contains(&x)), name, value.map_or(String::new(), number));
        }
        for (name, value, most) in [
            ("est-epochs", self.est_epochs, MOST_EPOCHS),
            ("queue-length", self.queue_length, 4096),
            ("warmup-epoch", self.warmup_epoch, MOST_EPOCHS),
        ] {
            check(value.is_none_or(|n| n <= most), name, value.map_or(String::new(), |n| n.to_string()));
        }
        for (name, pair) in [("rho-range", &self.rho_range), ("gamma", &self.gamma)] {
            let pair = pair.as_deref().unwrap_or(&[1.0; 2]);
            let fine = pair.len() == 2 && pair.iter().all(|x| (LEAST..=1.0).contains(x));
            check(fine, name, list(&pair.iter().map(|&x| number(x)).collect::<Vec<_>>()));
        }
        found
    }

    fn run_out_of_range(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let mut check = |fine: bool, name, value: String| {
            if !fine {
                found.push(bad(name, value))
            }
        };
        check((1..=MOST_EPOCHS).contains(&self.epochs), "epochs", self.epochs.to_string());
        check((2..=65_536).contains(&self.batch_size), "batch-size", self.batch_size.to_string());
        check((LEAST..=MOST).contains(&self.lr), "lr", number(self.lr));
        check(is_momentum(self.momentum), "momentum", number(self.momentum));
        check((0.0..=MOST).contains(&self.weight_decay), "weight-decay", number(self.weight_decay));
        let milestones = &self.lr_decay_epochs;
        if milestones.len() > 1000 {
            check(false, "lr-decay-epochs", format!("({} of them)", milestones.len()));
        } else if let Some(epoch) = milestones.iter().find(|&&epoch| epoch > MOST_EPOCHS) {
            check(false, "lr-decay-epochs", epoch.to_string());
        }
        check(above_0_to_1(self.lr_decay_rate), "lr-decay-rate", number(self.lr_decay_rate));
        // TOML has no larger integer, and config.toml must hold the seed.
        check(i64::try_from(self.seed).is_ok(), "seed", self.seed.to_string());
        check(self.threads <= MOST_THREADS, "threads", self.threads.to_string());
        check(!self.exp_dir.as_os_str().is_empty(), "exp-dir", self.exp_dir.display().to_string());
        if let Some(name) = &self.name {
            check(is_folder_name(name), "name", name.clone());
        }
        for (name, every) in [("checkpoint-every", self.checkpoint_every), ("eval-every", self.eval_every)] {
            check((1..=MOST_EPOCHS).contains(&every), name, every.to_string());
        }
        found
    }

    /// Settings that are fine each by itself but not together, and those that this version cannot train with.
    fn contradictions(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        if self.data_dir.is_none() && registry::find(&self.dataset).is_some_and(|set| set.needs_data_dir) {
            let reason = format!("must name the folder of images that --dataset {} reads", self.dataset);
            found.push(BadSetting { name: "data-dir", value: String::new(), reason });
        }
        found.extend(self.senseless_combinations());
        let foreign = |name, value: Option<String>, of: &'static Entry| {
            let method = Method(of);
            let value = value.filter(|_| self.method != method)?;
            let reason = format!("has a meaning only with --method {method}; leave --{name} out");
            Some(BadSetting { name, value, reason })
        };
        let text = |value: Option<f64>| value.map(number);
        let number = |value: Option<usize>| value.map(|n| n.to_string());
        found.extend(
            [
                foreign("lw-loss", self.lw_loss.map(|word| word.to_string()), &lw::ENTRY),
                foreign("lw-beta", text(self.lw_beta), &lw::ENTRY),
                foreign("est-epochs", number(self.est_epochs), &solar::ENTRY),
                foreign("rho-range", self.rho_range.as_deref().map(list), &solar::ENTRY),
                foreign("gamma", self.gamma.as_deref().map(list), &solar::ENTRY),
                foreign("queue-length", number(self.queue_length), &solar::ENTRY),
                foreign("lamd", text(self.lamd), &solar::ENTRY),
                foreign("eta", text(self.eta), &solar::ENTRY),
                foreign("tau", text(self.tau), &solar::ENTRY),
                foreign("warmup-epoch", number(self.warmup_epoch), &solar::ENTRY),
                foreign("prior-from", self.prior_from.map(|word| word.to_string()), &solar::ENTRY),
            ]
            .into_iter()
            .flatten(),
        );
        found
    }

    /// Methods, debias and mixup combine freely but for these.
    pub(crate) fn senseless_combinations(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        let mut refuse = |name: &'static str, value: &dyn fmt::Display, why: &str, allowed: &str| {
            let reason = format!("does not go with --method {}: {why}; must be {allowed}", self.method);
            found.push(BadSetting { name, value: value.to_string(), reason });
        };
        let entry = self.method.0;
        if let Some(why) = entry.no_debias
            && matches!(self.debias, Debias::Oracle | Debias::Records)
        {
            refuse("debias", &self.debias, why, "none or oracle-post");
        }
        if let Some(why) = entry.no_mixup
            && self.mixup
        {
            refuse("mixup", &self.mixup, why, "false");
        }
        found
    }

    /// Checks every value.
    ///
    /// # Errors
    /// A usage error of one line for the first bad value: flag, value, what is allowed.
    pub fn validate(&self) -> Result<()> {
        match self.problems().into_iter().next() {
            None => Ok(()),
            Some(problem) => Err(usage!("{problem}")),
        }
    }

    /// Reads and checks the settings that a run wrote as `config.toml`.
    ///
    /// # Errors
    /// A usage error with file, line and key.
    pub fn from_file(path: &Path) -> Result<Settings> {
        let file = given::SettingsFile::read(path)?;
        let mut settings = Settings::default();
        file.given.apply(&mut settings).map_err(|problem| file.usage_error(&problem))?;
        match settings.problems().into_iter().next() {
            None => Ok(settings),
            Some(problem) => Err(file.usage_error(&problem)),
        }
    }

    /// The method as tables name it: `CORR+RECORDS+mixup`. SoLar mixes unless said otherwise.
    pub fn method_title(&self) -> String {
        let debias = match self.debias {
            Debias::None => "",
            Debias::Oracle => "+Oracle-LA",
            Debias::OraclePost => "+Oracle-LA (at test)",
            Debias::Records => "+RECORDS",
        };
        let mixup = match (self.mixup, self.method.mixes()) {
            (true, false) => "+mixup",
            (false, true) => " without mixup",
            _ => "",
        };
        format!("{}{debias}{mixup}", self.method.title())
    }

    /// The words of method, debias and mixup, for names of folders: `corr-records-mixup`. SoLar's mixup goes without saying.
    pub fn method_words(&self) -> String {
        let mut words = self.method.word().to_string();
        if self.debias != Debias::None {
            words += &format!("-{}", self.debias);
        }
        if self.mixup && !self.method.mixes() {
            words += "-mixup";
        }
        words
    }

    /// What each method's own settings come to: what is set, else what the method takes.
    pub fn own_settings(&self) -> OwnSettings {
        let lw =
            LwSettings { loss: self.lw_loss.unwrap_or(LwLoss::Sigmoid), beta: self.lw_beta.unwrap_or(1.0) };
        OwnSettings { lw, solar: self.solar() }
    }

    /// What SoLar computes with: what is set, else the values of the published runs (SPEC 7).
    pub fn solar(&self) -> SolarSettings {
        let hundred = self.dataset.starts_with("cifar100");
        let pair = |given: &Option<Vec<f64>>, default: [f64; 2]| match given.as_deref() {
            Some(&[first, second]) => [first, second],
            _ => default,
        };
        SolarSettings {
            estimation_epochs: self.est_epochs.unwrap_or(if hundred { 20 } else { 100 }),
            rho: pair(&self.rho_range, if hundred { [0.2, 0.5] } else { [0.2, 0.6] }),
            gamma: pair(&self.gamma, if hundred { [0.05, 0.01] } else { [0.1, 0.01] }),
            queue_length: self.queue_length.unwrap_or(64),
            lambda: self.lamd.unwrap_or(3.0),
            eta: self.eta.unwrap_or(0.9),
            tau: self.tau.unwrap_or(0.99),
            warmup_epochs: self.warmup_epoch.unwrap_or(50),
            prior_from: self.prior_from.unwrap_or(PriorFrom::Pass),
        }
    }
}

/// The constants of SoLar (SPEC 7).
#[derive(Clone, Debug, PartialEq)]
pub struct SolarSettings {
    /// Epochs of the stage that estimates the class prior; 0 leaves it out.
    pub estimation_epochs: usize,
    /// Share of a class's expected samples that is chosen, at the first epoch of a stage and after warm-up.
    pub rho: [f64; 2],
    /// Step of the class prior in the estimation stage and in the training stage.
    pub gamma: [f64; 2],
    /// Batches of predictions in the queue.
    pub queue_length: usize,
    /// Power of the predictions in Sinkhorn.
    pub lambda: f64,
    /// Weight of the chosen samples' losses after warm-up.
    pub eta: f64,
    /// Agreement above which a sample is chosen whatever its loss.
    pub tau: f64,
    /// Epochs over which eta rises from 0 and rho from its first value to its second.
    pub warmup_epochs: usize,
    /// What the class prior is counted from.
    pub prior_from: PriorFrom,
}

fn is_folder_name(name: &str) -> bool {
    let fine = |c: char| !c.is_control() && c != '/' && c != '\\';
    !name.is_empty() && name.len() <= 200 && name.chars().all(fine) && !name.starts_with(['-', '.'])
}

fn as_toml<T: Serialize>(settings: &T) -> Result<toml::Table> {
    toml::Table::try_from(settings).map_err(|error| {
        usage!("cannot write the settings as TOML: {error}; use folder names that are UTF-8")
    })
}

/// A value as it stands behind its flag.
pub(crate) fn flag_value(value: &toml::Value) -> String {
    match value {
        toml::Value::String(word) => word.clone(),
        toml::Value::Array(values) => values.iter().map(flag_value).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The flags of `records train` that give `settings`: those that differ from what it takes without them.
///
/// # Errors
/// Only where a path is not UTF-8.
pub fn flags(settings: &Settings) -> Result<Vec<String>> {
    // Data set and method bring values of their own, and come first.
    let leading = GivenSettings {
        dataset: Some(settings.dataset.clone()),
        method: Some(settings.method.word().into()),
        ..GivenSettings::default()
    };
    let plain = as_toml(&Settings::default())?;
    let mut brought = Settings::defaults_for(leading.dataset.as_deref());
    leading.apply(&mut brought).map_err(|problem| usage!("{problem}"))?;
    let brought = as_toml(&brought)?;
    let is_leading = |name: &str| ["dataset", "method"].contains(&name);
    let mut flags = Vec::new();
    for (name, value) in as_toml(settings)? {
        let without = if is_leading(&name) { plain.get(&name) } else { brought.get(&name) };
        if without != Some(&value) {
            flags.push((!is_leading(&name), format!("--{name}={}", flag_value(&value))));
        }
    }
    flags.sort_by_key(|(follows, _)| *follows);
    Ok(flags.into_iter().map(|(_, flag)| flag).collect())
}

/// The names of the settings that differ between `a` and `b`, with both values as flags have them; a setting that is left
/// out is "none".
///
/// # Errors
/// Only where a path is not UTF-8.
pub fn differences(a: &Settings, b: &Settings) -> Result<Vec<(String, [String; 2])>> {
    let (a, b) = (as_toml(a)?, as_toml(b)?);
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort_unstable();
    names.dedup();
    let shown = |table: &toml::Table, name: &str| table.get(name).map_or("none".into(), flag_value);
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    Ok(differing.map(|name| (name.clone(), [shown(&a, name), shown(&b, name)])).collect())
}

/// All settings as TOML with a comment on top: what a run writes as `config.toml`. Reading it gives the same settings.
///
/// # Errors
/// Only where a path is not UTF-8, which TOML cannot hold.
pub fn config_toml(settings: &Settings) -> Result<String> {
    let table = toml::to_string(settings).map_err(|error| {
        usage!("cannot write the settings as TOML: {error}; use folder names that are UTF-8")
    })?;
    Ok(format!(
        "# Settings of a run of records {}, all of them.\n# Run it again: records train --config config.toml\n\n{table}",
        env!("CARGO_PKG_VERSION")
    ))
}
