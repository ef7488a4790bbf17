//! A kernel launch as plain data: which kernel, how many threads, which arguments.

use std::marker::PhantomData;

use super::exchange::Exchange;
use super::sources::Source;
use super::work::Work;

/// A kernel: an `extern "C"` function of a CUDA C++ file, of this program's or of a caller's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    /// The file; one from outside may include the headers of `kernels/`.
    pub source: &'static Source,
    /// Function name.
    pub name: &'static str,
}

/// A kernel that takes the parameters `P`, so that it cannot be launched with those of another.
#[derive(Debug)]
pub struct KernelOf<P> {
    /// The kernel.
    pub kernel: Kernel,
    parameters: PhantomData<fn(P)>,
}

impl<P> Clone for KernelOf<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for KernelOf<P> {}

impl<P> PartialEq for KernelOf<P> {
    fn eq(&self, other: &Self) -> bool {
        self.kernel == other.kernel
    }
}

/// A kernel's parameters by name. build.rs writes the structures that implement it, from the kernels' own
/// signatures.
pub trait Parameters {
    /// The parameters in the order of the signature.
    fn pack(self) -> Arguments;
}

/// A structure that a kernel takes by value; build.rs writes those that implement it, too.
pub trait Structure {
    /// The members in their order.
    fn members(self) -> Arguments;
}

/// A kernel that takes one structure and nothing else.
impl<S: Structure> Parameters for S {
    fn pack(self) -> Arguments {
        Arguments::new().structure(self)
    }
}

impl<P: Parameters> KernelOf<P> {
    /// The kernel `name` of `source`.
    pub const fn new(source: &'static Source, name: &'static str) -> Self {
        Self { kernel: Kernel { source, name }, parameters: PhantomData }
    }

    /// A launch of `blocks` blocks of `threads` threads, both along x.
    pub fn linear(self, blocks: usize, threads: usize, parameters: P) -> Launch {
        Launch::linear(self.kernel, blocks, threads, parameters.pack())
    }
}

/// Where an operand of a kernel lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// In device memory; 0 is a null pointer.
    Device(u64),
    /// So many bytes from the start of the workspace, which is known once everything is lowered.
    Workspace(usize),
}

impl Address {
    /// No operand.
    pub const NULL: Self = Self::Device(0);

    /// The address `bytes` further on.
    pub fn plus(self, bytes: usize) -> Self {
        match self {
            Self::Device(address) => Self::Device(address + bytes as u64),
            Self::Workspace(offset) => Self::Workspace(offset + bytes),
        }
    }
}

impl From<u64> for Address {
    fn from(address: u64) -> Self {
        Self::Device(address)
    }
}

/// One launch. Equal launches do equal work: everything that changes from step to step lies in device memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// What is launched.
    pub kernel: Kernel,
    /// Blocks in x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y, z.
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes a block.
    pub shared_bytes: u32,
    /// Whether all blocks must be resident at once, for barriers over the grid.
    pub cooperative: bool,
    /// Its parameters, in order.
    pub arguments: Arguments,
    /// What it does, for predictions; every launch of a lowered operation has it.
    pub work: Option<Box<Work>>,
    /// The operation that it was lowered from, or the first of two that it does together.
    pub operation: &'static str,
    /// What it does with other GPUs, in a kernel's place.
    pub exchange: Option<Box<Exchange>>,
}

impl Launch {
    /// A launch of `blocks` blocks of `threads` threads, both along x.
    pub fn linear(kernel: Kernel, blocks: usize, threads: usize, arguments: Arguments) -> Self {
        Self {
            kernel,
            grid: [blocks as u32, 1, 1],
            block: [threads as u32, 1, 1],
            shared_bytes: 0,
            cooperative: false,
            arguments,
            work: None,
            operation: "",
            exchange: None,
        }
    }

    /// What it does.
    ///
    /// # Panics
    /// Where its lowering has not said that.
    pub fn known_work(&self) -> &Work {
        self.work.as_ref().expect("a launch with its work")
    }

    /// The same launch, with what it does.
    #[must_use]
    pub fn doing(self, work: Work) -> Self {
        Self { work: Some(Box::new(work)), ..self }
    }

