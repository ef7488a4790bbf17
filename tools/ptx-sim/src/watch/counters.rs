//! What a launch cost, counted exactly.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::isa::Class;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// What a launch cost. Every number is exact and, for a kernel without races and spinning, the same
        /// whatever the number of threads and the order of warps.
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
    /// Threads of all blocks.
    threads,
    /// Instructions times the lanes that took part.
    thread_instructions,
    /// Warp instructions on integers.
    integer,
    /// Warp instructions on f32, f16 and bf16.
    float,
    /// Warp instructions on f64.
    double,
    /// Exponentials, logarithms, sines, roots and reciprocals.
    special,
    /// `cvt`.
    conversion,
    /// Moves, selections, bit logic and predicates.
    moves,
    /// Branches and exits.
    control,
    /// Loads from global memory, also by a generic address that turned out to be global.
    global_loads,
    /// Stores to global memory.
    global_stores,
    /// Loads from shared memory.
    shared_loads,
    /// Stores to shared memory.
    shared_stores,
    /// Loads and stores of local memory (spills and indexed arrays).
    local,
    /// Loads of parameters and constants.
    parameter,
    /// Atomics and reductions.
    atomics,
    /// Barriers and fences.
    barriers,
    /// Shuffles, votes, matches and warp reductions.
    exchanges,
    /// Matrix products.
    mma,
    /// `ldmatrix` and `stmatrix`.
    ldmatrix,
    /// Asynchronous copies, their commits and waits.
    async_copies,
    /// Clocks and what is in no other class.
    other,
    /// Floating-point operations of the matrix products, two a multiplication.
    mma_flops,
    /// Floating-point operations of f32 arithmetic, by lane; a fused multiplication counts two.
    f32_flops,
    /// Sectors of 32 bytes that loads asked for, instruction by instruction.
    load_sectors,
    /// The fewest those instructions could have asked for: distinct bytes over 32, rounded up.
    load_sectors_least,
    /// Sectors that stores and atomics asked for.
    store_sectors,
    /// The fewest those could have asked for.
    store_sectors_least,
    /// Distinct sectors read in the whole launch: with a cache that forgets nothing, what DRAM must deliver.
    unique_load_sectors,
    /// Distinct sectors written in the whole launch.
    unique_store_sectors,
    /// Passes through shared memory.
    shared_wavefronts,
    /// Passes beyond one for each group of lanes: bank conflicts.
    bank_conflicts,
    /// CTA barriers completed.
    barriers_completed,
    /// Bytes of local memory loaded or stored, by lane.
    local_bytes,
    /// Lanes of atomic operations.
    atomic_lanes,
}

impl AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        *self += &other;
    }
}

impl Counters {
    /// Instructions issued by warps, all classes together. One whose guard is false for every lane counts
    /// too.
    pub fn instructions(&self) -> u64 {
        self.integer
            + self.float
            + self.double
            + self.special
            + self.conversion
            + self.moves
            + self.control
            + self.global_loads
            + self.global_stores
            + self.shared_loads
            + self.shared_stores
            + self.local
            + self.parameter
            + self.atomics
            + self.barriers
            + self.exchanges
            + self.mma
            + self.ldmatrix
            + self.async_copies
            + self.other
    }

    pub(crate) fn class_mut(&mut self, class: Class) -> &mut u64 {
        match class {
            Class::Integer => &mut self.integer,
            Class::Float => &mut self.float,
            Class::Double => &mut self.double,
            Class::SpecialFunction => &mut self.special,
            Class::Conversion => &mut self.conversion,
            Class::MoveLogic => &mut self.moves,
            Class::Control => &mut self.control,
            Class::LoadGlobal => &mut self.global_loads,
            Class::StoreGlobal => &mut self.global_stores,
            Class::LoadShared => &mut self.shared_loads,
            Class::StoreShared => &mut self.shared_stores,
            Class::Local => &mut self.local,
            Class::Constant => &mut self.parameter,
            Class::Atomic => &mut self.atomics,
            Class::Barrier => &mut self.barriers,
            Class::Shuffle => &mut self.exchanges,
            Class::Mma => &mut self.mma,
            Class::MatrixMove => &mut self.ldmatrix,
            Class::CopyAsync => &mut self.async_copies,
            Class::Other => &mut self.other,
        }
    }
}
