//! Augmented, normalised views: a view per thread at a time.

use anyhow::{Result, ensure};
use rayon::prelude::*;

use super::Augment;
use crate::data::augment::ViewParameters;
use crate::data::augment::parameters::VIEW_BYTES;
use crate::data::augment::view::{NormalisationTable, Scratch, augment_normalised};
use crate::ops::input::constants;

thread_local! {
    /// Resize weights and pixel buffers of a thread, kept from step to step.
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

/// Views of the samples `index`.
pub(super) fn augment(
    operation: &Augment,
    images: &[u8],
    parameters: &[u8],
    index: &[i32],
    normalisation: &[f32],
    views: &mut [f32],
) -> Result<()> {
    let &Augment { batch, first, count, source, size, .. } = operation;
    let bytes = source[0] * source[1] * 3;
    ensure!(
        parameters.len() == images.len() / bytes * 2 * VIEW_BYTES,
        "one set of parameters a sample and view"
    );
    let table = NormalisationTable::new(constants(normalisation));
    let rows = views.par_chunks_exact_mut(size * size * 3).take(count * batch);
    rows.enumerate().for_each(|(row, out)| {
        let (view, sample) = (first + row / batch, index[row % batch] as usize);
        let given: ViewParameters =
            bytemuck::pod_read_unaligned(&parameters[(2 * sample + view) * VIEW_BYTES..][..VIEW_BYTES]);
        let image = &images[sample * bytes..][..bytes];
        SCRATCH
            .with_borrow_mut(|scratch| augment_normalised(image, source, &given, size, &table, scratch, out));
    });
    Ok(())
}
