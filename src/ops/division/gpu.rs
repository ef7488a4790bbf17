//! Launches of `division.cu`, and the exchanges between them.

use anyhow::{Result, ensure};

use super::{AddParts, OwnCount, OwnRows, PlaceRows};
use crate::collective::Share;
use crate::device::Tensor;
use crate::device::gpu::exchange::Exchange;
use crate::device::gpu::kernels::division::{self as kernels, THREADS};
use crate::device::gpu::launch::Address;
use crate::device::gpu::lower::Lowering;
use crate::device::gpu::work::{Span, Work};

/// Bytes of a word.
const WORD: usize = 4;

/// Lowers the copy of the own rows, in words of 32 bits.
pub(super) fn own_rows(lowering: &mut Lowering<'_>, operation: &OwnRows) -> Result<()> {
    let &OwnRows { groups, count, len, share, x, out, .. } = operation;
    let bytes = len * lowering.element(x).bytes();
    ensure!(bytes.is_multiple_of(WORD), "own rows of {bytes} bytes: the kernel copies words of 4");
    let (rows, words) = (share.of(count), bytes / WORD);
    let parameters = kernels::OwnRows {
        groups,
        count,
        first: rows.start,
        rows: rows.len(),
        words,
        x: lowering.address(x),
        out: lowering.address(out),
    };
    lowering.launch_over(kernels::OWN_ROWS, [THREADS, 1], groups * rows.len() * words, parameters);
    Ok(())
}

/// Lowers the number of the own rows among the first ones.
pub(super) fn own_count(lowering: &mut Lowering<'_>, operation: &OwnCount) {
    let OwnCount { ref rows, count, out } = *operation;
    let (count, out) = (lowering.address(count), lowering.address(out));
    let parameters = kernels::OwnCount { first: rows.start, rows: rows.len(), count, out };
    lowering.launch(kernels::OWN_COUNT.linear(1, 1, parameters));
}

/// Lowers the exchange of rows, and their placing where they do not arrive in place.
pub(super) fn gather_rows(
    lowering: &mut Lowering<'_>,
    shape @ [groups, count, len]: [usize; 3],
    share: Share,
    [x, out]: [Tensor; 2],
) -> Result<()> {
    let bytes = (0..share.size).map(|rank| groups * share.of_rank(rank, count).len() * len * WORD).collect();
    let (own, to) = (lowering.address(x), lowering.address(out));
    if groups == 1 {
        return lowering.exchange(Exchange::Gather { own, all: to, bytes });
    }
    let all = lowering.workspace(groups * count * len * WORD);
    lowering.exchange(Exchange::Gather { own, all, bytes })?;
    place(lowering, shape, share.size, all, out);
    Ok(())
}

/// Lowers the placing of rows that were gathered.
pub(super) fn place_rows(lowering: &mut Lowering<'_>, operation: &PlaceRows) {
    let &PlaceRows { groups, count, len, ranks, gathered, out } = operation;
    let gathered = lowering.address(gathered);
    place(lowering, [groups, count, len], ranks, gathered, out);
}

fn place(
    lowering: &mut Lowering<'_>,
    [groups, count, len]: [usize; 3],
    ranks: usize,
    gathered: Address,
    out: Tensor,
) {
    let total = groups * count * len;
    let work = Work::of(0.0).reading([Span::new(gathered, total * WORD)]).writing([lowering.span(out)]);
    let parameters = kernels::PlaceRows { groups, count, len, ranks, gathered, out: lowering.address(out) };
    lowering.launch(kernels::PLACE_ROWS.linear(total.div_ceil(THREADS), THREADS, parameters).doing(work));
}

/// Lowers a sum over all GPUs, in place: each receives its part of the values of the others, adds up in the
/// order of the ranks, and receives the sums of the others.
pub(super) fn sum(lowering: &mut Lowering<'_>, len: usize, values: Tensor) -> Result<()> {
    let share @ Share { rank, size, .. } = lowering.share();
    let to = lowering.address(values);
    let part = |rank: usize| {
        let part = share.of_rank(rank, len);
        (to.plus(part.start * WORD), part.len() * WORD)
    };
    let (own, own_bytes) = part(rank);
    let stride = own_bytes.next_multiple_of(256);
    let received = lowering.workspace(size * stride);
    lowering.exchange(Exchange::Parts {
        parts: (0..size).map(part).collect(),
        received: (0..size).map(|rank| received.plus(rank * stride)).collect(),
    })?;
    if own_bytes > 0 {
        add(lowering, [own_bytes / WORD, stride / WORD], [rank, size], received, own);
    }
    lowering.exchange(Exchange::Gather { own, all: to, bytes: (0..size).map(|rank| part(rank).1).collect() })
}

/// Lowers the sum of parts that were received.
pub(super) fn add_parts(lowering: &mut Lowering<'_>, operation: &AddParts) {
    let &AddParts { len, rank, ranks, received, values } = operation;
    let (received, values) = (lowering.address(received), lowering.address(values));
    add(lowering, [len, len], [rank, ranks], received, values);
}

fn add(
    lowering: &mut Lowering<'_>,
    [len, stride]: [usize; 2],
    [rank, ranks]: [usize; 2],
    received: Address,
    values: Address,
) {
    let own = Span::new(values, len * WORD);
    let others = (0..ranks).filter(|&other| other != rank);
    let others = others.map(|other| Span::new(received.plus(other * stride * WORD), len * WORD));
    let work = Work::of((len * (ranks - 1)) as f64).reading(others).reading([own]).writing([own]);
    let parameters = kernels::AddParts { len, stride, rank, ranks, received, values };
    lowering.launch(kernels::ADD_PARTS.linear(len.div_ceil(THREADS), THREADS, parameters).doing(work));
}
