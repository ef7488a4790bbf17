//! The command line, through the real binary.

mod support;

use std::path::Path;
use std::process::{Command, Output};

use support::{HEAD, kernel};

fn ptx_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ptx-sim")).args(arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// y = a x + y for the first n.
fn saxpy(folder: &Path) -> String {
    let path = folder.join("saxpy.ptx");
    let ptx = format!(
        "{HEAD}.visible .entry saxpy(.param .u64 x, .param .u64 y, .param .f32 a, .param .u32 n) .maxntid 256, 1, 1 {{
         .reg .b32 %r<6>; .reg .b64 %d<6>; .reg .f32 %f<6>; .reg .pred %p<2>;
         ld.param.u64 %d1, [x]; ld.param.u64 %d2, [y]; ld.param.f32 %f1, [a]; ld.param.u32 %r1, [n];
         mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.u32 %r5, %r2, %r3, %r4;
         setp.ge.u32 %p1, %r5, %r1; @%p1 bra END; mul.wide.u32 %d3, %r5, 4; add.s64 %d1, %d1, %d3; add.s64 %d2, %d2, %d3;
         ld.global.f32 %f2, [%d1]; ld.global.f32 %f3, [%d2]; fma.rn.f32 %f4, %f1, %f2, %f3; st.global.f32 [%d2], %f4;
         END: ret; }}"
    );
    std::fs::write(&path, ptx).unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn runs_and_dumps() {
    let folder = tempfile::tempdir().unwrap();
    let file = saxpy(folder.path());
    let out = folder.path().join("y.bin");
    let dump = format!("1={}", out.display());
    let output = ptx_sim(&[
        "run",
        &file,
        "--grid",
        "4",
        "--block",
        "256",
        "--arg",
        "f32:1000:iota",
        "--arg",
        "f32:1000:ones",
        "--arg",
        "f32=2",
        "--arg",
        "u32=1000",
        "--gpu",
        "rtx3090",
        "--dump",
        &dump,
        "--threads",
        "2",
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output);
    for wanted in ["no findings", "load_sectors", "250", "RTX 3090", "limited by"] {
        assert!(shown.contains(wanted), "{shown}");
    }
    let bytes = std::fs::read(out).unwrap();
    let values: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(values, (0..1000).map(|at| 2.0 * at as f32 + 1.0).collect::<Vec<_>>());
}

#[test]
fn findings_are_exit_code_3_and_json_is_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = saxpy(folder.path());
    let output = ptx_sim(&[
        "run",
        &file,
        "--entry",
        "saxpy",
        "--grid",
        "4,1,1",
        "--block",
        "256",
        "--arg",
        "f32:1000:random",
        "--arg",
        "f32:999:random",
        "--arg",
        "f32=2",
        "--arg",
        "u32=1000",
        "--format",
        "json",
        "--gpu",
        "h100",
    ]);
    assert_eq!(output.status.code(), Some(3));
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["findings_total"], 2);
    assert_eq!(value["findings"][0]["kind"], "out-of-bounds");
    assert_eq!(value["findings"][0]["thread"][0], 231);
    assert!(value["findings"][0]["message"].as_str().unwrap().contains("argument 1 (y)"));
    assert_eq!(value["counters"]["blocks"], 4);
    assert!(value["prediction"]["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(value["gpu"]["sms"], 132);
}

#[test]
fn lists_kernels() {
    let folder = tempfile::tempdir().unwrap();
    let file = saxpy(folder.path());
    let output = ptx_sim(&["list", &file]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output);
    for wanted in ["saxpy", "at most 256 threads", "  16   4 bytes f32  a", "0 bytes shared"] {
        assert!(shown.contains(wanted), "{shown}");
    }
}

#[test]
fn earlier_buffers_gpu_files_and_shared_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("copy.ptx");
    let body = "ld.global.u32 %r1, [%p0]; mov.u32 %r2, dyn; st.shared.u32 [%r2], %r1; ld.shared.u32 %r3, [%r2]; st.global.u32 [%p1], %r3;";
    let ptx = kernel(2, "", body).replacen(".visible", ".extern .shared .align 16 .b8 dyn[];\n.visible", 1);
    std::fs::write(&path, ptx).unwrap();
    let file = path.to_str().unwrap();
    let input = folder.path().join("in.bin");
    std::fs::write(&input, [1, 2, 3, 4, 0, 0, 0, 0]).unwrap();
    let gpu = folder.path().join("my.toml");
    std::fs::write(
        &gpu,
        "name = \"mine\"\nsms = 10\nclock_hz = 1e9\nissues_per_cycle = 4.0\ntensor_flops = 1e12\nf32_flops = 1e12\n\
         dram_bytes = 1e11\nl2_bytes = 1e12\nwavefronts_per_cycle = 1.0\nspecial_per_cycle = 16.0\n",
    )
    .unwrap();
    let out = folder.path().join("out.bin");
    let buffer = format!("u32:2:file={}", input.display());
    let dump = format!("0={}", out.display());
    let gpu = gpu.to_str().unwrap();
    let output = ptx_sim(&[
        "run", file, "--block", "1", "--shared", "16", "--arg", &buffer, "--arg", "@0+4", "--dump", &dump,
        "--gpu", gpu,
    ]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output).contains("mine"));
    assert_eq!(std::fs::read(out).unwrap(), [1, 2, 3, 4, 1, 2, 3, 4]);
}

