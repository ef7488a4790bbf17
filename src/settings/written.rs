//! Settings written back: as TOML, as flags, as what differs between two, and as the table of the
//! documentation.

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

/// All settings must be there, but those that a run may leave out and those that are newer than it: nothing else is
/// taken from the defaults.
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

/// The names of the settings that differ between `a` and `b`, with both values as flags have them; a setting
/// that is left out is "none".
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

/// All settings as TOML with a comment on top: what a run writes as `config.toml`. Reading it gives the same
/// settings.
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
    // What a method takes where nothing is given may depend on the data set; those of the published runs are
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

Every setting is a flag of `records train` and, by the same name without `--`, a key of a TOML file for
`--config`. Flags beat `--config`, which beats `--preset`, which beats the defaults. A data set or a method
that is chosen brings values of its own where none are given. `records table` takes the settings that its grid
does not choose itself; `records table --help` lists them.

This file is made from the declarations in the source. After a change there, write it anew with
`RECORDS_WRITE_DOCS=1 cargo test --test settings documentation`.
";
