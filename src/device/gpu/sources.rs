//! The kernels' sources, part of the program: build.rs lists what lies under `kernels/`.

/// A file under `kernels/`.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// File name without its folder.
    pub name: &'static str,
    /// The whole file.
    pub text: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The file called `name`.
pub fn find(name: &str) -> Option<&'static Source> {
    KERNELS.iter().chain(STUDY).find(|source| source.name == name)
}

/// The headers as NVRTC takes them.
pub fn headers() -> Vec<(&'static str, &'static str)> {
    HEADERS.iter().map(|header| (header.name, header.text)).collect()
}
