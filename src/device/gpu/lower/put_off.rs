//! The last launches of an operation, put off until something needs what they write: an operation that reads it may
//! do their work beside its own, and they are not made at all.

use std::any::Any;

use super::Lowering;
use crate::device::gpu::branches::Used;
use crate::device::gpu::launch::Launch;
use crate::device::{Access, Operand, Tensor};

/// Launches that were put off.
#[derive(Debug)]
pub(super) struct PutOff {
    launches: Vec<Launch>,
    used: Used,
    operands: Vec<Operand>,
    /// What they do.
    work: Box<dyn Any>,
    /// Whether another launch does it.
    is_done: bool,
}

/// What launches do that were put off, and how it is done without them.
#[derive(Clone, Debug)]
pub struct Waiting<T> {
    /// What they do.
    pub work: T,
    /// They.
    pub launches: Vec<Launch>,
    /// What they read and write.
    pub operands: Vec<Operand>,
}

impl PutOff {
    fn writes(&self, tensor: Tensor) -> bool {
        self.operands.iter().any(|operand| operand.tensor == tensor && operand.access != Access::Read)
    }
}

impl Lowering<'_> {
    /// Puts the last launches of the operations that are being lowered off: they are made before the first operation
    /// that reads what they write, or writes what they read, unless that one does their work
    /// ([`Lowering::do_put_off`]). They use no workspace.
    pub fn put_off<T: Any>(&mut self, Waiting { work, mut launches, operands }: Waiting<T>) {
        for launch in launches.iter_mut().filter(|launch| launch.operation.is_empty()) {
            launch.operation = self.operation;
        }
        let used = Used::by_operands(&operands, self.buffers);
        self.put_off.push(PutOff { launches, used, operands, work: Box::new(work), is_done: false });
    }

    /// What was put off and writes `tensor`, if that is a `T`, and if it can be done beside a launch which writes
    /// `written`: this is not in the memory of its operands.
    pub fn find_put_off<T: Any + Clone>(&self, tensor: Tensor, written: Tensor) -> Option<Waiting<T>> {
        let found = self.put_off.iter().find(|put_off| !put_off.is_done && put_off.writes(tensor))?;
        let written = Used::by_operands(&[Operand::write(written)], self.buffers);
        let work = found.work.downcast_ref::<T>().filter(|_| !found.used.conflicts(&written))?;
        let (launches, operands) = (found.launches.clone(), found.operands.clone());
        Some(Waiting { work: work.clone(), launches, operands })
    }

    /// The launches of the operations that are being lowered do what was put off and writes `tensor`.
    pub fn do_put_off(&mut self, tensor: Tensor) {
        for put_off in self.put_off.iter_mut().filter(|put_off| put_off.writes(tensor)) {
            put_off.is_done = true;
        }
    }

    /// Takes out those whose work others have done since the last call; returns what memory each uses.
    pub(super) fn take_done(&mut self) -> Vec<Used> {
        let done = self.put_off.extract_if(.., |put_off| put_off.is_done);
        done.map(|put_off| put_off.used).collect()
    }

    /// Inserts at `position` the launches, of the first `older` that were put off, that must come before what
    /// is `used`; all of them without it. Returns the position behind them.
    pub(super) fn make_up(&mut self, mut position: usize, older: usize, used: Option<&Used>) -> usize {
        let needed = |put_off: &mut PutOff| used.is_none_or(|used| put_off.used.conflicts(used));
        for PutOff { launches, used, .. } in self.put_off.extract_if(..older, needed).collect::<Vec<_>>() {
            let count = launches.len();
            self.launches.splice(position..position, launches);
            self.placing.place(used, count, false);
            position += count;
        }
        position
    }
}
