//! One warp: its registers, its stack of diverged paths, and the loop that runs it.

use super::block::BlockState;
use super::grid::Worker;
use super::registers::{LANES, Registers, RowW, lanes, row};
use crate::finding::FindingKind;
use crate::isa::{Address, END, Guard, Op, Reg, RegisterFile, Step};

/// Why a warp stopped running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It used its turn up.
    Turn,
    /// It waits at the block's barrier.
    Barrier,
    /// All its lanes exited.
    Done,
    /// The block cannot go on.
    Abort,
}

/// What a warp does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ready,
    /// At barrier number `.0`.
    Waiting(u32),
    Done,
}

/// A path to take up when the current one reaches its meeting point.
#[derive(Clone, Copy, Debug)]
struct Path {
    pc: u32,
    mask: u32,
    join: u32,
    /// Lanes of it that wait at the warp barrier at `pc`.
    waits: u32,
}

/// An asynchronous copy on its way.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub lane: u8,
    pub bytes: u8,
    pub group: u32,
    pub to: u32,
    pub data: [u8; 16],
    /// Where it was read from: the allocation, the first word, and who had written each word.
    pub from: Option<(u32, u32)>,
    pub words_read: u8,
    pub written_by: [u64; 4],
}

pub struct Warp {
    pub registers: Registers,
    pub index: u32,
    pub status: Status,
    /// Lanes that have not exited.
    pub live: u32,
    pub pc: u32,
    pub mask: u32,
    join: u32,
    stack: Vec<Path>,
    pub pending: Vec<Pending>,
    /// Groups each lane has committed.
    pub groups: RowW,
    /// Loads, since anything last changed, that found what one of the last few found: waiting.
    pub spins: u32,
    /// Those last few, by instruction, address and value, and the place of the oldest.
    seen: ([u64; 4], usize),
    /// It waits: others should run.
    yields: bool,
    pub local: Vec<u8>,
    pub local_written: Vec<u8>,
    /// Instructions run: the clock.
    pub ticks: u64,
}

impl Warp {
    pub fn new() -> Self {
        Self {
            registers: Registers::default(),
            index: 0,
            status: Status::Done,
            live: 0,
            pc: 0,
            mask: 0,
            join: END,
            stack: Vec::new(),
            pending: Vec::new(),
            groups: [0; LANES],
            spins: 0,
            seen: ([0; 4], 0),
            yields: false,
            local: Vec::new(),
            local_written: Vec::new(),
            ticks: 0,
        }
    }

    /// Back to the first instruction, with the lanes of `live`.
    pub fn start(&mut self, index: u32, live: u32) {
        self.index = index;
        self.status = Status::Ready;
        (self.live, self.mask, self.pc, self.join) = (live, live, 0, END);
        self.stack.clear();
        self.pending.clear();
        self.groups = [0; LANES];
        (self.spins, self.ticks) = (0, 0);
        (self.seen, self.yields) = (([0; 4], 0), false);
        self.registers.carry = 0;
    }

    /// Notes a load that may be waiting for a value to change.
    pub fn note_wait(&mut self, pc: u32, address: u64, value: u64) {
        let signature = u64::from(pc) << 48 ^ address ^ value.rotate_left(17);
        let (seen, oldest) = &mut self.seen;
        if seen.contains(&signature) {
            self.spins = self.spins.saturating_add(1);
            self.yields = self.spins.is_multiple_of(16);
        } else {
            seen[*oldest] = signature;
            *oldest = (*oldest + 1) % seen.len();
            self.spins = 0;
        }
    }

    /// Takes up the next path that has a lane; false if none.
    fn pop(&mut self) -> bool {
        while let Some(path) = self.stack.pop() {
            let mask = path.mask & self.live;
            if mask != 0 && path.pc != path.join {
                (self.pc, self.mask, self.join) = (path.pc, mask, path.join);
                return true;
            }
        }
        false
    }

    /// Splits at a branch: `taken` goes to `target`, the rest on to `next`; they meet at `join`.
    fn diverge(&mut self, taken: u32, target: u32, next: u32, join: u32) {
        let rest = self.mask & !taken;
        if join != self.join {
            self.stack.push(Path { pc: join, mask: self.mask, join: self.join, waits: 0 });
        }
        // A path that starts at the meeting point only waits there.
        if next == join {
            (self.pc, self.mask, self.join) = (target, taken, join);
        } else if target == join {
            (self.pc, self.mask, self.join) = (next, rest, join);
        } else {
            self.stack.push(Path { pc: target, mask: taken, join, waits: 0 });
            (self.pc, self.mask, self.join) = (next, rest, join);
        }
    }

