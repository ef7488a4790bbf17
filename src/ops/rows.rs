//! Shared by operations over rows of classes: the softmax and the argmax of a row on the CPU, and the number
//! of threads per row on a GPU.

pub use crate::device::gpu::kernels::epsilon::EPSILON;
use crate::device::gpu::kernels::loss_row::ROW_WARPS;

/// The softmax p of a row and its logarithm, in memory that is reused for every row.
#[derive(Clone, Debug)]
pub struct Softmax {
    /// ln p, `[K]`.
    pub log_p: Vec<f32>,
    /// p, `[K]`.
    pub p: Vec<f32>,
}

impl Softmax {
    /// Allocates memory for a row of `classes`.
    pub fn new(classes: usize) -> Self {
        Self { log_p: vec![0.0; classes], p: vec![0.0; classes] }
    }

    /// Computes the softmax of `logits`.
    pub fn of(&mut self, logits: &[f32]) -> &Self {
        let Self { log_p, p } = self;
        log_p.copy_from_slice(logits);
        let max = log_p.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for (z, p) in log_p.iter_mut().zip(p.iter_mut()) {
            *z -= max;
            *p = z.exp();
            sum += *p;
        }
        let log_sum = sum.ln();
        log_p.iter_mut().for_each(|z| *z -= log_sum);
        p.iter_mut().for_each(|p| *p /= sum);
        self
    }
}

/// The first position of the largest value.
pub fn argmax(values: &[f32]) -> usize {
    values.iter().enumerate().fold(0, |best, (i, &value)| if value > values[best] { i } else { best })
}

/// Whether all values are zero; it ends soon where one is not.
pub fn all_zero(values: &[f32]) -> bool {
    // Whole chunks without a branch for each value; the sign of a zero does not count.
    values.chunks(64).all(|chunk| chunk.iter().fold(0, |any, value| any | (value.to_bits() << 1)) == 0)
}

/// Classes per warp of a block.
const WARP_CLASSES: usize = 128;

/// Threads of a block that handles a row of `classes`.
pub fn row_threads(classes: usize) -> usize {
    32 * classes.div_ceil(WARP_CLASSES).min(ROW_WARPS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_of_either_sign_are_zero_and_nothing_else() {
        assert!(all_zero(&[]) && all_zero(&[0.0, -0.0].repeat(99)));
        for (at, value) in [(0, 1e-45), (130, f32::NAN), (198, -1.0), (64, f32::INFINITY)] {
            let mut values = vec![0.0; 199];
            values[at] = value;
            assert!(!all_zero(&values), "{value}");
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(argmax(&[f32::NAN, 1.0]), 0);
    }
}
