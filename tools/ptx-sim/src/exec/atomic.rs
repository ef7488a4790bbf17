//! Atomic operations, lane by lane in order.

use super::float::{both, half};
use super::memory::{self, Addresses, by_space};
use super::registers::{Bf16, F16};
use super::site::Site;
use crate::isa::{Arithmetic, Atomic, AtomicKind, Space, Type};
use crate::lanes::{LANES, lanes};
use crate::monitor::{Change, Event, Fault, Monitor, Place, Range, Semantics};

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

/// What the lanes bring and find.
struct Values<'a> {
    it: &'a Atomic,
    operands: [u64; LANES],
    seconds: [u64; LANES],
    /// The bits of the type.
    kept: u64,
    olds: [u64; LANES],
    changed: bool,
}

impl Values<'_> {
    /// A lane finds `old`: what it leaves instead, and what that is to others. What takes a lock for sure is
    /// a compare-and-swap that succeeds, or an exchange in a loop that waits.
    fn change(&mut self, lane: usize, old: u64) -> (u64, Change) {
        let (it, operand) = (self.it, self.operands[lane] & self.kept);
        let new = combine(it, old, operand, self.seconds[lane] & self.kept) & self.kept;
        self.olds[lane] = old;
        self.changed |= old != new;
        let change = Change {
            semantics: Semantics { order: it.order, scope: it.scope, waits: it.waits },
            changes: old != new,
            writes: it.kind != AtomicKind::CompareSwap || old == operand,
            locks: it.kind == AtomicKind::CompareSwap || it.kind == AtomicKind::Exchange && it.waits,
        };
        (new, change)
    }
}

const WHAT: &str = "an atomic operation";

fn run_shared<M: Monitor>(site: &mut Site<'_, M>, values: &mut Values<'_>, addresses: &Addresses, mask: u32) {
    let (bytes, at) = (values.it.value.bytes(), site.position());
    let mask = memory::shared_place(site, addresses, mask, bytes, WHAT);
    for lane in lanes(mask) {
        let offset = addresses[lane] as usize;
        let (new, change) = values.change(lane, site.block.shared.get(offset, bytes));
        let range = Range { lane, place: Place::Shared(offset), bytes };
        site.worker.monitor.modify(&mut site.block.watched, at, range, change);
        site.block.shared.put(offset, bytes, new);
    }
    site.worker.monitor.shared_traffic(addresses, mask, bytes);
    site.event(Event::AtomicLanes(mask.count_ones()));
}

fn run_global<M: Monitor>(site: &mut Site<'_, M>, values: &mut Values<'_>, addresses: &Addresses, mask: u32) {
    let (bytes, at) = (values.it.value.bytes(), site.position());
    let placed = memory::place(site, addresses, mask, u64::from(bytes), WHAT);
    let launch = site.launch;
    let guard = launch.atomic_turn();
    for lane in lanes(placed.mask) {
        let index = placed.index(lane);
        let allocation = launch.memory.get(index);
        let (offset, place) = memory::locate(allocation, index, addresses[lane]);
        let (new, change) = values.change(lane, allocation.load(offset, bytes));
        allocation.store(offset, bytes, new, launch.alone);
        site.worker.monitor.modify(&mut site.block.watched, at, Range { lane, place, bytes }, change);
    }
    drop(guard);
    site.worker.monitor.global_traffic(addresses, &placed, bytes, true);
    site.event(Event::AtomicLanes(placed.mask.count_ones()));
}

/// `atom` and `red` for the lanes of the site.
pub fn run<M: Monitor>(site: &mut Site<'_, M>, it: &Atomic) {
    let addresses = site.warp.addresses(&it.address);
    let bytes = it.value.bytes();
    let mut values = Values {
        it,
        operands: site.warp.wide(it.operand),
        seconds: it.second.map_or([0; LANES], |second| site.warp.wide(second)),
        kept: if bytes == 8 { u64::MAX } else { (1 << (8 * bytes)) - 1 },
        olds: [0; LANES],
        changed: false,
    };
    by_space(it.space, &addresses, site.mask, |space, addresses, mask| match space {
        Space::Shared => run_shared(site, &mut values, addresses, mask),
        Space::Global => run_global(site, &mut values, addresses, mask),
        _ => {
            let fault = Fault::Invalid("an atomic operation on local memory or parameters");
            site.fault(mask.trailing_zeros() as usize, None, fault);
        }
    });
    if values.changed {
        site.block.progress = true;
    } else {
        let lane = site.first();
        site.warp.note_wait(site.pc, addresses[lane], values.olds[lane]);
    }
    if let Some(result) = it.result {
        site.warp.set(result, &values.olds, site.mask);
    }
}
