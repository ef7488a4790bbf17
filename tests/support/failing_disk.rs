//! A library to preload (LD_PRELOAD) that counts what a process does to the files under FAIL_UNDER, log.txt left out, and at number
//! FAIL_AT (from 1, of those whose path holds FAIL_MATCH) ends it as kill -9 would (FAIL_HOW=kill; a write gets half done), or
//! from then on has no room (FAIL_HOW=full; a write gets half done once) or is read-only (FAIL_HOW=readonly). FAIL_FLOCK is the
//! number of the error with which locks are refused, FAIL_LINKS=1 makes a file system without hard links. FAIL_CLOCK is a number
//! of seconds by which the clock on the wall is ahead, negative where it is behind.

#![allow(clippy::missing_safety_doc)]

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
    fn kill(process: c_int, signal: c_int) -> c_int;
    fn getpid() -> c_int;
    fn readlink(path: *const c_char, buffer: *mut c_char, size: usize) -> isize;
}

const EPERM: c_int = 1;
const ENOSPC: c_int = 28;
const EROFS: c_int = 30;
const O_CREAT: c_int = 0o100;
const O_ACCMODE: c_int = 0o3;
const CLOCK_REALTIME: c_int = 0;

/// What a call does to the disk.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    /// It takes room.
    Makes,
    /// It changes names or lengths.
    Changes,
    /// It writes what was written before.
    Flushes,
}

struct Plan {
    under: String,
    matching: String,
    at: usize,
    full: bool,
    read_only: bool,
    flock: Option<c_int>,
    no_links: bool,
    clock: i64,
}

fn plan() -> &'static Plan {
    static PLAN: OnceLock<Plan> = OnceLock::new();
    let text = |name: &str| std::env::var(name).unwrap_or_default();
    PLAN.get_or_init(|| Plan {
        under: text("FAIL_UNDER"),
        matching: text("FAIL_MATCH"),
        at: text("FAIL_AT").parse().unwrap_or(usize::MAX),
        full: text("FAIL_HOW") == "full",
        read_only: text("FAIL_HOW") == "readonly",
        flock: text("FAIL_FLOCK").parse().ok(),
        no_links: text("FAIL_LINKS") == "1",
        clock: text("FAIL_CLOCK").parse().unwrap_or(0),
    })
}

static COUNT: AtomicUsize = AtomicUsize::new(0);

#[derive(PartialEq)]
enum Do {
    Go,
    Half,
    Fail,
}

fn step(path: &[u8], call: Call) -> Do {
    let (plan, path) = (plan(), String::from_utf8_lossy(path));
    let is_counted = !plan.under.is_empty()
        && path.contains(&plan.under)
        && path.contains(&plan.matching)
        && !path.ends_with("log.txt");
    if !is_counted {
        return Do::Go;
    }
    let number = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    if number < plan.at {
        return Do::Go;
    }
    match call {
        Call::Makes | Call::Changes if plan.read_only => Do::Fail,
        Call::Makes if plan.full && number > plan.at => Do::Fail,
        Call::Makes if plan.full => Do::Half,
        _ if plan.full || plan.read_only => Do::Go,
        _ if number == plan.at => Do::Half,
        _ => Do::Go,
    }
}

/// The error of a disk that fails.
fn refuse() -> c_int {
    fail(if plan().read_only { EROFS } else { ENOSPC })
}

fn end() {
    unsafe { kill(getpid(), 9) };
    loop {
        std::hint::spin_loop();
    }
}

fn fail(code: c_int) -> c_int {
    unsafe { *__errno_location() = code };
    -1
}

/// The path of an open file.
fn path_of(file: c_int) -> Vec<u8> {
    let link = format!("/proc/self/fd/{file}\0");
    let mut buffer = [0u8; 4096];
    let length = unsafe { readlink(link.as_ptr().cast(), buffer.as_mut_ptr().cast(), buffer.len()) };
    buffer[..length.max(0) as usize].to_vec()
}

