//! The decoded instruction set: operands are numbers of registers, constants and special registers included.

/// Number of a 32-bit register (also 16-bit values), a 64-bit register, a predicate.
pub type R32 = u32;
pub type R64 = u32;
pub type Pred = u32;

/// What an instruction is counted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    Integer,
    Float,
    Double,
    Special,
    Conversion,
    Move,
    Control,
    GlobalLoad,
    GlobalStore,
    SharedLoad,
    SharedStore,
    Local,
    Parameter,
    Atomic,
    Barrier,
    Exchange,
    Mma,
    Ldmatrix,
    AsyncCopy,
}

/// Number of [`Class`]es.
pub const CLASSES: usize = 19;

/// Width and sign of an integer operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    S16,
    U16,
    S32,
    U32,
    S64,
    U64,
}

impl Width {
    pub fn is_64(self) -> bool {
        matches!(self, Width::S64 | Width::U64)
    }
    pub fn is_signed(self) -> bool {
        matches!(self, Width::S16 | Width::S32 | Width::S64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Int {
    Add,
    Sub,
    Mul,
    MulHigh,
    Div,
    Rem,
    Min,
    Max,
    And,
    Or,
    Xor,
    Shl,
    Shr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntUnary {
    Not,
    Neg,
    Abs,
    Clz,
    Popc,
    Brev,
    Cnot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatBinary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
    MinNan,
    MaxNan,
    Copysign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatUnary {
    Neg,
    Abs,
    Sqrt,
    Rcp,
    Rsqrt,
    Ex2,
    Lg2,
    Sin,
    Cos,
    Tanh,
}

/// Flushing of denormals and clamping to 0..1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mode {
    pub ftz: bool,
    pub sat: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// Unordered forms: also true for NaN.
    Equ,
    Neu,
    Ltu,
    Leu,
    Gtu,
    Geu,
    Num,
    Nan,
}

/// The type a comparison or conversion reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Int(Width),
    S8,
    U8,
    F16,
    Bf16,
    F32,
    F64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bool {
    And,
    Or,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To nearest, ties to even.
    Nearest,
    Zero,
    Down,
    Up,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Param,
}

/// A base register and a constant offset.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    pub base: u32,
    /// Whether the base is a 64-bit register.
    pub wide: bool,
    pub offset: i64,
}

/// How loaded bytes become a register's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extend {
    Zero,
    Sign,
}

#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub space: Space,
    pub address: Address,
    /// Bytes of one element, 1 to 8.
    pub bytes: u8,
    /// Elements of a vector, 1, 2 or 4.
    pub count: u8,
    /// Registers of the elements.
    pub registers: [u32; 4],
    /// Whether they are 64-bit registers.
    pub wide: bool,
    pub extend: Extend,
    /// Volatile, relaxed, acquire or release: orders like an atomic.
    pub strong: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    Increment,
    Decrement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarrierKind {
    Sync,
    Arrive,
    /// Reductions over a predicate: number of true, and, or.
    Count,
    All,
    Any,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmaType {
    F16,
    Bf16,
    Tf32,
}

#[derive(Clone, Debug)]
pub enum Op {
    Move32 {
        d: R32,
        a: R32,
    },
    Move64 {
        d: R64,
        a: R64,
    },
    /// The register pairs or quads of `mov.b64 {a,b}, d` and back: 32-bit halves.
    Pack {
        d: R64,
        low: R32,
        high: R32,
    },
    Unpack {
        low: Option<R32>,
        high: Option<R32>,
        a: R64,
    },
    Pack16 {
        d: R32,
        low: R32,
        high: R32,
    },
    Unpack16 {
        low: Option<R32>,
        high: Option<R32>,
        a: R32,
    },
    Clock {
        d: u32,
        wide: bool,
    },
    Int {
        op: Int,
        width: Width,
        d: u32,
        a: u32,
        b: u32,
    },
    IntUnary {
        op: IntUnary,
        width: Width,
        d: u32,
        a: u32,
    },
    /// d = low half of a * b, + c.
    Mad {
        width: Width,
        d: u32,
        a: u32,
        b: u32,
        c: u32,
    },
    MadHigh {
        width: Width,
        d: u32,
        a: u32,
        b: u32,
        c: u32,
    },
    /// d (twice as wide) = a * b, + c where given.
    MulWide {
        width: Width,
        d: u32,
        a: u32,
        b: u32,
        c: Option<u32>,
    },
    /// Add or subtract with carry in and out.
    Carry {
        width: Width,
        subtract: bool,
        d: u32,
        a: u32,
        b: u32,
        take: bool,
        give: bool,
    },
    MadCarry {
        high: bool,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
        take: bool,
        give: bool,
    },
    Bfe {
        width: Width,
        d: u32,
        a: u32,
        b: R32,
        c: R32,
    },
    Bfi {
        wide: bool,
        d: u32,
        a: u32,
        b: u32,
        c: R32,
        e: R32,
    },
    Bfind {
        width: Width,
        shift: bool,
        d: R32,
        a: u32,
    },
    Permute {
        d: R32,
        a: R32,
        b: R32,
        c: R32,
        mode: u8,
    },
    Lop3 {
        d: R32,
        a: R32,
        b: R32,
        c: R32,
        table: u8,
    },
    Funnel {
        left: bool,
        clamp: bool,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    Sad {
        signed: bool,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    Dot {
        elements: u8,
        high: bool,
        signed: [bool; 2],
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    SetPredicate {
        compare: Compare,
        kind: Type,
        d: Pred,
        other: Option<Pred>,
        a: u32,
        b: u32,
        combine: Option<(Bool, Pred, bool)>,
    },
    Set {
        compare: Compare,
        kind: Type,
        float: bool,
        d: R32,
        a: u32,
        b: u32,
    },
    Select32 {
        d: R32,
        a: R32,
        b: R32,
        p: Pred,
        negated: bool,
    },
    Select64 {
        d: R64,
        a: R64,
        b: R64,
        p: Pred,
        negated: bool,
    },
    Predicate {
        op: Bool,
        d: Pred,
        a: Pred,
        b: Pred,
    },
    PredicateMove {
        d: Pred,
        a: Pred,
        negated: bool,
    },
    Convert {
        from: Type,
        to: Type,
        rounding: Rounding,
        integral: bool,
        mode: Mode,
        d: u32,
        a: u32,
    },
    PackHalves {
        to: Type,
        rounding: Rounding,
        relu: bool,
        d: R32,
        high: R32,
        low: R32,
    },
    Float {
        op: FloatBinary,
        mode: Mode,
        rounding: Rounding,
        d: R32,
        a: R32,
        b: R32,
    },
    FloatUnary {
        op: FloatUnary,
        mode: Mode,
        d: R32,
        a: R32,
    },
    Fma {
        mode: Mode,
        rounding: Rounding,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    Double {
        op: FloatBinary,
        d: R64,
        a: R64,
        b: R64,
    },
    DoubleUnary {
        op: FloatUnary,
        d: R64,
        a: R64,
    },
    DoubleFma {
        d: R64,
        a: R64,
        b: R64,
        c: R64,
    },
    /// Two halves in one register; `single` uses the lower only.
    Halves {
        op: FloatBinary,
        kind: Type,
        single: bool,
        d: R32,
        a: R32,
        b: R32,
    },
    HalvesFma {
        kind: Type,
        single: bool,
        relu: bool,
        d: R32,
        a: R32,
        b: R32,
        c: R32,
    },
    HalvesUnary {
        op: FloatUnary,
        kind: Type,
        single: bool,
        d: R32,
        a: R32,
    },
    TestNumber {
        what: &'static str,
        wide: bool,
        d: Pred,
        a: u32,
    },
    Load(Access),
    Store(Access),
    Atomic {
        op: AtomicOp,
        kind: Type,
        space: Space,
        address: Address,
        d: Option<u32>,
        a: u32,
        b: u32,
        wide: bool,
        fences: bool,
    },
    ToSpace {
        from_generic: bool,
        space: Space,
        wide: bool,
        d: u32,
        a: u32,
    },
    IsSpace {
        space: Space,
        d: Pred,
        a: R64,
    },
    Shuffle {
        mode: Shuffle,
        d: R32,
        p: Option<Pred>,
        a: R32,
        b: R32,
        c: R32,
        members: R32,
    },
    Vote {
        mode: Vote,
        d: u32,
        a: Pred,
        negated: bool,
        members: R32,
    },
    Match {
        all: bool,
        wide: bool,
        d: R32,
        p: Option<Pred>,
        a: u32,
        members: R32,
    },
    ActiveMask {
        d: R32,
    },
    Reduce {
        op: AtomicOp,
        signed: bool,
        d: R32,
        a: R32,
        members: R32,
    },
    Elect {
        d: Option<R32>,
        p: Pred,
        members: R32,
    },
    Barrier {
        kind: BarrierKind,
        id: R32,
        count: Option<R32>,
        d: u32,
        a: Pred,
        negated: bool,
    },
    WarpBarrier {
        members: R32,
    },
    Fence,
    AsyncCopy {
        to: Address,
        from: Address,
        bytes: u8,
        given: Option<R32>,
    },
    AsyncCommit,
    AsyncWait {
        pending: u32,
    },
    LoadMatrix {
        count: u8,
        transposed: bool,
        d: [R32; 4],
        address: Address,
    },
    StoreMatrix {
        count: u8,
        transposed: bool,
        a: [R32; 4],
        address: Address,
    },
    /// D[16x8] = A[16xk] B[kx8] + C.
    Mma {
        kind: MmaType,
        k: u8,
        half_sums: bool,
        d: [R32; 4],
        a: [R32; 4],
        b: [R32; 2],
        c: [R32; 4],
    },
    Branch {
        target: u32,
    },
    BranchTable {
        targets: Vec<u32>,
        index: R32,
    },
    Exit,
    Trap,
    Nothing,
}

/// A decoded instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub op: Op,
    pub class: Class,
    /// The guard predicate; true where it is negated.
    pub guard: Option<(Pred, bool)>,
    /// Where the lanes that branch apart here meet again: an instruction number, `u32::MAX` for never.
    pub meet: u32,
    /// Line of the PTX.
    pub line: u32,
    /// File and line of the source.
    pub source: Option<(u32, u32)>,
}
