//! What a person looks at.
//!
//! | file | what |
//! |---|---|
//! | [`published`] | the numbers of the paper |
//! | [`results`] | the table of results: ours beside the published, as text, Markdown or CSV |

pub mod published;
pub mod results;
