//! A decoded module: kernels ready to run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::decode;
use crate::error::{Result, error};
use crate::op::Instruction;
use crate::parse;

/// A special register whose value differs between threads or blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    Thread(u8),
    Threads(u8),
    Block(u8),
    Blocks(u8),
    Lane,
    Warp,
    Warps,
    Multiprocessor,
    LaneMask(&'static str),
    DynamicShared,
    /// Where dynamic shared memory begins.
    DynamicStart,
    TotalShared,
}

/// What a register that no instruction writes holds from the start.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    Value(u64),
    /// Offset into the module's variables in global memory.
    Variable(u64),
    Special(Special),
}

/// A kernel parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub name: String,
    pub offset: usize,
    pub bytes: usize,
}

/// A kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub name: String,
    pub parameters: Vec<Parameter>,
    pub parameter_bytes: usize,
    /// Static shared memory; dynamic memory follows at `dynamic_shared`.
    pub shared_bytes: usize,
    pub dynamic_shared: usize,
    pub local_bytes: usize,
    /// Registers: 32-bit, 64-bit, predicates.
    pub registers: [usize; 3],
    pub(crate) presets32: Vec<(u32, Preset)>,
    pub(crate) presets64: Vec<(u32, Preset)>,
    /// The predicate that holds from the start, where one is named; its opposite is false as all are.
    pub(crate) true_predicate: Option<u32>,
    pub(crate) code: Vec<Instruction>,
    /// Bytes of shared memory that one cell of the checks stands for: the smallest store.
    pub(crate) shared_granule: usize,
}

/// A module, parsed and decoded.
#[derive(Clone, Debug)]
pub struct Program {
    pub(crate) id: u64,
    pub(crate) kernels: Vec<Kernel>,
    by_name: HashMap<String, usize>,
    /// Initial bytes of the module's global and constant variables.
    pub(crate) variables: Vec<u8>,
    pub(crate) files: HashMap<u32, String>,
}

impl Program {
    /// Parses and decodes PTX text.
    ///
    /// # Errors
    /// The line and what is wrong or not supported there, with the kernel and the instruction.
    pub fn parse(ptx: &str) -> Result<Program> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let module = parse::parse(ptx)?;
        let layout = decode::Layout::of(&module)?;
        let mut kernels = Vec::new();
        for function in module.functions.iter().filter(|f| f.is_kernel && f.defined) {
            let kernel = decode::kernel(&module, &layout, function)
                .map_err(|reason| error!("kernel {}: {reason}", function.name))?;
            kernels.push(kernel);
        }
        let by_name = kernels.iter().enumerate().map(|(i, kernel)| (kernel.name.clone(), i)).collect();
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Ok(Program { id, kernels, by_name, variables: layout.bytes, files: module.files })
    }

    /// The kernels in the file's order.
    pub fn kernels(&self) -> impl Iterator<Item = &Kernel> {
        self.kernels.iter()
    }

    /// The kernel called `name`.
    ///
    /// # Errors
    /// Names the kernels there are.
    pub fn kernel(&self, name: &str) -> Result<&Kernel> {
        self.by_name.get(name).map(|&index| &self.kernels[index]).ok_or_else(|| {
            let known: Vec<&str> = self.kernels.iter().map(|kernel| kernel.name.as_str()).collect();
            error!("no kernel {name}; the file has {}", known.join(", "))
        })
    }
}
