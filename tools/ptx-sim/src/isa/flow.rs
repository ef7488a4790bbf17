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

/// For each block the block that all paths from it reach first, None where they only meet at the end. After Cooper, Harvey
/// and Kennedy, on the reversed graph.
fn post_dominators(steps: &[Step], starts: &[u32], block_of: &[u32]) -> Vec<Option<u32>> {
    let count = starts.len();
    // The virtual end is the block `count`.
    let end = count as u32;
    let mut successors: Vec<Vec<u32>> = Vec::with_capacity(count);
    for block in 0..count {
        let last = starts.get(block + 1).map_or(steps.len(), |next| *next as usize) - 1;
        let following = if last + 1 < steps.len() { block_of[last + 1] } else { end };
        let guarded = steps[last].guard != Guard::ALWAYS;
        let mut next = match &steps[last].op {
            Op::Branch(target, _) => vec![block_of.get(*target as usize).copied().unwrap_or(end)],
            Op::BranchTable(table) => {
                table.targets.iter().map(|t| block_of.get(*t as usize).copied().unwrap_or(end)).collect()
            }
            Op::Exit | Op::Trap => vec![end],
            _ => vec![following],
        };
        if guarded && ends_block(&steps[last]) {
            next.push(following);
        }
        next.sort_unstable();
        next.dedup();
        successors.push(next);
    }
    let mut predecessors: Vec<Vec<u32>> = vec![Vec::new(); count + 1];
    for (block, next) in successors.iter().enumerate() {
        for to in next {
            predecessors[*to as usize].push(block as u32);
        }
    }
    // Post-order of the reversed graph from the end. Blocks in a loop without an exit are never reached: each such
    // loop is entered from its last block, as if it could leave there.
    let (mut order, mut seen) = (Vec::with_capacity(count + 1), vec![false; count + 1]);
    let mut extra = vec![false; count];
    let walk = |from: u32, order: &mut Vec<u32>, seen: &mut Vec<bool>| {
        let mut stack = vec![(from, 0usize)];
        seen[from as usize] = true;
        while let Some((block, child)) = stack.pop() {
            match predecessors[block as usize].get(child) {
                Some(to) => {
                    stack.push((block, child + 1));
                    if !seen[*to as usize] {
                        seen[*to as usize] = true;
                        stack.push((*to, 0));
                    }
                }
                None => order.push(block),
            }
        }
    };
    let mut lists = Vec::new();
    walk(end, &mut order, &mut seen);
    lists.append(&mut order);
    let mut main = lists;
    for block in (0..count).rev() {
        if !seen[block] {
            extra[block] = true;
            let mut part = Vec::new();
            walk(block as u32, &mut part, &mut seen);
            // They come before the end in reverse post-order terms: after it when reversed.
            part.append(&mut main);
            main = part;
        }
    }
    let mut number = vec![0u32; count + 1];
    for (place, block) in main.iter().enumerate() {
        number[*block as usize] = place as u32;
    }
    let mut dominator: Vec<Option<u32>> = vec![None; count + 1];
    dominator[count] = Some(end);
    let mut changed = true;
    while changed {
        changed = false;
        for block in main.iter().rev().copied().filter(|block| *block != end) {
            let mut found: Option<u32> = extra[block as usize].then_some(end);
            for to in &successors[block as usize] {
                if dominator[*to as usize].is_none() {
                    continue;
                }
                found = Some(match found {
                    None => *to,
                    Some(other) => meet(other, *to, &dominator, &number),
                });
            }
            if found.is_some() && dominator[block as usize] != found {
                dominator[block as usize] = found;
                changed = true;
            }
        }
    }
    dominator.truncate(count);
    dominator.into_iter().map(|block| block.filter(|block| *block != end)).collect()
}

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
