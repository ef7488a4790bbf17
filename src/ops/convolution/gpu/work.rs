//! What the launches of convolutions do: the pixels that a block gathers, the steps of its main loop, the
//! memory touched.

use super::halo::Halo;
use super::tiles::{WeightCut, WeightKernel, WeightTile};
use crate::device::Tensor;
use crate::device::gpu::kernels::batchnorm_value::MASK_FROM_BITS;
use crate::device::gpu::kernels::convolution::SLICE;
use crate::device::gpu::kernels::convolution_stem;
use crate::device::gpu::launch::Address;
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Gather, GatherOrder, Group, Product, Span, Work};
use crate::ops::batchnorm::{BatchNorm, BatchNormGradient, PartialGradientSums};
use crate::ops::convolution::ConvolutionShape;

/// A tile of a gathering kernel and where its values come from.
#[derive(Clone, Copy)]
pub(super) enum Gathered {
    /// Tiles of the pipeline: points by channels.
    Tile([usize; 2]),
    /// Likewise, but the pixels are copied once for all taps.
    Halo([usize; 2], Halo),
    /// One step over patches.
    Patches,
    /// No tensor cores.
    Plain,
}

/// One direction of a gathering: its points, and from a point to the positions that it takes, with `stride`
/// from one point to the next. The kernels' `Axis`.
struct Axis {
    points: usize,
    stride: usize,
    taps: Vec<isize>,
}

impl Axis {
    /// y[o] takes x[o stride + k - padding].
    fn forward(out: usize, kernel: usize, stride: usize) -> Self {
        let padding = (kernel / 2) as isize;
        Self { points: out, stride, taps: (0..kernel as isize).map(|k| k - padding).collect() }
    }

    /// x[i] takes y[o] where i = o stride + k - padding: for i = parity + stride g every stride-th tap.
    fn gradient(size: usize, kernel: usize, stride: usize, parity: usize) -> Self {
        let from = parity + kernel / 2;
        let (first, origin) = (from % stride, (from / stride) as isize);
        let taps = kernel.saturating_sub(first).div_ceil(stride);
        let points = (size + stride - 1 - parity) / stride;
        Self { points, stride: 1, taps: (0..taps as isize).map(|i| origin - i).collect() }
    }
}

/// The blocks of one dense gathering of `channels` of an image into `width` channels of the target.
fn group(
    [rows, columns]: [Axis; 2],
    image: [usize; 2],
    (batch, channels, width): (usize, usize, usize),
    [tile_rows, tile_columns]: [usize; 2],
) -> Group {
    let points = batch * rows.points * columns.points;
    let across = width.div_ceil(tile_columns);
    let taps: Vec<[isize; 2]> =
        rows.taps.iter().flat_map(|&r| columns.taps.iter().map(move |&s| [r, s])).collect();
    Group {
        blocks: points.div_ceil(tile_rows) * across,
        steps: taps.len() * channels.div_ceil(SLICE),
        gather: Some(Gather {
            image,
            pixel_bytes: channels * 2,
            points: [rows.points, columns.points],
            stride: rows.stride,
            taps,
            order: GatherOrder::Points { points: tile_rows, bytes: SLICE * 2, across },
        }),
    }
}

/// The product of a 3x3 convolution of `channels` onto `width` channels whose pixels are copied once: a step is a
/// row of taps.
fn with_halo(
    shape: &ConvolutionShape,
    [channels, width]: [usize; 2],
    tile @ [rows, columns]: [usize; 2],
    halo: Halo,
) -> Product {
    let ConvolutionShape { batch, height, width: across_image, kernel, .. } = *shape;
    let image = [height, across_image];
    let across = width.div_ceil(columns);
    let taps = Axis::forward(1, kernel, 1).taps;
    let gather = Gather {
        image,
        pixel_bytes: channels * 2,
        points: image,
        stride: 1,
        taps: taps.iter().flat_map(|&r| taps.iter().map(move |&s| [r, s])).collect(),
        order: GatherOrder::Halo { pixels: across * halo.copied, bytes: SLICE * 2, around: columns },
    };
    let blocks = (batch * height * across_image).div_ceil(rows) * across;
    let groups = vec![Group { blocks, steps: kernel * channels.div_ceil(SLICE), gather: Some(gather) }];
    Product { tile, slice: kernel * SLICE, barriers: kernel, loads_ahead: true, groups }
}

/// Pixels of the input that a convolution looks at, as a share of all: a 1x1 of stride 2 looks at every
/// fourth.
fn seen(shape: &ConvolutionShape) -> usize {
    match shape.kernel < shape.stride {
        true => shape.batch * shape.out_height() * shape.out_width() * shape.in_channels,
        false => shape.input_len(),
    }
}

