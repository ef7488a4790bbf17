//! Noticing processes that do not take part any more.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use super::calls::{Communicator, Request};
use crate::collective::members::Member;
use crate::usage;

/// Tags of what the processes say to each other: that they end and why, a question, and the answer to it.
const LEAVES: i32 = 1;
const ASKS: i32 = 2;
const ANSWERS: i32 = 3;

/// How long a wait is between two looks at the other processes.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// How long to wait for answers, and for the others to hear that this process ends.
const FOR_ANSWERS: Duration = Duration::from_secs(2);
/// How long to listen, once all others have heard that this process ends, whether they end for themselves.
const BETWEEN_WORDS: Duration = Duration::from_millis(200);

/// What is known of the other processes.
pub(super) struct Watch {
    rank: usize,
    size: usize,
    talk: Communicator,
    limit: Duration,
    /// Names of the processes in errors.
    names: Vec<String>,
    /// The numbers of those processes that run on this machine.
    neighbours: Vec<(usize, i32)>,
    last_look: Instant,
    /// Processes that have said that they end.
    ending: HashSet<usize>,
    /// Processes that have ended without a word, or do not answer.
    lost: HashSet<usize>,
    /// Whether this process has told the others that it ends, or need not.
    told: bool,
    /// Answers and farewells under way.
    sent: Vec<Request>,
}

impl Watch {
    pub fn new(rank: usize, size: usize, talk: Communicator, limit: Duration) -> Self {
        Self {
            rank,
            size,
            talk,
            limit,
            names: (0..size).map(|rank| format!("rank {rank}")).collect(),
            neighbours: Vec::new(),
            last_look: Instant::now(),
            ending: HashSet::new(),
            lost: HashSet::new(),
            told: false,
            sent: Vec::new(),
        }
    }

    /// Takes over who the processes are.
    pub fn know(&mut self, members: &[Member]) {
        self.names = members.iter().enumerate().map(|(rank, member)| member.named(rank)).collect();
        let here = &members[self.rank].machine;
        let near = members.iter().enumerate().filter(|(_, member)| member.machine == *here);
        self.neighbours =
            near.filter(|(rank, _)| *rank != self.rank).map(|(rank, m)| (rank, m.process)).collect();
    }

    /// Whether MPI can be finalised, which waits for all processes: nobody has ended, or is about to.
    pub fn is_orderly(&self) -> bool {
        self.lost.is_empty() && self.ending.is_empty() && !self.told
    }

    /// Looks, now and then, whether the processes that a call has waited for are still there.
    ///
    /// # Errors
    /// The reason that a process gives for its end; a process that has ended, or says nothing any more.
    pub fn look(&mut self, waited: Duration) -> Result<()> {
        if self.last_look.elapsed() < BETWEEN_LOOKS {
            return Ok(());
        }
        self.last_look = Instant::now();
        if let Some((rank, message)) = self.talk.arrived(LEAVES)? {
            return Err(self.reason(rank, &message));
        }
        self.answer()?;
        if let Some(&(rank, _)) = self.neighbours.iter().find(|(_, process)| !is_alive(*process)) {
            // It may have said why before it ended.
            self.lost.insert(rank);
            return match self.talk.arrived(LEAVES)? {
                Some((rank, message)) => Err(self.reason(rank, &message)),
                None => Err(anyhow!(
                    "{} has ended without a word; see its own output, and go on from the last checkpoint with \
                     --resume",
                    self.names[rank]
                )),
            };
        }
        if waited > self.limit {
            return Err(self.silent()?);
        }
        Ok(())
    }

    /// Answers the processes that ask whether this one is there.
    fn answer(&mut self) -> Result<()> {
        self.sent.retain_mut(|request| !request.test().unwrap_or(true));
        while let Some((rank, _)) = self.talk.arrived(ASKS)? {
            self.sent.push(self.talk.send(Vec::new(), rank, ANSWERS)?);
        }
        Ok(())
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let own = self.rank;
        (0..self.size).filter(move |rank| *rank != own)
    }

