//! A warp: registers of 32 lanes, a stack of the paths they are on, one instruction at a time.

use std::collections::VecDeque;

use super::Context;
use super::float;
use super::lanes::{ALL, Lanes, compare2, map1, map2, map3};
use super::shared::Shared;
use crate::finding::FindingKind;
use crate::flow::NEVER;
use crate::memory::{LOCAL_BASE, PARAM_BASE, SHARED_BASE};
use crate::op::*;
use crate::program::{Preset, Special};

/// Why a warp stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Its stretch is over, it waits at a barrier, or it is done.
    Turn,
    OutOfBudget,
}

/// A warp at a barrier.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub id: u32,
    /// Threads expected, all of the block where it is not given.
    pub count: Option<u32>,
    pub kind: BarrierKind,
    /// The lanes that arrived, and their predicate.
    pub members: u32,
    pub value: u32,
    d: u32,
}

/// A path that some lanes are on, and where they meet the others.
#[derive(Clone, Copy, Debug)]
struct Path {
    at: u32,
    meet: u32,
    mask: u32,
}

/// An asynchronous copy under way.
pub(super) struct Copy {
    pub to: usize,
    pub data: Vec<u8>,
}

/// A warp being run.
pub struct Warp {
    pub(super) number: u32,
    pub(super) r32: Vec<Lanes<u32>>,
    pub(super) r64: Vec<Lanes<u64>>,
    pub(super) predicates: Vec<u32>,
    carry: u32,
    paths: Vec<Path>,
    /// Lanes that have not exited.
    alive: u32,
    pub(super) local: Vec<u8>,
    pub(super) local_written: Vec<bool>,
    pub(super) open_copies: Vec<Copy>,
    pub(super) copy_groups: VecDeque<Vec<Copy>>,
    waiting: Option<Waiting>,
    arrived: [u32; 16],
    threads: [u32; 3],
    pub classes: [u64; CLASSES],
    pub thread_instructions: u64,
}

impl Warp {
    pub fn new(context: &Context<'_>, number: u32, place: [u32; 3], threads: u32) -> Self {
        let kernel = context.kernel;
        let shape = context.launch.block;
        let alive = match threads - number * 32 {
            count if count >= 32 => ALL,
            count => (1 << count) - 1,
        };
        let mut warp = Self {
            number,
            r32: vec![[0; 32]; kernel.registers[0]],
            r64: vec![[0; 32]; kernel.registers[1]],
            predicates: vec![0; kernel.registers[2]],
            carry: 0,
            paths: vec![Path { at: 0, meet: NEVER, mask: alive }],
            alive,
            local: vec![0; 32 * kernel.local_bytes],
            local_written: vec![false; 32 * kernel.local_bytes],
            open_copies: Vec::new(),
            copy_groups: VecDeque::new(),
            waiting: None,
            arrived: [0; 16],
            threads: shape,
            classes: [0; CLASSES],
            thread_instructions: 0,
        };
        let value = |special: Special, lane: u32| -> u64 {
            let thread = number * 32 + lane;
            let [x, y, _] = shape;
            let lane_mask = |word: &str| match word {
                "eq" => 1u32 << lane,
                "lt" => (1u32 << lane) - 1,
                "le" => (((1u64 << lane) << 1) - 1) as u32,
                "gt" => !((((1u64 << lane) << 1) - 1) as u32),
                _ => !((1u32 << lane) - 1),
            };
            u64::from(match special {
                Special::Thread(0) => thread % x,
                Special::Thread(1) => thread / x % y,
                Special::Thread(_) => thread / x / y,
                Special::Threads(axis) => shape[usize::from(axis)],
                Special::Block(axis) => place[usize::from(axis)],
                Special::Blocks(axis) => context.launch.grid[usize::from(axis)],
                Special::Lane => lane,
                Special::Warp => number,
                Special::Warps => threads.div_ceil(32),
                Special::Multiprocessor => 0,
                Special::LaneMask(word) => lane_mask(word),
                Special::DynamicShared => context.launch.shared_bytes,
                Special::DynamicStart => kernel.dynamic_shared as u32,
                Special::TotalShared => kernel.dynamic_shared as u32 + context.launch.shared_bytes,
            })
        };
        let of = |preset: Preset, lane: u32| match preset {
            Preset::Value(value) => value,
            Preset::Variable(offset) => context.variables_base + offset,
            Preset::Special(special) => value(special, lane),
        };
        if let Some(predicate) = kernel.true_predicate {
            warp.predicates[predicate as usize] = ALL;
        }
        for &(register, preset) in &kernel.presets32 {
            warp.r32[register as usize] = std::array::from_fn(|lane| of(preset, lane as u32) as u32);
        }
        for &(register, preset) in &kernel.presets64 {
            warp.r64[register as usize] = std::array::from_fn(|lane| of(preset, lane as u32));
        }
        warp
    }

    pub fn can_run(&self) -> bool {
        self.waiting.is_none() && !self.paths.is_empty()
    }

    pub fn is_done(&self) -> bool {
        self.paths.is_empty()
    }

    pub fn waiting(&self) -> Option<Waiting> {
        self.waiting
    }

    /// Warps this one counts for at a barrier: itself where it waits, and each time it went on after arriving.
    pub fn arrivals(&self, id: u32) -> u32 {
        u32::from(self.waiting.is_some_and(|waiting| waiting.id == id)) + self.arrived[id as usize]
    }

    pub fn forget_arrivals(&mut self, id: u32) {
        self.arrived[id as usize] = 0;
    }

    /// Lets the warp through its barrier, with the result of a reduction.
    pub fn release(&mut self, result: Option<u32>) {
        let Some(waiting) = self.waiting.take() else { return };
        match (waiting.kind, result) {
            (BarrierKind::Count, Some(count)) => self.r32[waiting.d as usize] = [count; 32],
            (BarrierKind::All | BarrierKind::Any, Some(mask)) => self.predicates[waiting.d as usize] = mask,
            _ => {}
        }
    }

    /// Number of the instruction it is at.
    pub fn position(&self) -> usize {
        self.paths
            .last()
            .map_or(0, |path| (path.at as usize).saturating_sub(usize::from(self.waiting.is_some())))
    }

    /// Coordinates of a lane's thread.
    pub fn thread(&self, lane: u32) -> [u32; 3] {
        let thread = self.number * 32 + lane;
        let [x, y, _] = self.threads;
        [thread % x, thread / x % y, thread / x / y]
    }

    /// What it does, for a message about a wait.
    pub fn state(&self) -> String {
        match (self.waiting, self.paths.is_empty()) {
            (Some(waiting), _) => format!("warp {} at barrier {}", self.number, waiting.id),
            (None, true) => format!("warp {} has ended", self.number),
            (None, false) => format!("warp {} runs", self.number),
        }
    }

