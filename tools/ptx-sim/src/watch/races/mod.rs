//! Races: whether an access may happen now, by who used the same bytes before and what orders the two.
//!
//! Histories (`shadow/history.rs`) remember for each word who used it last and exclude most conflicts at
//! once; [`order`] knows what each warp of a block knows of the others, and decides about the rest, with what
//! blocks publish (`signals.rs`).

pub mod order;

use super::finding::FindingKind;
use super::report::Report;
use super::shadow::history::{self, Bounds, Conflict, Stamp};
use super::shadow::{Shadow, words};
use crate::monitor::{Place, Position, Range};
use order::{Later, Ordering, Verdict};

/// A warp in an access, as histories know it.
#[derive(Clone, Copy, Debug)]
pub struct Accessor {
    pub at: Position,
    pub stamp: Stamp,
    pub bounds: Bounds,
    /// A read-modify-write, which has read what it replaces.
    pub modifies: bool,
}

/// A lane's access that may be a race.
pub struct Suspect<'a> {
    pub accessor: Accessor,
    pub range: Range,
    pub writes: bool,
    /// Whether the write leaves what was there.
    pub silent: &'a dyn Fn() -> bool,
}

/// Reports two uses that may conflict if they are a race, and says whether they are.
#[cold]
pub fn check(report: &mut Report<'_>, order: &mut Ordering, conflict: Conflict, new: &Suspect<'_>) -> bool {
    let Accessor { at, stamp, modifies, .. } = new.accessor;
    let stamp = stamp.by(new.range.lane);
    let later = Later { stamp, warp: at.warp, writes: new.writes, reads: !new.writes || modifies };
    let verdict = order.verdict(report.subject.signals, conflict, later, new.silent);
    if verdict != Verdict::Fine {
        note(report, order, conflict, verdict, new);
    }
    verdict != Verdict::Fine
}

/// Reports a race.
fn note(report: &mut Report<'_>, order: &Ordering, conflict: Conflict, verdict: Verdict, new: &Suspect<'_>) {
    let (old, at, lane) = (conflict.old, new.accessor.at, new.range.lane);
    let does = if new.writes { "writes" } else { "reads" };
    let did = if conflict.read { "read" } else { "wrote" };
    let other_block = old.party() != order.id();
    let subject = report.subject;
    let (kind, address, place) = match new.range.place {
        Place::Global { allocation, offset } => {
            let allocation = subject.memory.get(allocation);
            let kind = if other_block { FindingKind::BlockRace } else { FindingKind::GlobalRace };
            let place = format!("{:?} at byte {offset}", allocation.label);
            (kind, allocation.base + offset as u64, place)
        }
        Place::Shared(offset) | Place::Local(offset) => {
            let place = format!("shared memory at {}", subject.shared_name(offset));
            (FindingKind::SharedRace, offset as u64, place)
        }
    };
    let (who, other, missing) = if other_block {
        let (block, other) = (subject.block_of(at.block), subject.block_of(u64::from(old.block())));
        let missing = "in the same launch with nothing that orders the two";
        (format!("block {block:?}"), format!("block {other:?}"), missing)
    } else if old.warp() != at.warp {
        (format!("warp {}", at.warp), format!("warp {}", old.warp()), "with no barrier between")
    } else {
        let one = old.lane() != lane || !old.many();
        let other = if one { format!("lane {}", old.lane()) } else { "other lanes".into() };
        (format!("lane {lane}"), other, "with nothing between that synchronises the warp")
    };
    let missing = match verdict {
        Verdict::NoAcquire => "and published, but no fence follows the read of the flag",
        Verdict::EarlyInLock => "inside the same lock, but with no fence between taking the lock and that",
        _ => missing,
    };
    report.note(at, lane as u32, kind, Some(address), || {
        format!("{who} {does} {place}, which {other} {did} {missing}")
    });
}

