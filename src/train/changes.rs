//! Settings that change on a resume, and branches: what `config.toml` says of them, and what follows.
//!
//! The file holds the settings as they are now and, as comments, what changed after which epochs. It is
//! replaced as a whole, so it never says one without the other; checkpoints written from then on hold the same
//! text.

use anyhow::Result;

use super::checkpoint::Progress;
use super::choice::epochs;
use super::training::learning_rate;
use crate::settings::{self, ScheduleChoice, Settings, config_toml, differences};
use crate::usage;

const RESUMED: &str = "# Resumed ";
const BRANCHED: &str = "# Branched ";

/// The settings in the text of a `config.toml`.
///
/// # Errors
/// A usage error if they are not whole.
pub fn settings_in(text: &str) -> Result<Settings> {
    toml::from_str(text).map_err(|error: toml::de::Error| usage!("config.toml: {}", error.message()))
}

/// Epochs and steps done, in words.
fn done(progress: &Progress) -> String {
    match (progress.epochs_done, progress.steps_done) {
        (epochs, 0) => format!("{epochs} epochs"),
        (epochs, steps) => format!("{epochs} epochs and {steps} steps"),
    }
}

/// What differs between two settings, in words; nothing of what a resume does not read.
fn in_words(was: &Settings, now: &Settings) -> Result<Option<String>> {
    let quoted = settings::quoted_where_odd;
    let words: Vec<String> = differences(was, now)?
        .iter()
        .map(|(name, [was, now])| format!("{name} {} (was {})", quoted(now), quoted(was)))
        .collect();
    Ok((!words.is_empty()).then(|| words.join(", ")))
}

/// The text of a `config.toml` with the comments of an earlier one and a new one.
fn text(settings: &Settings, earlier: &str, comment: &str) -> Result<String> {
    let plain = config_toml(settings)?;
    let (head, table) = plain.split_once("\n\n").unwrap_or(("", &plain));
    let kept = earlier.lines().filter(|line| line.starts_with(RESUMED) || line.starts_with(BRANCHED));
    let comments: Vec<&str> = kept.chain([comment]).collect();
    Ok(format!("{head}\n{}\n\n{table}", comments.join("\n")))
}

/// The new text of the `config.toml` that says `earlier`, and what changed, where a run is resumed after
/// `progress` with settings `now`; `None` if nothing changed.
///
/// # Errors
/// A usage error if `earlier` is not whole.
pub fn on_resume(
    earlier: &str,
    now: &Settings,
    progress: &Progress,
) -> Result<Option<(String, Vec<String>)>> {
    let was = settings_in(earlier)?;
    // Both have no effect on a resume.
    let now = Settings { name: was.name.clone(), exp_dir: was.exp_dir.clone(), ..now.clone() };
    let Some(changes) = in_words(&was, &now)? else { return Ok(None) };
    let changed = format!("resumed after {} with {changes}", done(progress));
    let mut notes = vec![changed.clone()];
    notes.extend(effect_on_the_schedule(&was, &now, progress.epochs_done));
    let comment = changed.replacen("resumed ", RESUMED, 1);
    Ok(Some((text(&now, earlier, &comment)?, notes)))
}

/// Refuses settings with fewer epochs than `shown` has begun.
///
/// # Errors
/// A usage error.
pub fn check_length(now: &Settings, progress: &Progress, shown: &str) -> Result<()> {
    let begun = progress.epochs_done + usize::from(progress.steps_done > 0);
    if epochs(now) >= begun {
        return Ok(());
    }
    Err(usage!("--epochs {}: {shown} has done {}; must be at least as many", now.epochs, done(progress)))
}

/// What another number of epochs does to the learning rate of the epochs from `next` on.
fn effect_on_the_schedule(was: &Settings, now: &Settings, next: usize) -> Option<String> {
    if was.epochs == now.epochs {
        return None;
    }
    let rate = learning_rate(now, next);
    Some(match now.schedule {
        ScheduleChoice::Step => {
            format!("the step schedule does not depend on --epochs: epoch {next} has learning rate {rate:.6}")
        }
        ScheduleChoice::Cosine => {
            let before = next
                .checked_sub(1)
                .map(|last| format!(", after {:.6} in epoch {last}", learning_rate(was, last)));
            format!(
                "the cosine schedule now falls over {} epochs: epoch {next} has learning rate {rate:.6}{}",
                now.epochs,
                before.unwrap_or_default()
            )
        }
    })
}

/// The `config.toml` of a branch with settings `now` from the run whose settings are `earlier`, and what
/// changed in words; `source` is the checkpoint in words.
///
/// # Errors
/// A usage error if `earlier` is not whole, or there is nothing left to do.
pub fn on_branch(
    earlier: &str,
    now: &Settings,
    progress: &Progress,
    source: &str,
) -> Result<(String, String)> {
    let was = settings_in(earlier)?;
    if epochs(now) <= progress.epochs_done {
        return Err(usage!("--epochs {}: {source} has done {}; must be more", now.epochs, done(progress)));
    }
    let was = Settings { name: now.name.clone(), exp_dir: now.exp_dir.clone(), ..was };
    let changes = in_words(&was, now)?.map_or("the same settings".into(), |changes| changes);
    let branched = format!("branched from {source} after {} with {changes}", done(progress));
    let comment = branched.replacen("branched ", BRANCHED, 1);
    Ok((text(now, earlier, &comment)?, branched))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(epochs_done: usize) -> Progress {
        Progress {
            epochs_done,
            best_top1: -1.0,
            best_epoch: 0,
            classes: Vec::new(),
            train_counts: None,
            steps_done: 0,
            rollbacks: 0,
            seconds: 0.0,
            further_processes: 0,
            tiles: String::new(),
        }
    }

    #[test]
    fn changes_are_kept_as_comments() {
        let first = Settings { epochs: 6, schedule: ScheduleChoice::Cosine, ..Settings::default() };
        let plain = config_toml(&first).unwrap();
        assert_eq!(on_resume(&plain, &first, &progress(3)).unwrap(), None);
        // What a resume does not read is no change.
        let named = Settings { name: Some("b".into()), ..first.clone() };
        assert_eq!(on_resume(&plain, &named, &progress(3)).unwrap(), None);

        let longer = Settings { epochs: 10, ..named.clone() };
        let (text, notes) = on_resume(&plain, &longer, &progress(3)).unwrap().unwrap();
        assert!(text.contains("\n# Resumed after 3 epochs with epochs 10 (was 6)\n\n"), "{text}");
        assert_eq!(settings_in(&text).unwrap(), Settings { epochs: 10, ..first.clone() });
        assert!(notes[1].contains("cosine") && notes[1].contains("over 10 epochs"), "{notes:?}");

        let again = Settings { threads: 2, ..settings_in(&text).unwrap() };
        let (text, notes) = on_resume(&text, &again, &progress(7)).unwrap().unwrap();
        assert_eq!(text.matches("# Resumed after").count(), 2, "{text}");
        assert_eq!(notes.len(), 1);
        assert!(check_length(&again, &progress(10), "runs/a").is_ok());
        assert!(check_length(&Settings { epochs: 6, ..again }, &progress(7), "runs/a").is_err());

        let branch = Settings { lr: 0.5, ..named };
        let (text, said) = on_branch(&text, &branch, &progress(3), "runs/a").unwrap();
        assert_eq!(text.matches("# Resumed after").count(), 2, "{text}");
        assert!(
            said.contains("branched from runs/a after 3 epochs with epochs 6 (was 10), lr 0.5"),
            "{said}"
        );
        assert!(on_branch(&plain, &branch, &progress(6), "runs/a").is_err());
    }
}
