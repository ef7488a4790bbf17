//! What a launch cost, counted exactly.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

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

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a launch cost. Every number is exact and, for a kernel without races and spinning, the same whatever the
        /// number of threads and the order of warps.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct Counters { $($(#[$doc])* pub $name: u64),+ }

        impl AddAssign<&Counters> for Counters {
            fn add_assign(&mut self, other: &Counters) {
                $(self.$name += other.$name;)+
            }
        }

        impl Counters {
            /// Every number with its name, in order.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }
        }
    };
}

counters! {
    /// Launches added up.
    launches,
    /// Blocks.
    blocks,
    /// Instructions issued by warps, all classes together; one whose guard is false for every lane counts too.
    warp_instructions,
    /// The same times the lanes that took part.
    thread_instructions,
    /// Warp instructions on integers.
    integer,
    /// Warp instructions on f32, f16 and bf16.
    float,
    /// Warp instructions on f64.
    double,
    /// Exponentials, logarithms, sines, roots and reciprocals.
    special_function,
    /// `cvt`.
    conversion,
    /// Moves, selections, bit logic and predicates.
    move_logic,
    /// Branches and exits.
    control,
    /// Loads from global memory, also by a generic address that turned out to be global.
    load_global,
    /// Stores to global memory.
    store_global,
    /// Loads from shared memory.
    load_shared,
    /// Stores to shared memory.
    store_shared,
    /// Loads and stores of local memory (spills and indexed arrays).
    local,
    /// Loads of parameters and constants.
    constant,
    /// Atomics and reductions.
    atomic,
    /// Barriers and fences.
    barrier,
    /// Shuffles, votes, matches and warp reductions.
    shuffle,
    /// Matrix products.
    mma,
    /// `ldmatrix` and `stmatrix`.
    matrix_move,
    /// Asynchronous copies, their commits and waits.
    copy_async,
    /// Clocks and what is in no other class.
    other,
    /// Floating-point operations of the matrix products, two a multiplication.
    mma_flops,
    /// Floating-point operations of f32 arithmetic, by lane; a fused multiplication counts two.
    f32_flops,
    /// Sectors of 32 bytes that loads asked for, instruction by instruction.
    sectors_loaded,
    /// The fewest those instructions could have asked for: distinct bytes over 32, rounded up.
    sectors_loaded_least,
    /// Sectors that stores and atomics asked for.
    sectors_stored,
    /// The fewest those could have asked for.
    sectors_stored_least,
    /// Distinct sectors read in the whole launch: with a cache that forgets nothing, what DRAM must deliver.
    sectors_read_once,
    /// Distinct sectors written in the whole launch.
    sectors_written_once,
    /// Passes through shared memory.
    shared_wavefronts,
    /// Passes beyond one for each group of lanes: bank conflicts.
    bank_conflicts,
    /// CTA barriers completed.
    barriers_completed,
    /// Bytes of local memory loaded or stored, by lane.
    local_bytes,
    /// Bytes that atomics read and wrote, by lane.
    atomic_lanes,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        *self += &other;
    }
}

impl Counters {
    pub(crate) fn class_mut(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Integer => &mut self.integer,
            Class::Float => &mut self.float,
            Class::Double => &mut self.double,
            Class::SpecialFunction => &mut self.special_function,
            Class::Conversion => &mut self.conversion,
            Class::MoveLogic => &mut self.move_logic,
            Class::Control => &mut self.control,
            Class::LoadGlobal => &mut self.load_global,
            Class::StoreGlobal => &mut self.store_global,
            Class::LoadShared => &mut self.load_shared,
            Class::StoreShared => &mut self.store_shared,
            Class::Local => &mut self.local,
            Class::Constant => &mut self.constant,
            Class::Atomic => &mut self.atomic,
            Class::Barrier => &mut self.barrier,
            Class::Shuffle => &mut self.shuffle,
            Class::Mma => &mut self.mma,
            Class::MatrixMove => &mut self.matrix_move,
            Class::CopyAsync => &mut self.copy_async,
            Class::Other => &mut self.other,
        }
    }
}
