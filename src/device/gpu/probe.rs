//! Looks for the NVIDIA driver, its GPUs and the run-time compiler NVRTC, all opened at run time: a machine without
//! them gets a message that says what to install.

use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_uint};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libloading::Library;
use rustix::process::{Pid, Signal, geteuid, kill_process_group};

/// The NVIDIA driver and what it sees.
#[derive(Clone, Debug, PartialEq)]
pub struct Driver {
    /// Newest CUDA version that the driver serves: major, minor.
    pub cuda_version: (u32, u32),
    /// GPUs in the driver's order.
    pub gpus: Vec<Gpu>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Gpu {
    /// Name as the driver gives it.
    pub name: String,
    /// Compute capability: major, minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Memory, bytes.
    pub memory: u64,
}

/// The run-time compiler.
#[derive(Clone, Debug, PartialEq)]
pub struct Nvrtc {
    /// The library, or only its name where the loader found it by itself.
    pub path: PathBuf,
    /// What led there: an environment variable, a toolkit, a Python package, the loader.
    pub found_by: String,
    /// Version: major, minor.
    pub version: (u32, u32),
    /// Whether `libnvrtc-builtins`, which compiling needs, lies beside it; `None` where the folder is not known.
    pub has_builtins: Option<bool>,
}

/// What to do where there is no driver.
pub const INSTALL_DRIVER: &str = "for a GPU install the NVIDIA driver, 525 or newer";
/// What to do where there is no NVRTC.
pub const INSTALL_NVRTC: &str = "for a GPU `pip install nvidia-cuda-nvrtc-cu12`, or install the CUDA toolkit, or set RECORDS_NVRTC to libnvrtc.so";

const DRIVER_LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

/// Asks the NVIDIA driver for its version and GPUs.
///
/// # Errors
/// One line: no driver library, or which of its calls failed and how.
pub fn driver() -> Result<Driver, String> {
    if let Some(file) = library_in_current_folder() {
        return Err(file);
    }
    // SAFETY: opening a library runs its initialisers; this one is the system's NVIDIA driver.
    let library = unsafe { Library::new(DRIVER_LIBRARY) }.map_err(|_| format!("no {DRIVER_LIBRARY}"))?;
    let calls = DriverCalls { library: keep(library) };
    // SAFETY: every signature is the one of the driver's documentation and every pointer names a live value of that
    // type, written before it is read.
    unsafe {
        calls.run(c"cuInit", |init: unsafe extern "C" fn(c_uint) -> c_int| init(0))?;
        let version = calls.number(c"cuDriverGetVersion")?;
        let count = calls.number(c"cuDeviceGetCount")?;
        let gpus = (0..count).map(|ordinal| calls.gpu(ordinal)).collect::<Result<_, String>>()?;
        Ok(Driver { cuda_version: major_minor(version), gpus })
    }
}

/// 12040 as (12, 4).
fn major_minor(version: c_int) -> (u32, u32) {
    let version = version.unsigned_abs();
    (version / 1000, version % 1000 / 10)
}

/// Keeps a library open to the end of the program: CUDA's libraries start threads and do not survive being closed.
fn keep(library: Library) -> &'static Library {
    Box::leak(Box::new(library))
}

struct DriverCalls {
    library: &'static Library,
}

type Device = c_int;

/// Numbers of `CUdevice_attribute`.
const MULTIPROCESSOR_COUNT: c_int = 16;
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

impl DriverCalls {
    /// Calls the function called `name`.
    ///
    /// # Safety
    /// `F` must be its signature and `call` must keep its contract.
    unsafe fn run<F: Copy>(&self, name: &CStr, call: impl FnOnce(F) -> c_int) -> Result<(), String> {
        let shown = name.to_string_lossy();
        // SAFETY: the caller answers for the signature.
        let function = unsafe { self.library.get::<F>(name.to_bytes_with_nul()) }
            .map_err(|_| format!("{DRIVER_LIBRARY} has no {shown}"))?;
        match call(*function) {
            0 => Ok(()),
            code => Err(format!("{shown} failed with {}", self.error_name(code))),
        }
    }

