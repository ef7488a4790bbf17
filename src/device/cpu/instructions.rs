//! Which vector instructions the CPU twins use: the best that the processor has, or what `RECORDS_SIMD` asks
//! for.

use std::fmt;
use std::sync::LazyLock;

use anyhow::Result;

use crate::usage;

/// The variable with the name of a [`Simd`].
const VARIABLE: &str = "RECORDS_SIMD";

/// A level of vector instructions, from the least to the best.
///
/// AVX2 and AVX-512 give the same bits: both add each product with one rounding, in the same order. Portable
/// code does so only where the compiler's target has fused multiply-add (as on aarch64); elsewhere it rounds
/// products, because without the instruction a fused multiply-add is a function call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Simd {
    /// Plain Rust, which the compiler vectorises for the target that it builds for.
    Portable,
    /// 256-bit vectors and fused multiply-add.
    Avx2,
    /// 512-bit vectors, and 256-bit ones with 32 registers.
    Avx512,
}

impl Simd {
    /// All levels, from the least to the best.
    pub const ALL: [Self; 3] = [Self::Portable, Self::Avx2, Self::Avx512];

    /// The name in `RECORDS_SIMD`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Whether the processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// The levels that the processor has, from the least to the best.
    pub fn available() -> impl DoubleEndedIterator<Item = Self> {
        Self::ALL.into_iter().filter(|level| level.is_available())
    }

    /// The level named by `word`, or the best without one.
    fn choose(word: Option<&str>) -> Result<Self, String> {
        let names: Vec<&str> = Self::available().map(Self::name).collect();
        let Some(word) = word else {
            return Ok(Self::available().next_back().unwrap_or(Self::Portable));
        };
        match Self::ALL.into_iter().find(|level| level.name() == word) {
            Some(level) if level.is_available() => Ok(level),
            Some(_) => Err(format!("{VARIABLE}={word}: this processor has only {}", names.join(", "))),
            None => Err(format!("{VARIABLE} {word:?}: must be portable, avx2 or avx512")),
        }
    }
}

impl fmt::Display for Simd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How sums of products of bf16 are computed, two products a step, with `--precision bf16`. All ways give the
/// same bits: those of the instruction VDPBF16PS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PairSums {
    /// Plain Rust, for every processor: slow.
    Portable,
    /// AVX2 and fused multiply-add: slow.
    Avx2,
    /// The instruction itself (AVX512_BF16), with 512-bit and 256-bit vectors.
    Avx512,
}

impl PairSums {
    /// The best way for a level.
    pub fn of(level: Simd) -> Self {
        match level {
            Simd::Avx512 if Self::Avx512.is_available() => Self::Avx512,
            Simd::Avx512 | Simd::Avx2 => Self::Avx2,
            Simd::Portable => Self::Portable,
        }
    }

    /// Whether the processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx2 => Simd::Avx2.is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => Simd::Avx512.is_available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 => false,
        }
    }

    /// Whether it stands in for instructions that the processor, or the level asked for, lacks.
    pub fn is_emulated(self) -> bool {
        self != Self::Avx512
    }

    /// The ways that the processor has.
    pub fn available() -> impl Iterator<Item = Self> {
        [Self::Portable, Self::Avx2, Self::Avx512].into_iter().filter(|sums| sums.is_available())
    }
}

impl fmt::Display for PairSums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "bf16 products emulated",
            Self::Avx2 => "bf16 products emulated with AVX2",
            Self::Avx512 => "AVX-512 with bf16 products",
        })
    }
}

static CHOSEN: LazyLock<Result<Simd, String>> = LazyLock::new(|| {
    let word = std::env::var_os(VARIABLE);
    Simd::choose(word.as_ref().map(|word| word.to_string_lossy()).as_deref())
});

/// The level that this process uses, found on first use.
///
/// # Errors
/// A usage error if `RECORDS_SIMD` is no level, or one that the processor lacks.
pub fn chosen() -> Result<Simd> {
    CHOSEN.clone().map_err(|message| usage!("{message}"))
}

/// Whether this process uses 256-bit vectors or longer ones.
pub fn uses_avx2() -> bool {
    CHOSEN.as_ref().is_ok_and(|level| *level >= Simd::Avx2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_the_best_one_or_the_one_asked_for() {
        let best = Simd::available().next_back().unwrap();
        assert_eq!(Simd::choose(None), Ok(best));
        for level in Simd::ALL {
            match Simd::choose(Some(level.name())) {
                Ok(chosen) => assert!(chosen == level && level.is_available()),
                Err(message) => {
                    assert!(!level.is_available());
                    assert!(message.contains(level.name()) && message.contains("portable"), "{message}");
                }
            }
        }
        let message = Simd::choose(Some("AVX9")).unwrap_err();
        assert!(message.contains("RECORDS_SIMD") && message.contains("AVX9"), "{message}");
    }

    #[test]
    fn products_of_bf16_are_the_processor_s_own_where_the_level_allows_it() {
        for level in Simd::available() {
            let sums = PairSums::of(level);
            assert!(sums.is_available() && PairSums::available().any(|other| other == sums));
            assert_eq!(sums.is_emulated(), level < Simd::Avx512 || !PairSums::Avx512.is_available());
            assert_eq!(sums.is_emulated(), sums.to_string().contains("emulated"), "{sums}");
        }
        assert_eq!(PairSums::of(Simd::Portable), PairSums::Portable);
    }
}
