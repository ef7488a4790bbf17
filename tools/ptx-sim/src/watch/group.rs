//! A group of launches of which not all are ordered with each other: who comes after whom.

use super::shadow::{Meeting, Place, Shadow, Uses};
use super::signals::Signals;
use crate::memory::Memory;

/// Launches of a group, at most: histories tell so many apart.
pub const MOST_MEMBERS: usize = super::shadow::history::MOST_TAG as usize;

/// One launch of the group.
pub struct Member {
    pub kernel: String,
    /// Its number in the order in which they were given.
    pub number: usize,
    pub grid: [u32; 3],
    pub place: Place,
}

/// All of them, in the order in which they run.
pub struct Group {
    pub members: Vec<Member>,
    /// Of the first one; each has the next.
    pub first_tag: u64,
    /// Of each allocation.
    pub uses: Vec<Uses>,
    /// What blocks publish to each other, those of other launches included.
    pub signals: Signals,
}

impl Group {
    /// `launches`: kernel, number and grid of each, in the order in which they run, and `after` which of
    /// those before it comes. None if the host has not the memory.
    pub fn new(
        launches: Vec<(String, usize, [u32; 3])>,
        after: &[Vec<usize>],
        (memory, shadows): (&Memory, &[Shadow]),
        first_tag: u64,
    ) -> Option<Self> {
        let (places, chains) = places(after);
        let member = |((kernel, number, grid), place)| Member { kernel, number, grid, place };
        let members = launches.into_iter().zip(places).map(member).collect();
        let words = (0..shadows.len()).map(|index| (memory.get(index).bytes as usize).div_ceil(4));
        let uses = words.map(|words| Uses::new(words, chains)).collect::<Option<_>>()?;
        Some(Self { members, first_tag, uses, signals: Signals::default() })
    }

    /// Who used memory before, and the tag of that launch.
    pub fn of(&self, meeting: Meeting) -> Option<(&Member, u64)> {
        let found =
            |member: &Member| (member.place.chain, member.place.step) == (meeting.chain, meeting.step);
        let position = self.members.iter().position(found)?;
        Some((&self.members[position], self.first_tag + position as u64))
    }
}

/// Each launch's place, and the number of chains: a launch goes on with the first chain of which it comes
/// after the end.
fn places(after: &[Vec<usize>]) -> (Vec<Place>, usize) {
    let mut before: Vec<Vec<bool>> = Vec::new();
    for direct in after {
        let mut all = vec![false; after.len()];
        for &earlier in direct {
            all[earlier] = true;
            all.iter_mut().zip(&before[earlier]).for_each(|(known, more)| *known |= more);
        }
        before.push(all);
    }
    let mut chains: Vec<Vec<usize>> = Vec::new();
    for (launch, before) in before.iter().enumerate() {
        let follows = |chain: &&mut Vec<usize>| chain.last().is_none_or(|last| before[*last]);
        match chains.iter_mut().find(follows) {
            Some(chain) => chain.push(launch),
            None => chains.push(vec![launch]),
        }
    }
    let place = |launch: usize| {
        let known = |other: &usize| *other == launch || before[launch][*other];
        let after =
            chains.iter().map(|chain| chain.iter().filter(|other| known(other)).count() as u8).collect();
        let (chain, step) = (chains.iter().enumerate())
            .find_map(|(chain, all)| Some((chain, all.iter().position(|other| *other == launch)?)))
            .unwrap_or_default();
        Place { chain, step: step as u8 + 1, after }
    };
    ((0..after.len()).map(place).collect(), chains.len())
}

#[cfg(test)]
mod tests {
    use super::places;

    /// 0 before 1 and 2, which come before 3; 4 comes after 1 only.
    #[test]
    fn places_in_a_diamond_with_a_tail() {
        let (places, chains) = places(&[vec![], vec![0], vec![0], vec![1, 2], vec![1]]);
        assert_eq!(chains, 3);
        let all: Vec<_> = places.iter().map(|p| (p.chain, p.step, p.after.clone())).collect();
        assert_eq!(all[0], (0, 1, vec![1, 0, 0]));
        assert_eq!(all[1], (0, 2, vec![2, 0, 0]));
        assert_eq!(all[2], (1, 1, vec![1, 1, 0]));
        assert_eq!(all[3], (0, 3, vec![3, 1, 0]));
        assert_eq!(all[4], (2, 1, vec![2, 0, 1]));
    }
}
