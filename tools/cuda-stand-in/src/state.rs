//! The one GPU of the process and its primary context: what exists, and who may call what when.

use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ptx_sim::{Machine, Settings};

use crate::capture::{Captures, Mark};
use crate::code::{Code, Result};
use crate::gpu::Gpu;
use crate::graph::Graph;
use crate::log;
use crate::module::{Function, Module};
use crate::work::Work;

/// The driver.
#[derive(Default)]
pub struct State {
    /// Set by cuInit.
    pub gpu: Option<&'static Gpu>,
    /// Kernels are loaded when they are first needed, not with their module.
    lazy: bool,
    pub context: Option<Context>,
    retained: usize,
    /// Handles given out so far.
    handles: usize,
}

/// The primary context.
pub struct Context {
    pub handle: usize,
    pub gpu: &'static Gpu,
    pub lazy: bool,
    pub machine: Machine,
    /// What `ptx-sim` knows of the GPU's rates.
    rates: Option<ptx_sim::Gpu>,
    /// Bytes of each allocation.
    pub allocations: HashMap<u64, usize>,
    pub modules: HashMap<usize, Module>,
    pub functions: HashMap<usize, Function>,
    /// When what was put into each stream is to have ended.
    pub streams: HashMap<usize, Option<Instant>>,
    pub events: HashMap<usize, Event>,
    pub graphs: HashMap<usize, Graph>,
    pub executables: HashMap<usize, Graph>,
    pub captures: Captures,
    /// Seconds of the GPU's work so far.
    pub clock: f64,
    /// How long a launch of a graph is to take, for who waits for it.
    pub graph_time: Option<Duration>,
    /// A kernel failed: every call fails from then on.
    failed: Option<Code>,
    /// An exchange with other processes never ends: the work behind it is not done, and waits find it under
    /// way.
    pub hangs: bool,
    handles: usize,
}

/// An event.
#[derive(Debug)]
pub struct Event {
    pub timed: bool,
    pub recorded: Option<Recorded>,
    /// When what was put into streams before it is to have ended.
    pub reached: Option<Instant>,
}

