//! A kernel launch as plain data: which kernel, how many threads, which arguments.

/// A kernel: an `extern "C"` function of a file under `kernels/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kernel {
    /// File name without its folder, `batchnorm.cu`.
    pub file: &'static str,
    /// Function name.
    pub name: &'static str,
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
        }
    }
}

/// A kernel's parameters, packed as the driver wants them: each at its natural alignment, in the order of the signature.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
    /// The first count that no `int` holds.
    beyond: Option<usize>,
}

impl Arguments {
    /// No arguments yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn push(mut self, bytes: &[u8], alignment: usize) -> Self {
        self.bytes.resize(self.bytes.len().next_multiple_of(alignment), 0);
        self.offsets.push(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A device address; 0 is a null pointer.
    pub fn pointer(self, address: u64) -> Self {
        self.push(&address.to_le_bytes(), 8)
    }

    /// An `int` that counts or indexes; one above 2^31 - 1 shows in [`Arguments::beyond`], and such a launch must not be made.
    pub fn count(mut self, value: usize) -> Self {
        let bytes = self.int(value);
        self.push(&bytes, 4)
    }

    /// A `float`.
    pub fn float(self, value: f32) -> Self {
        self.push(&value.to_le_bytes(), 4)
    }

    /// Several `int`s, each a parameter of its own.
    pub fn counts(self, values: &[usize]) -> Self {
        values.iter().fold(self, |arguments, &value| arguments.count(value))
    }

    /// One parameter: a structure of `int`s, by value.
    pub fn structure(mut self, values: &[usize]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|&value| self.int(value)).collect();
        self.push(&bytes, 4)
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
        assert_eq!(Arguments::new().counts(&[1, 1 << 31, 1 << 32]).beyond(), Some(1 << 31));
        assert_eq!(Arguments::new().structure(&[1 << 40]).beyond(), Some(1 << 40));
    }

    /// The driver wants one pointer a parameter.
    #[test]
    fn several_counts_are_several_parameters_and_a_structure_is_one() {
        assert_eq!(Arguments::new().counts(&[1, 2, 3]).offsets(), [0, 4, 8]);
        assert_eq!(Arguments::new().structure(&[1, 2, 3]).offsets(), [0]);
    }
}
