//! The learning rate of an epoch (SPEC 5).

/// How the learning rate falls.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// lr_e = lr_min + (lr - lr_min)(1 + cos(pi e / E)) / 2 with lr_min = lr decay³, over E epochs.
    Cosine {
        /// E.
        epochs: usize,
        /// decay.
        decay: f64,
    },
    /// lr decay^(number of milestones *strictly* below e), as the reference compares.
    Step {
        /// Epochs after which the rate falls.
        milestones: Vec<usize>,
        /// decay.
        decay: f64,
    },
}

impl Schedule {
    /// The learning rate of epoch `epoch` (from 0), where epoch 0 has `rate`.
    pub fn rate(&self, rate: f64, epoch: usize) -> f64 {
        match self {
            Schedule::Cosine { epochs, decay } => {
                let least = rate * decay.powi(3);
                let angle = std::f64::consts::PI * epoch as f64 / *epochs as f64;
                least + (rate - least) * (1.0 + angle.cos()) / 2.0
            }
            Schedule::Step { milestones, decay } => {
                let passed = milestones.iter().filter(|&&milestone| milestone < epoch).count();
                rate * decay.powi(passed as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn step_decays_one_epoch_after_the_milestone() {
        let schedule = Schedule::Step { milestones: vec![700, 800, 900], decay: 0.1 };
        assert_eq!(schedule.rate(0.01, 700), 0.01);
        assert!((schedule.rate(0.01, 701) - 0.001).abs() < 1e-12);
        assert!((schedule.rate(0.01, 950) - 0.00001).abs() < 1e-12);
    }

    #[test]
    fn cosine_at_known_epochs() {
        let schedule = Schedule::Cosine { epochs: 800, decay: 0.1 };
        assert_eq!(schedule.rate(0.01, 0), 0.01);
        assert!((schedule.rate(0.01, 1) - 0.009_999_961_485_460_446).abs() < 1e-15);
        assert!((schedule.rate(0.01, 400) - 0.005_005).abs() < 1e-12);
        assert!((schedule.rate(0.01, 799) - 1.003_851_453_955_457_5e-5).abs() < 1e-15);
    }

    proptest! {
        /// Rates never rise, and stay between the least and the first.
        #[test]
        fn rates_fall(
            rate in 1e-6f64..10.0,
            epochs in 1usize..500,
            decay in 0.01f64..1.0,
            milestones in proptest::collection::vec(0usize..500, 0..5),
        ) {
            for schedule in [Schedule::Cosine { epochs, decay }, Schedule::Step { milestones: milestones.clone(), decay }] {
                let rates: Vec<f64> = (0..epochs).map(|epoch| schedule.rate(rate, epoch)).collect();
                prop_assert!(rates.windows(2).all(|two| two[1] <= two[0] * (1.0 + 1e-12)));
                prop_assert!(rates.iter().all(|&r| r > 0.0 && r <= rate * (1.0 + 1e-12)));
            }
        }
    }
}
