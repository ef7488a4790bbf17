//! What a run leaves, for comparisons of runs byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Output;

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn succeed(output: &Output) -> String {
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Every file of a run but those that say what happened and when.
pub fn results(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(run).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.file_name().into_string().unwrap(), entry.path()));
    let told = |name: &String| ["log.txt", "times.jsonl", "report.html"].contains(&name.as_str());
    named.filter(|(name, _)| !told(name)).map(|(name, path)| (name, fs::read(path).unwrap())).collect()
}

/// Asserts that two runs have the same files with the same bytes.
pub fn assert_same(run: &Path, whole: &Path, what: &str) {
    let (found, whole) = (results(run), results(whole));
    assert_eq!(found.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "{what}");
    for (name, bytes) in &whole {
        assert!(found[name] == *bytes, "{what}: {name} differs");
    }
}
