//! Instructions with resolved registers, addresses and branch targets.

use super::matrix::{FragmentMove, MatrixMove, MatrixMultiply, Product};
use super::tables::{Binary, Compare, Ternary, Unary};
use super::types::{Address, Arithmetic, Clock, Order, Reg, Round, Scope, Space, Type};

/// A load or store.
#[derive(Clone, Debug)]
pub struct Access {
    pub space: Space,
    pub value: Type,
    pub order: Order,
    pub scope: Scope,
    /// Through the read-only cache, which does not see what the launch writes.
    pub read_only: bool,
    /// The value decides whether a loop goes on (set by `waits`).
    pub waits: bool,
    pub address: Address,
    /// One register for each element; none where the value is dropped.
    pub registers: Vec<Option<Reg>>,
}

/// What an atomic operation, a reduction or `redux` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicKind {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareSwap,
    Increment,
    Decrement,
}

/// `atom` or `red`.
#[derive(Clone, Debug)]
pub struct Atomic {
    pub kind: AtomicKind,
    pub space: Space,
    pub value: Type,
    pub order: Order,
    pub scope: Scope,
    /// As of [`Access`].
    pub waits: bool,
    pub address: Address,
    /// None for `red`.
    pub result: Option<Reg>,
    pub operand: Reg,
    pub second: Option<Reg>,
}

impl Atomic {
    /// Whether the blocks of a launch may do it in any order and leave the same behind.
    pub fn commutes(&self) -> bool {
        let kind = matches!(
            self.kind,
            AtomicKind::Add
                | AtomicKind::Min
                | AtomicKind::Max
                | AtomicKind::And
                | AtomicKind::Or
                | AtomicKind::Xor
        );
        self.space == Space::Shared || self.result.is_none() && kind && !self.value.is_float()
    }
}

/// Which lane a shuffle reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `shfl`.
#[derive(Clone, Debug)]
pub struct Shuffle {
    pub mode: ShuffleMode,
    pub result: Option<Reg>,
    pub inside: Option<Reg>,
    pub value: Reg,
    pub lane: Reg,
    pub clamp: Reg,
    pub members: Option<Reg>,
}

/// What a vote asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

/// `vote`.
#[derive(Clone, Debug)]
pub struct Vote {
    pub mode: VoteMode,
    pub result: Reg,
    pub value: Reg,
    pub negated: bool,
    pub members: Option<Reg>,
}

/// `match`.
#[derive(Clone, Debug)]
pub struct Match {
    pub all: bool,
    pub result: Reg,
    pub same: Option<Reg>,
    pub value: Reg,
    pub members: Reg,
}

/// `redux`.
#[derive(Clone, Debug)]
pub struct Reduce {
    pub kind: AtomicKind,
    pub signed: bool,
    pub result: Reg,
    pub value: Reg,
    pub members: Reg,
}

/// What a warp does at a barrier: waits, arrives only, or waits for a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    Wait,
    Arrive,
    Count,
    And,
    Or,
}

/// `bar` or `barrier`.
#[derive(Clone, Debug)]
pub struct Barrier {
    pub kind: BarrierKind,
    pub id: Reg,
    pub threads: Option<Reg>,
    pub result: Option<Reg>,
    pub value: Option<(Reg, bool)>,
}

/// `cp.async` from global to shared memory.
#[derive(Clone, Debug)]
pub struct CopyAsync {
    pub to: Address,
    pub from: Address,
    pub bytes: u32,
    /// How many of them are read; zeros follow.
    pub source_bytes: Option<Reg>,
    /// A predicate under which nothing is read.
    pub ignore: Option<(Reg, bool)>,
}

/// What [`HalfMath`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfKind {
    Add,
    Sub,
    Mul,
    Fma,
    Min,
    Max,
    Neg,
    Abs,
}

/// Arithmetic of f16 or bf16 with modifiers the tables have no row for.
#[derive(Clone, Debug)]
pub struct HalfMath {
    pub kind: HalfKind,
    pub brain: bool,
    pub pair: bool,
    pub ftz: bool,
    pub saturate: bool,
    pub relu: bool,
    pub nan: bool,
    pub xor_sign: bool,
    pub result: u32,
    pub operands: [u32; 3],
}