    fn error_name(&self, code: c_int) -> String {
        type GetErrorName = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the signature is the documented one; on success the driver sets a static string.
        unsafe {
            if let Ok(function) = self.library.get::<GetErrorName>(b"cuGetErrorName\0")
                && function(code, &mut text) == 0
                && !text.is_null()
            {
                return format!("{} ({code})", CStr::from_ptr(text).to_string_lossy());
            }
        }
        format!("error {code}")
    }

    /// # Safety
    /// `name` must be a function that writes one `int`.
    unsafe fn number(&self, name: &CStr) -> Result<c_int, String> {
        let mut number = 0;
        // SAFETY: the caller answers for the signature; the pointer is to a live int.
        unsafe {
            self.run(name, |function: unsafe extern "C" fn(*mut c_int) -> c_int| function(&mut number))
        }?;
        Ok(number)
    }

    /// # Safety
    /// `cuInit` must have succeeded.
    unsafe fn gpu(&self, ordinal: c_int) -> Result<Gpu, String> {
        type Get = unsafe extern "C" fn(*mut Device, c_int) -> c_int;
        type GetName = unsafe extern "C" fn(*mut c_char, c_int, Device) -> c_int;
        type GetAttribute = unsafe extern "C" fn(*mut c_int, c_int, Device) -> c_int;
        type TotalMemory = unsafe extern "C" fn(*mut usize, Device) -> c_int;
        let mut device: Device = 0;
        let mut name = [0u8; 256];
        let mut memory = 0usize;
        let attribute = |attribute: c_int, device: Device| {
            let mut value: c_int = 0;
            // SAFETY: documented signature, pointer to a live int.
            unsafe {
                self.run(c"cuDeviceGetAttribute", |get: GetAttribute| get(&mut value, attribute, device))?;
            }
            Ok::<u32, String>(value.unsigned_abs())
        };
        // SAFETY: documented signatures, pointers to live values; the name's length leaves room for the final zero.
        unsafe {
            self.run(c"cuDeviceGet", |get: Get| get(&mut device, ordinal))?;
            self.run(c"cuDeviceGetName", |get: GetName| get(name.as_mut_ptr().cast(), 255, device))?;
            self.run(c"cuDeviceTotalMem_v2", |get: TotalMemory| get(&mut memory, device))?;
        }
        let name = CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned());
        Ok(Gpu {
            name: name.unwrap_or_else(|_| "unnamed GPU".into()),
            compute_capability: (
                attribute(COMPUTE_CAPABILITY_MAJOR, device)?,
                attribute(COMPUTE_CAPABILITY_MINOR, device)?,
            ),
            multiprocessors: attribute(MULTIPROCESSOR_COUNT, device)?,
            memory: memory as u64,
        })
    }
}

/// Why the kernels cannot run on a GPU of this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Missing {
    /// What is missing or too old.
    pub what: String,
    /// What to install or change.
    pub remedy: String,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// The oldest CUDA version whose driver interface is used.
const OLDEST_CUDA: (u32, u32) = (12, 0);
/// The oldest compute capability the kernels are written for: Ampere.
const OLDEST_CAPABILITY: (u32, u32) = (8, 0);

/// Whether the kernels can run on this machine's first GPU: the driver, its GPUs, and an NVRTC that fits them.
///
/// # Errors
/// The first thing that is missing, with its remedy.
pub fn usable() -> Result<Driver, Missing> {
    check(driver(), nvrtc)
}

