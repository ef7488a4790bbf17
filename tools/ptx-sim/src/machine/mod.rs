//! The machine that a host program sees: memory, and launches.

mod graph;
mod launch;

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::isa::{Program, VariableAddress};
use crate::memory::Memory;
use crate::watch::Shadow;

pub use graph::GraphLaunch;
pub use launch::{Launch, Report};

/// What any GPU since compute 9.0 gives one block at most.
const MOST_SHARED: u32 = 227 << 10;

/// How to run launches.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host threads that blocks are spread over. Results and counters are the same for any number, if no
    /// blocks race.
    pub threads: usize,
    /// 0: each warp runs until it must wait. Otherwise warps take turns of random length in random order, by
    /// this seed.
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
    /// Where cooperative groups keep their grid's barrier, if kernels did: one for each launch of a graph.
    workspaces: Vec<u64>,
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
            workspaces: Vec::new(),
        }
    }

    /// Uninitialised memory, aligned to 256 bytes and far from any other allocation. The label names it in
    /// findings.
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

    /// Copies whole words within the machine, with what is known of which of their bytes were written.
    ///
    /// # Errors
    /// A range lies in no allocation, or is not of whole words.
    pub fn copy(&mut self, from: u64, to: u64, len: usize) -> Result<()> {
        let (source, from) = self.memory.locate(from, len, "copy")?;
        let (target, to) = self.memory.locate(to, len, "copy")?;
        if [from, to, len].iter().any(|bytes| bytes % 4 != 0) {
            return Err(Error::new(format!("a copy of {len} bytes that are no whole words")));
        }
        let [from, to, words] = [from, to, len].map(|bytes| bytes / 4);
        self.memory.get(target).copy_words(to, self.memory.get(source), from..from + words);
        self.shadows[target].written.copy(to, &self.shadows[source].written, from..from + words);
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
}
