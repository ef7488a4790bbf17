//! Recording operations and their gradients.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;

use super::gradients::{Differentiable, Gradients};
use super::memory;
use crate::device::{Buffer, Device, Element, Operation, Plan, Tensor};

/// Where a tensor's memory comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum TensorStorage {
    /// Memory that outlives the plan: parameters, data, confidences, state.
    Persistent(Buffer),
    /// Planned by the tape; lives from its first write to its last use.
    Temporary { element: Element, len: usize },
}

/// An operation on the tape.
#[derive(Clone)]
enum TapeEntry {
    Plain(Arc<dyn Operation>),
    Differentiable(Arc<dyn Differentiable>),
}

/// A step being recorded.
///
/// [`Tape::push`] appends an operation, [`Tape::record`] one that has a gradient; [`Tape::backward`] appends
/// the gradients of everything differentiable recorded before it; [`Tape::finish`] plans the memory. The
/// caller is responsible for shapes: each operation carries its own, and the device checks lengths.
pub struct Tape {
    /// How activations and their gradients are stored.
    activations: Element,
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
            entries: Vec::new(),
            tensors: Vec::new(),
            parameters: HashMap::new(),
            parameter_gradients: HashMap::new(),
            differentiable: Vec::new(),
            kept: Vec::new(),
        }
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
        }
    }

    /// Type of a tensor's elements.
    pub fn element_of(&self, tensor: Tensor) -> Element {
        match self.tensors[tensor.0] {
            TensorStorage::Persistent(buffer) => buffer.element,
            TensorStorage::Temporary { element, .. } => element,
        }
    }

    /// Keeps a temporary readable after the plan has run.
    pub fn keep(&mut self, tensor: Tensor) {
        self.kept.push(tensor);
    }

    /// Appends an operation without a gradient.
    pub fn push(&mut self, operation: impl Operation) {
        self.entries.push(TapeEntry::Plain(Arc::new(operation)));
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

    /// Appends the gradients of everything recorded so far, in reverse order, starting from `seeds`: pairs of
    /// a tensor and its gradient. Gradients of parameters are written to the memory given with them.
    ///
    /// A tensor that is used several times gets the sum of its gradients, whatever the operations and their
    /// order. Returns the gradient of each tensor; after the plan has run, its memory still holds the
    /// gradient only if no later operation reuses it.
    pub fn backward(&mut self, seeds: &[(Tensor, Tensor)]) -> HashMap<Tensor, Tensor> {
        let recorded = self.entries.clone();
        let mut gradients = Gradients::new(self, seeds);
        for entry in recorded.iter().rev() {
            if let TapeEntry::Differentiable(operation) = entry {
                operation.gradient(&mut gradients);
                gradients.add_pending();
            }
        }
        gradients.finish()
    }

    /// Plans the memory of the temporaries, allocates it on `device`, and returns the plan.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn finish(self, device: &mut dyn Device) -> Result<Plan> {
        let operation = |entry| match entry {
            TapeEntry::Plain(operation) => operation,
            TapeEntry::Differentiable(operation) => operation as Arc<dyn Operation>,
        };
        let operations = self.entries.into_iter().map(operation).collect();
        memory::plan(operations, &self.tensors, &self.kept, device)
    }
}
