//! Where the run-time compiler NVRTC lies: an environment variable, toolkits, Python packages, the loader's
//! path. Code is taken only from where a stranger could not have put it.

use std::ffi::{OsStr, OsString, c_int};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use libloading::Library;
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, geteuid, kill_process_group};

/// The run-time compiler.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundNvrtc {
    /// The library, or only its name where the loader found it by itself.
    pub path: PathBuf,
    /// What led there: an environment variable, a toolkit, a Python package, the loader.
    pub found_by: String,
    /// Version: major, minor.
    pub version: (u32, u32),
    /// Whether `libnvrtc-builtins`, which compiling needs, lies beside it; `None` where the folder is not
    /// known.
    pub has_builtins: Option<bool>,
}

/// A place where NVRTC may be: a library or a folder of libraries.
#[derive(Clone, Debug, PartialEq)]
struct Place {
    /// Library or folder.
    path: PathBuf,
    /// What names the place.
    named_by: String,
}

/// Finds NVRTC: `RECORDS_NVRTC` and nothing else where it is set; toolkits, packages of the active Python,
/// the loader's path, in this order.
///
/// # Errors
/// One line that says which libraries were found and could not be opened, if any.
pub fn find() -> Result<FoundNvrtc, String> {
    let mut failures = Vec::new();
    let places = named_places(&|name| std::env::var_os(name));
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
        for library in libraries_at(&place.path) {
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
            match version_of(&library) {
                Ok(version) => {
                    let has_builtins = library.parent().map(has_builtins);
                    return Ok(FoundNvrtc { path: library, found_by: place.named_by, version, has_builtins });
                }
                // The loader's own message often begins with the path.
                Err(reason) if reason.starts_with(&*library.to_string_lossy()) => failures.push(reason),
                Err(reason) => failures.push(format!("{}: {reason}", library.display())),
            }
        }
        // An explicit path is final: falling back would hide a typing error.
        if place.named_by == NVRTC_VARIABLE {
            let shown = place.path.display();
            let none = format!("{NVRTC_VARIABLE}={shown}: no libnvrtc.so there");
            return Err(failures.pop().map_or(none, |reason| format!("{NVRTC_VARIABLE}: {reason}")));
        }
    }
    for name in ["libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"] {
        if let Ok(version) = version_of(Path::new(name)) {
            let found_by = "the loader's path".to_string();
            return Ok(FoundNvrtc { path: name.into(), found_by, version, has_builtins: None });
        }
    }
    if failures.is_empty() { Err("no libnvrtc.so".to_string()) } else { Err(failures.join("; ")) }
}

/// Environment variable that names the NVRTC library or its folder.
const NVRTC_VARIABLE: &str = "RECORDS_NVRTC";

/// Where NVRTC may be by the environment variables that `variable` answers and by the usual folders. Relative
/// paths, which lead to whatever folder is the current one, count as not set, except that of `RECORDS_NVRTC`.
fn named_places(variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<Place> {
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
            places.extend(packages_of(&root).iter().flat_map(|folder| wheel_places(folder)));
            places.push(Place { path: root.join("lib"), named_by: name.into() });
        }
    }
    places
}

/// Folders of NVRTC in the packages of the `python3` on the path.
fn python_places() -> Vec<Place> {
    packages_on_path().iter().flat_map(|folder| wheel_places(folder)).collect()
}

/// The folders of packages of a Python environment.
fn packages_of(root: &Path) -> Vec<PathBuf> {
    let pythons = entries(&root.join("lib")).into_iter().filter(|path| name_of(path).starts_with("python3"));
    pythons.map(|python| python.join("site-packages")).collect()
}

/// Those of the `python3` on the path.
fn packages_on_path() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    python_on(&path).and_then(|python| python_path(&python, PYTHON_PATIENCE)).unwrap_or_default()
}

