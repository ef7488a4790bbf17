//! Several launches of which not all are ordered with each other, as the branches of a CUDA graph are not.

use super::Machine;
use super::launch::{Launch, Report, Role};
use crate::error::{Error, Result};
use crate::isa::Program;
use crate::watch::{Group, MOST_MEMBERS};

/// A launch of a graph.
#[derive(Clone, Copy, Debug)]
pub struct GraphLaunch<'a> {
    /// The program that has the kernel.
    pub program: &'a Program,
    /// The kernel's name.
    pub kernel: &'a str,
    /// How it is launched.
    pub launch: Launch<'a>,
    /// The launches that it comes after, by their numbers in the list: earlier ones only. What those come
    /// after it comes after too.
    pub after: &'a [usize],
}

impl Machine {
    /// Runs launches of which each is ordered only after those that it names, and finds races between the
    /// others. The reports are in the order of the list; a race between two launches
    /// ([`crate::FindingKind::LaunchRace`]) is in the report of the one that ran later.
    ///
    /// They run one at a time: in the order of the list with warp seed 0, otherwise in an order that the seed
    /// chooses of those allowed. So the values are the same each time, races or not. A launch that waits for
    /// what another one writes while it runs is a finding if that one's turn comes later, for launches are
    /// not promised to run at the same time.
    ///
    /// # Errors As [`Machine::launch`], before anything runs; a launch that names itself, a later one or none
    /// of the list; more than 255 launches; the host has not the memory to note which launch used what.
    pub fn launch_graph(&mut self, launches: &[GraphLaunch<'_>]) -> Result<Vec<Report>> {
        if launches.len() > MOST_MEMBERS {
            return Err(Error::new(format!(
                "a graph of {} launches; the most is {MOST_MEMBERS}: divide it where all its branches meet",
                launches.len()
            )));
        }
        let mut prepared = Vec::with_capacity(launches.len());
        for (number, it) in launches.iter().enumerate() {
            if let Some(wrong) = it.after.iter().find(|other| **other >= number) {
                return Err(Error::new(format!(
                    "launch {number} ({}) after launch {wrong}: it may come after earlier ones of the list \
                     only",
                    it.kernel
                )));
            }
            let before = launches[..number].iter().filter(|other| other.launch.cooperative).count();
            prepared.push(self.prepare(it.program, it.kernel, &it.launch, before)?);
        }
        let order = order_of(launches, self.settings.warp_seed);
        let position = |number: usize| order.iter().position(|other| *other == number).unwrap_or(0);
        let after: Vec<Vec<usize>> = (order.iter())
            .map(|number| launches[*number].after.iter().map(|other| position(*other)).collect())
            .collect();
        let members = (order.iter())
            .map(|number| (launches[*number].kernel.to_string(), *number, launches[*number].launch.grid))
            .collect();
        let first_tag = self.take_tags(launches.len() as u64);
        let group = Group::new(members, &after, (&self.memory, &self.shadows), first_tag)
            .ok_or_else(|| Error::new("no memory to note which launch of the graph used what"))?;
        let mut reports = vec![Report::default(); launches.len()];
        for (position, number) in order.into_iter().enumerate() {
            let tag = first_tag + position as u64;
            let role = Role { tag, group: Some((&group, position)), signals: &group.signals };
            reports[number] = self.run(&prepared[number], role);
        }
        Ok(reports)
    }
}

/// An order in which the launches may run: the given one, or one that a seed chooses.
fn order_of(launches: &[GraphLaunch<'_>], seed: u64) -> Vec<usize> {
    let mut left: Vec<usize> = (0..launches.len()).collect();
    if seed == 0 {
        return left;
    }
    let (mut order, mut random) = (Vec::new(), seed);
    while !left.is_empty() {
        let free: Vec<usize> = (0..left.len())
            .filter(|at| launches[left[*at]].after.iter().all(|other| order.contains(other)))
            .collect();
        // Knuth's generator; its upper bits are the better ones.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.push(left.remove(free[(random >> 33) as usize % free.len()]));
    }
    order
}