fn check(
    driver: Result<Driver, String>,
    nvrtc: impl FnOnce() -> Result<Nvrtc, String>,
) -> Result<Driver, Missing> {
    let missing = |what: String, remedy: &str| Missing { what, remedy: remedy.into() };
    let driver = driver.map_err(|reason| missing(reason, INSTALL_DRIVER))?;
    let Some(gpu) = driver.gpus.first() else {
        return Err(missing(
            "the NVIDIA driver shows no GPU".into(),
            "check nvidia-smi and CUDA_VISIBLE_DEVICES",
        ));
    };
    let (major, minor) = driver.cuda_version;
    if driver.cuda_version < OLDEST_CUDA {
        let what = format!("the NVIDIA driver serves CUDA {major}.{minor}, 12.0 is needed");
        return Err(missing(what, INSTALL_DRIVER));
    }
    if gpu.compute_capability < OLDEST_CAPABILITY {
        let (major, minor) = gpu.compute_capability;
        let what = format!("{} is sm_{major}{minor}", gpu.name);
        return Err(missing(what, "the kernels need sm_80 (Ampere) or newer"));
    }
    let nvrtc = nvrtc().map_err(|reason| missing(reason, INSTALL_NVRTC))?;
    if nvrtc.has_builtins == Some(false) {
        let what = format!("NVRTC {}: libnvrtc-builtins.so is not beside it", nvrtc.path.display());
        return Err(missing(what, INSTALL_NVRTC));
    }
    if nvrtc.version.0 > major {
        let (newer, path) = (nvrtc.version, nvrtc.path.display());
        let what =
            format!("NVRTC {}.{} ({path}) is newer than the driver's CUDA {major}.{minor}", newer.0, newer.1);
        let remedy = format!("`pip install nvidia-cuda-nvrtc-cu{major}` or update the driver");
        return Err(Missing { what, remedy });
    }
    Ok(driver)
}

/// A place where NVRTC may be: a library or a folder of libraries.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// Library or folder.
    pub path: PathBuf,
    /// What names the place.
    pub named_by: String,
}

/// Finds NVRTC: `RECORDS_NVRTC` and nothing else where it is set; toolkits, packages of the active Python, the loader's path,
/// in this order.
///
/// # Errors
/// One line that says which libraries were found and could not be opened, if any.
pub fn nvrtc() -> Result<Nvrtc, String> {
    let mut failures = Vec::new();
    let places = nvrtc_places(&|name| std::env::var_os(name));
    if let Some(given) =
        places.first().filter(|place| place.named_by == NVRTC_VARIABLE && place.path.is_relative())
    {
        let shown = given.path.display();
        return Err(format!(
            "{NVRTC_VARIABLE}={shown}: must be an absolute path, else it is another file in every folder"
        ));
    }
    if let Some(file) = library_in_current_folder() {
        return Err(file);
    }
    let mut tried = Vec::new();
    for place in places.into_iter().chain(std::iter::once_with(python_places).flatten()) {
        for library in nvrtc_libraries(&place.path) {
            // Who names a library answers for it.
            if place.named_by != NVRTC_VARIABLE
                && let Err(reason) = trusted(&library)
            {
                failures.push(format!("{}: {reason}; {NVRTC_VARIABLE} can name it", library.display()));
                continue;
            }
            // Toolkit paths lead to the same file by many links.
            let real = library.canonicalize().unwrap_or_else(|_| library.clone());
            if tried.contains(&real) {
                continue;
            }
            tried.push(real);
            match nvrtc_version(&library) {
                Ok(version) => {
                    let has_builtins = library.parent().map(has_builtins);
                    return Ok(Nvrtc { path: library, found_by: place.named_by, version, has_builtins });
                }
                // The loader's own message often begins with the path.
                Err(reason) if reason.starts_with(&*library.to_string_lossy()) => failures.push(reason),
                Err(reason) => failures.push(format!("{}: {reason}", library.display())),
            }
        }
        // Who names a library means that one: another, found elsewhere, would hide the mistake.
        if place.named_by == NVRTC_VARIABLE {
            let shown = place.path.display();
            let none = format!("{NVRTC_VARIABLE}={shown}: no libnvrtc.so there");
            return Err(failures.pop().map_or(none, |reason| format!("{NVRTC_VARIABLE}: {reason}")));
        }
    }
    for name in ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"] {
        if let Ok(version) = nvrtc_version(Path::new(name)) {
            let found_by = "the loader's path".to_string();
            return Ok(Nvrtc { path: name.into(), found_by, version, has_builtins: None });
        }
    }
    if failures.is_empty() { Err("no libnvrtc.so".to_string()) } else { Err(failures.join("; ")) }
}

