//! The optimisers by name: the one list of them.

use anyhow::Result;

use super::adamw::AdamWOptimiser;
use super::sgd::SgdOptimiser;
use super::{Hyperparameters, Optimiser};
use crate::device::Device;

/// Makes an optimiser for the given number of parameters; fails if the device has not enough memory.
pub type Constructor = fn(Hyperparameters, usize, &mut dyn Device) -> Result<Box<dyn Optimiser>>;

const OPTIMISERS: &[(&str, Constructor)] = &[
    ("sgd", |constants, len, device| Ok(Box::new(SgdOptimiser::new(constants, len, device)?))),
    ("nesterov", |constants, len, device| Ok(Box::new(SgdOptimiser::nesterov(constants, len, device)?))),
    ("adamw", |constants, len, device| Ok(Box::new(AdamWOptimiser::new(constants, len, device)?))),
];

/// The names of the optimisers.
pub fn names() -> Vec<&'static str> {
    OPTIMISERS.iter().map(|&(name, _)| name).collect()
}

/// The default optimiser.
pub const DEFAULT: &str = "sgd";

/// The constructor of the optimiser `name`, if there is one.
pub fn find(name: &str) -> Option<Constructor> {
    OPTIMISERS.iter().find(|(known, _)| *known == name).map(|&(_, constructor)| constructor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::CpuDevice;

    #[test]
    fn names_are_known_and_others_not() {
        let mut device = CpuDevice::new(1).unwrap();
        for name in names() {
            let constants = Hyperparameters { momentum: 0.9, beta2: 0.999, weight_decay: 0.0 };
            let optimiser = find(name).unwrap()(constants, 3, &mut device).unwrap();
            assert!(optimiser.state().iter().all(|state| state.buffer().len <= 3), "{name}");
        }
        assert!(find("sdg").is_none());
        assert!(names().contains(&DEFAULT));
    }
}
