//! The settings of a run: [`Settings`], where each is declared once, and the TOML that a run writes.
//!
//! A run's settings come from four places, each of which overrides those after it: flags,
//! `--config FILE.toml`, `--preset NAME`, the defaults. [`given`] holds the values from one place,
//! [`presets`] the named sets of values, [`choices`] the words that a setting may be, [`written`] the ways
//! back to flags and TOML. [`crate::declaration`] says what a setting is.

pub mod choices;
pub mod given;
pub mod presets;
pub mod written;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::data::decode::Unreadable;
pub use crate::data::longtail::ImbalanceType;
use crate::data::registry;
pub use crate::declaration::BadSetting;
pub(crate) use crate::declaration::MOST_EPOCHS;
use crate::declaration::{Check, Declaration, Group, LEAST, MOST, More, Own, Value};
pub(crate) use crate::declaration::{number, quoted_where_odd};
use crate::optim;
use crate::pll::corr;
use crate::usage;
pub use choices::{
    BatchnormChoice, Debias, DeviceChoice, Method, OnDivergence, PrecisionChoice, ScheduleChoice,
};
pub use given::GivenSettings;
pub use written::{config_toml, differences, document, flags};

/// The largest `--threads`; the CPU device starts no more threads than it can use.
pub const MOST_THREADS: usize = 1024;

