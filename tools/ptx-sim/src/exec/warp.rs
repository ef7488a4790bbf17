//! One warp: its registers, and its stack of diverged paths.

use super::registers::{Registers, RowW};
use crate::isa::{Address, END, Guard, Op, Reg, RegisterFile, Step, Table};
use crate::lanes::{LANES, lanes, mask_of, row};

/// Where a warp stands; and where a block does, which is where its warps stand that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It can go on.
    Ready,
    /// It waits at the block's barrier of that number. Of a block: so do all its warps, some of them there.
    Waiting(u32),
    /// All its lanes exited.
    Done,
    /// The kernel stopped itself, or cannot go on.
    Aborted,
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

/// A warp.
pub struct Warp {
    pub registers: Registers,
    /// Its number in the block.
    pub index: u32,
    pub standing: Standing,
    /// Lanes that have not exited.
    pub live: u32,
    /// The next instruction.
    pub pc: u32,
    /// Lanes of the path that runs.
    pub mask: u32,
    join: u32,
    stack: Vec<Path>,
    /// Groups each lane has committed.
    pub groups: RowW,
    /// Loads, since anything last changed, that found what one of the last few found: waiting.
    pub spins: u32,
    /// Those last few, by instruction, address and value, and the place of the oldest.
    seen: ([u64; 4], usize),
    /// It waits: others should run.
    pub yields: bool,
    /// Local memory, lane after lane.
    pub local: Vec<u8>,
    /// Instructions run: the clock.
    pub ticks: u64,
}

impl Warp {
    /// One that has not started.
    pub fn new() -> Self {
        Self {
            registers: Registers::default(),
            index: 0,
            standing: Standing::Done,
            live: 0,
            pc: 0,
            mask: 0,
            join: END,
            stack: Vec::new(),
            groups: [0; LANES],
            spins: 0,
            seen: ([0; 4], 0),
            yields: false,
            local: Vec::new(),
            ticks: 0,
        }
    }

    /// Back to the first instruction, with the lanes of `live`.
    pub fn start(&mut self, index: u32, live: u32) {
        self.index = index;
        self.standing = Standing::Ready;
        (self.live, self.mask, self.pc, self.join) = (live, live, 0, END);
        self.stack.clear();
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

    /// Goes on to the next instruction, of another path where this one meets the others; false if there is
    /// none.
    #[inline(always)]
    pub fn settle(&mut self) -> bool {
        self.pc != self.join || self.pop()
    }

    /// Takes up the next path that has a lane; false if none.
    pub fn pop(&mut self) -> bool {
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
    pub fn diverge(&mut self, taken: u32, target: u32, next: u32, join: u32) {
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

    /// Splits at a table of branches: each lane goes to the target of its index, those not in `mask` on to
    /// the next instruction. False if no path has a lane.
    pub fn spread(&mut self, table: &Table, mask: u32) -> bool {
        let index = *self.word(table.index);
        let most = table.targets.len() as u32 - 1;
        let target = |lane: usize| table.targets[index[lane].min(most) as usize];
        let first = mask.trailing_zeros() as usize;
        if mask == self.mask && lanes(mask).all(|lane| index[lane] == index[first]) {
            self.pc = target(first);
            return true;
        }
        if table.join != self.join {
            self.stack.push(Path { pc: table.join, mask: self.mask, join: self.join, waits: 0 });
        }
        if mask != self.mask {
            self.stack.push(Path { pc: self.pc, mask: self.mask & !mask, join: table.join, waits: 0 });
        }
        let mut rest = mask;
        while rest != 0 {
            let to = target(rest.trailing_zeros() as usize);
            let same = rest & mask_of(|lane| target(lane) == to);
            self.stack.push(Path { pc: to, mask: same, join: table.join, waits: 0 });
            rest &= !same;
        }
        self.pop()
    }

    /// The lanes of `mask` exit; false if others of this path stay.
    pub fn exit(&mut self, mask: u32) -> bool {
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

    /// The values of a register of up to 32 bits.
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
                let bits = mask_of(|lane| values[lane] & 1 != 0);
                self.set_predicate(reg.index, bits, mask);
            }
        }
    }

    /// Writes the lanes of `mask`, to a row of any 32-bit register.
    #[inline(always)]
    pub fn set_word(&mut self, index: u32, values: &RowW, mask: u32) {
        super::registers::store(&mut self.registers.w[index as usize], values, mask);
    }

    /// Writes a predicate's lanes of `mask`.
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

    /// Lanes that have nothing left to do but exit: they wait at a return for the others, and count as
    /// exited.
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

    /// Lanes of other paths that wait at a barrier of the warp.
    pub fn waiting(&self) -> u32 {
        self.stack.iter().fold(0, |bits, path| bits | path.waits & self.live)
    }

    /// Lets the lanes of other paths go on that wait at a warp barrier and belong to it.
    pub fn wake(&mut self, members: u32) {
        for path in self.stack.iter_mut().filter(|path| path.waits != 0 && path.waits & !members == 0) {
            path.waits = 0;
            path.pc += 1;
        }
    }

    /// Leaves the path at a warp barrier and takes up one that has missing lanes; false if there is none.
    pub fn wait_for(&mut self, missing: u32, mask: u32, pc: u32) -> bool {
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
