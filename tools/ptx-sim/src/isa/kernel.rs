//! A decoded kernel: its instructions in order, and what a launch must set up for them.

use std::collections::HashMap;

use super::class::Class;
use super::instruction::{HostFunction, Op};
use super::types::{Constant, Reg, Special};

/// An instruction's guard in one word: twice the predicate's index, plus one if negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(pub u32);

impl Guard {
    /// No guard.
    pub const ALWAYS: Self = Self(u32::MAX);
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Step {
    pub op: Op,
    pub guard: Guard,
    pub class: Class,
    pub line: u32,
    /// RegisterFile number and line in the source.
    pub source: Option<(u32, u32)>,
}

/// Beyond the last instruction: where paths meet that only meet at the end.
pub const END: u32 = u32::MAX;

/// Generic addresses of the windows onto a block's shared memory, a thread's local memory and the parameters.
/// Each is 4 GB, far from any global address.
pub const SHARED_WINDOW: u64 = 0x7F00_0000_0000;
/// See [`SHARED_WINDOW`].
pub const LOCAL_WINDOW: u64 = 0x7F01_0000_0000;
/// See [`SHARED_WINDOW`].
pub const PARAM_WINDOW: u64 = 0x7F02_0000_0000;
/// Where pointers to functions point: nothing lies there.
pub const FUNCTION_WINDOW: u64 = 0x7F03_0000_0000;

/// A parameter of a kernel.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// As declared.
    pub name: String,
    /// Of an array: its elements'.
    pub type_name: String,
    /// In the packed parameters.
    pub offset: u32,
    /// How many bytes of them.
    pub bytes: u32,
}

/// A variable in shared memory.
#[derive(Clone, Debug)]
pub struct SharedLabel {
    /// Where it starts.
    pub offset: u32,
    /// How long it is.
    pub bytes: u32,
    /// As the source has it.
    pub name: String,
}

/// Between two variables in shared memory, so that running over the end of one is seen. A multiple of the
/// banks' 128 bytes: what conflicts on a GPU does here.
pub const SHARED_GAP: u32 = 1024;

/// Where a launch's shared memory lies.
#[derive(Clone, Copy, Debug)]
pub struct SharedLayout {
    /// Bytes on a GPU.
    pub bytes: u32,
    /// The dynamic ones of them.
    pub dynamic_bytes: u32,
    /// Where the dynamic part starts here.
    pub dynamic: u32,
    /// Where everything ends here.
    pub end: u32,
}

/// A decoded kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub name: String,
    pub steps: Vec<Step>,
    /// Rows in each file.
    pub rows: [u32; 3],
    pub constants: Vec<(Reg, Constant)>,
    pub parameters: Vec<Parameter>,
    pub parameter_bytes: u32,
    /// Static shared memory on a GPU, and what the gaps between its variables add to their places here.
    pub shared_bytes: u32,
    pub shared_gaps: u32,
    pub local_bytes: u32,
    /// Registers declared, as written: for listings.
    pub declared_registers: u64,
    pub most_threads: Option<u64>,
    /// From `.reqntid`: the block's shape.
    pub required_threads: Option<[u64; 3]>,
    /// Shared variables by offset, for findings.
    pub shared_labels: Vec<SharedLabel>,
    pub files: HashMap<u32, String>,
}

impl Kernel {
    /// Whether it calls a function that runs outside.
    pub fn calls(&self, function: HostFunction) -> bool {
        self.steps.iter().any(|step| matches!(&step.op, Op::Host(call) if call.function == function))
    }

    /// Its shared memory with so many dynamic bytes.
    pub fn shared_layout(&self, dynamic_bytes: u32) -> SharedLayout {
        let start = self.shared_bytes.next_multiple_of(16);
        let gaps = self.shared_gaps + if self.shared_labels.is_empty() { 0 } else { SHARED_GAP };
        let dynamic = start + gaps;
        let (bytes, end) = match dynamic_bytes {
            0 => (self.shared_bytes, self.shared_bytes + self.shared_gaps),
            more => (start.saturating_add(more), dynamic.saturating_add(more)),
        };
        SharedLayout { bytes, dynamic_bytes, dynamic, end }
    }

    /// Whether it synchronises its grid as cooperative groups do.
    pub fn needs_workspace(&self) -> bool {
        let low = Constant::Special(Special::WorkspaceLow);
        self.constants.iter().any(|(_, constant)| *constant == low)
    }

    /// Whether what comes out may depend on the order in which blocks run, races aside: it prints or
    /// allocates, rounds sums, or looks at what an atomic operation found. Such a kernel runs on one host
    /// thread.
    pub fn needs_order(&self) -> bool {
        self.steps.iter().any(|step| match &step.op {
            Op::Host(_) => true,
            Op::Atomic(atomic) => !atomic.commutes(),
            _ => false,
        })
    }
}

/// A variable of the module.
#[derive(Clone, Debug)]
pub struct ModuleVariable {
    pub name: String,
    pub bytes: usize,
    pub initial: Vec<u8>,
    pub addresses: Vec<VariableAddress>,
}

/// The address of another variable in a variable's initial value.
#[derive(Clone, Copy, Debug)]
pub struct VariableAddress {
    /// Where it goes, and how many bytes it takes there.
    pub offset: usize,
    pub bytes: usize,
    pub variable: usize,
    pub addend: i64,
    /// The bits of the address that are kept, moved down to the lowest.
    pub mask: u64,
}