    /// The lanes of `mask` exit; false if others of this path stay.
    fn exit(&mut self, mask: u32) -> bool {
        self.live &= !mask;
        self.mask &= !mask;
        self.mask == 0
    }

    /// The values of a register of either width.
    #[inline]
    pub fn wide(&self, reg: Reg) -> [u64; LANES] {
        match reg.file {
            RegisterFile::D => self.registers.d[reg.index as usize],
            RegisterFile::W => {
                let values = &self.registers.w[reg.index as usize];
                row(|lane| u64::from(values[lane]))
            }
            RegisterFile::Predicate => {
                let bits = self.registers.p[reg.index as usize];
                row(|lane| u64::from(bits >> lane & 1))
            }
        }
    }

    #[inline]
    pub fn word(&self, reg: Reg) -> &RowW {
        &self.registers.w[reg.index as usize]
    }

    /// Writes the lanes of `mask`, cut to the register's width.
    pub fn set(&mut self, reg: Reg, values: &[u64; LANES], mask: u32) {
        match reg.file {
            RegisterFile::D => {
                super::registers::store(&mut self.registers.d[reg.index as usize], values, mask)
            }
            RegisterFile::W => {
                let kept = if reg.bits >= 32 || reg.bits == 0 { u32::MAX } else { (1 << reg.bits) - 1 };
                let values = row(|lane| values[lane] as u32 & kept);
                super::registers::store(&mut self.registers.w[reg.index as usize], &values, mask);
            }
            RegisterFile::Predicate => {
                let bits = (0..LANES).fold(0, |bits, lane| bits | ((values[lane] & 1) as u32) << lane);
                self.set_predicate(reg.index, bits, mask);
            }
        }
    }

    #[inline(always)]
    pub fn set_predicate(&mut self, index: u32, bits: u32, mask: u32) {
        let row = &mut self.registers.p[index as usize];
        *row = *row & !mask | bits & mask;
    }

    /// A predicate's bits, negated if so.
    #[inline]
    pub fn predicate(&self, reg: Reg, negated: bool) -> u32 {
        self.registers.p[reg.index as usize] ^ if negated { u32::MAX } else { 0 }
    }

    /// Each lane's address.
    #[inline]
    pub fn addresses(&self, address: &Address) -> [u64; LANES] {
        match address.base {
            None => [address.offset as u64; LANES],
            Some(Reg { file: RegisterFile::D, index, .. }) => {
                let base = &self.registers.d[index as usize];
                row(|lane| base[lane].wrapping_add(address.offset as u64))
            }
            Some(reg) => {
                // A 32-bit address stays one: it wraps.
                let base = &self.registers.w[reg.index as usize];
                row(|lane| u64::from(base[lane].wrapping_add(address.offset as u32)))
            }
        }
    }

    /// Lanes that have nothing left to do but exit: they wait at a return for the others, and count as exited.
    #[cold]
    pub fn leaving(&self, steps: &[Step]) -> u32 {
        let (mut elsewhere, mut leaving) = (self.mask, 0);
        for path in self.stack.iter().rev() {
            let here = path.mask & self.live & !elsewhere;
            if here != 0 && path.waits == 0 && only_exits(steps, path.pc) {
                leaving |= here;
            }
            elsewhere |= path.mask;
        }
        leaving
    }

    /// Whether the lanes of `mask` are all that have not exited.
    #[inline(always)]
    pub fn is_whole(&self, mask: u32, steps: &[Step]) -> bool {
        mask == self.live || mask | self.leaving(steps) == self.live
    }

    /// Lanes of other paths that wait at a warp barrier.
    fn waiting(&self) -> u32 {
        self.stack.iter().fold(0, |bits, path| bits | path.waits & self.live)
    }

    /// Lets the lanes of other paths go on that wait at a warp barrier and belong to it.
    fn wake(&mut self, members: u32) {
        for path in self.stack.iter_mut().filter(|path| path.waits != 0 && path.waits & !members == 0) {
            path.waits = 0;
            path.pc += 1;
        }
    }

    /// Leaves the path at a warp barrier and takes up one that has missing lanes; false if there is none.
    fn wait_for(&mut self, missing: u32, mask: u32, pc: u32) -> bool {
        let mut above = self.mask;
        let found = self.stack.iter().enumerate().rev().find(|(_, path)| {
            let lanes = path.mask & self.live;
            let free = lanes & above == 0 && path.waits == 0 && path.pc != path.join;
            above |= lanes;
            free && lanes & missing != 0
        });
        let Some((place, _)) = found else { return false };
        let next = self.stack.remove(place);
        self.stack.push(Path { pc, mask: self.mask, join: self.join, waits: mask });
        (self.pc, self.mask, self.join) = (next.pc, next.mask & self.live, next.join);
        true
    }

