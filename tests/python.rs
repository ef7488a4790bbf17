//! The snippets of docs/python.md, each run where its packages are there.

mod support {
    pub mod python;
}

use std::process::Command;

use support::python::python_with;

/// The packages that a snippet imports and Python does not bring.
fn packages(snippet: &str) -> Vec<&'static str> {
    ["numpy", "pandas", "safetensors", "tensorboard"]
        .into_iter()
        .filter(|name| snippet.contains(name))
        .collect()
}

#[test]
fn snippets_run() {
    let folder = tempfile::tempdir().unwrap();
    let trained = Command::new(env!("CARGO_BIN_EXE_records"))
        .args(["train", "--preset=tiny", "--synthetic-test-per-class=2", "--synthetic-train-per-class=12"])
        .args(["--width=4", "--imb-factor=0.3", "--threads=1", "--device=cpu", "--epochs=2", "--name=a"])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
    let text = include_str!("../docs/python.md");
    let snippets: Vec<&str> =
        text.split("```python\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(snippets.len() >= 7);
    let mut printed = String::new();
    for snippet in snippets {
        // tomllib came with Python 3.11; `python_with` says what is skipped.
        let modules = [packages(snippet), vec!["json", "tomllib"]].concat();
        let Some(mut python) = python_with(&modules) else { continue };
        let output = python.args(["-c", snippet]).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{snippet}\n{}", String::from_utf8_lossy(&output.stderr));
        printed.push_str(&String::from_utf8_lossy(&output.stdout));
    }
    // The confusion matrix, the events and the results name the same accuracy.
    let metrics = std::fs::read_to_string(folder.path().join("runs/a/metrics.jsonl")).unwrap();
    let last: serde_json::Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let top1 = last["test"]["top1"].as_f64().unwrap();
    if python_with(&["numpy", "tomllib"]).is_some() {
        assert!(printed.contains(&format!("top-1 {top1:?}\n")), "{printed}");
    }
}
