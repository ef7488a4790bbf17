//! What kinds of instructions are counted apart.

/// Classes of instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Integer,
    Float,
    Double,
    SpecialFunction,
    Conversion,
    MoveLogic,
    Control,
    LoadGlobal,
    StoreGlobal,
    LoadShared,
    StoreShared,
    Local,
    Constant,
    Atomic,
    Barrier,
    Shuffle,
    Mma,
    MatrixMove,
    CopyAsync,
    Other,
}