    /// Blocks of the grid.
    pub fn blocks(&self) -> usize {
        self.grid.iter().map(|&extent| extent as usize).product()
    }

    /// Warps of a block.
    pub fn warps(&self) -> usize {
        self.block.iter().map(|&extent| extent as usize).product::<usize>().div_ceil(32)
    }

    /// Moves what it uses of the workspace `bytes` further on.
    pub fn shift_workspace(&mut self, bytes: usize) {
        self.arguments.shift_workspace(bytes);
        if let Some(exchange) = &mut self.exchange {
            exchange.shift_workspace(bytes);
        }
        if let Some(work) = &mut self.work {
            work.shift_workspace(bytes);
        }
    }

    /// Puts the workspace at the address `start`.
    pub fn place_workspace(&mut self, start: u64) {
        self.arguments.place_workspace(start);
        if let Some(exchange) = &mut self.exchange {
            exchange.place_workspace(start);
        }
        if let Some(work) = &mut self.work {
            work.place_workspace(start);
        }
    }
}

/// A kernel's parameters, packed as the driver wants them: each at its natural alignment, in the order of the
/// signature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
    /// Where in `bytes` an address stands.
    addresses: Vec<usize>,
    /// Where in `bytes` an offset into the workspace stands that is to become an address.
    in_workspace: Vec<usize>,
    alignment: usize,
    /// The first count that no `int` holds.
    beyond: Option<usize>,
}

impl Arguments {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts `bytes` at the next multiple of `alignment`, where the parameter or member begins.
    fn push(&mut self, bytes: &[u8], alignment: usize) -> usize {
        let offset = self.bytes.len().next_multiple_of(alignment);
        self.bytes.resize(offset, 0);
        self.bytes.extend_from_slice(bytes);
        self.alignment = self.alignment.max(alignment);
        offset
    }

    fn parameter(mut self, bytes: &[u8], alignment: usize) -> Self {
        let offset = self.push(bytes, alignment);
        self.offsets.push(offset);
        self
    }

    /// A pointer.
    pub fn pointer(mut self, address: impl Into<Address>) -> Self {
        let at = self.bytes.len().next_multiple_of(8);
        self.addresses.push(at);
        let value = match address.into() {
            Address::Device(address) => address,
            Address::Workspace(offset) => {
                self.in_workspace.push(at);
                offset as u64
            }
        };
        self.parameter(&value.to_le_bytes(), 8)
    }

    /// An `int` that counts or indexes; one above 2^31 - 1 shows in [`Arguments::beyond`], and such a launch
    /// must not be made.
    pub fn count(mut self, value: usize) -> Self {
        let bytes = self.int(value);
        self.parameter(&bytes, 4)
    }

    /// A `float`.
    pub fn float(self, value: f32) -> Self {
        self.parameter(&value.to_le_bytes(), 4)
    }

    /// One parameter: a structure by value, with members as C++ lays them out.
    pub fn structure(mut self, structure: impl Structure) -> Self {
        let mut members = structure.members();
        members.bytes.resize(members.bytes.len().next_multiple_of(members.alignment.max(1)), 0);
        let start = self.push(&members.bytes, members.alignment.max(1));
        self.offsets.push(start);
        self.addresses.extend(members.addresses.iter().map(|offset| start + offset));
        self.in_workspace.extend(members.in_workspace.iter().map(|offset| start + offset));
        self.beyond = self.beyond.or(members.beyond);
        self
    }

    fn shift_workspace(&mut self, bytes: usize) {
        for &at in &self.in_workspace {
            let place = &mut self.bytes[at..at + 8];
            let offset = u64::from_le_bytes(std::array::from_fn(|i| place[i]));
            place.copy_from_slice(&(bytes as u64 + offset).to_le_bytes());
        }
    }

    fn place_workspace(&mut self, start: u64) {
        self.shift_workspace(start as usize);
        self.in_workspace.clear();
    }

    fn int(&mut self, value: usize) -> [u8; 4] {
        let held = i32::try_from(value);
        if held.is_err() {
            self.beyond.get_or_insert(value);
        }
        held.unwrap_or(i32::MAX).to_le_bytes()
    }

