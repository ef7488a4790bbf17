//! Which launches of a sequence may run beside which.
//!
//! A sequence has a main branch and one aside of it, each in order. An operation that runs aside
//! ([`Operation::runs_aside`]) comes after everything of the main branch before it. An operation of the main
//! branch waits for those aside whose memory it writes, or reads where they write it. That follows from the
//! operands' buffers alone: memory that the planner gives to another tensor too early costs time, not
//! correctness.

use std::ops::Range;

use crate::device::{Access, Buffer, Operand, Operation};
use crate::usage;

/// Name of the variable that turns branches off.
const VARIABLE: &str = "RECORDS_BRANCHES";

/// The most launches from the first aside to where all branches meet again. The interpreter takes 255 launches
/// of which not all are ordered; a GPU hardly notices one meeting in so many.
const MOST_UNORDERED: usize = 240;

/// Whether operations may run aside: they do unless `RECORDS_BRANCHES` is 0.
///
/// # Errors
/// A usage error where it is anything else but 0, 1 or empty.
pub fn wanted() -> anyhow::Result<bool> {
    let word = std::env::var_os(VARIABLE).unwrap_or_default();
    match word.to_str() {
        Some("" | "1") => Ok(true),
        Some("0") => Ok(false),
        _ => Err(usage!("{VARIABLE} {word:?}: must be 0 or 1")),
    }
}

/// For people: whether operations run aside.
pub fn describe() -> String {
    match wanted() {
        Ok(true) => "weight gradients beside the rest of the backward pass".into(),
        Ok(false) => "off, by RECORDS_BRANCHES".into(),
        Err(error) => format!("unusable: {error}"),
    }
}

/// Where a launch of a sequence stands. It comes after all earlier ones of its branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Whether it is on the branch aside.
    pub aside: bool,
    /// The launch of the other branch that it also comes after, by its number; so it does after what that one
    /// comes after.
    pub after: Option<usize>,
}

/// Memory that operations use: a range of bytes of an allocation.
#[derive(Clone, Copy, Debug)]
struct Use {
    allocation: usize,
    start: usize,
    end: usize,
    writes: bool,
}

impl Use {
    /// Whether two of which one comes first must stay in that order.
    fn conflicts(&self, other: &Self) -> bool {
        (self.writes || other.writes)
            && self.allocation == other.allocation
            && self.start < other.end
            && other.start < self.end
    }
}

/// The memory that launches use.
#[derive(Clone, Debug, Default)]
pub struct Used(Vec<Use>);

impl Used {
    /// What the operations use of the memory that lies in `buffers`.
    pub fn by(operations: &[&dyn Operation], buffers: &[Buffer]) -> Self {
        let operands: Vec<Operand> = operations.iter().flat_map(|operation| operation.operands()).collect();
        let mut used = Self::by_operands(&operands, buffers);
        // Exchanges keep their order, which must be the same on all GPUs.
        if operations.iter().any(|operation| operation.is_exchange()) {
            used.0.push(Use { allocation: usize::MAX, start: 0, end: 1, writes: true });
        }
        used
    }

    /// What operands in `buffers` take.
    pub fn by_operands(operands: &[Operand], buffers: &[Buffer]) -> Self {
        let of = |operand: &Operand| {
            let Buffer { allocation, offset, len, element } = buffers[operand.tensor.0];
            let [start, end] = [offset, offset + len].map(|at| at * element.bytes());
            Use { allocation, start, end, writes: operand.access != Access::Read }
        };
        Self(operands.iter().map(of).collect())
    }

    /// Both.
    pub fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// Whether launches that use these must stay in order.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.0.iter().any(|own| other.0.iter().any(|use_of_other| own.conflicts(use_of_other)))
    }
}

/// Gives the launches of operations their places, in the order in which they are to have run.
#[derive(Debug, Default)]
pub struct Placing {
    places: Vec<Place>,
    /// The last launch of the main branch.
    last_main: Option<usize>,
    /// The launch of the main branch that those aside have waited for.
    waited: Option<usize>,
    /// Last launch and memory of the operations aside that nothing has waited for, in order.
    outstanding: Vec<(usize, Used)>,
    /// The first launch aside since the branches met.
    first_aside: usize,
}

impl Placing {
    /// Places so many launches that use some memory together, aside if that is wanted and possible; returns
    /// whether they are aside.
    pub fn place(&mut self, used: Used, launches: usize, aside: bool) -> bool {
        if launches == 0 {
            return aside;
        }
        let (first, last) = (self.places.len(), self.places.len() + launches - 1);
        let start = if self.outstanding.is_empty() { first } else { self.first_aside };
        let too_many = last - start >= MOST_UNORDERED;
        let aside = aside && !too_many;
        let after = if aside {
            self.first_aside = start;
            self.outstanding.push((last, used));
            let after = self.last_main.filter(|_| self.last_main != self.waited);
            self.waited = self.last_main;
            after
        } else {
            self.last_main = Some(last);
            let mut outstanding = self.outstanding.iter().rev();
            let found = outstanding.find(|(_, with)| too_many || with.conflicts(&used));
            let after = found.map(|&(number, _)| number);
            self.outstanding.retain(|&(number, _)| Some(number) > after);
            after
        };
        self.places.push(Place { aside, after });
        self.places.extend((1..launches).map(|_| Place { aside, after: None }));
        aside
    }

    /// The places so far.
    pub fn places(&self) -> &[Place] {
        &self.places
    }
}

/// A part of a sequence before and after which all branches meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Every launch comes after the one before it.
    Ordered(Range<usize>),
    /// Some launches may run beside others.
    Unordered(Range<usize>),
}

/// Divides a sequence wherever all branches meet.
pub fn stretches(places: &[Place]) -> Vec<Stretch> {
    let (mut found, mut start) = (Vec::new(), 0);
    let mut last_aside = None;
    for (number, place) in places.iter().enumerate() {
        if place.aside {
            if last_aside.is_none() && number > start {
                found.push(Stretch::Ordered(start..number));
                start = number;
            }
            last_aside = Some(number);
        } else if last_aside.is_some() && place.after >= last_aside {
            found.push(Stretch::Unordered(start..number));
            (start, last_aside) = (number, None);
        }
    }
    let rest = start..places.len();
    found.extend((!rest.is_empty()).then_some(match last_aside {
        Some(_) => Stretch::Unordered(rest),
        None => Stretch::Ordered(rest),
    }));
    found
}

/// For each launch of an unordered stretch, those of it that it comes directly after, counted from its start.
pub fn predecessors(places: &[Place], stretch: Range<usize>) -> Vec<Vec<usize>> {
    let mut last = [None, None];
    let mut all = Vec::with_capacity(stretch.len());
    for number in stretch.clone() {
        let Place { aside, after } = places[number];
        let other = after.and_then(|after| after.checked_sub(stretch.start));
        let own = last[usize::from(aside)].replace(number - stretch.start);
        all.push([own, other].into_iter().flatten().collect());
    }
    all
}

#[cfg(test)]
#[path = "branches_tests.rs"]
mod tests;
