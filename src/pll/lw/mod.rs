//! LW (Wen et al., "Leveraged weighted loss for partial label learning", ICML 2021; docs/spec.md, section 6):
//! one view, sum_{k in s} c_k psi(z_k) + beta sum_{k not in s} c_k psi(-z_k). The weights c are two softmaxes
//! of z, one over the candidates and one over the other classes. Every step updates them from its own logits,
//! for the next epoch; the authors' code makes a second forward pass after the step for this.

mod disambiguation;
mod losses;
pub mod settings;

use anyhow::Result;

pub use self::disambiguation::TwoSoftmaxes;
pub use self::losses::{LeveragedCrossEntropy, LeveragedSigmoid};
use self::settings::{LwLoss, LwSettings};
use super::confidence::Start;
use super::label_method::LabelMethod;
use super::method::{Learner, Method, Room};
use super::registry::MethodEntry;
use crate::device::Device;
use crate::device::gpu::kernels::loss_by_kind;

/// LW for the registry.
pub static ENTRY: MethodEntry = MethodEntry {
    // Rows are updated from the first step on.
    first_update: 0,
    no_mixup: Some(
        "its loss asks which classes are candidates, and a mixture of two samples has no candidate set",
    ),
    step_settings: &["lw-loss", "lw-beta"],
    ..MethodEntry::with_settings::<LwSettings>("lw", "LW", "Leveraged weighted loss")
};

/// A weight of the other classes' losses above this is unusual.
const LARGE_BETA: f64 = 10.0;

impl LwSettings {
    /// The method with these settings.
    pub fn method(&self) -> LabelMethod {
        let beta = self.beta as f32;
        let (method, joint) = match self.loss {
            LwLoss::Sigmoid => (
                LabelMethod::new(LeveragedSigmoid { beta }, TwoSoftmaxes),
                loss_by_kind::LEVERAGED_SIGMOID_DISAMBIGUATE,
            ),
            LwLoss::CrossEntropy => {
                let loss = LeveragedCrossEntropy { beta };
                (LabelMethod::new(loss, TwoSoftmaxes), loss_by_kind::LEVERAGED_CROSS_ENTROPY_DISAMBIGUATE)
            }
        };
        LabelMethod { joint: Some(joint), start: Start::UniformInsideAndOutside, ..method }
    }
}

impl Method for LwSettings {
    fn start(&self) -> Start {
        self.method().start
    }

    fn large_settings(&self) -> Vec<(&'static str, f64)> {
        if self.beta > LARGE_BETA { vec![("--lw-beta", self.beta)] } else { Vec::new() }
    }

    fn on_device(&self, room: &Room, device: &mut dyn Device) -> Result<Box<dyn Learner>> {
        self.method().on_device(room, device)
    }
}
