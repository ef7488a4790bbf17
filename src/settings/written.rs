//! Settings written as TOML, as flags, as the differences between two, and as the table of the documentation.

use anyhow::Result;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{GivenSettings, Method, Settings};
use crate::declaration::{Declaration, Group, More, document};
use crate::usage;

impl Serialize for Settings {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let names = Settings::declarations().iter().map(|declaration| declaration.name);
        to.collect_map(names.filter_map(|name| Some((name, self.value(name)?))))
    }
}

/// Reads the settings of a run. All must be there, except the optional ones and those newer than the run:
/// only these take their defaults.
impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let given = GivenSettings::deserialize(from)?.values;
        let mut settings = Settings::default();
        let is_missing = |declaration: &&Declaration| {
            let may_be_missing = declaration.more.iter().any(|more| matches!(more, More::Newer));
            !may_be_missing
                && settings.value(declaration.name).is_some()
                && given.value(declaration.name).is_none()
        };
        if let Some(missing) = Settings::declarations().iter().find(is_missing) {
            return Err(D::Error::missing_field(missing.name));
        }
        settings.lay(&given).map_err(D::Error::custom)?;
        Ok(settings)
    }
}

fn as_toml(settings: &Settings) -> Result<toml::Table> {
    toml::Table::try_from(settings).map_err(|error| {
        usage!("cannot write the settings as TOML: {error}; use folder names that are UTF-8")
    })
}

/// A value as written after its flag.
pub(crate) fn flag_value(value: &toml::Value) -> String {
    match value {
        toml::Value::String(word) => word.clone(),
        toml::Value::Array(values) => values.iter().map(flag_value).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The flags with which `records train` gets `settings`: those whose values differ from its defaults.
///
/// # Errors
/// Only where a path is not UTF-8.
pub fn flags(settings: &Settings) -> Result<Vec<String>> {
    // Data set and method come first, since they bring values for other settings.
    let leading = GivenSettings::default()
        .with("dataset", settings.dataset.clone())
        .with("method", settings.method.word().to_string());
    let plain = as_toml(&Settings::default())?;
    let mut brought = Settings::defaults_for(Some(&settings.dataset));
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

/// The names of the settings that differ between `a` and `b`, with both values as written after flags; the
/// value of an absent setting is "none".
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

/// The text of a run's `config.toml`: all settings, below a comment. Reading it gives the same settings.
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

/// The documentation of all settings, which `docs/settings.md` holds.
pub fn document() -> String {
    let table = |settings: &Settings| toml::Table::try_from(settings).unwrap_or_default();
    // Defaults of a method's own settings may depend on the data set; those for the published data sets are
    // shown.
    let [ten, hundred] = ["cifar10-lt", "cifar100-lt"].map(|dataset| {
        let of = |method| Settings { method, dataset: dataset.into(), ..Settings::default() }.computation();
        let mut all: toml::Table = Method::all().flat_map(|method| table(&of(method))).collect();
        all.extend(table(&Settings::default()));
        all
    });
    let default = |declaration: &Declaration| {
        let [ten, hundred] =
            [&ten, &hundred].map(|of| of.get(declaration.name).map(flag_value).unwrap_or_default());
        if ten == hundred { ten } else { format!("{ten}; {hundred} for CIFAR-100") }
    };
    INTRODUCTION.to_string() + &document::tables(Settings::declarations(), default)
}

const INTRODUCTION: &str = "\
# Settings

Every setting is a flag of `records train` and, under the same name without `--`, a key of the TOML file of
`--config`. Flags override `--config`, which overrides `--preset`, which overrides the defaults. Data sets and
methods bring defaults of their own. `records table` takes the settings that its grid does not choose;
`records table --help` lists them.

The [glossary](glossary.md) explains the terms. This file is generated from the declarations in the source;
after a change there, generate it again with `RECORDS_WRITE_DOCS=1 cargo test --test settings documentation`.
";