    /// The first count that no `int` of a kernel holds, if there is one.
    pub fn beyond(&self) -> Option<usize> {
        self.beyond
    }

    /// The packed block.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What they are but for where operands lie, in order and a blank apart: numbers as an `int` has them,
    /// `*` for an operand and `-` for one that is missing.
    pub fn without_addresses(&self) -> String {
        let mut words = Vec::new();
        let mut at = 0;
        while at < self.bytes.len() {
            if self.addresses.contains(&at) {
                let is_missing = self.bytes[at..at + 8] == [0; 8] && !self.in_workspace.contains(&at);
                words.push(if is_missing { "-".into() } else { "*".into() });
                at += 8;
            } else {
                let word = self.bytes[at..].first_chunk().map_or(0, |word| i32::from_le_bytes(*word));
                words.push(word.to_string());
                at += 4;
            }
        }
        words.join(" ")
    }

    /// Where each parameter begins in [`Arguments::bytes`].
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_aligned_by_their_size() {
        let arguments = Arguments::new().count(7).pointer(9).float(1.0);
        assert_eq!(arguments.bytes().len(), 20);
        assert_eq!(arguments.offsets(), [0, 8, 16]);
        assert_eq!(arguments.bytes()[8], 9);
        assert_eq!(arguments.bytes()[16..], 1.0f32.to_le_bytes());
    }

    #[test]
    fn a_count_beyond_31_bits_shows() {
        assert_eq!(Arguments::new().count(i32::MAX as usize).beyond(), None);
        assert_eq!(Arguments::new().count(1).count(1 << 31).count(1 << 32).beyond(), Some(1 << 31));
        assert_eq!(
            Arguments::new().structure(Members { n: 1 << 40, x: Address::NULL }).beyond(),
            Some(1 << 40)
        );
    }

    struct Members {
        n: usize,
        x: Address,
    }

    impl Structure for Members {
        fn members(self) -> Arguments {
            Arguments::new().count(self.n).pointer(self.x).count(self.n)
        }
    }

    /// The driver wants one pointer a parameter; C++ fills a structure up to its alignment.
    #[test]
    fn a_structure_is_one_parameter() {
        let arguments = Arguments::new().count(1).structure(Members { n: 2, x: 3.into() }).count(4);
        assert_eq!(arguments.offsets(), [0, 8, 32]);
        assert_eq!(arguments.bytes()[8..12], 2i32.to_le_bytes());
        assert_eq!(arguments.bytes()[16..24], 3u64.to_le_bytes());
        assert_eq!(arguments.bytes().len(), 36);
        assert_eq!(Members { n: 2, x: 3.into() }.pack().offsets(), [0]);
    }

    /// Wherever operands lie, but not whether they are there.
    #[test]
    fn what_arguments_are_without_addresses() {
        let words = |x: Address| Arguments::new().count(7).structure(Members { n: 2, x }).count(1);
        let at = |x: Address| words(x).without_addresses();
        assert_eq!(at(Address::Device(256)), "7 0 2 0 * 2 0 1");
        assert_eq!(at(Address::Workspace(0)), at(Address::Device(512)));
        assert_eq!(at(Address::NULL), "7 0 2 0 - 2 0 1");
    }

    #[test]
    fn offsets_into_the_workspace_become_addresses_once() {
        let inside = Members { n: 1, x: Address::Workspace(256).plus(8) };
        let arguments = Arguments::new().pointer(7).structure(inside).pointer(Address::Workspace(0));
        let kernel = KernelOf::<Members>::new(&Source { name: "a.cu", text: "" }, "a").kernel;
        let mut launch = Launch::linear(kernel, 1, 32, arguments);
        launch.place_workspace(1 << 20);
        launch.place_workspace(5);
        assert_eq!(launch.arguments.without_addresses(), "* 1 0 * 1 0 *");
        let word = |at: usize| u64::from_le_bytes(launch.arguments.bytes()[at..at + 8].try_into().unwrap());
        assert_eq!([word(0), word(16), word(32)], [7, (1 << 20) + 264, 1 << 20]);
    }
}
