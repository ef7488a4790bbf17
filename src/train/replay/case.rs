//! The metadata strings of a case: settings and the scalars of each step.

use anyhow::Result;

use crate::declaration::{Group, Shape};
use crate::pll::method::{EpochControl, OWN_SCALARS};
use crate::pll::registry;
use crate::settings::given::nearest;
use crate::settings::{BadSetting, GivenSettings, Settings};
use crate::text::excerpt;
use crate::train::choice;
use crate::train::tensor_file::TensorFile;
use crate::usage;

/// The metadata strings of a case.
pub(super) struct Case<'a> {
    pub(super) file: &'a TensorFile,
}

impl Case<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.file.metadata.get(key).map(String::as_str)
    }

    /// A number; `default` where the key is absent.
    pub(super) fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> Result<T> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    /// A number; `None` where the key is absent.
    fn optional_number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>> {
        let parse = |text: &str| {
            let shown = excerpt(text);
            text.trim().parse().map_err(|_| usage!("metadata '{key}': '{shown}' is not a number of its kind"))
        };
        self.text(key).map(parse).transpose()
    }

    /// One value for each step, comma-separated. A single value is for all steps; so is `default`, where the
    /// key is absent.
    fn each_step<T: Clone>(
        &self,
        key: &str,
        steps: usize,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        wanted: &str,
    ) -> Result<Vec<T>> {
        let Some(text) = self.text(key) else { return Ok(vec![default; steps]) };
        let value = |word: &str| {
            let word = word.trim();
            parse(word).ok_or_else(|| {
                let shown = excerpt(word);
                usage!("metadata '{key}': '{shown}'; must be {wanted} for each step, comma-separated")
            })
        };
        let list: Vec<T> = text.split(',').map(value).collect::<Result<_>>()?;
        match list.len() {
            1 => Ok(vec![list[0].clone(); steps]),
            n if n == steps => Ok(list),
            n => Err(usage!("metadata '{key}': {n} values for {steps} steps")),
        }
    }

    /// The scalars of each step. Those of other methods are checked as well.
    pub(super) fn controls(&self, settings: &Settings, steps: usize) -> Result<Vec<EpochControl>> {
        let updates = self.flags("update", steps)?;
        let mut own = vec![[0.0; OWN_SCALARS]; steps];
        for entry in registry::METHODS {
            for (position, scalar) in entry.scalars.iter().enumerate() {
                let values = self.shares(scalar.name, steps, scalar.default)?;
                if entry.word == settings.method.word() {
                    own.iter_mut().zip(values).for_each(|(own, value)| own[position] = value);
                }
            }
        }
        // Not from the settings, which do not allow 0.
        let learning_rate = self.number("lr", 0.01)?;
        let always = choice::method(settings).always_disambiguates();
        let control = |(update, own)| EpochControl {
            learning_rate,
            update: update || always,
            alpha: settings.alpha,
            own,
        };
        Ok(updates.into_iter().zip(own).map(control).collect())
    }

    fn flags(&self, key: &str, steps: usize) -> Result<Vec<bool>> {
        self.each_step(key, steps, false, |word| word.parse().ok(), "true or false")
    }

    fn shares(&self, key: &str, steps: usize, default: f64) -> Result<Vec<f64>> {
        let share = |word: &str| word.parse().ok().filter(|value| (0.0..=1.0).contains(value));
        self.each_step(key, steps, default, share, "a number from 0 to 1")
    }

    /// The settings of method and optimiser, checked like those of a run, including those that the method
    /// does not read.
    pub(super) fn settings(&self, batch: usize) -> Result<Settings> {
        let word = |key: &str, default: &str| self.text(key).unwrap_or(default).to_owned();
        let mixes = self.text("method").and_then(registry::find).is_some_and(|entry| entry.mixes);
        let given = GivenSettings::default()
            .with("method", word("method", "corr"))
            .with("debias", word("debias", "none"))
            .with("mixup", self.number("mixup", mixes)?)
            .with("arch", word("arch", "resnet18"));
        let given = self
            .own_settings(given)?
            .with("alpha", self.number("alpha", 1.0)?)
            .with("m", self.number("m", 0.9)?)
            .with("width", self.number("width", 64_usize)?)
            // A learning rate of 0 has a meaning here: a step that leaves the weights alone.
            .with("lr", Some(self.number("lr", 0.01)?).filter(|&lr: &f64| lr != 0.0))
            .with("momentum", self.number("momentum", 0.9)?)
            .with("weight-decay", self.number("weight_decay", 0.0)?)
            // Here a batch may have any number of samples, so this setting is not checked.
            .with("batch-size", 2_usize);
        let in_file = |problem: BadSetting| {
            let BadSetting { name, value, reason } = problem;
            usage!("metadata '{}': '{}': {reason}", name.replace('-', "_"), excerpt(&value))
        };
        let mut settings = Settings::default();
        given.apply(&mut settings).map_err(in_file)?;
        let problems = settings.out_of_range().into_iter().chain(settings.senseless_combinations());
        match problems.into_iter().next() {
            None => Ok(Settings { batch_size: batch, ..settings }),
            Some(problem) => Err(in_file(problem)),
        }
    }

    /// `given` with those of the methods' own settings that the case has.
    fn own_settings(&self, mut given: GivenSettings) -> Result<GivenSettings> {
        for name in step_settings() {
            let key = name.replace('-', "_");
            given = match Settings::declaration(name).map(|declaration| declaration.shape) {
                Some(Shape::F64) => given.with(name, self.optional_number::<f64>(&key)?),
                Some(Shape::Usize) => given.with(name, self.optional_number::<usize>(&key)?),
                _ => given.with(name, self.text(&key).map(str::to_owned)),
            };
        }
        Ok(given)
    }

    /// The metadata keys that a replay does not read.
    ///
    /// # Errors
    /// A usage error for a key that is nearly a known one: probably a typing mistake, whose value would be
    /// ignored.
    pub(super) fn unread_keys(&self) -> Result<Vec<String>> {
        let known = keys();
        let unknown = self.file.metadata.keys().filter(|key| !known.contains(key));
        // "device" is in the output of a replay, "format" is written by other libraries.
        let unknown = unknown.filter(|key| !["device", "format"].contains(&key.as_str()));
        let near = |key: &str| nearest(&key.replace('-', "_").to_lowercase(), &known);
        let checked = |key: &String| match near(key) {
            // Every key of one or two letters is near `m` or `lr`.
            Some(near) if key.len() > 2 => {
                Err(usage!("metadata '{}': unknown; did you mean '{near}'?", excerpt(key)))
            }
            _ => Ok(excerpt(key)),
        };
        unknown.map(checked).collect()
    }
}

const KEYS: &[&str] = &[
    "arch",
    "width",
    "seed",
    "method",
    "debias",
    "mixup",
    "alpha",
    "update",
    "lr",
    "momentum",
    "weight_decay",
    "m",
];

/// The methods' own settings that a single step reads.
fn step_settings() -> impl Iterator<Item = &'static str> {
    registry::METHODS.iter().flat_map(|entry| entry.step_settings).copied()
}

/// The metadata keys that a case may have (docs/replay.md).
pub fn keys() -> Vec<String> {
    let scalars = registry::METHODS.iter().flat_map(|entry| entry.scalars).map(|scalar| scalar.name.into());
    let own = step_settings().map(|name| name.replace('-', "_"));
    KEYS.iter().map(ToString::to_string).chain(own).chain(scalars).collect()
}