/// Those of the active environment and of the `python3` on the path.
#[cfg(feature = "nccl")]
pub fn package_folders() -> Vec<PathBuf> {
    let roots = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(std::env::var_os).map(PathBuf::from);
    let active = roots.filter(|root| root.is_absolute()).flat_map(|root| packages_of(&root));
    active.chain(packages_on_path()).collect()
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
/// The longest answer that is read, bytes: what a pipe holds.
const MOST_OF_ANSWER: usize = 1 << 16;

/// The absolute folders of `sys.path` of `python` and of the user's own packages; `None` where it does not
/// answer in time.
///
/// It is asked in isolation: what lies in the current folder or where PYTHON variables lead is neither run
/// nor believed.
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

/// What a program prints, less than [`MOST_OF_ANSWER`] bytes; `None` where it fails or takes longer than
/// `patience`.
fn answer_of(mut command: Command, patience: Duration) -> Option<String> {
    command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
    let asked = Instant::now();
    let mut program = command.process_group(0).spawn().ok()?;
    let mut succeeded = false;
    // Nobody reads meanwhile: a pipe holds 64 KiB, and a program that prints more waits until it is stopped.
    while asked.elapsed() < patience {
        if let Ok(Some(status)) = program.try_wait() {
            succeeded = status.success();
            break;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    // Whether or not it has ended, it and what it started are gone after this.
    if let Some(group) = i32::try_from(program.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = program.wait();
    let mut output = program.stdout.take().filter(|_| succeeded)?;
    // What left the group may still hold the pipe open: only what lies in it already is read.
    ioctl_fionbio(&output, true).ok()?;
    let mut bytes = vec![0; MOST_OF_ANSWER];
    let len = output.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..len]).into_owned())
}

/// Whether code may be taken from a file: it and its folder belong to root or this user, and not everyone may
/// write to them.
///
/// # Errors
/// Says what is wrong.
pub(super) fn trusted(file: &Path) -> Result<(), String> {
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

/// A complaint where the loader would look for CUDA's libraries in the current folder, and one lies there: it
/// searches a relative or empty part of LD_LIBRARY_PATH from there.
pub(super) fn library_in_current_folder() -> Option<String> {
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
fn libraries_at(path: &Path) -> Vec<PathBuf> {
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

fn version_of(library: &Path) -> Result<(u32, u32), String> {
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
    // CUDA's libraries start threads and do not survive being closed: it stays open to the end of the
    // program.
    std::mem::forget(library);
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

/// Sorts by the numbers in the names, the largest first, then by name, so that the order never depends on the
/// disk.
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
    fn variables_come_first_and_in_order() {
        let answers = |name: &str| match name {
            "RECORDS_NVRTC" => Some(OsString::from("/a/libnvrtc.so.12")),
            "CUDA_HOME" => Some(OsString::from("/b")),
            "CUDA_PATH" => Some(OsString::new()),
            _ => None,
        };
        let places = named_places(&answers);
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
        let places = named_places(&answers);
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
        let found: Vec<String> = libraries_at(folder.path()).iter().map(|path| name_of(path)).collect();
        assert_eq!(found, ["libnvrtc.so.12", "libnvrtc.so.9.0", "libnvrtc.so"]);
        assert!(has_builtins(folder.path()));
        let error = version_of(&folder.path().join("libnvrtc.so.12")).unwrap_err();
        assert!(!error.is_empty() && !error.contains('\n'), "an empty file is no library: {error}");
    }

    #[test]
    fn relative_variables_name_no_place() {
        for name in ["CUDA_HOME", "CUDA_PATH", "VIRTUAL_ENV", "CONDA_PREFIX"] {
            for value in [".", "cuda", "./x", ""] {
                let answers = |asked: &str| (asked == name).then(|| OsString::from(value));
                let places = named_places(&answers);
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
        let held = ask("sleep 30 & echo /a", 10_000);
        assert_eq!(held.unwrap(), [Path::new("/a")], "that its output stays open holds nothing up");
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
