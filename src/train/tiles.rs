//! What a run's tiles are chosen by. Other tiles add in another order, so a run keeps the measured times in
//! its folder and goes on with them, whatever has been measured since; a run that began by the model goes on
//! by the model.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::run_folder::{TILES, folder_of};
use crate::collective::World;
use crate::device::Device;
use crate::device::gpu::tiles::{Tiles, Times};
use crate::error::one_line;
use crate::text::printable;

/// Has `device` choose tiles as the run does, on all processes as on the first: a new run as the device does
/// by itself, one that `resume` names by what is in its folder. Returns what the log is to say of it.
///
/// # Errors
/// If a process does not take part.
pub fn choose(world: &World, resume: Option<&Path>, device: &mut dyn Device) -> Result<Option<String>> {
    let Some(own) = device.tiles().cloned() else { return Ok(None) };
    let mut note = None;
    let text = world.from_first(|| {
        let (tiles, said) = match resume {
            None => (own.clone(), None),
            Some(resume) => of_run(resume, &own, device),
        };
        note = said;
        Ok(tiles.times().map(Times::to_text).transpose()?.unwrap_or_default().into_bytes())
    })?;
    let tiles = match Times::of_text(&text) {
        Ok(times) => Tiles::Measured(Arc::new(times)),
        Err(_) if own.times().is_some() => Tiles::Model,
        // With why it is by the model.
        Err(_) => own,
    };
    device.choose_tiles_by(tiles);
    Ok(note)
}

/// Has `device` choose tiles as the run does whose checkpoint is `path`, if its folder says how; otherwise as
/// by itself.
pub fn choose_beside(path: &Path, device: &mut dyn Device) {
    let Some(own) = device.tiles().cloned() else { return };
    if let (tiles @ Tiles::Measured(_), _) = of_run(path, &own, device) {
        device.choose_tiles_by(tiles);
    }
}

/// What the tiles of the run are chosen by that a folder or checkpoint names, on a device that would choose
/// by `own`, and why that is not what is in the folder.
fn of_run(named: &Path, own: &Tiles, device: &dyn Device) -> (Tiles, Option<String>) {
    let folder = if named.is_dir() { named } else { folder_of(named) };
    let path = folder.join(TILES);
    if std::fs::symlink_metadata(&path).is_err() {
        return (Tiles::Model, None);
    }
    let times = match Times::read(&path) {
        Ok(times) => times,
        Err(error) => return (Tiles::Model, Some(format!("passing over {}", one_line(&error)))),
    };
    if device.is_measured_by(&times) || own.digest() == times.digest() {
        return (Tiles::Measured(Arc::new(times)), None);
    }
    let [shown, on] = [path.display().to_string(), times.on.gpu].map(|text| printable(&text));
    (
        Tiles::Model,
        Some(format!("passing over {shown}: its times were measured on {on}, which this device is not")),
    )
}

/// The text that the folder of a run keeps on this device; `None` by the model.
///
/// # Errors
/// None that anybody can cause.
pub fn to_keep(device: &dyn Device) -> Result<Option<String>> {
    device.tiles().and_then(Tiles::times).map(Times::to_text).transpose()
}

/// What a device's tiles are chosen by, as a checkpoint holds it.
pub fn digest(device: &dyn Device) -> String {
    device.tiles().map(Tiles::digest).unwrap_or_default()
}

/// What the log says where a state that was computed with some tiles goes on with others.
pub fn change(was: &str, is: &str) -> Option<String> {
    let in_words = |digest: &str| if digest.is_empty() { "tiles by the model" } else { "tuned tiles" };
    let other = if in_words(was) == in_words(is) { "other " } else { "" };
    (was != is).then(|| {
        format!(
            "the state was computed with {} and goes on with {other}{}: sums are added in another order, so bits differ \
             from here on",
            in_words(was),
            in_words(is)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_tiles_is_said() {
        assert_eq!([change("", ""), change("1", "1")], [None, None]);
        for (was, is, words) in [
            ("", "1", "with tiles by the model and goes on with tuned tiles:"),
            ("1", "", "with tuned tiles and goes on with tiles by the model:"),
            ("1", "2", "with tuned tiles and goes on with other tuned tiles:"),
        ] {
            assert!(change(was, is).unwrap().contains(words));
        }
    }
}