macro_rules! next {
    ($name:literal, $type:ty) => {{
        static NEXT: OnceLock<usize> = OnceLock::new();
        let next = *NEXT.get_or_init(|| unsafe { dlsym(-1isize as *mut c_void, $name.as_ptr()) } as usize);
        unsafe { std::mem::transmute::<usize, $type>(next) }
    }};
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(file: c_int, bytes: *const c_void, count: usize) -> isize {
    let next = next!(c"write", unsafe extern "C" fn(c_int, *const c_void, usize) -> isize);
    if file <= 2 {
        return unsafe { next(file, bytes, count) };
    }
    match step(&path_of(file), Call::Makes) {
        Do::Go => unsafe { next(file, bytes, count) },
        Do::Half if plan().full && count < 2 => fail(ENOSPC) as isize,
        Do::Half => {
            let written = unsafe { next(file, bytes, count / 2) };
            if !plan().full {
                end();
            }
            written
        }
        Do::Fail => refuse() as isize,
    }
}

/// A call of one path or file, which does `$call`.
macro_rules! interposed {
    ($name:ident, $text:literal, ($($argument:ident: $type:ty),*), $path:expr, $call:expr) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            let next = next!($text, unsafe extern "C" fn($($type),*) -> c_int);
            let does = step(&$path, $call);
            if does == Do::Half && !plan().full {
                end();
            }
            if does != Do::Go {
                return refuse();
            }
            unsafe { next($($argument),*) }
        }
    };
}

fn text(path: *const c_char) -> Vec<u8> {
    unsafe { CStr::from_ptr(path) }.to_bytes().to_vec()
}

interposed!(rename, c"rename", (from: *const c_char, to: *const c_char), { let _ = from; text(to) }, Call::Changes);
interposed!(unlink, c"unlink", (path: *const c_char), text(path), Call::Changes);
interposed!(mkdir, c"mkdir", (path: *const c_char, mode: c_uint), { let _ = mode; text(path) }, Call::Makes);
interposed!(fsync, c"fsync", (file: c_int), path_of(file), Call::Flushes);
interposed!(fdatasync, c"fdatasync", (file: c_int), path_of(file), Call::Flushes);
interposed!(ftruncate64, c"ftruncate64", (file: c_int, size: i64), { let _ = size; path_of(file) }, Call::Changes);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn linkat(
    from_folder: c_int,
    from: *const c_char,
    to_folder: c_int,
    to: *const c_char,
    flags: c_int,
) -> c_int {
    if plan().no_links {
        return fail(EPERM);
    }
    let does = step(&text(to), Call::Makes);
    if does == Do::Half && !plan().full {
        end();
    }
    if does != Do::Go {
        return refuse();
    }
    let next = next!(
        c"linkat",
        unsafe extern "C" fn(c_int, *const c_char, c_int, *const c_char, c_int) -> c_int
    );
    unsafe { next(from_folder, from, to_folder, to, flags) }
}

macro_rules! opening {
    ($name:ident, $text:literal) => {
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
            let next = next!($text, unsafe extern "C" fn(*const c_char, c_int, c_uint) -> c_int);
            let makes = flags & O_CREAT != 0 || plan().read_only && flags & O_ACCMODE != 0;
            let does = if makes { step(&text(path), Call::Makes) } else { Do::Go };
            if does == Do::Half && !plan().full {
                end();
            }
            if does != Do::Go {
                return refuse();
            }
            unsafe { next(path, flags, mode) }
        }
    };
}

opening!(open, c"open");
opening!(open64, c"open64");

#[unsafe(no_mangle)]
pub unsafe extern "C" fn flock(file: c_int, operation: c_int) -> c_int {
    if let Some(error) = plan().flock {
        return fail(error);
    }
    let next = next!(c"flock", unsafe extern "C" fn(c_int, c_int) -> c_int);
    unsafe { next(file, operation) }
}

#[repr(C)]
pub struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    let next = next!(c"clock_gettime", unsafe extern "C" fn(c_int, *mut Timespec) -> c_int);
    let done = unsafe { next(clock, time) };
    if clock == CLOCK_REALTIME && done == 0 {
        unsafe { (*time).seconds += plan().clock };
    }
    done
}
