//! Compiling CUDA C++ at run time with NVRTC, through its C functions.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use libloading::Library;

use super::nvrtc_search::{self, FoundNvrtc};
use super::probe::INSTALL_NVRTC;

/// What to compile for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// PTX for a virtual architecture, `80` for compute_80: what the interpreter runs, and what a driver
    /// translates for its GPU.
    Ptx(u32),
    /// Machine code for exactly this GPU, `86` for sm_86, so that no driver has to translate PTX newer than
    /// itself. 90 takes the architecture's own features too: sm_90a.
    Cubin(u32),
}

impl Target {
    /// NVRTC's word for it.
    pub fn word(self) -> String {
        match self {
            Target::Ptx(number) => format!("compute_{number}"),
            Target::Cubin(90) => "sm_90a".into(),
            Target::Cubin(number) => format!("sm_{number}"),
        }
    }
}

/// The result of compiling one file.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// PTX as text without a final zero, or a cubin.
    pub code: Vec<u8>,
    /// Warnings and, of a cubin, the assembler's report of registers, spills and shared memory.
    pub log: String,
    /// The cache file that it was read from; none where it was compiled just now.
    pub kept_in: Option<PathBuf>,
}

impl Compiled {
    /// For messages about the code: where it came from, if from a file, and what to do with that.
    pub fn origin(&self) -> String {
        let file = self.kept_in.as_ref();
        file.map_or_else(String::new, |file| {
            format!(" (kept in {}; remove it if this stays)", file.display())
        })
    }
}

type Program = *mut c_void;

/// NVRTC, opened.
pub struct Nvrtc {
    library: Library,
    /// Where it was found and its version.
    pub found: FoundNvrtc,
}

/// Options of every compilation.
const OPTIONS: [&str; 3] = ["--std=c++17", "-default-device", "-lineinfo"];

impl Nvrtc {
    /// Opens the NVRTC that [`nvrtc_search::find`] finds.
    ///
    /// # Errors
    /// A usage error that says what to install.
    pub fn open() -> Result<Self> {
        let found = nvrtc_search::find().map_err(|reason| {
            crate::usage!("NVRTC, which compiles the kernels: {reason}; {INSTALL_NVRTC}")
        })?;
        if found.has_builtins == Some(false) {
            let path = found.path.display();
            return Err(crate::usage!(
                "NVRTC {path}: libnvrtc-builtins.so is not beside it; {INSTALL_NVRTC}"
            ));
        }
        let library = open_library(&found.path)?;
        Ok(Self { library, found })
    }

    /// The virtual architectures that it compiles for, ascending: 86 for compute_86.
    ///
    /// # Errors
    /// A failed call of the library.
    pub fn architectures(&self) -> Result<Vec<u32>> {
        type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
        type List = unsafe extern "C" fn(*mut c_int) -> c_int;
        let mut count = 0;
        // SAFETY: documented signatures; the list has the length that the library asked for.
        let numbers = unsafe {
            let code = self.function::<Count>(c"nvrtcGetNumSupportedArchs")?(&mut count);
            self.check("nvrtcGetNumSupportedArchs", code)?;
            let mut numbers = vec![0; usize::try_from(count).unwrap_or(0)];
            let code = self.function::<List>(c"nvrtcGetSupportedArchs")?(numbers.as_mut_ptr());
            self.check("nvrtcGetSupportedArchs", code)?;
            numbers
        };
        Ok(numbers.into_iter().map(c_int::unsigned_abs).collect())
    }

    /// The options of a target, in order: part of a cached cubin's key.
    pub fn options(target: Target) -> Vec<String> {
        let mut options: Vec<String> = OPTIONS.iter().map(ToString::to_string).collect();
        options.push(format!("--gpu-architecture={}", target.word()));
        if matches!(target, Target::Cubin(_)) {
            options.push("--ptxas-options=-v".into());
        }
        options
    }

