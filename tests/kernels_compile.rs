//! Every kernel compiles for every supported architecture, without spills, within the budgets of kernels/budgets.txt; and the machine
//! code holds the instructions that the kernels are written for.
//!
//! tools/test provides the compiler and the disassembler (RECORDS_NVRTC, RECORDS_NVDISASM). RECORDS_UPDATE_COSTS=1 writes the
//! budgets anew, to be reviewed as a diff.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use records::device::gpu::cache::KernelCache;
use records::device::gpu::nvrtc::Target;
use records::device::gpu::sources;

const ARCHITECTURES: [u32; 4] = [80, 86, 89, 90];

/// What the assembler reports of a kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Usage {
    registers: u32,
    shared: u32,
    stack: u32,
    spilled: u32,
}

fn cache() -> KernelCache {
    KernelCache::open().unwrap_or_else(|error| panic!("{error:#}"))
}

/// The number before `unit` in a line of the report.
fn number_before(line: &str, unit: &str) -> Option<u32> {
    let before = line[..line.find(unit)?].trim_end();
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The kernels of a report: "Compiling entry function 'name'", "... bytes stack frame, ... spill ...", "Used ... registers".
fn usages(log: &str) -> BTreeMap<String, Usage> {
    let mut kernels = BTreeMap::new();
    let mut entry: Option<String> = None;
    let (mut stack, mut spilled) = (0, 0);
    for line in log.lines() {
        if let Some(rest) = line.split("Compiling entry function '").nth(1) {
            entry = rest.split('\'').next().map(String::from);
            (stack, spilled) = (0, 0);
        }
        if line.contains("bytes stack frame") {
            stack += number_before(line, "bytes stack frame").unwrap();
            spilled += number_before(line, "bytes spill stores").unwrap();
            spilled += number_before(line, "bytes spill loads").unwrap();
        }
        if line.contains("Used ") && line.contains("registers") {
            let registers = number_before(line, "registers").unwrap();
            let shared = number_before(line, "bytes smem").unwrap_or(0);
            let name = entry.take().expect("a kernel before its figures");
            kernels.insert(name, Usage { registers, shared, stack, spilled });
        }
    }
    kernels
}

#[test]
fn every_kernel_compiles_without_spills_and_within_its_budget() {
    let cache = cache();
    assert!(!sources::KERNELS.is_empty());
    let mut all: BTreeMap<(&str, String), [Option<Usage>; 4]> = BTreeMap::new();
    for source in sources::KERNELS {
        cache.compiled(source, Target::Ptx(80)).unwrap_or_else(|error| panic!("{error:#}"));
        for (column, architecture) in ARCHITECTURES.into_iter().enumerate() {
            let target = Target::Cubin(architecture);
            let compiled = cache.compiled(source, target).unwrap_or_else(|error| panic!("{error:#}"));
            let usages = usages(&compiled.log);
            assert!(!usages.is_empty(), "{}: no report in {:?}", source.name, compiled.log);
            for (kernel, usage) in usages {
                assert_eq!(usage.spilled, 0, "{kernel} of {} spills for {}", source.name, target.word());
                all.entry((source.name, kernel)).or_default()[column] = Some(usage);
            }
        }
    }
    let (major, minor) = cache.compiler().found.version;
    let mut text = format!(
        "Registers a thread / static shared memory in bytes / stack in bytes, as NVRTC {major}.{minor} reports them.\n{:<60}{:>16}{:>16}{:>16}{:>16}\n",
        "kernel", "sm_80", "sm_86", "sm_89", "sm_90a"
    );
    for ((file, kernel), usages) in &all {
        let _ = write!(text, "{:<60}", format!("{file} {kernel}"));
        for usage in usages {
            let Usage { registers, shared, stack, .. } =
                usage.expect("every kernel exists for every architecture");
            let _ = write!(text, "{:>16}", format!("{registers}/{shared}/{stack}"));
        }
        text.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels/budgets.txt");
    if std::env::var_os("RECORDS_UPDATE_COSTS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    for (ours, theirs) in text.lines().zip(reviewed.lines()) {
        assert_eq!(
            ours, theirs,
            "kernels/budgets.txt differs; review and write it anew with RECORDS_UPDATE_COSTS=1"
        );
    }
    assert_eq!(text.lines().count(), reviewed.lines().count(), "kernels/budgets.txt lists other kernels");
}
