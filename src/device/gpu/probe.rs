//! What this machine has for the kernels: the NVIDIA driver and its GPUs, asked through cudarc, and whether
//! they and the run-time compiler fit together. All of it is opened at run time: a machine without it gets a
//! message that says what to install.

use std::ffi::c_int;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute};

use super::nvrtc_search::{self, FoundNvrtc, library_in_current_folder};

/// The NVIDIA driver and what it sees.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundDriver {
    /// Newest CUDA version that the driver serves: major, minor.
    pub cuda_version: (u32, u32),
    /// GPUs in the driver's order.
    pub gpus: Vec<FoundGpu>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundGpu {
    /// Name as the driver gives it.
    pub name: String,
    /// Compute capability: major, minor.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Memory, bytes.
    pub memory: u64,
}

impl FoundGpu {
    /// Compute capability times ten, 86 for sm_86.
    pub fn architecture(&self) -> u32 {
        let (major, minor) = self.compute_capability;
        major * 10 + minor
    }
}

/// What to do where there is no driver.
pub const INSTALL_DRIVER: &str = "for a GPU install the NVIDIA driver, 525 or newer";
/// What to do where there is no NVRTC.
pub const INSTALL_NVRTC: &str =
    "`pip install nvidia-cuda-nvrtc-cu12`, or install the CUDA toolkit, or set RECORDS_NVRTC to libnvrtc.so";

/// The calls made here; cudarc panics where the library lacks one.
const CALLS: [&str; 8] = [
    "cuInit",
    "cuGetErrorName",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceTotalMem_v2",
    "cuDeviceGetAttribute",
];

/// Asks the NVIDIA driver for its version and GPUs.
///
/// # Errors
/// One line: no driver library, or which of its calls failed and how.
pub fn driver() -> Result<FoundDriver, String> {
    if let Some(file) = library_in_current_folder() {
        return Err(file);
    }
    // SAFETY: opening a library runs its initialisers; this one is the system's NVIDIA driver.
    if !unsafe { sys::is_culib_present() } {
        return Err("no libcuda.so.1".into());
    }
    // SAFETY: as above; it is present, and stays open to the end of the program.
    let library = unsafe { sys::culib() };
    // SAFETY: the symbols are looked up and not called.
    let lacks = |call: &&&str| unsafe { library.get::<*const ()>(call.as_bytes()) }.is_err();
    if let Some(call) = CALLS.iter().find(lacks) {
        return Err(format!("the NVIDIA driver library has no {call}"));
    }
    result::init().map_err(|error| failed("cuInit", error))?;
    let mut version: c_int = 0;
    // SAFETY: the pointer is to a live int.
    unsafe { sys::cuDriverGetVersion(&mut version) }
        .result()
        .map_err(|error| failed("cuDriverGetVersion", error))?;
    let count = result::device::get_count().map_err(|error| failed("cuDeviceGetCount", error))?;
    let gpus = (0..count).map(gpu).collect::<Result<_, String>>()?;
    Ok(FoundDriver { cuda_version: major_minor(version), gpus })
}

fn failed(call: &str, error: DriverError) -> String {
    let code = error.0 as c_int;
    match error.error_name() {
        // What the toolkit installs for linking; it does nothing.
        _ if error.0 == sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
            let what = "libcuda.so is the CUDA toolkit's stub and not the driver";
            format!("{what}; take its folder `stubs` out of LD_LIBRARY_PATH")
        }
        Ok(name) => format!("{call} failed with {} ({code})", name.to_string_lossy()),
        Err(_) => format!("{call} failed with error {code}"),
    }
}

/// 12040 as (12, 4).
fn major_minor(version: c_int) -> (u32, u32) {
    let version = version.unsigned_abs();
    (version / 1000, version % 1000 / 10)
}

/// One of the driver's GPUs.
fn gpu(ordinal: c_int) -> Result<FoundGpu, String> {
    let device = result::device::get(ordinal).map_err(|error| failed("cuDeviceGet", error))?;
    let attribute = |attribute| {
        // SAFETY: the driver returned the device.
        let value = unsafe { result::device::get_attribute(device, attribute) };
        value.map(c_int::unsigned_abs).map_err(|error| failed("cuDeviceGetAttribute", error))
    };
    // SAFETY: the driver returned the device.
    let memory = unsafe { result::device::total_mem(device) };
    Ok(FoundGpu {
        name: result::device::get_name(device).map_err(|error| failed("cuDeviceGetName", error))?,
        memory: memory.map_err(|error| failed("cuDeviceTotalMem_v2", error))? as u64,
        compute_capability: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
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

/// Whether the kernels can run on this machine's first GPU: the driver, its GPUs, and an NVRTC that fits
/// them.
///
/// # Errors
/// The first thing that is missing, with its remedy.
pub fn usable() -> Result<FoundDriver, Missing> {
    check(driver(), nvrtc_search::find)
}

fn check(
    driver: Result<FoundDriver, String>,
    nvrtc: impl FnOnce() -> Result<FoundNvrtc, String>,
) -> Result<FoundDriver, Missing> {
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
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_split_as_cuda_writes_them() {
        assert_eq!(major_minor(12040), (12, 4));
        assert_eq!(major_minor(13000), (13, 0));
    }

    /// Each thing that can be missing is named with its remedy, in the order a user would meet them.
    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        let gpu = |compute_capability| FoundGpu {
            name: "GPU".into(),
            compute_capability,
            multiprocessors: 82,
            memory: 1 << 34,
        };
        let driver = |cuda_version, gpus: Vec<FoundGpu>| Ok(FoundDriver { cuda_version, gpus });
        let nvrtc = |version, has_builtins| FoundNvrtc {
            path: "/n".into(),
            found_by: "test".into(),
            version,
            has_builtins: Some(has_builtins),
        };
        let modern = || driver((12, 4), vec![gpu((8, 6))]);
        let fits = || Ok(nvrtc((12, 2), true));
        assert!(check(modern(), fits).is_ok());
        let message = |driver, nvrtc: Result<FoundNvrtc, String>| {
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
}
