//! Results for people to read.
//!
//! | file | what |
//! |---|---|
//! | [`published`] | the published numbers |
//! | [`results`] | the table of results beside the published numbers, as text, Markdown or CSV |
//! | [`run_view`] | a run as its folder shows it, read while it goes on |
//! | [`page`] | the report of a run as a page for a browser |
//! | [`serve`] | that page over HTTP, to this machine alone |
//! | [`comparison`] | several runs and seeds beside each other |

pub mod comparison;
pub mod page;
pub mod published;
pub mod results;
pub mod run_view;
pub mod serve;