/// Comparisons of numbers; those ending in `u` hold for NaN too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberCompare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// Where a comparison's outcome goes.
#[derive(Clone, Copy, Debug)]
pub enum TestResult {
    Predicates(Option<u32>, Option<u32>),
    /// A register, and what it gets in each part where the comparison holds.
    Value(u32, u32),
}

/// A comparison of f16 or bf16, or of two of them at once.
#[derive(Clone, Debug)]
pub struct HalfTest {
    pub compare: NumberCompare,
    pub brain: bool,
    pub pair: bool,
    pub ftz: bool,
    pub combine: Option<(Logic, u32, bool)>,
    pub result: TestResult,
    pub operands: [u32; 2],
}

/// What a video instruction computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoKind {
    Add,
    Sub,
    Difference,
    Average,
    Min,
    Max,
    ShiftLeft,
    ShiftRight,
    MultiplyAdd,
    Test(NumberCompare),
}

/// A part of a register; from bit 32 on, of the second operand.
#[derive(Clone, Copy, Debug)]
pub struct VideoPart {
    pub shift: u32,
    pub bits: u32,
}

/// A video instruction: 1, 2 or 4 parts at once.
#[derive(Clone, Debug)]
pub struct Video {
    pub kind: VideoKind,
    pub d_signed: bool,
    pub a_signed: bool,
    pub b_signed: bool,
    pub saturate: bool,
    /// Shifts go round at 32.
    pub wraps: bool,
    /// By how much `vmad` shifts its sum down.
    pub scale: u32,
    /// What joins the parts and the third operand; without it the parts are put into that operand.
    pub second: Option<HalfKind>,
    pub register: u32,
    pub operands: [u32; 3],
    pub parts: Vec<[VideoPart; 2]>,
    pub result: Vec<VideoPart>,
    /// A bit for each part that is computed.
    pub mask: u32,
}

/// What an mbarrier instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MbarrierKind {
    Init,
    Invalidate,
    /// May not complete the phase.
    ArriveNoComplete,
    Arrive,
    ArriveDrop,
    /// Expects bytes and arrives.
    ArriveExpect,
    Expect,
    CompleteBytes,
    /// Whether the phase that a state belongs to is complete.
    Test,
    TestParity,
    /// Arrives when this thread's copies have; the second counts one arrival more for it.
    CopiesArrive,
    CopiesArriveIncrement,
}

/// `mbarrier` or `cp.async.mbarrier`.
#[derive(Clone, Debug)]
pub struct Mbarrier {
    pub kind: MbarrierKind,
    pub space: Space,
    pub address: Address,
    /// A count, bytes, a state or a parity.
    pub operand: Option<Reg>,
    /// A state or a predicate.
    pub result: Option<Reg>,
    pub acquires: bool,
    pub releases: bool,
}

/// How a comparison is combined with a predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logic {
    And,
    Or,
    Xor,
}

/// `setp` with everything it can have.
#[derive(Clone, Debug)]
pub struct SetPredicate {
    pub compare: Compare,
    pub a: u32,
    pub b: u32,
    pub result: Option<u32>,
    pub inverse: Option<u32>,
    pub combine: Option<(Logic, u32, bool)>,
}

/// `set`: all ones or 1.0 where the comparison holds.
#[derive(Clone, Debug)]
pub struct SetValue {
    pub test: SetPredicate,
    pub result: u32,
    pub one: u32,
}

/// `cvt`.
#[derive(Clone, Debug)]
pub struct Convert {
    pub to: Type,
    pub from: Type,
    pub round: Round,
    /// Rounds to an integer, in this direction.
    pub integral: Option<Round>,
    pub saturate: bool,
    pub ftz: bool,
    pub relu: bool,
    pub result: Reg,
    pub a: Reg,
    pub b: Option<Reg>,
}

/// Arithmetic with a rounding mode or saturation that the tables have no row for.
#[derive(Clone, Debug)]
pub struct Rounded {
    pub operation: Arithmetic,
    pub round: Round,
    pub ftz: bool,
    pub saturate: bool,
    pub double: bool,
    pub result: u32,
    pub operands: [u32; 3],
}

