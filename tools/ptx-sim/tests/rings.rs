//! The rings of the sources: which parts know which others, read from what their files import.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Parts of a folder, innermost first, each with those that it may use. What is not named puts them together:
/// `lib.rs`, `mod.rs`.
type Rings = &'static [(&'static str, &'static [&'static str])];

const CRATE: Rings = &[
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

/// What findings and counters are; what is remembered; where it is gathered; the checks.
const WATCH: Rings = &[
    ("finding", &[]),
    ("counters", &[]),
    ("signals", &[]),
    ("shadow", &[]),
    ("group", &["shadow", "signals"]),
    ("report", &["finding", "group", "shadow", "signals"]),
    ("bounds", &["finding", "report"]),
    ("barriers", &["finding"]),
    ("initialised", &["finding", "report", "shadow"]),
    ("races", &["finding", "report", "shadow", "signals"]),
    ("launches", &["finding", "group", "races", "report", "shadow"]),
    ("cost", &["counters", "report"]),
];

const SHADOW: Rings = &[
    ("history", &[]),
    ("sectors", &[]),
    ("uses", &[]),
    ("written", &[]),
    ("histories", &["history"]),
    ("shared", &["history"]),
];

const EXEC: Rings = &[
    ("registers", &[]),
    ("float", &["registers"]),
    ("alu", &["float", "registers"]),
    ("convert", &["float", "registers"]),
    ("warp", &["registers"]),
    ("packed", &["float", "registers", "warp"]),
    ("misc", &["convert", "float", "packed", "registers", "warp"]),
    ("waits", &[]),
    ("launch", &["waits"]),
    ("site", &["launch", "warp"]),
    ("memory", &["site", "warp"]),
    ("together", &["registers", "site"]),
    ("barrier", &["site", "warp"]),
    ("matrix", &["float", "memory", "registers", "site"]),
    ("printf", &[]),
    ("atomic", &["float", "memory", "registers", "site"]),
    ("async_copy", &["memory", "site"]),
    ("mbarrier", &["async_copy", "memory", "site", "warp"]),
    ("fragment", &["float", "matrix", "memory", "registers", "site", "warp"]),
    ("host", &["printf", "site"]),
    (
        "step",
        &[
            "async_copy",
            "atomic",
            "barrier",
            "fragment",
            "host",
            "launch",
            "matrix",
            "mbarrier",
            "memory",
            "misc",
            "site",
            "together",
            "warp",
        ],
    ),
    ("block", &["barrier", "launch", "registers", "site", "step", "warp"]),
    ("grid", &["block", "launch", "site", "warp"]),
];

/// Each file of a folder, with the modules from the crate's root to it.
fn sources(place: &Path, path: &[String], into: &mut Vec<(Vec<String>, String)>) {
    let name = place.file_stem().unwrap().to_str().unwrap().to_string();
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            sources(&entry.unwrap().path(), &[path, std::slice::from_ref(&name)].concat(), into);
        }
    } else {
        let path = if name == "mod" { path.to_vec() } else { [path, &[name]].concat() };
        into.push((path, fs::read_to_string(place).unwrap()));
    }
}

/// The names after a path's `::`: one, or those at the top of braces.
fn names(text: &str) -> Vec<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(list) = text.strip_prefix('{') else { return vec![word(text)] };
    let (mut found, mut depth, mut start) = (Vec::new(), 0, true);
    for (at, c) in list.char_indices() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => start = true,
            c if start && !c.is_whitespace() => {
                start = false;
                found.push(word(&list[at..]));
            }
            _ => {}
        }
    }
    found
}

/// The modules, from the crate's root, that a module's code names by `crate::` or `super::`; comments may
/// name any.
fn used(module: &[String], text: &str) -> BTreeSet<Vec<String>> {
    let code: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    // A file's own tests may use what they like.
    let code = code.join("\n");
    let code = code.split("#[cfg(test)]").next().unwrap();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        let mut rest = &code[at + 7..];
        let mut path = Vec::new();
        loop {
            let next = names(rest);
            let [one] = &next[..] else {
                found.extend(next.into_iter().map(|name| [&path[..], &[name]].concat()));
                break;
            };
            path.push(one.clone());
            match rest[one.len()..].strip_prefix("::") {
                Some(more) if !rest.starts_with('{') => rest = more,
                _ => {
                    found.insert(path);
                    break;
                }
            }
        }
    }
    let mut at = 0;
    while let Some(next) = code[at..].find("super::") {
        let mut rest = &code[at + next..];
        let mut base = module;
        while let Some(more) = rest.strip_prefix("super::") {
            (rest, base) = (more, &base[..base.len() - 1]);
        }
        found.extend(names(rest).into_iter().map(|name| [base, &[name]].concat()));
        at = code.len() - rest.len();
    }
    found
}

/// Asserts that the parts of a folder use only what the table says, all of that, and nothing further out.
fn check(folder: &[&str], rings: Rings) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let place = root.join(folder.iter().collect::<PathBuf>());
    let prefix: Vec<String> = folder.iter().map(|name| (*name).to_string()).collect();
    for (at, (part, allowed)) in rings.iter().enumerate() {
        let mut files = Vec::new();
        let inner = place.join(part);
        sources(&if inner.is_dir() { inner } else { inner.with_extension("rs") }, &prefix, &mut files);
        let mut found = BTreeSet::new();
        for (module, text) in &files {
            for path in used(module, text).into_iter().filter(|path| path.starts_with(&prefix)) {
                found.extend(path.get(prefix.len()).cloned());
            }
        }
        found.remove(*part);
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_string()).collect();
        let wrong: Vec<_> = found.difference(&allowed).collect();
        assert!(wrong.is_empty(), "{folder:?} {part} uses {wrong:?}");
        let unused: Vec<_> = allowed.difference(&found).collect();
        assert!(unused.is_empty(), "{folder:?} {part} does not use {unused:?}: the table says too much");
        let inside = |name: &String| rings[..at].iter().any(|(other, _)| other == name);
        assert!(allowed.iter().all(inside), "{folder:?} {part} is no ring: it uses one further out");
    }
    let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| {
        !["mod.rs", "lib.rs", "main.rs", "cli"].contains(&path.file_name().unwrap().to_str().unwrap())
    });
    for path in names {
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(rings.iter().any(|(part, _)| *part == name), "{folder:?} {name} is in no ring");
    }
}

#[test]
fn each_ring_uses_only_those_inside_it() {
    check(&[], CRATE);
    check(&["watch"], WATCH);
    check(&["watch", "shadow"], SHADOW);
    check(&["exec"], EXEC);
}

#[test]
fn imports_are_read() {
    let module: Vec<String> = ["watch", "races", "order"].map(String::from).to_vec();
    let text = "use super::super::signals::Signals;\nuse super::{a, b::{c, d}};\n// crate::comment\nuse crate::isa::{Order, Scope};\n\
                fn f() { crate::lanes::row(|_| super::g()) }\nuse crate::memory::Shared;";
    let found: Vec<String> = used(&module, text).into_iter().map(|path| path.join("::")).collect();
    let wanted = [
        "isa::Order",
        "isa::Scope",
        "lanes::row",
        "memory::Shared",
        "watch::races::a",
        "watch::races::b",
        "watch::races::g",
        "watch::signals",
    ];
    assert_eq!(found, wanted);
}
