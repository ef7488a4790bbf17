//! The kernels' sources, part of the program.

/// A file under `kernels/`.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub name: &'static str,
    pub text: &'static str,
}

macro_rules! sources {
    ($($name:literal),* $(,)?) => {
        &[$(Source { name: $name, text: include_str!(concat!("../../../kernels/", $name)) }),*]
    };
}

/// What the kernels include.
pub const HEADERS: &[Source] = sources!["common.cuh"];

/// Every file of kernels; each is compiled on its own.
pub const KERNELS: &[Source] = sources![];

/// The file called `name`.
pub fn find(name: &str) -> Option<&'static Source> {
    KERNELS.iter().find(|source| source.name == name)
}

/// The headers as NVRTC takes them.
pub fn headers() -> Vec<(&'static str, &'static str)> {
    HEADERS.iter().map(|header| (header.name, header.text)).collect()
}
