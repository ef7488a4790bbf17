//! Atomic operations, lane by lane in order.

use super::block::BlockState;
use super::float::{Arithmetic, both, half};
use super::grid::Worker;
use super::memory::{self, by_space};
use super::registers::{Bf16, F16, LANES, lanes};
use super::warp::Warp;
use crate::code::{Atomic, AtomicKind, Order, Space, Type};

/// The new value.
fn combine(it: &Atomic, old: u64, operand: u64, second: u64) -> u64 {
    let signed = it.value.is_signed();
    let (a, b) = (it.value.extend(old), it.value.extend(operand));
    match it.kind {
        AtomicKind::Add => match it.value {
            Type::F32 => u64::from((f32::from_bits(old as u32) + f32::from_bits(operand as u32)).to_bits()),
            Type::F64 => (f64::from_bits(old) + f64::from_bits(operand)).to_bits(),
            Type::F16 => u64::from(half(Arithmetic::Add, F16(old as u16), F16(operand as u16), F16(0)).0),
            Type::Bf16 => u64::from(half(Arithmetic::Add, Bf16(old as u16), Bf16(operand as u16), Bf16(0)).0),
            Type::F16x2 => u64::from(both::<F16>(old as u32, operand as u32, 0, |a, b, c| {
                half(Arithmetic::Add, a, b, c)
            })),
            Type::Bf16x2 => u64::from(both::<Bf16>(old as u32, operand as u32, 0, |a, b, c| {
                half(Arithmetic::Add, a, b, c)
            })),
            _ => old.wrapping_add(operand),
        },
        AtomicKind::Min => {
            if a < b || !signed && a == b {
                old
            } else {
                operand
            }
        }
        AtomicKind::Max => {
            if a > b {
                old
            } else {
                operand
            }
        }
        AtomicKind::And => old & operand,
        AtomicKind::Or => old | operand,
        AtomicKind::Xor => old ^ operand,
        AtomicKind::Exchange => operand,
        AtomicKind::CompareSwap => {
            if old == operand {
                second
            } else {
                old
            }
        }
        AtomicKind::Increment => {
            if old >= operand {
                0
            } else {
                old + 1
            }
        }
        AtomicKind::Decrement => {
            if old == 0 || old > operand {
                operand
            } else {
                old - 1
            }
        }
    }
}

pub fn run(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    it: &Atomic,
    mask: u32,
    pc: u32,
) {
    let addresses = warp.addresses(&it.address);
    let bytes = it.value.bytes();
    let kept = if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 };
    let operands = warp.wide(it.operand);
    let seconds = it.second.map_or([0; LANES], |second| warp.wide(second));
    let mut olds = [0u64; LANES];
    let mut changed = false;
    by_space(it.space, &addresses, mask, |space, addresses, mask| match space {
        Space::Shared => {
            let mask =
                memory::shared_place(worker, block, warp, addresses, mask, bytes, pc, "an atomic operation");
            for lane in lanes(mask) {
                let offset = addresses[lane] as usize;
                let read = block.shared.read(offset, bytes, warp.index, true);
                let write = block.shared.write(offset, bytes, warp.index, true);
                if let Some(defect) = read.or(write) {
                    memory::shared_defect(worker, block, warp, defect, true, offset, bytes, lane, pc);
                }
                let old = block.shared.get(offset, bytes);
                let new = combine(it, old, operands[lane] & kept, seconds[lane] & kept) & kept;
                block.shared.put(offset, bytes, new);
                olds[lane] = old;
                changed |= old != new;
            }
            memory::shared_cost(worker, addresses, mask, bytes);
            worker.counters.atomic_lanes += u64::from(mask.count_ones());
        }
        Space::Global => {
            let what = "an atomic operation";
            let placed = memory::place(worker, block, warp, addresses, mask, u64::from(bytes), pc, what);
            let launch = worker.launch;
            let who = memory::me(block, warp, Order::Relaxed);
            memory::signal(worker, block, warp, addresses, placed.mask, it.order);
            // One warp's operation at a time, whichever thread runs it.
            let guard = if launch.alone { None } else { launch.atomics.lock().ok() };
            for lane in lanes(placed.mask) {
                let allocation = launch.memory.get(placed.index(lane));
                let address = addresses[lane];
                let offset = (address - allocation.base) as usize;
                memory::check_read(worker, block, warp, allocation, address, bytes, who, lane, pc);
                let old = allocation.load(offset, bytes);
                let new = combine(it, old, operands[lane] & kept, seconds[lane] & kept) & kept;
                allocation.store(offset, bytes, new, launch.alone);
                memory::check_write(worker, block, warp, allocation, address, bytes, who, lane, pc);
                olds[lane] = old;
                changed |= old != new;
            }
            drop(guard);
            memory::global_cost(worker, addresses, &placed, bytes, true);
            worker.counters.atomic_lanes += u64::from(placed.mask.count_ones());
        }
        _ => {
            let kind = crate::finding::FindingKind::InvalidAccess;
            worker.finding(block, warp, pc, kind, mask.trailing_zeros(), None, || {
                "an atomic operation on local memory or parameters".into()
            });
        }
    });
    if changed {
        block.progress = true;
    } else {
        let lane = mask.trailing_zeros() as usize & 31;
        warp.note_wait(pc, addresses[lane], olds[lane]);
    }
    if let Some(result) = it.result {
        warp.set(result, &olds, mask);
    }
}