/// Environment variable that names the NVRTC library or its folder.
const NVRTC_VARIABLE: &str = "RECORDS_NVRTC";

/// Where NVRTC may be by the environment variables that `variable` answers and by the usual folders. Relative paths, which lead
/// to whatever folder is the current one, count as not set, except that of `RECORDS_NVRTC`.
pub fn nvrtc_places(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<Place> {
    let given = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let mut places = Vec::new();
    if let Some(path) = given(NVRTC_VARIABLE) {
        places.push(Place { path, named_by: NVRTC_VARIABLE.into() });
    }
    let absolute = |name: &str| given(name).filter(|path| path.is_absolute());
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(root) = absolute(name) {
            for folder in ["lib64", "lib", "targets/x86_64-linux/lib"] {
                places.push(Place { path: root.join(folder), named_by: name.into() });
            }
        }
    }
    let mut toolkits = entries(Path::new("/usr/local"));
    toolkits.retain(|path| name_of(path).starts_with("cuda"));
    newest_first(&mut toolkits);
    for toolkit in toolkits {
        places.push(Place { path: toolkit.join("lib64"), named_by: "CUDA toolkit".into() });
    }
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        if let Some(root) = absolute(name) {
            for python in
                entries(&root.join("lib")).iter().filter(|path| name_of(path).starts_with("python3"))
            {
                places.extend(wheel_places(&python.join("site-packages")));
            }
            places.push(Place { path: root.join("lib"), named_by: name.into() });
        }
    }
    places
}

/// Folders of NVRTC in the packages of the `python3` on the path.
fn python_places() -> Vec<Place> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders =
        python_on(&path).and_then(|python| python_path(&python, PYTHON_PATIENCE)).unwrap_or_default();
    folders.iter().flat_map(|folder| wheel_places(folder)).collect()
}

/// Folders of NVRTC inside a folder of Python packages: one a wheel (CUDA 12) or one for all of CUDA (13).
fn wheel_places(site_packages: &Path) -> Vec<Place> {
    let mut folders = entries(&site_packages.join("nvidia"));
    folders.retain(|path| name_of(path) == "cuda_nvrtc" || name_of(path).starts_with("cu1"));
    newest_first(&mut folders);
    folders
        .into_iter()
        .map(|folder| Place { path: folder.join("lib"), named_by: "Python package".into() })
        .collect()
}

/// The first `python3` in the folders of a search path that are not relative, if it is trusted.
fn python_on(path: &OsStr) -> Option<PathBuf> {
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    let mut candidates = folders.map(|folder| folder.join("python3")).filter(|python| python.is_file());
    candidates.next().filter(|python| trusted(python).is_ok())
}

/// How long Python may take to answer.
const PYTHON_PATIENCE: Duration = Duration::from_secs(5);
/// The most of its answer that is read, bytes.
const MOST_OF_ANSWER: u64 = 1 << 16;

/// The absolute folders of `sys.path` of `python` and of the user's own packages; `None` where it does not answer in time.
///
/// It is asked in isolation: what lies in the current folder or where PYTHON variables lead is neither run nor believed.
fn python_path(python: &Path, patience: Duration) -> Option<Vec<PathBuf>> {
    const QUESTION: &str = "import sys, site; print('\\n'.join([*sys.path, site.getusersitepackages()]))";
    let mut command = Command::new(python);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PYTHON")) {
        command.env_remove(name);
    }
    // A launcher that chooses by a file of the current folder finds none there.
    command.args(["-I", "-c", QUESTION]).current_dir("/");
    let text = answer_of(command, patience)?;
    let folders = text.lines().map(PathBuf::from).filter(|folder| folder.is_absolute());
    Some(folders.collect())
}

