//! Stopping a run before its end: by signals, or when its time is up.
//!
//! | signal | sent by |
//! |---|---|
//! | SIGINT | Ctrl-C |
//! | SIGTERM | `kill`, `timeout`, a cluster that takes its machine back |
//! | SIGHUP | a terminal that closes |
//! | SIGUSR1 | SLURM some time before the limit of a job (`--signal=USR1@120`) |
//! | SIGXCPU | a limit on processor time (`ulimit -t`, SGE) |
//!
//! The first one is noted, and the run ends after the step, or the batch of an evaluation, under way; a second
//! one ends the process at once.
//! A signal that the process was started to ignore (`nohup`) stays ignored, and all other signals keep their
//! usual effect: Ctrl-Z suspends.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::Builder;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level::{exit, signal_name};

use crate::error::{TIME_IS_UP, of_signal};

/// The signals that stop a run.
const STOPPING: [i32; 5] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, libc::SIGXCPU];

/// Signals that arrive so soon after the first are one request sent twice: `timeout`, for one, signals its
/// command and then the whole process group.
const SAME_REQUEST: Duration = Duration::from_millis(500);

/// Why a run is to stop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// This signal has arrived.
    Signal(i32),
    /// The time of `--max-minutes` is up: so many minutes.
    Time(f64),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Reason::Signal(signal) => f.write_str(signal_name(signal).unwrap_or("a signal")),
            Reason::Time(minutes) => write!(f, "--max-minutes {minutes}"),
        }
    }
}

impl Reason {
    /// The program's exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Reason::Signal(signal) => of_signal(signal),
            Reason::Time(_) => TIME_IS_UP,
        }
    }
}

/// Whether a run is to stop.
#[derive(Debug, Default)]
pub struct Stop {
    /// The first signal that has arrived; 0 for none.
    caught: Arc<AtomicI32>,
    listens: OnceLock<()>,
    /// When the time is up, and how many minutes it was.
    limit: Option<(Instant, f64)>,
}

impl Stop {
    /// By signals, once [`Stop::listen`] is called, and after so many minutes from now.
    pub fn after_minutes(minutes: Option<f64>) -> Self {
        let end = |minutes: f64| {
            let time = Duration::try_from_secs_f64(minutes * 60.0).ok()?;
            Some((Instant::now().checked_add(time)?, minutes))
        };
        Self { limit: minutes.and_then(end), ..Self::default() }
    }

    /// From now on signals are noted. Until then they end the process on the spot, which is right as long as
    /// there is nothing to keep. May be called again.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn listen(&self) -> Result<()> {
        if self.listens.set(()).is_err() {
            return Ok(());
        }
        let wanted = STOPPING.into_iter().filter(|&signal| !is_ignored(signal));
        let mut signals = Signals::new(wanted).context("cannot wait for signals")?;
        let caught = self.caught.clone();
        let wait = move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                match first {
                    None => {
                        first = Some(Instant::now());
                        caught.store(signal, Ordering::SeqCst);
                        announce(signal);
                    }
                    Some(first) if first.elapsed() < SAME_REQUEST => {}
                    Some(_) => exit(i32::from(of_signal(signal))),
                }
            }
        };
        Builder::new().name("signals".into()).spawn(wait).context("cannot start a thread")?;
        Ok(())
    }

    /// Whether a pass over images goes on to its next batch. Where a run that has done a step in this process
    /// (`has_advanced`) may be stopped by its time, one that has not gets behind the evaluation, however short
    /// its time.
    pub fn lets_go_on(&self, has_advanced: bool) -> bool {
        match self.requested() {
            None => true,
            Some(Reason::Time(_)) => !has_advanced,
            Some(Reason::Signal(_)) => false,
        }
    }

    /// Why the run is to stop now, if it is.
    pub fn requested(&self) -> Option<Reason> {
        match self.caught.load(Ordering::SeqCst) {
            0 => {
                self.limit.filter(|(end, _)| Instant::now() >= *end).map(|(_, minutes)| Reason::Time(minutes))
            }
            signal => Some(Reason::Signal(signal)),
        }
    }
}

/// Tells who has just pressed Ctrl-C that it was noticed: a step can take a while.
fn announce(signal: i32) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let name = signal_name(signal).unwrap_or("signal");
        let _ = writeln!(
            terminal,
            "\r{name}: keeping the state after this step or batch; once more to end at once\x1b[K"
        );
    }
}

/// Whether the process ignores a signal.
fn is_ignored(signal: i32) -> bool {
    // SAFETY: all zeros is a value of this plain C structure.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a valid place for the answer; without a new action, nothing changes.
    let asked = unsafe { libc::sigaction(signal, std::ptr::null(), &mut action) };
    asked == 0 && action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_runs_out() {
        assert_eq!(Stop::default().requested(), None);
        assert_eq!(Stop::after_minutes(Some(60.0)).requested(), None);
        let over = Stop::after_minutes(Some(0.0)).requested().unwrap();
        assert_eq!((over.to_string().as_str(), over.exit_code()), ("--max-minutes 0", 3));
        // More minutes than any clock holds are no limit.
        assert_eq!(Stop::after_minutes(Some(1e300)).requested(), None);
    }

    #[test]
    fn a_signal_is_named_and_counted() {
        let reason = Reason::Signal(SIGTERM);
        assert_eq!((reason.to_string().as_str(), reason.exit_code()), ("SIGTERM", 143));
    }
}
