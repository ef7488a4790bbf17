//! The words a setting may take.

use serde::{Deserialize, Serialize};

pub use crate::pll::registry::MethodName as Method;

/// Networks that can be trained.
pub const ARCHITECTURES: &[&str] = &["resnet18", "resnet34", "resnet50", "resnet101"];

/// An enum of words: each variant with its word, in TOML, as a flag's value and in print.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$variant_about:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_about])* #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// The variant of a word, `None` for a word that is not known.
            pub fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some($name::$variant),)*
                    _ => None,
                }
            }

            /// The word of the variant.
            pub fn word(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Shape of the class counts (SPEC 2).
    ImbalanceType {
        /// Falling exponentially from class to class: n_k = n_max * mu^(k/(K-1)).
        Exp = "exp",
        /// The first K/2 classes keep n_max samples, the others n_max * mu.
        Step = "step",
        /// No class loses samples.
        None = "none",
    }
}

words! {
    /// What is subtracted from the logits that disambiguation and evaluation read.
    Debias {
        /// Nothing.
        None = "none",
        /// The log of the true class frequencies, in disambiguation and at test (Oracle-LA).
        Oracle = "oracle",
        /// The log of the true class frequencies, at test only.
        OraclePost = "oracle-post",
        /// The log of the class prior estimated from the moving mean feature (RECORDS, SPEC 6).
        Records = "records",
    }
}

words! {
    /// The loss of a label in LW (SPEC 6).
    LwLoss {
        /// psi(z) = 1 / (1 + e^z).
        Sigmoid = "sigmoid",
        /// -ln p inside the candidate set, -ln(1 - p) outside.
        CrossEntropy = "cross-entropy",
    }
}

words! {
    /// What SoLar counts its class prior from after an epoch (SPEC 7).
    PriorFrom {
        /// An extra pass over all training images, as SoLar does.
        Pass = "pass",
        /// The forwards that the epoch's steps made anyway.
        Steps = "steps",
    }
}

words! {
    /// How the learning rate falls (SPEC 5).
    Schedule {
        /// Half a cosine from `lr` to `lr * lr-decay-rate^3`, set once an epoch.
        Cosine = "cosine",
        /// Times `lr-decay-rate` after each of `lr-decay-epochs`.
        Step = "step",
    }
}

words! {
    /// How activations are stored.
    Precision {
        /// bf16 on a GPU, f32 on the CPU.
        Auto = "auto",
        /// bf16 with f32 sums, on the tensor cores of a GPU.
        Bf16 = "bf16",
        /// f32 throughout; on a GPU for checking.
        F32 = "f32",
    }
}

words! {
    /// Where to compute.
    DeviceChoice {
        /// The best there is.
        Auto = "auto",
        /// The CPU.
        Cpu = "cpu",
        /// An NVIDIA GPU.
        Cuda = "cuda",
        /// The CUDA kernels on the CPU, through the simulator.
        Sim = "sim",
    }
}

#[allow(clippy::derivable_impls, reason = "the enum is made by a macro")]
impl Default for Precision {
    fn default() -> Self {
        Self::Auto
    }
}
