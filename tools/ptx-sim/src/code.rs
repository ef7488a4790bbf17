//! A kernel as it is run: instructions with resolved registers, addresses and branch targets.

use std::collections::HashMap;

use crate::counters::Class;
use crate::exec::alu::{Binary, Compare, Ternary, Unary};
use crate::exec::float::{Arithmetic, Round};

/// The value types of PTX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    U8,
    S8,
    U16,
    S16,
    U32,
    S32,
    U64,
    S64,
    B8,
    B16,
    B32,
    B64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
    Tf32,
    F32,
    F64,
    Pred,
}

impl Type {
    /// The type of a modifier without its dot.
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "u8" => Self::U8,
            "s8" => Self::S8,
            "u16" => Self::U16,
            "s16" => Self::S16,
            "u32" => Self::U32,
            "s32" => Self::S32,
            "u64" => Self::U64,
            "s64" => Self::S64,
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "f16x2" => Self::F16x2,
            "bf16x2" => Self::Bf16x2,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "pred" => Self::Pred,
            _ => return None,
        })
    }

    pub fn bytes(self) -> u32 {
        match self {
            Self::U8 | Self::S8 | Self::B8 | Self::Pred => 1,
            Self::U16 | Self::S16 | Self::B16 | Self::F16 | Self::Bf16 => 2,
            Self::U64 | Self::S64 | Self::B64 | Self::F64 => 8,
            _ => 4,
        }
    }

    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16 | Self::Bf16 | Self::F16x2 | Self::Bf16x2 | Self::Tf32 | Self::F32 | Self::F64
        )
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    /// The value that the low bits of `bits` are.
    pub fn extend(self, bits: u64) -> i128 {
        let unused = 64 - 8 * self.bytes();
        if self.is_signed() {
            i128::from((bits << unused) as i64 >> unused)
        } else {
            i128::from(bits << unused >> unused)
        }
    }

    /// The least and the most an integer type holds.
    pub fn range(self) -> (i128, i128) {
        let bits = 8 * self.bytes();
        if self.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
    }
}

/// Which rows a register lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum File {
    /// 8 to 32 bits.
    W,
    /// 64 bits.
    D,
    Predicate,
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg {
    pub file: File,
    pub index: u32,
    /// Of its declared type: 1, 8, 16, 32 or 64.
    pub bits: u8,
}

/// The values registers have before the first instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Constant {
    Value(u64),
    /// The address of a module's variable, plus an addend.
    Variable(usize, i64),
    /// The address of what follows the static shared memory.
    DynamicShared(i64),
    Special(Special),
}

/// Special registers that stay the same while a block runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Special {
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Lane,
    Warp,
    Warps,
    Sm,
    Sms,
    Grid,
    MaskEq,
    MaskLe,
    MaskLt,
    MaskGe,
    MaskGt,
    DynamicShared,
    TotalShared,
    /// Halves of the address of what cooperative groups keep for a grid; 0 in a launch that is not cooperative.
    WorkspaceHigh,
    WorkspaceLow,
    /// What no launch sets.
    Zero,
    /// The cluster of one block that every block is without clusters: sizes and counts.
    One,
}

/// Special registers that are read anew each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    Low,
    High,
    Wide,
    GlobalTimer,
}

/// Where a memory instruction goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    /// Parameters and results of called functions: local memory that costs nothing.
    Frame,
    Const,
    Param,
}

/// An address: a register plus an offset, or the offset alone.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: Option<Reg>,
    pub offset: i64,
}

/// How a memory access orders others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Weak,
    /// Goes to memory each time, but is no atomic access.
    Volatile,
    /// Seen by others, orders nothing by itself.
    Relaxed,
    Acquire,
    Release,
    Both,
}

/// Whom an atomic access or a fence is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The threads of the block.
    Block,
    /// Those of every block.
    Device,
}

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
    fn commutes(&self) -> bool {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Debug)]
pub struct Vote {
    pub mode: VoteMode,
    pub result: Reg,
    pub value: Reg,
    pub negated: bool,
    pub members: Option<Reg>,
}

#[derive(Clone, Debug)]
pub struct Match {
    pub all: bool,
    pub result: Reg,
    pub same: Option<Reg>,
    pub value: Reg,
    pub members: Reg,
}

#[derive(Clone, Debug)]
pub struct Reduce {
    pub kind: AtomicKind,
    pub signed: bool,
    pub result: Reg,
    pub value: Reg,
    pub members: Reg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    Wait,
    Arrive,
    Count,
    And,
    Or,
}

#[derive(Clone, Debug)]
pub struct Barrier {
    pub kind: BarrierKind,
    pub id: Reg,
    pub threads: Option<Reg>,
    pub result: Option<Reg>,
    pub value: Option<(Reg, bool)>,
}

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

#[derive(Clone, Debug)]
pub struct MatrixMove {
    pub transposed: bool,
    pub space: Space,
    pub address: Address,
    pub registers: Vec<Reg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixType {
    F16,
    Bf16,
    Tf32,
}

#[derive(Clone, Debug)]
pub struct MatrixMultiply {
    pub depth: usize,
    pub input: MatrixType,
    /// Accumulated in f16, two values a register.
    pub half_sum: bool,
    pub d: Vec<Reg>,
    pub a: Vec<Reg>,
    pub b: Vec<Reg>,
    pub c: Vec<Reg>,
}

/// What a matrix consists of, where the tables of `exec::matrix` have no row for the product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F16,
    Bf16,
    Tf32,
    F32,
    F64,
    E4m3,
    E5m2,
    S8,
    U8,
    S4,
    U4,
    B1,
    S32,
}

