//! Rounding f32 to bf16 or f16 in place, as what is stored on a GPU is rounded: to the nearest, ties to even.

use rayon::prelude::*;

use super::vectorised::vectorised;
use crate::device::Element;

/// What the values of a buffer are rounded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// They stay f32.
    #[default]
    None,
    /// The upper half of an f32.
    Bf16,
    /// IEEE half precision.
    F16,
}

/// An f32 rounded to bf16. A NaN stays one: it becomes quiet and loses its lower half.
#[inline(always)]
fn to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
    let quiet = bits | 0x0040_0000;
    f32::from_bits(if bits & 0x7fff_ffff > 0x7f80_0000 { quiet } else { rounded } & 0xffff_0000)
}

vectorised! {
    fn round_to_bf16(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = to_bf16(*value));
    }
}

/// Values that are rounded by one thread.
const CHUNK: usize = 1 << 14;

impl Rounding {
    /// That of a buffer.
    pub fn of(element: Element) -> Self {
        match element {
            Element::Bf16 => Self::Bf16,
            Element::F16 => Self::F16,
            Element::F32 | Element::I32 | Element::U8 => Self::None,
        }
    }

    /// Rounds the values. Inlined, so that a loop that is compiled for some instructions rounds with them.
    #[inline(always)]
    pub fn apply_inlined(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Bf16 => values.iter_mut().for_each(|value| *value = to_bf16(*value)),
            Self::F16 => values.iter_mut().for_each(|value| *value = Element::F16.rounded(*value)),
        }
    }

    /// Rounds the values.
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Self::Bf16 => round_to_bf16(values),
            Self::None | Self::F16 => self.apply_inlined(values),
        }
    }

    /// Rounds the values, on all threads.
    pub fn apply_in_parallel(self, values: &mut [f32]) {
        if self != Self::None {
            values.par_chunks_mut(CHUNK).for_each(|values| self.apply(values));
        }
    }

    /// to = from, rounded, on all threads.
    pub fn copy(self, from: &[f32], to: &mut [f32]) {
        to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
            to.copy_from_slice(from);
            self.apply(to);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every upper half with lower halves around a tie and at both ends, against the crate `half`.
    #[test]
    fn all_bf16_and_what_lies_between_are_rounded_to_the_nearest() {
        for upper in 0..=u32::from(u16::MAX) {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let value = f32::from_bits(upper << 16 | lower);
                let [mut got, mut inlined] = [[value]; 2];
                Rounding::Bf16.apply(&mut got);
                Rounding::Bf16.apply_inlined(&mut inlined);
                let want = Element::Bf16.rounded(value).to_bits();
                assert_eq!((got[0].to_bits(), inlined[0].to_bits()), (want, want), "{:x}", value.to_bits());
            }
        }
    }

    #[test]
    fn copies_are_rounded_and_f32_stays() {
        let from: Vec<f32> = (0..40_000).map(|i| i as f32 * 1.000_1).collect();
        let mut to = vec![0.0; from.len()];
        Rounding::None.copy(&from, &mut to);
        assert_eq!(to, from);
        Rounding::F16.copy(&from, &mut to);
        assert!(to.iter().zip(&from).all(|(&to, &from)| to == Element::F16.rounded(from)));
        Rounding::Bf16.copy(&from, &mut to);
        assert!(to.iter().zip(&from).all(|(&to, &from)| to == Element::Bf16.rounded(from)));
    }
}