    /// Runs up to `stretch` instructions.
    pub fn run(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        place: [u32; 3],
        block: u32,
        stretch: u64,
    ) -> Stop {
        #[cfg(target_arch = "x86_64")]
        if std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma") {
            // SAFETY: the processor has both, as just asked.
            return unsafe { self.run_avx2(context, shared, place, block, stretch) };
        }
        self.run_plain(context, shared, place, block, stretch)
    }

    /// The same loop with 256-bit vectors and fused multiply-add.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    fn run_avx2(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        place: [u32; 3],
        block: u32,
        stretch: u64,
    ) -> Stop {
        self.run_plain(context, shared, place, block, stretch)
    }

    #[inline(always)]
    fn run_plain(
        &mut self,
        context: &mut Context<'_>,
        shared: &mut Shared,
        place: [u32; 3],
        block: u32,
        stretch: u64,
    ) -> Stop {
        let kernel = context.kernel;
        let stretch = stretch.min(context.budget);
        let mut left = stretch;
        let mut stop = Stop::Turn;
        while left > 0 {
            let Some(path) = self.paths.last_mut() else { break };
            if path.at == path.meet || path.mask == 0 {
                self.paths.pop();
                continue;
            }
            let instruction = &kernel.code[path.at as usize];
            let mask = match instruction.guard {
                None => path.mask,
                Some((p, false)) => path.mask & self.predicates[p as usize],
                Some((p, true)) => path.mask & !self.predicates[p as usize],
            };
            left -= 1;
            self.classes[instruction.class as usize] += 1;
            self.thread_instructions += u64::from(mask.count_ones());
            let at = path.at;
            path.at += 1;
            match &instruction.op {
                Op::Branch { target } => self.branch(instruction.meet, *target, mask),
                Op::BranchTable { targets, index } => {
                    let index = self.r32[*index as usize];
                    self.branch_table(context, instruction, place, targets, &index, mask);
                }
                Op::Exit => self.exit(mask),
                Op::Trap => {
                    if mask != 0 {
                        let thread = self.thread(mask.trailing_zeros());
                        context.report(
                            FindingKind::Trap,
                            instruction,
                            place,
                            thread,
                            "the kernel traps".into(),
                        );
                        self.exit(mask);
                    }
                }
                Op::Barrier { kind, id, count, d, a, negated } => {
                    if mask == 0 {
                        continue;
                    }
                    let lane = mask.trailing_zeros();
                    if mask != self.alive {
                        let detail = format!(
                            "{} of the warp's {} live threads are here",
                            mask.count_ones(),
                            self.alive.count_ones()
                        );
                        let missing = (self.alive & !mask).trailing_zeros();
                        context.report(
                            FindingKind::DivergentBarrier,
                            instruction,
                            place,
                            self.thread(missing),
                            detail,
                        );
                        // The others arrive with it, so that the run can go on.
                    }
                    let id = self.r32[*id as usize][lane as usize] & 15;
                    if *kind == BarrierKind::Arrive {
                        self.arrived[id as usize] += 1;
                        continue;
                    }
                    let value = self.predicates.get(*a as usize).copied().unwrap_or(0);
                    let value = if *negated { !value } else { value } & mask;
                    let count = count.map(|count| self.r32[count as usize][lane as usize]);
                    self.waiting = Some(Waiting { id, count, kind: *kind, members: mask, value, d: *d });
                    break;
                }
                Op::Fence => {
                    if mask != 0 {
                        context.memory.order.fence(block);
                    }
                }
                _ if mask == 0 => {}
                Op::Load(access) => self.load(context, shared, instruction, place, block, access, mask),
                Op::Store(access) => self.store(context, shared, instruction, place, block, access, mask),
                Op::Atomic { .. } => self.atomic(context, shared, instruction, place, block, mask),
                Op::AsyncCopy { .. } => self.async_copy(context, shared, instruction, place, block, mask),
                Op::AsyncCommit => {
                    let group = std::mem::take(&mut self.open_copies);
                    self.copy_groups.push_back(group);
                }
                Op::AsyncWait { pending } => self.async_wait(shared, *pending),
                Op::LoadMatrix { .. } | Op::StoreMatrix { .. } => {
                    self.matrix_access(context, shared, instruction, place, mask);
                }
                Op::Mma { .. } => self.mma(context, instruction, place, mask),
                Op::Clock { d, wide } => {
                    let now = context.ticks + (stretch - left);
                    if *wide {
                        self.r64[*d as usize] = [now; 32];
                    } else {
                        self.r32[*d as usize] = [now as u32; 32];
                    }
                }
                Op::Shuffle { .. }
                | Op::Vote { .. }
                | Op::Match { .. }
                | Op::Reduce { .. }
                | Op::Elect { .. }
                | Op::WarpBarrier { .. } => self.exchange(context, instruction, place, mask),
                Op::ActiveMask { d } => {
                    let value = [mask; 32];
                    map1(&mut self.r32, *d, &value, mask, |m| m);
                }
                op => self.compute(op, mask),
            }
            let _ = at;
        }
        let spent = stretch - left;
        context.ticks += spent;
        context.budget -= spent;
        if context.budget == 0 {
            stop = Stop::OutOfBudget;
        }
        stop
    }

    fn branch(&mut self, meet: u32, target: u32, taken: u32) {
        let Some(path) = self.paths.last_mut() else { return };
        let other = path.mask & !taken;
        if taken == 0 {
            return;
        }
        if other == 0 {
            path.at = target;
            return;
        }
        let next = path.at;
        if meet == NEVER {
            path.mask = other;
        } else {
            path.at = meet;
            if next != meet {
                self.paths.push(Path { at: next, meet, mask: other });
            }
        }
        if target != meet {
            self.paths.push(Path { at: target, meet, mask: taken });
        }
    }

    fn branch_table(
        &mut self,
        context: &mut Context<'_>,
        instruction: &Instruction,
        place: [u32; 3],
        targets: &[u32],
        index: &Lanes<u32>,
        taken: u32,
    ) {
        let Some(path) = self.paths.last_mut() else { return };
        let (next, meet, other) = (path.at, instruction.meet, path.mask & !taken);
        if meet == NEVER {
            self.paths.pop();
        } else {
            path.at = meet;
        }
        if other != 0 && next != meet {
            self.paths.push(Path { at: next, meet, mask: other });
        }
        let mut rest = taken;
        while rest != 0 {
            let lane = rest.trailing_zeros();
            let chosen = index[lane as usize];
            let mut mask = 0;
            for lane in 0..32 {
                mask |= u32::from(rest >> lane & 1 != 0 && index[lane] == chosen) << lane;
            }
            rest &= !mask;
            match targets.get(chosen as usize) {
                Some(&target) if target != meet => self.paths.push(Path { at: target, meet, mask }),
                Some(_) => {}
                None => {
                    let detail = format!("entry {chosen} of a branch table of {}", targets.len());
                    context.report(FindingKind::OutOfBounds, instruction, place, self.thread(lane), detail);
                    self.exit(mask);
                }
            }
        }
    }

    fn exit(&mut self, mask: u32) {
        self.alive &= !mask;
        self.paths.iter_mut().for_each(|path| path.mask &= !mask);
        while self.paths.last().is_some_and(|path| path.mask == 0) {
            self.paths.pop();
        }
        if self.alive == 0 {
            self.paths.clear();
        }
    }

    /// Operations on registers alone.
    #[inline(always)]
    fn compute(&mut self, op: &Op, mask: u32) {
        let Self { r32, r64, predicates, .. } = self;
        match *op {
            Op::Move32 { d, a } => {
                let a = r32[a as usize];
                map1(r32, d, &a, mask, |a| a);
            }
            Op::Move64 { d, a } => {
                let a = r64[a as usize];
                map1(r64, d, &a, mask, |a| a);
            }
            Op::Pack { d, low, high } => {
                map2(r64, d, &r32[low as usize], &r32[high as usize], mask, |l, h| {
                    u64::from(h) << 32 | u64::from(l)
                });
            }
            Op::Unpack { low, high, a } => {
                let a = r64[a as usize];
                if let Some(low) = low {
                    map1(r32, low, &a, mask, |a| a as u32);
                }
                if let Some(high) = high {
                    map1(r32, high, &a, mask, |a| (a >> 32) as u32);
                }
            }
            Op::Pack16 { d, low, high } => {
                let (low, high) = (r32[low as usize], r32[high as usize]);
                map2(r32, d, &low, &high, mask, |l, h| h << 16 | l & 0xffff);
            }
            Op::Unpack16 { low, high, a } => {
                let a = r32[a as usize];
                if let Some(low) = low {
                    map1(r32, low, &a, mask, |a| a & 0xffff);
                }
                if let Some(high) = high {
                    map1(r32, high, &a, mask, |a| a >> 16);
                }
            }
            Op::Int { op, width, d, a, b } => match width {
                Width::S64 | Width::U64 => {
                    let a = r64[a as usize];
                    if matches!(op, Int::Shl | Int::Shr) {
                        let b = r32[b as usize];
                        match (op, width) {
                            (Int::Shl, _) => {
                                map2(r64, d, &a, &b, mask, |a, b| if b > 63 { 0 } else { a << b })
                            }
                            (_, Width::S64) => {
                                map2(r64, d, &a, &b, mask, |a, b| ((a as i64) >> b.min(63)) as u64)
                            }
                            _ => map2(r64, d, &a, &b, mask, |a, b| if b > 63 { 0 } else { a >> b }),
                        }
                    } else {
                        let b = r64[b as usize];
                        int64(r64, op, width == Width::S64, d, &a, &b, mask);
                    }
                }
                Width::S32 | Width::U32 => {
                    let (a, b) = (r32[a as usize], r32[b as usize]);
                    int32(r32, op, width == Width::S32, d, &a, &b, mask);
                }
                Width::S16 | Width::U16 => {
                    let (a, b) = (r32[a as usize], r32[b as usize]);
                    let signed = width == Width::S16;
                    for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                        r32[d as usize][lane] = int16(op, signed, a[lane], b[lane]);
                    }
                }
            },
            Op::IntUnary { op, width, d, a } => match (op, width.is_64()) {
                (IntUnary::Clz, true) => map1(r32, d, &r64[a as usize], mask, u64::leading_zeros),
                (IntUnary::Popc, true) => map1(r32, d, &r64[a as usize], mask, u64::count_ones),
                (op, true) => {
                    let a = r64[a as usize];
                    map1(r64, d, &a, mask, |a| match op {
                        IntUnary::Not => !a,
                        IntUnary::Neg => a.wrapping_neg(),
                        IntUnary::Abs => (a as i64).wrapping_abs() as u64,
                        IntUnary::Brev => a.reverse_bits(),
                        _ => u64::from(a == 0),
                    });
                }
                (op, false) => {
                    let a = r32[a as usize];
                    let narrow = matches!(width, Width::S16 | Width::U16);
                    map1(r32, d, &a, mask, |a| {
                        let value = match op {
                            IntUnary::Not => !a,
                            IntUnary::Neg => a.wrapping_neg(),
                            IntUnary::Abs if narrow => u32::from((a as i16).unsigned_abs()),
                            IntUnary::Abs => (a as i32).wrapping_abs() as u32,
                            IntUnary::Clz => a.leading_zeros(),
                            IntUnary::Popc => a.count_ones(),
                            IntUnary::Brev => a.reverse_bits(),
                            IntUnary::Cnot => u32::from(a == 0),
                        };
                        if narrow { value & 0xffff } else { value }
                    });
                }
            },
            Op::Mad { width, d, a, b, c } => match width {
                Width::S64 | Width::U64 => {
                    let (a, b, c) = (r64[a as usize], r64[b as usize], r64[c as usize]);
                    map3(r64, d, &a, &b, &c, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c));
                }
                Width::S32 | Width::U32 => {
                    let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                    map3(r32, d, &a, &b, &c, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c));
                }
                Width::S16 | Width::U16 => {
                    let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                    map3(r32, d, &a, &b, &c, mask, |a, b, c| a.wrapping_mul(b).wrapping_add(c) & 0xffff);
                }
            },
            Op::MadHigh { width, d, a, b, c } => {
                if width.is_64() {
                    let (a, b, c) = (r64[a as usize], r64[b as usize], r64[c as usize]);
                    let signed = width == Width::S64;
                    map3(r64, d, &a, &b, &c, mask, |a, b, c| high64(a, b, signed).wrapping_add(c));
                } else {
                    let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                    let signed = width == Width::S32;
                    map3(r32, d, &a, &b, &c, mask, |a, b, c| high32(a, b, signed).wrapping_add(c));
                }
            }
            Op::MulWide { width, d, a, b, c } => {
                let (a, b) = (r32[a as usize], r32[b as usize]);
                match width {
                    Width::S16 | Width::U16 => {
                        let c = c.map_or([0; 32], |c| r32[c as usize]);
                        let signed = width == Width::S16;
                        map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                            let product = if signed {
                                (i32::from(a as i16) * i32::from(b as i16)) as u32
                            } else {
                                u32::from(a as u16) * u32::from(b as u16)
                            };
                            product.wrapping_add(c)
                        });
                    }
                    Width::S32 => {
                        let c = c.map_or([0; 32], |c| r64[c as usize]);
                        map3(r64, d, &a, &b, &c, mask, |a, b, c| {
                            ((i64::from(a as i32) * i64::from(b as i32)) as u64).wrapping_add(c)
                        });
                    }
                    _ => {
                        let c = c.map_or([0; 32], |c| r64[c as usize]);
                        map3(r64, d, &a, &b, &c, mask, |a, b, c| {
                            (u64::from(a) * u64::from(b)).wrapping_add(c)
                        });
                    }
                }
            }
            Op::Carry { width, subtract, d, a, b, take, give } => {
                for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                    let carry = take && self.carry >> lane & 1 != 0;
                    let out = if width.is_64() {
                        let (a, b) = (r64[a as usize][lane], r64[b as usize][lane]);
                        let (value, out) = with_carry(u128::from(a), u128::from(b), 64, subtract, carry);
                        r64[d as usize][lane] = value as u64;
                        out
                    } else {
                        let (a, b) = (r32[a as usize][lane], r32[b as usize][lane]);
                        let (value, out) = with_carry(u128::from(a), u128::from(b), 32, subtract, carry);
                        r32[d as usize][lane] = value as u32;
                        out
                    };
                    if give {
                        self.carry = self.carry & !(1 << lane) | u32::from(out) << lane;
                    }
                }
            }
            Op::MadCarry { high, d, a, b, c, take, give } => {
                for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                    let carry = u64::from(take && self.carry >> lane & 1 != 0);
                    let product = u64::from(r32[a as usize][lane]) * u64::from(r32[b as usize][lane]);
                    let part = if high { product >> 32 } else { product & 0xffff_ffff };
                    let sum = part + u64::from(r32[c as usize][lane]) + carry;
                    r32[d as usize][lane] = sum as u32;
                    if give {
                        self.carry = self.carry & !(1 << lane) | u32::from(sum >> 32 != 0) << lane;
                    }
                }
            }
            Op::Bfe { width, d, a, b, c } => {
                let (b, c) = (r32[b as usize], r32[c as usize]);
                for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                    let (start, len) = (b[lane] & 0xff, c[lane] & 0xff);
                    if width.is_64() {
                        r64[d as usize][lane] =
                            extract(r64[a as usize][lane], 64, start, len, width == Width::S64);
                    } else {
                        let value = u64::from(r32[a as usize][lane]);
                        r32[d as usize][lane] = extract(value, 32, start, len, width == Width::S32) as u32;
                    }
                }
            }
            Op::Bfi { wide, d, a, b, c, e } => {
                let (start, len) = (r32[c as usize], r32[e as usize]);
                for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                    let (start, len) = (start[lane] & 0xff, len[lane] & 0xff);
                    if wide {
                        let value = insert(r64[a as usize][lane], r64[b as usize][lane], start, len);
                        r64[d as usize][lane] = value;
                    } else {
                        let (a, b) = (u64::from(r32[a as usize][lane]), u64::from(r32[b as usize][lane]));
                        r32[d as usize][lane] = insert(a, b, start, len) as u32;
                    }
                }
            }
            Op::Bfind { width, shift, d, a } => {
                for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                    let (value, bits) = match width {
                        Width::S64 | Width::U64 => (r64[a as usize][lane] as i64, 64),
                        Width::S32 => (i64::from(r32[a as usize][lane] as i32), 64),
                        _ => (i64::from(r32[a as usize][lane]), 64),
                    };
                    let value = if width.is_signed() && value < 0 { !value } else { value } as u64;
                    let found = if value == 0 { u32::MAX } else { bits - 1 - value.leading_zeros() };
                    let width = if width.is_64() { 64 } else { 32 };
                    r32[d as usize][lane] =
                        if shift && found != u32::MAX { width - 1 - found } else { found };
                }
            }
            Op::Permute { d, a, b, c, mode } => {
                let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                map3(r32, d, &a, &b, &c, mask, |a, b, c| permute(a, b, c, mode));
            }
            Op::Lop3 { d, a, b, c, table } => {
                let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                    let mut result = 0;
                    for entry in 0..8 {
                        if table >> entry & 1 != 0 {
                            let pick =
                                |value: u32, bit: u8| if entry >> bit & 1 != 0 { value } else { !value };
                            result |= pick(a, 2) & pick(b, 1) & pick(c, 0);
                        }
                    }
                    result
                });
            }
            Op::Funnel { left, clamp, d, a, b, c } => {
                let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                    let n = if clamp { c.min(32) } else { c & 31 };
                    let both = u64::from(b) << 32 | u64::from(a);
                    if left { ((both << n) >> 32) as u32 } else { (both >> n) as u32 }
                });
            }
            Op::Sad { signed, d, a, b, c } => {
                let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                    c.wrapping_add(if signed { (a as i32).abs_diff(b as i32) } else { a.abs_diff(b) })
                });
            }
            Op::Dot { elements, high, signed, d, a, b, c } => {
                let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                    let byte = |word: u32, at: u32, signed: bool| {
                        let byte = (word >> (8 * at)) as u8;
                        if signed { i32::from(byte as i8) } else { i32::from(byte) }
                    };
                    let half = |word: u32, at: u32, signed: bool| {
                        let half = (word >> (16 * at)) as u16;
                        if signed { i32::from(half as i16) } else { i32::from(half) }
                    };
                    let mut sum = c as i32;
                    for i in 0..u32::from(elements) {
                        let product = if elements == 4 {
                            byte(a, i, signed[0]).wrapping_mul(byte(b, i, signed[1]))
                        } else {
                            half(a, i, signed[0]).wrapping_mul(byte(b, i + 2 * u32::from(high), signed[1]))
                        };
                        sum = sum.wrapping_add(product);
                    }
                    sum as u32
                });
            }
            Op::SetPredicate { compare, kind, d, other, a, b, combine } => {
                let result = comparison(r32, r64, compare, kind, a, b);
                let with = |value: u32| match combine {
                    None => value,
                    Some((op, p, negated)) => {
                        let p = predicates[p as usize];
                        let p = if negated { !p } else { p };
                        match op {
                            Bool::And => value & p,
                            Bool::Or => value | p,
                            Bool::Xor => value ^ p,
                        }
                    }
                };
                let (first, second) = (with(result), with(!result));
                let old = &mut predicates[d as usize];
                *old = *old & !mask | first & mask;
                if let Some(other) = other {
                    let old = &mut predicates[other as usize];
                    *old = *old & !mask | second & mask;
                }
            }
            Op::Set { compare, kind, float, d, a, b } => {
                let result = comparison(r32, r64, compare, kind, a, b);
                let yes = if float { 1f32.to_bits() } else { u32::MAX };
                for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
                    r32[d as usize][lane] = if result >> lane & 1 != 0 { yes } else { 0 };
                }
            }
            Op::Select32 { d, a, b, p, negated } => {
                let (a, b) = (r32[a as usize], r32[b as usize]);
                let p = if negated { !predicates[p as usize] } else { predicates[p as usize] };
                let chosen: Lanes<u32> =
                    std::array::from_fn(|lane| if p >> lane & 1 != 0 { a[lane] } else { b[lane] });
                map1(r32, d, &chosen, mask, |a| a);
            }
            Op::Select64 { d, a, b, p, negated } => {
                let (a, b) = (r64[a as usize], r64[b as usize]);
                let p = if negated { !predicates[p as usize] } else { predicates[p as usize] };
                let chosen: Lanes<u64> =
                    std::array::from_fn(|lane| if p >> lane & 1 != 0 { a[lane] } else { b[lane] });
                map1(r64, d, &chosen, mask, |a| a);
            }
            Op::Predicate { op, d, a, b } => {
                let (a, b) = (predicates[a as usize], predicates[b as usize]);
                let value = match op {
                    Bool::And => a & b,
                    Bool::Or => a | b,
                    Bool::Xor => a ^ b,
                };
                let old = &mut predicates[d as usize];
                *old = *old & !mask | value & mask;
            }
            Op::PredicateMove { d, a, negated } => {
                let value = if negated { !predicates[a as usize] } else { predicates[a as usize] };
                let old = &mut predicates[d as usize];
                *old = *old & !mask | value & mask;
            }
            Op::Convert { from, to, rounding, integral, mode, d, a } => {
                self.convert(from, to, rounding, integral, mode, d, a, mask);
            }
            Op::PackHalves { to, rounding, relu, d, high, low } => {
                let (high, low) = (r32[high as usize], r32[low as usize]);
                map2(r32, d, &high, &low, mask, |high, low| {
                    let half = |bits: u32| {
                        let value = f32::from_bits(bits);
                        let value = if relu && value < 0.0 { 0.0 } else { value };
                        u32::from(float::f32_to_half(value, to, rounding))
                    };
                    half(high) << 16 | half(low)
                });
            }
            Op::Float { op, mode, rounding, d, a, b } => {
                let (a, b) = (r32[a as usize], r32[b as usize]);
                if mode == Mode::default() && rounding == Rounding::Nearest {
                    let plain = |f: fn(f32, f32) -> f32| f;
                    let _ = plain;
                    match op {
                        FloatBinary::Add => floats(r32, d, &a, &b, mask, |a, b| a + b),
                        FloatBinary::Sub => floats(r32, d, &a, &b, mask, |a, b| a - b),
                        FloatBinary::Mul => floats(r32, d, &a, &b, mask, |a, b| a * b),
                        FloatBinary::Div => floats(r32, d, &a, &b, mask, |a, b| a / b),
                        FloatBinary::Min => floats(r32, d, &a, &b, mask, float::minimum),
                        FloatBinary::Max => floats(r32, d, &a, &b, mask, float::maximum),
                        op => floats(r32, d, &a, &b, mask, |a, b| float::binary(op, a, b, Rounding::Nearest)),
                    }
                } else {
                    floats(r32, d, &a, &b, mask, |a, b| {
                        float::leave(
                            float::binary(op, float::enter(a, mode), float::enter(b, mode), rounding),
                            mode,
                        )
                    });
                }
            }
            Op::FloatUnary { op, mode, d, a } => {
                let a = r32[a as usize];
                match op {
                    FloatUnary::Neg => map1(r32, d, &a, mask, |a| a ^ 0x8000_0000),
                    FloatUnary::Abs => map1(r32, d, &a, mask, |a| a & 0x7fff_ffff),
                    op => map1(r32, d, &a, mask, |a| {
                        let value = float::unary(op, float::enter(f32::from_bits(a), mode));
                        float::canonical(float::leave(value, mode))
                    }),
                }
            }
            Op::Fma { mode, rounding, d, a, b, c } => {
                let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                if rounding != Rounding::Nearest {
                    let enter = |bits: u32| float::enter(f32::from_bits(bits), mode);
                    map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                        let value = float::fused(enter(a), enter(b), enter(c), rounding);
                        float::canonical(float::leave(value, mode))
                    });
                } else if mode == Mode::default() {
                    map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                        float::canonical(f32::from_bits(a).mul_add(f32::from_bits(b), f32::from_bits(c)))
                    });
                } else {
                    let enter = |bits: u32| float::enter(f32::from_bits(bits), mode);
                    map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                        float::canonical(float::leave(enter(a).mul_add(enter(b), enter(c)), mode))
                    });
                }
            }
            Op::Double { op, d, a, b } => {
                let (a, b) = (r64[a as usize], r64[b as usize]);
                map2(r64, d, &a, &b, mask, |a, b| {
                    float::double(op, f64::from_bits(a), f64::from_bits(b)).to_bits()
                });
            }
            Op::DoubleUnary { op, d, a } => {
                let a = r64[a as usize];
                map1(r64, d, &a, mask, |a| float::double_unary(op, f64::from_bits(a)).to_bits());
            }
            Op::DoubleFma { d, a, b, c } => {
                let (a, b, c) = (r64[a as usize], r64[b as usize], r64[c as usize]);
                map3(r64, d, &a, &b, &c, mask, |a, b, c| {
                    f64::from_bits(a).mul_add(f64::from_bits(b), f64::from_bits(c)).to_bits()
                });
            }
            Op::Halves { op, kind, single, d, a, b } => {
                let (a, b) = (r32[a as usize], r32[b as usize]);
                map2(r32, d, &a, &b, mask, |a, b| {
                    halves(kind, single, |at| {
                        let part = |word: u32| float::half_to_f32((word >> (16 * at)) as u16, kind);
                        float::binary(op, part(a), part(b), Rounding::Nearest)
                    })
                });
            }
            Op::HalvesFma { kind, single, relu, d, a, b, c } => {
                let (a, b, c) = (r32[a as usize], r32[b as usize], r32[c as usize]);
                map3(r32, d, &a, &b, &c, mask, |a, b, c| {
                    halves(kind, single, |at| {
                        let part =
                            |word: u32| f64::from(float::half_to_f32((word >> (16 * at)) as u16, kind));
                        // The product of two halves is exact in f64; one sum, rounded to odd on the way to the half type.
                        let value = float::f64_to_f32(part(a).mul_add(part(b), part(c)), Rounding::Nearest);
                        if relu && value < 0.0 { 0.0 } else { value }
                    })
                });
            }
            Op::HalvesUnary { op, kind, single, d, a } => {
                let a = r32[a as usize];
                map1(r32, d, &a, mask, |a| {
                    halves(kind, single, |at| {
                        float::unary(op, float::half_to_f32((a >> (16 * at)) as u16, kind))
                    })
                });
            }
            Op::TestNumber { what, wide, d, a } => {
                let test = |value: f64, subnormal: bool| match what {
                    "finite" => value.is_finite(),
                    "infinite" => value.is_infinite(),
                    "number" => !value.is_nan(),
                    "notanumber" => value.is_nan(),
                    "subnormal" => subnormal,
                    _ => value.is_finite() && value != 0.0 && !subnormal,
                };
                let mut result = 0;
                for lane in 0..32 {
                    let holds = if wide {
                        let value = f64::from_bits(r64[a as usize][lane]);
                        test(value, value.is_subnormal())
                    } else {
                        let value = f32::from_bits(r32[a as usize][lane]);
                        test(f64::from(value), value.is_subnormal())
                    };
                    result |= u32::from(holds) << lane;
                }
                let old = &mut predicates[d as usize];
                *old = *old & !mask | result & mask;
            }
            Op::ToSpace { from_generic, space, wide, d, a } => {
                let base = match space {
                    Space::Shared => SHARED_BASE,
                    Space::Local => LOCAL_BASE,
                    // Addresses of parameters are generic already.
                    _ => 0,
                };
                if wide {
                    let a = r64[a as usize];
                    map1(r64, d, &a, mask, |a| {
                        if from_generic { a.wrapping_sub(base) } else { a.wrapping_add(base) }
                    });
                } else {
                    let a = r32[a as usize];
                    map1(r32, d, &a, mask, |a| a);
                }
            }
            Op::IsSpace { space, d, a } => {
                let holds = |a: u64| match space {
                    Space::Shared => (SHARED_BASE..LOCAL_BASE).contains(&a),
                    Space::Local => (LOCAL_BASE..PARAM_BASE).contains(&a),
                    _ => a < SHARED_BASE,
                };
                let a = r64[a as usize];
                let mut result = 0;
                for lane in 0..32 {
                    result |= u32::from(holds(a[lane])) << lane;
                }
                let old = &mut predicates[d as usize];
                *old = *old & !mask | result & mask;
            }
            _ => {}
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one instruction")]
    fn convert(
        &mut self,
        from: Type,
        to: Type,
        rounding: Rounding,
        integral: bool,
        mode: Mode,
        d: u32,
        a: u32,
        mask: u32,
    ) {
        let Self { r32, r64, .. } = self;
        let wide = |kind: Type| matches!(kind, Type::F64 | Type::Int(Width::S64 | Width::U64));
        // The conversions that addresses and loops are full of.
        let plain = mode == Mode::default();
        match (from, to) {
            (Type::Int(Width::S32), Type::Int(Width::S64 | Width::U64)) if !mode.sat => {
                return map1(r64, d, &r32[a as usize], mask, |a| i64::from(a as i32) as u64);
            }
            (Type::Int(Width::U32), Type::Int(Width::S64 | Width::U64)) if !mode.sat => {
                return map1(r64, d, &r32[a as usize], mask, u64::from);
            }
            (Type::Int(Width::S64 | Width::U64), Type::Int(Width::S32 | Width::U32)) if !mode.sat => {
                return map1(r32, d, &r64[a as usize], mask, |a| a as u32);
            }
            (Type::Int(Width::S32), Type::F32) if plain && rounding == Rounding::Nearest => {
                let a = r32[a as usize];
                return map1(r32, d, &a, mask, |a| (a as i32 as f32).to_bits());
            }
            (Type::F32, Type::Int(Width::S32)) if plain && rounding == Rounding::Zero => {
                let a = r32[a as usize];
                return map1(r32, d, &a, mask, |a| f32::from_bits(a) as i32 as u32);
            }
            _ => {}
        }
        for lane in (0..32).filter(|lane| mask >> lane & 1 != 0) {
            let bits = if wide(from) { r64[a as usize][lane] } else { u64::from(r32[a as usize][lane]) };
            let result = float::convert(bits, from, to, rounding, integral, mode);
            if wide(to) {
                r64[d as usize][lane] = result;
            } else {
                r32[d as usize][lane] = result as u32;
            }
        }
    }

    /// Shuffles, votes and the like: the lanes that take part must be those that the instruction names.
    fn exchange(&mut self, context: &mut Context<'_>, instruction: &Instruction, place: [u32; 3], mask: u32) {
        let members = match instruction.op {
            Op::Shuffle { members, .. }
            | Op::Vote { members, .. }
            | Op::Match { members, .. }
            | Op::Reduce { members, .. }
            | Op::Elect { members, .. }
            | Op::WarpBarrier { members } => self.r32[members as usize],
            _ => return,
        };
        let lane = mask.trailing_zeros();
        let named = members[lane as usize] & self.alive;
        if named & !mask != 0 || mask & !members[lane as usize] != 0 {
            let detail = format!("members {:#010x} are named, {mask:#010x} are here", members[lane as usize]);
            context.report(FindingKind::WrongMembers, instruction, place, self.thread(lane), detail);
        }
        let here = mask;
        match instruction.op {
            Op::Shuffle { mode, d, p, a, b, c, .. } => {
                let (a, b, c) = (self.r32[a as usize], self.r32[b as usize], self.r32[c as usize]);
                let (mut values, mut inside, mut wrong) = ([0; 32], 0u32, None);
                for lane in 0..32u32 {
                    let (b, c) = (b[lane as usize] & 31, c[lane as usize]);
                    let (clamp, segment) = (c & 31, c >> 8 & 31);
                    let most = lane & segment | clamp & !segment;
                    let least = lane & segment;
                    let (from, fits) = match mode {
                        Shuffle::Up => (lane.wrapping_sub(b), lane as i32 - b as i32 >= most as i32),
                        Shuffle::Down => (lane + b, lane + b <= most),
                        Shuffle::Butterfly => (lane ^ b, lane ^ b <= most),
                        Shuffle::Index => (least | b & !segment, (least | b & !segment) <= most),
                    };
                    let from = if fits { from } else { lane };
                    values[lane as usize] = a[from as usize & 31];
                    inside |= u32::from(fits) << lane;
                    if here >> lane & 1 != 0 && here >> (from & 31) & 1 == 0 {
                        wrong = Some((lane, from));
                    }
                }
                if let Some((lane, from)) = wrong {
                    let detail = format!("the value of lane {from}, which takes no part, is read");
                    context.report(FindingKind::WrongMembers, instruction, place, self.thread(lane), detail);
                }
                map1(&mut self.r32, d, &values, mask, |value| value);
                if let Some(p) = p {
                    let old = &mut self.predicates[p as usize];
                    *old = *old & !mask | inside & mask;
                }
            }
            Op::Vote { mode, d, a, negated, .. } => {
                let a = self.predicates[a as usize];
                let votes = if negated { !a } else { a } & here;
                let all = |holds: bool| if holds { u32::MAX } else { 0 };
                let result = match mode {
                    Vote::Ballot => return map1(&mut self.r32, d, &[votes; 32], mask, |value| value),
                    Vote::All => all(votes == here),
                    Vote::Any => all(votes != 0),
                    Vote::Uniform => all(votes == 0 || votes == here),
                };
                let old = &mut self.predicates[d as usize];
                *old = *old & !mask | result & mask;
            }
            Op::Match { all, wide, d, p, a, .. } => {
                let value = |lane: usize| {
                    if wide { self.r64[a as usize][lane] } else { u64::from(self.r32[a as usize][lane]) }
                };
                let values: Lanes<u64> = std::array::from_fn(value);
                let same = |lane: usize| {
                    (0..32)
                        .filter(|&other| here >> other & 1 != 0 && values[other] == values[lane])
                        .fold(0u32, |m, o| m | 1 << o)
                };
                let masks: Lanes<u32> = std::array::from_fn(|lane| {
                    let same = same(lane);
                    if all && same != here { 0 } else { same }
                });
                map1(&mut self.r32, d, &masks, mask, |value| value);
                if let Some(p) = p {
                    let result = if masks[lane as usize] == here { u32::MAX } else { 0 };
                    let old = &mut self.predicates[p as usize];
                    *old = *old & !mask | result & mask;
                }
            }
            Op::Reduce { op, signed, d, a, .. } => {
                let a = self.r32[a as usize];
                let values = (0..32).filter(|lane| here >> lane & 1 != 0).map(|lane| a[lane]);
                let result = values.reduce(|x, y| match (op, signed) {
                    (AtomicOp::Add, _) => x.wrapping_add(y),
                    (AtomicOp::Min, true) => (x as i32).min(y as i32) as u32,
                    (AtomicOp::Max, true) => (x as i32).max(y as i32) as u32,
                    (AtomicOp::Min, false) => x.min(y),
                    (AtomicOp::Max, false) => x.max(y),
                    (AtomicOp::And, _) => x & y,
                    (AtomicOp::Or, _) => x | y,
                    _ => x ^ y,
                });
                map1(&mut self.r32, d, &[result.unwrap_or(0); 32], mask, |value| value);
            }
            Op::Elect { d, p, .. } => {
                if let Some(d) = d {
                    map1(&mut self.r32, d, &[lane; 32], mask, |value| value);
                }
                let old = &mut self.predicates[p as usize];
                *old = *old & !mask | 1 << lane;
            }
            _ => {}
        }
    }
}

