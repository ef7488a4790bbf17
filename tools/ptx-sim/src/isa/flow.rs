//! Where divergent paths meet again: the immediate post-dominator of each branch.

use crate::isa::{END, Guard, Op, Step};

/// Sets the meeting point of every branch.
pub fn set_joins(steps: &mut [Step]) {
    let (starts, block_of) = blocks(steps);
    let joins = post_dominators(steps, &starts, &block_of);
    for index in 0..steps.len() {
        let join = joins[block_of[index] as usize].map_or(END, |block| starts[block as usize]);
        match &mut steps[index].op {
            Op::Branch(_, meet) => *meet = join,
            Op::BranchTable(table) => table.join = join,
            _ => {}
        }
    }
}

fn ends_block(step: &Step) -> bool {
    matches!(step.op, Op::Branch(..) | Op::BranchTable(_) | Op::Exit | Op::Trap)
}

/// The first step of each basic block, and the block of each step.
fn blocks(steps: &[Step]) -> (Vec<u32>, Vec<u32>) {
    let mut leader = vec![false; steps.len() + 1];
    leader[0] = true;
    for (index, step) in steps.iter().enumerate() {
        match &step.op {
            Op::Branch(target, _) => leader[(*target as usize).min(steps.len())] = true,
            Op::BranchTable(table) => {
                for target in &table.targets {
                    leader[(*target as usize).min(steps.len())] = true;
                }
            }
            _ => {}
        }
        if ends_block(step) {
            leader[index + 1] = true;
        }
    }
    let (mut starts, mut block_of) = (Vec::new(), Vec::with_capacity(steps.len()));
    for (index, leads) in leader.iter().take(steps.len()).enumerate() {
        if *leads {
            starts.push(index as u32);
        }
        block_of.push(starts.len() as u32 - 1);
    }
    (starts, block_of)
}

/// The blocks that may follow each one; beyond the last there is a block for the end.
fn successors(steps: &[Step], starts: &[u32], block_of: &[u32]) -> Vec<Vec<u32>> {
    let end = starts.len() as u32;
    let block_at = |step: u32| block_of.get(step as usize).copied().unwrap_or(end);
    let lasts = starts.iter().skip(1).map(|next| next - 1).chain([steps.len() as u32 - 1]);
    let of = |last: u32| {
        let step = &steps[last as usize];
        let mut next = match &step.op {
            Op::Branch(target, _) => vec![block_at(*target)],
            Op::BranchTable(table) => table.targets.iter().map(|target| block_at(*target)).collect(),
            Op::Exit | Op::Trap => vec![end],
            _ => vec![block_at(last + 1)],
        };
        if step.guard != Guard::ALWAYS && ends_block(step) {
            next.push(block_at(last + 1));
        }
        next
    };
    lasts.map(of).collect()
}

/// The blocks that lead to each one.
fn predecessors(successors: &[Vec<u32>]) -> Vec<Vec<u32>> {
    let mut predecessors = vec![Vec::new(); successors.len() + 1];
    for (block, next) in successors.iter().enumerate() {
        next.iter().for_each(|to| predecessors[*to as usize].push(block as u32));
    }
    predecessors
}

/// Adds the blocks that lead to `from` and were not seen, each after those that lead to it.
fn walk(predecessors: &[Vec<u32>], from: u32, seen: &mut [bool]) -> Vec<u32> {
    let (mut order, mut stack) = (Vec::new(), vec![(from, 0usize)]);
    seen[from as usize] = true;
    while let Some((block, child)) = stack.pop() {
        match predecessors[block as usize].get(child) {
            Some(to) => {
                stack.push((block, child + 1));
                if !std::mem::replace(&mut seen[*to as usize], true) {
                    stack.push((*to, 0));
                }
            }
            None => order.push(block),
        }
    }
    order
}

/// For each block the block that all paths from it reach first, None where they only meet at the end. After
/// Cooper, Harvey and Kennedy, on the reversed graph.
fn post_dominators(steps: &[Step], starts: &[u32], block_of: &[u32]) -> Vec<Option<u32>> {
    let end = starts.len();
    let mut successors = successors(steps, starts, block_of);
    // From a loop without an exit the end is never reached: its last block is taken to lead there too.
    let (leading, mut seen) = (predecessors(&successors), vec![false; end + 1]);
    walk(&leading, end as u32, &mut seen);
    for block in (0..end).rev() {
        if !seen[block] {
            successors[block].push(end as u32);
            walk(&leading, block as u32, &mut seen);
        }
    }
    let order = walk(&predecessors(&successors), end as u32, &mut vec![false; end + 1]);
    let mut number = vec![0u32; end + 1];
    for (place, block) in order.iter().enumerate() {
        number[*block as usize] = place as u32;
    }
    let mut dominator: Vec<Option<u32>> = vec![None; end + 1];
    dominator[end] = Some(end as u32);
    let mut changed = true;
    while changed {
        changed = false;
        for block in order.iter().rev().map(|block| *block as usize).filter(|block| *block != end) {
            let known = successors[block].iter().copied().filter(|to| dominator[*to as usize].is_some());
            let found = known.reduce(|a, b| meet(a, b, &dominator, &number));
            if found.is_some() && dominator[block] != found {
                dominator[block] = found;
                changed = true;
            }
        }
    }
    dominator.truncate(end);
    dominator.into_iter().map(|block| block.filter(|block| *block as usize != end)).collect()
}

/// The first block that two have in common on their ways to the end.
fn meet(mut a: u32, mut b: u32, dominator: &[Option<u32>], number: &[u32]) -> u32 {
    while a != b {
        while number[a as usize] < number[b as usize] {
            match dominator[a as usize] {
                Some(up) if up != a => a = up,
                _ => return b,
            }
        }
        while number[b as usize] < number[a as usize] {
            match dominator[b as usize] {
                Some(up) if up != b => b = up,
                _ => return a,
            }
        }
    }
    a
}