/// What a program prints, at most [`MOST_OF_ANSWER`] bytes of it; `None` where it fails or takes longer than `patience`.
fn answer_of(mut command: Command, patience: Duration) -> Option<String> {
    let asked = Instant::now();
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let mut program = command.process_group(0).spawn().ok()?;
    let (sender, receiver) = std::sync::mpsc::channel();
    let output = program.stdout.take()?;
    // What the program has started may keep its output open after its end: the reading is not waited for.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.take(MOST_OF_ANSWER).read_to_end(&mut bytes);
        // The asker may have gone.
        let _ = sender.send(read.is_ok().then_some(bytes));
    });
    let bytes = receiver.recv_timeout(patience).ok().flatten();
    let mut succeeded = false;
    while bytes.is_some() && asked.elapsed() < patience {
        if let Ok(Some(status)) = program.try_wait() {
            succeeded = status.success();
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // It may have ended by itself meanwhile; either way it and what it started are gone after this.
    if let Some(group) = i32::try_from(program.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = program.wait();
    let bytes = bytes.filter(|_| succeeded)?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether code may be taken from a file: it and its folder belong to root or this user, and not everyone may write to them.
///
/// # Errors
/// Says what is wrong.
fn trusted(file: &Path) -> Result<(), String> {
    let real = file.canonicalize().map_err(|error| error.to_string())?;
    for part in [Some(&*real), real.parent()].into_iter().flatten() {
        let found = std::fs::metadata(part).map_err(|error| error.to_string())?;
        let which = if found.is_dir() { "its folder" } else { "it" };
        if ![0, geteuid().as_raw()].contains(&found.uid()) {
            return Err(format!("{which} belongs to another user (uid {})", found.uid()));
        }
        // A group may be the one of those who look after the machine's software.
        if found.mode() & 0o002 != 0 {
            return Err(format!("{which} can be written by everyone"));
        }
    }
    Ok(())
}

/// A complaint where the loader would look for CUDA's libraries in the current folder, and one lies there: it searches a
/// relative or empty part of LD_LIBRARY_PATH from there.
fn library_in_current_folder() -> Option<String> {
    stray_library(&std::env::var_os("LD_LIBRARY_PATH")?, Path::new("."))
}

fn stray_library(search_path: &OsStr, current: &Path) -> Option<String> {
    if search_path.is_empty() {
        return None;
    }
    // The loader separates by semicolons too.
    let parts = search_path.as_encoded_bytes().split(|byte| matches!(byte, b':' | b';'));
    let relative =
        parts.filter(|part| part.first() != Some(&b'/')).map(|part| current.join(OsStr::from_bytes(part)));
    let found = relative.flat_map(|folder| entries(&folder)).find(|path| {
        let name = name_of(path);
        ["libcuda.so", "libnvrtc", "libnvidia"].iter().any(|beginning| name.starts_with(beginning))
    })?;
    Some(format!(
        "{} would be loaded, since LD_LIBRARY_PATH has an empty or relative part; take that out",
        found.display()
    ))
}

/// The NVRTC libraries at `path`: itself, or those in the folder, newest first.
fn nvrtc_libraries(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_path_buf()];
    }
    let mut libraries = entries(path);
    libraries.retain(|path| {
        let name = name_of(path);
        let rest = name.strip_prefix("libnvrtc.so");
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    newest_first(&mut libraries);
    libraries
}

fn has_builtins(folder: &Path) -> bool {
    entries(folder).iter().any(|path| name_of(path).starts_with("libnvrtc-builtins.so"))
}

fn nvrtc_version(library: &Path) -> Result<(u32, u32), String> {
    type NvrtcVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
    // SAFETY: opening a library runs its initialisers; its name says that it is NVRTC, or the user says so.
    let library = unsafe { Library::new(library) }.map_err(|error| {
        let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        cause.replace('\n', " ")
    })?;
    // SAFETY: the documented signature.
    let function =
        unsafe { library.get::<NvrtcVersion>(b"nvrtcVersion\0") }.map_err(|_| "has no nvrtcVersion")?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to live ints.
    let code = unsafe { function(&mut major, &mut minor) };
    keep(library);
    if code != 0 {
        return Err(format!("nvrtcVersion failed with error {code}"));
    }
    Ok((major.unsigned_abs(), minor.unsigned_abs()))
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    // A folder that cannot be read holds nothing for us.
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Sorts by the numbers in the names, the largest first, then by name, so that the order never depends on the disk.
fn newest_first(paths: &mut [PathBuf]) {
    let numbers = |path: &PathBuf| -> Vec<u64> {
        let name = name_of(path);
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    paths.sort_by(|a, b| numbers(b).cmp(&numbers(a)).then_with(|| a.cmp(b)));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_split_as_cuda_writes_them() {
        assert_eq!(major_minor(12040), (12, 4));
        assert_eq!(major_minor(13000), (13, 0));
    }

    /// Each thing that can be missing is named with its remedy, in the order a user would meet them.
    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let gpu = |compute_capability| Gpu {
            name: "GPU".into(),
            compute_capability,
            multiprocessors: 82,
            memory: 1 << 34,
        };
        let driver = |cuda_version, gpus: Vec<Gpu>| Ok(Driver { cuda_version, gpus });
        let nvrtc = |version, has_builtins| Nvrtc {
            path: "/n".into(),
            found_by: "test".into(),
            version,
            has_builtins: Some(has_builtins),
        };
        let modern = || driver((12, 4), vec![gpu((8, 6))]);
        let fits = || Ok(nvrtc((12, 2), true));
        assert!(check(modern(), fits).is_ok());
        let message = |driver, nvrtc: Result<Nvrtc, String>| {
            let missing = check(driver, || nvrtc).unwrap_err();
            missing.to_string()
        };
        for (text, words) in [
            (message(Err("no libcuda".into()), fits()), ["no libcuda", "install the NVIDIA driver"]),
            (message(driver((12, 4), vec![]), fits()), ["no GPU", "CUDA_VISIBLE_DEVICES"]),
            (message(driver((11, 8), vec![gpu((8, 6))]), fits()), ["CUDA 11.8", "525 or newer"]),
            (message(driver((12, 4), vec![gpu((7, 5))]), fits()), ["sm_75", "sm_80 (Ampere)"]),
            (message(modern(), Err("no libnvrtc.so".into())), ["no libnvrtc.so", "pip install"]),
            (message(modern(), Ok(nvrtc((12, 2), false))), ["libnvrtc-builtins", "pip install"]),
            (message(modern(), Ok(nvrtc((13, 0), true))), ["NVRTC 13.0", "nvidia-cuda-nvrtc-cu12"]),
        ] {
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }

    #[test]
    fn variables_come_first_and_in_order() {
        let answers = |name: &str| match name {
            "RECORDS_NVRTC" => Some(OsString::from("/a/libnvrtc.so.12")),
            "CUDA_HOME" => Some(OsString::from("/b")),
            "CUDA_PATH" => Some(OsString::new()),
            _ => None,
        };
        let places = nvrtc_places(&answers);
        let first: Vec<&str> = places.iter().take(2).filter_map(|place| place.path.to_str()).collect();
        assert_eq!(first, ["/a/libnvrtc.so.12", "/b/lib64"]);
        assert!(
            !places.iter().any(|place| place.named_by == "CUDA_PATH"),
            "an empty variable names no place"
        );
    }

    #[test]
    fn wheels_of_a_virtual_environment_are_found() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib", "nvidia/cudnn/lib"] {
            std::fs::create_dir_all(root.path().join("lib/python3.12/site-packages").join(folder)).unwrap();
        }
        let answers = |name: &str| (name == "VIRTUAL_ENV").then(|| root.path().as_os_str().to_os_string());
        let places = nvrtc_places(&answers);
        let wheels: Vec<String> = places
            .iter()
            .filter(|place| place.named_by == "Python package")
            .map(|place| name_of(place.path.parent().unwrap()))
            .collect();
        assert_eq!(wheels, ["cu13", "cuda_nvrtc"]);
    }

    #[test]
    fn newest_library_comes_first_and_others_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let names = [
            "libnvrtc.so.9.0",
            "libnvrtc.so.12",
            "libnvrtc-builtins.so.12.4",
            "libnvrtc.alt.so.12",
            "libnvrtc.so",
        ];
        for name in names {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let found: Vec<String> = nvrtc_libraries(folder.path()).iter().map(|path| name_of(path)).collect();
        assert_eq!(found, ["libnvrtc.so.12", "libnvrtc.so.9.0", "libnvrtc.so"]);
        assert!(has_builtins(folder.path()));
        let error = nvrtc_version(&folder.path().join("libnvrtc.so.12")).unwrap_err();
        assert!(!error.is_empty() && !error.contains('\n'), "an empty file is no library: {error}");
    }

    #[test]
    fn relative_variables_name_no_place() {
        for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
            for value in [".", "cuda", "./x", ""] {
                let answers = |asked: &str| (asked == name).then(|| OsString::from(value));
                let places = nvrtc_places(&answers);
                assert!(places.iter().all(|place| place.path.is_absolute()), "{name}={value}: {places:?}");
            }
        }
    }

    #[test]
    fn the_loaders_current_folder_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        let stray = |path: &str| stray_library(OsStr::new(path), folder.path());
        assert_eq!(stray("/usr/lib:"), None, "nothing lies there");
        std::fs::write(folder.path().join("libcuda.so.1"), b"").unwrap();
        std::fs::write(folder.path().join("sub/libnvrtc-builtins.so.13.0"), b"").unwrap();
        for path in [":/usr/lib", "/usr/lib:", "/a::/b", ".", "/a;/b;", "sub", "./sub:/a"] {
            assert!(stray(path).is_some_and(|text| text.contains("LD_LIBRARY_PATH")), "{path:?}");
        }
        assert_eq!((stray(""), stray("/usr/lib:/b")), (None, None));
    }

    fn script(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("python3");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn python_is_asked_in_isolation_and_its_answer_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let ask =
            |text: &str, patience| python_path(&script(folder.path(), text), Duration::from_millis(patience));
        let found = ask("printf '/a\\nb\\n\\n./c\\n/d e\\n'", 20_000).unwrap();
        assert_eq!(found, [Path::new("/a"), Path::new("/d e")], "relative folders are left out");
        assert_eq!(ask("pwd; echo /flag$1", 20_000).unwrap(), [Path::new("/"), Path::new("/flag-I")]);
        assert_eq!(ask("exit 1", 20_000), None);
        let begun = Instant::now();
        assert_eq!(ask("sleep 30", 100), None);
        assert_eq!(ask("sleep 30 & echo /a", 100), None, "what it started keeps its output open");
        assert_eq!(ask("while :; do echo /a; done", 2_000), None, "without end");
        assert!(begun.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn python_is_not_looked_for_in_the_current_folder() {
        let folder = tempfile::tempdir().unwrap();
        let here = script(folder.path(), "");
        let path = |text: String| python_on(OsStr::new(&text));
        let shown = folder.path().display();
        assert_eq!(path(format!(":.:relative:{shown}")), Some(here.clone()));
        assert_eq!(path(":.:relative".into()), None);
        std::fs::set_permissions(&here, PermissionsExt::from_mode(0o777)).unwrap();
        assert_eq!(path(format!("{shown}")), None, "everyone may write to it");
    }

    #[test]
    fn code_of_strangers_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnvrtc.so");
        std::fs::write(&file, b"").unwrap();
        let set_mode =
            |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        trusted(&file).unwrap();
        set_mode(&file, 0o666);
        assert!(trusted(&file).unwrap_err().contains("it can be written by everyone"));
        set_mode(&file, 0o664);
        set_mode(folder.path(), 0o1777);
        assert!(trusted(&file).unwrap_err().contains("its folder can be"));
        set_mode(folder.path(), 0o755);
        trusted(&file).unwrap();
        if geteuid().is_root() {
            std::os::unix::fs::chown(&file, Some(12345), None).unwrap();
            assert!(trusted(&file).unwrap_err().contains("uid 12345"));
        }
    }
}
