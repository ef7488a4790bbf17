//! The settings given in one place: by flags or in a TOML file.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{BadSetting, Method, Settings, allowed};
use crate::data::registry;
use crate::declaration::{Given, Group, quoted_where_odd};
use crate::files::read_whole;
use crate::usage;

/// Some of the [`Settings`], by the same names.
pub type GivenSettings = Given<Settings>;

impl Given<Settings> {
    /// Overrides `settings` with the given values. Only words are checked here; [`Settings::problems`] checks
    /// the rest.
    ///
    /// # Errors
    /// The first unknown word.
    pub fn apply(&self, settings: &mut Settings) -> Result<(), BadSetting> {
        let mut given = self.values.clone();
        if let Some(set) = given.get::<String>("dataset").and_then(|word| registry::find(&word)) {
            let before = registry::find(&settings.dataset).map(|before| before.image_size);
            // A data set with images of another size brings its size along, unless a size is given, which
            // wins below.
            if before != Some(set.image_size) {
                settings.image_size = set.image_size;
            }
            given = given.with("dataset", set.name.to_string());
        }
        if let Some(method) = given.get::<Method>("method").filter(|method| *method != settings.method) {
            settings.mixup = method.mixes();
            settings.upd_start = method.first_update();
        }
        settings.lay(&given)
    }

    /// The names of all settings.
    pub fn names() -> Vec<String> {
        Settings::declarations().iter().map(|declaration| declaration.name.into()).collect()
    }
}

/// A TOML file of settings.
pub struct SettingsFile {
    /// The file.
    pub path: PathBuf,
    /// Its settings.
    pub given: GivenSettings,
    text: String,
}

/// Settings files have about 2 KB; this keeps a wrong path (a device, a checkpoint) from filling the memory.
const LARGEST_FILE: u64 = 1 << 20;

impl SettingsFile {
    /// Reads a TOML file of settings; only the types of values are checked.
    ///
    /// # Errors
    /// A usage error of one line: file, line, key and what is wrong.
    pub fn read(path: &Path) -> Result<SettingsFile> {
        let shown = path.display();
        let bytes = read_whole(path, LARGEST_FILE)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let byte = error.utf8_error().valid_up_to();
            usage!("{shown}: byte {byte} is not UTF-8; name a TOML file")
        })?;
        Self::parse(path, text)
    }

    /// The settings in `text`, the contents of `path`.
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

    /// The usage error for a bad value of this file, with file and line.
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
        return usage!("{shown}:{line}: {}: unknown key; {hint}", quoted_where_odd(unknown));
    }
    let key = text.lines().nth(line - 1).and_then(key_of);
    match key.and_then(|key| Some((key, allowed(key)?))) {
        Some((key, allowed)) => usage!("{shown}:{line}: {key}: {message}; must be {allowed}"),
        None => usage!("{shown}:{line}: {message}"),
    }
}

/// The name nearest to `word`, if at most a third of the letters differ.
pub(crate) fn nearest(word: &str, names: &[String]) -> Option<String> {
    let (distance, name) = names.iter().map(|name| (strsim::levenshtein(word, name), name)).min()?;
    (distance <= word.chars().count().max(3) / 3).then(|| name.clone())
}
