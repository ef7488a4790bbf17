//! The settings of LW.

use crate::declaration::{MOST, Own};

crate::declare_settings! {
    /// The settings of LW (docs/spec.md, section 6).
    pub struct LwSettings {
        "Method" {
            /// the loss of a label.
            "lw-loss" loss: LwLoss = LwLoss::Sigmoid, "WORD", OneOf(LwLoss::words);
            /// weight of the classes that are no candidates.
            "lw-beta" beta: f64 = 1.0, "WEIGHT", Number(0.0, MOST);
        }
    }
}

impl Own for LwSettings {}

crate::declare_words! {
    /// The loss of a label in LW (docs/spec.md, section 6).
    pub enum LwLoss {
        /// psi(z) = 1 / (1 + e^z).
        Sigmoid = "sigmoid",
        /// -ln p inside the candidate set, -ln(1 - p) outside.
        CrossEntropy = "cross-entropy",
    }
}