    /// Copies that lanes waited for arrive: all but each lane's last `keep` groups.
    fn complete(&mut self, worker: &mut Worker<'_>, block: &mut BlockState, lanes: u32, keep: u32, pc: u32) {
        let pending = std::mem::take(&mut self.pending);
        for copy in pending {
            let lane = copy.lane as usize;
            if lanes >> lane & 1 != 0 && copy.group.saturating_add(keep) < self.groups[lane] {
                let who = super::check::plain(block, self).me.by(lane);
                super::async_copy::arrive(worker, block, self, &copy, who, pc);
            } else {
                self.pending.push(copy);
            }
        }
    }
}

/// Whether nothing but a return follows.
fn only_exits(steps: &[Step], mut pc: u32) -> bool {
    for _ in 0..8 {
        let Some(step) = steps.get(pc as usize) else { return true };
        match step.op {
            _ if step.guard != Guard::ALWAYS => return false,
            Op::Exit => return true,
            Op::Nop => pc += 1,
            Op::Branch(target, _) => pc = target,
            _ => return false,
        }
    }
    false
}

/// Lanes meet at a barrier of the warp: those of a diverged path wait there until the others come to one too.
fn warp_barrier(
    worker: &mut Worker<'_>,
    block: &mut BlockState,
    warp: &mut Warp,
    row: &RowW,
    mask: u32,
    pc: u32,
) {
    let named = lanes(mask).fold(0, |bits, lane| bits | row[lane]);
    let missing = named & warp.live & !mask;
    if missing != 0 {
        let absent = missing & !warp.waiting() & !warp.leaving(&worker.launch.kernel.steps);
        if absent != 0 && warp.wait_for(absent, mask, pc) {
            return;
        }
        if absent == 0 && lanes(mask).all(|lane| row[lane] >> lane & 1 != 0) {
            warp.wake(named);
            let mut rest = mask;
            while rest != 0 {
                let members = row[rest.trailing_zeros() as usize] & warp.live;
                let all = warp.is_whole(members, &worker.launch.kernel.steps);
                block.order.together(warp.index, members, all);
                rest &= !members;
            }
            return;
        }
    }
    super::shuffle::check_members(worker, block, warp, row, mask, pc);
}

