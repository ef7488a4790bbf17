//! What several GPUs do together between kernels, as plain data: bytes that move from one to another.
//! Whatever is computed of them, our own kernels compute, so that sums have the order of the ranks.

use super::launch::{Address, Arguments, Kernel, Launch};
use super::sources::Source;
use super::work::{Span, Work};

/// Bytes that move between GPUs. Every GPU of the world does the same ones in the same order.
#[derive(Clone, Debug, PartialEq)]
pub enum Exchange {
    /// All GPUs receive what each has, one after the other in the order of the ranks.
    Gather {
        /// What this GPU has; it may be its place in `all`.
        own: Address,
        /// Where all of it goes.
        all: Address,
        /// Bytes of each GPU.
        bytes: Vec<usize>,
    },
    /// Every GPU receives from each of the others what that one has for it.
    Parts {
        /// What this GPU has for each, by rank, and how many bytes; its own part stays.
        parts: Vec<(Address, usize)>,
        /// Where those of the others go, by rank; as many bytes each as its own part has.
        received: Vec<Address>,
    },
    /// All GPUs receive what the first has.
    First {
        /// Where it is, and where it goes.
        values: Address,
        /// How many bytes.
        bytes: usize,
    },
}

/// What a launch that is an exchange has in a kernel's place.
static SOURCE: Source = Source { name: "exchange", text: "" };

impl Exchange {
    /// The addresses that it uses.
    fn addresses(&mut self) -> Vec<&mut Address> {
        match self {
            Self::Gather { own, all, .. } => vec![own, all],
            Self::Parts { parts, received } => {
                parts.iter_mut().map(|(address, _)| address).chain(received).collect()
            }
            Self::First { values, .. } => vec![values],
        }
    }

    /// Moves what it uses of the workspace `bytes` further on.
    pub(super) fn shift_workspace(&mut self, bytes: usize) {
        for address in self.addresses() {
            if let Address::Workspace(offset) = address {
                *offset += bytes;
            }
        }
    }

    /// Puts the workspace at the address `start`.
    pub(super) fn place_workspace(&mut self, start: u64) {
        for address in self.addresses() {
            if let Address::Workspace(offset) = *address {
                *address = Address::Device(start + offset as u64);
            }
        }
    }

    /// The memory that it reads and writes.
    fn work(&self) -> Work {
        match self {
            Self::Gather { own, all, bytes } => {
                let total = bytes.iter().sum();
                let most = bytes.iter().copied().max().unwrap_or_default();
                Work::of(0.0).reading([Span::new(*own, most)]).writing([Span::new(*all, total)])
            }
            Self::Parts { parts, received } => Work::of(0.0)
                .reading(parts.iter().map(|&(address, bytes)| Span::new(address, bytes)))
                .writing(received.iter().zip(parts).map(|(&address, &(_, bytes))| Span::new(address, bytes))),
            Self::First { values, bytes } => Work::of(0.0).writing([Span::new(*values, *bytes)]),
        }
    }

    /// It in a kernel's place among launches.
    pub fn launch(self) -> Launch {
        let kernel = Kernel { source: &SOURCE, name: "exchange" };
        let work = self.work();
        let launch = Launch::linear(kernel, 1, 1, Arguments::new()).doing(work);
        Launch { exchange: Some(Box::new(self)), ..launch }
    }
}
