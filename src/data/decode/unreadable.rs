//! Loading a set of image files. All files that cannot be read are found in one go, so that nobody has to mend
//! them one run at a time, or are left out.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Error, Result};

use super::kept::Kept;
use super::square::{Fit, decode_all};
use crate::data::left_out::LeftOut;
use crate::data::progress::WorkProgress;
use crate::error::one_line;
use crate::usage;

/// Images that are named at most; of the rest, the number is given.
const MOST_NAMED: usize = 20;

/// What is done about image files that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unreadable {
    /// They are an error that names them all.
    #[default]
    Refused,
    /// They are left out, and counted.
    LeftOut,
}

/// The squares of a set of files, as far as these could be read.
#[derive(Debug, Default)]
pub struct LoadedFiles {
    /// uint8 RGB, `[readable, size, size, 3]`.
    pub images: Vec<u8>,
    /// The positions of the files that could be read, ascending.
    pub readable: Vec<usize>,
    /// What is wrong with the others, in their order.
    pub problems: Vec<Error>,
    /// How many of the images were turned upright, as their orientation says.
    pub turned: usize,
}

/// Loads the `count` files of the set `name` (any text that stays the same, such as its folder) as squares of
/// `size` pixels, on all threads. `load(i, decode)` finds file `i` and calls `decode` with its path.
///
/// # Errors
/// A usage error for a size of 0, and for images that do not fit into memory.
pub fn load_files(
    name: &Path,
    count: usize,
    (size, fit): (usize, Fit),
    progress: &dyn WorkProgress,
    load: impl Fn(usize, &mut dyn FnMut(&Path) -> Result<()>) -> Result<()> + Sync,
) -> Result<LoadedFiles> {
    let kept = Kept::open(name, count, size, fit);
    let (problems, turned) = (Mutex::new(BTreeMap::new()), AtomicUsize::new(0));
    let mut images = decode_all(count, size, progress, |i, out| {
        let mut is_turned = false;
        let loaded = load(i, &mut |path| {
            is_turned = kept.square(i, path, out)?;
            Ok(())
        });
        match loaded {
            Ok(()) => _ = turned.fetch_add(usize::from(is_turned), Ordering::Relaxed),
            Err(error) => _ = problems.lock().expect("no thread has panicked").insert(i, error),
        }
        Ok(())
    })?;
    let problems = problems.into_inner().expect("no thread has panicked");
    let readable: Vec<usize> = (0..count).filter(|i| !problems.contains_key(i)).collect();
    let len = 3 * size * size;
    for (to, &from) in readable.iter().enumerate().filter(|(to, from)| to != *from) {
        images.copy_within(from * len..(from + 1) * len, to * len);
    }
    images.truncate(readable.len() * len);
    kept.keep(&images).iter().for_each(|line| progress.line(line));
    let problems = problems.into_values().collect();
    Ok(LoadedFiles { images, readable, problems, turned: turned.into_inner() })
}

impl LoadedFiles {
    /// How many files there are, readable or not.
    fn count(&self) -> usize {
        self.readable.len() + self.problems.len()
    }

    /// The positions of the readable files among all; `None` if these are all.
    pub fn positions(&self) -> Option<Vec<usize>> {
        (!self.problems.is_empty()).then(|| self.readable.clone())
    }

    /// What is left out, where some files cannot be read; `what` they are, in the plural.
    pub fn left_out(&self, what: &'static str) -> Option<LeftOut> {
        let problems: Vec<String> = self.problems.iter().map(one_line).collect();
        (!problems.is_empty()).then(|| LeftOut {
            count: problems.len(),
            of: self.count(),
            what,
            why: format!("they cannot be read, as --skip-unreadable allows: {}", in_words(&problems)),
        })
    }
}

/// Refuses files that cannot be read, unless they may be left out and some are left in each of the `sets`.
///
/// # Errors
/// A usage error that names the files in one line; a single one has its own error.
pub fn check_readable(sets: &mut [&mut LoadedFiles], unreadable: Unreadable) -> Result<()> {
    let count = sets.iter().map(|set| set.count()).sum::<usize>();
    let is_lost = |set: &&mut LoadedFiles| set.readable.is_empty() && !set.problems.is_empty();
    if unreadable == Unreadable::LeftOut && !sets.iter().any(is_lost) {
        return Ok(());
    }
    let mut problems: Vec<Error> =
        sets.iter_mut().flat_map(|set| std::mem::take(&mut set.problems)).collect();
    let named = |problems: &[Error]| in_words(&problems.iter().map(one_line).collect::<Vec<_>>());
    match problems.len() {
        0 => Ok(()),
        _ if unreadable == Unreadable::LeftOut => {
            Err(usage!("no image is left without those that cannot be read: {}", named(&problems)))
        }
        1 => Err(problems.swap_remove(0)),
        several => Err(usage!(
            "{several} of {count} images cannot be read (records train --skip-unreadable goes on without them): {}",
            named(&problems)
        )),
    }
}

/// The remark on images that were turned upright among `of` images, if there are any.
pub fn turned_in_words(sets: &[&LoadedFiles]) -> Option<String> {
    let turned = sets.iter().map(|set| set.turned).sum::<usize>();
    let of = sets.iter().map(|set| set.readable.len()).sum::<usize>();
    let are = if turned == 1 { "is" } else { "are" };
    (turned > 0)
        .then(|| format!("{turned} of {of} images {are} turned or mirrored, as their EXIF orientation says"))
}

/// The first problems, and how many more there are.
pub fn in_words(problems: &[String]) -> String {
    let named = problems[..problems.len().min(MOST_NAMED)].join("; ");
    match problems.len() - problems.len().min(MOST_NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}
