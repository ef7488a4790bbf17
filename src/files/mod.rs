//! The one way this program reads and writes files that a user names.

mod read;
mod write;

pub use read::{open_regular, read_whole};
pub use write::write_atomically;
