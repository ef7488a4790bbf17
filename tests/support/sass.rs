//! Machine code as nvdisasm shows it, of a file of kernels for one architecture.

use std::collections::BTreeMap;
use std::process::Command;

use records::device::gpu::cache::KernelCache;
use records::device::gpu::nvrtc::Target;
use records::device::gpu::sources;

/// The machine code of every kernel of a file, by name.
pub fn disassembled(cache: &KernelCache, file: &str, architecture: u32) -> BTreeMap<String, String> {
    let source = sources::find(file).unwrap_or_else(|| panic!("no kernel file {file}"));
    let cubin =
        cache.compiled(source, Target::Cubin(architecture)).unwrap_or_else(|error| panic!("{error:#}"));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kernel.cubin");
    std::fs::write(&path, cubin.code).unwrap();
    let tool = std::env::var_os("RECORDS_NVDISASM").unwrap_or_else(|| "nvdisasm".into());
    let output = Command::new(&tool)
        .args(["-c"])
        .arg(&path)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}; set RECORDS_NVDISASM", tool.to_string_lossy()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut kernels = BTreeMap::new();
    for section in text.split(".text.").skip(1) {
        let name: String = section.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        *kernels.entry(name).or_insert_with(String::new) += section;
    }
    kernels
}
