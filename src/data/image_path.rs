//! Paths of images in a list: they must stay inside the data's folder; and hints for paths without a file.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::lookalike::are_alike;
use crate::text::printable;

/// Checks that a path stays inside the folder it is relative to.
///
/// # Errors
/// What is wrong with it, to follow the path.
pub fn inside(text: &str) -> Result<PathBuf, &'static str> {
    let mut path = PathBuf::new();
    for component in Path::new(text).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return Err("must be a path inside the data's folder, relative and without .."),
        }
    }
    if path.as_os_str().is_empty() { Err("must name an image") } else { Ok(path) }
}

/// A remedy for an image that does not exist in `folder`, if its path shows what is meant.
pub fn remedy(folder: &Path, image: &Path) -> Option<String> {
    let text = image.to_str()?;
    let shown = |path: &Path| printable(&path.to_string_lossy());
    // The path's components no longer show that there were two slashes.
    if text
        .split_once(":/")
        .is_some_and(|(scheme, _)| scheme.len() > 1 && scheme.chars().all(char::is_alphanumeric))
    {
        return Some("download the image and name the file".into());
    }
    if text.contains('\\') {
        let slashes = PathBuf::from(text.replace('\\', "/"));
        let found = inside(slashes.to_str()?).ok().filter(|path| folder.join(path).is_file());
        return Some(match found {
            Some(path) => format!("write / for each backslash: {} is there", shown(&path)),
            None => "write a path inside the data's folder, with / for each backslash".into(),
        });
    }
    if text.starts_with("~/") {
        return Some("~ has no meaning here; write a path inside the data's folder".into());
    }
    if let Some(found) = nearly(folder, image) {
        return Some(format!("did you mean {}?", shown(&found)));
    }
    // Relative to a folder above, such as the one that holds the data's folder.
    let mut rest = image.components();
    while rest.next().is_some() && !rest.as_path().as_os_str().is_empty() {
        if folder.join(rest.as_path()).is_file() {
            return Some(format!("paths begin in the data's folder: {} is there", shown(rest.as_path())));
        }
    }
    None
}

/// A file whose name differs from `image` only in case, Unicode form or extension.
fn nearly(folder: &Path, image: &Path) -> Option<PathBuf> {
    let mut found = PathBuf::new();
    let parts: Vec<&OsStr> = image.iter().collect();
    for (i, part) in parts.iter().enumerate() {
        if folder.join(&found).join(part).exists() {
            found.push(part);
            continue;
        }
        let mut names: Vec<_> = fs::read_dir(folder.join(&found))
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.file_name()))
            .collect();
        names.sort_unstable();
        let part = part.to_str()?;
        let alike = names.iter().find(|name| name.to_str().is_some_and(|name| are_alike(name, part)));
        let stem = Path::new(part).file_stem();
        let other_extension = |name: &&std::ffi::OsString| {
            let own = Path::new(name).file_stem();
            i + 1 == parts.len()
                && Path::new(name).extension().is_some()
                && (own == stem || own == Some(OsStr::new(part)))
        };
        found.push(alike.or_else(|| names.iter().find(other_extension))?);
    }
    folder.join(&found).is_file().then_some(found)
}
