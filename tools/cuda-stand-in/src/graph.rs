//! What a captured stream becomes: work, and what each piece of it comes after.

use std::collections::BTreeSet;

use crate::work::Work;

/// A piece of work of a graph.
#[derive(Clone, Debug)]
pub struct Node {
    pub work: Work,
    /// The nodes that must have ended before it starts; all of them have smaller numbers.
    pub after: Vec<usize>,
}

/// Work and its dependencies.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

impl Graph {
    /// Appends work that comes after `after`; its number.
    pub fn push(&mut self, work: Work, after: Vec<usize>) -> usize {
        self.nodes.push(Node { work, after });
        self.nodes.len() - 1
    }

    /// An order in which every node comes after those it depends on. `last_first`: of several that may run
    /// next, the one that was captured last, so that what only the order of capture protects comes to light.
    pub fn order(&self, last_first: bool) -> Vec<usize> {
        let mut followers = vec![Vec::new(); self.nodes.len()];
        for (number, node) in self.nodes.iter().enumerate() {
            node.after.iter().for_each(|&before| followers[before].push(number));
        }
        let mut missing: Vec<usize> = self.nodes.iter().map(|node| node.after.len()).collect();
        let mut ready: BTreeSet<usize> = (0..missing.len()).filter(|&node| missing[node] == 0).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(node) = if last_first { ready.pop_last() } else { ready.pop_first() } {
            order.push(node);
            for &follower in &followers[node] {
                missing[follower] -= 1;
                if missing[follower] == 0 {
                    ready.insert(follower);
                }
            }
        }
        order
    }

    /// Whether every node of `nodes` is one of `ends` or comes before one of them.
    pub fn are_before(&self, nodes: &[usize], ends: &[usize]) -> bool {
        let mut before = vec![false; self.nodes.len()];
        ends.iter().for_each(|&end| before[end] = true);
        for (number, node) in self.nodes.iter().enumerate().rev() {
            if before[number] {
                node.after.iter().for_each(|&earlier| before[earlier] = true);
            }
        }
        nodes.iter().all(|&node| before[node])
    }
}
