//! Progress of long work on data. This layer reports it; the command line sets, once, how it is drawn
//! ([`draw_with`]).

use std::sync::OnceLock;

/// A piece of work that takes a while.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// What is being done, such as "loading images"; empty if that is obvious.
    pub what: &'a str,
    /// The whole amount of work, in units.
    pub total: u64,
    /// The unit.
    pub unit: Unit,
}

/// The unit in which a piece of work is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Images, files, samples.
    Items,
    /// Bytes of a transfer or a file.
    Bytes,
}

/// Follows a piece of work from its beginning until this is dropped.
pub trait WorkProgress: Sync {
    /// Adds to the work done; may be called from any thread.
    fn advance(&self, by: u64);
    /// Sets the work done, which may be less than before.
    fn set(&self, position: u64);
    /// Changes what is being done.
    fn set_what(&self, what: &str);
    /// Shows a line.
    fn line(&self, line: &str);
}

/// Begins to draw a piece of work.
pub type Draw = fn(Work<'_>) -> Box<dyn WorkProgress>;

static DRAW: OnceLock<Draw> = OnceLock::new();

/// Sets how work is drawn from now on; only the first call has an effect.
pub fn draw_with(draw: Draw) {
    let _ = DRAW.set(draw);
}

/// Begins a piece of work, which ends when the value is dropped.
pub fn begin(what: &str, total: u64, unit: Unit) -> Box<dyn WorkProgress> {
    DRAW.get()
        .map_or_else(|| Box::new(Undrawn) as Box<dyn WorkProgress>, |draw| draw(Work { what, total, unit }))
}

struct Undrawn;

impl WorkProgress for Undrawn {
    fn advance(&self, _by: u64) {}
    fn set(&self, _position: u64) {}
    fn set_what(&self, _what: &str) {}
    fn line(&self, _line: &str) {}
}
