//! What the confidence rows say of themselves after an epoch.

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Plan};
use crate::ops::statistics;
use crate::pll::{ConfidenceStore, Start};

/// The recorded statistics of a store.
pub struct ConfidenceStatistics {
    plan: Plan,
    out: Buffer,
}

impl ConfidenceStatistics {
    /// Records them for rows that began as `start`.
    ///
    /// # Errors
    /// When the device has not enough memory.
    pub fn new(store: &ConfidenceStore, start: Start, device: &mut dyn Device) -> Result<Self> {
        let buffer = device.allocate(Element::F32, 2, "the confidence statistics")?;
        let mut tape = Tape::new(device.activations());
        let [confidence, labels, out] =
            [store.confidence, store.labels, buffer].map(|buffer| tape.persistent(buffer));
        // Of rows that weigh the other classes as well, only the candidates' part counts.
        let candidates = start.weighs_others().then(|| tape.persistent(store.candidates));
        tape.push(statistics::ConfidenceStatistics {
            rows: store.samples,
            classes: store.classes,
            confidence,
            candidates,
            labels,
            out,
        });
        Ok(Self { plan: tape.finish(device)?, out: buffer })
    }

    /// `[mean max confidence, accuracy of the disambiguated labels]`, both in 0..=1.
    pub fn run(&self, device: &mut dyn Device) -> Result<[f64; 2]> {
        device.replay(&self.plan)?;
        let values = device.read_f32(self.out)?;
        Ok([f64::from(values[0]), f64::from(values[1])])
    }
}
