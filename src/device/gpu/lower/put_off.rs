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

    /// What was put off and writes `tensor`, if that is a `T`, and if it can be done beside or behind launches which
    /// write `written`: these are not in the memory of its operands.
    pub fn find_put_off<T: Any + Clone>(&self, tensor: Tensor, written: &[Tensor]) -> Option<Waiting<T>> {
        let found = self.put_off.iter().find(|put_off| !put_off.is_done && put_off.writes(tensor))?;
        let written: Vec<Operand> = written.iter().copied().map(Operand::write).collect();
        let written = Used::by_operands(&written, self.buffers);
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

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;
    use crate::device::cpu::Call;
    use crate::device::gpu::kernels::batch::{ADVANCE_STEP, AdvanceStep};
    use crate::device::gpu::launch::Address;
    use crate::device::gpu::model::gpus::Gpu;
    use crate::device::{Buffer, Element, Operation};

    /// From tensor to tensor: its launch is put off, or it does what was put off where it can, or nothing of either.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        PutsOff,
        DoesBoth,
        Launches,
        Aside,
    }

    #[derive(Clone, Debug)]
    struct From(usize, usize, Kind);

    impl Operation for From {
        fn name(&self) -> &'static str {
            ["z", "a", "b", "c", "d"][self.1]
        }

        fn operands(&self) -> Vec<Operand> {
            vec![Operand::read(Tensor(self.0)), Operand::write(Tensor(self.1))]
        }

        fn runs_aside(&self) -> bool {
            self.2 == Kind::Aside
        }

        fn run(&self, _: &mut Call<'_>) -> Result<()> {
            unreachable!("only its launches matter here")
        }

        fn lower(&self, gpu: &mut Lowering<'_>) -> Result<()> {
            let launch = ADVANCE_STEP.linear(1, 1, AdvanceStep { modulus: 1, step: Address::NULL });
            if self.2 == Kind::PutsOff {
                let operands = self.operands();
                gpu.put_off(Waiting { work: self.clone(), launches: vec![launch], operands });
                return Ok(());
            }
            let waiting = gpu.find_put_off::<Self>(Tensor(self.0), &[Tensor(self.1)]);
            if self.2 == Kind::DoesBoth && waiting.is_some() {
                gpu.do_put_off(Tensor(self.0));
            }
            gpu.launch(launch);
            Ok(())
        }
    }

    /// The names of the operations whose launches are made, in order, and which come after one of the other branch.
    fn launched(operations: &[From], allocations: [usize; 5]) -> Vec<(&'static str, Option<usize>)> {
        let gpu = Gpu::find("rtx3090").unwrap().description();
        let buffers =
            allocations.map(|allocation| Buffer { allocation, offset: 0, len: 64, element: Element::F32 });
        let mut lowering = Lowering::new(&gpu, &buffers, &[0; 5]).with_branches(true);
        let operations: Vec<&dyn Operation> = operations.iter().map(|one| one as &dyn Operation).collect();
        lowering.lower(&operations).unwrap();
        let places: Vec<_> = lowering.places().iter().map(|place| place.after).collect();
        let (launches, _) = lowering.finish();
        launches.iter().map(|launch| launch.operation).zip(places).collect()
    }

    use Kind::*;

    /// The launch comes before the first that reads its result, before one that writes where it reads, or at the end;
    /// with what is between left where it is.
    #[test]
    fn a_launch_is_made_where_it_is_needed() {
        let apart = [0, 1, 2, 3, 4];
        let of = |operations: &[From], memory| -> Vec<_> {
            launched(operations, memory).into_iter().map(|(name, _)| name).collect()
        };
        let read = [From(0, 1, PutsOff), From(0, 2, Launches), From(1, 3, Launches)];
        assert_eq!(of(&read, apart), ["b", "a", "c"]);
        let reused = [From(0, 1, PutsOff), From(2, 3, Launches), From(3, 4, Launches)];
        assert_eq!(of(&reused, apart), ["c", "d", "a"]);
        assert_eq!(of(&reused, [0, 1, 2, 3, 0]), ["c", "a", "d"]);
    }

    /// One that does the work of the other is alone, and comes after what both need; where its result would lie in
    /// what the other still reads, it does not.
    #[test]
    fn a_reader_may_do_the_work() {
        let both = [From(0, 1, PutsOff), From(1, 2, DoesBoth), From(1, 3, Launches)];
        let names = |memory| launched(&both, memory).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names([0, 1, 2, 3, 4]), ["b", "c"]);
        assert_eq!(names([0, 1, 0, 3, 4]), ["a", "b", "c"]);
        // What was put off reads what an operation aside writes.
        let aside = [From(4, 0, Aside), From(0, 1, PutsOff), From(1, 2, DoesBoth)];
        assert_eq!(launched(&aside, [0, 1, 2, 3, 4]), [("z", None), ("b", Some(0))]);
    }

    /// An operation aside that reads the result comes after the launch, which is on the main branch.
    #[test]
    fn an_operation_aside_waits_for_it() {
        let both = [From(0, 1, PutsOff), From(1, 2, Aside)];
        assert_eq!(launched(&both, [0, 1, 2, 3, 4]), [("a", None), ("b", Some(0))]);
    }
}