#[test]
fn wrong_words_get_one_line_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = saxpy(folder.path());
    let good = ["--arg", "f32:10:ones", "--arg", "f32:10:ones", "--arg", "f32=1", "--arg", "u32=10"];
    let cases: [(&[&str], &str); 14] = [
        (&["--arg", "f32:10"], "type:length:fill"),
        (&["--arg", "f33:10:ones"], "no type \"f33\""),
        (&["--arg", "f32:ten:ones"], "not a length"),
        (&["--arg", "f32:10:noise"], "no fill \"noise\""),
        (&["--arg", "u8=300"], "\"300\" is not a u8"),
        (&["--arg", "@0"], "earlier buffer"),
        (&["--arg", "f32:10:ones"], "4 parameters and 1 --arg"),
        (&["--entry", "other"], "--entry other: the file has: saxpy"),
        (&["--gpu", "tpu"], "--gpu tpu"),
        (&["--gpu", "missing.toml"], "missing.toml"),
        (
            &["--arg", "f64=1", "--arg", "f32:10:ones", "--arg", "f32:1:ones", "--arg", "u32=10"],
            "8 bytes; parameter a",
        ),
        (
            &["--arg", "f32:10:file=nowhere", "--arg", "f32:1:ones", "--arg", "f32=1", "--arg", "u32=10"],
            "nowhere",
        ),
        (&["--block", "512"], "launch bounds say 256"),
        (&["--dump", "2=x"], "--dump 2=x"),
    ];
    for (words, wanted) in cases {
        let mut arguments = vec!["run", file.as_str()];
        arguments.extend(words);
        if matches!(words[0], "--block" | "--dump") {
            arguments.extend(good);
        }
        let output = ptx_sim(&arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {error}");
        assert!(error.contains(wanted), "{words:?}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
    let bad = folder.path().join("bad.ptx");
    std::fs::write(&bad, ".visible .entry k() { frobnicate.b32; ret; }").unwrap();
    let output = ptx_sim(&["run", bad.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("frobnicate.b32"));
    assert_eq!(ptx_sim(&["list", "nowhere.ptx"]).status.code(), Some(2));
    assert_eq!(ptx_sim(&["run"]).status.code(), Some(2));
    assert_eq!(ptx_sim(&["--help"]).status.code(), Some(0));
}

/// Each would wait for ever, or never end.
#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = saxpy(folder.path());
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (pipe, gpu) = (at("pipe"), at("gpu.toml"));
    for path in [&pipe, &gpu] {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    let (values, dump) = (format!("f32:10:file={pipe}"), format!("0={pipe}"));
    let good = ["--arg", "f32:10:ones", "--arg", "f32:10:ones", "--arg", "f32=1", "--arg", "u32=10"];
    let run = |words: &[&str]| ptx_sim(&[&["run", file.as_str()], words].concat());
    for (output, code, part) in [
        (ptx_sim(&["run", &pipe]), 2, "is no regular file"),
        (ptx_sim(&["list", "/dev/zero"]), 2, "is no regular file"),
        (run(&["--gpu", &gpu]), 2, "is no regular file"),
        (run(&[&["--arg", values.as_str()], &good[2..]].concat()), 2, "is no regular file"),
        (run(&[&good[..], &["--dump", dump.as_str()]].concat()), 1, "is a pipe"),
    ] {
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(part), "{error}");
    }
}

/// What a message quotes from a file does not steer the terminal.
#[test]
fn control_characters_in_a_file_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.ptx");
    std::fs::write(&path, ".version 8.0\n.target sm_80\n.address_size 64\n\u{1b}[31mred\n").unwrap();
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_ptx-sim")).arg("list").arg(&path).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(!printed.trim_end().chars().any(char::is_control), "{printed:?}");
}
