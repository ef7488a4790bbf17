//! Which loads wait: those whose value decides whether a loop around them goes on.
//!
//! A flag is read in a loop until it changes; data is read once. A volatile access can be either, and only
//! the first may meet a write that nothing orders.

use std::collections::HashSet;

use crate::isa::{Access, Address, Op, Order, Reg, RegisterFile, Step};

type Place = (RegisterFile, u32);

/// Marks the loads and read-modify-writes that wait.
pub fn mark(steps: &mut [Step]) {
    let loops = loops(steps);
    let mut waiting: Vec<Address> = Vec::new();
    for index in 0..steps.len() {
        let Some((result, address)) = read(&steps[index].op) else { continue };
        let around = loops.iter().filter(|(first, last)| (*first..=*last).contains(&index));
        if around.into_iter().any(|(first, last)| decides(steps, *first, *last, result)) {
            waiting.push(address);
        }
    }
    // Compilers take the first look out of the loop: the same address, read by the same register.
    let same = |a: &Address, b: &Address| a.base == b.base && a.offset == b.offset;
    for step in steps {
        let Some((_, address)) = read(&step.op) else { continue };
        if waiting.iter().any(|other| same(other, &address)) {
            match &mut step.op {
                Op::Load(access) => access.waits = true,
                Op::Atomic(atomic) => atomic.waits = true,
                _ => {}
            }
        }
    }
}

/// The register that an atomic or volatile read fills, and its address.
fn read(op: &Op) -> Option<(Reg, Address)> {
    match op {
        Op::Load(access) if access.order != Order::Weak => first(access).map(|reg| (reg, access.address)),
        Op::Atomic(atomic) => atomic.result.map(|reg| (reg, atomic.address)),
        _ => None,
    }
}

fn first(access: &Access) -> Option<Reg> {
    access.registers.iter().flatten().next().copied()
}

/// First and last step of each loop: from a backward branch's target to the branch.
fn loops(steps: &[Step]) -> Vec<(usize, usize)> {
    let backward = |(index, step): (usize, &Step)| match &step.op {
        Op::Branch(target, _) if *target as usize <= index => Some((*target as usize, index)),
        _ => None,
    };
    steps.iter().enumerate().filter_map(backward).collect()
}

/// Whether a branch out of the loop, or back to its start, depends on what the register holds.
fn decides(steps: &[Step], first: usize, last: usize, from: Reg) -> bool {
    let mut depends: HashSet<Place> = HashSet::from([(from.file, from.index)]);
    loop {
        let before = depends.len();
        for step in &steps[first..=last] {
            if let Some((results, operands)) = moves(&step.op)
                && operands.iter().any(|operand| depends.contains(operand))
            {
                depends.extend(results);
            }
        }
        if depends.len() == before {
            break;
        }
    }
    steps[first..=last].iter().enumerate().any(|(at, step)| {
        let leaves = match &step.op {
            Op::Branch(target, _) => {
                let target = *target as usize;
                !(first..=last).contains(&target) || first + at == last
            }
            Op::Exit => true,
            _ => false,
        };
        let guard = step.guard.0 >> 1;
        leaves && depends.contains(&(RegisterFile::Predicate, guard))
    })
}

fn file(type_name: &str) -> RegisterFile {
    if matches!(type_name, "u64" | "i64" | "f64") { RegisterFile::D } else { RegisterFile::W }
}

fn with_files<const N: usize>(names: [&str; N], at: [u32; N]) -> (Vec<Place>, Vec<Place>) {
    let places: Vec<Place> = names.iter().zip(at).map(|(name, index)| (file(name), index)).collect();
    (places[..1].to_vec(), places[1..].to_vec())
}

/// Results and operands of the instructions that stand between a load and a branch.
fn moves(op: &Op) -> Option<(Vec<Place>, Vec<Place>)> {
    let place = |reg: &Reg| (reg.file, reg.index);
    let predicate = |index: &u32| (RegisterFile::Predicate, *index);
    Some(match op {
        Op::Unary(op, at) => with_files(op.types(), *at),
        Op::Binary(op, at) => with_files(op.types(), *at),
        Op::Ternary(op, at) => with_files(op.types(), *at),
        Op::Compare(op, [p, a, b]) => {
            let file = file(op.operand());
            (vec![predicate(p)], vec![(file, *a), (file, *b)])
        }
        Op::SetPredicate(it) => {
            let file = file(it.compare.operand());
            let mut operands = vec![(file, it.a), (file, it.b)];
            operands.extend(it.combine.as_ref().map(|(_, p, _)| predicate(p)));
            (it.result.iter().chain(&it.inverse).map(predicate).collect(), operands)
        }
        Op::SetValue(it) => {
            let file = file(it.test.compare.operand());
            (vec![(RegisterFile::W, it.result)], vec![(file, it.test.a), (file, it.test.b)])
        }
        Op::Logic(_, [d, a, b]) => (vec![predicate(d)], vec![predicate(a), predicate(b)]),
        Op::Not([d, a]) | Op::MovPredicate([d, a]) => (vec![predicate(d)], vec![predicate(a)]),
        Op::SelectW([d, a, b, p]) => {
            (vec![(RegisterFile::W, *d)], vec![(RegisterFile::W, *a), (RegisterFile::W, *b), predicate(p)])
        }
        Op::SelectD([d, a, b, p]) => {
            (vec![(RegisterFile::D, *d)], vec![(RegisterFile::D, *a), (RegisterFile::D, *b), predicate(p)])
        }
        Op::Lop3(it) => {
            let [d, a, b, c] = it.0;
            (
                vec![(RegisterFile::W, d)],
                vec![(RegisterFile::W, a), (RegisterFile::W, b), (RegisterFile::W, c)],
            )
        }
        Op::Convert(it) => (vec![place(&it.result)], vec![place(&it.a)]),
        Op::Pack(it) => (vec![place(&it.0)], it.1.iter().map(place).collect()),
        Op::Unpack(it) => (it.0.iter().flatten().map(place).collect(), vec![place(&it.1)]),
        Op::Vote(it) => (vec![place(&it.result)], vec![place(&it.value)]),
        Op::Shuffle(it) => (it.result.iter().map(place).collect(), vec![place(&it.value)]),
        Op::Reduce(it) => (vec![place(&it.result)], vec![place(&it.value)]),
        Op::Barrier(it) => {
            (it.result.iter().map(place).collect(), it.value.iter().map(|(value, _)| place(value)).collect())
        }
        _ => return None,
    })
}
