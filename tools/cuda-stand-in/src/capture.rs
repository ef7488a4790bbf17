//! Streams that record work instead of doing it, and events that carry dependencies between them.

use std::collections::HashMap;
use std::thread::ThreadId;

use crate::code::{Code, Result};
use crate::graph::Graph;
use crate::work::Work;

/// How far a capture forbids unsafe calls: CU_STREAM_CAPTURE_MODE_*.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

/// A capture in progress.
#[derive(Debug)]
struct Capture {
    graph: Graph,
    origin: usize,
    mode: Mode,
    thread: ThreadId,
    /// Something forbidden was done meanwhile.
    invalid: bool,
    /// What the next work of each stream that takes part comes after.
    ends: HashMap<usize, Vec<usize>>,
}

/// What an event stands for while a capture is on: the work before it.
#[derive(Clone, Debug)]
pub struct Mark {
    capture: u64,
    ends: Vec<usize>,
}

/// All captures in progress.
#[derive(Debug, Default)]
pub struct Captures {
    list: HashMap<u64, Capture>,
    made: u64,
}

impl Captures {
    /// Whether any stream is being captured.
    pub fn any(&self) -> bool {
        !self.list.is_empty()
    }

    fn of(&mut self, stream: usize) -> Option<(u64, &mut Capture)> {
        let found = self.list.iter_mut().find(|(_, capture)| capture.ends.contains_key(&stream));
        found.map(|(number, capture)| (*number, capture))
    }

    /// Whether that stream is being captured.
    pub fn has(&self, stream: usize) -> bool {
        self.list.values().any(|capture| capture.ends.contains_key(&stream))
    }

    /// Begins to capture a stream.
    ///
    /// # Errors
    /// It is captured already; it is the legacy stream.
    pub fn begin(&mut self, stream: usize, mode: Mode) -> Result<()> {
        if stream == 0 {
            return Err(Code::STREAM_CAPTURE_UNSUPPORTED);
        }
        if self.has(stream) {
            return Err(Code::ILLEGAL_STATE);
        }
        self.made += 1;
        let capture = Capture {
            graph: Graph::default(),
            origin: stream,
            mode,
            thread: std::thread::current().id(),
            invalid: false,
            ends: HashMap::from([(stream, Vec::new())]),
        };
        self.list.insert(self.made, capture);
        Ok(())
    }

    /// Ends the capture that began in a stream.
    ///
    /// # Errors
    /// None began there; something forbidden was done meanwhile; work of another stream was not joined;
    /// another thread began it.
    pub fn end(&mut self, stream: usize) -> Result<Graph> {
        let (number, capture) = self.of(stream).ok_or(Code::ILLEGAL_STATE)?;
        if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
            return Err(Code::STREAM_CAPTURE_WRONG_THREAD);
        }
        if capture.origin != stream {
            capture.invalid = true;
            return Err(Code::STREAM_CAPTURE_UNMATCHED);
        }
        let capture = self.list.remove(&number).ok_or(Code::ILLEGAL_STATE)?;
        if capture.invalid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        let joined = &capture.ends[&stream];
        if capture.ends.values().all(|ends| capture.graph.are_before(ends, joined)) {
            Ok(capture.graph)
        } else {
            Err(Code::STREAM_CAPTURE_UNJOINED)
        }
    }

    /// Records work if the stream is captured; gives it back if not.
    ///
    /// # Errors
    /// The capture is invalid.
    pub fn record(&mut self, stream: usize, work: Work) -> Result<Option<Work>> {
        let Some((_, capture)) = self.of(stream) else { return Ok(Some(work)) };
        if capture.invalid {
            return Err(Code::STREAM_CAPTURE_INVALIDATED);
        }
        let after = capture.ends.remove(&stream).unwrap_or_default();
        let node = capture.graph.push(work, after);
        capture.ends.insert(stream, vec![node]);
        Ok(None)
    }

    /// What an event recorded in a stream stands for, if the stream is captured.
    pub fn mark(&mut self, stream: usize) -> Option<Mark> {
        let (number, capture) = self.of(stream)?;
        Some(Mark { capture: number, ends: capture.ends[&stream].clone() })
    }

    /// Makes a stream's next work come after a mark; a stream that is not captured joins the capture.
    ///
    /// # Errors
    /// The mark's capture has ended, or the stream takes part in another.
    pub fn wait(&mut self, stream: usize, mark: &Mark) -> Result<()> {
        if let Some((number, capture)) = self.of(stream)
            && number != mark.capture
        {
            capture.invalid = true;
            return Err(Code::STREAM_CAPTURE_MERGE);
        }
        let capture = self.list.get_mut(&mark.capture).ok_or(Code::INVALID_VALUE)?;
        let ends = capture.ends.entry(stream).or_default();
        ends.extend(&mark.ends);
        ends.sort_unstable();
        ends.dedup();
        Ok(())
    }

    /// A call that a captured stream cannot take: it makes the capture invalid.
    ///
    /// # Errors
    /// `code` if the stream is captured.
    pub fn forbid_in(&mut self, stream: usize, code: Code) -> Result<()> {
        match self.of(stream) {
            Some((_, capture)) => {
                capture.invalid = true;
                Err(code)
            }
            None => Ok(()),
        }
    }

    /// A call that may not be made while this thread captures, or another one in global mode: it makes the
    /// capture invalid.
    ///
    /// # Errors
    /// `code` then.
    pub fn forbid(&mut self, code: Code) -> Result<()> {
        let here = std::thread::current().id();
        let mut found = false;
        for capture in self.list.values_mut() {
            let concerns = match capture.mode {
                Mode::Global => true,
                Mode::ThreadLocal => capture.thread == here,
                Mode::Relaxed => false,
            };
            if concerns {
                capture.invalid = true;
                found = true;
            }
        }
        if found { Err(code) } else { Ok(()) }
    }
}