impl Element {
    pub fn find(name: &str) -> Option<Self> {
        Some(match name {
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "e4m3" => Self::E4m3,
            "e5m2" => Self::E5m2,
            "s8" => Self::S8,
            "u8" => Self::U8,
            "s4" => Self::S4,
            "u4" => Self::U4,
            "b1" => Self::B1,
            "s32" => Self::S32,
            _ => return None,
        })
    }

    /// Of one element in memory.
    pub fn bits(self) -> usize {
        match self {
            Self::F64 => 64,
            Self::Tf32 | Self::F32 | Self::S32 => 32,
            Self::F16 | Self::Bf16 => 16,
            Self::E4m3 | Self::E5m2 | Self::S8 | Self::U8 => 8,
            Self::S4 | Self::U4 => 4,
            Self::B1 => 1,
        }
    }

    /// How many of them a register holds.
    pub fn each(self) -> usize {
        if self == Self::F64 { 1 } else { 32 / self.bits() }
    }
}

/// Which matrix of `a b + c` a fragment belongs to; c and d are laid out alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    A,
    B,
    Sum,
}

/// A matrix spread over a warp's registers.
#[derive(Clone, Debug)]
pub struct Fragment {
    pub part: Part,
    pub element: Element,
    /// m, n and k of the product.
    pub shape: [usize; 3],
    pub registers: Vec<Reg>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProductKind {
    MultiplyAdd,
    /// Clamps the sums of integers.
    Saturating,
    XorPopc,
    AndPopc,
}

/// Any matrix product that `MatrixMultiply` is not.
#[derive(Clone, Debug)]
pub struct Product {
    pub kind: ProductKind,
    pub a: Fragment,
    pub b: Fragment,
    pub c: Fragment,
    pub d: Fragment,
}

/// `wmma.load` and `wmma.store`.
#[derive(Clone, Debug)]
pub struct FragmentMove {
    pub fragment: Fragment,
    pub load: bool,
    pub row_major: bool,
    pub space: Space,
    pub address: Address,
    /// Elements from one row (or column) to the next; none if they are packed.
    pub stride: Option<Reg>,
    /// Registers to work with: an address, a value.
    pub scratch: (Reg, Reg),
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CarryKind {
    Add,
    Sub,
    MadLo,
    MadHi,
}

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberTest {
    Finite,
    Infinite,
    Number,
    NotANumber,
    Normal,
    Subnormal,
}

/// An instruction's guard in one word: twice the predicate's index, plus one if negated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(pub u32);

impl Guard {
    pub const ALWAYS: Self = Self(u32::MAX);
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Step {
    pub op: Op,
    pub guard: Guard,
    pub class: Class,
    pub line: u32,
    /// File number and line in the source.
    pub source: Option<(u32, u32)>,
}

/// Beyond the last instruction: where paths meet that only meet at the end.
pub const END: u32 = u32::MAX;

/// Generic addresses of the windows onto a block's shared memory, a thread's local memory and the parameters. Each is
/// 4 GB, far from any global address.
pub const SHARED_WINDOW: u64 = 0x7F00_0000_0000;
pub const LOCAL_WINDOW: u64 = 0x7F01_0000_0000;
pub const PARAM_WINDOW: u64 = 0x7F02_0000_0000;
/// Where pointers to functions point: nothing lies there.
pub const FUNCTION_WINDOW: u64 = 0x7F03_0000_0000;

/// A parameter of a kernel.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// As declared.
    pub name: String,
    /// Of an array: its elements'.
    pub type_name: String,
    /// In the packed parameters.
    pub offset: u32,
    /// How many bytes of them.
    pub bytes: u32,
}

/// A decoded kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    pub name: String,
    pub steps: Vec<Step>,
    /// Rows in each file.
    pub rows: [u32; 3],
    pub constants: Vec<(Reg, Constant)>,
    pub parameters: Vec<Parameter>,
    pub parameter_bytes: u32,
    pub shared_bytes: u32,
    pub local_bytes: u32,
    /// Of these, bytes of call frames and not of `.local`.
    pub declared_registers: u64,
    pub most_threads: Option<u64>,
    /// From `.reqntid`: the block's shape.
    pub required_threads: Option<[u64; 3]>,
    /// Labels of shared variables by offset, for findings.
    pub shared_labels: Vec<(u32, u32, String)>,
    pub files: HashMap<u32, String>,
}

impl Kernel {
    pub fn calls(&self, function: HostFunction) -> bool {
        self.steps.iter().any(|step| matches!(&step.op, Op::Host(call) if call.function == function))
    }

    /// Whether it synchronises its grid as cooperative groups do.
    pub fn needs_workspace(&self) -> bool {
        let low = Constant::Special(Special::WorkspaceLow);
        self.constants.iter().any(|(_, constant)| *constant == low)
    }

    /// Whether what comes out may depend on the order in which blocks run, races aside: it prints or allocates, rounds sums,
    /// or looks at what an atomic operation found. Such a kernel runs on one host thread.
    pub fn needs_order(&self) -> bool {
        self.steps.iter().any(|step| match &step.op {
            Op::Host(_) => true,
            Op::Atomic(atomic) => !atomic.commutes(),
            _ => false,
        })
    }
}

/// A variable of the module.
#[derive(Clone, Debug)]
pub struct ModuleVariable {
    pub name: String,
    pub bytes: usize,
    pub initial: Vec<u8>,
    pub addresses: Vec<VariableAddress>,
}

/// The address of another variable in a variable's initial value.
#[derive(Clone, Copy, Debug)]
pub struct VariableAddress {
    /// Where it goes, and how many bytes it takes there.
    pub offset: usize,
    pub bytes: usize,
    pub variable: usize,
    pub addend: i64,
    /// The bits of the address that are kept, moved down to the lowest.
    pub mask: u64,
}
