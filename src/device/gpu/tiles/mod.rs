//! What launches that do the same are chosen by: the model of times, or times that were measured on the GPU.
//!
//! | question | file |
//! |---|---|
//! | which way is taken? | `decision.rs` |
//! | what is the same launch elsewhere? | `key.rs` |
//! | what was measured, and on what? | `times.rs` |
//! | where are measured times kept? | `kept.rs` |
//! | measuring them | `device.rs`, over the driver |
//!
//! Other tiles add in another order, so what is chosen decides the bits of the results.

mod decision;
mod device;
mod kept;
mod key;
mod times;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

pub use decision::{Beside, Decision, Way};
pub use kept::Kept;
pub use times::{MeasuredOn, Times};

use super::driver::Driver;
use crate::text::printable;
use crate::usage;

/// Name of the variable that says what tiles are chosen by.
const VARIABLE: &str = "RECORDS_TILES";

/// What `RECORDS_TILES` asks for.
enum Wanted {
    /// It is not set: what was measured on this GPU, if anything was.
    Kept,
    /// `model`.
    Model,
    /// The times of a file, wherever they were measured.
    File(PathBuf),
}

impl Wanted {
    fn find() -> Result<Self> {
        let word = std::env::var_os(VARIABLE).unwrap_or_default();
        match word.to_str() {
            Some("") => Ok(Self::Kept),
            Some("model") => Ok(Self::Model),
            Some(path) if path.ends_with(".json") => Ok(Self::File(path.into())),
            _ => Err(usage!(
                "{VARIABLE} {word:?}: must be model, or a file FILE.json such as a run's tiles.json"
            )),
        }
    }
}

/// What tiles are chosen by.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Tiles {
    /// The model, for nothing was measured.
    #[default]
    Model,
    /// The model, since it was asked for.
    ModelAsAsked,
    /// The model, since what was measured cannot be used: why, and what to do.
    ModelDespite(String),
    /// Times that were measured.
    Measured(Arc<Times>),
}

impl Tiles {
    /// Of a driver, by `RECORDS_TILES`; without it, by what is kept of its GPU, which only one that runs
    /// compiled code has.
    ///
    /// # Errors
    /// A usage error for another word, and for a file that cannot be used.
    pub fn of(driver: &dyn Driver) -> Result<Self> {
        match (Wanted::find()?, driver.measured_on()) {
            (Wanted::File(path), _) => Ok(Self::Measured(Arc::new(Times::read(&path)?))),
            (Wanted::Model, Some(_)) => Ok(Self::ModelAsAsked),
            (Wanted::Kept, Some(on)) => Ok(Self::kept(&on)),
            (_, None) => Ok(Self::Model),
        }
    }

    fn kept(on: &MeasuredOn) -> Self {
        // Where nothing is kept, nothing was.
        let Ok(kept) = Kept::of(on) else { return Self::Model };
        match kept.read() {
            Ok(None) => Self::Model,
            Ok(Some(times)) => Self::Measured(Arc::new(times)),
            Err(problem) => Self::ModelDespite(problem),
        }
    }

    /// The measured times, if tiles are chosen by these.
    pub fn times(&self) -> Option<&Times> {
        match self {
            Self::Measured(times) => Some(times),
            _ => None,
        }
    }

    /// Why what was measured is not used, and what to do.
    pub fn problem(&self) -> Option<&str> {
        match self {
            Self::ModelDespite(problem) => Some(problem),
            _ => None,
        }
    }

    /// A number that is the same where the same tiles are chosen; empty by the model.
    pub fn digest(&self) -> String {
        self.times().map(Times::digest).unwrap_or_default()
    }

    /// How tiles are chosen, in a phrase.
    pub fn describe(&self) -> String {
        match self {
            Self::Model => "by the model".into(),
            Self::ModelAsAsked => format!("by the model, as {VARIABLE} says"),
            Self::ModelDespite(problem) => format!("by the model: {problem}"),
            Self::Measured(times) => {
                format!("by {} times measured on {}", times.len(), printable(&times.on.gpu))
            }
        }
    }
}

/// For people: how tiles are chosen on a GPU; `None` where there is none.
pub fn describe(on: Option<&MeasuredOn>) -> String {
    match (Wanted::find(), on) {
        (Err(error), _) => format!("unusable: {error}"),
        (Ok(Wanted::File(path)), _) => match Times::read(&path) {
            Ok(times) => format!("{}, as {VARIABLE} says", Tiles::Measured(Arc::new(times)).describe()),
            Err(error) => format!("unusable: {error}"),
        },
        (Ok(Wanted::Model), _) => Tiles::ModelAsAsked.describe(),
        (Ok(Wanted::Kept), Some(on)) => match Tiles::kept(on) {
            Tiles::Model => format!("{}; `records tune` measures them", Tiles::Model.describe()),
            tiles => tiles.describe(),
        },
        (Ok(Wanted::Kept), None) => Tiles::Model.describe(),
    }
}
