//! Memory planning: temporaries whose lifetimes do not overlap share an allocation.
//!
//! A lifetime runs from the first operation that names a tensor to the last, or to the one behind it where a
//! device may do both in one kernel. In the order of the operations,
//! a tensor takes the smallest free allocation that holds it; failing that, the largest free one, enlarged;
//! failing that, a new one. An allocation is never split, so a device can check that no operation reads and
//! writes the same memory.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::tape::TensorStorage;
use crate::device::{Device, Element, Operand, Operation, Plan, Program, Temporaries, Tensor};

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
    let mut last_use = vec![0; tensors.len()];
    for (position, operation) in operations.iter().enumerate() {
        operation.operands().iter().for_each(|operand| last_use[operand.tensor.0] = position);
    }
    for (position, pair) in operations.windows(2).enumerate() {
        if pair[0].overlaps(&*pair[1]) {
            let operands = pair[0].operands();
            operands.iter().for_each(|Operand { tensor, .. }| {
                last_use[tensor.0] = last_use[tensor.0].max(position + 1);
            });
        }
    }
    kept.iter().for_each(|tensor| last_use[tensor.0] = usize::MAX);
    let mut ending: Vec<Vec<usize>> = vec![Vec::new(); operations.len()];
    for (tensor, &position) in last_use.iter().enumerate() {
        if let Some(ending) = ending.get_mut(position) {
            ending.push(tensor);
        }
    }

    let mut slots: Vec<Slot> = Vec::new();
    let mut slot_of: Vec<Option<usize>> = vec![None; tensors.len()];
    for (position, operation) in operations.iter().enumerate() {
        for Operand { tensor, .. } in operation.operands() {
            if let (TensorStorage::Temporary { element, len }, None) = (tensors[tensor.0], slot_of[tensor.0])
            {
                slot_of[tensor.0] = Some(take(&mut slots, element, len));
            }
        }
        for slot in ending[position].iter().filter_map(|&tensor| slot_of[tensor]) {
            slots[slot].free = true;
        }
    }

    let requests: Vec<(Element, usize)> = slots.iter().map(|slot| (slot.element, slot.len)).collect();
    let allocations = device.allocate_all(&requests, "the step's temporaries")?;
    let buffer = |(number, &storage): (usize, &TensorStorage)| match (storage, slot_of[number]) {
        (TensorStorage::Persistent(buffer), _) => Ok(buffer),
        (TensorStorage::Temporary { len, .. }, Some(slot)) => Ok(allocations[slot].part(0, len)),
        (TensorStorage::Temporary { .. }, None) => bail!("no operation names the temporary {number}"),
    };
    let buffers = tensors.iter().enumerate().map(buffer).collect::<Result<_>>()?;
    let unshared = tensors.iter().map(|&storage| match storage {
        TensorStorage::Temporary { element, len } => len * element.bytes(),
        TensorStorage::Persistent(_) => 0,
    });
    let temporaries = Temporaries {
        allocations: allocations.iter().map(|buffer| buffer.allocation).collect(),
        bytes: slots.iter().map(|slot| slot.len * slot.element.bytes()).sum(),
        unshared_bytes: unshared.sum(),
        kept: kept.to_vec(),
    };
    Plan::record(Program { operations, buffers, temporaries }, device)
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
