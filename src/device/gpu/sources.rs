//! The kernels' sources, part of the program: build.rs reads what lies under `kernels/`.

pub use super::kernels::{HEADERS, KERNELS};

/// A file of CUDA C++.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    /// File name without its folder.
    pub name: &'static str,
    /// The whole file.
    pub text: &'static str,
}

/// The file of `kernels/` called `name`.
pub fn find(name: &str) -> Option<&'static Source> {
    KERNELS.iter().copied().find(|source| source.name == name)
}

/// The headers as NVRTC takes them.
pub fn headers() -> Vec<(&'static str, &'static str)> {
    HEADERS.iter().map(|header| (header.name, header.text)).collect()
}
