//! What the modelled GPUs answer when they are asked what they are.

use std::ffi::c_int;
use std::sync::OnceLock;

use crate::code::{Code, Result};
use crate::log;

/// A GPU as the driver describes it.
#[derive(Clone, Copy, Debug)]
pub struct Gpu {
    pub name: &'static str,
    /// What `ptx-sim` calls it, for its times.
    pub timed_as: &'static str,
    pub capability: [c_int; 2],
    pub multiprocessors: c_int,
    pub memory: usize,
    pub threads_of_multiprocessor: c_int,
    pub blocks_of_multiprocessor: c_int,
    /// Shared memory of a multiprocessor, bytes.
    pub shared: c_int,
    /// The most that a block may have after asking for it, bytes.
    pub shared_of_block: c_int,
    pub l2: c_int,
    pub clock_khz: c_int,
    pub memory_clock_khz: c_int,
    pub memory_bus: c_int,
}

/// What a block may have without asking, bytes, static and dynamic together.
pub const SHARED_WITHOUT_ASKING: u32 = 48 << 10;
/// What the system takes of the shared memory for every block, bytes.
pub const SHARED_RESERVED: c_int = 1024;
/// 32-bit registers of a multiprocessor, and of a block.
pub const REGISTERS: c_int = 65536;
/// The most threads of a block.
pub const THREADS: c_int = 1024;

const RTX3090: Gpu = Gpu {
    name: "Stand-in GPU (RTX 3090)",
    timed_as: "rtx3090",
    capability: [8, 6],
    multiprocessors: 82,
    memory: 24 << 30,
    threads_of_multiprocessor: 1536,
    blocks_of_multiprocessor: 16,
    shared: 100 << 10,
    shared_of_block: 99 << 10,
    l2: 6 << 20,
    clock_khz: 1_695_000,
    memory_clock_khz: 9_751_000,
    memory_bus: 384,
};

const H100: Gpu = Gpu {
    name: "Stand-in GPU (H100)",
    timed_as: "h100",
    capability: [9, 0],
    multiprocessors: 132,
    memory: 80 << 30,
    threads_of_multiprocessor: 2048,
    blocks_of_multiprocessor: 32,
    shared: 228 << 10,
    shared_of_block: 227 << 10,
    l2: 50 << 20,
    clock_khz: 1_980_000,
    memory_clock_khz: 2_619_000,
    memory_bus: 5120,
};

/// Of an architecture that no compiler knows.
const FUTURE: Gpu = Gpu { name: "Stand-in GPU (of the future)", capability: [99, 0], ..H100 };

impl Gpu {
    /// The one that STAND_IN_GPU names: rtx3090 (default), h100 or future; with as many MiB of memory as
    /// STAND_IN_MEMORY says, if it is set.
    pub fn chosen() -> Option<&'static Self> {
        static CHOSEN: OnceLock<Option<Gpu>> = OnceLock::new();
        let choose = || {
            let mut gpu = match std::env::var("STAND_IN_GPU").as_deref().unwrap_or("rtx3090") {
                "rtx3090" => RTX3090,
                "h100" => H100,
                "future" => FUTURE,
                _ => return None,
            };
            if let Ok(mebibytes) = std::env::var("STAND_IN_MEMORY") {
                gpu.memory = mebibytes.parse::<usize>().ok()?.checked_mul(1 << 20)?;
            }
            Some(gpu)
        };
        CHOSEN.get_or_init(choose).as_ref()
    }

    /// Its compute capability as one number, 86 for 8.6.
    pub fn architecture(&self) -> u32 {
        self.capability.iter().fold(0, |all, part| 10 * all + part.unsigned_abs())
    }

    /// What cuDeviceGetAttribute answers; the numbers are those of CUdevice_attribute.
    ///
    /// # Errors
    /// Invalid value where the attribute is not known here.
    pub fn attribute(&self, number: c_int) -> Result<c_int> {
        Ok(match number {
            1 | 2 => THREADS,                    // threads of a block; its x
            3 => THREADS,                        // its y
            4 => 64,                             // its z
            5 => c_int::MAX,                     // the grid's x
            6 | 7 => 65535,                      // its y and z
            8 => SHARED_WITHOUT_ASKING as c_int, // shared memory of a block
            9 => 64 << 10,                       // constant memory
            10 => 32,                            // lanes of a warp
            12 | 82 => REGISTERS,                // registers of a block, of a multiprocessor
            13 => self.clock_khz,
            16 => self.multiprocessors,
            31 | 95 | 99 => 1, // concurrent kernels, cooperative launches, host registration
            36 => self.memory_clock_khz,
            37 => self.memory_bus,
            38 => self.l2,
            39 => self.threads_of_multiprocessor,
            40 => 2, // copy engines
            41 => 1, // unified addresses
            75 => self.capability[0],
            76 => self.capability[1],
            81 => self.shared,
            97 => self.shared_of_block,
            106 => self.blocks_of_multiprocessor,
            111 => SHARED_RESERVED,
            115 => 1, // memory pools
            _ => return Err(Code::INVALID_VALUE),
        })
    }

    /// Blocks of `threads` threads that a multiprocessor holds, each with so many registers a thread and
    /// bytes of shared memory.
    pub fn residency(&self, threads: u32, registers: u32, shared: u32) -> u32 {
        let warps = threads.div_ceil(32).max(1);
        // Registers are given to warps, 256 at a time; a quarter of the file and of the warps to each
        // sub-core.
        let of_warp = (registers.max(1) * 32).next_multiple_of(256);
        let by_registers = (REGISTERS.unsigned_abs() / 4 / of_warp) * 4 / warps;
        let by_warps = self.threads_of_multiprocessor.unsigned_abs() / 32 / warps;
        let taken = (shared + SHARED_RESERVED.unsigned_abs()).next_multiple_of(128);
        let by_shared = self.shared.unsigned_abs() / taken;
        let most = self.blocks_of_multiprocessor.unsigned_abs();
        // What a partition of the GPU, or another program on it, leaves.
        let left = log::number("STAND_IN_RESIDENT").map_or(most, |most| most as u32);
        by_registers.min(by_warps).min(by_shared).min(most).min(left)
    }
}
