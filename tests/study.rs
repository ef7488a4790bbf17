//! The kernels to learn from: each agrees with the CPU, has no finding of the interpreter, and is predicted
//! to be faster than the one before; the command that shows them; the tables in their README.

use std::process::{Command, Output};

use records::device::gpu::DriverKind;
use records::device::gpu::cache::KernelCache;
use records::device::gpu::nvrtc::Target;
use records::study::{Ladder, Meter, sources};
use serde_json::Value;

fn records(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_records"));
    command.args(arguments);
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs every rung; a finding of the interpreter or a difference from the CPU is an error.
fn climb(ladders: impl IntoIterator<Item = Ladder>, rungs: usize) {
    let mut meter = Meter::open(DriverKind::Sim).unwrap_or_else(|error| panic!("{error:#}"));
    for ladder in ladders {
        let steps = ladder.climb(&mut meter).unwrap_or_else(|error| panic!("{}: {error:#}", ladder.problem));
        assert_eq!(steps.len(), rungs);
    }
}

/// Images, height, width, input and output channels: one pixel, one row, partial tiles and slices of
/// channels, several of them.
#[test]
fn every_convolution_agrees_with_the_cpu() {
    let shapes = [
        [1, 1, 1, 8, 8],
        [1, 1, 17, 24, 40],
        [3, 7, 5, 16, 72],
        [2, 9, 8, 72, 8],
        [1, 13, 11, 136, 64],
        [1, 3, 2, 200, 136],
    ];
    climb(shapes.map(Ladder::convolution), 4);
}

/// Rows and classes: one, partial blocks, the largest number of classes.
#[test]
fn every_loss_agrees_with_the_cpu() {
    let shapes = [[1, 1], [1, 10], [3, 7], [130, 33], [17, 100], [5, 127], [6, 128]];
    climb(shapes.map(Ladder::loss_row), 3);
}

#[test]
fn every_file_compiles_without_spills() {
    let cache = KernelCache::open().unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(sources::ALL.len(), 7);
    for source in sources::ALL {
        assert!(!source.text.contains("#include"), "{} is not complete in itself", source.name);
        for architecture in [80, 86, 90] {
            let compiled = cache.compiled(source, Target::Cubin(architecture));
            let log = compiled.unwrap_or_else(|error| panic!("{error:#}")).log;
            let kernels = log.matches("bytes spill stores").count();
            let clean = log.matches(" 0 bytes spill stores, 0 bytes spill loads").count();
            assert!(kernels > 0 && clean == kernels, "{} for sm_{architecture}: {log}", source.name);
        }
    }
}

fn limits(ladder: &Value) -> Vec<&str> {
    ladder["rungs"].as_array().unwrap().iter().map(|rung| rung["cost"]["limit"].as_str().unwrap()).collect()
}

/// The claims in the files' header comments.
#[test]
fn the_ladders_climb() {
    let output = records(&["study", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let ladders: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [convolution, loss_row] = &ladders[..] else { panic!("two ladders") };
    for ladder in [convolution, loss_row] {
        for rung in &ladder["rungs"].as_array().unwrap()[1..] {
            assert!(rung["times_faster_than_the_one_before"].as_f64().unwrap() > 1.1, "{ladder}");
        }
    }
    assert_eq!(limits(convolution), ["L2", "shared memory", "shared memory", "tensor cores"]);
    assert_eq!(limits(loss_row), ["L2", "L2", "DRAM"]);
    let conflicts = |rung: usize| convolution["rungs"][rung]["cost"]["bank_conflicts"].as_u64().unwrap();
    assert!(conflicts(2) > 0);
    assert_eq!([0, 1, 3].map(conflicts), [0; 3]);
}

/// The README shows what the command prints.
#[test]
fn the_readme_shows_what_the_command_prints() {
    let readme = include_str!("../kernels/study/README.md");
    for ladder in ["convolution", "loss-row"] {
        let output = records(&["study", ladder]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        let printed = text(&output.stdout);
        assert!(printed.lines().count() > 6);
        // The difference itself depends on the processor's arithmetic.
        for line in printed.lines().filter(|line| !line.starts_with("Every rung agrees")) {
            assert!(
                readme.contains(line),
                "kernels/study/README.md lacks what `study {ladder}` prints: {line}"
            );
        }
    }
}

#[test]
fn wrong_words_and_a_missing_compiler_are_one_line_with_the_remedy() {
    let refused = |mut command: Command, words: &[&str]| {
        let Output { status, stderr, .. } = command.output().unwrap();
        let error = text(&stderr);
        assert_eq!(status.code(), Some(2), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        words.iter().for_each(|word| assert!(error.contains(word), "{word}: {error}"));
    };
    refused(records(&["study", "stairs"]), &["stairs", "convolution or loss-row"]);
    refused(records(&["study", "--device", "cpu"]), &["--device cpu", "sim or cuda"]);
    let mut without = records(&["study", "loss-row"]);
    without.env("RECORDS_NVRTC", "/nowhere/libnvrtc.so");
    refused(without, &["NVRTC", "/nowhere/libnvrtc.so", "install"]);
}
