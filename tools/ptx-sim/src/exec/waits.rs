//! Host threads whose blocks wait for each other: a change may be long in coming where the thread that makes
//! it is kept from running, and never comes where all threads wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The host threads of a launch that run blocks, and what they wait for.
#[derive(Default)]
pub struct Waits {
    /// Counts changes that others may wait for.
    changes: AtomicU64,
    /// Host threads that still have blocks to run.
    running: AtomicUsize,
    /// How many of them wait that have seen this many changes, and none since.
    waiting: Mutex<(u64, usize)>,
}

/// A host thread that runs blocks, or is about to.
pub struct Running<'a>(&'a Waits);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Relaxed);
    }
}

impl Waits {
    /// A host thread runs blocks from now on, until what this returns is dropped.
    pub fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, Relaxed);
        Running(self)
    }

    /// Something changed that other blocks may wait for.
    pub fn note_change(&self) {
        self.changes.fetch_add(1, Relaxed);
    }

    /// How many changes there were.
    pub fn changes(&self) -> u64 {
        self.changes.load(Relaxed)
    }

    /// The block of the calling thread has found nothing new since that many `changes`. Waits for another, or
    /// for the launch to `stop`; false if none can come, because no thread does anything else.
    pub fn wait(&self, changes: u64, stop: &AtomicBool) -> bool {
        if let Ok(mut waiting) = self.waiting.lock() {
            let before = if waiting.0 == changes { waiting.1 } else { 0 };
            *waiting = (changes, before + 1);
        }
        loop {
            if self.changes() != changes || stop.load(Relaxed) {
                return true;
            }
            let Ok(waiting) = self.waiting.lock() else { return false };
            if *waiting == (changes, self.running.load(Relaxed)) {
                return false;
            }
            drop(waiting);
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_is_waited_for_as_long_as_somebody_may_make_it() {
        let (waits, stop) = (Waits::default(), AtomicBool::new(false));
        let running = [waits.enter(), waits.enter()];
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| waits.wait(0, &stop));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!waiter.is_finished(), "the other thread may still change something");
            waits.note_change();
            assert!(waiter.join().unwrap());
        });
        // Neither comes back to work: the one that waited first has not seen the last change.
        std::thread::scope(|scope| {
            let late = scope.spawn(|| waits.wait(0, &stop));
            assert!(late.join().unwrap());
            let both = [(); 2].map(|()| scope.spawn(|| waits.wait(1, &stop)));
            assert_eq!(both.map(|thread| thread.join().unwrap()), [false, false]);
        });
        drop(running);
    }

    #[test]
    fn a_thread_that_has_no_more_blocks_is_not_waited_for() {
        let (waits, stop) = (Waits::default(), AtomicBool::new(false));
        let (_one, other) = (waits.enter(), waits.enter());
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| waits.wait(0, &stop));
            drop(other);
            assert!(!waiter.join().unwrap());
        });
        let _other = waits.enter();
        stop.store(true, Relaxed);
        assert!(waits.wait(0, &stop));
    }
}
