//! What a run writes for people to look at, beside the files that it goes on from.
//!
//! | file | what | made of |
//! |---|---|---|
//! | `samples.jsonl` | how the confidence of a few samples moves | the confidence rows, a line each epoch ([`samples`]) |
//! | `confusion.json` | the confusion matrix of the last test | its predictions ([`confusion`]) |
//! | `metrics.csv` | the results as a table | metrics.jsonl ([`csv`]) |
//! | `events.out.tfevents...` | the results for TensorBoard | metrics.jsonl ([`events`]) |
//! | `report.html` | the report | all of these |
//!
//! A run needs none of them: of one that cannot be written it is said so, the run goes on, and the next
//! resume puts it right. All but the report, which shows wall times, have the same bytes after a kill and a
//! resume.

pub mod confusion;
pub mod csv;
pub mod events;
pub mod files;
pub mod samples;

pub use confusion::Confusion;
pub use files::ObservedFiles;
pub use samples::{SampleRows, TrackedSamples};

/// What is seen of a finished epoch besides its results.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The confidences of the tracked samples.
    pub samples: Option<SampleRows>,
    /// Of the test, in epochs that are evaluated.
    pub confusion: Option<Confusion>,
}
