//! The settings of PiCO.

use crate::declaration::{LEAST, MOST, Own};

crate::declare_settings! {
    /// The settings of PiCO. `--upd-start` says when its disambiguation starts.
    pub struct PicoSettings {
        "Method" {
            /// keys of earlier batches that embeddings are held against, rounded up to whole batches.
            "moco-queue" queue: usize = 8192, "KEYS", Whole(1, 1_000_000);
            /// share of the past in the momentum encoder.
            "moco-m" key_momentum: f64 = 0.999, "SHARE", Number(0.0, 1.0);
            /// share of the past in the prototypes.
            "proto-m" prototype_momentum: f64 = 0.99, "SHARE", Number(0.0, 1.0);
            /// share of the past in the confidence, at the first epoch and at the last.
            "conf-ema-range" confidence_momentum: [f64; 2] = [0.95, 0.8], "FROM,TO",
                Pair(LEAST, 1.0, "0.95,0.8");
            /// weight of the contrastive loss.
            "loss-weight" weight: f64 = 0.5, "WEIGHT", Number(0.0, MOST);
            /// length of an embedding.
            "low-dim" columns: usize = 128, "VALUES", Whole(1, 256);
            /// temperature of the contrastive loss.
            "temperature" temperature: f64 = 0.07, "TEMPERATURE", Number(1e-3, MOST);
        }
    }
}

impl Own for PicoSettings {}
