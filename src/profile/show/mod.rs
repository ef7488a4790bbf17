//! A profile for people (`table.rs`, `svg.rs`) and for programs (`json.rs`, `trace.rs`).

mod json;
mod svg;
mod table;
mod trace;

use std::fmt;

use super::{Profile, Timed};

/// How a profile is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text.
    Table,
    /// One object.
    Json,
    /// Trace events, as ui.perfetto.dev opens them.
    Trace,
    /// A picture: where the time goes, and a roofline.
    Svg,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Table, Self::Json, Self::Trace, Self::Svg];

    /// The format of that word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.to_string() == word)
    }

    /// The profile in this format; `all` lists every launch where the format leaves most out.
    pub fn show(self, profile: &Profile, all: bool) -> String {
        match self {
            Self::Table => table::show(profile, all),
            Self::Json => json::show(profile),
            Self::Trace => trace::show(profile),
            Self::Svg => svg::show(profile),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Json => "json",
            Self::Trace => "trace",
            Self::Svg => "svg",
        })
    }
}

/// The layer of a launch and what is done with it: "encoder.layer1.0.conv1: convolution".
fn named(timed: &Timed) -> String {
    let (layer, operation) = (&timed.planned.layer, timed.planned.launch.operation);
    if layer.is_empty() { operation.into() } else { format!("{layer}: {operation}") }
}

/// The three extents of a grid or block without the ones behind.
fn extent([x, y, z]: [u32; 3]) -> String {
    match (y, z) {
        (1, 1) => x.to_string(),
        (_, 1) => format!("{x}x{y}"),
        _ => format!("{x}x{y}x{z}"),
    }
}

/// What the kernels of a step are, one line each: of `kernels/times.txt`, which a test compares.
pub fn lines(profile: &Profile) -> String {
    table::launches(profile)
}
