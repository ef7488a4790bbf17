//! A stand-in for the NVIDIA driver library, built by tests/cuda_driver.rs: memory is the host's, kernels are found in their cubins and
//! do nothing, and every call is a line of the file that STAND_IN_LOG names. STAND_IN_FAIL=call:code makes a call fail.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static CAPTURING: AtomicBool = AtomicBool::new(false);
static HANDLES: AtomicUsize = AtomicUsize::new(16);

/// Writes the call down; the code it is to return.
fn called(name: &str, detail: &str) -> c_int {
    if let Some(path) = std::env::var_os("STAND_IN_LOG") {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
        let note = if CAPTURING.load(Ordering::SeqCst) { " captured" } else { "" };
        writeln!(log, "{name}{note} {detail}").unwrap();
    }
    let fail = std::env::var("STAND_IN_FAIL").unwrap_or_default();
    match fail.split_once(':') {
        Some((call, code)) if call == name => code.parse().unwrap(),
        _ => 0,
    }
}

fn handle() -> *mut c_void {
    HANDLES.fetch_add(16, Ordering::SeqCst) as *mut c_void
}

macro_rules! plain {
    ($($name:ident($($type:ty),*);)*) => {
        $(#[unsafe(no_mangle)] pub extern "C" fn $name($(_: $type),*) -> c_int { called(stringify!($name), "") })*
    };
}

macro_rules! makes_handle {
    ($($name:ident($($type:ty),*);)*) => {
        $(#[unsafe(no_mangle)] pub unsafe extern "C" fn $name(out: *mut *mut c_void $(, _: $type)*) -> c_int {
            unsafe { *out = handle() };
            called(stringify!($name), "")
        })*
    };
}

plain! {
    cuInit(c_uint);
    cuDevicePrimaryCtxRelease_v2(c_int);
    cuCtxSetCurrent(*mut c_void);
    cuStreamSynchronize(*mut c_void);
    cuStreamDestroy_v2(*mut c_void);
    cuModuleUnload(*mut c_void);
    cuFuncSetAttribute(*mut c_void, c_int, c_int);
    cuGraphDestroy(*mut c_void);
    cuGraphExecDestroy(*mut c_void);
    cuGraphLaunch(*mut c_void, *mut c_void);
    cuEventRecord(*mut c_void, *mut c_void);
    cuEventDestroy_v2(*mut c_void);
}

