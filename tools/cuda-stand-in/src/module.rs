//! Modules of PTX, their kernels, and what a launch of one must satisfy.

use std::ffi::c_int;
use std::sync::Arc;

use ptx_sim::Program;

use crate::code::{Code, Result};
use crate::gpu::{Gpu, REGISTERS, SHARED_WITHOUT_ASKING, THREADS};
use crate::log;

/// The most registers a thread can have.
const MOST_REGISTERS: u32 = 255;

/// A loaded module.
#[derive(Debug)]
pub struct Module {
    pub program: Arc<Program>,
    /// Its PTX, for what the interpreter does not describe.
    text: String,
}

impl Module {
    /// Loads PTX for `gpu`.
    ///
    /// # Errors
    /// As the driver: for machine code, for PTX of a newer GPU, for PTX that does not parse.
    pub fn load(image: &[u8], gpu: &Gpu) -> Result<Self> {
        if image.starts_with(b"\x7fELF") {
            log::note("machine code (a cubin) was loaded: only PTX runs here, set RECORDS_GPU_CODE=ptx");
            return Err(Code::NO_BINARY_FOR_GPU);
        }
        let text = std::str::from_utf8(image).map_err(|_| Code::INVALID_IMAGE)?;
        let target = architecture(text).ok_or(Code::INVALID_PTX)?;
        // What has features of one architecture alone runs there alone.
        let fits = if target.1 { target.0 == gpu.architecture() } else { target.0 <= gpu.architecture() };
        if !fits {
            log::note(&format!("PTX for sm_{} was loaded on sm_{}", target.0, gpu.architecture()));
            return Err(Code::NO_BINARY_FOR_GPU);
        }
        let program = Program::parse(text).map_err(|error| {
            log::note(&format!("PTX does not parse: {error}"));
            Code::INVALID_PTX
        })?;
        Ok(Self { program: Arc::new(program), text: text.to_string() })
    }

    /// A kernel of it.
    ///
    /// # Errors
    /// Not found.
    pub fn function(&self, name: &str, module: usize, loaded: bool) -> Result<Function> {
        let described = self.program.describe(name).ok_or(Code::NOT_FOUND)?;
        Ok(Function {
            name: name.to_string(),
            module,
            program: self.program.clone(),
            parameters: described.parameters.iter().map(|p| (p.offset as usize, p.bytes as usize)).collect(),
            parameter_bytes: described.parameter_bytes as usize,
            shared: described.shared_bytes,
            local: described.local_bytes,
            most_threads: described.most_threads.map_or(THREADS.unsigned_abs(), |most| most as u32),
            registers: registers(described.most_threads, least_blocks(&self.text, name)),
            dynamic_allowed: None,
            carveout: -1,
            loaded,
        })
    }
}

/// The number of `.target sm_86`, and whether it has features of that architecture alone.
fn architecture(text: &str) -> Option<(u32, bool)> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(".target"))?;
    let word = line.split(',').next()?.trim().strip_prefix("sm_")?;
    let digits = word.trim_end_matches(|letter: char| letter.is_ascii_lowercase());
    Some((digits.parse().ok()?, word.ends_with('a')))
}

/// `.minnctapersm` of a kernel: the blocks of a multiprocessor that its launch bounds want.
fn least_blocks(text: &str, name: &str) -> Option<u32> {
    let entry = text.find(&format!(".entry {name}("))?;
    let head = &text[entry..entry + text[entry..].find('{')?];
    let number = head.split_once(".minnctapersm")?.1;
    number.split_whitespace().next()?.parse().ok()
}

/// PTX has virtual registers. This is the most that ptxas may take: launch bounds limit it, else the largest
/// block.
fn registers(most_threads: Option<u64>, least_blocks: Option<u32>) -> u32 {
    let threads = most_threads.map_or(THREADS.unsigned_abs(), |most| most as u32);
    let all = threads.max(1) * least_blocks.unwrap_or(1).max(1);
    (REGISTERS.unsigned_abs() / all / 8 * 8).clamp(8, MOST_REGISTERS)
}