#[inline(always)]
fn floats(
    file: &mut [Lanes<u32>],
    d: u32,
    a: &Lanes<u32>,
    b: &Lanes<u32>,
    mask: u32,
    f: impl Fn(f32, f32) -> f32,
) {
    map2(file, d, a, b, mask, |a, b| float::canonical(f(f32::from_bits(a), f32::from_bits(b))));
}

/// Both halves of a word, or the lower alone, from their values in f32.
fn halves(kind: Type, single: bool, value: impl Fn(u32) -> f32) -> u32 {
    let low = u32::from(float::f32_to_half(value(0), kind, Rounding::Nearest));
    if single { low } else { u32::from(float::f32_to_half(value(1), kind, Rounding::Nearest)) << 16 | low }
}

fn high32(a: u32, b: u32, signed: bool) -> u32 {
    if signed {
        ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32
    } else {
        ((u64::from(a) * u64::from(b)) >> 32) as u32
    }
}

fn high64(a: u64, b: u64, signed: bool) -> u64 {
    if signed {
        ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64
    } else {
        ((u128::from(a) * u128::from(b)) >> 64) as u64
    }
}

#[inline(always)]
fn int32(r32: &mut [Lanes<u32>], op: Int, signed: bool, d: u32, a: &Lanes<u32>, b: &Lanes<u32>, mask: u32) {
    match op {
        Int::Add => map2(r32, d, a, b, mask, u32::wrapping_add),
        Int::Sub => map2(r32, d, a, b, mask, u32::wrapping_sub),
        Int::Mul => map2(r32, d, a, b, mask, u32::wrapping_mul),
        Int::And => map2(r32, d, a, b, mask, |a, b| a & b),
        Int::Or => map2(r32, d, a, b, mask, |a, b| a | b),
        Int::Xor => map2(r32, d, a, b, mask, |a, b| a ^ b),
        Int::Shl => map2(r32, d, a, b, mask, |a, b| if b > 31 { 0 } else { a << b }),
        Int::Shr if signed => map2(r32, d, a, b, mask, |a, b| ((a as i32) >> b.min(31)) as u32),
        Int::Shr => map2(r32, d, a, b, mask, |a, b| if b > 31 { 0 } else { a >> b }),
        Int::Min if signed => map2(r32, d, a, b, mask, |a, b| (a as i32).min(b as i32) as u32),
        Int::Min => map2(r32, d, a, b, mask, u32::min),
        Int::Max if signed => map2(r32, d, a, b, mask, |a, b| (a as i32).max(b as i32) as u32),
        Int::Max => map2(r32, d, a, b, mask, u32::max),
        Int::MulHigh => map2(r32, d, a, b, mask, |a, b| high32(a, b, signed)),
        // Dividing by zero gives all ones on this hardware.
        Int::Div if signed => map2(r32, d, a, b, mask, |a, b| match b {
            0 => u32::MAX,
            b => (a as i32).wrapping_div(b as i32) as u32,
        }),
        Int::Div => map2(r32, d, a, b, mask, |a, b| a.checked_div(b).unwrap_or(u32::MAX)),
        Int::Rem if signed => map2(r32, d, a, b, mask, |a, b| match b {
            0 => a,
            b => (a as i32).wrapping_rem(b as i32) as u32,
        }),
        Int::Rem => map2(r32, d, a, b, mask, |a, b| a.checked_rem(b).unwrap_or(a)),
    }
}