/// Of a forward pass: x, w and y are `operands`; `statistics` are those that it leaves.
pub(super) fn forward(
    lowering: &Lowering<'_>,
    shape: &ConvolutionShape,
    [x, w, y]: [Tensor; 3],
    tile: Gathered,
    statistics: Option<Span>,
) -> Work {
    let ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride } = *shape;
    let bytes = seen(shape) * lowering.element(x).bytes();
    let work = Work::of(shape.flops())
        .reading([Span::new(lowering.address(x), bytes), lowering.span(w)])
        .writing([lowering.span(y)])
        .writing(statistics);
    let axes = || [shape.out_height(), shape.out_width()].map(|out| Axis::forward(out, kernel, stride));
    match tile {
        Gathered::Plain => work,
        Gathered::Patches => work.as_product(patches(shape)),
        Gathered::Tile(tile) => work.as_product(Product {
            tile,
            slice: SLICE,
            barriers: 1,
            loads_ahead: false,
            groups: vec![group(axes(), [height, width], (batch, in_channels, out_channels), tile)],
        }),
        Gathered::Halo(tile, halo) => {
            work.as_product(with_halo(shape, [in_channels, out_channels], tile, halo))
        }
    }
}

/// Of a forward pass, without it `work`, that normalises its input x itself and also writes it; `residual`: the
/// batchnorm that gives the residual, of which it is likewise.
pub(super) fn of_batchnorm(
    lowering: &Lowering<'_>,
    work: Work,
    of: &BatchNorm,
    residual: Option<&BatchNorm>,
) -> Work {
    let each = if of.residual.is_some() { 4 } else { 3 } + if residual.is_some() { 3 } else { 0 };
    let given = residual.map_or(of.residual.into_iter().collect(), |of| vec![of.x, of.affine, of.batch]);
    let read = [of.x, of.affine, of.batch].into_iter().chain(given);
    let work = on_arrival(lowering, work, (of.y, each * of.rows * of.channels), of.residual.is_some());
    work.reading(read.map(|tensor| lowering.span(tensor))).writing(lowering.optional_span(of.positive))
}

/// Of a data gradient, without it `work`, that computes its input dy from the gradient of a batchnorm, and also
/// writes it.
pub(super) fn of_batchnorm_gradient(lowering: &Lowering<'_>, work: Work, of: &BatchNormGradient) -> Work {
    let read = [of.x, of.dy, of.affine, of.batch, of.d_affine].map(|tensor| lowering.span(tensor));
    on_arrival(lowering, work, (of.dx, 5 * of.rows * of.channels), true).reading(read)
}

/// The same where nothing else needs dy, and it is not written.
pub(super) fn only_of_batchnorm_gradient(
    lowering: &Lowering<'_>,
    work: Work,
    of: &BatchNormGradient,
) -> Work {
    let mut work = of_batchnorm_gradient(lowering, work, of);
    work.writes.retain(|span| span.address != lowering.address(of.dx));
    work
}

/// The work of a product that computes what it multiplies, `input`, with so many operations, and writes it
/// instead of reading it; of `two` tensors of that shape.
fn on_arrival(lowering: &Lowering<'_>, mut work: Work, (input, flops): (Tensor, usize), two: bool) -> Work {
    let input = lowering.span(input);
    work.reads.retain(|span| span.address != input.address);
    work.flops += flops as f64;
    let groups = work.product.iter_mut().flat_map(|product| &mut product.groups);
    for gather in groups.filter_map(|group| group.gather.as_mut()) {
        if let GatherOrder::Halo { pixels, .. } = &mut gather.order {
            *pixels *= 1 + usize::from(two);
        }
    }
    work.writing([input])
}

/// The first layer: a patch is one step.
fn patches(shape: &ConvolutionShape) -> Product {
    use convolution_stem::{COLUMNS, PATCH, ROWS};
    let points = shape.batch * shape.out_height() * shape.out_width();
    let blocks = points.div_ceil(ROWS) * shape.out_channels.div_ceil(COLUMNS);
    let groups = vec![Group { blocks, steps: 1, gather: None }];
    Product { tile: [ROWS, COLUMNS], slice: PATCH, barriers: 1, loads_ahead: false, groups }
}