/// Runs a warp for up to `turn` instructions.
pub fn run(worker: &mut Worker<'_>, block: &mut BlockState, warp: &mut Warp, turn: u32) -> Stop {
    let kernel = worker.launch.kernel;
    let steps: &[Step] = &kernel.steps;
    let fast = worker.launch.fast;
    let mut left = turn;
    loop {
        if warp.pc == warp.join && !warp.pop() {
            warp.status = Status::Done;
            block.progress = true;
            return Stop::Done;
        }
        if left == 0 {
            return Stop::Turn;
        }
        left -= 1;
        let pc = warp.pc;
        let Some(step) = steps.get(pc as usize) else {
            // Only a path that ends with the last instruction gets here.
            warp.status = Status::Done;
            return Stop::Done;
        };
        let mut mask = warp.mask;
        if step.guard != Guard::ALWAYS {
            let bits = warp.registers.p[(step.guard.0 >> 1) as usize];
            mask &= bits ^ (step.guard.0 & 1).wrapping_neg();
        }
        warp.ticks += 1;
        let count = &mut worker.counts[pc as usize];
        count.0 += 1;
        count.1 += u64::from(mask.count_ones());
        warp.pc = pc + 1;
        if mask == 0 {
            continue;
        }
        let r = &mut warp.registers;
        match &step.op {
            Op::Unary(op, at) => op.run(r, *at, mask, fast),
            Op::Binary(op, at) => op.run(r, *at, mask, fast),
            Op::Ternary(op, at) => op.run(r, *at, mask, fast),
            Op::Compare(op, [p, a, b]) => {
                let bits = op.run(r, [*a, *b], fast);
                warp.set_predicate(*p, bits, mask);
            }
            Op::Branch(target, join) => {
                if mask == warp.mask {
                    warp.pc = *target;
                } else {
                    warp.diverge(mask, *target, pc + 1, *join);
                }
            }
            Op::Load(access) => {
                super::memory::load(worker, block, warp, access, mask, pc);
                if std::mem::take(&mut warp.yields) {
                    left = 0;
                }
            }
            Op::Store(access) => super::memory::store(worker, block, warp, access, mask, pc),
            Op::BranchTable(table) => {
                let index = *warp.word(table.index);
                let first = index[mask.trailing_zeros() as usize];
                let most = table.targets.len() as u32 - 1;
                if lanes(mask).all(|lane| index[lane] == first) && mask == warp.mask {
                    warp.pc = table.targets[first.min(most) as usize];
                } else {
                    let skipped = warp.mask & !mask;
                    let mut rest = mask;
                    if table.join != warp.join {
                        warp.stack.push(Path { pc: table.join, mask: warp.mask, join: warp.join, waits: 0 });
                    }
                    if skipped != 0 {
                        warp.stack.push(Path { pc: pc + 1, mask: skipped, join: table.join, waits: 0 });
                    }
                    while rest != 0 {
                        let to = table.targets[index[rest.trailing_zeros() as usize].min(most) as usize];
                        let same = lanes(rest)
                            .filter(|lane| table.targets[index[*lane].min(most) as usize] == to)
                            .fold(0, |same, lane| same | 1u32 << lane);
                        warp.stack.push(Path { pc: to, mask: same, join: table.join, waits: 0 });
                        rest &= !same;
                    }
                    if !warp.pop() {
                        warp.status = Status::Done;
                        return Stop::Done;
                    }
                }
            }
            Op::Exit => {
                if warp.exit(mask) && !warp.pop() {
                    warp.status = Status::Done;
                    block.progress = true;
                    return Stop::Done;
                }
            }
            Op::Trap => {
                worker.finding(block, warp, pc, FindingKind::Trap, mask.trailing_zeros(), None, || {
                    "the kernel stopped itself".into()
                });
                return Stop::Abort;
            }
            Op::Host(call) => {
                if super::host::run(worker, block, warp, call, mask, pc) {
                    return Stop::Abort;
                }
            }
            Op::Product(_) | Op::FragmentMove(_) => {
                super::fragment::run(worker, block, warp, &step.op, mask, pc);
            }
            Op::Mbarrier(it) => {
                super::mbarrier::run(worker, block, warp, it, mask, pc);
                if std::mem::take(&mut warp.yields) {
                    left = 0;
                }
            }
            Op::Atomic(atomic) => {
                super::atomic::run(worker, block, warp, atomic, mask, pc);
                if std::mem::take(&mut warp.yields) {
                    left = 0;
                }
            }
            Op::Fence(scope) => block.order.fence(warp.index, *scope, mask),
            Op::Barrier(barrier) => match super::barrier::arrive(worker, block, warp, barrier, mask, pc) {
                None => {}
                Some(stop) => return stop,
            },
            Op::WarpBarrier(members) => {
                let row = warp.registers.w[*members as usize];
                warp_barrier(worker, block, warp, &row, mask, pc);
            }
            Op::Shuffle(it) => super::shuffle::shuffle(worker, block, warp, it, mask, pc),
            Op::Vote(it) => super::shuffle::vote(worker, block, warp, it, mask, pc),
            Op::Match(it) => super::shuffle::matching(worker, block, warp, it, mask, pc),
            Op::Reduce(it) => super::shuffle::reduce(worker, block, warp, it, mask, pc),
            Op::Elect(it) => super::shuffle::elect(worker, block, warp, it, mask, pc),
            Op::CopyAsync(it) => super::async_copy::start(worker, block, warp, it, mask, pc),
            Op::CopyCommit => {
                for lane in lanes(mask) {
                    warp.groups[lane] += 1;
                }
            }
            Op::CopyWait(Some(groups)) => {
                super::mbarrier::wait_group(worker, block, warp, mask, *groups, pc);
                warp.complete(worker, block, mask, *groups, pc);
            }
            Op::CopyWait(None) => {
                for lane in lanes(mask) {
                    warp.groups[lane] += 1;
                }
                super::mbarrier::wait_group(worker, block, warp, mask, 0, pc);
                warp.complete(worker, block, mask, 0, pc);
            }
            Op::MatrixLoad(it) => super::matrix::load(worker, block, warp, it, mask, pc),
            Op::MatrixStore(it) => super::matrix::store(worker, block, warp, it, mask, pc),
            Op::MatrixMultiply(it) => super::matrix::multiply(worker, block, warp, it, mask, pc),
            other => super::misc::run(block, warp, other, mask),
        }
    }
}
