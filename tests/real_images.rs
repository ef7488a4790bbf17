//! Training on real images: the JPEG CIFAR-10 that RECORDS_CIFAR10_JPEG names. Ignored unless asked for; tools/test asks for
//! it where that variable is set.

use std::path::PathBuf;
use std::process::Command;

/// A few steps on a strongly cut subset must beat guessing (10 %) by five standard deviations of 10,000 test images.
#[test]
#[ignore = "needs the real images that RECORDS_CIFAR10_JPEG names"]
fn a_short_run_on_real_images_beats_guessing() {
    let data = std::env::var_os("RECORDS_CIFAR10_JPEG").map(PathBuf::from);
    let data = data.expect("RECORDS_CIFAR10_JPEG names a folder with train/<class>/* and test/<class>/*");
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_records"))
        .args(["train", "--dataset", "folder", "--data-dir"])
        .arg(&data)
        .args("--imb-factor 0.1 --partial-rate 0.1 --width 4 --batch-size 128 --epochs 1".split(' '))
        .args("--lr 0.05 --cosine --records --name real --exp-dir".split(' '))
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metrics = std::fs::read_to_string(folder.path().join("real/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let top1 = last["test"]["top1"].as_f64().unwrap();
    assert!(top1 > 11.5, "top-1 {top1}");
}
