//! Kernels on the GPU: compiled, loaded, and allowed what their launches need.
//!
//! Every kernel is asked for its attributes when it is loaded. A driver that loads kernels when they are
//! first needed has to load it for that, so that none is loaded while a stream is captured, which some
//! drivers refuse.

use std::collections::HashMap;
use std::ffi::{CString, c_int};

use anyhow::{Result, anyhow, bail};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUfunction_attribute_enum as Attribute};

use super::explain;
use crate::device::gpu::cache::KernelCache;
use crate::device::gpu::launch::{Kernel, Launch};
use crate::device::gpu::nvrtc::Target;
use crate::device::gpu::sources::Source;

/// Shared memory that a block may have without asking, static and dynamic together, bytes.
const SHARED_WITHOUT_ASKING: u32 = 48 << 10;

/// A kernel whose blocks take as many bytes has its multiprocessors give all they can to shared memory
/// instead of the L1 cache: left to itself, a driver may choose so that only one block fits.
const MUCH_SHARED: u32 = 32 << 10;

/// Dynamic shared memory that a kernel with so much static may have without asking, bytes.
pub fn dynamic_without_asking(static_bytes: u32) -> u32 {
    SHARED_WITHOUT_ASKING.saturating_sub(static_bytes)
}

/// The loaded modules and kernels.
pub struct Functions {
    cache: KernelCache,
    /// What kernels are compiled for.
    target: Target,
    multiprocessors: usize,
    modules: HashMap<&'static Source, sys::CUmodule>,
    functions: HashMap<Kernel, Function>,
}

/// A loaded kernel.
#[derive(Clone, Copy)]
struct Function {
    handle: sys::CUfunction,
    static_bytes: u32,
    /// Largest dynamic shared memory it was allowed so far.
    dynamic_bytes: u32,
    /// It was given all shared memory that there is.
    carved_out: bool,
}

impl Functions {
    /// None yet, of a GPU with so many multiprocessors.
    pub fn new(cache: KernelCache, target: Target, multiprocessors: usize) -> Self {
        Self { cache, target, multiprocessors, modules: HashMap::new(), functions: HashMap::new() }
    }

    /// The kernel of a launch, loaded and allowed what that needs.
    ///
    /// # Errors
    /// Its code cannot be compiled or loaded; the GPU does not hold the launch.
    pub fn get(&mut self, launch: &Launch) -> Result<sys::CUfunction> {
        let kernel = launch.kernel;
        let mut function = match self.functions.get(&kernel) {
            Some(&function) => function,
            None => self.load(kernel)?,
        };
        if launch.shared_bytes > function.dynamic_bytes {
            set(
                function.handle,
                Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                launch.shared_bytes as c_int,
                &format!("{} bytes of shared memory for {}", launch.shared_bytes, kernel.name),
            )?;
            function.dynamic_bytes = launch.shared_bytes;
        }
        if !function.carved_out && function.static_bytes + launch.shared_bytes >= MUCH_SHARED {
            let most = sys::CUshared_carveout_enum::CU_SHAREDMEM_CARVEOUT_MAX_SHARED as c_int;
            let what = format!("shared memory instead of cache for {}", kernel.name);
            set(function.handle, Attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, most, &what)?;
            function.carved_out = true;
        }
        self.functions.insert(kernel, function);
        Ok(function.handle)
    }

    /// Blocks of a launch that a multiprocessor holds at once.
    ///
    /// # Errors
    /// As [`Functions::get`].
    pub fn residency(&mut self, launch: &Launch) -> Result<u32> {
        let function = self.get(launch)?;
        let threads = launch.block.iter().product::<u32>() as c_int;
        // SAFETY: a loaded function.
        let blocks = unsafe {
            result::occupancy::max_active_block_per_multiprocessor(
                function,
                threads,
                launch.shared_bytes as usize,
            )
        };
        let what = || format!("asking how many blocks of {} fit", launch.kernel.name);
        Ok(blocks.map_err(|error| explain(&what(), error))?.unsigned_abs())
    }

    /// Loads what a launch needs, and sees to it that the GPU holds all blocks of a cooperative one at once.
    ///
    /// # Errors
    /// As [`Functions::get`]; the GPU does not hold them.
    pub fn prepare(&mut self, launch: &Launch) -> Result<()> {
        if launch.exchange.is_some() {
            return Ok(());
        }
        if !launch.cooperative {
            return self.get(launch).map(|_| ());
        }
        let blocks: u64 = launch.grid.iter().map(|&size| u64::from(size)).product();
        let held = u64::from(self.residency(launch)?) * self.multiprocessors as u64;
        if blocks > held {
            bail!(
                "the kernel {} needs {blocks} blocks at once and the GPU holds {held} of them; {}",
                launch.kernel.name,
                "does MPS or a partition limit this program?"
            );
        }
        Ok(())
    }

    /// Unloads everything, once all work has ended and while the context is there.
    pub fn unload(&mut self) {
        self.functions.clear();
        for (_, module) in self.modules.drain() {
            // SAFETY: loaded by this object and used by nobody after it. An error here has nobody to go to.
            let _ = unsafe { result::module::unload(module) };
        }
    }

    fn load(&mut self, kernel: Kernel) -> Result<Function> {
        let module = self.module(kernel.source)?;
        let name = CString::new(kernel.name).map_err(|_| anyhow!("a kernel's name has no zero byte"))?;
        // SAFETY: the module is loaded and stays so while its functions are used.
        let handle = unsafe { result::module::get_function(module, name) }
            .map_err(|error| explain(&format!("finding {} in {}", kernel.name, kernel.source.name), error))?;
        let attribute = Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the module's function.
        let static_bytes = unsafe { result::function::get_function_attribute(handle, attribute) }
            .map_err(|error| explain(&format!("asking for the shared memory of {}", kernel.name), error))?
            .unsigned_abs();
        let dynamic_bytes = dynamic_without_asking(static_bytes);
        Ok(Function { handle, static_bytes, dynamic_bytes, carved_out: false })
    }

    fn module(&mut self, source: &'static Source) -> Result<sys::CUmodule> {
        if let Some(&module) = self.modules.get(source) {
            return Ok(module);
        }
        let file = source.name;
        let mut compiled = self.cache.compiled(source, self.target)?;
        let what = format!("loading {file} for {}{}", self.target.word(), compiled.origin());
        // PTX is text, which the driver takes with a zero byte at its end.
        compiled.code.push(0);
        // SAFETY: code as the compiler wrote it; the driver copies it.
        let module = unsafe { result::module::load_data(compiled.code.as_ptr().cast()) }
            .map_err(|error| explain(&what, error))?;
        self.modules.insert(source, module);
        Ok(module)
    }
}

fn set(function: sys::CUfunction, attribute: Attribute, value: c_int, what: &str) -> Result<()> {
    // SAFETY: a loaded function.
    unsafe { result::function::set_function_attribute(function, attribute, value) }
        .map_err(|error| explain(what, error))
}
