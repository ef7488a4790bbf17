//! What a machine can do at most: what the times of operations are held against.

/// The two rates of a roofline.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Floating-point operations per second; a multiply-add counts two.
    pub flops: f64,
    /// Bytes per second between the arithmetic and main or device memory, reads and writes together.
    pub bytes: f64,
    /// Where the rates are from, for people.
    pub source: &'static str,
}

impl Limits {
    /// The least seconds for so many operations and bytes, where both run at once.
    pub fn least_seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops).max(bytes / self.bytes)
    }
}
