//! The rings of the sources: which folders know which others, read from what their files import.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Each module of the library with those it may use, innermost first. `machine` and the crate's root put them together.
const RINGS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("lanes", &[]),
    ("isa", &["error"]),
    ("memory", &["error", "isa", "lanes"]),
    ("monitor", &["isa", "lanes", "memory"]),
    ("exec", &["isa", "lanes", "memory", "monitor"]),
    ("watch", &["isa", "lanes", "memory", "monitor"]),
    ("roofline", &["watch"]),
    ("machine", &["error", "exec", "isa", "memory", "watch"]),
];

fn sources(place: &Path, into: &mut Vec<String>) {
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            sources(&entry.unwrap().path(), into);
        }
    } else {
        into.push(fs::read_to_string(place).unwrap());
    }
}

/// The modules that code names by `crate::`; comments may name any.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let names = code.flat_map(|line| line.split("crate::").skip(1).map(str::to_string).collect::<Vec<_>>());
    names.map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()).collect()
}

#[test]
fn each_ring_uses_only_those_inside_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for (module, allowed) in RINGS {
        let mut texts = Vec::new();
        let folder = root.join(module);
        sources(&if folder.is_dir() { folder } else { folder.with_extension("rs") }, &mut texts);
        let found: BTreeSet<String> = texts.iter().flat_map(|text| used(text)).collect();
        let allowed: BTreeSet<String> =
            allowed.iter().chain([module]).map(|name| (*name).to_string()).collect();
        let wrong: Vec<_> = found.difference(&allowed).collect();
        assert!(wrong.is_empty(), "{module} uses {wrong:?}");
        let unused: Vec<_> = allowed.difference(&found).filter(|name| name != module).collect();
        assert!(unused.is_empty(), "{module} no longer uses {unused:?}: the table says too much");
    }
    for (at, (module, allowed)) in RINGS.iter().enumerate() {
        let inside = |name: &&str| RINGS[..at].iter().any(|(other, _)| other == name);
        assert!(allowed.iter().all(inside), "{module} is no ring: it uses one further out");
    }
}
