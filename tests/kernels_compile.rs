//! Every kernel compiles for every architecture that facts are kept for, without spills, within the budgets of
//! kernels/budgets.txt; the machine code holds the instructions that the kernels are written for; and the
//! signatures that build.rs derives from the kernels agree with the compiler.
//!
//! tools/test provides the compiler and the disassembler (RECORDS_NVRTC, RECORDS_NVDISASM).
//! RECORDS_UPDATE_COSTS=1 regenerates the budgets for review as a diff.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use rayon::prelude::*;
use records::device::gpu::cache::KernelCache;
use records::device::gpu::kernels::{CONSTANTS, Kind, SIGNATURES};
use records::device::gpu::nvrtc::Target;
use records::device::gpu::sources::{self, Source};
use records::profile::facts::ARCHITECTURES;
use sass::disassembled;

/// Its unit tests run here, because a build script has none.
#[allow(dead_code)]
#[path = "../build/kernels.rs"]
mod build_kernels;
#[path = "support/sass.rs"]
mod sass;

/// The assembler's report on a kernel.
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

/// The kernels of a report: "Compiling entry function 'name'", "... bytes stack frame, ... spill ...", "Used
/// ... registers".
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

/// What every kernel of every file uses on each of these architectures.
fn usages_on<const N: usize>(
    cache: &KernelCache,
    architectures: [u32; N],
) -> BTreeMap<(&'static str, String), [Usage; N]> {
    assert!(!sources::KERNELS.is_empty());
    let compiled = |source: &'static Source, target: Target| {
        cache.compiled(source, target).unwrap_or_else(|error| panic!("{error:#}"))
    };
    let of_source = |source: &'static Source| {
        compiled(source, Target::Ptx(80));
        architectures.par_iter().map(move |&architecture| {
            let usages = usages(&compiled(source, Target::Cubin(architecture)).log);
            assert!(!usages.is_empty(), "{}: no report for sm_{architecture}", source.name);
            (source.name, architecture, usages)
        })
    };
    let every: Vec<_> = sources::KERNELS.par_iter().flat_map(|source| of_source(source)).collect();
    let mut all: BTreeMap<_, BTreeMap<u32, Usage>> = BTreeMap::new();
    for (file, architecture, usages) in every {
        for (kernel, usage) in usages {
            assert_eq!(usage.spilled, 0, "{kernel} of {file} spills for sm_{architecture}");
            all.entry((file, kernel)).or_default().insert(architecture, usage);
        }
    }
    // Every kernel exists for every architecture: the map panics otherwise.
    all.into_iter().map(|(kernel, usages)| (kernel, architectures.map(|one| usages[&one]))).collect()
}

/// sm_89 has the tensor cores of sm_86, and the assembler makes much the same of them: no kernel of sm_89 has more
/// registers.
#[test]
#[ignore = "a minute of two cores for an architecture that repeats another"]
fn sm_89_keeps_the_budget_of_sm_86() {
    for ((file, kernel), [sm_86, sm_89]) in usages_on(&cache(), [86, 89]) {
        assert!(sm_89.registers <= sm_86.registers, "{kernel} of {file}: {sm_89:?}, sm_86 {sm_86:?}");
        assert_eq!((sm_89.shared, sm_89.stack), (sm_86.shared, sm_86.stack), "{kernel} of {file}");
    }
}

#[test]
fn every_kernel_compiles_without_spills_and_within_its_budget() {
    let cache = cache();
    let all = usages_on(&cache, ARCHITECTURES);
    let (major, minor) = cache.compiler().found.version;
    let mut text = format!(
        "Registers per thread / static shared memory in bytes / stack in bytes, as NVRTC {major}.{minor} \
         reports them.\n{:<60}{:>16}{:>16}{:>16}\n",
        "kernel", "sm_80", "sm_86", "sm_90a"
    );
    for ((file, kernel), usages) in &all {
        let _ = write!(text, "{:<60}", format!("{file} {kernel}"));
        for usage in usages {
            let Usage { registers, shared, stack, .. } = usage;
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
            "kernels/budgets.txt differs; review and regenerate it with RECORDS_UPDATE_COSTS=1"
        );
    }
    assert_eq!(text.lines().count(), reviewed.lines().count(), "kernels/budgets.txt lists other kernels");
}

/// The parameters of every kernel of a PTX file, in the compiler's notation: `.param .u64 .ptr .align 1
/// pool_param_3,`.
fn ptx_parameters(ptx: &str) -> BTreeMap<String, Vec<String>> {
    let mut kernels = BTreeMap::new();
    for entry in ptx.split(".visible .entry ").skip(1) {
        let (name, rest) = entry.split_once('(').expect("parameters behind a name");
        let (list, _) = rest.split_once(')').expect("an end of the parameters");
        let parameters = list.split(',').filter_map(|line| line.trim().strip_prefix(".param "));
        kernels.insert(name.trim().into(), parameters.map(ptx_type).collect());
    }
    kernels
}

/// `.u64`, or alignment and bytes of a structure.
fn ptx_type(parameter: &str) -> String {
    let bytes = parameter.split_once('[').map(|(_, bytes)| bytes.trim_end_matches(']'));
    let words: Vec<&str> = parameter.split_whitespace().collect();
    match (words[0], bytes) {
        (".align", Some(bytes)) => format!("{} bytes by {}", bytes, words[1]),
        (kind, _) => kind.into(),
    }
}

