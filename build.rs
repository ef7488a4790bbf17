//! Gathers the files under kernels/ into the program, with the parameters of every kernel and the constants: a new kernel file needs
//! no list. Compiles the C side of the JPEG decoder.

#[path = "build/kernels.rs"]
mod kernels;

use std::path::Path;

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

/// Writes the kernels' sources, parameters and constants as Rust.
fn gather_kernels() {
    println!("cargo::rerun-if-changed=kernels");
    let root = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets the package's folder");
    let files = kernels::read_folder(&Path::new(&root).join("kernels"));
    let text = files.and_then(|files| kernels::generate(&files)).unwrap_or_else(|problem| {
        println!("cargo::error={problem}");
        String::new()
    });
    let out = std::env::var_os("OUT_DIR").expect("cargo sets the output folder");
    std::fs::write(Path::new(&out).join("kernels.rs"), text).expect("the output folder can be written");
}
