//! Instructions on matrices that are spread over a warp's registers.

use super::types::{Address, Reg, Space};

/// `ldmatrix` or `stmatrix`.
#[derive(Clone, Debug)]
pub struct MatrixMove {
    pub transposed: bool,
    pub space: Space,
    pub address: Address,
    pub registers: Vec<Reg>,
}

/// Types of the inputs of [`MatrixMultiply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatrixType {
    F16,
    Bf16,
    Tf32,
}

/// `mma` of the shapes that most kernels use.
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
    /// The element type of a modifier without its dot.
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

/// How a product adds up.
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
