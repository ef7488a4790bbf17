//! `records doctor`: what this machine offers for training, and what to install for what is missing.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::output;
use crate::data::decode;
use crate::data::registry::folder::folders_in;
use crate::data::registry::{self, archives};
use crate::device::cpu::instructions::{self, PairSums};
use crate::device::cpu::threads;
use crate::device::gpu::cache::{KernelCache, Place};
#[cfg(feature = "nccl")]
use crate::device::gpu::nccl;
use crate::device::gpu::nvrtc_search;
use crate::device::gpu::probe::{self, FoundGpu, INSTALL_DRIVER, INSTALL_NVRTC};
use crate::device::gpu::tiles::{self, MeasuredOn};
use crate::device::gpu::{branches, gpu_code};
use crate::settings::Settings;
use crate::text::printable;
use crate::usage;

/// Arguments of `records doctor`.
#[derive(Args, Clone, Debug, Default)]
pub struct DoctorArguments {
    /// Folder to look for data sets in `[default: data]`
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Fail if it is missing: gpu (a GPU that can run the kernels) or nvrtc
    #[arg(long, value_name = "WORD", value_parser = ["gpu", "nvrtc"])]
    pub require: Option<String>,
}

/// Prints the table. Something missing is a row of it, not an error.
///
/// # Errors
/// If standard output cannot be written; a usage error if something required is missing.
pub fn run(arguments: &DoctorArguments) -> Result<()> {
    let driver = probe::driver();
    let mut rows = vec![
        row(
            "records",
            format!("{} ({}, {})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH, std::env::consts::OS),
        ),
        row("device", device_of_auto()),
        row("CPU", cpu_model()),
        row("cores", cores()),
        row("SIMD", simd()),
        row("memory", memory()),
    ];
    match &driver {
        Ok(driver) => {
            let (major, minor) = driver.cuda_version;
            rows.push(row("NVIDIA driver", format!("found, serves CUDA up to {major}.{minor}")));
            if driver.gpus.is_empty() {
                rows.push(row("GPU", "none that the driver sees; look at CUDA_VISIBLE_DEVICES".into()));
            }
            for (index, gpu) in driver.gpus.iter().enumerate() {
                let (major, minor) = gpu.compute_capability;
                rows.push(row(
                    &format!("GPU {index}"),
                    format!(
                        "{}, sm_{major}{minor}, {} multiprocessors, {}",
                        gpu.name,
                        gpu.multiprocessors,
                        gibibytes(gpu.memory)
                    ),
                ));
            }
        }
        Err(reason) => rows.push(row("NVIDIA driver", format!("{reason}; {INSTALL_DRIVER}"))),
    }
    rows.push(row("NVRTC", nvrtc()));
    rows.push(row("NCCL", nccl()));
    let first = driver.as_ref().ok().and_then(|driver| driver.gpus.first());
    let architecture = first.map(FoundGpu::architecture);
    rows.push(row("GPU code", gpu_code::describe(architecture)));
    rows.push(row("branches", branches::describe()));
    rows.push(row("tiles", tiles::describe(first.and_then(measured_on).as_ref())));
    rows.push(row("kernel cache", kernel_cache()));
    rows.push(row("image cache", image_cache()));
    let folder = arguments.data_dir.as_deref().unwrap_or(Path::new("data"));
    let found = data_sets(folder);
    if found.is_empty() {
        rows.push(row("data", format!("none in {}; {}", shown(folder), how_to_get_one(folder))));
    }
    rows.extend(found.into_iter().map(|found| row("data", found)));
    rows.push(row("runs", runs_folder(&Settings::default().exp_dir)));
    output::print(&output::table(&rows))?;
    match arguments.require.as_deref() {
        Some("gpu") => probe::usable().map(|_| ()).map_err(|missing| usage!("no GPU to use: {missing}")),
        Some(_) => nvrtc_search::find().map(|_| ()).map_err(|reason| usage!("{reason}; {INSTALL_NVRTC}")),
        None => Ok(()),
    }
}

/// How to get a data set.
fn how_to_get_one(folder: &Path) -> String {
    let archives = archives();
    let Some((first, others)) = archives.split_first() else {
        return "--dataset synthetic needs none".into();
    };
    let others: Vec<&str> = others.iter().map(|archive| archive.word).collect();
    format!(
        "{} (or {}) downloads one, --dataset synthetic needs none",
        first.command(folder),
        others.join(", ")
    )
}

fn row(item: &str, found: String) -> [String; 2] {
    [item.to_string(), one_line(&found)]
}

/// Names of GPUs, CPUs and folders come from outside and must not break the table.
fn one_line(text: &str) -> String {
    printable(text)
}

fn shown(path: &Path) -> String {
    one_line(&path.display().to_string())
}

/// The device that `--device auto` chooses, and why.
fn device_of_auto() -> String {
    match probe::usable() {
        Ok(_) => "--device auto takes cuda, the first GPU below".into(),
        Err(missing) => format!("--device auto takes cpu: {missing}"),
    }
}

fn nvrtc() -> String {
    match nvrtc_search::find() {
        Ok(nvrtc) => {
            let (major, minor) = nvrtc.version;
            let builtins = match nvrtc.has_builtins {
                Some(false) => "; libnvrtc-builtins is missing beside it, install the package again",
                _ => "",
            };
            format!("{major}.{minor}, {} (by {}){builtins}", shown(&nvrtc.path), nvrtc.found_by)
        }
        Err(reason) => format!("{reason}; {INSTALL_NVRTC}"),
    }
}

/// What times of a GPU would be kept by; `None` where its kernels cannot be compiled.
fn measured_on(gpu: &FoundGpu) -> Option<MeasuredOn> {
    MeasuredOn::of(gpu, &KernelCache::open().ok()?).ok()
}

/// What several GPUs exchange over.
#[cfg(feature = "nccl")]
fn nccl() -> String {
    match nccl::Nccl::find() {
        Ok(found) => format!("{}, {}", found.version(), shown(&found.path)),
        Err(reason) => format!("{reason}; {}", nccl::INSTALL),
    }
}

/// What several GPUs exchange over.
#[cfg(not(feature = "nccl"))]
fn nccl() -> String {
    "not built in; for several GPUs build with --features nccl".into()
}

/// Where compiled kernels are kept, or why they are not.
fn kernel_cache() -> String {
    match Place::find() {
        Ok(Place::Folder(folder)) => shown(&folder),
        Ok(Place::Nowhere(reason)) => format!("none, kernels are compiled every time: {reason}"),
        Err(error) => format!("unusable: {error}"),
    }
}

/// Where decoded images are kept, or why they are not.
fn image_cache() -> String {
    match decode::image_cache() {
        Ok(Some(folder)) => shown(&folder),
        Ok(None) => "none, image files are decoded every time".into(),
        Err(error) => format!("unusable: {error}"),
    }
}

/// The text of a small system file; `None` if it cannot be read. Files in /proc do not report a length.
fn system_file(path: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(1 << 20).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The value of `key : value` in a line.
fn value_of<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (found, value) = line.split_once(':')?;
    (found.trim() == key).then(|| value.trim())
}

fn cpu_model() -> String {
    let information = system_file("/proc/cpuinfo").unwrap_or_default();
    let model = information.lines().find_map(|line| value_of(line, "model name"));
    model.unwrap_or("unknown model").to_string()
}

fn cores() -> String {
    let information = system_file("/proc/cpuinfo").unwrap_or_default();
    let mut cores = BTreeSet::new();
    for processor in information.split("\n\n") {
        let field = |key| processor.lines().find_map(|line| value_of(line, key));
        if let (Some(socket), Some(core)) = (field("physical id"), field("core id")) {
            cores.insert((socket, core));
        }
    }
    let mut threads = format!("{} threads for --threads 0", threads::allowed());
    if let Some(quota) = threads::quota() {
        threads.push_str(&format!(" (a quota of {quota:.1} processors)"));
    }
    if cores.is_empty() { threads } else { format!("{}, {threads}", cores.len()) }
}

fn simd() -> String {
    #[cfg(target_arch = "x86_64")]
    let features = [
        ("sse4.2", is_x86_feature_detected!("sse4.2")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("f16c", is_x86_feature_detected!("f16c")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
        ("avx512bw", is_x86_feature_detected!("avx512bw")),
        ("avx512vl", is_x86_feature_detected!("avx512vl")),
        ("avx512bf16", is_x86_feature_detected!("avx512bf16")),
    ];
    #[cfg(target_arch = "aarch64")]
    let features = [("neon", std::arch::is_aarch64_feature_detected!("neon"))];
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let features: [(&str, bool); 0] = [];
    let found: Vec<&str> = features.into_iter().filter_map(|(name, found)| found.then_some(name)).collect();
    let found = if found.is_empty() { "none that is known".to_string() } else { found.join(" ") };
    match instructions::chosen() {
        Ok(level) => format!("{level} (of {found}); --precision bf16: {}", PairSums::of(level)),
        Err(error) => format!("{error} (of {found})"),
    }
}

fn memory() -> String {
    let information = system_file("/proc/meminfo").unwrap_or_default();
    let bytes = |key| {
        let value = information.lines().find_map(|line| value_of(line, key))?;
        value.trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let (Some(total), Some(free)) = (bytes("MemTotal"), bytes("MemAvailable")) else {
        return "unknown".to_string();
    };
    let mut text = format!("{}, {} free", gibibytes(total), gibibytes(free));
    // In a container, its limit counts.
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = limits.iter().find_map(|path| system_file(path)?.trim().parse::<u64>().ok());
    if let Some(limit) = limit.filter(|limit| *limit < total) {
        text.push_str(&format!(", limited to {} here", gibibytes(limit)));
    }
    text
}

fn gibibytes(bytes: u64) -> String {
    // In tenths, without floating point.
    let tenths = u128::from(bytes) * 10 / (1 << 30);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// One line for each data set in `folder` or in a folder directly inside it.
fn data_sets(folder: &Path) -> Vec<String> {
    let mut folders = vec![folder.to_path_buf()];
    folders.extend(folders_in(folder));
    folders.iter().filter_map(|folder| data_set(folder)).collect()
}

/// The data set in `folder`, and what is wrong with it.
fn data_set(folder: &Path) -> Option<String> {
    let (what, remark) = registry::ALL.iter().find_map(|set| (set.recognise)(folder))?;
    Some(format!("{what} in {}{remark}", shown(folder)))
}

/// Whether runs can be written, according to permissions; nothing is created.
fn runs_folder(folder: &Path) -> String {
    let place = shown(folder);
    let (tried, what) = if folder.is_dir() {
        (folder.to_path_buf(), format!("{place} can be written"))
    } else if folder.exists() {
        return format!("{place} is not a folder; use --exp-dir");
    } else {
        (PathBuf::from("."), format!("{place} can be created"))
    };
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    match accessat(CWD, &tried, wanted, AtFlags::EACCESS) {
        Ok(()) => what,
        Err(number) => {
            let error = std::io::Error::from(number);
            format!("{} cannot be written: {error}; use --exp-dir", shown(&tried))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn sparse_file(path: PathBuf, bytes: u64) {
        File::create(path).unwrap().set_len(bytes).unwrap();
    }

    #[test]
    fn data_sets_are_found_and_short_files_reported() {
        let root = tempfile::tempdir().unwrap();
        assert!(data_sets(root.path()).is_empty());
        assert!(data_sets(&root.path().join("none")).is_empty());

        let cifar10 = root.path().join("cifar-10-batches-bin");
        fs::create_dir(&cifar10).unwrap();
        for i in 1..=5 {
            sparse_file(cifar10.join(format!("data_batch_{i}.bin")), 30_730_000);
        }
        sparse_file(cifar10.join("test_batch.bin"), 30_729_999);
        let cifar100 = root.path().join("cifar-100-binary");
        fs::create_dir(&cifar100).unwrap();
        sparse_file(cifar100.join("train.bin"), 153_700_000);
        let birds = root.path().join("birds");
        for folder in ["train/owl", "train/tit", "test/owl", "test/tit"] {
            fs::create_dir_all(birds.join(folder)).unwrap();
        }
        let (listed, voc) = (root.path().join("listed"), root.path().join("PLL"));
        fs::create_dir_all(voc.join("train_var")).unwrap();
        sparse_file(voc.join("train_var/images_PLL.csv"), 1);
        fs::create_dir(&listed).unwrap();
        sparse_file(listed.join("train.csv"), 1);

        let mut found = data_sets(root.path());
        assert_eq!(found.len(), 5, "{found:?}");
        assert!(
            found[0].contains("PASCAL VOC") && found[0].ends_with("test part is missing"),
            "{}",
            found[0]
        );
        assert!(found[4].ends_with("listed: train.csv without test.csv"), "{}", found[4]);
        found.remove(0);
        assert!(found[0].ends_with("birds: 2 classes in train, 2 in test"), "{}", found[0]);
        assert!(found[1].contains("CIFAR-10 ") && found[1].contains("30729999 bytes"), "{}", found[1]);
        assert!(found[1].ends_with("records data fetch cifar10"), "{}", found[1]);
        assert!(
            found[2].contains("CIFAR-100") && found[2].contains("test.bin is missing; move"),
            "{}",
            found[2]
        );
        // Named directly it is the only one.
        assert_eq!(data_sets(&birds).len(), 1);
    }

    #[test]
    fn memory_is_shown_in_tenths() {
        assert_eq!(gibibytes(80 * (1 << 30) + (1 << 29)), "80.5 GiB");
        assert_eq!(gibibytes(u64::MAX), "17179869183.9 GiB");
    }

    #[test]
    fn runs_folder_says_what_is_in_the_way() {
        let root = tempfile::tempdir().unwrap();
        assert!(runs_folder(root.path()).ends_with("can be written"));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "nothing is made");
        let file = root.path().join("runs");
        fs::write(&file, b"").unwrap();
        assert!(runs_folder(&file).contains("is not a folder"));
    }
}
