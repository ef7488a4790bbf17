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

/// An f32 rounded to f16: above its smallest normal number, 2^-14, to ten bits behind the first; below, to a
/// multiple of 2^-24, the distance of the f32 from 0.5 to 1, to which adding 0.5 rounds. From 65520 on, infinite.
#[inline(always)]
fn to_f16(value: f32) -> f32 {
    const SMALLEST_NORMAL: u32 = 0x3880_0000;
    const TOO_LARGE: u32 = 0x4780_0000;
    const INFINITY: u32 = 0x7f80_0000;
    let bits = value.to_bits();
    let (sign, magnitude) = (bits & 0x8000_0000, bits & 0x7fff_ffff);
    let rounded = magnitude.wrapping_add(0x0fff + (magnitude >> 13 & 1)) & 0xffff_e000;
    let normal = if rounded >= TOO_LARGE { INFINITY } else { rounded };
    let subnormal = ((f32::from_bits(magnitude) + 0.5) - 0.5).to_bits();
    let quiet = (magnitude | 0x0040_0000) & 0xffff_e000;
    let number = if magnitude < SMALLEST_NORMAL { subnormal } else { normal };
    f32::from_bits(sign | if magnitude > INFINITY { quiet } else { number })
}

vectorised! {
    fn round_to_bf16(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = to_bf16(*value));
    }
}

vectorised! {
    fn round_to_f16(values: &mut [f32]) {
        values.iter_mut().for_each(|value| *value = to_f16(*value));
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
            Self::F16 => values.iter_mut().for_each(|value| *value = to_f16(*value)),
        }
    }

    /// Rounds the values.
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Bf16 => round_to_bf16(values),
            Self::F16 => round_to_f16(values),
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

    /// Values with every upper half and these lower ones, against the crate `half`.
    fn assert_rounds_as_half(rounding: Rounding, element: Element, lower: &[u32]) {
        for upper in 0..=u32::from(u16::MAX) {
            let values: Vec<f32> = lower.iter().map(|lower| f32::from_bits(upper << 16 | lower)).collect();
            let [mut got, mut inlined] = [(); 2].map(|()| values.clone());
            rounding.apply(&mut got);
            rounding.apply_inlined(&mut inlined);
            for ((value, got), inlined) in values.into_iter().zip(got).zip(inlined) {
                let want = element.rounded(value).to_bits();
                assert_eq!((got.to_bits(), inlined.to_bits()), (want, want), "{:x}", value.to_bits());
            }
        }
    }

    /// Around a tie and at both ends.
    #[test]
    fn all_bf16_and_what_lies_between_are_rounded_to_the_nearest() {
        assert_rounds_as_half(Rounding::Bf16, Element::Bf16, &[0, 1, 0x7fff, 0x8000, 0x8001, 0xffff]);
    }

    /// The last bits of an f16 are in the lower half: around ties of even and of odd ones. Of subnormal f16 the
    /// tie is in the upper half, and every one is there.
    #[test]
    fn all_f16_and_what_lies_between_are_rounded_to_the_nearest() {
        let near = |tie: u32| [tie - 1, tie, tie + 1];
        let lower: Vec<u32> = [0x1000, 0x2000, 0x3000, 0x8000, 0xf000].into_iter().flat_map(near).collect();
        assert_rounds_as_half(Rounding::F16, Element::F16, &[&[0, 1, 0xffff], &lower[..]].concat());
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