    /// Asks all processes whether they are there; the error names those that do not answer.
    fn silent(&mut self) -> Result<anyhow::Error> {
        for rank in self.others() {
            self.sent.push(self.talk.send(Vec::new(), rank, ASKS)?);
        }
        let mut silent: Vec<usize> = self.others().collect();
        let began = Instant::now();
        while began.elapsed() < FOR_ANSWERS && !silent.is_empty() {
            while let Some((rank, _)) = self.talk.arrived(ANSWERS)? {
                silent.retain(|silent| *silent != rank);
            }
            if let Some((rank, message)) = self.talk.arrived(LEAVES)? {
                return Ok(self.reason(rank, &message));
            }
            self.answer()?;
            thread::sleep(Duration::from_millis(5));
        }
        self.lost.extend(&silent);
        let seconds = self.limit.as_secs_f64();
        if silent.is_empty() {
            return Ok(anyhow!(
                "the processes wait for each other for more than {seconds} s, and all are there: one is far slower, \
                 or they do not do the same; give them more time with --world-timeout"
            ));
        }
        let names: Vec<&str> = silent.iter().map(|&rank| &*self.names[rank]).collect();
        Ok(anyhow!(
            "no answer from {} for {seconds} s (--world-timeout): stopped, stuck or cut off; go on from the last \
             checkpoint with --resume",
            names.join(", ")
        ))
    }

    /// The error of this process where another has ended with that message, which it has sent to all.
    fn reason(&mut self, rank: usize, message: &[u8]) -> anyhow::Error {
        self.ending.insert(rank);
        self.told = true;
        let (code, line) = message.split_first().unwrap_or((&1, &[]));
        let line = format!("{} has ended: {}", self.names[rank], String::from_utf8_lossy(line));
        if *code == 2 { usage!("{line}") } else { anyhow!("{line}") }
    }

    /// Tells all processes that this one ends, unless another has told all that it does.
    pub fn leave(&mut self, code: u8, line: &str) {
        // The launcher asks the others to end as soon as one has; each ends by itself, and says why.
        // SAFETY: ignoring a signal runs no code.
        unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let message: Vec<u8> = [code].into_iter().chain(line.bytes()).collect();
        let send = |rank| self.talk.send(message.clone(), rank, LEAVES).ok();
        let there = self.others().filter(|rank| !self.lost.contains(rank));
        let mut sent: Vec<Request> = there.filter_map(send).collect();
        let (began, mut heard) = (Instant::now(), Instant::now());
        // Those that end for a reason of their own say so; those that have heard of this one do not.
        while began.elapsed() < FOR_ANSWERS
            && self.ending.len() + self.lost.len() + 1 < self.size
            && !(sent.is_empty() && heard.elapsed() > BETWEEN_WORDS)
        {
            while let Ok(Some((rank, _))) = self.talk.arrived(LEAVES) {
                self.ending.insert(rank);
            }
            let before = sent.len();
            sent.retain_mut(|request| !request.test().unwrap_or(true));
            if sent.len() < before {
                heard = Instant::now();
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whether a process of this machine is there.
fn is_alive(process: i32) -> bool {
    // SAFETY: signal 0 only asks.
    let asked = unsafe { libc::kill(process, 0) };
    asked == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// Does `work`, which cannot be interrupted; ends the process with a line if that takes longer than `limit`.
pub(crate) fn or_end<T>(limit: Duration, line: String, work: impl FnOnce() -> T) -> T {
    let done = Arc::new(AtomicBool::new(false));
    let seen = done.clone();
    let watch = move || {
        let began = Instant::now();
        while began.elapsed() < limit {
            if seen.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        if !seen.load(Ordering::SeqCst) {
            eprintln!("error: {line}");
            std::process::exit(2);
        }
    };
    // Without the thread the launcher's own time limit is left.
    let _ = thread::Builder::new().name("a time limit".into()).spawn(watch);
    let result = work();
    done.store(true, Ordering::SeqCst);
    result
}