#[inline(always)]
fn int64(r64: &mut [Lanes<u64>], op: Int, signed: bool, d: u32, a: &Lanes<u64>, b: &Lanes<u64>, mask: u32) {
    match op {
        Int::Add => map2(r64, d, a, b, mask, u64::wrapping_add),
        Int::Sub => map2(r64, d, a, b, mask, u64::wrapping_sub),
        Int::Mul => map2(r64, d, a, b, mask, u64::wrapping_mul),
        Int::And => map2(r64, d, a, b, mask, |a, b| a & b),
        Int::Or => map2(r64, d, a, b, mask, |a, b| a | b),
        Int::Xor => map2(r64, d, a, b, mask, |a, b| a ^ b),
        Int::Min if signed => map2(r64, d, a, b, mask, |a, b| (a as i64).min(b as i64) as u64),
        Int::Min => map2(r64, d, a, b, mask, u64::min),
        Int::Max if signed => map2(r64, d, a, b, mask, |a, b| (a as i64).max(b as i64) as u64),
        Int::Max => map2(r64, d, a, b, mask, u64::max),
        Int::MulHigh => map2(r64, d, a, b, mask, |a, b| high64(a, b, signed)),
        Int::Div if signed => map2(r64, d, a, b, mask, |a, b| match b {
            0 => u64::MAX,
            b => (a as i64).wrapping_div(b as i64) as u64,
        }),
        Int::Div => map2(r64, d, a, b, mask, |a, b| a.checked_div(b).unwrap_or(u64::MAX)),
        Int::Rem if signed => map2(r64, d, a, b, mask, |a, b| match b {
            0 => a,
            b => (a as i64).wrapping_rem(b as i64) as u64,
        }),
        Int::Rem => map2(r64, d, a, b, mask, |a, b| a.checked_rem(b).unwrap_or(a)),
        // Shifts take their count from a 32-bit register.
        Int::Shl | Int::Shr => {}
    }
}

