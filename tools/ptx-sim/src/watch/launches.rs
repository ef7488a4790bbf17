//! Races between launches that nothing orders, and reads of what only such a launch has written.
//!
//! Which launches meet is known exactly, byte by byte (`shadow/uses.rs`). If two do, what blocks publish to
//! each other may order them all the same: that is decided as it is between the blocks of one launch, as long
//! as the history of the byte still holds the other launch's use. Where it does not, a warp that has learned
//! anything from another block is believed to know that use too: rather a race missed than a false one.

use super::finding::FindingKind;
use super::group::{Group, Member};
use super::races::Suspect;
use super::races::order::{Later, Ordering, Verdict};
use super::report::Report;
use super::shadow::history::{Conflict, Kind, Stamp};
use super::shadow::{Meeting, Use, words};
use crate::monitor::Place;

/// How an access uses memory, for other launches.
fn way_of(stamp: Stamp, writes: bool) -> Use {
    match (writes, stamp.kind()) {
        (false, Kind::Weak | Kind::Block) => Use::Read,
        (false, Kind::Volatile | Kind::Strong) => Use::AtomicRead,
        (true, Kind::Strong) => Use::AtomicWrite,
        (true, _) => Use::Write,
    }
}

/// Checks and notes a lane's access of global memory, if its launch is one of several; before anything else
/// notes it. `cached`: it reads through the read-only cache, which no flag makes see anything.
pub fn check(report: &mut Report<'_>, order: &mut Ordering, new: &Suspect<'_>, cached: bool) {
    let Some((group, position)) = report.subject.group else { return };
    let Place::Global { allocation, offset } = new.range.place else { return };
    let member = &group.members[position];
    let (uses, shadow) = (&group.uses[allocation], &report.subject.shadows[allocation]);
    let (words, mask) = words(offset, new.range.bytes);
    let way = way_of(new.accessor.stamp, new.writes);
    let (mut race, mut unwritten) = (None, false);
    for word in words {
        let mut meetings = Vec::new();
        uses.meetings(word, mask, &member.place, way, |meeting| meetings.push(meeting));
        for meeting in meetings {
            if race.is_none() {
                race = judge(report, order, (group, meeting), (allocation, word, mask), (new, cached));
            }
        }
        if way.reads() || new.accessor.modifies {
            unwritten |= uses.may_be_unwritten(word, mask, &member.place);
        }
        uses.note(word, mask, &member.place, way, !shadow.written.of(word));
    }
    if let Some((other, old, verdict)) = race {
        note(report, (member, other), (allocation, offset), (old, verdict), new);
    }
    if unwritten && !order.learned(new.accessor.at.warp) {
        note_unwritten(report, (allocation, offset), new);
    }
}

/// An earlier use by another launch: whose, its stamp if it is still known, whether it was a read, and what
/// is missing.
type Race<'a> = (&'a Member, (Option<Stamp>, bool), Verdict);

/// Whether a meeting is a race.
fn judge<'g>(
    report: &Report<'_>,
    order: &mut Ordering,
    (group, meeting): (&'g Group, Meeting),
    (allocation, word, mask): (usize, usize, u8),
    (new, cached): (&Suspect<'_>, bool),
) -> Option<Race<'g>> {
    let (other, tag) = group.of(meeting)?;
    let (at, read) = (new.accessor.at, meeting.way.reads());
    let fits = |stamp| way_of(stamp, !read) == meeting.way;
    let old = report.subject.shadows[allocation].histories.used_by((word, mask), tag, read, fits);
    if cached {
        return Some((other, (old, read), Verdict::Race));
    }
    let verdict = match old {
        Some(old) => {
            let stamp = new.accessor.stamp.by(new.range.lane);
            let reads = !new.writes || new.accessor.modifies;
            let later = Later { stamp, warp: at.warp, writes: new.writes, reads };
            order.verdict(&group.signals, Conflict { old, read, observed: false }, later, new.silent)
        }
        None if order.learned(at.warp) || new.writes && !read && (new.silent)() => Verdict::Fine,
        None => Verdict::Race,
    };
    (verdict != Verdict::Fine).then_some((other, (old, read), verdict))
}

/// Reports a race between two launches.
fn note(
    report: &mut Report<'_>,
    (member, other): (&Member, &Member),
    (allocation, offset): (usize, usize),
    ((old, read), verdict): ((Option<Stamp>, bool), Verdict),
    new: &Suspect<'_>,
) {
    let subject = report.subject;
    let allocation = subject.memory.get(allocation);
    let (at, address) = (new.accessor.at, allocation.base + offset as u64);
    report.note(at, new.range.lane as u32, FindingKind::LaunchRace, Some(address), || {
        let does = if new.writes { "writes" } else { "reads" };
        let did = if read { "read" } else { "wrote" };
        let who = old.map_or(String::new(), |old| {
            format!("block {:?} of ", super::report::place_in(other.grid, u64::from(old.block())))
        });
        let missing = match verdict {
            Verdict::NoAcquire => "and published, but no fence follows the read of the flag",
            Verdict::EarlyInLock => {
                "inside the same lock, but with no fence between taking the lock and that"
            }
            _ => "and nothing orders the two launches",
        };
        format!(
            "block {:?} of launch {} {does} {:?} at byte {offset}, which {who}launch {} ({}) {did}, \
             {missing}",
            subject.block_of(at.block),
            member.number,
            allocation.label,
            other.number,
            other.kernel
        )
    });
}

/// Reports a read of what only launches have written that do not come before.
fn note_unwritten(report: &mut Report<'_>, (allocation, offset): (usize, usize), new: &Suspect<'_>) {
    let allocation = report.subject.memory.get(allocation);
    let address = Some(allocation.base + offset as u64);
    report.note(new.accessor.at, new.range.lane as u32, FindingKind::Uninitialised, address, || {
        let (bytes, label) = (new.range.bytes, &allocation.label);
        format!(
            "reads {bytes} bytes of {label:?} from byte {offset}, of which some were written only by \
             launches that this one does not come after"
        )
    });
}