/// Size and alignment of a parameter.
fn layout(kind: &Kind) -> (usize, usize) {
    match kind {
        Kind::Pointer => (8, 8),
        Kind::Count | Kind::Float => (4, 4),
        Kind::Structure(members) => {
            let members = members.iter().map(layout);
            let (end, alignment) = members.fold((0, 1), |(end, most), (size, alignment)| {
                (usize::next_multiple_of(end, alignment) + size, most.max(alignment))
            });
            (end.next_multiple_of(alignment), alignment)
        }
    }
}

/// The parameter in the compiler's notation.
fn written(kind: &Kind) -> String {
    match kind {
        Kind::Pointer => ".u64".into(),
        Kind::Count => ".u32".into(),
        Kind::Float => ".f32".into(),
        Kind::Structure(_) => {
            let (size, alignment) = layout(kind);
            format!("{size} bytes by {alignment}")
        }
    }
}

#[test]
fn the_generated_parameters_are_those_that_the_compiler_sees() {
    let cache = cache();
    let mut theirs = BTreeMap::new();
    for source in sources::KERNELS {
        let ptx = cache.compiled(source, Target::Ptx(80)).unwrap_or_else(|error| panic!("{error:#}"));
        let kernels = ptx_parameters(std::str::from_utf8(&ptx.code).unwrap());
        theirs.extend(kernels.into_iter().map(|(name, parameters)| ((source.name, name), parameters)));
    }
    let ours: BTreeMap<_, Vec<String>> = SIGNATURES
        .iter()
        .map(|(kernel, kinds)| {
            ((kernel.source.name, kernel.name.to_string()), kinds.iter().map(written).collect())
        })
        .collect();
    assert_eq!(ours, theirs);
    assert_eq!(ours.len(), SIGNATURES.len(), "a kernel is listed twice");
}

#[test]
fn the_generated_constants_are_those_of_the_kernels() {
    let cache = cache();
    let files = sources::KERNELS.iter().chain(sources::HEADERS);
    let mut compared = 0;
    for file in files {
        let own = CONSTANTS.iter().filter(|(name, _, _)| *name == file.name);
        let checks: String = own
            .inspect(|_| compared += 1)
            .map(|(_, name, value)| {
                format!("static_assert({name} == (decltype({name})){value:?}, \"{name}\");\n")
            })
            .collect();
        if !checks.is_empty() {
            // Kept until the end of the test, as sources are.
            let text = String::leak(file.text.replace("#pragma once", "") + &checks);
            let checked = Source { name: "constants.cu", text };
            cache
                .compiled(&checked, Target::Ptx(80))
                .unwrap_or_else(|error| panic!("{}: {error:#}", file.name));
        }
    }
    assert_eq!(compared, CONSTANTS.len());
    let wrong = format!(
        "{}static_assert(LAST_LOSS == 1, \"\");",
        records::device::gpu::kernels::counter::SOURCE.text
    );
    let wrong = Source { name: "constants.cu", text: String::leak(wrong) };
    assert!(cache.compiled(&wrong, Target::Ptx(80)).is_err(), "a wrong constant does not compile");
}

/// In [`MEANT`]: the tensor cores' instruction for the numbers of the kernel, of which its name tells.
const PRODUCTS: &str = "products";

fn products(kernel: &str) -> &'static str {
    match kernel {
        _ if kernel.ends_with("_f16_short") => "HMMA.16816.F16 ",
        _ if kernel.ends_with("_f16") => "HMMA.16816.F32 ",
        _ => "HMMA.16816.F32.BF16",
    }
}

/// Instructions that the machine code of a kernel must contain.
///
/// Tensor-core products ([`PRODUCTS`]), asynchronous copies of 16 bytes, matrix loads,
/// and loads and stores of 16 bytes per thread in kernels that stream memory.
const MEANT: [(&str, &str, &[&str]); 9] = [
    (
        "convolution_forward.cu",
        "convolution_forward_",
        &[PRODUCTS, "LDGSTS.E.BYPASS.128", "LDSM.16.M88.4", "STG.E.128"],
    ),
    (
        "convolution_data_gradient.cu",
        "convolution_data_gradient_",
        &[PRODUCTS, "LDGSTS.E.BYPASS.128", "LDSM.16.MT88", "STG.E.128"],
    ),
    (
        "convolution_weight_gradient.cu",
        "convolution_weight_gradient_",
        &[PRODUCTS, "LDGSTS.E.BYPASS.128", "LDSM.16.MT88"],
    ),
    ("convolution_stem.cu", "convolution_stem_", &[PRODUCTS]),
    ("batchnorm.cu", "batchnorm_apply", &["LDG.E.128", "STG.E.128"]),
    ("batchnorm.cu", "batchnorm_gradient_apply", &["LDG.E.128", "STG.E.128"]),
    ("batchnorm.cu", "batchnorm_gradient_sums", &["LDG.E.128"]),
    ("pooling.cu", "average_pool", &["LDG.E.128"]),
    ("optimizer.cu", "sgd", &["LDG.E.128", "STG.E.128"]),
];

#[test]
fn the_machine_code_holds_what_is_meant() {
    let cache = cache();
    for (file, prefix, instructions) in MEANT {
        let kernels = disassembled(&cache, file, 86);
        let mut seen = 0;
        for (name, code) in
            kernels.iter().filter(|(name, _)| name.starts_with(prefix) && !name.ends_with("_f32"))
        {
            seen += 1;
            for &instruction in instructions {
                let instruction = if instruction == PRODUCTS { products(name) } else { instruction };
                assert!(code.contains(instruction), "{name} of {file} has no {instruction}");
            }
        }
        assert!(seen > 0, "{file} has no kernel {prefix}*: {:?}", kernels.keys());
    }
}
