//! How far long work on data is. This layer reports it; who draws it is set once with [`draw_with`], by the command line.

use std::sync::OnceLock;

/// A piece of work that takes a while.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// What is done, such as "loading images"; empty where that is plain.
    pub what: &'a str,
    /// All there is to do, in units.
    pub total: u64,
    /// What is counted.
    pub unit: Unit,
}

/// What a piece of work is measured in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Images, files, samples.
    Items,
    /// Bytes of a transfer or a file.
    Bytes,
}

/// Watches a piece of work from its beginning until it is dropped.
pub trait Progress: Sync {
    /// So much more is done; called from any thread.
    fn advance(&self, by: u64);
    /// So much is done, which may be less than before.
    fn set(&self, position: u64);
    /// What is done now.
    fn set_what(&self, what: &str);
    /// Something worth a line of its own.
    fn line(&self, line: &str);
}

/// Begins to draw a piece of work.
pub type Draw = fn(Work<'_>) -> Box<dyn Progress>;

static DRAW: OnceLock<Draw> = OnceLock::new();

/// From now on work is drawn by `draw`; the first call counts.
pub fn draw_with(draw: Draw) {
    let _ = DRAW.set(draw);
}

/// Begins a piece of work; it ends where the value is dropped.
pub fn begin(what: &str, total: u64, unit: Unit) -> Box<dyn Progress> {
    DRAW.get().map_or_else(|| Box::new(Undrawn) as Box<dyn Progress>, |draw| draw(Work { what, total, unit }))
}

struct Undrawn;

impl Progress for Undrawn {
    fn advance(&self, _by: u64) {}
    fn set(&self, _position: u64) {}
    fn set_what(&self, _what: &str) {}
    fn line(&self, _line: &str) {}
}
