//! Planning memory: temporaries whose lifetimes do not overlap share an allocation.
//!
//! A lifetime runs from the first primitive that names a tensor to the last. Going through the primitives in order, a
//! tensor takes the smallest free allocation that holds it, else the largest free one, grown, else a new one. An
//! allocation is one slot, never split, so that a device can check that no primitive reads and writes the same memory.

use anyhow::Result;

use super::tape::Storage;
use crate::device::{Buffer, Device, Element, Plan, Primitive, Tensor};

struct Slot {
    element: Element,
    len: usize,
    free: bool,
}

/// Gives every temporary a slot and allocates the slots.
pub(super) fn plan(
    primitives: Vec<Primitive>,
    tensors: &[Storage],
    kept: &[Tensor],
    device: &mut dyn Device,
) -> Result<Plan> {
    let mut last_use = vec![0; tensors.len()];
    for (position, primitive) in primitives.iter().enumerate() {
        primitive.operands().iter().for_each(|(tensor, _)| last_use[tensor.0] = position);
    }
    kept.iter().for_each(|tensor| last_use[tensor.0] = usize::MAX);

    let mut slots: Vec<Slot> = Vec::new();
    let mut slot_of: Vec<Option<usize>> = vec![None; tensors.len()];
    for (position, primitive) in primitives.iter().enumerate() {
        let operands = primitive.operands();
        for &(tensor, _) in &operands {
            if let (Storage::Temporary { element, len }, None) = (tensors[tensor.0], slot_of[tensor.0]) {
                slot_of[tensor.0] = Some(take(&mut slots, element, len));
            }
        }
        for (tensor, _) in operands {
            if let (Some(slot), true) = (slot_of[tensor.0], last_use[tensor.0] == position) {
                slots[slot].free = true;
            }
        }
    }

    let requests: Vec<(Element, usize)> = slots.iter().map(|slot| (slot.element, slot.len)).collect();
    let allocations = device.allocate_all(&requests, "the step's temporaries")?;
    let buffers = tensors
        .iter()
        .zip(&slot_of)
        .map(|(&storage, slot)| match storage {
            Storage::Persistent(buffer) => buffer,
            // A temporary that no primitive names has no memory.
            Storage::Temporary { element, len } => slot
                .map_or(Buffer { allocation: usize::MAX, offset: 0, len: 0, element }, |slot| {
                    allocations[slot].part(0, len)
                }),
        })
        .collect();
    let temporary_bytes = slots.iter().map(|slot| slot.len * slot.element.bytes()).sum();
    let unshared_bytes = tensors
        .iter()
        .map(|&storage| match storage {
            Storage::Temporary { element, len } => len * element.bytes(),
            Storage::Persistent(_) => 0,
        })
        .sum();
    let mut plan = Plan {
        primitives,
        buffers,
        temporary_allocations: allocations.iter().map(|buffer| buffer.allocation).collect(),
        temporary_bytes,
        unshared_bytes,
        recording: 0,
    };
    plan.recording = device.record(&plan)?;
    Ok(plan)
}

/// A slot for a tensor: the smallest free one that fits, else the largest free one, grown, else a new one.
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

    /// A chain of pools: each temporary lives for two primitives, so two slots serve any length.
    #[test]
    fn a_chain_needs_two_slots() {
        let mut device = CpuDevice::new(1).unwrap();
        let input = device.allocate(Element::F32, 64, "input").unwrap();
        let mut tape = Tape::new(Element::F32);
        let mut x = tape.persistent(input);
        for _ in 0..5 {
            x = tape.average_pool(64, 1, 1, x);
        }
        tape.keep(x);
        let plan = tape.finish(&mut device).unwrap();
        assert_eq!(plan.unshared_bytes, 5 * 64 * 4);
        assert_eq!(plan.temporary_bytes, 2 * 64 * 4);
        for primitive in &plan.primitives {
            let [(x, _), (y, _)] = primitive.operands()[..] else { panic!("two operands") };
            assert_ne!(plan.buffer(x).allocation, plan.buffer(y).allocation, "input and output share memory");
        }
    }

    /// A kept tensor's memory is not given to another.
    #[test]
    fn a_kept_tensor_keeps_its_memory() {
        let mut device = CpuDevice::new(1).unwrap();
        let input = device.allocate(Element::F32, 64, "input").unwrap();
        let mut tape = Tape::new(Element::F32);
        let x = tape.persistent(input);
        let first = tape.average_pool(64, 1, 1, x);
        tape.keep(first);
        let mut y = tape.average_pool(64, 1, 1, first);
        for _ in 0..3 {
            y = tape.average_pool(64, 1, 1, y);
        }
        let plan = tape.finish(&mut device).unwrap();
        let users = plan.buffers.iter().filter(|b| b.allocation == plan.buffer(first).allocation).count();
        assert_eq!(users, 1);
    }
}
