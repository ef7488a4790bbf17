//! Mean maximum confidence and label accuracy of the confidence rows after an epoch.

use anyhow::Result;

use crate::autograd::Tape;
use crate::device::{Buffer, Device, Element, Plan};
use crate::ops::statistics;
use crate::pll::{ConfidenceStore, Start};

/// The statistics of all confidence rows of a store, recorded once.
pub struct ConfidenceSummary {
    plan: Plan,
    out: Buffer,
}

impl ConfidenceSummary {
    /// Records the statistics of rows that began as `start`.
    ///
    /// # Errors
    /// If the device has not enough memory.
    pub fn new(store: &ConfidenceStore, start: Start, device: &mut dyn Device) -> Result<Self> {
        let buffer = device.allocate(Element::F32, 2, "the confidence statistics")?;
        let mut tape = Tape::new(device.activations());
        let [confidence, labels, out] =
            [store.confidence, store.labels, buffer].map(|buffer| tape.persistent(buffer));
        // Where a row also has weights for the other classes, only its candidates count.
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

    /// `[mean maximum confidence (MMC), accuracy of the disambiguated labels]`, both in 0..=1.
    ///
    /// # Errors
    /// If the device fails.
    pub fn run(&self, device: &mut dyn Device) -> Result<[f64; 2]> {
        device.replay(&self.plan)?;
        let values = device.read_f32(self.out)?;
        Ok([f64::from(values[0]), f64::from(values[1])])
    }
}