fn int16(op: Int, signed: bool, a: u32, b: u32) -> u32 {
    let shift = b;
    let extend = |value: u32| if signed { i64::from(value as i16) } else { i64::from(value as u16) };
    let (a, b) = (extend(a), extend(b));
    let value = match op {
        Int::Add => a + b,
        Int::Sub => a - b,
        Int::Mul => a * b,
        Int::MulHigh => (a * b) >> 16,
        Int::Div => {
            if b == 0 {
                -1
            } else {
                a / b
            }
        }
        Int::Rem => {
            if b == 0 {
                a
            } else {
                a % b
            }
        }
        Int::Min => a.min(b),
        Int::Max => a.max(b),
        Int::And => a & b,
        Int::Or => a | b,
        Int::Xor => a ^ b,
        Int::Shl => {
            if shift > 15 {
                0
            } else {
                a << shift
            }
        }
        Int::Shr => a >> shift.min(if signed { 15 } else { 16 }),
    };
    value as u32 & 0xffff
}

fn with_carry(a: u128, b: u128, bits: u32, subtract: bool, carry: bool) -> (u128, bool) {
    let all = (1u128 << bits) - 1;
    if subtract {
        // The borrow comes in and goes out as the carry.
        let taken = b + u128::from(carry);
        (a.wrapping_sub(taken) & all, a < taken)
    } else {
        let sum = a + b + u128::from(carry);
        (sum & all, sum > all)
    }
}