/// A kernel.
#[derive(Clone, Debug)]
pub struct Function {
    pub name: String,
    /// The module's handle.
    pub module: usize,
    pub program: Arc<Program>,
    /// Offset and length of each parameter in the packed block.
    pub parameters: Vec<(usize, usize)>,
    pub parameter_bytes: usize,
    /// Static shared memory, bytes.
    shared: u32,
    /// Local memory of a thread, bytes.
    local: u32,
    most_threads: u32,
    registers: u32,
    /// What it was allowed of dynamic shared memory, bytes.
    dynamic_allowed: Option<u32>,
    carveout: c_int,
    /// Its code is on the GPU: not before something needs it, if loading is lazy.
    pub loaded: bool,
}

impl Function {
    /// What cuFuncGetAttribute answers; the numbers are those of CUfunction_attribute.
    ///
    /// # Errors
    /// Invalid value where the attribute is not known here.
    pub fn attribute(&self, number: c_int, gpu: &Gpu) -> Result<c_int> {
        let architecture = gpu.architecture() as c_int;
        Ok(match number {
            0 => self.most_threads as c_int,
            1 => self.shared as c_int,
            2 => 0, // constant memory
            3 => self.local as c_int,
            4 => self.registers as c_int,
            5 | 6 => architecture, // of the PTX, of the machine code
            7 => 0,
            8 => self.dynamic_most() as c_int,
            9 => self.carveout,
            _ => return Err(Code::INVALID_VALUE),
        })
    }

    /// Sets what can be set.
    ///
    /// # Errors
    /// Invalid value for more shared memory than a block can have, and for what cannot be set.
    pub fn set_attribute(&mut self, number: c_int, value: c_int, gpu: &Gpu) -> Result<()> {
        match number {
            8 => {
                let bytes = u32::try_from(value).map_err(|_| Code::INVALID_VALUE)?;
                if bytes.saturating_add(self.shared) > gpu.shared_of_block.unsigned_abs() {
                    return Err(Code::INVALID_VALUE);
                }
                self.dynamic_allowed = Some(bytes);
            }
            9 if (-1..=100).contains(&value) => self.carveout = value,
            _ => return Err(Code::INVALID_VALUE),
        }
        Ok(())
    }

    fn dynamic_most(&self) -> u32 {
        let unasked = SHARED_WITHOUT_ASKING.saturating_sub(self.shared);
        self.dynamic_allowed.unwrap_or(unasked)
    }

    /// Blocks that a multiprocessor holds.
    pub fn residency(&self, threads: u32, dynamic: u32, gpu: &Gpu) -> u32 {
        gpu.residency(threads, self.registers, self.shared + dynamic)
    }

    /// What the driver refuses when a launch is made, before anything runs.
    ///
    /// # Errors
    /// The driver's code.
    pub fn check(&self, shape: &Shape, gpu: &Gpu) -> Result<()> {
        let Shape { grid, block, dynamic, cooperative } = *shape;
        let threads = block.iter().try_fold(1u32, |all, size| all.checked_mul(*size));
        let threads = threads.filter(|&threads| threads > 0 && threads <= THREADS.unsigned_abs());
        let threads = threads.ok_or(Code::INVALID_VALUE)?;
        if block[2] > 64 || grid.contains(&0) || grid[0] > i32::MAX as u32 {
            return Err(Code::INVALID_VALUE);
        }
        if grid[1] > 65535 || grid[2] > 65535 || dynamic > self.dynamic_most() {
            return Err(Code::INVALID_VALUE);
        }
        if threads > self.most_threads {
            return Err(Code::LAUNCH_OUT_OF_RESOURCES);
        }
        let blocks: u64 = grid.iter().map(|size| u64::from(*size)).product();
        let resident = self.residency(threads, dynamic, gpu) * gpu.multiprocessors.unsigned_abs();
        if cooperative && blocks > u64::from(resident) {
            return Err(Code::COOPERATIVE_LAUNCH_TOO_LARGE);
        }
        Ok(())
    }
}

/// How a launch is cut.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    /// Dynamic shared memory, bytes.
    pub dynamic: u32,
    pub cooperative: bool,
}