/// Of a data gradient: dy, w and dx are `operands`.
pub(super) fn data_gradient(
    lowering: &Lowering<'_>,
    shape: &ConvolutionShape,
    [dy, w, dx]: [Tensor; 3],
    tile: Gathered,
    accumulate: bool,
) -> Work {
    let ConvolutionShape { batch, height, width, in_channels, out_channels, kernel, stride } = *shape;
    // Where it accumulates, what no tap reaches is left alone.
    let touched = if accumulate { seen(shape) } else { shape.input_len() };
    let touched = Span::new(lowering.address(dx), touched * lowering.element(dx).bytes());
    let work = Work::of(shape.flops())
        .reading([lowering.span(dy), lowering.span(w)])
        .reading(accumulate.then_some(touched))
        .writing([touched]);
    let tile = match tile {
        Gathered::Tile(tile) => tile,
        Gathered::Halo(tile, halo) => {
            return work.as_product(with_halo(shape, [out_channels, in_channels], tile, halo));
        }
        Gathered::Patches | Gathered::Plain => return work,
    };
    // As the kernel numbers them: the parities of most taps first.
    let groups = (0..stride * stride).rev().map(|parity| {
        let axes = [(height, parity / stride), (width, parity % stride)]
            .map(|(size, parity)| Axis::gradient(size, kernel, stride, parity));
        let image = [shape.out_height(), shape.out_width()];
        group(axes, image, (batch, out_channels, in_channels), tile)
    });
    work.as_product(Product { tile, slice: SLICE, barriers: 1, loads_ahead: false, groups: groups.collect() })
}

/// Of a data gradient, without them `work`, that makes the sums of the batchnorm gradient behind it: it reads
/// that batchnorm's input, and the bits of its result where these give the mask.
pub(super) fn with_gradient_sums(
    lowering: &Lowering<'_>,
    work: Work,
    of: &BatchNormGradient,
    sums: PartialGradientSums,
) -> Work {
    let masks = of.positive.filter(|_| of.mask() == MASK_FROM_BITS).map(|bits| lowering.span(bits));
    work.reading([of.x, of.affine, of.batch].map(|tensor| lowering.span(tensor)))
        .reading(masks)
        .writing([sums.span(of.channels)])
}

/// Of a weight gradient that writes `len` values a share to `partials`: x and dy are `operands`.
pub(super) fn weight_gradient(
    lowering: &Lowering<'_>,
    shape: &ConvolutionShape,
    [x, dy]: [Tensor; 2],
    cut: &WeightCut,
    partials: Address,
) -> Work {
    let bytes = seen(shape) * lowering.element(x).bytes();
    let work = Work::of(shape.flops())
        .reading([Span::new(lowering.address(x), bytes), lowering.span(dy)])
        .writing([Span::new(partials, cut.splits * shape.weight_len() * 4)]);
    let gather = match cut.tile.kernel {
        WeightKernel::F32 => return work,
        WeightKernel::Stem(_) | WeightKernel::StemOfBatchnorm(_) => None,
        WeightKernel::Tile(_) => Some(columns(shape, cut)),
    };
    let (share, slice) = (cut.share, cut.tile.slice);
    let last = shape.output_len() / shape.out_channels - (cut.splits - 1) * share;
    let group = |shares: usize, points: usize| {
        let gather = gather.clone().map(|gather| match cut.tile.with_halo() {
            true => Gather { order: window(shape, &cut.tile, shares * (points + 2 * slice)), ..gather },
            false => gather,
        });
        Group { blocks: shares * cut.blocks, steps: points.div_ceil(slice), gather }
    };
    let groups = match last == share {
        true => vec![group(cut.splits, share)],
        false => vec![group(cut.splits - 1, share), group(1, last)],
    };
    work.as_product(Product {
        tile: [cut.tile.rows, cut.tile.columns],
        slice,
        barriers: 1,
        loads_ahead: false,
        groups,
    })
}

/// How the blocks of a weight gradient copy `pixels` of x, those of a step before and behind every share among them,
/// once for all taps: as often as there are tiles of output channels.
fn window(shape: &ConvolutionShape, tile: &WeightTile, pixels: usize) -> GatherOrder {
    let pixels = shape.out_channels.div_ceil(tile.rows) * pixels;
    GatherOrder::Halo { pixels, bytes: SLICE * 2, around: tile.rows }
}

/// What the blocks of a weight gradient gather of x: a part of the taps' pixels, for a share of the points.
fn columns(shape: &ConvolutionShape, cut: &WeightCut) -> Gather {
    let ConvolutionShape { height, width, in_channels, kernel, stride, .. } = *shape;
    let (offsets, across) =
        (Axis::forward(1, kernel, stride).taps, (kernel * kernel * in_channels).div_ceil(cut.tile.columns));
    Gather {
        image: [height, width],
        pixel_bytes: in_channels * 2,
        points: [shape.out_height(), shape.out_width()],
        stride,
        taps: offsets.iter().flat_map(|&r| offsets.iter().map(move |&s| [r, s])).collect(),
        order: GatherOrder::Columns {
            bytes: cut.tile.columns * 2,
            points: cut.tile.slice,
            across,
            down: cut.blocks / across,
            share: cut.share,
        },
    }
}
