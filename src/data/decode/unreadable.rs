//! Naming all images that cannot be read in one go, so that nobody has to mend them one run at a time.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use rayon::prelude::*;

use crate::error::one_line;
use crate::usage;

/// Images that are named at most; of the rest, the number is given.
const MOST_NAMED: usize = 20;

/// Whether an image of a set could not be loaded, as opposed to a set that does not fit into memory.
#[derive(Default)]
pub struct Failed(AtomicBool);

impl Failed {
    /// Passes the result of loading an image on.
    pub fn note(&self, loaded: Result<()>) -> Result<()> {
        if loaded.is_err() {
            self.0.store(true, Ordering::Relaxed);
        }
        loaded
    }

    /// The error for a set of `count` images that could not be loaded with `error`: if several images are at
    /// fault, it names them all. `load(i, out)` loads image `i` into `out`, `[size, size, 3]`.
    pub fn name_all(
        &self,
        error: anyhow::Error,
        count: usize,
        size: usize,
        load: impl Fn(usize, &mut [u8]) -> Result<()> + Sync,
    ) -> anyhow::Error {
        if !self.0.load(Ordering::Relaxed) {
            return error;
        }
        let problem = |i: usize| load(i, &mut vec![0; size * size * 3]).err().map(|error| one_line(&error));
        let problems: Vec<String> = (0..count).into_par_iter().filter_map(problem).collect();
        if problems.len() < 2 {
            return error;
        }
        usage!("{} of {count} images cannot be read: {}", problems.len(), in_words(&problems))
    }
}

/// The first problems, and how many more there are.
pub fn in_words(problems: &[String]) -> String {
    let named = problems[..problems.len().min(MOST_NAMED)].join("; ");
    match problems.len() - problems.len().min(MOST_NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}