makes_handle! {
    cuDevicePrimaryCtxRetain(c_int);
    cuStreamCreate(c_uint);
    cuGraphInstantiateWithFlags(*mut c_void, u64);
    cuEventCreate(c_uint);
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorName(_: c_int, text: *mut *const c_char) -> c_int {
    unsafe { *text = c"CUDA_ERROR_STAND_IN".as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(_: c_int, text: *mut *const c_char) -> c_int {
    unsafe { *text = c"made to fail".as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDriverGetVersion(version: *mut c_int) -> c_int {
    unsafe { *version = 99_000 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    unsafe { *count = 1 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> c_int {
    unsafe { *device = ordinal };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(text: *mut c_char, _: c_int, _: c_int) -> c_int {
    for (i, byte) in b"Stand-in GPU\0".iter().enumerate() {
        unsafe { *text.add(i) = *byte as c_char };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, _: c_int) -> c_int {
    unsafe { *bytes = 24 << 30 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetAttribute(value: *mut c_int, what: c_int, _: c_int) -> c_int {
    // Multiprocessors, opt-in shared memory, compute capability: an RTX 3090's.
    unsafe { *value = match what { 16 => 82, 97 => 99 << 10, 75 => 8, 76 => 6, _ => return 1 } };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    unsafe { (*free, *total) = (3 << 30, 24 << 30) };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> c_int {
    let code = called("cuMemAlloc_v2", &bytes.to_string());
    if code == 0 {
        let memory = Box::leak(vec![0u64; bytes.div_ceil(8) + 32].into_boxed_slice());
        unsafe { *address = (memory.as_ptr() as u64).next_multiple_of(256) };
    }
    code
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(_: u64) -> c_int {
    called("cuMemFree_v2", "")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, _: *mut c_void) -> c_int {
    unsafe { std::ptr::copy_nonoverlapping(from, to as *mut u8, bytes) };
    called("cuMemcpyHtoDAsync_v2", &bytes.to_string())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, _: *mut c_void) -> c_int {
    unsafe { std::ptr::copy_nonoverlapping(from as *const u8, to, bytes) };
    called("cuMemcpyDtoHAsync_v2", &bytes.to_string())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemsetD8Async(at: u64, value: u8, bytes: usize, _: *mut c_void) -> c_int {
    unsafe { std::ptr::write_bytes(at as *mut u8, value, bytes) };
    called("cuMemsetD8Async", &bytes.to_string())
}

/// A module is its cubin, an ELF file whose section headers stand at its end.
struct Module {
    image: &'static [u8],
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleLoadData(module: *mut *mut Module, image: *const u8) -> c_int {
    let header = unsafe { std::slice::from_raw_parts(image, 64) };
    assert_eq!(&header[..4], b"\x7fELF", "a cubin");
    let number = |at: usize, len: usize| header[at..at + len].iter().rev().fold(0usize, |n, &b| n << 8 | b as usize);
    let len = (number(0x28, 8) + number(0x3a, 2) * number(0x3c, 2)).max(number(0x20, 8) + number(0x36, 2) * number(0x38, 2));
    let image = unsafe { std::slice::from_raw_parts(image, len) }.to_vec();
    unsafe { *module = Box::into_raw(Box::new(Module { image: Box::leak(image.into_boxed_slice()) })) };
    assert!(!CAPTURING.load(Ordering::SeqCst), "no loading while a stream is captured");
    called("cuModuleLoadData", "")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuModuleGetFunction(function: *mut *mut c_void, module: *const Module, name: *const c_char) -> c_int {
    let name = unsafe { CStr::from_ptr(name) }.to_str().unwrap();
    let section = format!(".text.{name}\0");
    let found = unsafe { &*module }.image.windows(section.len()).any(|window| window == section.as_bytes());
    unsafe { *function = Box::into_raw(Box::new(name.to_string())).cast() };
    let code = called("cuModuleGetFunction", name);
    // CUDA_ERROR_NOT_FOUND
    if found { code } else { 500 }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: *const String, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint, shared: c_uint,
    _: *mut c_void, parameters: *const *const u8, extra: *const c_void,
) -> c_int {
    assert!(!parameters.is_null() && extra.is_null());
    assert!(gx * gy * gz > 0 && gy < 65536 && gz < 65536 && bx * by * bz > 0 && bx * by * bz <= 1024 && shared <= 99 << 10);
    called("cuLaunchKernel", unsafe { &*function })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: *const String, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: c_uint, _: *mut c_void,
    _: *const *const u8,
) -> c_int {
    called("cuLaunchCooperativeKernel", unsafe { &*function })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuStreamBeginCapture_v2(_: *mut c_void, _: c_int) -> c_int {
    CAPTURING.store(true, Ordering::SeqCst);
    called("cuStreamBeginCapture_v2", "")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuStreamEndCapture(_: *mut c_void, graph: *mut *mut c_void) -> c_int {
    unsafe { *graph = handle() };
    CAPTURING.store(false, Ordering::SeqCst);
    called("cuStreamEndCapture", "")
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime(milliseconds: *mut f32, _: *mut c_void, _: *mut c_void) -> c_int {
    unsafe { *milliseconds = 1.0 };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuEventElapsedTime_v2(milliseconds: *mut f32, _: *mut c_void, _: *mut c_void) -> c_int {
    unsafe { *milliseconds = 1.0 };
    0
}
