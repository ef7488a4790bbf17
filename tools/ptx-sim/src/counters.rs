//! What a launch costs, counted. The numbers depend on the kernel, its input and its launch alone.

use serde::{Deserialize, Serialize};

use crate::op::{CLASSES, Class};

/// Counts of one launch or of several together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Warp instructions by kind.
    pub integer: u64,
    pub float: u64,
    pub double: u64,
    pub special: u64,
    pub conversion: u64,
    pub moves: u64,
    pub control: u64,
    pub global_loads: u64,
    pub global_stores: u64,
    pub shared_loads: u64,
    pub shared_stores: u64,
    pub local: u64,
    pub parameter: u64,
    pub atomics: u64,
    pub barriers: u64,
    pub exchanges: u64,
    pub mma: u64,
    pub ldmatrix: u64,
    pub async_copies: u64,
    /// Instructions times active lanes.
    pub thread_instructions: u64,
    /// Multiplications and additions of the tensor cores.
    pub mma_flops: u64,
    /// 32-byte sectors that warp instructions ask for, and the least that could hold the bytes they touch.
    pub load_sectors: u64,
    pub load_sectors_least: u64,
    pub store_sectors: u64,
    pub store_sectors_least: u64,
    /// Different sectors over the whole launch: the traffic with a perfect cache.
    pub unique_load_sectors: u64,
    pub unique_store_sectors: u64,
    /// Passes through shared memory, and how many of them conflicts of banks cost.
    pub shared_wavefronts: u64,
    pub bank_conflicts: u64,
    /// Bytes that local memory moved.
    pub local_bytes: u64,
    pub blocks: u64,
    pub threads: u64,
}

impl Counters {
    pub(crate) fn add_classes(&mut self, classes: &[u64; CLASSES]) {
        let of = |class: Class| classes[class as usize];
        self.integer += of(Class::Integer);
        self.float += of(Class::Float);
        self.double += of(Class::Double);
        self.special += of(Class::Special);
        self.conversion += of(Class::Conversion);
        self.moves += of(Class::Move);
        self.control += of(Class::Control);
        self.global_loads += of(Class::GlobalLoad);
        self.global_stores += of(Class::GlobalStore);
        self.shared_loads += of(Class::SharedLoad);
        self.shared_stores += of(Class::SharedStore);
        self.local += of(Class::Local);
        self.parameter += of(Class::Parameter);
        self.atomics += of(Class::Atomic);
        self.barriers += of(Class::Barrier);
        self.exchanges += of(Class::Exchange);
        self.mma += of(Class::Mma);
        self.ldmatrix += of(Class::Ldmatrix);
        self.async_copies += of(Class::AsyncCopy);
    }

    /// All warp instructions.
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
    }
}

impl std::ops::AddAssign<&Counters> for Counters {
    fn add_assign(&mut self, other: &Counters) {
        macro_rules! add {
            ($($field:ident)*) => { $(self.$field += other.$field;)* };
        }
        add! {
            integer float double special conversion moves control global_loads global_stores shared_loads shared_stores
            local parameter atomics barriers exchanges mma ldmatrix async_copies thread_instructions mma_flops
            load_sectors load_sectors_least store_sectors store_sectors_least unique_load_sectors unique_store_sectors
            shared_wavefronts bank_conflicts local_bytes blocks threads
        }
    }
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Counters) {
        *self += &other;
    }
}
