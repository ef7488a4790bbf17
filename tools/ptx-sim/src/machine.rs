//! The machine: memory that outlives launches, and launches.

use std::collections::HashMap;

use crate::counters::Counters;
use crate::error::{Result, error};
use crate::exec::{self, Context, Launch};
use crate::finding::Finding;
use crate::memory::Memory;
use crate::op::CLASSES;
use crate::program::Program;

/// How to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Varies the order in which warps run; 0 runs each as long as it can.
    pub warp_seed: u64,
    /// Warp instructions a launch may take before it counts as endless.
    pub max_instructions: u64,
    /// Findings kept of a launch; all are counted.
    pub max_findings: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { warp_seed: 0, max_instructions: 1 << 33, max_findings: 20 }
    }
}

/// What a launch left.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub counters: Counters,
    /// The first findings, one a kind and line.
    pub findings: Vec<Finding>,
    /// How often something was found.
    pub findings_total: u64,
}

/// Global memory and what runs on it.
pub struct Machine {
    settings: Settings,
    memory: Memory,
    /// Where each program's variables lie.
    variables: HashMap<u64, u64>,
}

impl Machine {
    /// An empty machine.
    pub fn new(settings: Settings) -> Self {
        Self { settings, memory: Memory::new(), variables: HashMap::new() }
    }

    /// New memory that nothing has written, 256-byte aligned, apart from all other memory. `label` appears in findings.
    pub fn allocate(&mut self, bytes: usize, label: &str) -> u64 {
        self.memory.allocate(bytes, label)
    }

    /// Gives memory back.
    ///
    /// # Errors
    /// Where `address` is not the beginning of an allocation.
    pub fn free(&mut self, address: u64) -> Result<()> {
        self.memory.free(address)
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// Where they do not lie in one allocation; so for all that follow.
    pub fn write(&mut self, address: u64, bytes: &[u8]) -> Result<()> {
        self.memory.write(address, bytes)
    }

    /// Sets bytes to one value.
    ///
    /// # Errors
    /// As [`Machine::write`].
    pub fn fill(&mut self, address: u64, len: usize, byte: u8) -> Result<()> {
        self.memory.fill(address, len, byte)
    }

    /// Copies bytes out; bytes that nothing wrote come as 0xcd.
    ///
    /// # Errors
    /// As [`Machine::write`].
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        self.memory.read(address, out)
    }

    /// How many of these bytes nothing has written.
    pub fn uninitialised(&self, address: u64, len: usize) -> usize {
        self.memory.uninitialised(address, len)
    }

    /// Makes bytes count as never written.
    ///
    /// # Errors
    /// As [`Machine::write`].
    pub fn forget(&mut self, address: u64, len: usize) -> Result<()> {
        self.memory.forget(address, len)
    }

    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// An unknown kernel, a launch that no GPU would take, arguments of the wrong size. What the kernel does wrong is a finding.
    pub fn launch(&mut self, program: &Program, kernel: &str, launch: &Launch<'_>) -> Result<Report> {
        let kernel = program.kernel(kernel)?;
        exec::check(kernel, launch)?;
        if kernel.local_bytes > 512 << 10 {
            return Err(error!("{}: {} bytes of local memory a thread", kernel.name, kernel.local_bytes));
        }
        if !self.variables.contains_key(&program.id) {
            let address = self.memory.allocate(program.variables.len(), "the program's variables");
            self.memory.write(address, &program.variables)?;
            self.variables.insert(program.id, address);
        }
        let mut context = Context {
            program,
            kernel,
            launch: *launch,
            memory: &mut self.memory,
            counters: Counters::default(),
            classes: [0; CLASSES],
            findings: Vec::new(),
            findings_total: 0,
            most_findings: self.settings.max_findings,
            variables_base: self.variables[&program.id],
            budget: self.settings.max_instructions,
            ticks: 0,
            cached: 0,
        };
        exec::run(&mut context, self.settings.warp_seed);
        let Context { counters, findings, findings_total, .. } = context;
        Ok(Report { counters, findings, findings_total })
    }
}
