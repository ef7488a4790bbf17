//! NVIDIA's NCCL, opened at run time: where it lies, and the functions that are called.
//!
//! Not through cudarc's bindings: these look for the library by name alone and panic where it, or one of its
//! functions, is missing, and take a result for a Rust enumeration, which the code of a newer library is not.

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libloading::Library;

use crate::device::gpu::nvrtc_search::{library_in_current_folder, package_folders, trusted};

/// Environment variable that names the library or its folder.
const VARIABLE: &str = "RECORDS_NCCL";
/// The file that is looked for.
pub const FILE: &str = "libnccl.so.2";
/// What to do where it is not there.
pub const INSTALL: &str = "several GPUs need NCCL: `pip install nvidia-nccl-cu12`, or install libnccl2, or set RECORDS_NCCL to libnccl.so.2";
/// The oldest version that takes part in captured graphs of several streams: 2.11.
const OLDEST: c_int = 21100;

/// A communicator of the library.
pub(super) type RawCommunicator = *mut c_void;
/// A stream of the driver.
pub(super) type RawStream = *mut c_void;

/// What all processes need to find each other.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct UniqueId(pub(super) [u8; 128]);

macro_rules! functions {
    ($($field:ident = $name:literal ($($argument:ty),*) -> $result:ty;)*) => {
        /// The library's functions, with the names and signatures of nccl.h.
        pub(super) struct Functions {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            /// # Safety
            /// The library must be NCCL, and stay open.
            unsafe fn of(library: &Library) -> Result<Self, String> {
                Ok(Self {$(
                    // SAFETY: the caller's promise: a function of this name has this signature.
                    $field: *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                        .map_err(|_| concat!("it has no ", $name).to_string())?,
                )*})
            }
        }
    };
}

functions! {
    get_version = "ncclGetVersion" (*mut c_int) -> c_int;
    error_string = "ncclGetErrorString" (c_int) -> *const c_char;
    unique_id = "ncclGetUniqueId" (*mut UniqueId) -> c_int;
    init = "ncclCommInitRank" (*mut RawCommunicator, c_int, UniqueId, c_int) -> c_int;
    destroy = "ncclCommDestroy" (RawCommunicator) -> c_int;
    abort = "ncclCommAbort" (RawCommunicator) -> c_int;
    asynchronous_error = "ncclCommGetAsyncError" (RawCommunicator, *mut c_int) -> c_int;
    group_start = "ncclGroupStart" () -> c_int;
    group_end = "ncclGroupEnd" () -> c_int;
    all_gather = "ncclAllGather"
        (*const c_void, *mut c_void, usize, c_int, RawCommunicator, RawStream) -> c_int;
    broadcast = "ncclBroadcast"
        (*const c_void, *mut c_void, usize, c_int, c_int, RawCommunicator, RawStream) -> c_int;
    send = "ncclSend" (*const c_void, usize, c_int, c_int, RawCommunicator, RawStream) -> c_int;
    receive = "ncclRecv" (*mut c_void, usize, c_int, c_int, RawCommunicator, RawStream) -> c_int;
}

/// The opened library.
pub struct Nccl {
    pub(super) functions: Functions,
    /// Its version as it counts: 21803 is 2.18.3.
    version: c_int,
    /// Where it lies, or only its name where the loader found it.
    pub path: PathBuf,
    /// Open for as long as the process lives.
    _library: Library,
}

impl Nccl {
    /// The library; it is opened once.
    ///
    /// # Errors
    /// One line: which file was looked for, or what is wrong with it.
    pub fn find() -> Result<&'static Self, String> {
        static FOUND: OnceLock<Result<Nccl, String>> = OnceLock::new();
        FOUND.get_or_init(search).as_ref().map_err(Clone::clone)
    }

    /// Its version for people.
    pub fn version(&self) -> String {
        // Since 2.9 a version is 10000 times the major number, 100 times the minor, and the patch.
        format!("{}.{}.{}", self.version / 10000, self.version / 100 % 100, self.version % 100)
    }

    /// The library's words for a result.
    pub(super) fn words(&self, code: c_int) -> String {
        // SAFETY: the function takes any number, and returns a text that stays.
        let text = unsafe { (self.functions.error_string)(code) };
        if text.is_null() {
            return format!("error {code}");
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
    }

    fn open(path: &Path) -> Result<Self, String> {
        // SAFETY: opening a library runs its initialisers; the caller has found NCCL under this name.
        let library = unsafe { Library::new(path) }.map_err(|error| match error.source() {
            Some(reason) => reason.to_string(),
            None => error.to_string(),
        })?;
        // SAFETY: as above; it is kept beside the functions.
        let functions = unsafe { Functions::of(&library) }?;
        let mut version = 0;
        // SAFETY: the pointer is to a live int.
        let code = unsafe { (functions.get_version)(&mut version) };
        if code != 0 || version < OLDEST {
            return Err(format!("its version is {version}, and 2.11 is needed"));
        }
        Ok(Self { functions, version, path: path.into(), _library: library })
    }
}

fn search() -> Result<Nccl, String> {
    if let Some(file) = library_in_current_folder() {
        return Err(file);
    }
    if let Some(given) = std::env::var_os(VARIABLE).filter(|given| !given.is_empty()) {
        let mut path = PathBuf::from(given);
        if path.is_relative() {
            return Err(format!("{VARIABLE}={}: must be an absolute path", path.display()));
        }
        if path.is_dir() {
            path.push(FILE);
        }
        return Nccl::open(&path).map_err(|reason| format!("{VARIABLE}={}: {reason}", path.display()));
    }
    let of_loader = match Nccl::open(Path::new(FILE)) {
        Ok(found) => return Ok(found),
        Err(reason) => reason,
    };
    let mut failures = Vec::new();
    for folder in package_folders() {
        let path = folder.join("nvidia/nccl/lib").join(FILE);
        if !path.is_file() {
            continue;
        }
        match trusted(&path).and_then(|()| Nccl::open(&path)) {
            Ok(found) => return Ok(found),
            Err(reason) => failures.push(format!("{}: {reason}", path.display())),
        }
    }
    if !of_loader.contains("cannot open shared object file: No such file") {
        failures.push(format!("{FILE}: {of_loader}"));
    }
    if failures.is_empty() { Err(format!("no {FILE}")) } else { Err(failures.join("; ")) }
}
