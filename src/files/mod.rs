//! All reading and writing of files: those that a user names, and those that the program makes for itself in
//! folders that others may write to.

mod lock;
mod own;
mod read;
mod target;
mod temporary;
mod write;

pub use lock::{Lock, LockError};
pub use own::{NotOwn, open_own};
pub use read::{open_for_reading_without_links, open_regular, read_whole};
pub use target::is_file;
pub use temporary::remove_leftovers;
pub use write::{link_whole, unwritable, write_atomically, write_private};

/// Flags for opening a path of unknown kind: opening never waits for the other end of a pipe and never makes
/// a terminal the controlling one.
fn careful() -> i32 {
    use rustix::fs::OFlags;
    (OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32
}

/// As [`careful`], but fails if the last part of the path is a symbolic link.
fn careful_without_links() -> i32 {
    careful() | rustix::fs::OFlags::NOFOLLOW.bits() as i32
}
