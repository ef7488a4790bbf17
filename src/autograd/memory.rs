//! Memory planning: temporaries whose lifetimes do not overlap share an allocation.
//!
//! A lifetime runs from the first operation that names a tensor to the last, or to the next that does not
//! run aside where a device may do both in one kernel. On a device with branches, an operation that runs
//! aside has its tensors until [`HELD`] more of them have begun: longer would cost memory; shorter, and
//! what is given the memory next waits for it. In the order of the operations, a tensor takes the smallest
//! free allocation that holds it; failing that, the largest free one, enlarged; failing that, a new one. An
//! allocation is never split, so a device can check that no operation reads and writes the same memory.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::tape::TensorStorage;
use crate::device::{Buffer, Device, Element, Operand, Operation, Plan, Program, Temporaries, Tensor};

/// How many operations that run aside begin before the memory of one is given to others. With 2, the weight
/// gradient of a layer has until two layers further down; that takes 4 % more memory for a ResNet-18 and
/// none for a ResNet-50, with all of them in flight 4 % and 13 %.
const HELD: usize = 2;

struct Slot {
    element: Element,
    len: usize,
    free: bool,
}

/// Assigns a slot to every temporary, allocates the slots and has the device prepare the program.
pub(super) fn plan(
    operations: Vec<Arc<dyn Operation>>,
    tensors: &[TensorStorage],
    kept: &[Tensor],
    device: &mut dyn Device,
) -> Result<Plan> {
    let (slots, slot_of) = assign(&operations, tensors, &last_uses(&operations, tensors.len(), kept, device));
    let requests: Vec<(Element, usize)> = slots.iter().map(|slot| (slot.element, slot.len)).collect();
    let allocations = device.allocate_all(&requests, "the step's temporaries")?;
    let buffer = |(number, &storage): (usize, &TensorStorage)| match (storage, slot_of[number]) {
        (TensorStorage::Persistent(buffer), _) => Ok(buffer),
        (TensorStorage::Dropped, _) => Ok(Buffer::NOWHERE),
        (TensorStorage::Temporary { len, .. }, Some(slot)) => Ok(allocations[slot].part(0, len)),
        (TensorStorage::Temporary { .. }, None) => bail!("no operation names the temporary {number}"),
    };
    let buffers = tensors.iter().enumerate().map(buffer).collect::<Result<_>>()?;
    let unshared = tensors.iter().map(|&storage| match storage {
        TensorStorage::Temporary { element, len } => len * element.bytes(),
        TensorStorage::Persistent(_) | TensorStorage::Dropped => 0,
    });
    let temporaries = Temporaries {
        allocations: allocations.iter().map(|buffer| buffer.allocation).collect(),
        bytes: slots.iter().map(|slot| slot.len * slot.element.bytes()).sum(),
        unshared_bytes: unshared.sum(),
        kept: kept.to_vec(),
    };
    Plan::record(Program { operations, buffers, temporaries }, device)
}

/// The operation after which each tensor's memory is free; `usize::MAX` for never.
fn last_uses(
    operations: &[Arc<dyn Operation>],
    tensors: usize,
    kept: &[Tensor],
    device: &dyn Device,
) -> Vec<usize> {
    let has_branches = device.has_branches();
    let aside: Vec<usize> =
        (0..operations.len()).filter(|&at| has_branches && operations[at].runs_aside()).collect();
    let mut last = vec![0; tensors];
    for (position, operation) in operations.iter().enumerate() {
        let until = match aside.binary_search(&position) {
            Ok(number) => aside.get(number + HELD).copied().unwrap_or(operations.len() - 1),
            Err(_) => match next_of_branch(operations, position) {
                Some((at, next)) if operation.overlaps(&**next) => at,
                _ => position,
            },
        };
        operation
            .operands()
            .iter()
            .for_each(|Operand { tensor, .. }| last[tensor.0] = until.max(last[tensor.0]));
    }
    kept.iter().for_each(|tensor| last[tensor.0] = usize::MAX);
    last
}

/// The operation behind that at `position` among those that do not run aside.
fn next_of_branch(
    operations: &[Arc<dyn Operation>],
    position: usize,
) -> Option<(usize, &Arc<dyn Operation>)> {
    operations.iter().enumerate().skip(position + 1).find(|(_, operation)| !operation.runs_aside())
}

