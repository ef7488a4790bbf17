//! Atomic operations, lane by lane in order.

use super::block::BlockState;
use super::check::{self, Who};
use super::float::{both, half};
use super::grid::Worker;
use super::memory::{self, by_space};
use super::registers::{Bf16, F16, LANES, lanes};
use super::warp::Warp;
use crate::isa::{Arithmetic, Atomic, AtomicKind, Space, Type};
use crate::memory::order::Place;

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

/// Who modifies a word, having noted whether that takes a lock or gives one back. What takes a lock for sure is a
/// compare-and-swap that succeeds, or an exchange in a loop that waits.
fn take(
    worker: &Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    it: &Atomic,
    place: Place,
    old: u64,
    new: u64,
) -> Who {
    if old != new {
        let takes = match it.kind {
            AtomicKind::CompareSwap => true,
            AtomicKind::Exchange => it.waits,
            _ => false,
        };
        let held = block.order.holds(warp.index, place);
        if takes || held {
            let signals = &worker.launch.signals;
            block.order.note_lock(signals, warp.index, place, takes && !held, it.order, it.scope);
        }
    }
    Who { modifies: true, ..check::who(block, warp, it.order, it.scope, it.waits) }
}

/// Whether an operation wrote: a compare-and-swap that fails does not.
fn wrote(it: &Atomic, old: u64, operand: u64) -> bool {
    it.kind != AtomicKind::CompareSwap || old == operand
}

/// What the lanes bring and find.
struct Values {
    operands: [u64; LANES],
    seconds: [u64; LANES],
    /// The bits of the type.
    kept: u64,
    olds: [u64; LANES],
    changed: bool,
}

fn run_shared(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    it: &Atomic,
    addresses: &[u64; LANES],
    mask: u32,
    pc: u32,
    values: &mut Values,
) {
    let bytes = it.value.bytes();
    let mask = memory::shared_place(worker, block, warp, addresses, mask, bytes, pc, "an atomic operation");
    let talks = check::talks(worker, block, warp, it.order);
    for lane in lanes(mask) {
        let offset = addresses[lane] as usize;
        if let Some(defect) = block.shared.usable(offset, bytes) {
            check::shared_content(worker, block, warp, defect, offset, bytes, true, lane, pc);
        }
        let old = block.shared.get(offset, bytes);
        let new = combine(it, old, values.operands[lane] & values.kept, values.seconds[lane] & values.kept)
            & values.kept;
        let place = Place::shared(addresses[lane], block.order.id());
        if talks {
            check::observe(worker, block, warp, [(lane, place)], it.order, it.scope);
        }
        let who = take(worker, block, warp, it, place, old, new);
        if old == new {
            check::shared_read(worker, block, warp, offset, bytes, who, lane, pc);
        } else {
            check::shared_write(worker, block, warp, offset, bytes, who, |_| false, lane, pc);
        }
        block.shared.put(offset, bytes, new);
        if talks && wrote(it, old, values.operands[lane] & values.kept) {
            check::publish(worker, block, warp, [(lane, place)], it.order, it.scope);
        }
        values.olds[lane] = old;
        values.changed |= old != new;
    }
    memory::shared_cost(worker, addresses, mask, bytes);
    worker.counters.atomic_lanes += u64::from(mask.count_ones());
}

fn run_global(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &Warp,
    it: &Atomic,
    addresses: &[u64; LANES],
    mask: u32,
    pc: u32,
    values: &mut Values,
) {
    let bytes = it.value.bytes();
    let what = "an atomic operation";
    let placed = memory::place(worker, block, warp, addresses, mask, u64::from(bytes), pc, what);
    let launch = worker.launch;
    let talks = check::talks(worker, block, warp, it.order);
    // One warp's operation at a time, whichever thread runs it.
    let guard = if launch.alone { None } else { launch.atomics.lock().ok() };
    for lane in lanes(placed.mask) {
        let allocation = launch.memory.get(placed.index(lane));
        let address = addresses[lane];
        let offset = (address - allocation.base) as usize;
        check::check_written(worker, block, warp, allocation, address, bytes, lane, pc);
        let old = allocation.load(offset, bytes);
        let new = combine(it, old, values.operands[lane] & values.kept, values.seconds[lane] & values.kept)
            & values.kept;
        allocation.store(offset, bytes, new, launch.alone);
        let place = Place::global(address);
        if talks {
            check::observe(worker, block, warp, [(lane, place)], it.order, it.scope);
        }
        let who = take(worker, block, warp, it, place, old, new);
        if old == new {
            check::check_read(worker, block, warp, allocation, address, bytes, who, lane, pc);
        } else {
            let silent = || false;
            check::check_write(worker, block, warp, allocation, address, bytes, who, silent, lane, pc);
        }
        if talks && wrote(it, old, values.operands[lane] & values.kept) {
            check::publish(worker, block, warp, [(lane, place)], it.order, it.scope);
        }
        values.olds[lane] = old;
        values.changed |= old != new;
    }
    drop(guard);
    memory::global_cost(worker, addresses, &placed, bytes, true);
    worker.counters.atomic_lanes += u64::from(placed.mask.count_ones());
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
    let mut values = Values {
        operands: warp.wide(it.operand),
        seconds: it.second.map_or([0; LANES], |second| warp.wide(second)),
        kept,
        olds: [0; LANES],
        changed: false,
    };
    by_space(it.space, &addresses, mask, |space, addresses, mask| match space {
        Space::Shared => run_shared(worker, block, warp, it, addresses, mask, pc, &mut values),
        Space::Global => run_global(worker, block, warp, it, addresses, mask, pc, &mut values),
        _ => {
            let kind = crate::finding::FindingKind::InvalidAccess;
            worker.finding(block, warp, pc, kind, mask.trailing_zeros(), None, || {
                "an atomic operation on local memory or parameters".into()
            });
        }
    });
    if values.changed {
        block.progress = true;
    } else {
        let lane = mask.trailing_zeros() as usize & 31;
        warp.note_wait(pc, addresses[lane], values.olds[lane]);
    }
    if let Some(result) = it.result {
        warp.set(result, &values.olds, mask);
    }
}