    /// Compiles `source`; `headers` are (name, text) of what it includes.
    ///
    /// # Errors
    /// The compiler's messages; a failed call of the library.
    pub fn compile(
        &self,
        name: &str,
        source: &str,
        headers: &[(&str, &str)],
        target: Target,
    ) -> Result<Compiled> {
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        type Destroy = unsafe extern "C" fn(*mut Program) -> c_int;

        let text = |text: &str| CString::new(text).map_err(|_| anyhow!("{name}: a zero byte in the source"));
        let (source, file) = (text(source)?, text(name)?);
        let header_texts = headers.iter().map(|(_, t)| text(t)).collect::<Result<Vec<_>>>()?;
        let header_names = headers.iter().map(|(n, _)| text(n)).collect::<Result<Vec<_>>>()?;
        let options = Self::options(target).iter().map(|option| text(option)).collect::<Result<Vec<_>>>()?;
        let pointers =
            |strings: &[CString]| strings.iter().map(|s| s.as_ptr()).collect::<Vec<*const c_char>>();
        let (header_texts_p, header_names_p, options_p) =
            (pointers(&header_texts), pointers(&header_names), pointers(&options));

        let mut program: Program = std::ptr::null_mut();
        // SAFETY: documented signatures; every pointer is to live, zero-terminated memory until the call
        // returns, and the program is destroyed exactly once, after its last use.
        unsafe {
            let create = self.function::<Create>(c"nvrtcCreateProgram")?;
            let code = create(
                &mut program,
                source.as_ptr(),
                file.as_ptr(),
                headers.len() as c_int,
                header_texts_p.as_ptr(),
                header_names_p.as_ptr(),
            );
            self.check("nvrtcCreateProgram", code)?;
            let compile = self.function::<Compile>(c"nvrtcCompileProgram")?;
            let code = compile(program, options_p.len() as c_int, options_p.as_ptr());
            let result = self.collect(program, code, name, target);
            self.function::<Destroy>(c"nvrtcDestroyProgram")?(&mut program);
            result
        }
    }

    /// # Safety
    /// `program` must be a live program on which compilation was tried.
    unsafe fn collect(&self, program: Program, code: c_int, name: &str, target: Target) -> Result<Compiled> {
        // SAFETY: the caller's promise.
        let (log, code_bytes) = unsafe {
            let log = self.bytes(program, c"nvrtcGetProgramLogSize", c"nvrtcGetProgramLog")?;
            let log = String::from_utf8_lossy(&log).trim_end_matches('\0').trim().to_string();
            if code != 0 {
                bail!("{name} does not compile for {}: {log}", target.word());
            }
            let bytes = match target {
                Target::Ptx(_) => self.bytes(program, c"nvrtcGetPTXSize", c"nvrtcGetPTX")?,
                Target::Cubin(_) => self.bytes(program, c"nvrtcGetCUBINSize", c"nvrtcGetCUBIN")?,
            };
            (log, bytes)
        };
        let mut code = code_bytes;
        if matches!(target, Target::Ptx(_)) && code.last() == Some(&0) {
            code.pop();
        }
        Ok(Compiled { code, log, kept_in: None })
    }

    /// # Safety
    /// `program` must be live; the names must be those of NVRTC's size and content functions.
    unsafe fn bytes(&self, program: Program, size: &CStr, content: &CStr) -> Result<Vec<u8>> {
        type Size = unsafe extern "C" fn(Program, *mut usize) -> c_int;
        type Content = unsafe extern "C" fn(Program, *mut c_char) -> c_int;
        let mut len = 0;
        // SAFETY: documented signatures; the buffer has the length that the library asked for.
        unsafe {
            self.check("nvrtcGet*Size", self.function::<Size>(size)?(program, &mut len))?;
            let mut bytes = vec![0u8; len];
            let code = self.function::<Content>(content)?(program, bytes.as_mut_ptr().cast());
            self.check("nvrtcGet*", code)?;
            Ok(bytes)
        }
    }

    /// # Safety
    /// `F` must be the function's signature.
    unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F> {
        // SAFETY: the caller's promise.
        let symbol = unsafe { self.library.get::<F>(name.to_bytes_with_nul()) };
        symbol.map(|symbol| *symbol).with_context(|| format!("NVRTC has no {}", name.to_string_lossy()))
    }

    fn check(&self, call: &str, code: c_int) -> Result<()> {
        if code == 0 { Ok(()) } else { bail!("{call} of {} failed: error {code}", self.found.path.display()) }
    }
}

fn open_library(path: &Path) -> Result<Library> {
    // SAFETY: opening a library runs its initialisers; the search has opened this very one and asked its
    // version.
    unsafe { Library::new(path) }.with_context(|| format!("cannot open {}", path.display()))
}
