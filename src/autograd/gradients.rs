//! Differentiation: what an operation does with the gradient of its result.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::Tape;
use super::addition::Add;
use crate::device::{Access, Operation, Tensor};

/// An operation with a gradient.
pub trait Differentiable: Operation {
    /// Appends the operations that compute the gradients of the operands from that of the result, if it has
    /// one.
    fn gradient(&self, gradients: &mut Gradients<'_>);

    /// Whether its gradient is to come right behind that of an operation that reads its result, where the order
    /// is free: a kernel of that one does a part of it.
    fn follows_at_once(&self) -> bool {
        false
    }
}

/// An operation, and the pairs (x, into) of which x is added to `into` behind it.
type Later = (Arc<dyn Operation>, Vec<(Tensor, Tensor)>);

/// The gradients known so far in the backward pass over a tape.
pub struct Gradients<'a> {
    tape: &'a mut Tape,
    of: HashMap<Tensor, Tensor>,
    /// Gradients given by the caller: nothing is added to them.
    seeds: HashSet<Tensor>,
    /// Gradients of parameters that some operation has written.
    written: HashSet<Tensor>,
    /// What may come behind the gradient of the next operation.
    later: Vec<Later>,
    /// Pairs (x, into): x is added to `into` after the operation that computes x.
    pending: Vec<(Tensor, Tensor)>,
}

impl<'a> Gradients<'a> {
    pub(super) fn new(tape: &'a mut Tape, seeds: &[(Tensor, Tensor)]) -> Self {
        let of = seeds.iter().copied().collect();
        let seeds = seeds.iter().map(|&(_, gradient)| gradient).collect();
        Self { tape, of, seeds, written: HashSet::new(), later: Vec::new(), pending: Vec::new() }
    }

    /// The gradient of an operation's result; `None` if nothing differentiable reads the result.
    pub fn of(&self, result: Tensor) -> Option<Tensor> {
        self.of.get(&result).copied()
    }

    /// Whether the gradient of an operand is needed.
    pub fn wants(&self, operand: Tensor) -> bool {
        self.tape.is_differentiable(operand)
    }

    /// Appends an operation.
    pub fn push(&mut self, operation: impl Operation) {
        self.tape.push(operation);
    }

    /// Appends an operation that nothing waits for; behind the gradient of the next operation where that one is to
    /// follow at once.
    pub fn push_later(&mut self, operation: impl Operation) {
        let operands = operation.operands();
        let writes =
            |x: Tensor| operands.iter().any(|operand| operand.tensor == x && operand.access != Access::Read);
        let additions = self.pending.extract_if(.., |(x, _)| writes(*x)).collect();
        self.later.push((Arc::new(operation), additions));
    }

    /// Has an operation append its gradient.
    pub(super) fn append(&mut self, operation: &dyn Differentiable) {
        let mut later = std::mem::take(&mut self.later);
        if !operation.follows_at_once() {
            self.push_all(std::mem::take(&mut later));
        }
        operation.gradient(self);
        let additions = std::mem::take(&mut self.pending);
        self.add(additions);
        self.push_all(later);
    }

    fn push_all(&mut self, operations: Vec<Later>) {
        for (operation, additions) in operations {
            self.tape.push_shared(operation);
            self.add(additions);
        }
    }

    /// A new temporary of the type and length of `tensor`.
    pub fn temporary_like(&mut self, tensor: Tensor) -> Tensor {
        self.tape.temporary_like(tensor)
    }

    /// The tensor an operation writes the gradient of `operand` to, overwriting it. If the operand has a
    /// gradient from another use, the two are added afterwards.
    pub fn write(&mut self, operand: Tensor) -> Tensor {
        let into = self.tape.temporary_like(operand);
        self.hand_over(operand, into);
        into
    }

    /// For an operation that can add to its output: the tensor for the gradient of `operand`, and whether the
    /// operation must add to it.
    pub fn accumulate(&mut self, operand: Tensor) -> (Tensor, bool) {
        match self.of(operand) {
            Some(earlier) if !self.seeds.contains(&earlier) => (earlier, true),
            _ => (self.write(operand), false),
        }
    }

    /// Declares that `gradient` will hold the contribution of one use of `operand` once the operations
    /// appended so far have run. The memory belongs to the operand from then on: nothing else may read it as
    /// anything else.
    pub fn hand_over(&mut self, operand: Tensor, gradient: Tensor) {
        match self.of(operand) {
            Some(earlier) if !self.seeds.contains(&earlier) => self.pending.push((gradient, earlier)),
            earlier => {
                self.pending.extend(earlier.map(|seed| (seed, gradient)));
                self.of.insert(operand, gradient);
            }
        }
    }

    /// The tensor an operation writes the gradient of a parameter to. The gradients of a parameter that is
    /// used several times are added.
    ///
    /// # Panics
    /// If `parameter` was not made by [`Tape::parameter`]: a mistake of the caller, never of a user.
    pub fn write_parameter(&mut self, parameter: Tensor) -> Tensor {
        let gradient = self.tape.parameter_gradients[&parameter];
        if self.written.insert(gradient) {
            return gradient;
        }
        let further = self.tape.temporary_like(gradient);
        self.pending.push((further, gradient));
        further
    }

    fn add(&mut self, additions: Vec<(Tensor, Tensor)>) {
        for (x, into) in additions {
            let len = self.tape.len_of(into);
            self.tape.push(Add { len, x, into });
        }
    }

    pub(super) fn finish(mut self) -> HashMap<Tensor, Tensor> {
        let later = std::mem::take(&mut self.later);
        self.push_all(later);
        self.of
    }
}
