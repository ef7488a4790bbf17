//! A user's lists: `train.csv` with or without `test.csv` and `classes.txt`.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use records::data::registry::csv;
use records_fuzz::{scratch, write_seeds};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(scratch);

/// Separates the files in an input; no text contains it.
const BETWEEN: u8 = 0xff;

fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let train = b"path,candidates,label\na.png,cat|dog,cat\nb/c.jpg,dog|red panda|wolf,\n\"d,e.png\",\"red panda\",\r\n";
    let test = b"path,label\nt.png,dog\n";
    let classes = b"wolf\ncat\ndog\nred panda\n";
    vec![
        ("train", train.to_vec()),
        ("test", [&train[..], &[BETWEEN], test].concat()),
        ("classes", [&train[..], &[BETWEEN], test, &[BETWEEN], classes].concat()),
        ("semicolons", b"path;candidates\na.png;cat|dog\n".to_vec()),
        ("marks", "\u{feff}path,candidates\na.png,caf\u{e9}|cafe\u{301}\n".into()),
    ]
}

fuzz_target!(init: write_seeds(&seeds()), |bytes: &[u8]| {
    let folder = FOLDER.path();
    let mut parts = bytes.splitn(3, |&byte| byte == BETWEEN);
    for name in ["train.csv", "test.csv", "classes.txt"] {
        match parts.next() {
            Some(part) => fs::write(folder.join(name), part).unwrap(),
            None => drop(fs::remove_file(folder.join(name))),
        }
    }
    if let Ok(source) = csv::open(folder) {
        let _ = source.outline();
    }
});