crate::declare_settings! {
    /// Everything that decides what a run computes and where it writes.
    ///
    /// In TOML it is one flat table (`batch-size = 256`); the flags have the same names. The defaults are
    /// those of the reference trainer (SPEC 5); the published runs are [`presets`].
    pub struct Settings {
        "Data" {
            /// Data set; the reference's names cifar10_im and cifar100_im work too.
            "dataset" dataset: String = "cifar10-lt".into(), "NAME", OneOf(choices::dataset_names);
            /// Folder that holds the data set; without it, ./data (folder and csv need it).
            "data-dir" data_dir: Option<PathBuf> = None, "FOLDER", Folder,
                Except("dataset", "synthetic"), Free;
            /// Images of the smallest class as a share of those of the largest, 1 over the imbalance ratio
            /// rho; 1 keeps all images and is the default for folder; not read for voc and csv.
            "imb-factor" imb_factor: f64 = 0.01, "MU", Share,
                Except("dataset", "voc"), Except("dataset", "csv");
            /// How the class counts fall: exponentially, in one step, or not at all, so that all images are kept.
            "imb-type" imb_type: ImbalanceType = ImbalanceType::Exp, "WORD", OneOf(ImbalanceType::words),
                Except("dataset", "voc"), Except("dataset", "csv");
            /// Make the last class the largest instead of the first.
            "reverse" reverse: bool = false, "BOOL", Switch,
                Except("dataset", "voc"), Except("dataset", "csv");
            /// Ambiguity q, the chance that a wrong class joins a candidate set; not read for voc and csv.
            "partial-rate" partial_rate: f64 = 0.1, "Q", Chance,
                Except("dataset", "voc"), Except("dataset", "csv");
            /// Seed of the subset and of the candidate sets; the reference always takes 0.
            "data-seed" data_seed: u32 = 0, "N", Whole(0, u32::MAX as usize),
                Except("dataset", "voc"), Except("dataset", "csv");
            /// Rows and columns of the network's input, in pixels; 128 is the default for voc.
            "image-size" image_size: usize = 32, "PIXELS", Whole(8, 512);
            /// Go on without image files that cannot be read, and say how many and which; otherwise they are an
            /// error that names them all. Not read for data sets in binary files.
            "skip-unreadable" skip_unreadable: bool = false, "BOOL", Switch,
                Except("dataset", "synthetic"), Newer;
            /// Training images per class of the synthetic data, before the long-tailed subset is taken.
            "synthetic-train-per-class" synthetic_train_per_class: usize = 500, "IMAGES", Whole(1, 100_000),
                Only("dataset", "synthetic");
            /// Test images per class of the synthetic data.
            "synthetic-test-per-class" synthetic_test_per_class: usize = 100, "IMAGES", Whole(1, 100_000),
                Only("dataset", "synthetic");
        }
        "Network" {
            /// Network; resnet50 and resnet101 have bottleneck blocks, wideresnet28 is WRN-28-k of width 16
            /// k.
            "arch" arch: String = "resnet18".into(), "NAME", OneOf(choices::network_names), Short('a');
            /// Width of the first stage's blocks, in channels; the others are 2, 4 and 8 times as wide.
            "width" width: usize = 64, "CHANNELS", Whole(1, 1024);
        }
        "Method" {
            /// Loss and disambiguation. A method brings its own --mixup and --upd-start unless they are
            /// given.
            "method" method: Method = Method(&corr::ENTRY), "WORD", OneOf(choices::method_names);
            /// What is subtracted from the logits: nothing; the log of the true class frequencies (oracle;
            /// oracle-post: at test only); or the log of RECORDS' class-prior estimate.
            "debias" debias: Debias = Debias::None, "WORD", OneOf(Debias::words);
            /// Momentum of the mean feature, from which RECORDS estimates the class prior.
            "m" m: f64 = 0.9, "MOMENTUM", Momentum, Only("debias", "records");
            /// Train on mixed views as well.
            "mixup" mixup: bool = false, "BOOL", Switch;
            /// Weight of the loss of the mixed views.
            "alpha" alpha: f64 = 1.0, "WEIGHT", Number(0.0, MOST),
                Only("mixup", "true"), Except("method", "solar");
            /// First epoch, counted from 0, with disambiguation: the update of the confidence rows.
            "upd-start" upd_start: usize = 1, "EPOCH", Whole(0, MOST_EPOCHS), Except("method", "solar");
        }
        "Optimisation" {
            /// Length of the training, in epochs.
            "epochs" epochs: usize = 800, "EPOCHS", Whole(1, MOST_EPOCHS);
            /// Samples per step; each gives a weak and a strong view.
            "batch-size" batch_size: usize = 256, "SAMPLES", Whole(2, 65_536), Short('b');
            /// Learning rate of the first epoch.
            "lr" lr: f64 = 0.02, "RATE", Number(LEAST, MOST), Alias("learning-rate");
            /// How the parameters follow their gradients.
            "optimizer" optimizer: String = optim::registry::DEFAULT.into(), "WORD",
                OneOf(choices::optimizer_names), Newer;
            /// Momentum of SGD, and the first beta of AdamW.
            "momentum" momentum: f64 = 0.9, "MOMENTUM", Momentum;
            /// The second beta of AdamW, the momentum of the mean squared gradients.
            "beta2" beta2: f64 = 0.999, "BETA", Momentum, Only("optimizer", "adamw"), Newer;
            /// Weight decay of all parameters.
            "weight-decay" weight_decay: f64 = 1e-5, "DECAY", Number(0.0, MOST), Alias("wd");
            /// How the learning rate falls from epoch to epoch.
            "schedule" schedule: ScheduleChoice = ScheduleChoice::Step, "WORD", OneOf(ScheduleChoice::words);
            /// Epochs after which the step schedule lowers the learning rate.
            "lr-decay-epochs" lr_decay_epochs: Vec<usize> = vec![700, 800, 900], "EPOCHS",
                Wholes(MOST_EPOCHS, 1000, "700,800,900"), Only("schedule", "step");
            /// Factor by which the step schedule lowers the learning rate; the cosine schedule ends at its
            /// third power.
            "lr-decay-rate" lr_decay_rate: f64 = 0.1, "FACTOR", Share;
        }
        "Run" {
            /// Seed of the initial weights, the views, the order of samples and the shuffle of class counts.
            // i64::MAX is TOML's largest integer, and config.toml must hold the seed. The reference has no
            // default seed, which makes a run unrepeatable; 123 is the seed of its published runs.
            "seed" seed: u64 = 123, "N", Whole(0, i64::MAX as usize);
            /// Where to compute.
            "device" device: DeviceChoice = DeviceChoice::Auto, "WORD", OneOf(DeviceChoice::words), Free;
            /// How activations, their gradients and the convolutions' weights are stored: auto is bf16 on a GPU and f32 on
            /// the CPU, which rounds as a GPU would where asked for bf16 or f16.
            "precision" precision: PrecisionChoice = PrecisionChoice::Auto, "WORD", OneOf(PrecisionChoice::words), Newer;
            /// CPU threads; 0 takes all cores; at most four per core, or 16, are started.
            "threads" threads: usize = 0, "THREADS", Whole(0, MOST_THREADS), Free;
            /// Over which images several processes take a batchnorm's statistics: those of the whole batch, as one
            /// process does; or each its own, with the running statistics of the first, as PyTorch's
            /// DistributedDataParallel does.
            "batchnorm" batchnorm: BatchnormChoice = BatchnormChoice::Joint, "WORD", OneOf(BatchnormChoice::words), Newer;
            /// Folder that holds the folders of runs.
            "exp-dir" exp_dir: PathBuf = "runs".into(), "FOLDER", Folder, Free;
            /// Name of the run's folder; without it, made from the settings and the time.
            "name" name: Option<String> = None, "NAME", FOLDER_NAME, Free;
            /// Epochs from one checkpoint to the next; the best epoch and the last always get one. 0 chooses: every
            /// epoch, but up to ten on a GPU where they are short.
            "checkpoint-every" checkpoint_every: usize = 0, "EPOCHS", Whole(0, MOST_EPOCHS), Free;
            /// Epochs from one evaluation to the next.
            "eval-every" eval_every: usize = 1, "EPOCHS", Whole(1, MOST_EPOCHS), Free;
            /// What to do when training diverges: stop; or go back to the last checkpoint and on with half the
            /// learning rate, up to five times.
            "on-divergence" on_divergence: OnDivergence = OnDivergence::Stop, "WORD", OneOf(OnDivergence::words),
                Free, Newer;
        }
    }
    brought {
        /// The given values of the methods' own settings.
        own: choices::methods_own_settings
    }
}

