//! The limits of a machine, with which the times of operations are compared.

/// The two rates of a roofline.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Floating-point operations per second; a multiply-add counts two.
    pub flops: f64,
    /// Bytes per second between the arithmetic and main or device memory, reads and writes together.
    pub bytes: f64,
    /// Where the rates come from, for reports.
    pub source: &'static str,
}

impl Limits {
    /// The least time in seconds for `flops` operations and `bytes` bytes, if arithmetic and transfers
    /// overlap fully.
    pub fn least_seconds(&self, flops: f64, bytes: f64) -> f64 {
        (flops / self.flops).max(bytes / self.bytes)
    }
}
