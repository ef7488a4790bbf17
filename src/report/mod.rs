//! Results for people to read.
//!
//! | file | what |
//! |---|---|
//! | [`published`] | the published numbers |
//! | [`results`] | the table of results beside the published numbers, as text, Markdown or CSV |

pub mod published;
pub mod results;
