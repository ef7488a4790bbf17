//! What orders accesses and what does not: small CUDA kernels with a defect, and the same without it.
//!
//! Each file of `order/` has the source and, beside it, the PTX that NVRTC made of it. Before a kernel stands
//! how it is run and what must be found: `nothing`, `something`, or a part of the finding. The order in which
//! warps run must not matter.

use std::path::Path;
use std::process::Command;

/// One kernel: its name, the words of its launch, and what it must have.
struct Case {
    name: String,
    launch: Vec<String>,
    finds: String,
}

fn cases(source: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let (mut launch, mut finds) = (Vec::new(), String::new());
    for line in source.lines() {
        if let Some(words) = line.strip_prefix("// run: ") {
            launch = words.split_whitespace().map(str::to_string).collect();
        } else if let Some(words) = line.strip_prefix("// finds: ") {
            finds = words.to_string();
        } else if let Some(rest) = line.strip_prefix("extern \"C\" __global__ void ") {
            let name = rest.split('(').next().unwrap().to_string();
            assert!(!launch.is_empty() && !finds.is_empty(), "{name} does not say how it is run");
            cases.push(Case { name, launch: std::mem::take(&mut launch), finds: std::mem::take(&mut finds) });
        }
    }
    cases
}

/// What is wrong with a run of the case; the seed decides the order of warps.
fn wrong(ptx: &Path, case: &Case, seed: u32, threads: u32) -> Option<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_ptx-sim"))
        .arg("run")
        .arg(ptx)
        .args(["--entry", &case.name, "--seed", &seed.to_string(), "--threads", &threads.to_string()])
        .args(&case.launch)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.split("counters").next().unwrap();
    let right = match case.finds.as_str() {
        "nothing" => output.status.code() == Some(0),
        "something" => output.status.code() == Some(3),
        part => output.status.code() == Some(3) && findings.contains(part),
    };
    let error = String::from_utf8(output.stderr).unwrap();
    (!right)
        .then(|| format!("{} with seed {seed} must have {}, but: {findings}{error}", case.name, case.finds))
}

/// Runs every kernel of a file; there are `count`.
fn check(file: &str, count: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/order");
    let cases = cases(&std::fs::read_to_string(folder.join(file).with_extension("cu")).unwrap());
    let ptx = folder.join(file).with_extension("ptx");
    let text = std::fs::read_to_string(&ptx).unwrap();
    assert_eq!((cases.len(), text.matches(".entry ").count()), (count, count));
    let mut failures = Vec::new();
    for case in &cases {
        let mut runs = (0..4).map(|seed| (seed, 1)).chain([(0, 2)]);
        failures.extend(runs.find_map(|(seed, threads)| wrong(&ptx, case, seed, threads)));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn acquire() {
    check("acquire", 9);
}

#[test]
fn copies() {
    check("copies", 9);
}

#[test]
fn exits() {
    check("exits", 11);
}

#[test]
fn flags_of_lanes() {
    check("flags_of_lanes", 14);
}

#[test]
fn handover() {
    check("handover", 10);
}

#[test]
fn lanes() {
    check("lanes", 62);
}

#[test]
fn locks() {
    check("locks", 48);
}

#[test]
fn mbarriers() {
    check("mbarriers", 9);
}

#[test]
fn named_barriers() {
    check("named_barriers", 16);
}

#[test]
fn patterns() {
    check("patterns", 44);
}

#[test]
fn places() {
    check("places", 16);
}

#[test]
fn publication() {
    check("publication", 31);
}

#[test]
fn same_value() {
    check("same_value", 7);
}

#[test]
fn scopes() {
    check("scopes", 23);
}

#[test]
fn structures() {
    check("structures", 15);
}

#[test]
fn volatile() {
    check("volatile", 22);
}
