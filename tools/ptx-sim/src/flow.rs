//! Control flow: where lanes that branch apart meet again.
//!
//! A branch's meeting point is its immediate post-dominator: the first instruction that every path from the branch to the end of the
//! kernel goes through. Computed on basic blocks by the iterative algorithm of Cooper, Harvey and Kennedy on the reversed graph.

use crate::op::{Instruction, Op};

/// No meeting point: some path ends the kernel.
pub const NEVER: u32 = u32::MAX;

/// Fills [`Instruction::meet`] of every branch.
pub fn place_meeting_points(code: &mut [Instruction]) {
    let len = code.len();
    if len == 0 {
        return;
    }
    let mut starts = vec![false; len + 1];
    starts[0] = true;
    for (at, instruction) in code.iter().enumerate() {
        match &instruction.op {
            Op::Branch { target } => {
                starts[*target as usize] = true;
                starts[at + 1] = true;
            }
            Op::BranchTable { targets, .. } => {
                targets.iter().for_each(|&target| starts[target as usize] = true);
                starts[at + 1] = true;
            }
            Op::Exit | Op::Trap => starts[at + 1] = true,
            _ => {}
        }
    }
    let firsts: Vec<usize> = (0..len).filter(|&at| starts[at]).collect();
    let mut block_of = vec![0usize; len];
    for (block, &first) in firsts.iter().enumerate() {
        let end = firsts.get(block + 1).copied().unwrap_or(len);
        block_of[first..end].fill(block);
    }
    let blocks = firsts.len();
    // One more node stands for the end of the kernel.
    let end = blocks;
    let mut successors: Vec<Vec<usize>> = vec![Vec::new(); blocks + 1];
    for block in 0..blocks {
        let last = firsts.get(block + 1).copied().unwrap_or(len) - 1;
        let instruction = &code[last];
        let next = |at: usize| if at < len { block_of[at] } else { end };
        let list = &mut successors[block];
        let falls_through = match &instruction.op {
            Op::Branch { target } => {
                list.push(next(*target as usize));
                instruction.guard.is_some()
            }
            Op::BranchTable { targets, .. } => {
                list.extend(targets.iter().map(|&target| next(target as usize)));
                instruction.guard.is_some()
            }
            Op::Exit | Op::Trap => {
                list.push(end);
                instruction.guard.is_some()
            }
            _ => true,
        };
        if falls_through {
            list.push(next(last + 1));
        }
    }
    let post_dominators = immediate_post_dominators(&successors, end);
    for at in 0..len {
        let meet = match post_dominators[block_of[at]] {
            Some(block) if block != end => firsts[block] as u32,
            _ => NEVER,
        };
        if matches!(code[at].op, Op::Branch { .. } | Op::BranchTable { .. }) {
            code[at].meet = meet;
        }
    }
}

fn immediate_post_dominators(successors: &[Vec<usize>], end: usize) -> Vec<Option<usize>> {
    let nodes = successors.len();
    let mut predecessors: Vec<Vec<usize>> = vec![Vec::new(); nodes];
    for (from, list) in successors.iter().enumerate() {
        list.iter().for_each(|&to| predecessors[to].push(from));
    }
    // Post-order of the reversed graph from the end, without recursion.
    let mut order = Vec::with_capacity(nodes);
    let mut position = vec![usize::MAX; nodes];
    let mut seen = vec![false; nodes];
    let mut stack = vec![(end, 0)];
    seen[end] = true;
    while let Some((node, child)) = stack.last_mut() {
        let (at, next) = (*node, *child);
        *child += 1;
        if let Some(&to) = predecessors[at].get(next) {
            if !seen[to] {
                seen[to] = true;
                stack.push((to, 0));
            }
        } else {
            position[at] = order.len();
            order.push(at);
            stack.pop();
        }
    }
    let mut immediate: Vec<Option<usize>> = vec![None; nodes];
    immediate[end] = Some(end);
    let mut changed = true;
    while changed {
        changed = false;
        for &node in order.iter().rev().filter(|&&node| node != end) {
            let mut best: Option<usize> = None;
            for &successor in &successors[node] {
                if immediate[successor].is_none() {
                    continue;
                }
                best = Some(match best {
                    None => successor,
                    Some(mut other) => {
                        let mut one = successor;
                        while one != other {
                            while position[one] < position[other] {
                                one = immediate[one].unwrap_or(end);
                            }
                            while position[other] < position[one] {
                                other = immediate[other].unwrap_or(end);
                            }
                        }
                        one
                    }
                });
            }
            if best.is_some() && immediate[node] != best {
                immediate[node] = best;
                changed = true;
            }
        }
    }
    // A block from which the end cannot be reached, an endless loop, has no meeting point.
    immediate
}
