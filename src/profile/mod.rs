//! The clock: what every launch of a run does, and how long it would take on a GPU that need not be there.
//!
//! | question | file |
//! |---|---|
//! | which launches? | `plan.rs`, over a training set of which only the shape is known (`data.rs`) |

pub mod data;
pub mod plan;
