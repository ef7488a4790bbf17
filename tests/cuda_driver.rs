//! The CUDA driver layer against a stand-in for NVIDIA's library: which calls an epoch makes, and what
//! failures look like. Where only the calls matter, the stand-in checks and logs the kernels and does not run
//! them; tests/cuda_stand_in/ runs them.
#![cfg(target_os = "linux")]

#[path = "support/stand_in.rs"]
mod stand_in;

use std::path::Path;
use std::process::{Command, Output};

use stand_in::{kernel_cache, stand_in};

/// Runs the program with the stand-in, and variables for both.
fn records_with(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(arguments).current_dir(folder);
    command.env("RECORDS_GPU_CODE", "ptx").env("STAND_IN_SKIP", "1");
    command.env("LD_LIBRARY_PATH", stand_in()).env("STAND_IN_LOG", folder.join("calls"));
    command.envs(variables.iter().copied()).output().unwrap()
}

fn records(folder: &Path, arguments: &[&str], fail: Option<&str>) -> Output {
    let fail = fail.map(|fail| ("STAND_IN_FAIL", fail));
    records_with(folder, arguments, fail.as_slice())
}

fn calls(folder: &Path) -> String {
    std::fs::read_to_string(folder.join("calls")).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const TRAIN: [&str; 7] = ["train", "--preset", "tiny", "--device", "cuda", "--name", "run"];

#[test]
fn an_epoch_is_one_graph_launch_a_step() {
    let folder = tempfile::tempdir().unwrap();
    let output = records(folder.path(), &TRAIN, None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("Stand-in GPU"), "{}", text(&output.stdout));
    let calls = calls(folder.path());
    assert!(calls.starts_with("cuInit eager"), "kernels are loaded with their modules");
    let lines: Vec<&str> = calls.lines().collect();
    let is = |line: &&str, name: &str| line.split(' ').next() == Some(name);
    let count = |name: &str| lines.iter().filter(|line| is(line, name)).count();
    assert_eq!(count("cuStreamBeginCapture_v2"), count("cuStreamEndCapture"));
    assert!(count("cuStreamBeginCapture_v2") >= 2, "a step and an evaluation are recorded");
    let captured = lines.iter().filter(|line| line.starts_with("cuLaunchKernel captured")).count();
    assert!(captured > 100, "a step of ResNet-18 has more than {captured} launches");
    // From the first graph launch on, a step is nothing but its graph.
    let first = lines.iter().position(|line| is(line, "cuGraphLaunch")).unwrap();
    let steps = lines[first..].iter().take_while(|line| is(line, "cuGraphLaunch")).count();
    assert_eq!(steps, 4, "78 samples in batches of 16 are four steps\n{}", lines[first..].join("\n"));
    for name in ["cuMemAlloc_v2", "cuModuleLoadData", "cuLaunchKernel", "cuMemFree_v2"] {
        let after = lines[first..].iter().position(|line| is(line, name));
        let last = lines.iter().rposition(|line| is(line, "cuGraphLaunch")).unwrap() - first;
        assert!(after.is_none_or(|at| at > last), "{name} while training");
    }
    // Weight gradients fork and join.
    let waits = lines.iter().filter(|line| line.starts_with("cuStreamWaitEvent captured")).count();
    assert!(waits > 20, "{waits} waits of one branch for the other");
    // Everything taken is given back.
    assert_eq!(count("cuMemAlloc_v2"), count("cuMemFree_v2"));
    assert_eq!(count("cuEventCreate"), count("cuEventDestroy_v2"));
    assert_eq!(count("cuStreamCreate"), count("cuStreamDestroy_v2"));
    assert_eq!(count("cuModuleLoadData"), count("cuModuleUnload"));
    assert_eq!(count("cuGraphInstantiateWithFlags"), count("cuGraphExecDestroy"));
}

#[test]
fn a_failing_driver_is_one_clear_line() {
    for (fail, words) in [
        ("cuMemAlloc_v2:2", ["not enough GPU memory", "try a smaller --batch-size"]),
        ("cuModuleLoadData:218", ["loading", "compute_86"]),
        ("cuCtxSetCurrent:201", ["cuCtxSetCurrent", "CUDA_ERROR_INVALID_CONTEXT"]),
        ("cuStreamSynchronize:700", ["CUDA", "illegal memory access"]),
        ("cuGraphLaunch:700", ["launching the step", "illegal memory access"]),
        ("cuStreamEndCapture:900", ["recording the step", "not permitted when stream is capturing"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let output = records(folder.path(), &TRAIN, Some(fail));
        let line = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{fail}: {line}");
        assert!(words.iter().all(|word| line.contains(word)), "{fail}: {line}");
        assert_eq!(line.trim_end().lines().count(), 1, "{fail}: {line:?}");
    }
}

/// Where kernels are loaded when they are first needed, they are needed before launches are recorded: each is
/// asked for its attributes.
#[test]
fn kernels_loaded_lazily_are_loaded_before_recording() {
    let folder = tempfile::tempdir().unwrap();
    let output = records_with(folder.path(), &TRAIN, &[("CUDA_MODULE_LOADING", "LAZY")]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let calls = calls(folder.path());
    assert!(calls.starts_with("cuInit lazy"));
    let count = |name: &str| calls.lines().filter(|line| line.starts_with(name)).count();
    // Attribute 1: static shared memory.
    assert_eq!(count("cuFuncGetAttribute 1"), count("cuModuleGetFunction"), "once each");
}

#[test]
fn doctor_asks_the_library_that_training_uses() {
    let folder = tempfile::tempdir().unwrap();
    let shown = text(&records(folder.path(), &["doctor"], None).stdout);
    for words in ["Stand-in GPU (RTX 3090), sm_86", "PTX for compute_86, by RECORDS_GPU_CODE"] {
        assert!(shown.contains(words), "{shown}");
    }
    let future = [("STAND_IN_GPU", "future"), ("RECORDS_GPU_CODE", "")];
    let shown = text(&records_with(folder.path(), &["doctor"], &future).stdout);
    assert!(shown.contains("as NVRTC does not know sm_990"), "{shown}");
    let shown = text(&records(folder.path(), &["doctor"], Some("cuInit:34")).stdout);
    assert!(shown.contains("the CUDA toolkit's stub"), "{shown}");
    let shown = text(&records_with(folder.path(), &["doctor"], &[("RECORDS_BRANCHES", "0")]).stdout);
    assert!(shown.contains("off, by RECORDS_BRANCHES"), "{shown}");
    let line = text(&records_with(folder.path(), &TRAIN, &[("RECORDS_BRANCHES", "no")]).stderr);
    assert!(line.contains("RECORDS_BRANCHES \"no\": must be 0 or 1"), "{line}");
    let line = text(&records(folder.path(), &TRAIN, Some("cuInit:34")).stderr);
    assert!(line.contains("take its folder `stubs` out of LD_LIBRARY_PATH"), "{line}");
}

/// All launches of every method's step, and of a network of full width, as both GPUs cut them: the stand-in
/// holds shared memory, static and dynamic, block sizes and cooperative grids against what the GPU has.
#[test]
fn every_launch_fits_both_gpus() {
    let methods = records::pll::registry::names();
    let narrow = methods.into_iter().map(|method| (method, "8"));
    for (method, width) in narrow.chain([("corr", "64")]) {
        for gpu in ["rtx3090", "h100"] {
            let folder = tempfile::tempdir().unwrap();
            let step =
                ["bench", "step", "--device", "cuda", "--method", method, "--width", width, "--steps", "1"];
            let output = records_with(folder.path(), &step, &[("STAND_IN_GPU", gpu)]);
            assert!(output.status.success(), "{method} on {gpu}: {}", text(&output.stderr));
        }
    }
}

#[test]
fn a_cooperative_launch_that_does_not_fit_is_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<&str> = TRAIN.into_iter().chain(["--method", "solar", "--debias", "none"]).collect();
    let output = records_with(folder.path(), &arguments, &[("STAND_IN_RESIDENT", "0")]);
    let line = text(&output.stderr);
    assert!(line.contains("blocks at once and the GPU holds 0"), "{line}");
    assert_eq!((output.status.code(), line.trim_end().lines().count()), (Some(1), 1), "{line}");
}

#[test]
fn a_step_is_timed_kernel_by_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let arguments = [
        "bench",
        "step",
        "--device",
        "cuda",
        "--width",
        "64",
        "--batch-size",
        "4",
        "--steps",
        "50",
        "--json",
    ];
    let output = records(folder.path(), &arguments, None);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let kernels = line["kernels"].as_array().unwrap();
    assert!(kernels.len() > 10, "{line}");
    assert!(kernels.iter().all(|kernel| kernel["seconds"].as_f64().unwrap() > 0.0), "{line}");
    assert!(kernels.iter().all(|kernel| kernel["blocks_per_multiprocessor"].as_u64() > Some(0)), "{line}");
    // Two rounds of 48 between two events each, beside the events of kernel after kernel.
    assert_eq!([&line["steps"], &line["steps_in_a_row"]], [96, 48]);
    let calls = calls(folder.path());
    assert_eq!(calls.matches("cuGraphLaunch").count(), 2 * 49, "a step of each round is not counted");
    // Of a convolution's 48 KiB two blocks fit only where the cache gives way to shared memory.
    assert!(calls.contains("cuFuncSetAttribute 9 100"), "{calls}");
}

/// What ncu prints of one launch.
const NCU: &str = r#"echo '"ID","Kernel Name","Grid Size","gpu__time_duration.sum"'
echo '"","","","ns"'
echo '"0","advance_step","(1, 1, 1)","2,500"'"#;

/// Makes a shell script.
fn script(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// The whole check over the stand-in: what passes and what does not is in the file and in the exit status.
/// Its kernels are not run, so the loss cannot agree with the CPU's.
#[test]
fn a_gpu_check_writes_its_file_and_says_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let tests = folder.path().join("tests");
    std::fs::create_dir(&tests).unwrap();
    let program = |name: &str, text: &str| script(&tests.join(name), text);
    let tool = |toolkit: &Path, name: &str, text: &str| script(&toolkit.join("bin").join(name), text);
    program("test-good", "echo \"on $RECORDS_TEST_DEVICE with $*\"");
    program("test-bad", "echo 'a \"quoted\" line\twith a tab' >&2; exit 101");
    program("records", "exit 1");
    // What a CUDA toolkit would have.
    let toolkit = folder.path().join("toolkit");
    std::fs::create_dir_all(toolkit.join("bin")).unwrap();
    tool(&toolkit, "compute-sanitizer", "echo \"$2\"; [ \"$2\" != racecheck ] || exit 99");
    tool(&toolkit, "ncu", NCU);
    let arguments = [
        "gpu-check",
        "--smallest",
        "--tests",
        "tests",
        "--work",
        "runs",
        "--out",
        "result.json",
        "--commit",
        "c0ffee",
    ];
    let cache = kernel_cache(folder.path());
    let variables =
        [("CUDA_HOME", toolkit.to_str().unwrap()), ("RECORDS_KERNEL_CACHE", cache.to_str().unwrap())];
    let output = records_with(folder.path(), &arguments, &variables);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let line = text(&output.stderr).lines().last().unwrap_or_default().to_string();
    let failed =
        "test-bad; the losses of a training, which differ from the CPU's; compute-sanitizer's racecheck";
    assert_eq!(line, format!("error: failed: {failed}"));
    let result: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("result.json")).unwrap()).unwrap();
    assert_eq!(result["gpu"]["name"], "Stand-in GPU (RTX 3090)");
    assert_eq!((&result["commit"], result.get("pytorch")), (&"c0ffee".into(), None));
    assert_eq!((&result["failed"][0], &result["left_out"]), (&"test-bad".into(), &serde_json::json!([])));
    let suite = |number: usize| result["tests"][number].clone();
    assert_eq!((&suite(0)["suite"], &suite(0)["passed"]), (&"bad".into(), &false.into()));
    assert_eq!(suite(0)["log"][0], "a \"quoted\" line\twith a tab");
    assert_eq!(suite(1)["log"][0], "on cuda with --test-threads 1");
    assert_eq!(result["training"][1]["epochs"][0]["epoch"], 0);
    assert_eq!(result["curve_agrees"], false);
    // Nothing is computed, so nothing differs; but a run is stopped and resumed.
    let repeated = serde_json::json!({ "same_bits_again": true, "same_bits_resumed": true });
    assert_eq!(result["repeated"], repeated);
    let resumed = std::fs::read_to_string(folder.path().join("runs/resumed/log.txt")).unwrap();
    assert!(resumed.contains("stopped"), "{resumed}");
    assert_eq!(result["full_width"]["epochs"], 2, "{:#}", result["full_width"]);
    assert!(result["full_width"]["tests"][0]["top1"].is_number(), "{:#}", result["full_width"]);
    assert!(result["tuned"][0]["step"]["seconds_per_step_median"].as_f64().unwrap() > 0.0, "{result:#}");
    assert!(result["step_without_branches"]["seconds_per_step_median"].as_f64().unwrap() > 0.0);
    let counted = &result["counters"][0];
    assert_eq!((&counted["kernel"], &counted["counted"]["us"]), (&"advance_step".into(), &2.5.into()));
    assert!(counted["predicted"]["best_us"].as_f64().unwrap() > 0.0, "{counted:#}");
    let found: Vec<_> = (0..3).map(|tool| &result["sanitizer"][tool]["found"]).collect();
    assert_eq!(found, [false, true, false]);
    assert!(result["steps"][0]["seconds_per_step_median"].as_f64().unwrap() > 0.0, "{result:#}");
    for precision in 0..2 {
        let profile = &result["profiles"][precision];
        assert_eq!(profile["measured"]["launched_alike"], true, "{profile:#}");
        assert!(profile["launches"][0]["measured_us"].as_f64().unwrap() > 0.0, "{profile:#}");
    }
    let tuned = &result["tuned"][0];
    assert!(tuned["tuning"]["measured"].as_u64() > Some(0), "{tuned:#}");
    assert!(tuned["step"]["seconds_per_step_median"].as_f64() > Some(0.0), "{tuned:#}");

    let nothing =
        records(folder.path(), &["gpu-check", "--tests", "runs", "--work", "w", "--out", "r"], None);
    assert_eq!(nothing.status.code(), Some(2));
    assert!(text(&nothing.stderr).contains("no test-* there"), "{}", text(&nothing.stderr));
}