fn extract(value: u64, bits: u32, start: u32, len: u32, signed: bool) -> u64 {
    let top = (start + len).saturating_sub(1).min(bits - 1);
    let sign = signed && len > 0 && value >> top & 1 != 0;
    let mut result = if start >= bits { 0 } else { value >> start };
    if len < 64 {
        result &= (1u64 << len) - 1;
    }
    let have = if start >= bits { 0 } else { len.min(bits - start) };
    if sign {
        result |= if have >= 64 { 0 } else { u64::MAX << have };
    } else if have < 64 {
        result &= (1u64 << have) - 1;
    }
    result
}

fn insert(a: u64, b: u64, start: u32, len: u32) -> u64 {
    if start > 63 || len == 0 {
        return b;
    }
    let field = if len > 63 { u64::MAX } else { (1u64 << len) - 1 } << start;
    b & !field | a << start & field
}

fn permute(a: u32, b: u32, c: u32, mode: u8) -> u32 {
    let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let n = c & 3;
    let pick = |selectors: [u32; 4]| u32::from_le_bytes(selectors.map(|s| bytes[s as usize & 7]));
    match mode {
        0 => u32::from_le_bytes(std::array::from_fn(|i| {
            let selector = c >> (4 * i) & 15;
            let byte = bytes[selector as usize & 7];
            if selector & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
        })),
        1 => pick([n, n + 1, n + 2, n + 3]),
        2 => pick([n, n.wrapping_sub(1), n.wrapping_sub(2), n.wrapping_sub(3)]),
        3 => pick([n; 4]),
        4 => pick([0, 1, 2, 3].map(|i: u32| i.max(n))),
        5 => pick([0, 1, 2, 3].map(|i: u32| i.min(n))),
        _ => pick([2 * (n & 1), 2 * (n & 1) + 1, 2 * (n & 1), 2 * (n & 1) + 1]),
    }
}

