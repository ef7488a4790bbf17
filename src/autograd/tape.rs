//! Recording operations and their gradients.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;

use super::gradients::{Differentiable, Gradients};
use super::order::Recorded;
use super::{memory, order};
use crate::collective::Share;
use crate::device::{Access, Buffer, Device, Element, Operand, Operation, Plan, Tensor};

/// Where a tensor's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TensorStorage {
    /// Memory that outlives the plan: parameters, data, confidences, state.
    Persistent(Buffer),
    /// Planned by the tape; lives from its first write to its last use.
    Temporary { element: Element, len: usize },
    /// Nowhere: the operations that named it were dropped.
    Dropped,
}

/// An operation on the tape.
#[derive(Clone)]
enum TapeEntry {
    Plain(Arc<dyn Operation>),
    Differentiable(Arc<dyn Differentiable>),
}

impl TapeEntry {
    fn operands(&self) -> Vec<Operand> {
        match self {
            Self::Plain(operation) => operation.operands(),
            Self::Differentiable(operation) => operation.operands(),
        }
    }
}

/// A step being recorded.
///
/// [`Tape::push`] appends an operation, [`Tape::record`] one that has a gradient; [`Tape::backward`] appends
/// the gradients of everything differentiable recorded before it; [`Tape::finish`] plans the memory. The
/// caller is responsible for shapes: each operation carries its own, and the device checks lengths.
pub struct Tape {
    /// How activations and their gradients are stored.
    activations: Element,
    /// The part of every batch that the operations are of.
    share: Share,
    /// Whether kernels run the operations.
    for_kernels: bool,
    entries: Vec<TapeEntry>,
    tensors: Vec<TensorStorage>,
    /// Parameters by the memory of their values and gradients, so that one used twice is one tensor.
    parameters: HashMap<[Buffer; 2], Tensor>,
    /// The gradient buffer of each parameter.
    pub(super) parameter_gradients: HashMap<Tensor, Tensor>,
    /// Tensors whose gradient is needed: parameters and whatever depends on them.
    differentiable: Vec<bool>,
    /// Temporaries that are read after the plan has run, so nothing may share their memory.
    kept: Vec<Tensor>,
}

