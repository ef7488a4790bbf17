//! The machine that a host program sees: memory, and launches.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use crate::error::{Error, Result};
use crate::exec::{self, Heap, LaunchState};
use crate::isa::{HostFunction, Kernel, Program, VariableAddress};
use crate::memory::Memory;
use crate::watch::{Counters, Finding, Findings, MOST_TAG, Shadow, Signals, Subject, Watch};

/// What any GPU since compute 9.0 gives one block at most.
const MOST_SHARED: u32 = 227 << 10;
/// What CUDA gives kernels for `malloc` by default.
const HEAP: u64 = 8 << 20;
/// Bytes that cooperative groups use of a grid, and some more.
const WORKSPACE: usize = 256;
const MOST_THREADS: u64 = 1024;
const MOST_BLOCK: [u32; 3] = [1024, 1024, 64];
const MOST_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];

/// Where the dynamic shared memory starts, and the bytes of both parts.
fn shared_memory(kernel: &Kernel, launch: &Launch<'_>) -> (u32, u32) {
    let dynamic = kernel.shared_bytes.next_multiple_of(16);
    match launch.shared_bytes {
        0 => (dynamic, kernel.shared_bytes),
        bytes => (dynamic, dynamic.saturating_add(bytes)),
    }
}

/// How to run launches.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host threads that blocks are spread over. Results and counters are the same for any number, if no blocks race.
    pub threads: usize,
    /// 0: each warp runs until it must wait. Otherwise warps take turns of random length in random order, by this seed.
    pub warp_seed: u64,
    /// Warp instructions after which a launch is given up as one that never ends.
    pub max_instructions: u64,
    /// Findings kept of one launch; all are counted.
    pub max_findings: usize,
    /// Bytes of shared memory a block may have, static and dynamic together.
    pub most_shared: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threads: 1,
            warp_seed: 0,
            max_instructions: 20_000_000_000,
            max_findings: 20,
            most_shared: MOST_SHARED,
        }
    }
}

/// Device memory and the modules loaded on it.
pub struct Machine {
    settings: Settings,
    memory: Memory,
    /// What is known of each allocation.
    shadows: Vec<Shadow>,
    /// Addresses of each program's variables.
    modules: HashMap<u64, Vec<u64>>,
    launches: u64,
    /// Where the memory lies that kernels allocate, if one did, and how much of it they took.
    heap: Option<u64>,
    heap_used: u64,
    /// Where cooperative groups keep their grid's barrier, if a kernel did.
    workspace: Option<u64>,
}

/// One launch.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Dynamic shared memory in bytes.
    pub shared_bytes: u32,
    /// Every block runs at the same time as every other, so that they may wait for each other.
    pub cooperative: bool,
    /// The parameters, packed at natural alignment.
    pub arguments: &'a [u8],
}

/// What a launch did.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct Report {
    /// What it cost.
    pub counters: Counters,
    /// What is wrong, up to the number of the settings: one for each instruction and kind.
    pub findings: Vec<Finding>,
    /// How often something was wrong, lane by lane.
    pub findings_total: u64,
    /// What the kernel printed, up to 1 MiB.
    pub printed: String,
}