/// The lanes for which a comparison holds.
#[inline(always)]
fn comparison(r32: &[Lanes<u32>], r64: &[Lanes<u64>], compare: Compare, kind: Type, a: u32, b: u32) -> u32 {
    macro_rules! ordered {
        ($a:expr, $b:expr, $view:expr) => {{
            let view = $view;
            match compare {
                Compare::Eq => compare2($a, $b, |a, b| view(a) == view(b)),
                Compare::Ne => compare2($a, $b, |a, b| view(a) != view(b)),
                Compare::Lt => compare2($a, $b, |a, b| view(a) < view(b)),
                Compare::Le => compare2($a, $b, |a, b| view(a) <= view(b)),
                Compare::Gt => compare2($a, $b, |a, b| view(a) > view(b)),
                _ => compare2($a, $b, |a, b| view(a) >= view(b)),
            }
        }};
    }
    macro_rules! float {
        ($a:expr, $b:expr, $view:expr) => {{
            let view = $view;
            match compare {
                Compare::Eq => compare2($a, $b, |a, b| view(a) == view(b)),
                Compare::Ne => compare2($a, $b, |a, b| {
                    let (a, b) = (view(a), view(b));
                    a < b || a > b
                }),
                Compare::Lt => compare2($a, $b, |a, b| view(a) < view(b)),
                Compare::Le => compare2($a, $b, |a, b| view(a) <= view(b)),
                Compare::Gt => compare2($a, $b, |a, b| view(a) > view(b)),
                Compare::Ge => compare2($a, $b, |a, b| view(a) >= view(b)),
                Compare::Equ => compare2($a, $b, |a, b| {
                    let (a, b) = (view(a), view(b));
                    !(a < b || a > b)
                }),
                Compare::Neu => compare2($a, $b, |a, b| view(a) != view(b)),
                Compare::Ltu => compare2($a, $b, |a, b| !(view(a) >= view(b))),
                Compare::Leu => compare2($a, $b, |a, b| !(view(a) > view(b))),
                Compare::Gtu => compare2($a, $b, |a, b| !(view(a) <= view(b))),
                Compare::Geu => compare2($a, $b, |a, b| !(view(a) < view(b))),
                Compare::Num => compare2($a, $b, |a, b| !view(a).is_nan() && !view(b).is_nan()),
                Compare::Nan => compare2($a, $b, |a, b| view(a).is_nan() || view(b).is_nan()),
            }
        }};
    }
    let (a, b) = (a as usize, b as usize);
    match kind {
        Type::Int(Width::S32) => ordered!(&r32[a], &r32[b], |v: u32| v as i32),
        Type::Int(Width::U32) => ordered!(&r32[a], &r32[b], |v: u32| v),
        Type::Int(Width::S16) | Type::S8 => ordered!(&r32[a], &r32[b], |v: u32| v as i16),
        Type::Int(Width::U16) | Type::U8 => ordered!(&r32[a], &r32[b], |v: u32| v as u16),
        Type::Int(Width::S64) => ordered!(&r64[a], &r64[b], |v: u64| v as i64),
        Type::Int(Width::U64) => ordered!(&r64[a], &r64[b], |v: u64| v),
        Type::F32 => float!(&r32[a], &r32[b], f32::from_bits),
        Type::F64 => float!(&r64[a], &r64[b], f64::from_bits),
        Type::F16 | Type::Bf16 => float!(&r32[a], &r32[b], |v: u32| float::half_to_f32(v as u16, kind)),
    }
}