impl Tape {
    /// An empty tape whose activations are stored as `activations` ([`Device::activations`]).
    pub fn new(activations: Element) -> Self {
        Self {
            activations,
            share: Share::default(),
            for_kernels: true,
            entries: Vec::new(),
            tensors: Vec::new(),
            parameters: HashMap::new(),
            parameter_gradients: HashMap::new(),
            differentiable: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Has what follows be recorded for this part of every batch.
    pub fn divide(&mut self, share: Share) {
        self.share = share;
    }

    /// The part of every batch that goes through the network here.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Has what follows be recorded for kernels or not: an operation may leave its gradient's kernel what its
    /// gradient in main memory has no use for. Without this call it is for kernels.
    pub fn for_kernels(&mut self, for_kernels: bool) {
        self.for_kernels = for_kernels;
    }

    /// Whether kernels run what is recorded.
    pub fn is_for_kernels(&self) -> bool {
        self.for_kernels
    }

    /// How this tape stores activations.
    pub fn activations(&self) -> Element {
        self.activations
    }

    fn tensor(&mut self, storage: TensorStorage) -> Tensor {
        self.tensors.push(storage);
        self.differentiable.push(false);
        Tensor(self.tensors.len() - 1)
    }

    /// A tensor in memory that outlives the plan.
    pub fn persistent(&mut self, buffer: Buffer) -> Tensor {
        self.tensor(TensorStorage::Persistent(buffer))
    }

    /// A parameter and the memory of its gradient, which [`Tape::backward`] overwrites. The same buffers
    /// always give the same tensor.
    pub fn parameter(&mut self, values: Buffer, gradient: Buffer) -> Tensor {
        if let Some(&known) = self.parameters.get(&[values, gradient]) {
            return known;
        }
        let tensor = self.persistent(values);
        let gradient_tensor = self.persistent(gradient);
        self.parameter_gradients.insert(tensor, gradient_tensor);
        self.parameters.insert([values, gradient], tensor);
        tensor
    }

    /// Asks for the gradient of an input that is not a parameter.
    pub fn differentiate(&mut self, input: Tensor) {
        self.differentiable[input.0] = true;
    }

    /// Whether the gradient of `tensor` is needed.
    pub fn is_differentiable(&self, tensor: Tensor) -> bool {
        self.differentiable[tensor.0]
    }

    /// A new temporary of `len` elements.
    pub fn temporary(&mut self, element: Element, len: usize) -> Tensor {
        self.tensor(TensorStorage::Temporary { element, len })
    }

    /// A new temporary of the type and length of `tensor`.
    pub fn temporary_like(&mut self, tensor: Tensor) -> Tensor {
        self.temporary(self.element_of(tensor), self.len_of(tensor))
    }

    /// Elements of a tensor.
    pub fn len_of(&self, tensor: Tensor) -> usize {
        match self.tensors[tensor.0] {
            TensorStorage::Persistent(buffer) => buffer.len,
            TensorStorage::Temporary { len, .. } => len,
            TensorStorage::Dropped => 0,
        }
    }

    /// Type of a tensor's elements.
    pub fn element_of(&self, tensor: Tensor) -> Element {
        match self.tensors[tensor.0] {
            TensorStorage::Persistent(buffer) => buffer.element,
            TensorStorage::Temporary { element, .. } => element,
            TensorStorage::Dropped => Element::U8,
        }
    }

    /// Keeps a temporary readable after the plan has run.
    pub fn keep(&mut self, tensor: Tensor) {
        self.kept.push(tensor);
    }

    /// Appends an operation without a gradient.
    pub fn push(&mut self, operation: impl Operation) {
        self.push_shared(Arc::new(operation));
    }

    pub(super) fn push_shared(&mut self, operation: Arc<dyn Operation>) {
        self.entries.push(TapeEntry::Plain(operation));
    }

    /// Puts an operation behind the last one so far that writes to a part of `buffer`.
    pub fn push_when_written(&mut self, buffer: Buffer, operation: impl Operation) {
        let touches = |tensor: Tensor| match self.tensors[tensor.0] {
            TensorStorage::Persistent(other) => {
                let [begin, end] = [other.offset, other.offset + other.len];
                other.allocation == buffer.allocation
                    && begin < buffer.offset + buffer.len
                    && buffer.offset < end
            }
            _ => false,
        };
        let writes = |entry: &TapeEntry| {
            entry.operands().iter().any(|operand| operand.access != Access::Read && touches(operand.tensor))
        };
        let behind = self.entries.iter().rposition(writes).map_or(0, |last| last + 1);
        self.entries.insert(behind, TapeEntry::Plain(Arc::new(operation)));
    }

    /// Appends an operation that [`Tape::backward`] differentiates.
    pub fn record(&mut self, operation: impl Differentiable) {
        self.entries.push(TapeEntry::Differentiable(Arc::new(operation)));
    }

    /// A new temporary that holds the result of a differentiable operation.
    pub fn result(&mut self, element: Element, len: usize) -> Tensor {
        let tensor = self.temporary(element, len);
        self.differentiable[tensor.0] = true;
        tensor
    }

    /// Appends the gradients of everything recorded so far, in reverse order but for those that are to follow at
    /// once, starting from `seeds`: pairs of a tensor and its gradient. Gradients of parameters are written to the
    /// memory given with them.
    ///
    /// A tensor that is used several times gets the sum of its gradients, whatever the operations and their
    /// order. Returns the gradient of each tensor; after the plan has run, its memory still holds the
    /// gradient only if no later operation reuses it.
    pub fn backward(&mut self, seeds: &[(Tensor, Tensor)]) -> HashMap<Tensor, Tensor> {
        let differentiable = |entry: &TapeEntry| match entry {
            TapeEntry::Plain(_) => None,
            TapeEntry::Differentiable(operation) => Some(operation.clone()),
        };
        let operations: Vec<_> = self.entries.iter().filter_map(differentiable).collect();
        let recorded: Vec<Recorded> = operations
            .iter()
            .map(|operation| Recorded {
                operands: operation.operands(),
                follows: operation.follows_at_once(),
            })
            .collect();
        let mut done = vec![false; operations.len()];
        let mut gradients = Gradients::new(self, seeds);
        for turn in (0..operations.len()).rev() {
            let mut next = (!done[turn]).then_some(turn);
            while let Some(at) = next {
                gradients.append(&*operations[at]);
                done[at] = true;
                next = order::before_its_turn(&recorded, &done, at);
            }
        }
        gradients.finish()
    }

    /// Drops the operations whose results nothing reads: rows gathered from all processes for nothing.
    fn drop_unread(&mut self) {
        let mut read: Vec<bool> = vec![false; self.tensors.len()];
        self.kept.iter().for_each(|kept| read[kept.0] = true);
        let mut is_needed = |entry: &TapeEntry| {
            let operands = entry.operands();
            let mut written = operands.iter().filter(|operand| operand.access != Access::Read).peekable();
            let is_needed = written.peek().is_none()
                || written.any(|operand| {
                    read[operand.tensor.0]
                        || matches!(self.tensors[operand.tensor.0], TensorStorage::Persistent(_))
                });
            if is_needed {
                operands.iter().for_each(|operand| read[operand.tensor.0] = true);
            }
            is_needed
        };
        let needed: Vec<bool> = self.entries.iter().rev().map(&mut is_needed).collect();
        let mut needed = needed.into_iter().rev();
        self.entries.retain(|_| needed.next().unwrap_or(true));
        for (storage, read) in self.tensors.iter_mut().zip(read) {
            if !read && matches!(storage, TensorStorage::Temporary { .. }) {
                *storage = TensorStorage::Dropped;
            }
        }
    }

    /// Plans the memory of the temporaries, allocates it on `device`, and returns the plan.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn finish(mut self, device: &mut dyn Device) -> Result<Plan> {
        if self.share.is_divided() {
            self.drop_unread();
        }
        let operation = |entry| match entry {
            TapeEntry::Plain(operation) => operation,
            TapeEntry::Differentiable(operation) => operation as Arc<dyn Operation>,
        };
        let operations = self.entries.into_iter().map(operation).collect();
        memory::plan(operations, &self.tensors, &self.kept, device)
    }
}
