//! Value types, registers, addresses and state spaces, and how accesses order each other.

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
    /// Two numbers of eight bits.
    E4m3x2,
    E5m2x2,
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
            "e4m3x2" => Self::E4m3x2,
            "e5m2x2" => Self::E5m2x2,
            "pred" => Self::Pred,
            _ => return None,
        })
    }

    /// Of one value.
    pub fn bytes(self) -> u32 {
        match self {
            Self::U8 | Self::S8 | Self::B8 | Self::Pred => 1,
            Self::U16 | Self::S16 | Self::B16 | Self::F16 | Self::Bf16 | Self::E4m3x2 | Self::E5m2x2 => 2,
            Self::U64 | Self::S64 | Self::B64 | Self::F64 => 8,
            _ => 4,
        }
    }

    /// Whether its bits are a floating-point number, or two.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::F16
                | Self::Bf16
                | Self::F16x2
                | Self::Bf16x2
                | Self::Tf32
                | Self::F32
                | Self::F64
                | Self::E4m3x2
                | Self::E5m2x2
        )
    }

    /// Whether it is a signed integer.
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
pub enum RegisterFile {
    /// 8 to 32 bits.
    W,
    /// 64 bits.
    D,
    Predicate,
}

impl RegisterFile {
    /// Of its widest registers.
    pub fn bits(self) -> u8 {
        match self {
            Self::W => 32,
            Self::D => 64,
            Self::Predicate => 1,
        }
    }
}

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg {
    pub file: RegisterFile,
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
    /// Halves of the address of what cooperative groups keep for a grid; 0 in a launch that is not
    /// cooperative.
    WorkspaceHigh,
    WorkspaceLow,
    /// What no launch sets.
    Zero,
    /// The cluster of one block that every block is without clusters: sizes and counts.
    One,
}

impl Special {
    /// Whether the lanes of a warp have different values.
    pub fn differs_by_lane(self) -> bool {
        use Special::{Lane, MaskEq, MaskGe, MaskGt, MaskLe, MaskLt, Tid};
        matches!(self, Tid(_) | Lane | MaskEq | MaskLe | MaskLt | MaskGe | MaskGt)
    }
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

/// Directions of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To nearest, ties to even.
    Nearest,
    /// To nearest, ties away from zero.
    Away,
    Zero,
    Down,
    Up,
}

/// Which operation a rounding mode applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    Add,
    Sub,
    Mul,
    Fma,
    Div,
    Rcp,
    Sqrt,
}