/// What an event was recorded as.
#[derive(Clone, Debug)]
pub enum Recorded {
    /// Seconds on the GPU's clock.
    At(f64),
    /// A place in a capture.
    Captured(Mark),
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

thread_local! {
    /// The context that is current in this thread: its handle, 0 for none.
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The last part of a wait, which is spent looking at the clock: a thread that sleeps wakes up late, while a
/// driver's wait looks at the GPU without a pause.
const WATCHED: Duration = Duration::from_millis(1);

/// Graphs of fewer nodes take no time of [`Context::graph_time`]: what is counted between two epochs takes a GPU
/// microseconds.
const NODES_OF_A_STEP: usize = 16;

/// Lasts until then.
pub fn wait_until(until: Option<Instant>) {
    let Some(until) = until else { return };
    if let Some(asleep) = until.saturating_duration_since(Instant::now()).checked_sub(WATCHED) {
        thread::sleep(asleep);
    }
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Handles are numbers that are no addresses; those of a context are counted on by it.
const HANDLE_STEP: usize = 16;

fn locked() -> MutexGuard<'static, Option<State>> {
    // A call that panicked aborted the program.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call that needs no context.
pub fn driver(name: &str, detail: &str, work: impl FnOnce(&mut State) -> Result<()>) -> c_int {
    let mut guard = locked();
    let state = guard.get_or_insert_with(State::default);
    let captured = state.context.as_ref().is_some_and(|context| context.captures.any());
    log::call(name, captured, detail);
    let result = match log::failure(name) {
        Some(code) => Err(code),
        None if state.gpu.is_none() && name != "cuInit" => Err(Code::NOT_INITIALIZED),
        None => work(state),
    };
    result.map_or_else(|code| code.0, |()| 0)
}

/// A call in this thread's current context.
pub fn context(name: &str, detail: &str, work: impl FnOnce(&mut Context) -> Result<()>) -> c_int {
    driver(name, detail, |state| {
        let current = CURRENT.get();
        let context = state.context.as_mut().filter(|context| context.handle == current);
        let context = context.ok_or(Code::INVALID_CONTEXT)?;
        context.failed.map_or(Ok(()), Err)?;
        work(context)
    })
}

/// Makes a context current in this thread.
pub fn set_current(handle: usize) {
    CURRENT.set(handle);
}

/// The context that is current in this thread.
pub fn current() -> usize {
    CURRENT.get()
}

impl State {
    /// cuInit.
    ///
    /// # Errors
    /// Not supported where STAND_IN_GPU names none.
    pub fn initialise(&mut self) -> Result<()> {
        if self.gpu.is_none() {
            self.gpu = Some(Gpu::chosen().ok_or(Code::NOT_SUPPORTED)?);
            self.lazy = !log::loads_at_once();
        }
        Ok(())
    }

    /// The GPU of that number.
    ///
    /// # Errors
    /// There is one, number 0.
    pub fn device(&self, ordinal: c_int) -> Result<&'static Gpu> {
        self.gpu.filter(|_| ordinal == 0).ok_or(Code::INVALID_DEVICE)
    }

    /// The primary context, made where there is none.
    ///
    /// # Errors
    /// As [`State::device`].
    pub fn retain(&mut self, ordinal: c_int) -> Result<usize> {
        let gpu = self.device(ordinal)?;
        self.retained += 1;
        if self.context.is_none() {
            self.handles += HANDLE_STEP;
            self.context = Some(Context::new(self.handles, gpu, self.lazy));
        }
        Ok(self.context.as_ref().map_or(0, |context| context.handle))
    }

    /// Gives it back; the last one to do so ends it with all that is in it.
    ///
    /// # Errors
    /// Nobody holds it.
    pub fn release(&mut self) -> Result<()> {
        self.retained = self.retained.checked_sub(1).ok_or(Code::INVALID_CONTEXT)?;
        if self.retained == 0 {
            self.handles = self.context.take().map_or(self.handles, |context| context.handles);
        }
        Ok(())
    }
}

impl Context {
    fn new(handle: usize, gpu: &'static Gpu, lazy: bool) -> Self {
        let settings = Settings {
            threads: log::number("STAND_IN_THREADS").unwrap_or(1) as usize,
            warp_seed: log::number("STAND_IN_WARP_SEED").unwrap_or(0),
            most_shared: gpu.shared_of_block.unsigned_abs(),
            ..Settings::default()
        };
        Self {
            handle,
            gpu,
            lazy,
            machine: Machine::new(settings),
            rates: ptx_sim::Gpu::built_in(gpu.timed_as),
            allocations: HashMap::new(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            streams: HashMap::new(),
            events: HashMap::new(),
            graphs: HashMap::new(),
            executables: HashMap::new(),
            captures: Captures::default(),
            clock: 0.0,
            graph_time: log::number("STAND_IN_GRAPH_US").map(Duration::from_micros),
            failed: None,
            hangs: false,
            handles: handle,
        }
    }

    /// A new handle.
    pub fn handle(&mut self) -> usize {
        self.handles += HANDLE_STEP;
        self.handles
    }

    /// A stream's handle, or that of the legacy stream.
    ///
    /// # Errors
    /// There is no such stream; a captured stream forbids use of the legacy one.
    pub fn stream(&mut self, handle: usize) -> Result<()> {
        match handle {
            0..=2 => self.captures.forbid(Code::STREAM_CAPTURE_IMPLICIT),
            _ if self.streams.contains_key(&handle) => Ok(()),
            _ => Err(Code::INVALID_HANDLE),
        }
    }

    /// Bytes of memory in use.
    pub fn used(&self) -> usize {
        self.allocations.values().sum()
    }

    /// Puts work into a stream: does it, or records it where the stream is captured. What goes wrong in it is
    /// seen by the next calls, not by this one.
    ///
    /// # Errors
    /// As [`Context::stream`]; an invalid capture.
    ///
    /// # Safety
    /// Host memory named in it must be valid for as many bytes, now, or whenever a graph with it is launched.
    pub unsafe fn enqueue(&mut self, stream: usize, work: Work) -> Result<()> {
        self.stream(stream)?;
        if let Some(work) = self.captures.record(stream, work)? {
            // SAFETY: the caller's promise.
            unsafe { self.perform(&work) };
        }
        Ok(())
    }

    /// Launches a graph: its work in an order that its dependencies allow.
    ///
    /// # Safety
    /// As [`Context::enqueue`].
    pub unsafe fn run(&mut self, graph: &Graph, stream: usize) {
        if let Some(time) = self.graph_time.filter(|_| graph.nodes.len() >= NODES_OF_A_STEP)
            && let Some(busy_until) = self.streams.get_mut(&stream)
        {
            let now = Instant::now();
            *busy_until = Some(busy_until.map_or(now, |until| until.max(now)) + time);
        }
        for node in graph.order(log::on("STAND_IN_LAST_FIRST")) {
            if self.failed.is_none() && !self.hangs {
                // SAFETY: the caller's promise.
                unsafe { self.perform(&graph.nodes[node].work) };
            }
        }
    }

    /// # Safety
    /// Host memory named in it must be valid for as many bytes.
    unsafe fn perform(&mut self, work: &Work) {
        if self.hangs {
            return;
        }
        // SAFETY: the caller's promise.
        match unsafe { work.perform(&mut self.machine, self.rates.as_ref()) } {
            Ok(seconds) => self.clock += seconds,
            Err(Code::NOT_READY) => self.hangs = true,
            Err(code) => self.failed = Some(code),
        }
    }

    /// When what was put into a stream is to have ended.
    pub fn busy_until(&self, stream: usize) -> Option<Instant> {
        self.streams.get(&stream).copied().flatten()
    }

    /// What a call returns that asks whether work has ended that is to last until then.
    ///
    /// # Errors
    /// Not ready before, or where an exchange never ends.
    pub fn at_end(&self, until: Option<Instant>) -> Result<()> {
        let is_ahead = until.is_some_and(|until| Instant::now() < until);
        if self.hangs || is_ahead { Err(Code::NOT_READY) } else { Ok(()) }
    }

    /// What a call that waits for the end of a stream's work returns.
    ///
    /// # Errors
    /// Launch failed where an exchange never ends: a GPU would wait for ever.
    pub fn waited(&self, stream: usize) -> Result<()> {
        if self.hangs {
            log::note("a wait for work that never ends");
            return Err(Code::LAUNCH_FAILED);
        }
        wait_until(self.busy_until(stream));
        Ok(())
    }

    /// Puts a kernel's code on the GPU, if it is not there.
    ///
    /// # Errors
    /// Loading is not permitted while a stream is captured.
    pub fn load(&mut self, function: usize) -> Result<&mut Function> {
        let found = self.functions.get_mut(&function).ok_or(Code::INVALID_HANDLE)?;
        if !found.loaded {
            let name = found.name.clone();
            self.captures.forbid(Code::STREAM_CAPTURE_UNSUPPORTED).inspect_err(|_| {
                log::note(&format!("{name} was to be loaded while a stream is captured"));
            })?;
            found.loaded = true;
        }
        Ok(found)
    }
}

/// The kernel's name of a function's handle, for the log; empty for no function.
pub fn name_of(function: usize) -> String {
    let guard = locked();
    let context = guard.as_ref().and_then(|state| state.context.as_ref());
    let found = context.and_then(|context| context.functions.get(&function));
    found.map(|function| function.name.clone()).unwrap_or_default()
}