const FOLDER_NAME: Check = Check::That(
    "a name of 1 to 200 bytes without /, \\ or control characters that does not begin with - or .",
    |value| {
        let fine = |c: char| !c.is_control() && c != '/' && c != '\\';
        matches!(value, Value::Text(name) if (1..=200).contains(&name.len())
            && name.chars().all(fine) && !name.starts_with(['-', '.']))
    },
);

/// The allowed values of the setting called `name`, in words that follow "must be".
pub fn allowed(name: &str) -> Option<String> {
    Settings::declaration(name).map(|declaration| declaration.check.allowed())
}

impl Settings {
    /// The defaults for a data set, by any of its names; `None` is the default data set.
    pub fn defaults_for(dataset: Option<&str>) -> Settings {
        let mut settings = Settings::default();
        if let Some(set) = dataset.and_then(registry::find) {
            settings.imb_factor = set.imb_factor;
        }
        settings
    }

    /// What the run does about image files that cannot be read.
    pub fn unreadable(&self) -> Unreadable {
        if self.skip_unreadable { Unreadable::LeftOut } else { Unreadable::Refused }
    }

    /// A method's own settings: the given values, else the defaults for the data set.
    pub fn of_method<G: Own>(&self) -> G {
        G::of(&self.own, &self.dataset)
    }

    /// The settings that decide what a run computes: the others have their defaults, and the method's own
    /// settings are written out, given or not.
    pub fn computation(&self) -> Settings {
        let mut computation = self.clone();
        let free = |declaration: &&Declaration| declaration.more.contains(&More::Free);
        for Declaration { name, .. } in Settings::declarations().iter().filter(free) {
            computation.put(name, Settings::default().value(name));
        }
        if let Some(own) = self.method.0.own {
            computation.own = own.written_out(&self.own, &self.dataset);
        }
        computation
    }

    /// All problems: the values that are not allowed, in the order of the declarations, then the
    /// contradictions.
    pub fn problems(&self) -> Vec<BadSetting> {
        let mut found = self.out_of_range();
        found.extend(self.contradictions());
        found
    }

    /// Settings that are allowed each by itself but not together.
    fn contradictions(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        if self.data_dir.is_none() && registry::find(&self.dataset).is_some_and(|set| set.needs_data_dir) {
            let reason = format!("must name the folder of images that --dataset {} reads", self.dataset);
            found.push(BadSetting { name: "data-dir", value: String::new(), reason });
        }
        found.extend(self.senseless_combinations());
        found.extend(self.own_of_other_methods());
        found
    }

    /// The given settings that belong to other methods than the run's.
    fn own_of_other_methods(&self) -> Vec<BadSetting> {
        let mut found = Vec::new();
        for method in Method::all().filter(|method| *method != self.method) {
            for Declaration { name, .. } in choices::declared_by(method) {
                if let Some(value) = self.own.value(name).map(Value::to_string) {
                    let reason = format!("has a meaning only with --method {method}; leave --{name} out");
                    found.push(BadSetting { name, value, reason });
                }
            }
        }
        found
    }

    /// Leaves out the own settings of other methods than the run's, except those that are `given`.
    pub fn forget_other_methods(&mut self, given: &GivenSettings) {
        for BadSetting { name, .. } in self.own_of_other_methods() {
            if given.values.value(name).is_none() {
                self.put(name, None);
            }
        }
    }

    /// Combinations of method, debias and mixup that make no sense; all others are free.
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
    /// A usage error of one line for the first bad value: flag, value and what is allowed.
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

    /// The method's name in tables, such as `CORR+RECORDS+mixup`. Where mixup is part of the method, only its
    /// absence is named.
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

    /// The words of method, debias and mixup for names of folders, such as `corr-records-mixup`. Mixup that
    /// is part of the method is not named.
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
}