/// What [`Carry`] computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryKind {
    Add,
    Sub,
    MadLo,
    MadHi,
}

/// Integer arithmetic that takes or leaves a carry.
#[derive(Clone, Debug)]
pub struct Carry {
    pub kind: CarryKind,
    pub wide: bool,
    pub signed: bool,
    pub carry_in: bool,
    pub carry_out: bool,
    pub result: u32,
    pub operands: [u32; 3],
}

/// `brx.idx`: a branch to one of several targets.
#[derive(Clone, Debug)]
pub struct Table {
    pub index: Reg,
    pub targets: Vec<u32>,
    pub join: u32,
}

/// What runs outside the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostFunction {
    /// `vprintf`: format, packed arguments.
    Print,
    /// `malloc`: bytes.
    Allocate,
    /// `free`: pointer.
    Free,
    /// `__assertfail`: expression, file, line, function, size of a character.
    AssertFail,
    /// Not a call: the pointer of one that leads nowhere.
    WrongPointer,
}

/// A call of a function that runs outside the kernel.
#[derive(Clone, Debug)]
pub struct HostCall {
    pub function: HostFunction,
    /// Where the arguments and the result lie in the call's frame.
    pub arguments: Vec<u32>,
    pub result: Option<u32>,
    pub pointer: Option<Reg>,
}

/// What an instruction does.
#[derive(Clone, Debug)]
pub enum Op {
    Nop,
    Host(Box<HostCall>),
    Unary(Unary, [u32; 2]),
    Binary(Binary, [u32; 3]),
    Ternary(Ternary, [u32; 4]),
    /// Sets a predicate.
    Compare(Compare, [u32; 3]),
    SetPredicate(Box<SetPredicate>),
    SetValue(Box<SetValue>),
    /// Result, where true, where false, predicate.
    SelectW([u32; 4]),
    SelectD([u32; 4]),
    /// Predicates: result, a, b.
    Logic(Logic, [u32; 3]),
    Not([u32; 2]),
    MovPredicate([u32; 2]),
    /// Sign, exponent and mantissa of a class of numbers: `testp`.
    TestNumber(Box<(NumberTest, bool, u32, u32)>),
    Pack(Box<(Reg, Vec<Reg>)>),
    Unpack(Box<(Vec<Option<Reg>>, Reg)>),
    /// d, a, b, c and the table.
    Lop3(Box<([u32; 4], u8)>),
    /// d, from, into, position, length; whether 64 bits.
    Insert(Box<([u32; 5], bool)>),
    Rounded(Box<Rounded>),
    Carry(Box<Carry>),
    HalfMath(Box<HalfMath>),
    HalfTest(Box<HalfTest>),
    Video(Box<Video>),
    Convert(Box<Convert>),
    /// Target and where the paths meet again.
    Branch(u32, u32),
    BranchTable(Box<Table>),
    Exit,
    Trap,
    Load(Box<Access>),
    Store(Box<Access>),
    Atomic(Box<Atomic>),
    Fence(Scope),
    Barrier(Box<Barrier>),
    WarpBarrier(u32),
    Shuffle(Box<Shuffle>),
    Vote(Box<Vote>),
    Match(Box<Match>),
    ActiveMask(u32),
    Reduce(Box<Reduce>),
    Elect(Box<(Option<u32>, u32, u32)>),
    CopyAsync(Box<CopyAsync>),
    CopyCommit,
    /// Groups that may be outstanding; none waits for copies that no group holds too.
    CopyWait(Option<u32>),
    MatrixLoad(Box<MatrixMove>),
    MatrixStore(Box<MatrixMove>),
    MatrixMultiply(Box<MatrixMultiply>),
    Product(Box<Product>),
    FragmentMove(Box<FragmentMove>),
    Mbarrier(Box<Mbarrier>),
    /// Arrivals a state still waits for.
    PendingCount(u32, u32),
    Clock(Clock, u32),
    IsSpace(Box<(Space, u32, u32)>),
}

/// What `testp` asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberTest {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}
