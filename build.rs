//! Gathers the files under kernels/ into the program: a new kernel file needs no list. Compiles the C side of the JPEG decoder.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

fn main() {
    gather_kernels();
    compile_jpeg();
}

/// The C file is compiled against the headers of the libjpeg that mozjpeg-sys builds.
fn compile_jpeg() {
    let file = "src/data/decode/libjpeg.c";
    println!("cargo::rerun-if-changed={file}");
    let headers = std::env::var_os("DEP_JPEG_INCLUDE").expect("mozjpeg-sys names its headers");
    cc::Build::new().file(file).includes(std::env::split_paths(&headers)).compile("records_jpeg");
}

fn gather_kernels() {
    println!("cargo::rerun-if-changed=kernels");
    let root =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets the package's folder"));
    let mut text = String::new();
    for (list, folder, extension, about) in [
        ("HEADERS", "kernels", "cuh", "What the kernels include."),
        ("KERNELS", "kernels", "cu", "Every file of kernels; each is compiled on its own."),
        ("STUDY", "kernels/study", "cu", "The kernels to learn from; none includes anything."),
    ] {
        let mut files: Vec<PathBuf> = std::fs::read_dir(root.join(folder))
            .expect("the folder is part of the package")
            .map(|entry| entry.expect("an entry of the folder").path())
            .collect();
        files.sort();
        let _ = writeln!(text, "/// {about}\npub const {list}: &[Source] = &[");
        for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == extension)) {
            let name =
                file.file_name().and_then(|name| name.to_str()).expect("kernel files have plain names");
            let _ = writeln!(text, "    Source {{ name: {name:?}, text: include_str!({file:?}) }},");
        }
        text.push_str("];\n");
    }
    let out = std::env::var_os("OUT_DIR").expect("cargo sets the output folder");
    std::fs::write(Path::new(&out).join("kernels.rs"), text).expect("the output folder can be written");
}