/// Notes a lane's read of whole words that were written and where it conflicts with nothing; false if that is
/// not certain, and then it is to be noted again.
#[inline(always)]
pub fn plain_read(shadow: &Shadow, accessor: Accessor, range: Range, offset: usize) -> bool {
    let (new, bounds) = (accessor.stamp.by(range.lane), accessor.bounds);
    let mut rest = (offset / 4, range.bytes);
    while rest.1 >= 4 {
        let Some(mut slots) = shadow.histories.of(rest.0) else { return false };
        if shadow.written.of(rest.0) != 15 || !history::plain_read(&mut slots, new, bounds) {
            return false;
        }
        rest = (rest.0 + 1, rest.1 - 4);
    }
    rest.1 == 0
}

/// The same of a write.
#[inline(always)]
pub fn plain_write(shadow: &Shadow, accessor: Accessor, range: Range, offset: usize) -> bool {
    let (new, bounds) = (accessor.stamp.by(range.lane), accessor.bounds);
    let mut rest = (offset / 4, range.bytes);
    while rest.1 >= 4 {
        let Some(mut slots) = shadow.histories.of(rest.0) else { return false };
        shadow.written.add(rest.0, 15);
        if !history::plain_write(&mut slots, new, bounds) {
            return false;
        }
        rest = (rest.0 + 1, rest.1 - 4);
    }
    rest.1 == 0
}

/// Notes and checks one lane's read of global memory.
pub fn read_global(
    report: &mut Report<'_>,
    order: &mut Ordering,
    accessor: Accessor,
    range: Range,
    (allocation, offset): (usize, usize),
) {
    let histories = &report.subject.shadows[allocation].histories;
    let (words, mask) = words(offset, range.bytes);
    let (new, mut reported) = (accessor.stamp.by(range.lane), false);
    for word in words {
        histories.each(word, mask, new.tag(), |slots| {
            for conflict in history::read(slots, new, accessor.bounds).into_iter().flatten() {
                if !reported {
                    let suspect = Suspect { accessor, range, writes: false, silent: &|| false };
                    reported = check(report, order, conflict, &suspect);
                }
            }
        });
    }
}

/// Notes and checks one lane's write of global memory.
pub fn write_global(
    report: &mut Report<'_>,
    order: &mut Ordering,
    accessor: Accessor,
    range: Range,
    (allocation, offset): (usize, usize),
    silent: &dyn Fn() -> bool,
) {
    let shadow = &report.subject.shadows[allocation];
    let histories = &shadow.histories;
    let (words, mask) = words(offset, range.bytes);
    let (new, mut reported) = (accessor.stamp.by(range.lane), false);
    for word in words {
        shadow.written.add(word, mask);
        histories.each(word, mask, new.tag(), |slots| {
            for conflict in history::write(slots, new, accessor.bounds).into_iter().flatten() {
                if !reported {
                    let suspect = Suspect { accessor, range, writes: true, silent };
                    reported = check(report, order, conflict, &suspect);
                }
            }
        });
    }
}

/// Reports a read through the read-only cache of what this launch wrote.
pub fn read_only(
    report: &mut Report<'_>,
    order: &Ordering,
    accessor: Accessor,
    range: Range,
    (allocation, offset): (usize, usize),
) {
    let (words, mask) = words(offset, range.bytes);
    let subject = report.subject;
    let histories = &subject.shadows[allocation].histories;
    let mut writer = None;
    for word in words {
        histories.each(word, mask, subject.tag, |slots| {
            writer = writer.or(history::written_in(slots, subject.tag));
        });
    }
    let Some(writer) = writer else { return };
    let allocation = subject.memory.get(allocation);
    let other = subject.block_of(u64::from(writer.block()));
    let near = writer.party() == order.id();
    let kind = if near { FindingKind::GlobalRace } else { FindingKind::BlockRace };
    report.note(accessor.at, range.lane as u32, kind, Some(allocation.base + offset as u64), || {
        let label = &allocation.label;
        format!(
            "reads {label:?} at byte {offset} through the read-only cache, which block {other:?} wrote in \
             the same launch"
        )
    });
}
