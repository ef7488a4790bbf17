//! The settings of SoLar.

use crate::declaration::{LEAST, MOST, MOST_EPOCHS, Own};

crate::declare_settings! {
    /// The settings of SoLar (docs/spec.md, section 7).
    pub struct SolarSettings {
        "Method" {
            /// epochs of the stage that estimates the class prior.
            "est-epochs" estimation_epochs: usize = 100, "EPOCHS", Whole(0, MOST_EPOCHS);
            /// share of each class that is chosen, at the first epoch and after warm-up.
            "rho-range" rho: [f64; 2] = [0.2, 0.6], "FROM,TO", Pair(LEAST, 1.0, "0.2,0.6");
            /// step of the class prior in the estimation stage and in the training stage.
            "gamma" gamma: [f64; 2] = [0.1, 0.01], "FIRST,SECOND", Pair(LEAST, 1.0, "0.1,0.01");
            /// batches of earlier predictions that Sinkhorn sees beside the step's own.
            "queue-length" queue_length: usize = 64, "BATCHES", Whole(0, 4096);
            /// power of the predictions in Sinkhorn.
            "lamd" lambda: f64 = 3.0, "LAMBDA", Number(LEAST, MOST);
            /// weight of the chosen samples after warm-up.
            "eta" eta: f64 = 0.9, "WEIGHT", Number(LEAST, 1.0);
            /// a sample whose prediction agrees with its pseudo-label beyond this is chosen whatever its
            /// loss.
            "tau" tau: f64 = 0.99, "SHARE", Number(LEAST, MOST);
            /// epochs over which eta and rho reach their values.
            "warmup-epoch" warmup_epochs: usize = 50, "EPOCHS", Whole(0, MOST_EPOCHS);
            /// what the class prior is counted from: an extra pass over the training images after each epoch,
            /// or the forwards of the epoch's own steps.
            "prior-from" prior_from: PriorFrom = PriorFrom::Pass, "WORD", OneOf(PriorFrom::words);
        }
    }
}

impl Own for SolarSettings {
    /// The values of the published runs (docs/spec.md, section 7).
    fn defaults(dataset: &str) -> Self {
        let ten = Self::default();
        if dataset.starts_with("cifar100") {
            Self { estimation_epochs: 20, rho: [0.2, 0.5], gamma: [0.05, 0.01], ..ten }
        } else {
            ten
        }
    }
}

crate::declare_words! {
    /// What SoLar's class prior is counted from after an epoch (docs/spec.md, section 7).
    pub enum PriorFrom {
        /// An extra pass over all training images, as SoLar does.
        Pass = "pass",
        /// The forwards that the epoch's steps made anyway.
        Steps = "steps",
    }
}
