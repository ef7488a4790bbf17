//! What feeds a step: augmented views, plain normalised images for evaluation, and mixup.

use anyhow::{Result, ensure};
use rayon::prelude::*;

use crate::data::Normalisation;
use crate::data::augment::ViewParameters;
use crate::data::augment::parameters::VIEW_BYTES;
use crate::data::augment::view::{NormalisationTable, Scratch, augment_normalised};

/// Shapes of [`augment`].
pub(super) struct Views {
    /// Samples B.
    pub batch: usize,
    /// The view the first B rows are of: 0 weak, 1 strong; and how many views there are.
    pub first: usize,
    pub count: usize,
    /// Height and width of the source images.
    pub source: [usize; 2],
    /// Height and width of a view.
    pub size: usize,
}

thread_local! {
    /// Resize weights and pixel buffers of a thread, kept from step to step.
    static SCRATCH: std::cell::RefCell<Scratch> = std::cell::RefCell::default();
}

fn constants(normalisation: &[f32]) -> Normalisation {
    let part = |first: usize| std::array::from_fn(|channel| normalisation[first + channel]);
    Normalisation { mean: part(0), std: part(3) }
}

/// Views of the samples `index`; see [`crate::device::Primitive::Augment`].
pub(super) fn augment(
    shape: &Views,
    images: &[u8],
    parameters: &[u8],
    index: &[i32],
    normalisation: &[f32],
    views: &mut [f32],
) -> Result<()> {
    let Views { batch, first, count, source, size } = *shape;
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

/// x `[B,P,3]` = (u8/255 - mean) / std of images first.., the last image repeated past the end.
pub(super) fn normalise(pixels: usize, first: usize, images: &[u8], normalisation: &[f32], x: &mut [f32]) {
    let bytes = pixels * 3;
    let last = images.len() / bytes - 1;
    let table = NormalisationTable::new(constants(normalisation));
    x.par_chunks_exact_mut(bytes).enumerate().for_each(|(row, x)| {
        let image = (first + row).min(last);
        table.apply(&images[image * bytes..][..bytes], x);
    });
}

/// out `[R,len]` = weight x + (1 - weight) x', x' the partner that `permutation` `[B]` names within the row's group of
/// B; with `index`, rows are named by it. In f32, 1 - weight, both products and the sum rounded in this order.
pub(super) fn mixup(
    len: usize,
    weight: f32,
    permutation: &[i32],
    index: Option<&[i32]>,
    x: &[f32],
    out: &mut [f32],
) {
    let (batch, rest) = (permutation.len(), 1.0 - weight);
    let named = |row: usize| &x[index.map_or(row, |index| index[row] as usize) * len..][..len];
    out.par_chunks_exact_mut(len).enumerate().for_each(|(row, out)| {
        let partner = row / batch * batch + permutation[row % batch] as usize;
        for ((out, own), other) in out.iter_mut().zip(named(row)).zip(named(partner)) {
            *out = weight * own + rest * other;
        }
    });
}

/// out`[i]` = weight x`[rows[i]]` + (1 - weight) x`[partners[i]]` for the first `count` rows, in the roundings of [`mixup`]; 0 behind.
pub(super) fn mixup_chosen(
    len: usize,
    weight: f32,
    [rows, partners]: [&[i32]; 2],
    count: usize,
    x: &[f32],
    out: &mut [f32],
) {
    let rest = 1.0 - weight;
    out.par_chunks_exact_mut(len).enumerate().for_each(|(i, out)| {
        if i >= count {
            out.fill(0.0);
            return;
        }
        let row = |row: i32| &x[row as usize * len..][..len];
        for ((out, own), other) in out.iter_mut().zip(row(rows[i])).zip(row(partners[i])) {
            *out = weight * own + rest * other;
        }
    });
}
