//! Launches of `batchnorm_joint.cu`: what a GPU adds up of its own rows, an exchange, and what follows from
//! the sums of all. By itself a GPU needs no exchange: its sums are those of all.

use anyhow::Result;

use super::{
    BatchNorm, BatchNormGradient, PartialGradientSums, PartialStatistics, over_tiles, partials, valid_rows,
};
use crate::device::gpu::kernels::batchnorm_joint::{self as kernels, THREADS};
use crate::device::gpu::launch::Address;
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};

/// Bytes of a GPU's sums: f64, two a channel and the number of its rows.
fn own_bytes(channels: usize) -> usize {
    (2 * channels + 1) * 8
}

/// Channels, and most lanes, of a block that adds up tiles.
const OWN_BLOCK: [usize; 2] = [kernels::FINISH_CHANNELS, kernels::FINISH_LANES];

/// Launches what makes the statistics of all rows of those of the own tiles.
pub(super) fn statistics(
    lowering: &mut Lowering<'_>,
    operation: &BatchNorm,
    sums: &PartialStatistics,
) -> Result<()> {
    let &BatchNorm { rows, channels, running, batch, valid, .. } = operation;
    let &PartialStatistics { address: partial, tiles, rows_per_tile: tile_rows } = sums;
    let (images, rows_each) = valid_rows(lowering, valid);
    let bytes = own_bytes(channels);
    let own = lowering.workspace(bytes);
    let work = Work::of((4 * tiles * channels) as f64)
        .reading([partials(partial, tiles, channels)])
        .writing([Span::new(own, bytes)]);
    let parameters =
        kernels::BatchnormOwnSums { rows, channels, tiles, tile_rows, rows_each, partial, images, own };
    lowering.launch(
        over_tiles(kernels::BATCHNORM_OWN_SUMS, OWN_BLOCK, [channels, tiles], parameters).doing(work),
    );

    let gathered = lowering.gather_equal(own, bytes)?;
    let ranks = lowering.share().size;
    let [running_span, batch_span] = [running, batch].map(|tensor| lowering.span(tensor));
    let work = Work::of((2 * ranks * channels) as f64)
        .reading([Span::new(gathered, ranks * bytes), running_span])
        .writing([running_span, batch_span]);
    let (running, batch) = (lowering.address(running), lowering.address(batch));
    let parameters = kernels::BatchnormJointStatistics { channels, ranks, gathered, running, batch };
    let blocks = channels.div_ceil(THREADS);
    lowering.launch(kernels::BATCHNORM_JOINT_STATISTICS.linear(blocks, THREADS, parameters).doing(work));
    Ok(())
}

/// Launches what makes the gradient of the parameters of the sums of the own tiles; returns where the sums
/// over all GPUs stand, times the own part of the rows, which is what the last pass divides by the own
/// number.
pub(super) fn gradient(
    lowering: &mut Lowering<'_>,
    operation: &BatchNormGradient,
    PartialGradientSums { address: partial, tiles }: PartialGradientSums,
) -> Result<Address> {
    let &BatchNormGradient { rows, channels, valid, batch, d_affine, .. } = operation;
    let (images, rows_each) = valid_rows(lowering, valid);
    let bytes = own_bytes(channels);
    let [own, share] = [bytes, 2 * channels * 4].map(|bytes| lowering.workspace(bytes));
    let batch_span = lowering.span(batch);
    let work = Work::of((2 * tiles * channels) as f64)
        .reading([partials(partial, tiles, channels), batch_span])
        .writing([Span::new(own, bytes), lowering.span(d_affine)]);
    let [batch, d_affine] = [batch, d_affine].map(|tensor| lowering.address(tensor));
    let parameters = kernels::BatchnormOwnGradient {
        rows,
        channels,
        tiles,
        rows_each,
        partial,
        batch,
        images,
        d_affine,
        own,
    };
    lowering.launch(
        over_tiles(kernels::BATCHNORM_OWN_GRADIENT, OWN_BLOCK, [channels, tiles], parameters).doing(work),
    );

    let gathered = lowering.gather_equal(own, bytes)?;
    let (rank, ranks) = (lowering.share().rank, lowering.share().size);
    let work = Work::of((2 * ranks * channels) as f64)
        .reading([Span::new(gathered, ranks * bytes), batch_span])
        .writing([Span::new(share, 2 * channels * 4)]);
    let parameters = kernels::BatchnormJointGradient { channels, rank, ranks, gathered, batch, share };
    let blocks = channels.div_ceil(THREADS);
    lowering.launch(kernels::BATCHNORM_JOINT_GRADIENT.linear(blocks, THREADS, parameters).doing(work));
    Ok(share)
}
