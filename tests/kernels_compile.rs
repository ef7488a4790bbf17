//! Every kernel file compiles for every architecture that is supported, without spills.
//!
//! Needs NVRTC, which tools/test provides.

use records::device::gpu::cache::KernelCache;
use records::device::gpu::nvrtc::Target;
use records::device::gpu::sources;

/// RTX 3090's neighbours and H100: sm_80, sm_86, sm_89, sm_90a; and PTX for the interpreter.
const TARGETS: [Target; 5] =
    [Target::Ptx(80), Target::Cubin(80), Target::Cubin(86), Target::Cubin(89), Target::Cubin(90)];

#[test]
fn every_kernel_compiles_without_spills() {
    let cache = KernelCache::open().unwrap_or_else(|error| panic!("{error:#}"));
    assert!(!sources::KERNELS.is_empty());
    for source in sources::KERNELS {
        for target in TARGETS {
            let compiled = cache.compiled(source, target).unwrap_or_else(|error| panic!("{error:#}"));
            assert!(!compiled.code.is_empty(), "{} for {}", source.name, target.word());
            for line in compiled.log.lines().filter(|line| line.contains("spill")) {
                assert!(
                    line.contains("0 bytes spill stores, 0 bytes spill loads"),
                    "{} for {}: {line}",
                    source.name,
                    target.word()
                );
            }
            if matches!(target, Target::Cubin(_)) {
                assert!(
                    compiled.log.contains("registers"),
                    "{}: no report in {:?}",
                    source.name,
                    compiled.log
                );
            }
        }
    }
}