/// A slot for every temporary that an operation names, and the slots.
fn assign(
    operations: &[Arc<dyn Operation>],
    tensors: &[TensorStorage],
    last_uses: &[usize],
) -> (Vec<Slot>, Vec<Option<usize>>) {
    let mut slots: Vec<Slot> = Vec::new();
    let mut slot_of: Vec<Option<usize>> = vec![None; tensors.len()];
    let mut ends: Vec<Vec<usize>> = vec![Vec::new(); operations.len()];
    for (position, operation) in operations.iter().enumerate() {
        for Operand { tensor, .. } in operation.operands() {
            if let (TensorStorage::Temporary { element, len }, None) = (tensors[tensor.0], slot_of[tensor.0])
            {
                let slot = take(&mut slots, element, len);
                slot_of[tensor.0] = Some(slot);
                if let Some(end) = ends.get_mut(last_uses[tensor.0]) {
                    end.push(slot);
                }
            }
        }
        ends[position].iter().for_each(|&slot| slots[slot].free = true);
    }
    (slots, slot_of)
}

/// A slot for a tensor: the smallest free one that fits, else the largest free one, enlarged, else a new one.
fn take(slots: &mut Vec<Slot>, element: Element, len: usize) -> usize {
    let free = || slots.iter().enumerate().filter(|(_, slot)| slot.free && slot.element == element);
    let fitting = free().filter(|(_, slot)| slot.len >= len).min_by_key(|(_, slot)| slot.len);
    let chosen = fitting.or_else(|| free().max_by_key(|(_, slot)| slot.len)).map(|(index, _)| index);
    let index = chosen.unwrap_or(slots.len());
    if index == slots.len() {
        slots.push(Slot { element, len, free: false });
    }
    slots[index].free = false;
    slots[index].len = slots[index].len.max(len);
    index
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::autograd::Tape;
    use crate::device::cpu::CpuDevice;
    use crate::ops::batchnorm::{Epilogue, batchnorm_inference};
    use crate::ops::convolution::{ConvolutionShape, convolution};
    use crate::ops::pooling::average_pool;

    /// A chain of pools: each temporary lives for two operations, so two slots serve any length.
    #[test]
    fn a_chain_needs_two_slots() {
        let mut device = CpuDevice::new(1).unwrap();
        let input = device.allocate(Element::F32, 64, "input").unwrap();
        let mut tape = Tape::new(Element::F32);
        let mut x = tape.persistent(input);
        for _ in 0..5 {
            x = average_pool(&mut tape, [64, 1, 1], x);
        }
        tape.keep(x);
        let plan = tape.finish(&mut device).unwrap();
        assert_eq!(plan.temporaries().unshared_bytes, 5 * 64 * 4);
        assert_eq!(plan.temporaries().bytes, 2 * 64 * 4);
        for operation in plan.operations() {
            let [x, y] = operation.operands()[..] else { panic!("two operands") };
            let [x, y] = [x, y].map(|operand| plan.buffer(operand.tensor).allocation);
            assert_ne!(x, y, "input and output share memory");
        }
    }

    /// What a fused kernel still reads is not where it writes.
    #[test]
    fn operations_that_one_kernel_does_together_keep_their_memory_apart() {
        let mut device = CpuDevice::new(1).unwrap();
        let mut tape = Tape::new(Element::F32);
        let shape = ConvolutionShape {
            batch: 1,
            height: 4,
            width: 4,
            in_channels: 4,
            out_channels: 4,
            kernel: 1,
            stride: 1,
        };
        let mut persistent = |len: usize| device.allocate(Element::F32, len, "parameters").unwrap();
        let [images, w, affine, running] = [64, 16, 8, 8].map(|len| tape.persistent(persistent(len)));
        let mut x = images;
        let mut layers = Vec::new();
        for _ in 0..4 {
            let y = convolution(&mut tape, shape, x, w);
            let out = batchnorm_inference(&mut tape, [16, 4], y, [affine, running], Epilogue::default());
            layers.push([x, y, out]);
            x = out;
        }
        tape.keep(x);
        let plan = tape.finish(&mut device).unwrap();
        for [x, y, out] in layers {
            let allocations = [x, y, out].map(|tensor| plan.buffer(tensor).allocation);
            assert!(allocations[0] != allocations[2] && allocations[0] != allocations[1], "{allocations:?}");
        }
    }

    /// A kept tensor's memory is not given to another.
    #[test]
    fn a_kept_tensor_keeps_its_memory() {
        let mut device = CpuDevice::new(1).unwrap();
        let input = device.allocate(Element::F32, 64, "input").unwrap();
        let mut tape = Tape::new(Element::F32);
        let x = tape.persistent(input);
        let first = average_pool(&mut tape, [64, 1, 1], x);
        tape.keep(first);
        let mut y = average_pool(&mut tape, [64, 1, 1], first);
        for _ in 0..3 {
            y = average_pool(&mut tape, [64, 1, 1], y);
        }
        let plan = tape.finish(&mut device).unwrap();
        let users = plan.buffers().iter().filter(|b| b.allocation == plan.buffer(first).allocation).count();
        assert_eq!(users, 1);
    }
}