impl Machine {
    /// A machine without memory.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            memory: Memory::new(),
            shadows: Vec::new(),
            modules: HashMap::new(),
            launches: 0,
            heap: None,
            heap_used: 0,
            workspace: None,
        }
    }

    /// Uninitialised memory, aligned to 256 bytes and far from any other allocation. The label names it in findings.
    ///
    /// # Panics
    /// The host has not that much memory; [`Machine::try_allocate`] says so instead.
    pub fn allocate(&mut self, bytes: usize, label: &str) -> u64 {
        self.try_allocate(bytes, label).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same, or why there is no such memory.
    ///
    /// # Errors
    /// The host has not that much memory.
    pub fn try_allocate(&mut self, bytes: usize, label: &str) -> Result<u64> {
        let shadow = Shadow::new(bytes);
        let shadow = shadow.ok_or_else(|| Error::new(format!("no memory for {label:?} of {bytes} bytes")))?;
        let address = self.memory.try_allocate(bytes, label)?;
        self.shadows.push(shadow);
        Ok(address)
    }

    /// Gives an allocation back. Its addresses are never used again.
    ///
    /// # Errors
    /// No allocation starts there.
    pub fn free(&mut self, address: u64) -> Result<()> {
        self.shadows.remove(self.memory.free(address)?);
        Ok(())
    }

    /// Copies from the host.
    ///
    /// # Errors
    /// The range lies in no allocation.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.put(address, bytes.len(), "write", |at| bytes[at])
    }

    /// Sets every byte of a range.
    ///
    /// # Errors
    /// The range lies in no allocation.
    pub fn fill(&mut self, address: u64, len: usize, byte: u8) -> Result<()> {
        self.put(address, len, "fill", |_| byte)
    }

    fn put(&mut self, address: u64, len: usize, doing: &str, byte: impl Fn(usize) -> u8) -> Result<()> {
        let (index, offset) = self.memory.locate(address, len, doing)?;
        self.memory.get(index).put(offset, len, byte);
        self.shadows[index].written.fill(offset, len);
        Ok(())
    }

    /// Copies to the host. Bytes that nothing wrote come back as 0xCD.
    ///
    /// # Errors
    /// The range lies in no allocation.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        let (index, offset) = self.memory.locate(address, out.len(), "read")?;
        self.memory.get(index).read(offset, out);
        self.shadows[index].written.poison(offset, out);
        Ok(())
    }

    /// How many bytes of a range nothing wrote: all of them, if there is no such memory.
    pub fn uninitialised(&self, address: u64, len: usize) -> usize {
        match self.memory.locate(address, len, "look at") {
            Ok((index, offset)) => self.shadows[index].written.missing(offset, len),
            Err(_) => len,
        }
    }

    /// Makes bytes count as never written.
    ///
    /// # Errors
    /// The range lies in no allocation.
    pub fn forget(&mut self, address: u64, len: usize) -> Result<()> {
        let (index, offset) = self.memory.locate(address, len, "forget")?;
        self.shadows[index].written.forget(offset, len);
        Ok(())
    }

    /// The address of a program's global variable, loading the program if need be.
    ///
    /// # Errors
    /// The program has no variable of that name.
    pub fn global(&mut self, program: &Program, name: &str) -> Result<u64> {
        let index = program.variables.iter().position(|variable| variable.name == name);
        let index = index.ok_or_else(|| Error::new(format!("the program has no variable {name}")))?;
        self.load(program)?;
        let addresses = self.modules.get(&program.id);
        addresses
            .and_then(|list| list.get(index))
            .copied()
            .ok_or_else(|| Error::new("the program is not loaded"))
    }

    /// Places a program's variables in memory, once.
    fn load(&mut self, program: &Program) -> Result<()> {
        if self.modules.contains_key(&program.id) {
            return Ok(());
        }
        let addresses: Vec<u64> =
            program.variables.iter().map(|v| self.try_allocate(v.bytes, &v.name)).collect::<Result<_>>()?;
        for (variable, address) in program.variables.iter().zip(&addresses) {
            self.fill(*address, variable.bytes, 0)?;
            let initial = &variable.initial[..variable.initial.len().min(variable.bytes)];
            self.write(*address, initial)?;
            for VariableAddress { offset, bytes, variable, addend, mask } in &variable.addresses {
                let value = addresses[*variable].wrapping_add(*addend as u64);
                let value = (value & mask) >> mask.trailing_zeros();
                self.write(address + *offset as u64, &value.to_le_bytes()[..*bytes])?;
            }
        }
        self.modules.insert(program.id, addresses);
        Ok(())
    }

    /// The heap's address, if the kernel needs one.
    fn heap_for(&mut self, kernel: &Kernel) -> Result<u64> {
        if self.heap.is_none() && kernel.calls(HostFunction::Allocate) {
            self.heap = Some(self.try_allocate(HEAP as usize, "the device's heap")?);
        }
        Ok(self.heap.unwrap_or(0))
    }

    /// A fresh workspace for the grid's barrier, if the kernel needs one.
    fn workspace_for(&mut self, kernel: &Kernel) -> Result<u64> {
        if !kernel.needs_workspace() {
            return Ok(0);
        }
        let address = match self.workspace {
            Some(address) => address,
            None => self.try_allocate(WORKSPACE, "the grid's workspace")?,
        };
        self.workspace = Some(address);
        self.fill(address, WORKSPACE, 0)?;
        Ok(address)
    }

    /// Refuses a launch that no GPU would accept.
    fn check(&self, kernel: &Kernel, launch: &Launch<'_>) -> Result<()> {
        let wrong = |message: String| Err(Error::new(message));
        let Launch { grid, block, .. } = *launch;
        let threads: u64 = block.iter().map(|size| u64::from(*size)).product();
        if threads == 0 || grid.contains(&0) {
            return wrong("an empty grid or block".into());
        }
        if block[0] > MOST_BLOCK[0] || block[1] > MOST_BLOCK[1] || block[2] > MOST_BLOCK[2] {
            return wrong(format!("a block of {block:?}; the most is 1024, 1024, 64"));
        }
        if threads > MOST_THREADS {
            return wrong(format!("{threads} threads in a block; the most is {MOST_THREADS}"));
        }
        if let Some(most) = kernel.most_threads.filter(|most| threads > *most) {
            return wrong(format!("{threads} threads in a block; its launch bounds say {most}"));
        }
        if let Some(shape) = kernel.required_threads.filter(|shape| *shape != block.map(u64::from)) {
            return wrong(format!("a block of {block:?}; the kernel requires {shape:?}"));
        }
        if grid[0] > MOST_GRID[0] || grid[1] > MOST_GRID[1] || grid[2] > MOST_GRID[2] {
            return wrong(format!("a grid of {grid:?}; the most is 2147483647, 65535, 65535"));
        }
        let (_, shared) = shared_memory(kernel, launch);
        let most = self.settings.most_shared;
        if shared > most {
            return wrong(format!("{shared} bytes of shared memory; the most is {most}"));
        }
        if launch.arguments.len() != kernel.parameter_bytes as usize {
            let (given, wanted) = (launch.arguments.len(), kernel.parameter_bytes);
            return wrong(format!("{given} bytes of parameters; the kernel has {wanted}"));
        }
        let blocks: u64 = grid.iter().map(|size| u64::from(*size)).product();
        if launch.cooperative && blocks > 4096 {
            return wrong(format!("{blocks} blocks at the same time; no GPU holds more than 4096"));
        }
        Ok(())
    }

    /// Runs a kernel.
    ///
    /// # Errors
    /// No such kernel, or a launch that no GPU would accept. What the kernel itself does wrong is in the report.
    pub fn launch(&mut self, program: &Program, kernel: &str, launch: &Launch<'_>) -> Result<Report> {
        let Some(found) = program.kernel(kernel) else {
            let names: Vec<_> = program.kernels().collect();
            return Err(Error::new(format!("no kernel {kernel}; there are: {}", names.join(", "))));
        };
        let found = found.as_ref().map_err(Error::clone)?;
        self.check(found, launch).map_err(|error| Error::new(format!("launch of {kernel}: {error}")))?;
        self.load(program)?;
        let (dynamic, shared) = shared_memory(found, launch);
        let heap = self.heap_for(found)?;
        let workspace = if launch.cooperative { self.workspace_for(found)? } else { 0 };
        self.launches += 1;
        let tag = (self.launches - 1) % MOST_TAG + 1;
        if tag == 1 && self.launches > 1 {
            self.shadows.iter().for_each(|shadow| shadow.histories.forget());
        }
        let (threads, cooperative) = (self.settings.threads.clamp(1, 256), launch.cooperative);
        let subject = Subject {
            kernel: found,
            memory: &self.memory,
            shadows: &self.shadows,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: shared,
            dynamic_shared: dynamic,
            tag,
            signals: Signals::default(),
        };
        let state = LaunchState {
            kernel: found,
            memory: &self.memory,
            params: launch.arguments,
            grid: launch.grid,
            block: launch.block,
            shared_bytes: shared,
            dynamic_shared: dynamic,
            cooperative,
            seed: self.settings.warp_seed,
            variables: self.modules.get(&program.id).map_or(&[], |list| list.as_slice()),
            alone: threads == 1 || cooperative || found.needs_order(),
            fast: exec::fast(),
            atomics: Mutex::new(()),
            workspace,
            heap: Heap { base: heap, bytes: HEAP, used: self.heap_used.into() },
            budget: AtomicU64::new(self.settings.max_instructions.min(u64::MAX / 4)),
            next: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        };
        let parts = exec::run(&state, threads, || Watch::new(&subject));
        self.heap_used = state.heap.used.into_inner();
        Ok(report(parts, &self.shadows, self.settings.max_findings))
    }
}

/// What the host threads of a launch found, put together.
fn report(parts: Vec<(Watch<'_>, Vec<u8>)>, shadows: &[Shadow], most: usize) -> Report {
    let (mut counters, mut findings, mut printed) = (Counters::default(), Findings::default(), vec![]);
    for (watch, text) in parts {
        let (cost, found) = watch.finish();
        counters += &cost;
        findings.merge(found);
        printed.extend(text);
    }
    counters.launches = 1;
    for (read, stored) in shadows.iter().map(|shadow| shadow.sectors.take()) {
        counters.unique_load_sectors += read;
        counters.unique_store_sectors += stored;
    }
    let findings_total = findings.total;
    Report {
        counters,
        findings: findings.into_list(most),
        findings_total,
        printed: String::from_utf8_lossy(&printed).into_owned(),
    }
}
